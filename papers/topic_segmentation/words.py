"""Words of sentences for the lexical methods: lower case, without stop words, stemmed (gensim's list and Porter stemmer)."""

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from gensim.parsing.porter import PorterStemmer
from gensim.parsing.preprocessing import STOPWORDS

from common.errors import InputError

_WORD = re.compile(r"[^\W\d_]+")
_stemmer = PorterStemmer()


@lru_cache(maxsize=1 << 16)
def stem(word: str) -> str:
    """The Porter stem of a lower-case word."""
    return _stemmer.stem(word)


def words_of(sentence: str) -> list[str]:
    """Lower-case words of letters without stop words, in order."""
    return [word for word in _WORD.findall(sentence.lower()) if word not in STOPWORDS]


def stems_of(sentence: str) -> list[str]:
    """Stems of `words_of`."""
    return [stem(word) for word in words_of(sentence)]


def count_vectors(sentences: Sequence[str]) -> np.ndarray:
    """How often each stem occurs in each sentence.

    Args:
        sentences: n of them.

    Returns:
        float64 [n, stems of the document]; at least one column, so that cosines are defined.

    Raises:
        InputError: there are no sentences.
    """
    if not sentences:
        raise InputError("A document has no sentences; leave it out.")
    stems = [stems_of(sentence) for sentence in sentences]
    column = {word: number for number, word in enumerate(dict.fromkeys(word for line in stems for word in line))}
    counts = np.zeros((len(sentences), max(len(column), 1)))
    for line, found in zip(counts, stems, strict=True):
        np.add.at(line, [column[word] for word in found], 1)
    return counts
