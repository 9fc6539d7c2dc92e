"""The Wikipedia articles that gensim carries, with their top sections as segments: real text without any download.

Labels are the headings as they are written, not normalised.
"""

import bz2
import re
from functools import cache

from common.data.fetch import fetch
from common.data.segmentation.document import Document, Split, by_number, document_of_sections
from common.data.texts import WIKIPEDIA
from common.errors import DataError

APPARATUS = frozenset(
    {
        "introduction", "references", "external links", "see also", "further reading", "notes", "bibliography", "footnotes",
        "sources", "citations", "gallery", "notes and references", "references and notes", "notes and citations", "other uses",
    }
)  # fmt: skip
"""Headings of sections that are left out: the preface, as elsewhere in the field, and what is no running text."""
FEWEST_SECTIONS = 3


def plain(text: str) -> str:
    """A section without headings inside, list lines, table rows, and the marks of bold and italic."""
    lines = [line for line in text.split("\n") if not line.lstrip().startswith(("=", "*", "#", ":", ";", "|", "!", "{"))]
    return re.sub("'{2,}", "", "\n".join(lines))


@cache
def _documents() -> tuple[Document, ...]:
    try:
        from gensim.scripts.segment_wiki import extract_page_xmls, segment
    except ImportError as error:
        raise DataError(
            "The data set 'wikipedia-sections' is read with gensim, which is not installed. Run: pip install gensim==4.4.0"
        ) from error
    found = []
    with bz2.open(fetch(WIKIPEDIA)) as stream:
        for page in extract_page_xmls(stream):
            title, sections = segment(page)[:2]
            kept = [
                (heading.strip().lower(), plain(body)) for heading, body in sections if heading.strip().lower() not in APPARATUS
            ]
            document = document_of_sections(str(title), kept, labelled=True)
            if document is not None and len(document.segments) >= FEWEST_SECTIONS:
                found.append(document)
    return tuple(found)


def load(split: Split) -> list[Document]:
    """Articles with at least three sections of running text, in the order of the file: 50, 10 and the rest (our split)."""
    return by_number(list(_documents()), split, (50, 60))
