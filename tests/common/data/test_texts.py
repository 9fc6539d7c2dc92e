"""Texts by name. The Wikipedia articles come with gensim and need no network; others are brought through a mirror."""

import gzip
import hashlib
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.data.texts import articles, load_text, text_names, unwrap_lines
from common.errors import DataError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REATTEND_CACHE", str(tmp_path))
    monkeypatch.delenv("REATTEND_DATA", raising=False)


@pytest.fixture(scope="module")
def wikipedia():
    return articles()


def test_wikipedia_articles(wikipedia):
    assert len(wikipedia) == 100
    assert wikipedia[0].title == "Anarchism"
    assert wikipedia[0].text.startswith("Anarchism is a political philosophy")
    assert all(len(article.text) >= 1900 for article in wikipedia)
    assert not any(article.text.upper().startswith("#REDIRECT") for article in wikipedia)


def test_wikipedia_sections_have_their_headings(wikipedia):
    from gensim.scripts.segment_wiki import segment_all_articles

    from common.data.fetch import fetch

    reference = dict(segment_all_articles(str(fetch("wikipedia-articles")), workers=1))  # pyright: ignore
    for article in wikipedia[:10]:
        headings = [section[0] for section in reference[article.title][1:]]  # pyright: ignore
        assert headings
        assert [heading for heading in headings if f"\n\n{heading}\n\n" not in f"\n\n{article.text}\n\n"] == []


def test_wikipedia_as_one_text(wikipedia):
    text = load_text("wikipedia-articles")
    assert text.split is None
    assert [text.text.index(f"{article.title}\n\n{article.text[:200]}") for article in wikipedia] == sorted(
        text.text.index(f"{article.title}\n\n{article.text[:200]}") for article in wikipedia
    )
    assert text.sha256 == hashlib.sha256(text.text.encode()).hexdigest()
    assert text == load_text("wikipedia-articles")


def test_without_gensim(monkeypatch):
    monkeypatch.setitem(sys.modules, "gensim.scripts.segment_wiki", None)
    with pytest.raises(DataError, match="gensim"):
        articles()


def test_unknown_text():
    with pytest.raises(DataError, match="wikitext-2/test"):
        load_text("wikitext-2")


def test_names_are_distinct():
    assert len(set(text_names())) == len(text_names())


def test_corrupt_text_in_the_mirror(tmp_path, monkeypatch):
    (tmp_path / "mirror" / "wikitext2").mkdir(parents=True)
    (tmp_path / "mirror" / "wikitext2" / "wikitext2_raw_test.txt.gz").write_bytes(gzip.compress(b"not WikiText"))
    monkeypatch.setenv("REATTEND_DATA", str(tmp_path / "mirror"))
    with pytest.raises(DataError, match="corrupt"):
        load_text("wikitext-2/test")


def test_unwrap_by_hand():
    assert unwrap_lines("Call me\nIshmael.\n\nSome years\nago\n\n\nNext\n") == "Call me Ishmael.\n\nSome years ago\n\n\nNext\n"


@given(st.text(alphabet="ab \n", max_size=60))
def test_unwrap_keeps_everything_but_single_newlines(text):
    unwrapped = unwrap_lines(text)
    assert len(unwrapped) == len(text)
    assert unwrapped.replace("\n", " ") == text.replace("\n", " ")
    assert unwrap_lines(unwrapped) == unwrapped
