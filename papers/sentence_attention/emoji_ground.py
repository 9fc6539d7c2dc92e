"""EmojiGround: made-up scenes of drawn objects on coloured tiles, with questions whose answers are exact masks.

A scene has three to six objects in cells of a 3x3 grid, each on a square tile of its own colour. Everything is drawn from the
seed, split and number of a scene, so that more scenes never change earlier ones. `rendering` paints what this file describes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np

from common.data.emoji_sprites import Drawn, Sprites, generated_sprites, load_sprites
from common.errors import ConfigError, InputError

SpriteSet = Literal["emoji", "generated"]
Split = Literal["train", "iid", "newname", "synonym", "newcomb", "style", "relation"]
Kind = Literal["name", "tile", "category", "relation"]
TextMode = Literal["q", "a", "qa"]
"""Question, answer, or both as one string."""

SPLITS: tuple[Split, ...] = get_args(Split)
KINDS: tuple[Kind, ...] = get_args(Kind)
MIX = (0.5, 0.25, 0.15, 0.1)
"""Share of each kind of question."""

COLOURS = {
    "red": (214, 60, 55),
    "green": (70, 165, 80),
    "blue": (60, 105, 210),
    "yellow": (245, 220, 70),
    "purple": (140, 75, 175),
    "orange": (235, 125, 35),
}
GRID = 3
SLOTS = 6
"""Objects of a scene, at most."""
LATTICE = 9
"""Points of the background's noise along a side."""

TRAINING, VALIDATION = 560, 60
"""Of 723 names; the others are for testing alone. Fewer objects are split in proportion."""
HELD_PAIRS = 0.2
"""Share of pairs of a name and a tile colour that are never shown in training."""

_RELATIONS = ("to the left of", "to the right of", "above", "below")
_ROWS, _COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")


@dataclass(frozen=True)
class Vocabulary:
    """Which names, synonyms and pairs are for what.

    Attributes:
        objects: all.
        training: numbers of objects that training shows.
        validation: of objects that nothing shows; kept for choices.
        testing: of objects that `newname` alone shows.
        held: bool [objects, colours], pairs that `newcomb` alone shows.
        synonyms: number of a training object -> words that mean it and no other, and are part of no name.
        groups: of each object "animal", "food", "vehicle", "tool" or "".
    """

    objects: tuple[Drawn, ...]
    training: np.ndarray
    validation: np.ndarray
    testing: np.ndarray
    held: np.ndarray
    synonyms: dict[int, tuple[str, ...]]
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """A question about a scene.

    Attributes:
        kind: of it.
        text: the question.
        answer: in words.
        targets: slots whose objects are the mask.
    """

    kind: Kind
    text: str
    answer: str
    targets: tuple[int, ...]


@dataclass(frozen=True)
class Scenes:
    """N scenes of one split with Q questions each; unused slots have label -1.

    Attributes:
        split: which.
        labels: int64 [N, 6], numbers of objects.
        centres: float32 [N, 6, 2], x and y in 0..1 of the canvas.
        sizes: float32 [N, 6], side of the tile over the canvas.
        flips: bool [N, 6].
        angles: float32 [N, 6], degrees.
        colours: int64 [N, 6], numbers in `COLOURS`, -1 where unused.
        tiles: float32 [N, 6, 3], those colours with noise, about 0..255.
        background: float32 [N, 3].
        gradients: float32 [N], from the top to the bottom.
        noise: float32 [N, 9, 9].
        questions: of each scene Q.
    """

    split: Split
    labels: np.ndarray
    centres: np.ndarray
    sizes: np.ndarray
    flips: np.ndarray
    angles: np.ndarray
    colours: np.ndarray
    tiles: np.ndarray
    background: np.ndarray
    gradients: np.ndarray
    noise: np.ndarray
    questions: tuple[tuple[Question, ...], ...]

    def __len__(self) -> int:
        return len(self.labels)

    def sentences(self, mode: TextMode) -> list[list[str]]:
        """The text of every question: of each scene Q."""
        return [[sentence_of(question, mode) for question in questions] for questions in self.questions]


def sentence_of(question: Question, mode: TextMode) -> str:
    """The text that a network reads."""
    return {"q": question.text, "a": question.answer, "qa": f"{question.text} {question.answer}"}[mode]


def _group(one: Drawn) -> str:
    for prefix, group in (("animal-", "animal"), ("food-", "food"), ("transport-", "vehicle")):
        if one.subcategory.startswith(prefix):
            return group
    return "tool" if one.subcategory == "tool" else ""


