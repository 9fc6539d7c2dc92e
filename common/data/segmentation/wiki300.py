"""The 300 Wikipedia articles that came with Badjatiya et al. (2018), without section titles."""

from common.data.fetch import fetch
from common.data.segmentation.document import Document, Split, by_number, needed, read_json_lines


def load(split: Split) -> list[Document]:
    """210, 30 and 60 documents by line number (our split; the data set came as one test set)."""
    documents = [
        Document(
            needed(entry, "id", str, place),
            tuple(needed(entry, "sentences", list, place)),
            tuple(needed(entry, "segments", list, place)),
        )
        for place, entry in read_json_lines(fetch("wiki300"))
    ]
    return by_number(documents, split, (210, 240))
