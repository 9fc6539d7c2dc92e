"""Sentence ends, and the largest prompt within a limit."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from common.language_models.prompts import largest_fitting, sentence_ends


def test_sentence_ends_by_hand():
    text = 'No. 5 "is it?" asked\nhe! (Yes.) 3.14 is pi... The end.'
    assert [text[:end] for end in sentence_ends(text)] == [
        "No.",
        'No. 5 "is it?"',
        'No. 5 "is it?" asked\nhe!',
        'No. 5 "is it?" asked\nhe! (Yes.)',
        'No. 5 "is it?" asked\nhe! (Yes.) 3.14 is pi...',
    ]
    assert sentence_ends("").dtype == np.int64


@given(st.lists(st.integers(0, 30), min_size=1, max_size=300), st.integers(0, 3000), st.integers(0, 200))
def test_largest_fitting_equals_trying_all(sizes, limit, frame):
    totals = frame + np.cumsum(sizes)
    calls = []

    def tokens(pieces: int) -> int:
        assert 1 <= pieces <= len(sizes)
        calls.append(pieces)
        return int(totals[pieces - 1])

    assert largest_fitting(tokens, len(sizes), limit) == int((totals <= limit).sum())
    assert len(calls) <= 20


def test_even_growth_needs_few_calls():
    calls = []

    def tokens(pieces: int) -> int:
        calls.append(pieces)
        return 100 + 7 * pieces // 2

    assert largest_fitting(tokens, 10**9, 10**6) == ((10**6 - 99) * 2 - 1) // 7
    assert len(calls) <= 6
