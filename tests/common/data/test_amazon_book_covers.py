"""The scanpaths on Amazon book covers: against the statistics in the description of the data, and damaged lines."""

import gzip
import json

import numpy as np
import pytest
import torch

from common.data import amazon_book_covers
from common.data.amazon_book_covers import AMAZON_BOOK_COVERS, load_scanpaths, load_splits
from common.data.fetch import fetch
from common.errors import DataError
from common.metrics.scanpaths import behaviour, paths_of

LINE = {
    "collage": 1, "subject": 2, "target_image": 0, "width": 2559, "height": 1600, "target_cell": 12, "x": [5, 6], "y": [7, 8],
    "cell": [0, 12], "keep_3sigma": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def scanpaths():
    try:
        fetch(AMAZON_BOOK_COVERS, "splits.json")
    except DataError as error:
        pytest.skip(str(error))
    return load_scanpaths()


def test_statistics_of_the_kept_scanpaths(scanpaths):
    kept = [scanpath for scanpath in scanpaths if scanpath.kept]
    assert (len(scanpaths), len(kept)) == (600, 585)
    found = behaviour(paths_of([s.cells for s in kept]), torch.tensor([s.target for s in kept])).mean(0)
    assert found.tolist() == pytest.approx([0.879, 12.89, 0.784, 0.172, 0.044], abs=0.006)


def test_parts_do_not_overlap(scanpaths):
    splits = load_splits()
    assert [len(splits.scanpath_random[part]) for part in ("train", "validation", "test")] == [468, 58, 59]
    assert len({pair for pairs in splits.scanpath_random.values() for pair in pairs}) == 585
    assert sorted(collage for part in splits.collage_disjoint.values() for collage in part) == list(range(1, 101))
    assert sorted(collage for fold in splits.unseen_target for collage in fold) == list(range(1, 101))


def laid(tmp_path, monkeypatch, *lines):
    path = tmp_path / "scanpaths.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    monkeypatch.setattr(amazon_book_covers, "fetch", lambda *_: path)


def test_a_line_by_hand(tmp_path, monkeypatch):
    laid(tmp_path, monkeypatch, LINE)
    (found,) = load_scanpaths()
    assert (found.collage, found.subject, found.target, found.cells, found.screen) == (1, 2, 12, (0, 12), (2559, 1600))
    np.testing.assert_array_equal(found.points, [[5, 7], [6, 8]])


@pytest.mark.parametrize(
    "change", [{"cell": [0, 84]}, {"cell": []}, {"x": [1]}, {"target_cell": None}, {"subject": "first"}], ids=str
)
def test_a_damaged_line_is_named(tmp_path, monkeypatch, change):
    laid(tmp_path, monkeypatch, LINE, LINE | change)
    with pytest.raises(DataError, match="line 2 is damaged"):
        load_scanpaths()


def test_damaged_splits_are_named(tmp_path, monkeypatch):
    path = tmp_path / "splits.json"
    path.write_text('{"scanpath_random": {}}')
    monkeypatch.setattr(amazon_book_covers, "fetch", lambda *_: path)
    with pytest.raises(DataError, match=r"splits\.json is damaged"):
        load_splits()
