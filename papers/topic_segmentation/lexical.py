"""How well do trivial segmenters and those that compare words or topics segment, in every convention?"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from common.configuration import Parameters
from common.data.segmentation import Document
from common.experiment import Context, Measurement, main
from common.metrics.segmentation import Segments, pk
from papers.topic_segmentation.c99 import c99
from papers.topic_segmentation.graph_seg import graph_seg, segments_of_graph, sentence_similarities
from papers.topic_segmentation.scoring import add_scores
from papers.topic_segmentation.scoring_in_words import add_scores_in_words
from papers.topic_segmentation.subjects import documents_of
from papers.topic_segmentation.tiling import text_tiling
from papers.topic_segmentation.topic_tiling import TopicModel, topic_tiling, train_topic_model
from papers.topic_segmentation.trivial import even, every_boundary, no_boundary, random_boundaries
from papers.topic_segmentation.word_vectors import WordVectors, train_word_vectors
from papers.topic_segmentation.words import words_of

FOLDS = "folds"

Method = Literal["none", "all", "even", "random", "text_tiling", "text_tiling_short", "c99", "topic_tiling", "graph_seg"]


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        data_set: whose test documents are segmented; a name of `common.data.segmentation`.
        documents: at most so many of them; 0 is all.
        methods: segmenters.
        random_seeds: of the random segmenter.
        block: sentences on each side, of `text_tiling`.
        short_block: the same, of `text_tiling_short`.
        background: data set -> where a topic model is trained: the training documents of another data set, or `folds`, the
            test documents of the other folds.
        folds: number of folds; document i is in fold i modulo it.
        topics: of LDA.
        topic_passes: of LDA over the documents.
        topic_seeds: one LDA model each.
        topic_window: sentences on each side, of `topic_tiling`.
        word_vector_texts: data set whose training documents give GraphSeg its word vectors, and whose validation documents
            its threshold.
        word_vector_size: dimensions.
        word_vector_epochs: passes over the text.
        thresholds: among which GraphSeg's is chosen by P_k on the validation documents.
        smallest: fewest sentences of a segment, of GraphSeg.
        parts: see `scoring.pk_by_part`.
    """

    data_set: str
    documents: int
    methods: list[Method]
    random_seeds: list[int]
    block: int
    short_block: int
    background: dict[str, str]
    folds: int
    topics: int
    topic_passes: int
    topic_seeds: list[int]
    topic_window: int
    word_vector_texts: str
    word_vector_size: int
    word_vector_epochs: int
    thresholds: list[float]
    smallest: int
    parts: int


def topic_models(settings: Settings, documents: Sequence[Document]) -> list[TopicModel]:
    """For each document a topic model that was not trained on it."""

    def train(texts: Sequence[Document]) -> TopicModel:
        sentences = [document.sentences for document in texts]
        return train_topic_model(sentences, topics=settings.topics, passes=settings.topic_passes, seeds=settings.topic_seeds)

    source = settings.background[settings.data_set]
    if source != FOLDS:
        return [train(documents_of(source, "train", settings.documents, 0))] * len(documents)
    folds = [
        train([document for number, document in enumerate(documents) if number % settings.folds != fold])
        for fold in range(settings.folds)
    ]
    return [folds[number % settings.folds] for number in range(len(documents))]


def chosen_threshold(settings: Settings, words: WordVectors) -> float:
    """GraphSeg's threshold with the lowest P_k on validation documents; the smaller of equals."""
    documents = documents_of(settings.word_vector_texts, "validation", settings.documents, 0)
    similarities = [sentence_similarities(document.sentences, words) for document in documents]
    references = [document.segments for document in documents]

    def error(threshold: float) -> float:
        return pk(references, [segments_of_graph(found, threshold, settings.smallest) for found in similarities])

    return min(sorted(settings.thresholds), key=error)


def run(settings: Settings, context: Context) -> Measurement:
    """Segment the test documents with every method; where a method can, also with the number of segments known.

    Rows are those of `scoring.add_scores`: `pk`, `window_diff`, `boundary_similarity`, `boundary_f1`, `pk_of_part` and others;
    and of `scoring_in_words`.
    """
    measurement = Measurement()
    documents = documents_of(settings.data_set, "test", settings.documents, 0)
    references, texts = [document.segments for document in documents], [document.sentences for document in documents]
    measurement.add("documents", len(documents), "documents")
    measurement.add("sentences", sum(map(sum, references)), "sentences")
    measurement.add("segments", sum(map(len, references)), "segments")
    progress = context.progress(len(settings.methods))

    def score(method: str, hypotheses: list[tuple[int, ...]], count: str = "found", seed: int = 0) -> None:
        place = {"method": method, "parts": settings.parts, "count": count, "seed": seed}
        add_scores(measurement, references, hypotheses, **place)
        add_scores_in_words(measurement, references, hypotheses, texts, **place)

    trivial: Mapping[str, Callable[[Segments], tuple[int, ...]]] = {"none": no_boundary, "all": every_boundary, "even": even}
    for method in settings.methods:
        if method in trivial:
            score(method, [trivial[method](reference) for reference in references], "known" if method == "even" else "found")
        elif method == "random":
            for seed in settings.random_seeds:
                generator = np.random.default_rng(seed)
                score(method, [random_boundaries(reference, generator) for reference in references], seed=seed)
        elif method == "graph_seg":
            background = documents_of(settings.word_vector_texts, "train", settings.documents, 0)
            words = train_word_vectors(
                [words_of(sentence) for document in background for sentence in document.sentences],
                size=settings.word_vector_size,
                epochs=settings.word_vector_epochs,
            )
            threshold = chosen_threshold(settings, words)
            measurement.add("graph_seg_threshold", threshold)
            score(
                method,
                [
                    graph_seg(document.sentences, words=words, threshold=threshold, smallest=settings.smallest)
                    for document in documents
                ],
            )
        else:
            segmenters = _segmenters(method, settings, documents)
            for count in ("found", "known"):
                score(
                    method,
                    [
                        segment(document.sentences, len(document.segments) if count == "known" else None)
                        for segment, document in zip(segmenters, documents, strict=True)
                    ],
                    count,
                )
        progress.step(method)
    return measurement


Segmenter = Callable[[Sequence[str], int | None], tuple[int, ...]]


def _segmenters(method: str, settings: Settings, documents: Sequence[Document]) -> list[Segmenter]:
    """The segmenter of each document."""
    if method == "topic_tiling":

        def with_model(model: TopicModel) -> Segmenter:
            return lambda sentences, count: topic_tiling(sentences, count, model=model, window=settings.topic_window)

        return [with_model(model) for model in topic_models(settings, documents)]
    by_name: dict[str, Segmenter] = {
        "c99": c99,
        "text_tiling": lambda sentences, count: text_tiling(sentences, count, block=settings.block),
        "text_tiling_short": lambda sentences, count: text_tiling(sentences, count, block=settings.short_block),
    }
    return [by_name[method]] * len(documents)


if __name__ == "__main__":
    main(run, Settings)
