"""Which scanpaths are learned from and which are tested on: the splits that come with the data, and the authors' as rebuilt.

`aliased` rebuilds what the released preprocessing and the authors' list of records imply: all six records of a collage hold the
scanpath of subject 6, and the list parts records, not collages. This is inferred from public files, not stated by the authors.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from common.data.amazon_book_covers import Scanpath, Splits
from common.errors import InputError

Protocol = Literal["scanpath_random", "collage_disjoint", "aliased", "unseen_target"]

SUBJECTS = 6
LEFT_OUT = 62
"""The collage on which subject 6 exceeds the limit of length."""

# Collages of the authors' list, with how many of their six records are in that part; the rest is for training.
_TEST = (
    "3 5 7 12 13*2 16*2 17 18 21 24 27 28 30 31 32*4 33 35*2 38 39 43 44 45 47 50 52 53 55 57 59*3 65 67 68 69*2 71 73*2 74 76 "
    "79 83*2 84 85 88 91 92 93*2 94 95 99"
)
_VALIDATION = (
    "4 5 6 10 11*2 13*2 15 16 18*2 21 23 25 26 27*2 28*2 34*2 35 37 39 40 41 42 43 47 48 49 52*2 53*2 54 55 56 57 63 66 68 "
    "70*2 73 78 80 81 86*3 88*2 90 93 98 100*2"
)


@dataclass(frozen=True)
class Parts:
    """Records and their parts.

    Attributes:
        records: scanpaths; `aliased` has copies among them.
        train: numbers of records.
        validation: the same.
        test: the same.
    """

    records: list[Scanpath]
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def _counts(listed: str) -> Counter[int]:
    found: Counter[int] = Counter()
    for entry in listed.split():
        collage, _, times = entry.partition("*")
        found[int(collage)] = int(times or 1)
    return found


def parts_of(protocol: Protocol, scanpaths: list[Scanpath], splits: Splits, fold: int = 0) -> Parts:
    """The parts of a protocol.

    Args:
        protocol: `scanpath_random` parts scanpaths, so that a test scanpath's collage is among those learned from;
            `collage_disjoint` parts collages; `unseen_target` tests on the collages of one target cover that no other part has,
            and validates on a tenth of the others; `aliased`: see the module.
        scanpaths: all of them.
        splits: that come with the data.
        fold: of `unseen_target`, 0 to 4.

    Raises:
        InputError: there is no such protocol or fold.
    """
    if protocol not in get_args(Protocol):
        raise InputError(f"protocol is {protocol!r}; known are {', '.join(get_args(Protocol))}.")
    if protocol == "aliased":
        return _aliased(scanpaths)
    kept = [scanpath for scanpath in scanpaths if scanpath.kept]
    if protocol == "scanpath_random":
        place = {(s.collage, s.subject): number for number, s in enumerate(kept)}
        parts = {part: np.array([place[pair] for pair in pairs]) for part, pairs in splits.scanpath_random.items()}
        return Parts(kept, parts["train"], parts["validation"], parts["test"])
    if protocol == "collage_disjoint":
        of_collages = {part: set(collages) for part, collages in splits.collage_disjoint.items()}
    else:
        if not 0 <= fold < len(splits.unseen_target):
            raise InputError(f"fold is {fold}; there are {len(splits.unseen_target)} target covers.")
        test = set(splits.unseen_target[fold])
        rest = sorted({scanpath.collage for scanpath in kept} - test)
        of_collages = {"test": test, "validation": set(rest[::10]), "train": set(rest) - set(rest[::10])}
    parts = {
        part: np.array([number for number, s in enumerate(kept) if s.collage in collages])
        for part, collages in of_collages.items()
    }
    return Parts(kept, parts["train"], parts["validation"], parts["test"])


def _aliased(scanpaths: list[Scanpath]) -> Parts:
    test, validation = _counts(_TEST), _counts(_VALIDATION)
    records, parts = [], {"train": [], "validation": [], "test": []}
    for scanpath in scanpaths:
        if scanpath.subject != SUBJECTS or scanpath.collage == LEFT_OUT:
            continue
        held_out = ["test"] * test[scanpath.collage] + ["validation"] * validation[scanpath.collage]
        for part in held_out + ["train"] * (SUBJECTS - len(held_out)):
            parts[part].append(len(records))
            records.append(scanpath)
    return Parts(records, *(np.array(parts[part]) for part in ("train", "validation", "test")))
