"""Slide features and splits in the ACMIL authors' layout: generated files, and files that are wrong."""

import json

import h5py
import numpy as np
import pytest

from common.data import slide_features
from common.data.bags import Bags
from common.data.slide_features import read_slide_features, read_split, write_slide_features
from common.errors import DataError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REATTEND_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "slides.h5"


def slide(content, name, feat, coords, label: "int | np.int64 | None" = 0):
    group = content.create_group(name)
    group["feat"], group["coords"] = feat, coords
    if label is not None:
        group.attrs["label"] = label


def test_slides_are_read_as_they_lie_in_the_file(path):
    generator = np.random.default_rng(0)
    wanted = {f"tumor_{number:03d}": generator.normal(size=(number + 1, 4)).astype(np.float32) for number in (2, 0, 1)}
    with h5py.File(path, "w") as content:
        for name, feat in wanted.items():
            slide(content, name, feat, np.arange(2 * len(feat)).reshape(-1, 2), np.int64(len(feat) % 2))
    bags = read_slide_features(path)
    assert bags.names == tuple(sorted(wanted))
    for number, name in enumerate(bags.names):
        np.testing.assert_allclose(bags.instances[bags.bag(number)], wanted[name], atol=2e-3)
        assert bags.positions is not None
        np.testing.assert_array_equal(bags.positions[bags.bag(number)].ravel(), np.arange(2 * len(wanted[name])))
        assert bags.labels[number] == len(wanted[name]) % 2
    assert bags.instances.dtype == np.float16


def test_what_is_written_is_read(path):
    names, positions = ("a", "b"), np.array([[0, 0], [0, 256], [256, 0]])
    bags = Bags(np.eye(3, dtype=np.float32), np.array([0, 1, 3]), np.array([1, 0]), positions=positions, names=names)
    write_slide_features(path, bags)
    found = read_slide_features(path)
    np.testing.assert_array_equal(found.instances, bags.instances)
    np.testing.assert_array_equal(found.offsets, bags.offsets)
    np.testing.assert_array_equal(found.labels, bags.labels)
    assert found.positions is not None
    np.testing.assert_array_equal(found.positions, positions)
    with pytest.raises(DataError, match="names and positions"):
        write_slide_features(path, Bags(np.eye(1), np.array([0, 1]), np.array([1])))


def test_a_file_is_packed_once_and_again_when_it_changes(path, monkeypatch):
    packed = []
    real = slide_features._pack
    monkeypatch.setattr(slide_features, "_pack", lambda file: packed.append(file) or real(file))
    for value in (1.0, 1.0, 2.0):
        if not path.exists() or value == 2.0:
            with h5py.File(path, "w") as content:
                slide(content, "a", np.full((1, 2), value), [[0, 0]])
        assert read_slide_features(path).instances[0, 0] == value
    assert len(packed) == 2


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda content: slide(content, "a", np.zeros((2, 3)), np.zeros((1, 2))), "'a': feat has the shape"),
        (lambda content: slide(content, "a", np.zeros((0, 3)), np.zeros((0, 2))), "at least one instance"),
        (lambda content: slide(content, "a", np.zeros((1, 3)), np.zeros((1, 2)), None), "lacks the attribute label"),
        (lambda content: content.create_dataset("a", data=[1]), "is no group"),
        (lambda content: content.create_group("a"), "lacks the data set 'feat'"),
        (lambda content: None, "holds no slide"),
        (
            lambda content: [slide(content, n, np.zeros((1, d)), [[0, 0]]) for n, d in (("a", 2), ("b", 3))],
            "'b' has 3 features",
        ),
    ],
)
def test_files_of_another_layout_are_refused(path, write, message):
    with h5py.File(path, "w") as content:
        write(content)
    with pytest.raises(DataError, match=message):
        read_slide_features(path)


def test_files_that_are_missing_or_no_hdf5(path):
    with pytest.raises(DataError, match="does not exist"):
        read_slide_features(path)
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="not a readable HDF5 file"):
        read_slide_features(path)


def test_splits(tmp_path):
    path = tmp_path / "split_1.json"
    path.write_text(json.dumps({"train": ["a.h5", "b"], "val": ["c.tif"], "test": ["d"]}), encoding="utf-8")
    assert read_split(path, "abcd") == {"train": ("a", "b"), "val": ("c",), "test": ("d",)}
    with pytest.raises(DataError, match="1 slides without features, the first is 'd'"):
        read_split(path, "abc")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nothing", "cannot be read as JSON"),
        ('{"train": ["a"], "val": ["b"]}', "with the lists"),
        ('{"train": ["a"], "val": ["a"], "test": ["b"]}', "lists 'a' twice"),
        ('{"train": ["a"], "val": [], "test": ["b"]}', "'val' is empty"),
    ],
)
def test_splits_of_another_layout_are_refused(tmp_path, content, message):
    path = tmp_path / "split.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_split(path, "ab")
