"""Aspect-based sentiment: sentences with a marked target and its polarity, by name of the data set.

    load_instances("mams", "test")

A sentence with several targets is there once for each of them.
"""

import difflib
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from common.data.fetch import fetch
from common.errors import DataError, InputError

Split = Literal["train", "validation", "test"]
Polarity = Literal["negative", "neutral", "positive"]

POLARITIES: tuple[Polarity, ...] = ("negative", "neutral", "positive")
"""In the order of their class numbers."""

SUFFIXES: dict[str, Polarity] = {"/n": "negative", "/0": "neutral", "/p": "positive"}
"""The last two characters of a target's token, in the files of Tang et al. (2019)."""

# A word with its apostrophes and hyphens inside, or one other visible character.
_TOKEN = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")


@dataclass(frozen=True)
class Instance:
    """A sentence with one target.

    Attributes:
        tokens: of the sentence, at least one.
        start: number of the target's first token.
        end: number of its last token plus 1.
        polarity: towards the target.

    Raises:
        InputError: the target is empty or lies outside the sentence, or the polarity is unknown.
    """

    tokens: tuple[str, ...]
    start: int
    end: int
    polarity: Polarity

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end <= len(self.tokens):
            raise InputError(
                f"The target covers the tokens {self.start} to {self.end} of a sentence of {len(self.tokens)} tokens; "
                "it has at least one token and lies inside."
            )
        if self.polarity not in POLARITIES:
            raise InputError(f"polarity is {self.polarity!r}; it is one of {', '.join(POLARITIES)}.")

    @property
    def target(self) -> tuple[str, ...]:
        """The target's tokens."""
        return self.tokens[self.start : self.end]


def tokenise(text: str) -> list[str]:
    """Lower-case words and punctuation marks of a text."""
    return _TOKEN.findall(text.lower())


def read_marked_lines(lines: Iterable[str], place: str) -> list[Instance]:
    """Instances of the format of Tang et al. (2019): one a line, tokens between spaces, the target's with `/p`, `/n` or `/0`.

    Blank lines are passed over. Only the end of a token is looked at: "w/out" is an ordinary word. A mark that stands alone
    belongs to the word before it. Where several pieces of a line are marked, as in seven of the published files' lines, the
    target is the first run of tokens with one polarity, and the others stay as they are written.

    Args:
        lines: of the file.
        place: for messages.

    Raises:
        DataError: a line has no target.
    """
    found = []
    for number, line in enumerate(lines, start=1):
        tokens: list[str] = []
        for token in line.split():
            if token in SUFFIXES and tokens:
                tokens[-1] += token
            else:
                tokens.append(token)
        if not tokens:
            continue
        polarities: list[Polarity | None] = [SUFFIXES.get(token[-2:]) if len(token) > 2 else None for token in tokens]
        start = next((position for position, polarity in enumerate(polarities) if polarity), None)
        if start is None:
            raise DataError(
                f"{place}, line {number}: no target. Every line marks one target, whose tokens end in /p, /n or /0; "
                f"the line is {line.strip()[:60]!r}."
            )
        polarity = polarities[start]
        assert polarity is not None
        end = start + 1
        while end < len(tokens) and polarities[end] == polarity:
            end += 1
        words = [token[:-2] if start <= position < end else token for position, token in enumerate(tokens)]
        found.append(Instance(tuple(words), start, end, polarity))
    return found


def read_aspect_terms(content: bytes, place: str) -> list[Instance]:
    """Instances of the XML of SemEval and MAMS: sentences with `aspectTerm`s, by character offsets. Tokens are lower-case.

    Sentences without aspect terms give no instance.

    Args:
        content: of the file.
        place: for messages.

    Raises:
        DataError: it is no such XML, a term lacks its polarity or offsets or has a polarity of another kind, or its offsets
            do not fit the text.
    """
    try:
        root = ET.fromstring(content)
    except ET.ParseError as error:
        raise DataError(f"{place} is not valid XML ({error}). Get the file again.") from None
    found = []
    for number, sentence in enumerate(root.iter("sentence"), start=1):
        text = sentence.findtext("text") or ""
        for term in sentence.iter("aspectTerm"):
            where = f"{place}, sentence {number}, aspect term {term.get('term')!r}"
            polarity: Polarity | None = next((known for known in POLARITIES if known == term.get("polarity")), None)
            if polarity is None:
                raise DataError(f"{where}: polarity is {term.get('polarity')!r}; it is one of {', '.join(POLARITIES)}.")
            offsets = (term.get("from", ""), term.get("to", ""))
            if not all(offset.isdecimal() for offset in offsets):
                raise DataError(f"{where}: from and to are {offsets}; both are numbers of characters.")
            start, end = map(int, offsets)
            if not start < end <= len(text) or text[start:end] != term.get("term"):
                raise DataError(f"{where}: the text has {text[start:end]!r} at {start} to {end}. Correct the offsets.")
            before, target, after = (tokenise(part) for part in (text[:start], text[start:end], text[end:]))
            found.append(Instance((*before, *target, *after), len(before), len(before) + len(target), polarity))
    return found


def read_file(path: Path) -> list[Instance]:
    """The instances of a file, `.xml` by `read_aspect_terms` and any other by `read_marked_lines`.

    Raises:
        DataError: it cannot be read, or as those do.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".xml":
            return read_aspect_terms(content, str(path))
        return read_marked_lines(content.decode("utf-8").split("\n"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text ({error}). Get the file again.") from None


def _mams(split: Split) -> list[Instance]:
    return read_file(fetch("absa-mams", f"mams_atsa_{'val' if split == 'validation' else split}.xml"))


def _tang(name: str, split: Split) -> list[Instance]:
    # The authors' own 80:20 cut of the training set, which their scripts have for tuning.
    parts = {"train": f"{name}_val_train.txt", "validation": f"{name}_val_test.txt", "test": f"{name}_test.txt"}
    return read_file(fetch("absa", parts[split]))


DATA_SETS: dict[str, Callable[[Split], list[Instance]]] = {
    "mams": _mams,
    **{name: partial(_tang, name) for name in ("laptop", "rest", "twitter")},
}
"""Name of a data set -> its loader."""


def load_instances(name: str, split: Split) -> list[Instance]:
    """The instances of a split, in the order of the data set.

    Args:
        name: in `DATA_SETS`.
        split: `train`, `validation` or `test`.

    Raises:
        DataError: unknown name, or its files cannot be had or are damaged.
    """
    if name not in DATA_SETS:
        near = difflib.get_close_matches(name, DATA_SETS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(DATA_SETS)}."
        raise DataError(f"There is no data set {name!r} of aspects; {hint}")
    return DATA_SETS[name](split)
