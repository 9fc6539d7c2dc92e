"""Scenes: deterministic, balanced, held-out names and pairs held out, questions answered by the right pixels."""

from collections import Counter

import numpy as np
import pytest
import torch

from common.data.emoji_sprites import Drawn, generated_sprites
from common.errors import ConfigError, InputError
from papers.sentence_attention.emoji_ground import (
    COLOURS,
    KINDS,
    MIX,
    SPLITS,
    make_scenes,
    make_vocabulary,
    nearest_in_cone,
    position_word,
    questions_about,
    scenes_of,
)
from papers.sentence_attention.rendering import mask_of, paint, target_bits

SPRITES = generated_sprites(0)
VOCABULARY = make_vocabulary(SPRITES.objects)


@pytest.fixture(scope="module")
def large():
    """A vocabulary with enough names for shares to show."""
    objects = [
        Drawn(f"thing{i}", (f"tag{i}", "common", f"thing{i} word"), "Objects", ("animal-x", "food-x", "tool", "other")[i % 4])
        for i in range(723)
    ]
    return make_vocabulary(objects)


@pytest.mark.parametrize("split", SPLITS)
def test_scenes_are_deterministic_and_more_of_them_change_no_earlier_one(split):
    few, many = (make_scenes(VOCABULARY, split, count, seed=3, questions=2) for count in (5, 9))
    for name in ("labels", "centres", "sizes", "flips", "angles", "colours", "tiles", "background", "gradients", "noise"):
        np.testing.assert_array_equal(getattr(few, name), getattr(many, name)[:5])
    assert few.questions == many.questions[:5]
    other = make_scenes(VOCABULARY, split, 5, seed=4, questions=2)
    assert not np.array_equal(few.background, other.background)


def test_names_are_split_as_said(large):
    sizes = [len(part) for part in (large.training, large.validation, large.testing)]
    assert sizes == [560, 60, 103]
    assert sorted(np.concatenate([large.training, large.validation, large.testing])) == list(range(723))
    assert large.held.mean() == pytest.approx(0.2, abs=0.02)


def test_synonyms_mean_one_object_and_are_part_of_no_name(large):
    assert set(large.synonyms) == set(large.training.tolist())
    for number, tags in large.synonyms.items():
        assert tags == (f"tag{number}",)


def test_held_out_names_and_pairs_are_held_out(large):
    for split in SPLITS:
        scenes = make_scenes(large, split, 150, seed=0)
        shown = {int(x) for x in scenes.labels.ravel() if x >= 0}
        pool = large.testing if split == "newname" else large.training
        assert shown <= set(pool.tolist())
        if split == "newname":
            continue
        for number, labels in enumerate(scenes.labels):
            for slot, label in enumerate(labels[labels >= 0]):
                held = large.held[label, scenes.colours[number, slot]]
                assert held == (split == "newcomb" and slot == 0)


def test_objects_and_colours_differ_within_a_scene_and_stay_in_their_cells(large):
    scenes = make_scenes(large, "train", 200, seed=0, questions=4)
    counts = (scenes.labels >= 0).sum(1)
    assert set(counts) == {3, 4, 5, 6}
    for number, n in enumerate(counts):
        assert len(set(scenes.labels[number, :n])) == n
        assert len(set(scenes.colours[number, :n])) == n
        named = np.array(list(COLOURS.values()))[scenes.colours[number, :n]]
        assert np.abs(scenes.tiles[number, :n] - named).max() < 50
        cells = set()
        for slot in range(n):
            low, high = (scenes.centres[number, slot] + sign * scenes.sizes[number, slot] / 2 for sign in (-1, 1))
            assert (low >= -1e-6).all()
            assert (high <= 1 + 1e-6).all()
            cell = tuple((scenes.centres[number, slot] * 3).astype(int))
            assert (np.floor(low * 3 + 1e-5) == cell).all()
            assert (np.ceil(high * 3 - 1e-5) == np.array(cell) + 1).all()
            cells.add(cell)
        assert len(cells) == n


