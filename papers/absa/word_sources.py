"""Word vectors for a vocabulary, from what can be had offline, or from a file of the user's."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from common.errors import DataError, InputError
from common.language_models.sentence_encoder import embed, load_encoder, load_tokenizer
from common.training import derived_seed

Source = Literal["minilm_pieces", "minilm_words", "gensim", "random", "glove"]

RANDOM = 0.25
"""Vectors of unknown words are uniform in ±0.25 (official code of TNet)."""

GLOVE = "glove/glove.840B.300d.txt"
"""Where a user puts GloVe below $REATTEND_DATA."""


def random_vectors(count: int, size: int, seed: int = 0) -> np.ndarray:
    """Uniform in ±0.25: float32 [count, size]."""
    generator = torch.Generator().manual_seed(derived_seed(seed, "word vectors"))
    return torch.empty(count, size).uniform_(-RANDOM, RANDOM, generator=generator).numpy()


def reduced(vectors: np.ndarray, size: int) -> np.ndarray:
    """Vectors without their mean, of length 1, by their first `size` principal components, at the scale of `random_vectors`.

    Args:
        vectors: float [words, d].
        size: at most d and the number of words.

    Returns:
        float32 [words, size]; the root mean square of all values is that of the uniform distribution in ±0.25.

    Raises:
        InputError: `size` is larger.
    """
    from sklearn.decomposition import PCA

    if size > min(vectors.shape):
        raise InputError(f"size is {size}, and {vectors.shape[0]} words of {vectors.shape[1]} dimensions give no more.")
    centred = vectors - vectors.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True).clip(min=1e-12)
    return at_common_scale(PCA(size, svd_solver="full").fit_transform(centred.astype(np.float64)))


def at_common_scale(vectors: np.ndarray) -> np.ndarray:
    """Vectors times one number that gives them the root mean square of the uniform distribution in ±0.25; float32."""
    size = np.sqrt(np.square(vectors).mean())
    return (vectors * (RANDOM / np.sqrt(3) / max(size, 1e-12))).astype(np.float32)


def minilm_pieces(words: Sequence[str], size: int) -> np.ndarray:
    """Mean input embedding of a word's pieces in MiniLM, `reduced`. Raises DataError when the model cannot be had."""
    table = load_encoder("cpu").embeddings.word_embeddings.weight.detach()
    pieces = load_tokenizer().pieces(words, 512)
    vectors = torch.stack([table[ids].mean(0) if ids else torch.zeros(table.shape[1]) for ids in pieces])
    return reduced(vectors.numpy(), size)


def minilm_words(words: Sequence[str], size: int, device: str) -> np.ndarray:
    """MiniLM's output for each word alone, mean over pieces, `reduced`. Raises DataError when the model cannot be had."""
    return reduced(embed(words, device, longest=32), size)


def trained_vectors(
    texts: Sequence[Sequence[str]], words: Sequence[str], *, size: int, epochs: int, seed: int = 0
) -> np.ndarray:
    """word2vec by gensim on the texts at hand, window 5, 10 negatives, every word; one thread, so that numbers repeat.

    Args:
        texts: words of each sentence.
        words: the vocabulary; words that the texts lack get `random_vectors`.
        size: dimensions.
        epochs: passes over the texts.
        seed: of the vectors and of sampling.

    Returns:
        float32 [words, size], at the scale of `random_vectors`.

    Raises:
        InputError: there are no texts.
    """
    from gensim.models import Word2Vec

    if not any(texts):
        raise InputError("The texts to train word vectors on have no words; give some text.")
    model = Word2Vec(
        [list(text) for text in texts],
        vector_size=size, window=5, negative=10, min_count=1, sg=1, epochs=epochs, workers=1, seed=seed,
    )  # fmt: skip
    known = [word for word in words if word in model.wv]
    vectors = random_vectors(len(words), size, seed)
    if known:
        place = {word: number for number, word in enumerate(words)}
        vectors[[place[word] for word in known]] = at_common_scale(np.stack([model.wv[word] for word in known]))
    return vectors


def read_glove(path: Path, words: Sequence[str], size: int) -> np.ndarray:
    """Vectors of a text file: a word and its numbers a line. Words that it lacks get `random_vectors`.

    Args:
        path: of the file.
        words: the vocabulary.
        size: numbers a line.

    Returns:
        float32 [words, size].

    Raises:
        DataError: the file cannot be read, a line has another number of numbers, or it has none of the words.
    """
    place = {word: number for number, word in enumerate(words)}
    vectors = random_vectors(len(words), size)
    found = 0
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            for number, line in enumerate(stream, start=1):
                # Some words of GloVe 840B hold spaces: the numbers are the last `size` fields.
                fields = line.rstrip("\n").split(" ")
                if len(fields) <= size:
                    raise DataError(
                        f"{path}, line {number}: {len(fields) - 1} numbers, expected {size}. Give vectors of that size."
                    )
                word = " ".join(fields[:-size])
                if word in place:
                    vectors[place[word]] = np.array(fields[-size:], dtype=np.float32)
                    found += 1
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). Bring GloVe 840B 300d, or choose other vectors.") from None
    except ValueError:
        raise DataError(f"{path}: a line has what is no number among its last {size} fields. Get the file again.") from None
    if not found:
        raise DataError(f"{path} has none of the {len(words)} words. Is it in another language or format?")
    return vectors


def glove_path() -> Path:
    """Where the user's GloVe file lies.

    Raises:
        DataError: $REATTEND_DATA is not set.
    """
    folder = os.environ.get("REATTEND_DATA")
    if not folder:
        raise DataError(f"Word vectors are 'glove' and REATTEND_DATA is not set: set it, and put the file at {GLOVE} below it.")
    return Path(folder) / GLOVE


def with_padding(vectors: np.ndarray) -> Tensor:
    """float32 [words + 1, size]: a first vector of zeros for padding and erased words, then the words'."""
    return torch.cat([torch.zeros(1, vectors.shape[1]), torch.from_numpy(np.asarray(vectors, dtype=np.float32))])
