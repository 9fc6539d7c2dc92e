"""Which word vectors can be had offline, and what do they say about sentiment by themselves? Trains gensim's, too."""

import numpy as np
import torch

from common.configuration import Parameters
from common.experiment import Context, Measurement, main
from papers.absa.scoring import accuracy, macro_f1
from papers.absa.subjects import Sizes, all_instances, instances_of, subject_of_words, vocabulary
from papers.absa.word_sources import Source, minilm_pieces, minilm_words, random_vectors, trained_vectors, with_padding


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        data_set: a name of `common.data.aspects`.
        sizes: of the splits.
        longest: tokens of a sentence, around the target.
        vector_size: d.
        sources: of word vectors.
        texts: data sets whose sentences gensim trains on, besides those of `data_set`; without their labels.
        gensim_epochs: passes over them.
        seed: of gensim and of random vectors.
    """

    data_set: str
    sizes: Sizes
    longest: int
    vector_size: int
    sources: list[Source]
    texts: list[str]
    gensim_epochs: int
    seed: int


def sentences_to_read(settings: Settings) -> list[tuple[str, ...]]:
    """The different sentences of all data sets to train word vectors on: all splits of `data_set`, training alone of others."""
    found = [instance.tokens for split in all_instances(settings.data_set, settings.sizes).values() for instance in split]
    for other in settings.texts:
        if other != settings.data_set:
            found += [instance.tokens for instance in instances_of(other, "train", settings.sizes.train)]
    return list(dict.fromkeys(found))


def probe(vectors: torch.Tensor, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Test labels and predictions of a logistic regression on the mean vectors of context and target."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    subject = subject_of_words(settings.data_set, settings.sizes, settings.longest, "cpu")

    def features(split: str) -> np.ndarray:
        sentences = subject.sentences[split]  # pyright: ignore[reportArgumentType]
        parts = []
        for mask in (sentences.context, sentences.target):
            rows = [
                vectors[ids[here]].mean(0) if here.any() else vectors[0] for ids, here in zip(sentences.ids, mask, strict=True)
            ]
            parts.append(torch.stack(rows))
        return torch.cat(parts, dim=1).numpy()

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, C=0.01))
    model.fit(features("train"), subject.sentences["train"].labels.numpy())
    return subject.sentences["test"].labels.numpy(), np.asarray(model.predict(features("test")))


def run(settings: Settings, context: Context) -> Measurement:
    """Rows `accuracy` and `macro_f1` by source, and `words`; the artifact `gensim` with `vectors` in the vocabulary's order."""
    measurement = Measurement()
    words = vocabulary(settings.data_set, settings.sizes)
    measurement.add("words", len(words), "words")
    progress = context.progress(len(settings.sources))
    for source in settings.sources:
        if source == "gensim":
            texts = sentences_to_read(settings)
            vectors = trained_vectors(
                texts, words, size=settings.vector_size, epochs=settings.gensim_epochs, seed=settings.seed
            )
            measurement.artifacts["gensim"] = {"vectors": torch.from_numpy(vectors)}
        elif source == "minilm_pieces":
            vectors = minilm_pieces(words, settings.vector_size)
        elif source == "minilm_words":
            vectors = minilm_words(words, settings.vector_size, context.device)
        else:
            vectors = random_vectors(len(words), settings.vector_size, settings.seed)
        labels, predicted = probe(with_padding(vectors), settings)
        measurement.add("accuracy", accuracy(labels, predicted), "%", method=source)
        measurement.add("macro_f1", macro_f1(labels, predicted), "%", method=source)
        progress.step(source)
    return measurement


if __name__ == "__main__":
    main(run, Settings)