def test_kinds_and_places_are_balanced(large):
    scenes = make_scenes(large, "train", 1500, seed=0, questions=4)
    kinds = Counter(q.kind for asked in scenes.questions for q in asked)
    for kind, share in zip(KINDS, MIX, strict=True):
        assert kinds[kind] / 6000 == pytest.approx(share, abs=0.06), kind
    places = Counter(q.answer for asked in scenes.questions for q in asked if q.kind == "name")
    assert len(places) == 9
    assert max(places.values()) < 1.4 * min(places.values())
    assert all(len(set(asked)) == 4 for asked in scenes.questions)


def test_splits_ask_their_questions(large):
    assert {q.kind for asked in make_scenes(large, "relation", 40, seed=0).questions for q in asked} == {"relation"}
    assert {q.kind for asked in make_scenes(large, "newname", 40, seed=0).questions for q in asked} == {"name"}
    assert {q.kind for asked in make_scenes(large, "newcomb", 80, seed=0).questions for q in asked} == {"name", "tile"}
    scenes = make_scenes(large, "synonym", 40, seed=0)
    for labels, (question,) in zip(scenes.labels, scenes.questions, strict=True):
        assert question.text == f"Where is the tag{labels[0]}?"
        assert question.targets == (0,)


def test_a_scene_by_hand():
    objects = VOCABULARY.objects
    numbers = {one.label: number for number, one in enumerate(objects)}
    labels = np.array([numbers["dog"], numbers["cat"], numbers["car"]])
    centres = np.array([[0.2, 0.2], [0.8, 0.25], [0.2, 0.8]])
    found = questions_about(VOCABULARY, labels, np.array([0, 2, 4]), centres)
    said = {(q.text, q.answer, q.targets) for questions in found.values() for q in questions}
    assert said == {
        ("Where is the dog?", "top left", (0,)),
        ("Where is the cat?", "top right", (1,)),
        ("Where is the car?", "bottom left", (2,)),
        ("What is on the red tile?", "dog", (0,)),
        ("What is on the blue tile?", "cat", (1,)),
        ("What is on the purple tile?", "car", (2,)),
        ("Which animal is shown?", "dog and cat", (0, 1)),
        ("Which vehicle is shown?", "car", (2,)),
        ("What is to the right of the dog?", "cat", (1,)),
        ("What is below the dog?", "car", (2,)),
        ("What is to the left of the cat?", "dog", (0,)),
        ("What is above the car?", "dog", (0,)),
        ("What is to the right of the car?", "cat", (1,)),
    }
    assert position_word(0.5, 0.5) == "centre"
    assert position_word(0.99, 0.5) == "middle right"


def test_the_nearest_in_a_cone_is_that_of_a_search():
    generator = np.random.default_rng(0)
    for _ in range(50):
        centres = generator.random((6, 2))
        for relation, (dx, dy) in enumerate(((-1, 0), (1, 0), (0, -1), (0, 1))):
            best, nearest = None, np.inf
            for other in range(1, 6):
                step = centres[other] - centres[0]
                distance = float(np.hypot(*step))
                if (step[0] * dx + step[1] * dy) / distance >= np.cos(np.pi / 4) and distance < nearest:
                    best, nearest = other, distance
            assert nearest_in_cone(centres, 0, relation) == best


def test_bad_sizes_are_refused():
    with pytest.raises(InputError, match="0 scenes"):
        make_scenes(VOCABULARY, "train", 0, seed=0)
    with pytest.raises(InputError, match="7 questions"):
        make_scenes(VOCABULARY, "train", 1, seed=0, questions=7)
    with pytest.raises(InputError, match="20 objects"):
        make_vocabulary(SPRITES.objects[:20])
    with pytest.raises(ConfigError, match="'newnames'"):
        scenes_of("generated", "newnames", 1, 0)


