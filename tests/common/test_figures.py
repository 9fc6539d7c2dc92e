import matplotlib
import numpy as np
import pytest

from common.errors import DataError
from common.figures import COLOURS, save_figure, style


def draw(path):
    import matplotlib.pyplot as plt

    with style():
        figure, axes = plt.subplots(figsize=(3.5, 2.2))
        for i in range(3):
            axes.plot(np.arange(5), np.arange(5) * i, marker="o", label=f"method {i} ≤ τ")
        axes.legend()
        save_figure(figure, path)
        assert not plt.fignum_exists(figure.number)


def test_a_figure_is_written_as_svg_and_png_with_the_same_bytes_twice(tmp_path):
    for folder in ("a", "b"):
        draw(tmp_path / folder / "curve")
    for suffix, start in ((".svg", b"<?xml"), (".png", b"\x89PNG")):
        first, second = ((tmp_path / folder / f"curve{suffix}").read_bytes() for folder in ("a", "b"))
        assert first == second
        assert first.startswith(start)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["curve.png", "curve.svg"]
    svg = (tmp_path / "a" / "curve.svg").read_text(encoding="utf-8")
    assert "method 1 ≤ τ" in svg  # text stays text
    assert COLOURS[0].lower() in svg
    assert str(tmp_path) not in svg


def test_the_style_ends_with_its_block():
    before = matplotlib.rcParams["font.size"]
    with style():
        assert matplotlib.rcParams["font.size"] == 8
    assert matplotlib.rcParams["font.size"] == before


def test_a_place_that_cannot_be_written_gives_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="Cannot write"):
        draw(tmp_path / "file" / "curve")
