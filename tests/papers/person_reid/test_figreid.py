"""FigReID: deterministic, balanced, disjoint; what a camera and a nuisance do; anchors."""

import numpy as np
import pytest
import torch
from matplotlib.colors import rgb_to_hsv

from common.metrics.reidentification import scores_in_short
from papers.person_reid.anchors import anchor_features, camera_centred, stripe_histograms
from papers.person_reid.figreid import (
    ROBOT_CAMERAS,
    STREET_CAMERAS,
    Counts,
    Difficulty,
    draw_identity,
    draw_shot,
    figreid,
    image_of,
    plan,
    seen_by,
)
from papers.person_reid.figures_of_people import PATTERNS
from papers.person_reid.training import Trial

HARD = Difficulty(gain=(0.85, 1.15), gamma=(0.8, 1.25), second_figure=0.2, occluder=0.25, look_alikes=4)
COUNTS = Counts(
    train=6, validation=5, test=7, distractors=4, junk=3, cameras=(3, 6), train_images=4, test_images=2
)  # fmt: skip
SIZE = (64, 32)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("common.data.feature_cache.cache_folder", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize("place", ["street", "robot"])
def test_the_same_seed_gives_the_same_images_and_another_seed_others(place, cache, monkeypatch):
    first = figreid(place, 3, COUNTS, HARD, SIZE)
    stored = figreid(place, 3, COUNTS, HARD, SIZE)
    monkeypatch.setattr("common.data.feature_cache.cache_folder", lambda: cache / "another")
    again, other = figreid(place, 3, COUNTS, HARD, SIZE), figreid(place, 4, COUNTS, HARD, SIZE)
    for part in first:
        for found in (stored, again):
            np.testing.assert_array_equal(first[part].pixels, found[part].pixels)
            np.testing.assert_array_equal(first[part].identities, found[part].identities)
            np.testing.assert_array_equal(first[part].cameras, found[part].cameras)
    assert not np.array_equal(first["train"].pixels[:5], other["train"].pixels[:5])


def test_an_image_does_not_depend_on_how_many_others_there_are(cache):
    more = COUNTS.model_copy(update={"test": 9, "junk": 0})
    a, b = figreid("street", 3, COUNTS, HARD, SIZE), figreid("street", 3, more, HARD, SIZE)
    np.testing.assert_array_equal(a["train"].pixels, b["train"].pixels)
    np.testing.assert_array_equal(a["query"].pixels, b["query"].pixels[: len(a["query"])])


@pytest.mark.parametrize("place", ["street", "robot"])
def test_parts_are_balanced_and_disjoint(place):
    parts = plan(place, 3, COUNTS, HARD.look_alikes)
    drawn = {part: {order for _, order in images} for part, images in parts.items()}
    assert sum(len(orders) for orders in drawn.values()) == len(set().union(*drawn.values()))
    groups = [
        {order[0] // HARD.look_alikes for part in role for order in drawn[part]}
        for role in (("train",), ("validation_query", "validation_gallery"), ("query",))
    ]
    assert groups[0].isdisjoint(groups[1])
    assert groups[0].isdisjoint(groups[2])
    assert groups[1].isdisjoint(groups[2])
    identities = [named for named, _ in parts["train"]]
    assert len(set(identities)) == 6
    for identity in set(identities):
        cameras = [order[1] for named, order in parts["train"] if named == identity]
        assert all(cameras.count(camera) == 4 for camera in cameras)
        assert len(set(cameras)) == ROBOT_CAMERAS if place == "robot" else 3 <= len(set(cameras)) <= 6
    query = {(named, order[1]) for named, order in parts["query"]}
    right = [(named, order[1]) for named, order in parts["gallery"] if named > 0]
    assert len(query) == len(parts["query"])  # one query an identity and camera
    assert sorted(right) == sorted(query)  # and of two images the other in the gallery
    assert [named for named, _ in parts["gallery"]].count(0) == 4
    assert [named for named, _ in parts["gallery"]].count(-1) == 3


def test_cameras_are_used_alike():
    counts = np.zeros(STREET_CAMERAS + 1)
    for identity in range(600):
        for camera in seen_by(0, "street", identity, (3, 6)):
            counts[camera] += 1
    assert counts[0] == 0
    assert (abs(counts[1:] / 600 - 4.5 / 6) < 0.06).all()


def test_look_alikes_share_the_colours_of_their_clothes_and_nothing_makes_them_equal():
    people = [draw_identity(0, number, 4) for number in range(400)]
    for start in range(0, 400, 4):
        assert len({(person.top, person.bottom_colour) for person in people[start : start + 4]}) == 1
    assert len(set(people)) == 400
    assert len({(person.top, person.bottom_colour) for person in people}) > 50
    assert all(person.second != person.top for person in people)
    shares = [sum(person.pattern == pattern for person in people) / 400 for pattern in PATTERNS]
    assert max(abs(share - 1 / 6) for share in shares) < 0.07
    assert abs(sum(person.cap is not None for person in people) / 400 - 0.25) < 0.07


def test_nuisances_have_their_probabilities():
    shots = [draw_shot(0, "street", (n, 1, 0), 10**6, HARD) for n in range(600)]
    assert abs(np.mean([shot.occluder is not None for shot in shots]) - 0.25) < 0.06
    assert abs(np.mean([shot.other is not None for shot in shots]) - 0.2) < 0.06
    assert {len(shot.rectangles) for shot in shots} == {0, 1, 2, 3}
    never = HARD.model_copy(update={"occluder": 0.0, "second_figure": 0.0})
    assert all(
        shot.occluder is None and shot.other is None
        for shot in (draw_shot(0, "street", (n, 1, 0), 10**6, never) for n in range(50))
    )
    close = [draw_shot(0, "robot", (n, 1, 0), 10**6, HARD).cut < 1 for n in range(600)]
    assert abs(np.mean(close) - 0.4) < 0.06


def test_a_robot_sees_darker_images_and_a_sequence_goes_on():
    street = np.mean([image_of(0, "street", (n, 1, 0), SIZE, 10**6, HARD).mean() for n in range(20)])
    robot = np.mean([image_of(0, "robot", (n, 1, 0), SIZE, 10**6, HARD).mean() for n in range(20)])
    assert robot < street
    shots = [draw_shot(0, "robot", (5, 1, n), 10**6, HARD) for n in range(8)]
    assert len({shot.view for shot in shots[:4]}) == len({shot.view for shot in shots[4:]}) == 1
    np.testing.assert_allclose(np.diff([shot.phase for shot in shots]), np.pi / 4)


def test_counts_and_probabilities_are_checked():
    with pytest.raises(ValueError, match="test_images"):
        Counts(**{**COUNTS.model_dump(), "test_images": 1})
    with pytest.raises(ValueError, match="occluder"):
        Difficulty(**{**HARD.model_dump(), "occluder": 1.5})


def test_cameras_means_hide_identities_from_pixels(cache):
    counts = COUNTS.model_copy(update={"test": 60, "train": 2, "validation": 2, "distractors": 0})
    parts = figreid("street", 0, counts, HARD, SIZE)
    trial = Trial.of(parts["query"], parts["gallery"], "cpu")
    maps = {name: scores_in_short(trial.scores(*pair))["map"] for name, pair in anchor_features(trial, 0).items()}
    assert maps["chance"] < maps["camera_centred_pixels"] < 50
    assert maps["pixels"] < maps["camera_centred_pixels"]


def test_camera_centred_takes_away_the_mean_of_the_camera():
    query, gallery = torch.tensor([[1.0, 4], [10, 0]]), torch.tensor([[3.0, 0]])
    found = camera_centred((query, gallery), (torch.tensor([1, 2]), torch.tensor([1])))
    torch.testing.assert_close(found[0], torch.tensor([[-1.0, 2], [0, 0]]))
    torch.testing.assert_close(found[1], torch.tensor([[1.0, -2]]))


def test_stripe_histograms_equal_loops():
    images = torch.randint(0, 256, (2, 3, 16, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    found = stripe_histograms(images).numpy()
    for b in range(2):
        expected = []
        for stripe in range(8):
            for channel, bins in enumerate((8, 4, 4)):
                counts = [0.0] * bins
                for i in (2 * stripe, 2 * stripe + 1):
                    for j in range(4):
                        value = rgb_to_hsv(images[b, :, i, j].numpy() / 255)[channel]
                        counts[min(int(value * bins), bins - 1)] += 1 / 8
                expected += counts
        np.testing.assert_allclose(found[b], expected, rtol=1e-6)
