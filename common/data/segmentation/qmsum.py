"""QMSum (Zhong et al., 2021): meetings with topic spans; a unit is a turn."""

from common.data.fetch import fetch
from common.data.segmentation.document import Document, Split, needed, read_json_lines
from common.errors import DataError
from common.metrics.segmentation import segments_of_labels

FILES = {"train": "qmsum_train.jsonl", "validation": "qmsum_val.jsonl", "test": "qmsum_test.jsonl"}


def segments_of_spans(turns: int, topics: list[list[tuple[int, int]]], place: str) -> tuple[int, ...]:
    """Segments from topic spans, which neither cover a meeting nor keep apart.

    A turn belongs to the last listed topic that covers it; turns of no topic form segments of their own; maximal runs are the
    segments.

    Args:
        turns: number of turns.
        topics: spans of each topic, first and last turn, both included.
        place: for messages.

    Raises:
        DataError: a span leaves the meeting.
    """
    topic_of = [-1] * turns
    for number, spans in enumerate(topics):
        for first, last in spans:
            if not 0 <= first <= last < turns:
                raise DataError(f"{place}: a span from turn {first} to {last} in a meeting of {turns} turns.")
            topic_of[first : last + 1] = [number] * (last + 1 - first)
    return segments_of_labels(topic_of)


def load(split: Split) -> list[Document]:
    """162, 35 and 35 meetings as released. A sentence is `<speaker>: <text>` of a turn."""
    documents = []
    for place, entry in read_json_lines(fetch("qmsum", FILES[split])):
        turns = needed(entry, "turns", list, place)
        topics = [
            [tuple(span) for span in needed(topic, "spans", list, place)] for topic in needed(entry, "topics", list, place)
        ]
        if turns:
            sentences = tuple(f"{speaker}: {text}" for speaker, text in turns)
            documents.append(Document(needed(entry, "id", str, place), sentences, segments_of_spans(len(turns), topics, place)))
    return documents
