"""Market-1501's layout: what is written is read again, and bad names and files are named."""

import numpy as np
import pytest
from PIL import Image

from common.data.market1501 import FOLDERS, ImageSet, Name, export_market1501, parse_name, read_market1501
from common.errors import DataError, InputError


def images(identities, cameras=None, size=(32, 16)):
    """Plain images, each of its own colour."""
    identities = np.array(identities)
    colours = (37 * np.arange(3 * len(identities)) % 256).astype(np.uint8).reshape(-1, 3, 1, 1)
    pixels = np.broadcast_to(colours, (len(identities), 3, *size)).copy()
    return ImageSet(pixels, identities, np.array(cameras) if cameras else 1 + np.arange(len(identities)) % 6)


@pytest.fixture
def root(tmp_path):
    parts = {"train": images([2, 2, 7]), "query": images([3, 11]), "gallery": images([3, 11, 0, -1, -1, 1501])}
    export_market1501(tmp_path, parts)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("0002_c1s1_000451_03.jpg", Name(2, 1, 1, 451, 3)),
        ("-1_c3s2_012345_00.jpg", Name(-1, 3, 2, 12345, 0)),
        ("0000_c6s3_000001_12.jpg", Name(0, 6, 3, 1, 12)),
        ("1501_c6s10_000001_12.jpg", Name(1501, 6, 10, 1, 12)),
    ],
)
def test_names_are_taken_apart_and_put_together(name, expected):
    assert parse_name(name) == expected
    assert str(expected) == name


@pytest.mark.parametrize(
    "name",
    ["2_c1s1_000451_03.jpg", "0002c1s1_000451_03.jpg", "0002_c1s1_000451.jpg", "0002_c1s1_000451_03.png",
     "-2_c1s1_000451_03.jpg", "0002_c1s1_000451_03.jpg.jpg", "0002_C1s1_000451_03.jpg", "٠٠٠٢_c1s1_000451_03.jpg"],
)  # fmt: skip
def test_other_names_are_refused(name):
    with pytest.raises(DataError, match="is no name of Market-1501"):
        parse_name(name)


def test_camera_zero_is_refused():
    with pytest.raises(DataError, match="camera 0"):
        parse_name("0002_c0s1_000451_03.jpg")


def test_what_is_written_is_read_again(root):
    found = read_market1501(root, (32, 16))
    assert sorted(found["train"].identities) == [2, 2, 7]
    assert sorted(found["query"].identities) == [3, 11]
    assert sorted(found["gallery"].identities) == [-1, -1, 0, 3, 11, 1501]
    # Read in the order of names: the images go with their identities.
    written = images([3, 11, 0, -1, -1, 1501])
    for identity in (0, 3, 11, 1501):
        place = int(np.flatnonzero(found["gallery"].identities == identity)[0])
        expected = int(np.flatnonzero(written.identities == identity)[0])
        assert found["gallery"].cameras[place] == written.cameras[expected]
        difference = found["gallery"].pixels[place].astype(int) - written.pixels[expected].astype(int)
        assert abs(difference).max() <= 4  # JPEG


def test_images_are_resized_and_other_files_left_out(root):
    (root / "query" / "Thumbs.db").write_bytes(b"x")
    assert read_market1501(root, (64, 32))["query"].pixels.shape == (2, 3, 64, 32)


def test_a_missing_folder_is_named(root):
    (root / "query").rename(root / "queries")
    with pytest.raises(DataError, match=r"query does not exist.*bounding_box_train"):
        read_market1501(root, (32, 16))


def test_an_empty_folder_is_named(root):
    for path in (root / "query").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"query holds no \.jpg file"):
        read_market1501(root, (32, 16))


def test_a_bad_name_in_a_folder_is_named(root):
    (root / "query" / "person7.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match="person7"):
        read_market1501(root, (32, 16))


def test_a_damaged_image_is_named(root):
    (root / "query" / "0003_c1s1_000009_00.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"0003_c1s1_000009_00\.jpg cannot be read as an image"):
        read_market1501(root, (32, 16))


def test_an_identity_of_training_and_query_is_refused(root):
    Image.new("RGB", (16, 32)).save(root / FOLDERS["train"] / "0003_c1s1_000009_00.jpg")
    with pytest.raises(DataError, match="identity 3 is in bounding_box_train and in query"):
        read_market1501(root, (32, 16))


def test_junk_in_the_query_is_refused(root):
    Image.new("RGB", (16, 32)).save(root / "query" / "-1_c1s1_000009_00.jpg")
    with pytest.raises(DataError, match="query holds no identity above 0, or images of none"):
        read_market1501(root, (32, 16))


def test_what_no_name_can_say_is_refused(tmp_path):
    parts = {"train": images([10_000]), "query": images([1]), "gallery": images([1])}
    with pytest.raises(InputError, match="identity 10000"):
        export_market1501(tmp_path, parts)
    with pytest.raises(InputError, match="parts lacks gallery, query"):
        export_market1501(tmp_path, {"train": images([1])})


def test_shapes_are_checked():
    with pytest.raises(InputError, match="expected uint8"):
        ImageSet(np.zeros((2, 3, 4, 4)), np.ones(2), np.ones(2))
    with pytest.raises(InputError, match="one of each"):
        ImageSet(np.zeros((2, 3, 4, 4), dtype=np.uint8), np.ones(3), np.ones(2))
