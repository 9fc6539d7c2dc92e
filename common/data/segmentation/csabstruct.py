"""CSAbstruct (Cohan et al., 2019): abstracts whose sentences have rhetorical labels; a segment is a run of one label.

Runs are one or two sentences, so that window metrics say nothing here: use it for sentence pairs.
"""

from common.data.fetch import fetch
from common.data.segmentation.document import Document, Split, needed, read_json_lines
from common.errors import DataError
from common.metrics.segmentation import segments_of_labels

FILES = {"train": "train.jsonl", "validation": "dev.jsonl", "test": "test.jsonl"}


def load(split: Split) -> list[Document]:
    """1,668, 295 and 226 abstracts as released."""
    documents = []
    for number, (place, entry) in enumerate(read_json_lines(fetch("csabstruct", FILES[split]))):
        sentences, labels = (needed(entry, key, list, place) for key in ("sentences", "labels"))
        if len(sentences) != len(labels):
            raise DataError(f"{place}: {len(sentences)} sentences and {len(labels)} labels.")
        if sentences:
            segments = segments_of_labels(labels)
            firsts = [sum(segments[:number]) for number in range(len(segments))]
            documents.append(
                Document(f"{split}/{number}", tuple(sentences), segments, tuple(labels[first] for first in firsts))
            )
    return documents
