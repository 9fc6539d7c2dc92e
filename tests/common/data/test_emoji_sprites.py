"""Drawings with names."""

import numpy as np
import pytest

from common.data.emoji_sprites import generated_sprites, load_sprites, read_labels
from common.errors import DataError

GOOD = '{"label": "dog", "tags": ["pet"], "category": "Animals & Nature", "subcategory": "animal-mammal"}\n'


def test_labels_are_read(tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text(GOOD)
    (one,) = read_labels(path)
    assert (one.label, one.tags, one.subcategory) == ("dog", ("pet",), "animal-mammal")


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "line 1"), (GOOD + '{"label": "cat"}\n', "line 2.*tags"), (GOOD + GOOD, "stands twice"), ("3\n", "line 1")],
)
def test_bad_labels_are_named(tmp_path, content, message):
    path = tmp_path / "labels.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_labels(path)


def test_made_up_drawings_are_the_same_for_the_same_seed_and_differ_by_style():
    first, second, other = generated_sprites(0), generated_sprites(0), generated_sprites(1)
    np.testing.assert_array_equal(first.pixels["noto"], second.pixels["noto"])
    assert not np.array_equal(first.pixels["noto"], other.pixels["noto"])
    twemoji, noto = first.pixels["twemoji"], first.pixels["noto"]
    np.testing.assert_array_equal(twemoji[..., 3], noto[..., 3])
    assert not np.array_equal(twemoji, noto)
    assert len({one.label for one in first.objects}) == len(first.objects) == len(noto)
    assert ((twemoji[..., 3] > 0).mean((1, 2)) > 0.05).all()


def test_the_drawings_of_the_mirror():
    try:
        sprites = load_sprites()
    except DataError as error:
        pytest.skip(f"the drawings are not on the web as arrays, and here is no mirror of them: {error}")
    assert len(sprites.objects) == 723
    for pixels in sprites.pixels.values():
        assert pixels.dtype == np.uint8
        assert (pixels[..., 3].reshape(723, -1).max(1) > 127).all()
        assert (pixels[pixels[..., 3] == 0] == 0).all()
