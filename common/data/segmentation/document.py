"""A document with its segmentation, and what the loaders share."""

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from common.errors import DataError, InputError

Split = Literal["train", "validation", "test"]

# A sentence ends in . ! or ?, perhaps a closing quote or bracket, and the next begins with a capital or a digit.
_SENTENCE_END = re.compile(r"""(?<=[.!?])["')\]]*\s+(?=["'(\[]?[A-Z0-9])""")


@dataclass(frozen=True)
class Document:
    """A document and its reference segmentation.

    Attributes:
        name: unique in its data set.
        sentences: at least one; in dialogues the turns.
        segments: lengths in sentences, in order; they sum to the number of sentences.
        labels: of each segment, None for one that has no label; None where the data set has no labels at all.
        paragraphs: lengths in sentences of paragraphs, which never cross a segment's end; None where they are unknown.

    Raises:
        InputError: there is no sentence, or lengths do not fit.
    """

    name: str
    sentences: tuple[str, ...]
    segments: tuple[int, ...]
    labels: tuple[str | None, ...] | None = None
    paragraphs: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not self.sentences:
            raise InputError(f"The document {self.name!r} has no sentences; leave it out.")
        for what, lengths in (("segments", self.segments), ("paragraphs", self.paragraphs)):
            if lengths is not None and (any(length < 1 for length in lengths) or sum(lengths) != len(self.sentences)):
                raise InputError(
                    f"The document {self.name!r} has {len(self.sentences)} sentences and {what} of {list(lengths)}; "
                    "lengths are at least 1 and sum to the number of sentences."
                )
        if self.labels is not None and len(self.labels) != len(self.segments):
            raise InputError(f"The document {self.name!r} has {len(self.segments)} segments and {len(self.labels)} labels.")

    def sentence_labels(self) -> list[str | None]:
        """The label of each sentence: that of its segment.

        Raises:
            InputError: the data set has no labels.
        """
        if self.labels is None:
            raise InputError(f"The document {self.name!r} has no labels; choose a labelled data set.")
        return [label for label, length in zip(self.labels, self.segments, strict=True) for _ in range(length)]


def split_sentences(text: str) -> list[str]:
    """Sentences of a paragraph by a regular expression: no model, the same on every machine.

    Abbreviations before a capital are split too ("Dr. Who"); the figures of the data sets' descriptions count that way.
    """
    return [sentence.strip() for sentence in _SENTENCE_END.split(text) if sentence.strip()]


def document_of_sections(name: str, sections: Iterable[tuple[str | None, str]], *, labelled: bool) -> Document | None:
    """A document of sections of running text, one paragraph a line; sections without a sentence are dropped.

    Args:
        name: of the document.
        sections: (label, text) in order.
        labelled: whether the document gets labels.

    Returns:
        None if no sentence is left.
    """
    sentences: list[str] = []
    segments, paragraphs, labels = [], [], []
    for label, text in sections:
        found = [sentences_of_line for line in text.split("\n") if (sentences_of_line := split_sentences(line))]
        if found:
            sentences += [sentence for paragraph in found for sentence in paragraph]
            paragraphs += [len(paragraph) for paragraph in found]
            segments.append(sum(len(paragraph) for paragraph in found))
            labels.append(label)
    if not sentences:
        return None
    return Document(name, tuple(sentences), tuple(segments), tuple(labels) if labelled else None, tuple(paragraphs))


def merge_equal_labels(document: Document) -> Document:
    """Count a boundary only where the label changes: neighbouring segments of one label become one (the reading of SECTOR).

    Segments without a label stay apart.

    Raises:
        InputError: the data set has no labels.
    """
    if document.labels is None:
        raise InputError(f"The document {document.name!r} has no labels; it has only the reading with all sections.")
    keys = [(label, number if label is None else -1) for number, label in enumerate(document.labels)]
    groups = [list(group) for _, group in groupby(zip(keys, document.segments, strict=True), key=lambda pair: pair[0])]
    return replace(
        document,
        segments=tuple(sum(length for _, length in group) for group in groups),
        labels=tuple(group[0][0][0] for group in groups),
    )


def first_sentences(document: Document, count: int) -> Document:
    """A document cut after `count` sentences; its last segment and paragraph may end early.

    Raises:
        InputError: the count is below 1.
    """
    if count < 1:
        raise InputError(f"count is {count}; a document has at least one sentence.")

    def cut(lengths: tuple[int, ...]) -> tuple[int, ...]:
        starts = [sum(lengths[:number]) for number in range(len(lengths))]
        return tuple(min(length, count - start) for length, start in zip(lengths, starts, strict=True) if start < count)

    segments = cut(document.segments)
    return Document(
        document.name,
        document.sentences[:count],
        segments,
        None if document.labels is None else document.labels[: len(segments)],
        None if document.paragraphs is None else cut(document.paragraphs),
    )


def read_json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSON-lines file, each with its place for messages.

    Raises:
        DataError: a line is not a JSON object.
    """
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            place = f"{path}, line {number}"
            try:
                content = json.loads(line)
            except ValueError as error:
                raise DataError(f"{place} is not JSON ({error}). Fetch the file again.") from None
            if not isinstance(content, dict):
                raise DataError(f"{place} is no JSON object. Fetch the file again.")
            yield place, content


def needed(content: dict[str, Any], key: str, kind: type, place: str) -> Any:
    """A value of a JSON object.

    Raises:
        DataError: it is missing or of another type.
    """
    if key not in content:
        raise DataError(f"{place}: the key {key!r} is missing. Compare the file with the format of its data set.")
    if not isinstance(content[key], kind):
        raise DataError(f"{place}: {key} = {str(content[key])[:60]!r}; it must be of type {kind.__name__}.")
    return content[key]


def brought(folder: str, file: str, where_from: str) -> Path:
    """A file or folder that no registry knows, brought by the user: `$REATTEND_DATA/<folder>/<file>`.

    Raises:
        DataError: it is not there; the message says where to get it.
    """
    path = Path(os.environ.get("REATTEND_DATA", ".")).expanduser() / folder / file
    if not path.exists():
        raise DataError(
            f"{folder}/{file} must be brought: get it from {where_from} and put it at $REATTEND_DATA/{folder}/{file}."
        )
    return path


def by_number(documents: list[Document], split: Split, ends: tuple[int, int]) -> list[Document]:
    """A fixed split by the number of the document: train before the first end, validation before the second, then test."""
    first, second = ends
    return {"train": documents[:first], "validation": documents[first:second], "test": documents[second:]}[split]
