"""Sentences with marked aspects: the formats, on small files written here."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.data import aspects
from common.data.aspects import Instance, load_instances, read_aspect_terms, read_file, read_marked_lines, tokenise
from common.errors import DataError, InputError

XML = """<?xml version="1.0" encoding="utf-8"?>
<sentences>
  <sentence><text>Don't skip the spring-rolls (only $5)!</text><aspectTerms>
    <aspectTerm from="15" to="27" polarity="positive" term="spring-rolls"/>
    <aspectTerm from="34" to="36" polarity="neutral" term="$5"/>
  </aspectTerms></sentence>
  <sentence><text></text></sentence>
</sentences>"""


def test_marked_lines_by_hand():
    lines = ["the battery/p life/p is w/out equal\n", "", "screen/n\n"]
    found = read_marked_lines(lines, "f")
    assert found == [
        Instance(("the", "battery", "life", "is", "w/out", "equal"), 1, 3, "positive"),
        Instance(("screen",), 0, 1, "negative"),
    ]
    assert found[0].target == ("battery", "life")


def test_only_the_last_two_characters_are_cut():
    # The official reader strips the characters of the mark from both ends, and makes "rice" of "price/p".
    (instance,) = read_marked_lines(["price/p laptop screen"], "f")
    assert instance.tokens == ("price", "laptop", "screen")


def test_irregular_lines():
    (stray,) = read_marked_lines(["install and uninstall /n some"], "f")
    assert (stray.tokens, stray.target, stray.polarity) == (
        ("install", "and", "uninstall", "some"), ("uninstall",), "negative"
    )  # fmt: skip
    (two,) = read_marked_lines(["lindsay/0 lohan/0 or y/n"], "f")
    assert (two.tokens, two.target) == (("lindsay", "lohan", "or", "y/n"), ("lindsay", "lohan"))
    (adjacent,) = read_marked_lines(["load/p webpages/0"], "f")
    assert (adjacent.target, adjacent.polarity, adjacent.tokens) == (("load",), "positive", ("load", "webpages/0"))


@pytest.mark.parametrize("line", ["no label here", "/p alone at the start"])
def test_a_line_without_a_label(line):
    with pytest.raises(DataError, match="f, line 2: no target"):
        read_marked_lines(["a/p", line], "f")


def test_aspect_terms_by_hand():
    first, second = read_aspect_terms(XML.encode(), "f")
    assert first.tokens == ("don't", "skip", "the", "spring-rolls", "(", "only", "$", "5", ")", "!")
    assert (first.target, first.polarity) == (("spring-rolls",), "positive")
    assert (second.target, second.tokens) == (("$", "5"), first.tokens)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('polarity="positive" ', "", "polarity is None"),
        ('polarity="positive"', 'polarity="conflict"', "'conflict'"),
        ('from="15"', 'from="14"', "Correct the offsets"),
        ('to="27"', 'to="270"', "Correct the offsets"),
        ('from="15" ', "", "numbers of characters"),
        ("</sentences>", "", "not valid XML"),
    ],
)
def test_broken_aspect_terms(old, new, said):
    with pytest.raises(DataError, match=said):
        read_aspect_terms(XML.replace(old, new).encode(), "f")


def test_an_empty_sentence_with_a_term_is_refused():
    text = '<s><sentence><text></text><aspectTerm from="0" to="1" polarity="neutral" term="a"/></sentence></s>'
    with pytest.raises(DataError, match="sentence 1"):
        read_aspect_terms(text.encode(), "f")


def test_files(tmp_path):
    (tmp_path / "a.xml").write_text(XML)
    assert len(read_file(tmp_path / "a.xml")) == 2
    (tmp_path / "a.txt").write_text("food/p !\n\n")
    assert read_file(tmp_path / "a.txt") == [Instance(("food", "!"), 0, 1, "positive")]
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe/p")
    with pytest.raises(DataError, match="cannot be read"):
        read_file(tmp_path / "b.txt")
    with pytest.raises(DataError, match="cannot be read"):
        read_file(tmp_path / "missing.txt")


def test_the_authors_own_splits_are_read(monkeypatch, tmp_path):
    asked = []

    def fetch(dataset, file):
        asked.append((dataset, file))
        path = tmp_path / file
        path.write_text(XML if path.suffix == ".xml" else "food/p !\n")
        return path

    monkeypatch.setattr(aspects, "fetch", fetch)
    for name in ("laptop", "mams"):
        for split in ("train", "validation", "test"):
            assert load_instances(name, split)
    assert asked == [
        ("absa", "laptop_val_train.txt"), ("absa", "laptop_val_test.txt"), ("absa", "laptop_test.txt"),
        ("absa-mams", "mams_atsa_train.xml"), ("absa-mams", "mams_atsa_val.xml"), ("absa-mams", "mams_atsa_test.xml"),
    ]  # fmt: skip
    with pytest.raises(DataError, match="did you mean 'laptop'"):
        load_instances("laptops", "test")


@pytest.mark.parametrize(("start", "end"), [(-1, 1), (0, 0), (1, 3), (2, 1)])
def test_targets_lie_inside(start, end):
    with pytest.raises(InputError, match="2 tokens"):
        Instance(("a", "b"), start, end, "neutral")


def test_polarities_are_known():
    with pytest.raises(InputError, match="conflict"):
        Instance(("a",), 0, 1, "conflict")  # pyright: ignore[reportArgumentType]


@given(st.text(alphabet="ab '-.9$", max_size=30))
def test_tokens_keep_every_visible_character(text):
    assert "".join(tokenise(text)) == "".join(text.split())
