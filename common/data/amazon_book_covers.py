"""Amazon book covers (Sattar et al., 2015): scanpaths of six people who search one among 84, as cells of a grid."""

import gzip
import json
from dataclasses import dataclass

import numpy as np

from common.data.fetch import fetch
from common.errors import DataError

AMAZON_BOOK_COVERS = "amazon-book-covers"
ROWS, COLUMNS = 6, 14
PARTS = {"train": "train", "val": "validation", "test": "test"}
"""Name of a part in the file -> its name here."""


@dataclass(frozen=True)
class Scanpath:
    """One person's search on one collage.

    Attributes:
        collage: 1 to 100.
        subject: 1 to 6.
        target_image: which of the five target covers, 0 to 4.
        target: cell of the target, 0 to 83: row * 14 + column, row 0 on top.
        cells: of the fixations, in order.
        points: float64 [fixations, 2], x and y in pixels of the collage.
        screen: width and height of the collage in pixels.
        kept: no longer than the mean and three standard deviations, 55 fixations: the rule of Fang et al. (2024).
    """

    collage: int
    subject: int
    target_image: int
    target: int
    cells: tuple[int, ...]
    points: np.ndarray
    screen: tuple[int, int]
    kept: bool


@dataclass(frozen=True)
class Splits:
    """The splits that come with the data.

    Attributes:
        scanpath_random: part ("train", "validation", "test") -> (collage, subject) of kept scanpaths.
        collage_disjoint: part -> collages.
        unseen_target: five lists of test collages, one a target cover.
    """

    scanpath_random: dict[str, list[tuple[int, int]]]
    collage_disjoint: dict[str, list[int]]
    unseen_target: list[list[int]]


def load_scanpaths() -> list[Scanpath]:
    """All 600, by collage and subject.

    Raises:
        DataError: the file cannot be had, or a line of it is damaged.
    """
    path = fetch(AMAZON_BOOK_COVERS, "scanpaths.jsonl.gz")
    found = []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                found.append(_scanpath(json.loads(line)))
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(f"{path}, line {number} is damaged ({error!r}). Fetch the file again.") from None
    return sorted(found, key=lambda scanpath: (scanpath.collage, scanpath.subject))


def _scanpath(entry: dict) -> Scanpath:
    cells = tuple(int(cell) for cell in entry["cell"])
    points = np.stack([np.asarray(entry["x"], float), np.asarray(entry["y"], float)], axis=1)
    target = int(entry["target_cell"])
    if not cells or len(points) != len(cells) or not all(0 <= cell < ROWS * COLUMNS for cell in (*cells, target)):
        raise ValueError(f"{len(cells)} cells, {len(points)} points; cells lie in 0..{ROWS * COLUMNS - 1}")
    return Scanpath(
        int(entry["collage"]), int(entry["subject"]), int(entry["target_image"]), target, cells, points,
        (int(entry["width"]), int(entry["height"])), bool(entry["keep_3sigma"]),
    )  # fmt: skip


def load_splits() -> Splits:
    """The splits. Raises DataError when the file cannot be had or is damaged."""
    path = fetch(AMAZON_BOOK_COVERS, "splits.json")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        random = {part: [(int(c), int(s)) for c, s in content["scanpath_random"][name]] for name, part in PARTS.items()}
        disjoint = {part: [int(c) for c in content["collage_disjoint"][name]] for name, part in PARTS.items()}
        unseen = [[int(c) for c in collages] for _, collages in sorted(content["leave_one_target_out_test_collages"].items())]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({error!r}). Fetch the file again.") from None
    return Splits(random, disjoint, unseen)
