"""TopicTiling (Riedl and Biemann, 2012): tiles the topics that LDA assigns to words.

The paper samples topics with Gibbs sampling and takes each word's most frequent topic over repeated inference (its d = true).
gensim's LDA is variational: a word's topic is the most probable one, and counts are added over models of several seeds instead.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from gensim.corpora import Dictionary
from gensim.models import LdaModel
from scipy.special import digamma

from common.errors import InputError
from papers.topic_segmentation.tiling import block_similarities, tile
from papers.topic_segmentation.words import stems_of


@dataclass(frozen=True)
class TopicModel:
    """LDA models over one vocabulary.

    Attributes:
        dictionary: stems.
        models: of different seeds.
    """

    dictionary: Dictionary
    models: tuple[LdaModel, ...]


def train_topic_model(
    documents: Iterable[Sequence[str]], *, topics: int = 100, passes: int = 10, seeds: Sequence[int] = (0, 1, 2)
) -> TopicModel:
    """Train LDA on documents other than those that are segmented.

    Args:
        documents: sentences of each.
        topics: T; α = 50 / T and β = 0.01 as in the paper.
        passes: over the documents.
        seeds: one model each.

    Raises:
        InputError: the documents have no words, or a number is below 1.
    """
    if topics < 1 or passes < 1 or not seeds:
        raise InputError(f"topics = {topics}, passes = {passes}, seeds = {list(seeds)}: give at least one of each.")
    stems = [[stem for sentence in document for stem in stems_of(sentence)] for document in documents]
    dictionary = Dictionary(stems)
    if not len(dictionary):
        raise InputError("The documents to train a topic model on have no words; give some text.")
    bags = [dictionary.doc2bow(document) for document in stems]
    options = {"num_topics": topics, "passes": passes, "alpha": np.full(topics, 50 / topics), "eta": 0.01, "eval_every": None}
    models = [LdaModel(bags, id2word=dictionary, random_state=seed, **options) for seed in seeds]
    return TopicModel(dictionary, tuple(models))


def topic_counts(sentences: Sequence[str], model: TopicModel) -> np.ndarray:
    """How often each topic is the most probable one of a word of each sentence, given the whole document.

    Args:
        sentences: n of them.
        model: with M models of T topics.

    Returns:
        float64 [n, M · T]; words that are not in the vocabulary count nothing.
    """
    bags = [model.dictionary.doc2bow(stems_of(sentence)) for sentence in sentences]
    whole = model.dictionary.doc2bow([stem for sentence in sentences for stem in stems_of(sentence)])
    counts = []
    for lda in model.models:
        lda.random_state = np.random.RandomState(0)  # inference draws its start: the same for every document
        gamma = lda.inference([whole])[0][0]
        weights = digamma(gamma)[:, None] + np.log(lda.get_topics()[:, [word for word, _ in whole]] + 1e-100)
        topic = dict(zip([word for word, _ in whole], weights.argmax(axis=0).tolist(), strict=True))
        found = np.zeros((len(sentences), lda.num_topics))
        for line, bag in zip(found, bags, strict=True):
            for word, times in bag:
                line[topic[word]] += times
        counts.append(found)
    return np.concatenate(counts, axis=1)


def topic_tiling(sentences: Sequence[str], count: int | None = None, *, model: TopicModel, window: int = 2) -> tuple[int, ...]:
    """Segment a document.

    Args:
        sentences: of the document.
        count: the number of segments where it is known.
        model: trained on other documents.
        window: sentences on each side, the paper's w.
    """
    return tile(block_similarities(topic_counts(sentences, model), window), count)
