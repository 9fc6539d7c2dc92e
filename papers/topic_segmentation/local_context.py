"""Topic segmentation from neighbouring sentences alone (Lee et al., 2023, arXiv 2301.01935).

Two neighbouring sentences s_i, s_{i+1} are encoded independently by one encoder ("siamese"), u and v, and three heads are
trained together: Same Topic Prediction, Topic Classification and Next Sentence Prediction, in every combination.

    z = [u; v; |u - v|]          STP(z), NSP(z): two classes each;    TC(u), TC(v): the section's label
    L = L_STP + L_TC + L_NSP     cross entropies of the heads that are trained

There is no official code, and only the abstract is open to us: pooling, the pair feature, weights and the negatives of NSP are
a RECONSTRUCTION. Where the paper's idea is contrasted with context, a sentence is encoded between its neighbours.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from common.data.segmentation import Document
from common.errors import InputError
from common.language_models.sentence_encoder import SentenceTokenizer, mean_of_tokens
from papers.topic_segmentation.fine_tuning import in_batches

Head = Literal["stp", "tc", "nsp"]
HEADS: tuple[Head, ...] = ("stp", "tc", "nsp")
UNKNOWN = -100
"""Class of a sentence without a label, or whose label the training documents do not have: it has no part in a loss or score."""


def heads_of(name: str) -> tuple[Head, ...]:
    """`stp+tc` -> ("stp", "tc"). Raises InputError for other names."""
    heads: tuple[Head, ...] = tuple(head for head in HEADS if head in name.split("+"))
    if not heads or "+".join(heads) != name:
        raise InputError(f"heads = {name!r}; join some of {', '.join(HEADS)} with +, in this order.")
    return heads


@dataclass(frozen=True)
class Sentences:
    """The sentences of some documents, ready for the encoder.

    Attributes:
        ids: int64 [n, L], padded.
        own: bool [n, L]: places of the sentence's own tokens, over which is pooled.
        document: int64 [n]: number of the document.
        segment: int64 [n]: number of the segment, counted over all documents.
        topic: int64 [n]: class of the segment's label, or UNKNOWN.
        padding: id of the padding token.
    """

    ids: Tensor
    own: Tensor
    document: Tensor
    segment: Tensor
    topic: Tensor
    padding: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def follows(self) -> Tensor:
        """Whether sentence i + 1 is of the same document as sentence i: bool [n - 1]."""
        return self.document[1:] == self.document[:-1]


def classes_of(documents: Sequence[Document]) -> dict[str, int]:
    """Label -> class, in alphabetical order; empty where no document has labels."""
    labels = {label for document in documents for label in document.labels or () if label is not None}
    return {label: number for number, label in enumerate(sorted(labels))}


def encode_documents(
    documents: Sequence[Document], tokenizer: SentenceTokenizer, classes: dict[str, int], *, longest: int, context: int = 0
) -> Sentences:
    """Tokenise documents.

    Args:
        documents: at least one.
        tokenizer: of the encoder.
        classes: label -> class.
        longest: L at most, special tokens included.
        context: sentences on each side that are read with a sentence; 0 is the paper's local encoding. Half of the length is
            the sentence's own, the rest is shared by the neighbours, cut on their far sides.

    Raises:
        InputError: there are no documents, or the length leaves no room.
    """
    room = longest - 2
    if not documents or room < 4 or context < 0:
        raise InputError(f"{len(documents)} documents, longest = {longest}, context = {context}: give documents and length 6.")
    rows, owns, numbers, segments, topics = [], [], [], [], []
    segment = 0
    for number, document in enumerate(documents):
        pieces = tokenizer.pieces(document.sentences, room)
        for place, own in enumerate(pieces):
            left = [token for near in pieces[max(0, place - context) : place] for token in near]
            right = [token for near in pieces[place + 1 : place + 1 + context] for token in near]
            if context:
                own = own[: room // 2]
                side = (room - len(own)) // 2
                left, right = left[-side:], right[:side]
            else:
                left, right = [], []
            rows.append(torch.tensor([tokenizer.start, *left, *own, *right, tokenizer.separator]))
            # A sentence without any token is read from its special tokens.
            mask = torch.zeros(len(rows[-1]), dtype=torch.bool)
            mask[1 + len(left) : 1 + len(left) + len(own)] = True
            owns.append(mask if own else ~mask)
            numbers.append(number)
        labels = document.labels or (None,) * len(document.segments)
        for length, label in zip(document.segments, labels, strict=True):
            segments += [segment] * length
            topics += [classes.get(label, UNKNOWN) if label is not None else UNKNOWN] * length
            segment += 1
    return Sentences(
        pad_sequence(rows, batch_first=True, padding_value=tokenizer.padding),
        pad_sequence(owns, batch_first=True, padding_value=False),
        torch.tensor(numbers),
        torch.tensor(segments),
        torch.tensor(topics),
        tokenizer.padding,
    )


class LocalContextModel(nn.Module):
    """The siamese encoder with its heads; heads that are not trained do not exist.

    Args:
        encoder: a BERT of hidden size d.
        heads: which.
        classes: C, of topic classification.
        dropout: before the heads.

    Raises:
        InputError: no heads, or topic classification without at least two classes.
    """

    def __init__(self, encoder: nn.Module, heads: Sequence[Head], classes: int, dropout: float = 0.1):
        super().__init__()
        if not heads or ("tc" in heads and classes < 2):
            raise InputError(f"heads = {list(heads)} with {classes} classes; give a head, and labels where there is tc.")
        self.encoder = encoder
        size = int(encoder.config.hidden_size)  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
        sizes = {"stp": (3 * size, 2), "nsp": (3 * size, 2), "tc": (size, classes)}
        self.heads = nn.ModuleDict({head: nn.Linear(*sizes[head]) for head in heads})
        self.dropout = nn.Dropout(dropout)

    def encode(self, ids: Tensor, own: Tensor, padding: int) -> Tensor:
        """Sentence vectors [B, d] float32 from ids [B, L] and the places of their own tokens [B, L]."""
        hidden = self.encoder(input_ids=ids, attention_mask=(ids != padding).long()).last_hidden_state
        return mean_of_tokens(hidden, own)

    def of_pairs(self, head: Head, u: Tensor, v: Tensor) -> Tensor:
        """Logits [P, 2] of a pair head from vectors [P, d]."""
        return self.heads[head](self.dropout(torch.cat([u, v, (u - v).abs()], dim=1))).float()

    def of_sentences(self, u: Tensor) -> Tensor:
        """Logits [B, C] of topics from vectors [B, d]."""
        return self.heads["tc"](self.dropout(u)).float()


@dataclass(frozen=True)
class PairBatch:
    """Sentences of a step and the pairs among them; all index into `rows` but `rows` itself.

    Attributes:
        rows: int64 [B]: which sentences of `Sentences`.
        left: int64 [P]: sentences with a successor in the batch.
        right: int64 [P]: their successors.
        other: int64 [P]: sentences that do not follow them, the negatives of NSP.
    """

    rows: Tensor
    left: Tensor
    right: Tensor
    other: Tensor


def runs_of(sentences: Sentences, length: int) -> list[tuple[int, int]]:
    """Consecutive sentences of one document, (first, end), that overlap by one: every pair of neighbours is in exactly one."""
    breaks = [0, *(torch.nonzero(~sentences.follows).flatten() + 1).tolist(), len(sentences)]
    runs = []
    for start, end in pairwise(breaks):
        runs += [(first, min(first + length, end)) for first in range(start, end - 1, length - 1)]
    return runs


def pair_batches(sentences: Sentences, length: int, runs: int, seed: int) -> Iterator[PairBatch]:
    """One epoch: runs of sentences in random order, several a step, so that each sentence is encoded about once.

    A negative is drawn for half of the pairs from another section of the same run, where there is one, else from another run.

    Args:
        sentences: to train on.
        length: sentences of a run, at least 2.
        runs: a step; the last step of an epoch may have fewer.
        seed: of the order and the negatives.

    Raises:
        InputError: length is below 2.
    """
    if length < 2:
        raise InputError(f"length is {length}; a run of sentences has at least two, or it holds no pair.")
    generator = np.random.default_rng(seed)
    all_runs = runs_of(sentences, length)
    segment = sentences.segment.cpu().numpy()
    order = generator.permutation(len(all_runs))
    for part in in_batches(len(order), runs):
        chosen = [all_runs[number] for number in order[part]]
        rows = np.concatenate([np.arange(*run) for run in chosen])
        run_of = np.repeat(np.arange(len(chosen)), [end - start for start, end in chosen])
        left = np.flatnonzero(run_of[1:] == run_of[:-1])
        same_run = run_of[left][:, None] == run_of
        other_section = segment[rows[left]][:, None] != segment[rows]
        successor = left[:, None] + 1 == np.arange(len(rows))
        near, far = same_run & other_section & ~successor, ~same_run
        take_near = near.any(axis=1) & ((generator.random(len(left)) < 0.5) | ~far.any(axis=1))
        pool = np.where(take_near[:, None], near, far)
        # A batch of one run in one section: any sentence that is not the successor; the sentence itself at worst.
        pool = np.where(pool.any(axis=1, keepdims=True), pool, same_run & ~successor)
        other = np.where(pool, generator.random(pool.shape), -1.0).argmax(axis=1)
        yield PairBatch(*(torch.from_numpy(values) for values in (rows, left, left + 1, other)))


def count_batches(sentences: Sentences, length: int, runs: int) -> int:
    """Batches of an epoch of `pair_batches`."""
    return -(-len(runs_of(sentences, length)) // runs)


def joint_loss(model: LocalContextModel, sentences: Sentences, batch: PairBatch) -> Tensor:
    """The sum of the heads' cross entropies on a batch.

    STP is trained on true neighbours alone, so that its class balance does not depend on the other heads.
    """
    device = sentences.ids.device
    rows, left, right, other = (part.to(device) for part in (batch.rows, batch.left, batch.right, batch.other))
    vectors = model.encode(sentences.ids[rows], sentences.own[rows], sentences.padding)
    total = vectors.new_zeros(())
    if "stp" in model.heads:
        segment = sentences.segment[rows]
        same = (segment[left] == segment[right]).long()
        total = total + cross_entropy(model.of_pairs("stp", vectors[left], vectors[right]), same)
    if "nsp" in model.heads:
        logits = model.of_pairs("nsp", vectors[left.repeat(2)], vectors[torch.cat([right, other])])
        total = total + cross_entropy(logits, torch.cat([torch.ones_like(left), torch.zeros_like(left)]))
    if "tc" in model.heads:
        topic = sentences.topic[rows]
        known = topic != UNKNOWN
        # The mean over no sentence would not be a number.
        losses = cross_entropy(model.of_sentences(vectors), topic, ignore_index=UNKNOWN, reduction="sum")
        total = total + losses / known.sum().clamp(min=1)
    return total


@dataclass(frozen=True)
class Predictions:
    """What the heads say of documents, on the CPU; None for a head that was not trained.

    Attributes:
        different: float [n - 1], STP: probability that neighbours are of different sections.
        not_next: float [n - 1], NSP: probability that a sentence does not follow the one before.
        not_next_of_other: float [n - 1], NSP: the same of a random other sentence.
        topics: float [n, C], TC: probabilities.
    """

    different: Tensor | None
    not_next: Tensor | None
    not_next_of_other: Tensor | None
    topics: Tensor | None


@torch.inference_mode()
def predict(model: LocalContextModel, sentences: Sentences, *, seed: int, batch_size: int = 512) -> Predictions:
    """Apply a model to all neighbours of some documents.

    Args:
        model: in evaluation mode.
        sentences: at least two.
        seed: of the random other sentences that NSP is scored with.
        batch_size: sentences or pairs at once.
    """
    device = sentences.ids.device
    parts = list(in_batches(len(sentences), batch_size))
    vectors = torch.cat([model.encode(sentences.ids[part], sentences.own[part], sentences.padding) for part in parts])
    n = len(vectors)
    generator = torch.Generator().manual_seed(seed)
    # Neither the sentence itself nor its successor.
    offset = torch.randint(2, n, (n - 1,), generator=generator) if n > 2 else torch.zeros(n - 1, dtype=torch.int64)
    other = ((torch.arange(n - 1) + offset) % n).to(device)

    def of_pairs(head: Head, right: Tensor) -> Tensor:
        logits = [model.of_pairs(head, vectors[:-1][part], right[part]) for part in in_batches(n - 1, batch_size)]
        return torch.cat(logits).softmax(dim=1)[:, 0].cpu()

    return Predictions(
        of_pairs("stp", vectors[1:]) if "stp" in model.heads else None,
        of_pairs("nsp", vectors[1:]) if "nsp" in model.heads else None,
        of_pairs("nsp", vectors[other]) if "nsp" in model.heads else None,
        model.of_sentences(vectors).softmax(dim=1).cpu() if "tc" in model.heads else None,
    )


def boundary_scores_of(predictions: Predictions) -> Tensor:
    """A boundary lies where this exceeds one half: float [n - 1].

    STP decides where it is trained. TC alone: 1 where the most probable topic changes, else 0. NSP alone: not next. TC with
    NSP: the mean of NSP's and of the probability that two topics drawn from TC differ.
    """
    if predictions.different is not None:
        return predictions.different
    if predictions.topics is None:
        assert predictions.not_next is not None, "a model has at least one head"
        return predictions.not_next
    if predictions.not_next is None:
        best = predictions.topics.argmax(dim=1)
        return (best[1:] != best[:-1]).float()
    return (predictions.not_next + 1 - (predictions.topics[1:] * predictions.topics[:-1]).sum(dim=1)) / 2
