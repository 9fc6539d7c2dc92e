"""From a raw book to its text."""

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.data.cleaning import clean
from common.data.registry import Cleaning, load_registry

RAW = (
    b"Header\r\n\r\n\r\n\r\n\r\nTITLE\r\n\r\n\r\n\r\n\r\nNote\r\n\r\n"
    b"  Chapter I\r\ntext\r\n\r\n\r\n\r\n\r\n\r\nmore \xc3\xa9\r\n\r\nFooter\r\n"
)


def test_by_hand():
    assert clean(RAW, Cleaning(lines=[(6, 9), (13, 20)])).decode() == "TITLE\n\n\n  Chapter I\ntext\n\n\nmore é\n"


def test_heading():
    assert clean(RAW, Cleaning(lines=[(20, 20)], heading="A BOOK")).decode() == "A BOOK\n\n\nmore é\n"


@given(st.lists(st.sampled_from(["", "a", " b", "c d"]), min_size=1, max_size=40), st.data())
def test_never_three_empty_lines(lines, data):
    first = data.draw(st.integers(1, len(lines)))
    last = data.draw(st.integers(first, len(lines)))
    text = clean("\r\n".join(lines).encode(), Cleaning(lines=[(first, last)])).decode()
    assert "\n\n\n\n" not in text
    assert text.endswith("\n")
    assert "\r" not in text
    assert [line for line in text.split("\n") if line] == [line for line in lines[first - 1 : last] if line]


@pytest.mark.parametrize("entry", load_registry().dataset("long-texts").files, ids=lambda entry: entry.name)
def test_every_book_is_cut_by_lines_of_its_pinned_file(entry):
    (source,) = entry.sources
    assert source.upstream.bytes > entry.bytes
    kept = sum(last - first + 1 for first, last in source.clean.lines)
    assert kept > 10_000
    assert re.fullmatch(r"[0-9a-f]{64}", source.upstream.sha256)
    assert source.upstream.sha256 != hashlib.sha256(b"").hexdigest()
