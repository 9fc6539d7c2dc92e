"""Synthetic slides and bags of images hold what they say."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from common.errors import InputError
from papers.acmil import image_bags
from papers.acmil.image_bags import draw_image_bags, generated_images, image_features
from papers.acmil.synthetic_slides import PATTERN_A, PATTERN_B, SlideRecipe, draw_bags, draw_slide, draw_world

RECIPE = SlideRecipe(
    d=20, smallest=30, largest=60, clusters=3, cluster_spread=1.0, pattern_features=4, shift_a=3.0, shift_b=1.5,
    both_patterns=0.7,
)  # fmt: skip


def kinds_of(bags):
    assert bags.kinds is not None
    return [bags.kinds[bags.bag(number)] for number in range(len(bags))]


def test_training_positives_hold_a_and_mostly_b():
    bags = draw_bags(RECIPE, 0.1, 400, 0, part="train")
    assert bags.sizes.min() >= 30
    assert bags.sizes.max() <= 60
    both = []
    for label, kinds in zip(bags.labels, kinds_of(bags), strict=True):
        expected = max(1, round(0.1 * len(kinds)))
        if label == 0:
            assert not kinds.any()
        else:
            assert (kinds == PATTERN_A).sum() == expected
            both.append((kinds == PATTERN_B).sum() == expected)
            assert (kinds == PATTERN_B).sum() in (0, expected)
    assert np.mean(both) == pytest.approx(0.7, abs=0.1)


def test_test_positives_hold_one_pattern():
    held = [set(kinds.tolist()) - {0} for kinds in kinds_of(draw_bags(RECIPE, 0.001, 40, 0, part="test"))]
    assert held[::2] == [set()] * 20
    assert held[1::4] == [{PATTERN_A}] * 10
    assert held[3::4] == [{PATTERN_B}] * 10


def test_patterns_are_shifted_in_features_of_their_own():
    bags = draw_bags(RECIPE, 0.3, 400, 1, part="train")
    world = draw_world(RECIPE, 1)
    assert np.abs(world.directions).sum(1).tolist() == [4, 4]
    assert not (world.directions[0] * world.directions[1]).any()
    background = bags.instances[bags.kinds == 0].mean(0)
    for kind, shift in ((PATTERN_A, 3.0), (PATTERN_B, 1.5)):
        difference = bags.instances[bags.kinds == kind].mean(0) - background
        np.testing.assert_allclose(difference, shift * world.directions[kind - 1], atol=0.15)
    noisy = draw_bags(RECIPE, 0.3, 400, 1, part="train", noise=2.0)
    assert noisy.instances.var(0).mean() == pytest.approx(bags.instances.var(0).mean() + 4, rel=0.05)


def test_bags_depend_on_seed_and_part_alone():
    one, same = (draw_bags(RECIPE, 0.1, 6, 2, part="test") for _ in "ab")
    np.testing.assert_array_equal(one.instances, same.instances)
    other = draw_bags(RECIPE, 0.1, 6, 3, part="test")
    assert one.instances.shape != other.instances.shape or not np.array_equal(one.instances, other.instances)


def test_a_slide_has_a_spot_of_each_pattern():
    slide = draw_slide(RECIPE, 20, 0)
    assert slide.kinds is not None
    assert slide.positions is not None
    grid = slide.kinds.reshape(20, 20)
    assert grid[6, 6] == PATTERN_A
    assert grid[14, 13] == PATTERN_B
    assert 0.005 < (grid == PATTERN_A).mean() < 0.05
    assert slide.positions[25].tolist() == [1, 5]


def test_recipes_that_make_no_sense():
    with pytest.raises(InputError, match="need at least 24"):
        draw_world(RECIPE.model_copy(update={"pattern_features": 12}), 0)
    for count, rate in ((2, 0.1), (4, 0.0), (4, 0.5)):
        with pytest.raises(InputError, match="at least four bags"):
            draw_bags(RECIPE, rate, count, 0, part="train")


def test_bags_of_images():
    images = generated_images(300, 0)
    features = images.pixels.reshape(300, -1)[:, :4].astype(np.float32)
    bags = draw_image_bags(features, images.classes, 30, 0, mean_size=40, spread=4, most_witnesses=5)
    assert bags.sizes.mean() == pytest.approx(40, abs=3)
    for label, kinds in zip(bags.labels, kinds_of(bags), strict=True):
        assert 1 <= kinds.sum() <= 5 if label else not kinds.any()
    with pytest.raises(InputError, match="make bags smaller"):
        draw_image_bags(features, images.classes, 4, 0, mean_size=400, spread=4, most_witnesses=5)


def test_image_features_are_principal_components_made_once(tmp_path, monkeypatch):
    monkeypatch.setenv("REATTEND_CACHE", str(tmp_path))
    made = []

    def load():
        made.append(1)
        return generated_images(60, 0), generated_images(40, 1)

    monkeypatch.setattr(image_bags, "load_fashion_mnist", load)
    (train, test), again = image_features(5), image_features(5)
    assert len(made) == 1
    np.testing.assert_array_equal(train, again[0])
    np.testing.assert_array_equal(test, again[1])
    pixels, other = (generated_images(count, seed).pixels.reshape(count, -1) / 255 for count, seed in ((60, 0), (40, 1)))
    fitted = PCA(5, svd_solver="full").fit(pixels)
    np.testing.assert_allclose(train, fitted.transform(pixels), atol=1e-5)
    np.testing.assert_allclose(test, fitted.transform(other), atol=1e-5)
    assert image_features(4)[0].shape == (60, 4)
    assert len(made) == 2
