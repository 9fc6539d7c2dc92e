"""Does the ensemble of several same-topic models segment better than its members? (Aumiller et al., 2021)."""

import numpy as np
import torch

from common.configuration import Parameters
from common.data.segmentation import Document, Split
from common.experiment import Context, Measurement, main
from common.metrics.segmentation import segments_of
from papers.topic_segmentation.fine_tuning import FineTuning, fine_tune
from papers.topic_segmentation.same_topic import (
    SameTopicModel,
    consecutive_pairs,
    majority,
    pair_batches,
    paragraphs_of,
    same_section,
    same_topic_loss,
    training_pairs,
)
from papers.topic_segmentation.scoring import add_scores
from papers.topic_segmentation.subjects import documents_of, fresh_encoder, tokenizer


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        data_set: to train and test on; a name of `common.data.segmentation`, with paragraphs.
        seeds: of the members of the ensemble: of pairs, order, layer and dropout.
        documents: at most so many of each split; 0 is all.
        sentences: at most so many of each document; 0 is all.
        longest: tokens of a pair.
        fine_tuning: a batch is of pairs.
        parts: see `scoring.pk_by_part`.
    """

    data_set: str
    seeds: list[int]
    documents: int
    sentences: int
    longest: int
    fine_tuning: FineTuning
    parts: int


def segmentations(same: np.ndarray, documents: list[Document]) -> list[tuple[int, ...]]:
    """Segments of each document from the answers for its consecutive paragraphs."""
    ends = np.cumsum([len(document.sentences) - 1 for document in documents])
    return [segments_of(~answers) for answers in np.split(same, ends[:-1])]


def run(settings: Settings, context: Context) -> Measurement:
    """Train the members, and segment the test documents with each of them and with their majority.

    Rows are those of `scoring.add_scores`: `pk`, `window_diff`, `boundary_similarity`, `boundary_f1`, `pk_of_part` and others.
    """
    measurement = Measurement()

    def prepared(split: Split) -> tuple[list[Document], list[list[int]]]:
        found = documents_of(settings.data_set, split, settings.documents, settings.sentences)
        documents = [paragraphs_of(document) for document in found]
        paragraphs = [paragraph for document in documents for paragraph in document.sentences]
        return documents, tokenizer().pieces(paragraphs, settings.longest)

    (train, train_pieces), (test, test_pieces) = prepared("train"), prepared("test")
    references = [document.segments for document in test]
    wanted = consecutive_pairs(test)
    truth = np.array([pair.same for pair in wanted], dtype=bool)
    recipe = settings.fine_tuning
    votes = []

    def score(method: str, same: np.ndarray, seed: int) -> None:
        measurement.add("pair_accuracy", 100 * np.mean(same == truth), "%", method=method, seed=seed)
        add_scores(measurement, references, segmentations(same, test), method=method, parts=settings.parts, seed=seed)

    progress = context.progress(len(settings.seeds))
    for seed in settings.seeds:
        torch.manual_seed(seed)
        pairs = training_pairs(train, seed)
        model = SameTopicModel(fresh_encoder(context.device), tokenizer(), train_pieces, settings.longest)
        model.to(context.device)
        loss = fine_tune(
            model,
            lambda epoch, seed=seed, pairs=pairs: pair_batches(pairs, recipe.batch, 1000 * seed + epoch),
            lambda batch, model=model: same_topic_loss(model, batch),
            recipe,
            recipe.epochs * -(-len(pairs) // recipe.batch),
        )
        measurement.add("training_loss", loss, "nat", seed=seed)
        measurement.add("training_pairs", len(pairs), "pairs", seed=seed)
        model.pieces = test_pieces
        with torch.autocast(context.device, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            votes.append(same_section(model, wanted))
        score("member", votes[-1], seed)
        progress.step(f"seed {seed}")
    # One row a member, so that a comparison in pairs has as many items on both sides.
    for seed in settings.seeds:
        score("ensemble", majority(np.stack(votes)), seed)
    return measurement


if __name__ == "__main__":
    main(run, Settings)
