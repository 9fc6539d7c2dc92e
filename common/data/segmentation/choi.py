"""Choi (2000): documents of ten excerpts from the Brown corpus. Synthetic: neighbouring segments have nothing in common."""

from common.data.fetch import fetch
from common.data.segmentation.document import Document, Split, needed, read_json_lines


def load(split: Split) -> list[Document]:
    """All 920 documents; the data set is for testing only. The name is `<group>/<range of segment lengths>/<number>`."""
    if split != "test":
        return []
    return [
        Document(
            needed(entry, "id", str, place),
            tuple(needed(entry, "sentences", list, place)),
            tuple(needed(entry, "segments", list, place)),
        )
        for place, entry in read_json_lines(fetch("choi"))
    ]


def load_700(split: Split) -> list[Document]:
    """Groups 1 to 3, the 700 documents that most published numbers are about."""
    return [document for document in load(split) if not document.name.startswith("4/")]
