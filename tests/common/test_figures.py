import matplotlib
import numpy as np
import pytest

from common.errors import DataError
from common.figures import COLOURS, length_axis, length_name, line_look, save_figure, style


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


def test_lines_differ_in_more_than_colour():
    looks = [line_look(number) for number in range(2 * len(COLOURS))]
    for key in ("color", "marker", "linestyle"):
        assert len({str(look[key]) for look in looks}) == len(COLOURS)


def test_lengths_are_named_as_the_field_does():
    assert [length_name(n) for n in (300, 1000, 1024, 2048, 131072, 1500)] == ["300", "1,000", "1K", "2K", "128K", "1,500"]


def test_an_axis_of_lengths_has_a_tick_at_each():
    import matplotlib.pyplot as plt

    with style():
        figure, axes = plt.subplots()
        axes.plot([2048, 512], [1, 2])
        length_axis(axes, [2048, 512, 2048])
        assert axes.get_xscale() == "log"
        assert [label.get_text() for label in axes.get_xticklabels()] == ["512", "2K"]
        assert list(axes.get_xticks(minor=True)) == []
        plt.close(figure)


def test_both_formats_have_the_same_layout(tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    places = []
    with style():
        figure, panels = plt.subplots(1, 2, figsize=(5, 2.2))
        images = [axes.imshow(np.eye(4)) for axes in panels]
        for axes in panels:
            axes.set_title("a title of two lines\nthat is wider than its panel")
        figure.colorbar(images[0], ax=panels)
        save = figure.savefig

        def watched(*arguments, **keywords):
            save(*arguments, **keywords)
            places.append([axes.get_position().bounds for axes in figure.axes])

        monkeypatch.setattr(figure, "savefig", watched)
        save_figure(figure, tmp_path / "map")
    svg, png = places
    assert svg == png
