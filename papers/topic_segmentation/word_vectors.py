"""Word vectors trained by gensim on the text at hand, for GraphSeg and the BiLSTM."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.errors import InputError


@dataclass(frozen=True)
class WordVectors:
    """Vectors of length 1 and information content -log p of words.

    Attributes:
        vectors: float [words, d].
        index: word -> its line.
        information: float [words].
    """

    vectors: np.ndarray
    index: Mapping[str, int]
    information: np.ndarray


def train_word_vectors(texts: Sequence[Sequence[str]], *, size: int = 100, epochs: int = 5, seed: int = 0) -> WordVectors:
    """word2vec by gensim, in one thread so that the same seed gives the same vectors.

    Args:
        texts: words of each sentence.
        size: d.
        epochs: passes over the text.
        seed: of the vectors and of sampling.

    Raises:
        InputError: there are no words.
    """
    from gensim.models import Word2Vec

    texts = [list(words) for words in texts if words]
    if not texts:
        raise InputError("The texts to train word vectors on have no words; give some text.")
    model = Word2Vec(texts, vector_size=size, epochs=epochs, min_count=1, workers=1, seed=seed)
    words = [str(word) for word in model.wv.index_to_key]
    counts = np.array([model.wv.get_vecattr(word, "count") for word in words], dtype=np.float64)
    vectors = np.asarray(model.wv.get_normed_vectors())
    return WordVectors(vectors, {word: number for number, word in enumerate(words)}, -np.log(counts / counts.sum()))