def test_painting_puts_every_object_on_its_tile():
    scenes = make_scenes(VOCABULARY, "train", 12, seed=0, questions=4)
    canvas = 96
    painted = paint(scenes, SPRITES.pixels["twemoji"], canvas, "cpu")
    assert painted.images.shape == (12, 3, 96, 96)
    assert painted.images.dtype == torch.uint8
    place = (np.arange(canvas) + 0.5) / canvas
    for number in range(12):
        for slot in range(6):
            mask = (painted.slots[number] == slot + 1).numpy()
            if scenes.labels[number, slot] < 0:
                assert not mask.any()
                continue
            (x, y), size = scenes.centres[number, slot], scenes.sizes[number, slot]
            on_tile = (np.abs(place - y) <= size / 2)[:, None] & (np.abs(place - x) <= size / 2)[None]
            assert mask.any()
            assert not (mask & ~on_tile).any()
            sprite = SPRITES.pixels["twemoji"][scenes.labels[number, slot]]
            share = (sprite[..., 3] > 127).mean() * 0.85**2
            assert mask.sum() / on_tile.sum() == pytest.approx(share, abs=0.09)
            inside = painted.images[number].numpy().transpose(1, 2, 0)[mask]
            colour = sprite[sprite[..., 3] > 0][0, :3]
            assert np.abs(np.median(inside, axis=0) - colour).max() <= 2
            rim = painted.images[number].numpy().transpose(1, 2, 0)[on_tile & ~mask]
            assert np.abs(np.median(rim, axis=0) - np.clip(scenes.tiles[number, slot], 0, 255)).max() <= 4


def test_painting_in_parts_gives_the_same(monkeypatch):
    scenes = make_scenes(VOCABULARY, "iid", 7, seed=0)
    whole = paint(scenes, SPRITES.pixels["noto"], 48, "cpu")
    monkeypatch.setattr("papers.sentence_attention.rendering.AT_ONCE", 3)
    parts = paint(scenes, SPRITES.pixels["noto"], 48, "cpu")
    assert torch.equal(whole.images, parts.images)
    assert torch.equal(whole.slots, parts.slots)
    with pytest.raises(InputError, match="canvas"):
        paint(scenes, SPRITES.pixels["noto"], 16, "cpu")


def test_an_unturned_drawing_is_copied_pixel_by_pixel():
    scenes = make_scenes(VOCABULARY, "iid", 1, seed=0)
    scenes.labels[:] = -1
    scenes.labels[0, 0] = 5
    scenes.angles[:], scenes.flips[:] = 0, False
    canvas = 480
    side = 64 * 2  # of the drawing on the canvas: each of its pixels is four of the canvas
    scenes.sizes[0, 0] = side / 0.85 / canvas
    scenes.centres[0, 0] = (0.5, 0.25)
    for flip in (False, True):
        scenes.flips[0, 0] = flip
        slots = paint(scenes, SPRITES.pixels["twemoji"], canvas, "cpu").slots[0]
        found = slots[120 - 64 : 120 + 64, 240 - 64 : 240 + 64].numpy() == 1
        alpha = SPRITES.pixels["twemoji"][5, :, :, 3] > 127
        wanted = np.kron(alpha[:, ::-1] if flip else alpha, np.ones((2, 2), bool))
        assert (found == wanted).mean() > 0.99


def test_masks_of_questions_are_unions_of_slots():
    slots = torch.tensor([[[0, 1, 2], [3, 6, 6]]], dtype=torch.uint8)
    found = mask_of(slots[:, None], torch.tensor([[0b000101, 0b100000, 0]]))
    wanted = [[[0, 1, 0], [1, 0, 0]], [[0, 0, 0], [0, 1, 1]], [[0, 0, 0], [0, 0, 0]]]
    assert found.int().tolist() == [wanted]


def test_target_bits_are_the_targets():
    scenes = make_scenes(VOCABULARY, "train", 20, seed=0, questions=3)
    for bits, asked in zip(target_bits(scenes), scenes.questions, strict=True):
        for one, question in zip(bits, asked, strict=True):
            assert [slot for slot in range(6) if one >> slot & 1] == sorted(question.targets)
