"""WIKI-50: the 50 Wikipedia articles of Koshorek et al. (2018) for testing, in both readings of their headings.

The preface and lines that stand for lists are removed in both, as the published evaluation does.
"""

from common.data.fetch import fetch
from common.data.segmentation.document import Document, Split, needed, read_json_lines

LIST_LINE = "***LIST***"
TOP_LEVELS = 2
"""Levels whose headings are boundaries where only top headings count."""


def document_of_headings(name: str, sections: list[tuple[int, list[str]]], *, every_heading: bool) -> Document | None:
    """A document of sections with heading levels, the first of which is the preface; None if no sentence is left.

    Args:
        name: of the document.
        sections: (level, lines) in order.
        every_heading: boundaries at every heading; else deeper sections belong to the section of level 1 or 2 they lie in.
    """
    segments: list[list[str]] = []
    for level, lines in sections[1:]:
        kept = [line for line in lines if LIST_LINE not in line]
        if every_heading or level <= TOP_LEVELS or not segments:
            segments.append(kept)
        else:
            segments[-1] = segments[-1] + kept
    segments = [segment for segment in segments if segment]
    if not segments:
        return None
    return Document(name, tuple(line for segment in segments for line in segment), tuple(map(len, segments)))


def _load(split: Split, *, every_heading: bool) -> list[Document]:
    if split != "test":
        return []
    documents = []
    for place, entry in read_json_lines(fetch("wiki50")):
        sections = [
            (needed(section, "level", int, place), needed(section, "sentences", list, place))
            for section in needed(entry, "sections", list, place)
        ]
        documents.append(document_of_headings(needed(entry, "id", str, place), sections, every_heading=every_heading))
    return [document for document in documents if document is not None]


def load_top_headings(split: Split) -> list[Document]:
    """Boundaries at headings of levels 1 and 2: what Koshorek et al. evaluate. For testing only."""
    return _load(split, every_heading=False)


def load_every_heading(split: Split) -> list[Document]:
    """Boundaries at every heading. For testing only."""
    return _load(split, every_heading=True)