def make_vocabulary(objects: Sequence[Drawn]) -> Vocabulary:
    """Split names and pairs with seed 0.

    Raises:
        InputError: there are too few objects for scenes of six names in training and in testing.
    """
    count = len(objects)
    generator = np.random.default_rng(0)
    order = generator.permutation(count)
    first, second = round(count * TRAINING / 723), round(count * (TRAINING + VALIDATION) / 723)
    training, validation, testing = np.split(order, [first, second])
    if len(testing) < SLOTS:
        raise InputError(f"{count} objects leave {len(testing)} names for testing; at least {SLOTS} are needed.")
    held = generator.random((count, len(COLOURS))) < HELD_PAIRS
    words = {word for one in objects for word in one.label.lower().replace("-", " ").split()}
    bearers: dict[str, list[int]] = {}
    for number, one in enumerate(objects):
        for tag in one.tags:
            bearers.setdefault(tag.lower(), []).append(number)
    synonyms = {
        int(number): tuple(
            tag for tag in map(str.lower, objects[number].tags) if bearers[tag] == [number] and not words & set(tag.split())
        )
        for number in training
    }
    return Vocabulary(
        tuple(objects),
        training,
        validation,
        testing,
        held,
        {number: tags for number, tags in synonyms.items() if tags},
        tuple(map(_group, objects)),
    )


@lru_cache(maxsize=2)
def sprites_of(name: SpriteSet) -> Sprites:
    """The drawings. Raises DataError when they cannot be had."""
    return load_sprites() if name == "emoji" else generated_sprites(0)


@lru_cache(maxsize=2)
def vocabulary_of(name: SpriteSet) -> Vocabulary:
    """The vocabulary of a set of drawings. Raises DataError when it cannot be had."""
    return make_vocabulary(sprites_of(name).objects)


def _colours(generator: np.random.Generator, vocabulary: Vocabulary, labels: np.ndarray, split: Split) -> np.ndarray | None:
    """Distinct tile colours of the objects, or None where no draw of a few keeps to the pairs of the split."""
    for _ in range(60):
        colours = generator.permutation(len(COLOURS))[: len(labels)]
        held = vocabulary.held[labels, colours]
        if split == "newname" or (held[0] == (split == "newcomb") and not held[1:].any()):
            return colours
    return None


