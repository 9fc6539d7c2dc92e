"""Does the gain of +AS depend on the word vectors? The memory network on vectors of several sources."""

import torch

from common.configuration import Parameters
from common.errors import DataError
from common.experiment import Context, Measurement, main
from papers.absa.memory_network import MemoryNetwork
from papers.absa.pipeline import AS, PLAIN, Learning, Mining, add_scores, learn
from papers.absa.replicas import AspectNetwork
from papers.absa.subjects import Sizes, free_memory, subject_of_words
from papers.absa.word_sources import Source, minilm_pieces, minilm_words, random_vectors, with_padding

TRAINED_BY = "word_vectors"


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        vectors: source of the word vectors.
        data_set: a name of `common.data.aspects`.
        seeds: of parameters and order.
        sizes: of the splits, as in `word_vectors`.
        longest: tokens of a sentence, around the target.
        vector_size: d.
        learning: of the memory network.
        mining: chains and variants.
        resamples: of the paired test over sentences.
    """

    vectors: Source
    data_set: str
    seeds: list[int]
    sizes: Sizes
    longest: int
    vector_size: int
    learning: Learning
    mining: Mining
    resamples: int


def vectors_of(settings: Settings, words: list[str], context: Context) -> torch.Tensor:
    """Word vectors with that of padding: float32 [words + 1, d].

    Raises:
        DataError: gensim's were trained for another vocabulary or size.
    """
    if settings.vectors == "minilm_pieces":
        return with_padding(minilm_pieces(words, settings.vector_size))
    if settings.vectors == "minilm_words":
        return with_padding(minilm_words(words, settings.vector_size, context.device))
    if settings.vectors == "random":
        return with_padding(random_vectors(len(words), settings.vector_size))
    earlier = context.results_of(TRAINED_BY)
    for record in earlier.records:
        if record.axes["data_set"] == settings.data_set:
            vectors = earlier.artifact(record, "gensim")["vectors"]
            if vectors.shape != (len(words), settings.vector_size):
                wanted = (len(words), settings.vector_size)
                raise DataError(
                    f"{record.identity} has vectors of shape {tuple(vectors.shape)}, expected {wanted}: "
                    "give word_vectors and vector_sources the same sizes and vector_size."
                )
            return with_padding(vectors.numpy())
    raise DataError(f"{TRAINED_BY} has no cell with data_set = {settings.data_set!r}; add it to config.yaml.")


def run(settings: Settings, context: Context) -> Measurement:
    """Rows of `pipeline.add_scores`, among them `accuracy` and `macro_f1`."""
    measurement = Measurement()
    subject = subject_of_words(settings.data_set, settings.sizes, settings.longest, context.device)
    vectors = vectors_of(settings, subject.names[1:], context)

    def make(copies: int) -> AspectNetwork:
        return MemoryNetwork(vectors, seeds=settings.seeds, copies=copies).to(context.device)

    progress = context.progress(settings.learning.rounds + 1)
    trained, _ = learn(make, len(settings.seeds), subject, settings.learning, settings.mining, [PLAIN, AS], progress)
    add_scores(measurement, subject, trained, settings.mining, settings.resamples)
    free_memory(context.device)
    return measurement


if __name__ == "__main__":
    main(run, Settings)
