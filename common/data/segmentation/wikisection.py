"""WikiSection (Arnold et al., 2019): Wikipedia articles on cities and diseases, sections with normalised labels.

The subset of `en_city` that the registry holds is NOT the benchmark: 309 articles of its validation split that have sections on
history, geography and demographics. Published numbers do not apply to it. The whole data set is brought by the user.
"""

import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from common.data.fetch import fetch
from common.data.segmentation.document import (
    Document,
    Split,
    brought,
    by_number,
    document_of_sections,
    merge_equal_labels,
    needed,
    read_json_lines,
)
from common.errors import DataError

SUBSET = "wikisection-en-city-subset"


def read_wikisection(path: Path) -> list[Document]:
    """Read a file of WikiSection, `.json` as it is distributed (a list) or `.jsonl` (one object a line).

    A section without `sectionLabel` gets no label; sections and documents without a sentence are left out.

    Raises:
        DataError: the file is not of this format; the message names document and key.
    """
    if path.suffix == ".jsonl":
        return _documents(read_json_lines(path))
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}). Unpack the data set again.") from None
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise DataError(f"{path} must hold a list of documents. Compare it with wikisection_dataset_json.tar.gz.")
    return _documents((f"{path}, document {number}", entry) for number, entry in enumerate(content))


def _documents(entries: Iterable[tuple[str, dict[str, Any]]]) -> list[Document]:
    documents = []
    for place, entry in entries:
        text = needed(entry, "text", str, place)
        sections = []
        for annotation in needed(entry, "annotations", list, place):
            begin, length = (needed(annotation, key, int, place) for key in ("begin", "length"))
            if begin < 0 or length < 0 or begin > len(text):
                raise DataError(
                    f"{place}: a section begins at {begin} with length {length}; the text has {len(text)} characters."
                )
            sections.append((annotation.get("sectionLabel"), text[begin : begin + length]))
        documents.append(document_of_sections(needed(entry, "id", str, place), sections, labelled=True))
    return [document for document in documents if document is not None]


def load_en_city(split: Split) -> list[Document]:
    """216, 31 and 62 documents of the subset by line number (our split), a boundary at every section."""
    return by_number(read_wikisection(fetch(SUBSET, "en_city_hgd_validation.jsonl")), split, (216, 247))


def load_en_city_label_changes(split: Split) -> list[Document]:
    """As `load_en_city`, a boundary only where the label changes."""
    return [merge_equal_labels(document) for document in load_en_city(split)]


def load_en_city_reduced(split: Split) -> list[Document]:
    """658 documents of the test split of `en_city`, reduced by others to four sections: extra training data only.

    Neighbouring segments were not always neighbours in the article.
    """
    if split != "train":
        return []
    documents = []
    for place, entry in read_json_lines(fetch(SUBSET, "en_city_hgd_test_4sec.jsonl")):
        sections = [
            (needed(section, "label", str, place), needed(section, "text", str, place))
            for section in needed(entry, "sections", list, place)
        ]
        documents.append(document_of_sections(needed(entry, "id", str, place), sections, labelled=True))
    return [document for document in documents if document is not None]


def _load_whole(part: str, split: Split, *, label_changes: bool = False) -> list[Document]:
    origin = "the repository sebastianarnold/WikiSection (wikisection_dataset_json.tar.gz)"
    documents = read_wikisection(brought("wikisection", f"wikisection_{part}_{split}.json", origin))
    return [merge_equal_labels(document) for document in documents] if label_changes else documents


WHOLE: dict[str, Callable[[Split], list[Document]]] = {
    f"wikisection-{part.replace('_', '-')}{'-label-changes' if changes else ''}": partial(
        _load_whole, part, label_changes=changes
    )
    for part in ("en_city", "en_disease", "de_city", "de_disease")
    for changes in (False, True)
}
"""Loaders of the whole data set, brought by the user."""
