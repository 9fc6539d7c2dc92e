"""Do TSSP and CSSL improve a sentence labeller, in its own domain and out of it? (Yu et al., 2023)."""

from collections.abc import Iterator
from functools import lru_cache
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from common.configuration import Parameters
from common.data.segmentation import Split
from common.errors import ConfigError
from common.experiment import Context, Measurement, main
from common.metrics.segmentation import segments_of
from papers.topic_segmentation.fine_tuning import FineTuning, fine_tune
from papers.topic_segmentation.scoring import add_scores
from papers.topic_segmentation.subjects import documents_of, fresh_encoder, tokenizer
from papers.topic_segmentation.tssp_cssl import (
    CoherenceModel,
    DocumentPieces,
    Step,
    Weights,
    Window,
    augmented,
    boundary_probabilities,
    coherence_loss,
    original,
    steps_of_epoch,
    windows_of,
)

LOSSES = MappingProxyType(
    {
        "base": (0, 0, 0),
        "augmented": (1, 0, 0),
        "tssp": (1, 1, 0),
        "cssl": (0, 0, 1),
        "tssp+cssl": (1, 1, 1),
    }
)
"""Which of augmented documents, TSSP and CSSL a loss has."""


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        trained_on: name of a data set of `common.data.segmentation` with a training split.
        loss: name in `LOSSES`.
        seed: of layers, order, augmentation and dropout.
        tested_on: data sets, the own one and others.
        documents: at most so many of each split; 0 is all.
        sentences: at most so many of each document; 0 is all.
        longest_sentence: word pieces of a sentence.
        longest_window: tokens of a window.
        tssp_weight: w_tssp.
        cssl_weight: w_cl.
        fine_tuning: training set -> how; a batch is of windows.
        threshold: a sentence ends a topic where its probability is at least this.
        parts: see `scoring.pk_by_part`.
    """

    trained_on: str
    loss: str
    seed: int
    tested_on: list[str]
    documents: int
    sentences: int
    longest_sentence: int
    longest_window: int
    tssp_weight: float
    cssl_weight: float
    fine_tuning: dict[str, FineTuning]
    threshold: float
    parts: int


@lru_cache(maxsize=8)
def _sequences(data_set: str, split: Split, count: int, length: int, longest: int) -> list[DocumentPieces]:
    """Tokenised once for all cells of a process."""
    return [original(document, tokenizer(), longest) for document in documents_of(data_set, split, count, length)]


def run(settings: Settings, context: Context) -> Measurement:
    """Train, and segment the test documents of every data set.

    Rows are `training_loss` (mean of the last epoch) and those of `scoring.add_scores`: `pk`, `window_diff`,
    `boundary_similarity`, `boundary_f1`, `pk_of_part` and others.

    Raises:
        ConfigError: `fine_tuning` says nothing of the training set.
    """
    if settings.trained_on not in settings.fine_tuning:
        known = ", ".join(settings.fine_tuning)
        raise ConfigError(f"fine_tuning says how to train on {known}, and trained_on is {settings.trained_on}; add it.")
    recipe, seed = settings.fine_tuning[settings.trained_on], settings.seed
    size = settings.documents, settings.sentences
    train = _sequences(settings.trained_on, "train", *size, settings.longest_sentence)

    def cut(sequences: list[DocumentPieces]) -> list[Window]:
        return [window for one in sequences for window in windows_of(one, tokenizer(), settings.longest_window)]

    windows = cut(train)
    has_augmented, has_tssp, has_cssl = LOSSES[settings.loss]
    weights = Weights(has_augmented, settings.tssp_weight * has_tssp, settings.cssl_weight * has_cssl)
    steps_of_one = -(-len(windows) // recipe.batch)
    progress = context.progress(recipe.epochs)
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    model = CoherenceModel(fresh_encoder(context.device))
    model.to(context.device)
    beside = cut([augmented(train, number, generator) for number in range(len(train))]) if has_augmented else None

    def epoch_of(epoch: int) -> Iterator[Step]:
        yield from steps_of_epoch(windows, beside, recipe.batch, 1000 * seed + epoch, context.device)
        progress.step(f"epoch {epoch + 1}")

    def loss_of(step: Step) -> Tensor:
        return coherence_loss(model, step, weights, generator)

    measurement = Measurement()
    loss = fine_tune(model, epoch_of, loss_of, recipe, recipe.epochs * steps_of_one)
    measurement.add("training_loss", loss, "nat")
    for data_set in settings.tested_on:
        documents = documents_of(data_set, "test", *size)
        hypotheses = []
        for document, one in zip(documents, _sequences(data_set, "test", *size, settings.longest_sentence), strict=True):
            with torch.autocast(context.device, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
                probabilities = boundary_probabilities(model, cut([one]), len(document.sentences), context.device)
            hypotheses.append(segments_of((probabilities >= settings.threshold).numpy()))
        references = [document.segments for document in documents]
        add_scores(measurement, references, hypotheses, method=settings.loss, parts=settings.parts, tested_on=data_set)
    return measurement


if __name__ == "__main__":
    main(run, Settings)
