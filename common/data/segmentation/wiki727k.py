"""WIKI-727K (Koshorek et al., 2018): 727,746 Wikipedia articles, brought by the user.

Folders `train`, `dev` and `test` hold, at any depth, one text file an article: a line a sentence, and before each section a
line `========,<level>,<title>.`; the first section is the preface.
"""

import re
from pathlib import Path

from common.data.segmentation.document import Document, Split, brought
from common.data.segmentation.wiki50 import document_of_headings
from common.errors import DataError

FOLDERS = {"train": "train", "validation": "dev", "test": "test"}
_HEADING = re.compile(r"={8},(\d+),")


def read_article(path: Path, *, every_heading: bool = False) -> Document | None:
    """Read one article; None if it has no sentence after its preface.

    Args:
        path: the text file; its name becomes the document's.
        every_heading: see `document_of_headings`.

    Raises:
        DataError: the file does not begin with a heading line, or is not UTF-8 text.
    """
    sections: list[tuple[int, list[str]]] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text ({error}). Unpack the data set again.") from None
    for line in filter(None, map(str.strip, lines)):
        heading = _HEADING.match(line)
        if heading:
            sections.append((int(heading[1]), []))
        elif sections:
            sections[-1][1].append(line)
        else:
            raise DataError(f"{path} begins with {line[:60]!r}; an article begins with a line ========,<level>,<title>.")
    return document_of_headings(path.name, sections, every_heading=every_heading)


def load(split: Split) -> list[Document]:
    """All articles of a split in the order of their paths, top headings only."""
    root = brought("wiki_727", FOLDERS[split], "the repository koomri/text-segmentation (wiki_727K.tar.bz2)")
    documents = (read_article(path) for path in sorted(root.rglob("*")) if path.is_file())
    return [document for document in documents if document is not None]
