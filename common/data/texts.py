"""Texts by name: WikiText-2, books, Wikipedia articles."""

import bz2
import hashlib
import re
from dataclasses import dataclass

from common.data.fetch import fetch
from common.data.registry import load_registry
from common.errors import DataError

WIKIPEDIA = "wikipedia-articles"
SHORTEST_ARTICLE = 2000
"""Characters; leaves out redirects and pages without text."""


@dataclass(frozen=True)
class Text:
    """A text.

    Attributes:
        name: as given to `load_text`.
        split: `train`, `validation` or `test` as registered; None where the text has no split.
        text: the content.
        sha256: of `text` in UTF-8.
    """

    name: str
    split: str | None
    text: str
    sha256: str


@dataclass(frozen=True)
class Article:
    """A Wikipedia article: its title, and its text with a line for the heading of each section after the first."""

    title: str
    text: str


def unwrap_lines(text: str) -> str:
    """Undo hard line wraps: a single newline between two other characters becomes a space; empty lines stay."""
    return re.sub(r"(?<=[^\n])\n(?=[^\n])", " ", text)


def text_names() -> list[str]:
    """All names that `load_text` knows."""
    texts = (f"{dataset.name}/{entry.text}" for dataset in load_registry().datasets for entry in dataset.files if entry.text)
    return [*texts, WIKIPEDIA]


def load_text(name: str, *, unwrap: bool = False) -> Text:
    """Load a registered text, fetching it if need be.

    Args:
        name: `wikitext-2/test`, `long-texts/moby_dick`, `wikipedia-articles` (joined in the order of the file), ...
        unwrap: undo the hard line wraps of books.

    Raises:
        DataError: unknown name, or the file cannot be had (see `common.data.fetch.fetch`).
    """
    if name not in text_names():
        raise DataError(f"There is no text {name!r}; there are: {', '.join(text_names())}.")
    if name == WIKIPEDIA:
        split, text = None, "\n\n\n".join(f"{article.title}\n\n{article.text}" for article in articles())
    else:
        dataset, _, short = name.partition("/")
        entry = next(entry for entry in load_registry().dataset(dataset).files if entry.text == short)
        split, text = entry.split, fetch(dataset, entry.name).read_bytes().decode("utf-8")
    if unwrap:
        text = unwrap_lines(text)
    return Text(name, split, text, hashlib.sha256(text.encode("utf-8")).hexdigest())


def articles() -> list[Article]:
    """The Wikipedia articles of at least `SHORTEST_ARTICLE` characters, in the order of the file, freed of markup by gensim.

    Raises:
        DataError: gensim is not installed, or the file cannot be had.
    """
    try:
        from gensim.scripts.segment_wiki import extract_page_xmls, segment
    except ImportError as error:
        raise DataError(
            "The text 'wikipedia-articles' is read with gensim, which is not installed. Run: pip install gensim==4.4.0"
        ) from error
    found = []
    with bz2.open(fetch(WIKIPEDIA)) as stream:
        for page in extract_page_xmls(stream):
            title, sections = segment(page)[:2]
            if sum(len(body) for _, body in sections) >= SHORTEST_ARTICLE:
                text = "\n\n".join(
                    body.strip() if number == 0 else f"{heading}\n\n{body.strip()}"
                    for number, (heading, body) in enumerate(sections)
                )
                found.append(Article(str(title), re.sub("'{2,}", "", text)))  # gensim leaves the marks of bold and italic
    return found
