"""Does progressive attention supervision improve memory network, TNet with attention and transformer?"""

import time
from typing import Literal

import torch

from common.configuration import Parameters
from common.experiment import Context, Measurement, main
from papers.absa.aspect_transformer import AspectTransformer
from papers.absa.memory_network import MemoryNetwork
from papers.absa.pipeline import Learning, Mining, add_attention, add_scores, add_words, learn
from papers.absa.replicas import AspectNetwork
from papers.absa.subjects import Sizes, Subject, free_memory, fresh_encoder, subject_of_pieces, subject_of_words
from papers.absa.tnet_attention import TNetAttention
from papers.absa.word_sources import glove_path, minilm_pieces, random_vectors, read_glove, with_padding

Model = Literal["memory_network", "tnet_attention", "transformer"]


class TNetSizes(Parameters):
    """What TNet has besides the word vectors: see `tnet_attention`."""

    hidden: int
    dropout: float
    through_padding: bool


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        data_set: a name of `common.data.aspects`.
        model: which network.
        seeds: of parameters, order and dropout.
        sizes: of the splits.
        longest: tokens of a sentence, around the target.
        vectors: of words, for all but the transformer.
        vector_size: d.
        encoder: of the transformer: `minilm`, or a folder below $REATTEND_DATA.
        encoder_dropout: of the transformer.
        tnet: of TNet.
        learning: by model.
        epochs: data set -> epochs of TNet and the memory network, where they are not those of `learning`.
        wide: data sets with all of a model's variants.
        main_variants: those of the model's variants that the other data sets get.
        mining: chains and variants.
        resamples: of the paired test over sentences.
        least: times that a word must have been picked, see `pipeline.add_attention`.
        top: words listed.
        pictured: data sets whose licence lets sentences be shown.
        pictures: attention maps kept.
        longest_picture: tokens of a sentence shown.
    """

    data_set: str
    model: Model
    seeds: list[int]
    sizes: Sizes
    longest: int
    vectors: Literal["minilm_pieces", "random", "glove"]
    vector_size: int
    encoder: str
    encoder_dropout: float
    tnet: TNetSizes
    learning: dict[Model, Learning]
    epochs: dict[str, dict[Model, int]]
    wide: list[str]
    main_variants: list[str]
    mining: Mining
    resamples: int
    least: int
    top: int
    pictured: list[str]
    pictures: int
    longest_picture: int


def word_vectors_of(settings: Settings, words: list[str]) -> torch.Tensor:
    """The word vectors of the settings with that of padding, on the CPU: float32 [words + 1, d]."""
    if settings.vectors == "glove":
        return with_padding(read_glove(glove_path(), words, settings.vector_size))
    if settings.vectors == "random":
        return with_padding(random_vectors(len(words), settings.vector_size))
    return with_padding(minilm_pieces(words, settings.vector_size))


def subject_of(settings: Settings, device: str) -> Subject:
    """The data set in the tokens of the model."""
    if settings.model == "transformer":
        return subject_of_pieces(settings.data_set, settings.sizes, settings.longest, device, settings.encoder)
    return subject_of_words(settings.data_set, settings.sizes, settings.longest, device)


def run(settings: Settings, context: Context) -> Measurement:
    """Mine words, train all variants, score them.

    Rows: `accuracy`, `macro_f1`, `accuracy_by_aspect`, `as_gain`, `selection_gain`, `target_difference` and the paired test
    over sentences, of `pipeline.add_scores`; `picked`, of `add_words`; `attention_mass`, `attention_on_picked` and
    `attention_entropy`, of `add_attention`; `instances` and `training_time`. Arrays are those of the last two functions.
    """
    measurement = Measurement()
    device = context.device
    subject = subject_of(settings, device)
    learning = settings.learning[settings.model]
    epochs = settings.epochs.get(settings.data_set, {}).get(settings.model, learning.epochs)
    learning = learning.model_copy(update={"epochs": epochs})
    names = learning.variants
    if settings.data_set not in settings.wide:
        names = [name for name in names if name in settings.main_variants]
    vectors = None if settings.model == "transformer" else word_vectors_of(settings, subject.names[1:]).to(device)

    def make(copies: int) -> AspectNetwork:
        sizes = {"seeds": settings.seeds, "copies": copies}
        if vectors is None:
            network = AspectTransformer(fresh_encoder(settings.encoder), dropout=settings.encoder_dropout, **sizes)
        elif settings.model == "memory_network":
            network = MemoryNetwork(vectors.cpu(), **sizes)
        else:
            network = TNetAttention(vectors.cpu(), **settings.tnet.model_dump(), **sizes)
        return network.to(device)

    for split, sentences in subject.sentences.items():
        measurement.add("instances", len(sentences), "instances", split=split)
    start = time.perf_counter()
    progress = context.progress(learning.rounds + 1)
    trained, rounds = learn(make, len(settings.seeds), subject, learning, settings.mining, names, progress)
    measurement.add("training_time", time.perf_counter() - start, "s", timing=True, trainings=len(names) * len(settings.seeds))
    add_scores(measurement, subject, trained, settings.mining, settings.resamples)
    add_words(measurement, subject, rounds, settings.seeds, settings.top)
    add_attention(
        measurement, subject, trained, learning, least=settings.least,
        pictures=settings.pictures if settings.data_set in settings.pictured else 0, longest_picture=settings.longest_picture,
    )  # fmt: skip
    del trained, rounds
    free_memory(device)
    return measurement


if __name__ == "__main__":
    main(run, Settings)
