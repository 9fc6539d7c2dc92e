"""How far does the supervised BiLSTM get, trained on a few hundred articles instead of 727,746? (Koshorek et al., 2018)."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from common.configuration import Parameters
from common.data.segmentation import Document
from common.experiment import Context, Measurement, main
from common.metrics.segmentation import pk, segments_of
from papers.topic_segmentation.bilstm import HierarchicalBiLSTM, all_words_of, boundary_loss, ends_of, word_ids
from papers.topic_segmentation.fine_tuning import FineTuning, fine_tune, in_batches
from papers.topic_segmentation.scoring import add_scores
from papers.topic_segmentation.subjects import documents_of
from papers.topic_segmentation.word_vectors import train_word_vectors


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        trained_on: name of a data set of `common.data.segmentation` with training and validation documents.
        tested_on: data sets.
        seeds: of vectors, network and order; one training each.
        documents: at most so many of each split; 0 is all.
        sentences: at most so many of each document; 0 is all.
        word_vector_texts: data sets whose training documents give the word vectors.
        word_vector_size: d.
        word_vector_epochs: passes over the text.
        longest: words of a sentence.
        hidden: of each direction of an LSTM.
        fine_tuning: a batch is of documents.
        thresholds: among which that of the boundary's probability is chosen by P_k on the validation documents.
        parts: see `scoring.pk_by_part`.
    """

    trained_on: str
    tested_on: list[str]
    seeds: list[int]
    documents: int
    sentences: int
    word_vector_texts: list[str]
    word_vector_size: int
    word_vector_epochs: int
    longest: int
    hidden: int
    fine_tuning: FineTuning
    thresholds: list[float]
    parts: int


@torch.inference_mode()
def probabilities(model: HierarchicalBiLSTM, documents: list[list[Tensor]], batch: int) -> list[np.ndarray]:
    """P(a segment ends) after each sentence but the last of each document: float [n - 1]."""
    logits = [found for part in in_batches(len(documents), batch) for found in model(documents[part])]
    return [found.float().softmax(dim=1)[:-1, 1].cpu().numpy() for found in logits]


def chosen_threshold(found: list[np.ndarray], documents: list[Document], thresholds: list[float]) -> float:
    """The threshold with the lowest P_k on validation documents; the smaller of equals."""
    references = [document.segments for document in documents]
    return min(sorted(thresholds), key=lambda threshold: pk(references, [segments_of(values > threshold) for values in found]))


def run(settings: Settings, context: Context) -> Measurement:
    """Train with each seed, choose the threshold on validation documents, and segment the test documents.

    Rows are those of `scoring.add_scores`: `pk`, `window_diff`, `boundary_similarity`, `boundary_f1`, `pk_of_part` and others.
    """
    measurement = Measurement()
    size = settings.documents, settings.sentences
    train, validation = (documents_of(settings.trained_on, split, *size) for split in ("train", "validation"))
    texts = [
        all_words_of(sentence, settings.longest)
        for name in settings.word_vector_texts
        for document in documents_of(name, "train", *size)
        for sentence in document.sentences
    ]
    recipe = settings.fine_tuning
    progress = context.progress(len(settings.seeds))
    for seed in settings.seeds:
        torch.manual_seed(seed)
        words = train_word_vectors(texts, size=settings.word_vector_size, epochs=settings.word_vector_epochs, seed=seed)

        def prepared(documents: list[Document], words=words) -> list[list[Tensor]]:
            return [word_ids(document, words, settings.longest) for document in documents]

        model = HierarchicalBiLSTM(words, settings.hidden).to(context.device)
        examples = list(zip(prepared(train), map(ends_of, train), strict=True))

        def batches(epoch: int, seed: int = seed, examples=examples) -> Iterator[list[tuple[list[Tensor], Tensor]]]:
            order = np.random.default_rng([seed, epoch]).permutation(len(examples))
            return ([examples[i] for i in order[part]] for part in in_batches(len(order), recipe.batch))

        steps = recipe.epochs * -(-len(train) // recipe.batch)
        loss = fine_tune(model, batches, lambda batch, model=model: boundary_loss(model, batch), recipe, steps)
        measurement.add("training_loss", loss, "nat", seed=seed)
        threshold = chosen_threshold(probabilities(model, prepared(validation), recipe.batch), validation, settings.thresholds)
        measurement.add("threshold", threshold, seed=seed)
        for data_set in settings.tested_on:
            documents = documents_of(data_set, "test", *size)
            found = probabilities(model, prepared(documents), recipe.batch)
            add_scores(
                measurement,
                [document.segments for document in documents],
                [segments_of(values > threshold) for values in found],
                method="bilstm",
                parts=settings.parts,
                tested_on=data_set,
                seed=seed,
            )
        progress.step(f"seed {seed}")
    return measurement


if __name__ == "__main__":
    main(run, Settings)