def _objects(generator: np.random.Generator, vocabulary: Vocabulary, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and tile colours of a scene's objects; in `newcomb` and `synonym` the question is about the first."""
    pool = vocabulary.testing if split == "newname" else vocabulary.training
    while True:
        labels = generator.choice(pool, int(generator.integers(3, SLOTS + 1)), replace=False)
        if split == "synonym":
            first = generator.choice(list(vocabulary.synonyms))
            labels = np.array([first, *labels[labels != first]])[:SLOTS]
        colours = _colours(generator, vocabulary, labels, split)
        if colours is not None:
            return labels, colours


def position_word(x: float, y: float) -> str:
    """Where a place in 0..1 is: "top left", "centre", ..."""
    row, column = _ROWS[min(int(y * GRID), GRID - 1)], _COLUMNS[min(int(x * GRID), GRID - 1)]
    return "centre" if (row, column) == ("middle", "centre") else f"{row} {column}"


def nearest_in_cone(centres: np.ndarray, start: int, relation: int) -> int | None:
    """The nearest object to the left of, right of, above or below another, in a cone of 90 degrees; None where there is none.

    Args:
        centres: [n, 2], x and y, y downwards.
        start: number of the object from which one looks.
        relation: 0 left, 1 right, 2 above, 3 below.
    """
    offset = centres - centres[start]
    axis, sign = relation // 2, (-1, 1)[relation % 2]
    along, across = sign * offset[:, axis], np.abs(offset[:, 1 - axis])
    inside = (along > 0) & (across <= along)
    distance = np.where(inside, np.linalg.norm(offset, axis=1), np.inf)
    return int(distance.argmin()) if inside.any() else None


def questions_about(
    vocabulary: Vocabulary, labels: np.ndarray, colours: np.ndarray, centres: np.ndarray
) -> dict[Kind, list[Question]]:
    """Every question that a scene answers.

    Args:
        vocabulary: names and groups.
        labels: [n], numbers of objects.
        colours: [n], numbers of tile colours.
        centres: [n, 2] in 0..1.
    """
    names = [vocabulary.objects[number].label for number in labels]
    tones = list(COLOURS)
    found: dict[Kind, list[Question]] = {kind: [] for kind in KINDS}
    for slot, name in enumerate(names):
        place = position_word(*centres[slot])
        found["name"].append(Question("name", f"Where is the {name}?", place, (slot,)))
        found["tile"].append(Question("tile", f"What is on the {tones[colours[slot]]} tile?", name, (slot,)))
        for relation, words in enumerate(_RELATIONS):
            target = nearest_in_cone(centres, slot, relation)
            if target is not None:
                found["relation"].append(Question("relation", f"What is {words} the {name}?", names[target], (target,)))
    for group in ("animal", "food", "vehicle", "tool"):
        members = tuple(slot for slot, number in enumerate(labels) if vocabulary.groups[number] == group)
        if 1 <= len(members) <= 2:
            answer = " and ".join(names[slot] for slot in members)
            found["category"].append(Question("category", f"Which {group} is shown?", answer, members))
    return found


def _chosen(
    generator: np.random.Generator,
    vocabulary: Vocabulary,
    split: Split,
    label: int,
    every: dict[Kind, list[Question]],
    count: int,
) -> tuple[Question, ...] | None:
    """The questions that are asked, none twice; None where the scene has no question of the split."""
    if split == "synonym":
        tags = vocabulary.synonyms[label]
        first = every["name"][0]
        return (Question("name", f"Where is the {tags[generator.integers(len(tags))]}?", first.answer, first.targets),)
    if split == "newcomb":
        return (every["name" if generator.random() < MIX[0] / (MIX[0] + MIX[1]) else "tile"][0],)
    if split in ("newname", "relation"):
        left = every["name" if split == "newname" else "relation"]
        return (left[generator.integers(len(left))],) if left else None
    left = {kind: list(questions) for kind, questions in every.items()}
    asked = []
    for _ in range(count):
        kind = KINDS[generator.choice(len(KINDS), p=MIX)]
        if not left[kind]:
            kind = "name" if left["name"] else "tile"
        asked.append(left[kind].pop(int(generator.integers(len(left[kind])))))
    return tuple(asked)


def _scene(vocabulary: Vocabulary, split: Split, number: int, seed: int, count: int) -> tuple[dict[str, np.ndarray], tuple]:
    generator = np.random.default_rng([seed, SPLITS.index(split), number])
    while True:
        labels, colours = _objects(generator, vocabulary, split)
        n = len(labels)
        cells = generator.choice(GRID * GRID, n, replace=False)
        sizes = generator.uniform(0.6, 0.95, n) / GRID
        corners = np.stack([cells % GRID, cells // GRID], axis=1) / GRID
        centres = corners + sizes[:, None] / 2 + generator.random((n, 2)) * (1 / GRID - sizes)[:, None]
        every = questions_about(vocabulary, labels, colours, centres)
        asked = _chosen(generator, vocabulary, split, int(labels[0]), every, count)
        if asked is not None:
            break
    tiles = np.array(list(COLOURS.values()))[colours] + generator.normal(0, 10, (n, 3))
    padded = {
        "labels": labels,
        "colours": colours,
        "centres": centres,
        "sizes": sizes,
        "flips": generator.random(n) < 0.5,
        "angles": generator.uniform(-15, 15, n),
        "tiles": tiles,
    }
    arrays = {name: np.zeros((SLOTS, *array.shape[1:]), array.dtype) for name, array in padded.items()}
    for name in ("labels", "colours"):
        arrays[name] -= 1
    for name, array in padded.items():
        arrays[name][:n] = array
    arrays["background"] = generator.uniform(150, 255, 3)
    arrays["gradients"] = np.array(generator.uniform(-25, 25))
    arrays["noise"] = generator.normal(0, 6, (LATTICE, LATTICE))
    return arrays, asked


def make_scenes(vocabulary: Vocabulary, split: Split, count: int, *, seed: int, questions: int = 1) -> Scenes:
    """Describe scenes.

    Args:
        vocabulary: of the drawings.
        split: which.
        count: of scenes.
        seed: of all of them.
        questions: of a scene in `train`, `iid` and `style`, at most 6; one in the others.

    Raises:
        InputError: `count` or `questions` is out of range.
    """
    if count < 1 or not 1 <= questions <= SLOTS:
        raise InputError(f"{count} scenes with {questions} questions; give at least one scene, and 1 to {SLOTS} questions.")
    drawn = [_scene(vocabulary, split, number, seed, questions) for number in range(count)]
    arrays = {name: np.stack([one[0][name] for one in drawn]) for name in drawn[0][0]}
    arrays = {name: array.astype(np.float32) if array.dtype == np.float64 else array for name, array in arrays.items()}
    return Scenes(split=split, questions=tuple(one[1] for one in drawn), **arrays)


@lru_cache(maxsize=16)
def scenes_of(name: SpriteSet, split: Split, count: int, seed: int, questions: int = 1) -> Scenes:
    """`make_scenes` of a set of drawings, kept for the other cells of a process.

    Raises:
        ConfigError: there is no such split.
        DataError: the drawings cannot be had.
    """
    if split not in SPLITS:
        raise ConfigError(f"split = {split!r}: there is no such one; known are {', '.join(SPLITS)}.")
    return make_scenes(vocabulary_of(name), split, count, seed=seed, questions=questions)
