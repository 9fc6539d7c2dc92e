"""Long texts to hide things in, and the things: haystacks of any size, and random strings that occur nowhere else."""

import re
import uuid
from collections.abc import Callable, Sequence

import numpy as np

from common.errors import InputError
from common.language_models.prompts import sentence_ends

ENDLESS = 10**9
_WORD = re.compile(r"(?<![\w'’-])[a-z]{5,10}(?![\w'’-])")
_DRAWS = 1000


class Haystack:
    """Pieces of text in a fixed order: a smaller haystack is the beginning of a larger one.

    Attributes:
        available: how many pieces there are.
    """

    def __init__(self, first: Callable[[int], Sequence[str]], available: int, separator: str, starts: np.ndarray | None = None):
        """Pieces.

        Args:
            first: gives the first so many pieces.
            available: how many there are.
            separator: between pieces.
            starts: int64 [S], increasing from 0: the pieces that begin a sentence; default: every piece is one.
        """
        self.available = available
        self._first = first
        self._separator = separator
        self._starts = starts

    @classmethod
    def repeated(cls, line: str) -> "Haystack":
        """The same line again and again."""
        return cls(lambda size: [line] * size, ENDLESS, "\n")

    @classmethod
    def drawn(cls, draw: Callable[[], str]) -> "Haystack":
        """Random lines, each of them drawn when it is first needed."""
        lines: list[str] = []

        def first(size: int) -> list[str]:
            lines.extend(draw() for _ in range(size - len(lines)))
            return lines[:size]

        return cls(first, ENDLESS, "\n")

    def with_needles(self, size: int, needles: Sequence[str], depths: Sequence[float]) -> str:
        """The first `size` pieces as a text, with needles between its sentences.

        Args:
            size: pieces.
            needles: what is put in.
            depths: for each needle, in increasing order, 0 to 1: int(depth x sentences) sentences come before it.
        """
        pieces = self._first(size)
        starts = range(size) if self._starts is None else self._starts[: np.searchsorted(self._starts, size)].tolist()
        places = [*starts, size]
        merged: list[str] = []
        before = 0
        for needle, depth in zip(needles, depths, strict=True):
            place = places[int((len(places) - 1) * depth)]
            merged += [*pieces[before:place], needle]
            before = place
        return self._separator.join([*merged, *pieces[before:]])


class Filler:
    """A text as words and sentences.

    Attributes:
        text: the text, with one space for all white space between two words.
        vocabulary: its different words of 5 to 10 small letters, in alphabetical order, or those given.
    """

    def __init__(self, text: str, vocabulary: Sequence[str] | None = None):
        self.text = " ".join(text.split())
        self.vocabulary = sorted(set(_WORD.findall(self.text))) if vocabulary is None else list(dict.fromkeys(vocabulary))
        self._words = self.text.split()
        spaces = np.array([match.start() for match in re.finditer(" ", self.text)], dtype=np.int64)
        self._starts = np.concatenate([[0], np.searchsorted(spaces, sentence_ends(self.text)) + 1])

    def passage(self, generator: np.random.Generator) -> Haystack:
        """A haystack of words that begins at a random sentence; the beginning of the text follows its end.

        Raises:
            InputError: no sentence ends within the text.
        """
        if len(self._starts) < 2:
            raise InputError("filler: an essay needs sentences, but no sentence ends in it. Bring a text with full stops.")
        start = int(generator.choice(self._starts))
        words = self._words[start:] + self._words[:start]
        return Haystack(lambda size: words[:size], len(words), " ", np.sort((self._starts - start) % len(words)))


class RandomStrings:
    """Random strings, each of them different from those before, and none of them part of a text."""

    def __init__(self, generator: np.random.Generator, vocabulary: Sequence[str], text: str):
        """Strings.

        Args:
            generator: of the strings.
            vocabulary: words to make pairs of.
            text: where none of the strings may occur.
        """
        self._generator = generator
        self._vocabulary = vocabulary
        self._text = text
        self._used: set[str] = set()

    def number(self, digits: int) -> str:
        """A number without leading zeros."""
        return self._new(lambda: str(self._generator.integers(10 ** (digits - 1), 10**digits)))

    def uuid(self) -> str:
        """A UUID (version 4)."""
        return self._new(lambda: str(uuid.UUID(bytes=self._generator.bytes(16), version=4)))

    def capitals(self, letters: int) -> str:
        """Capital letters."""
        return self._new(lambda: "".join(chr(ord("A") + place) for place in self._generator.integers(26, size=letters)))

    def pair_of_words(self) -> str:
        """Two words of the vocabulary, joined by a hyphen."""
        if not self._vocabulary:
            raise InputError(
                "filler: it has no words of 5 to 10 small letters to make keys of. Bring more filler, or give words."
            )

        def draw() -> str:
            first, second = (int(place) for place in self._generator.integers(len(self._vocabulary), size=2))
            return f"{self._vocabulary[first]}-{self._vocabulary[second]}"

        return self._new(draw)

    def _new(self, draw: Callable[[], str]) -> str:
        for _ in range(_DRAWS):
            string = draw()
            if string not in self._used and string not in self._text:
                self._used.add(string)
                return string
        raise InputError(
            f"filler: {_DRAWS} draws gave no unused string; its {len(self._vocabulary)} different words are too few. "
            "Bring more filler, or give words."
        )
