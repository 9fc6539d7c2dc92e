"""Same-topic prediction on pairs of paragraphs, and the ensemble of several runs (Aumiller et al., 2021, arXiv 2012.03619).

A cross-encoder reads "[CLS] a [SEP] b [SEP]" and says whether paragraphs a and b belong to one section. Training pairs are
drawn within documents; a document is segmented by asking for its consecutive paragraphs: a boundary lies where they are not of
one section. The ensemble takes the majority of the runs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from common.data.segmentation import Document
from common.errors import InputError
from common.language_models.sentence_encoder import SentenceTokenizer
from papers.topic_segmentation.fine_tuning import in_batches

MOST_PAIRS = 3
"""Positive pairs of a paragraph at most, and as many negative ones."""


def paragraphs_of(document: Document) -> Document:
    """The document with paragraphs as its units.

    Raises:
        InputError: its paragraphs are unknown, or cross a section's end.
    """
    if document.paragraphs is None:
        raise InputError(f"The paragraphs of {document.name!r} are unknown; choose a data set of running text.")
    texts, lengths, start = [], [], 0
    section_ends = set(np.cumsum(document.segments).tolist())
    count = 0
    for length in document.paragraphs:
        texts.append(" ".join(document.sentences[start : start + length]))
        start += length
        count += 1
        if start in section_ends:
            lengths.append(count)
            count = 0
    if len(lengths) != len(document.segments):
        raise InputError(f"A paragraph of {document.name!r} crosses the end of a section; check its paragraphs.")
    return Document(document.name, tuple(texts), tuple(lengths), document.labels)


@dataclass(frozen=True)
class Pair:
    """Two paragraphs, numbered over all documents, and whether they are of one section."""

    left: int
    right: int
    same: bool


def training_pairs(documents: Sequence[Document], seed: int) -> list[Pair]:
    """For each paragraph min(3, floor(others in its section / 2)) positives, and as many negatives from other sections.

    Args:
        documents: of paragraphs.
        seed: of the draws.
    """
    generator = np.random.default_rng(seed)
    pairs, start = [], 0
    for document in documents:
        section = np.repeat(np.arange(len(document.segments)), document.segments)
        for i in range(len(section)):
            inside = np.flatnonzero(section == section[i])
            inside, outside = inside[inside != i], np.flatnonzero(section != section[i])
            count = min(MOST_PAIRS, len(inside) // 2, len(outside))
            for pool, same in ((inside, True), (outside, False)):
                chosen = generator.choice(pool, count, replace=False) if count else []
                pairs += [Pair(start + i, start + int(j), same) for j in chosen]
        start += len(section)
    return pairs


def consecutive_pairs(documents: Sequence[Document]) -> list[Pair]:
    """Neighbouring paragraphs of every document, in order."""
    pairs, start = [], 0
    for document in documents:
        section = np.repeat(np.arange(len(document.segments)), document.segments)
        pairs += [Pair(start + i, start + i + 1, bool(section[i] == section[i + 1])) for i in range(len(section) - 1)]
        start += len(section)
    return pairs


class SameTopicModel(nn.Module):
    """A cross-encoder with a linear layer on the state of [CLS].

    Args:
        encoder: a BERT of hidden size d.
        tokenizer: of the encoder.
        pieces: word pieces of every paragraph.
        longest: tokens of a pair; the longer paragraph is cut first.
        dropout: before the layer.
    """

    def __init__(
        self,
        encoder: nn.Module,
        tokenizer: SentenceTokenizer,
        pieces: Sequence[Sequence[int]],
        longest: int,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.encoder, self.tokenizer, self.pieces, self.longest = encoder, tokenizer, pieces, longest
        size = int(encoder.config.hidden_size)  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
        self.dropout = nn.Dropout(dropout)
        self.same = nn.Linear(size, 2)

    def forward(self, pairs: Sequence[Pair]) -> Tensor:
        """Logits [P, 2]; class 1 is one section."""
        rows, kinds = [], []
        for pair in pairs:
            left, right = cut_longest(self.pieces[pair.left], self.pieces[pair.right], self.longest - 3)
            rows.append([self.tokenizer.start, *left, self.tokenizer.separator, *right, self.tokenizer.separator])
            kinds.append([0] * (len(left) + 2) + [1] * (len(right) + 1))
        device = self.same.weight.device
        lengths = torch.tensor([len(row) for row in rows])
        ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True).to(device)
        token_types = pad_sequence([torch.tensor(kind) for kind in kinds], batch_first=True).to(device)
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long().to(device)
        hidden = self.encoder(input_ids=ids, attention_mask=mask, token_type_ids=token_types).last_hidden_state
        return self.same(self.dropout(hidden[:, 0])).float()


def cut_longest(left: Sequence[int], right: Sequence[int], room: int) -> tuple[list[int], list[int]]:
    """Cut two token lists to `room` together: the longer one first, both to half of it where both are longer."""
    keep_left = max(room - len(right), room - room // 2)
    keep_right = max(room - len(left), room // 2)
    return list(left[:keep_left]), list(right[:keep_right])


def same_topic_loss(model: SameTopicModel, pairs: Sequence[Pair]) -> Tensor:
    """Cross entropy of a batch of pairs."""
    target = torch.tensor([int(pair.same) for pair in pairs], device=model.same.weight.device)
    return cross_entropy(model(pairs), target)


def pair_batches(pairs: Sequence[Pair], size: int, seed: int) -> Iterator[list[Pair]]:
    """One epoch of pairs in random order."""
    order = np.random.default_rng(seed).permutation(len(pairs))
    return ([pairs[i] for i in order[part]] for part in in_batches(len(pairs), size))


@torch.inference_mode()
def same_section(model: SameTopicModel, pairs: Sequence[Pair], size: int = 256) -> np.ndarray:
    """Whether the model takes each pair for one section: bool [pairs]."""
    answers = [model(pairs[part]).argmax(dim=1).bool().cpu().numpy() for part in in_batches(len(pairs), size)]
    return np.concatenate(answers) if answers else np.zeros(0, dtype=bool)


def majority(votes: np.ndarray) -> np.ndarray:
    """The majority of several runs: bool [runs, pairs] -> bool [pairs]; a draw is a boundary, as in the official code."""
    return 2 * votes.sum(axis=0) > len(votes)
