"""Sentences with a marked target as tensors: of words with a vocabulary of their own, or of a transformer's word pieces."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from common.data.aspects import POLARITIES, Instance
from common.errors import InputError
from common.language_models.sentence_encoder import SentenceTokenizer

ERASED = 0
"""Id of padding and of erased words."""

REACH = 40
"""Words farther from the target have position weight 0 (official code of TNet)."""


@dataclass(frozen=True)
class Sentences:
    """N sentences of at most n tokens, targets of at most m.

    Attributes:
        ids: int64 [N, n]; 0 is padding.
        inside: what is not padding, bool [N, n].
        target: the target's tokens, bool [N, n].
        context: tokens that attention may rest on and that may be picked: neither padding, target nor special, bool [N, n].
        target_ids: int64 [N, m]; 0 is padding.
        position_weights: p of TNet, float32 [N, n].
        labels: numbers of `POLARITIES`, int64 [N].
    """

    ids: Tensor
    inside: Tensor
    target: Tensor
    context: Tensor
    target_ids: Tensor
    position_weights: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: str) -> "Sentences":
        """The same on a device."""
        return Sentences(*(getattr(self, field.name).to(device) for field in fields(self)))

    def batch(self, rows: Tensor, erased: Tensor | None = None) -> "Batch":
        """The sentences in `rows` for every replica.

        Args:
            rows: int64 [R, B].
            erased: words that replicas do not see, bool [R, N, n]; None is none.
        """
        ids, context = self.ids[rows], self.context[rows]
        hidden = torch.zeros_like(context)
        if erased is not None:
            hidden = erased[torch.arange(len(rows), device=rows.device)[:, None], rows]
        return Batch(
            ids=ids.masked_fill(hidden, ERASED),
            inside=self.inside[rows],
            erased=hidden,
            target=self.target[rows],
            context=context & ~hidden,
            target_ids=self.target_ids[rows],
            position_weights=self.position_weights[rows],
            labels=self.labels[rows],
        )


@dataclass(frozen=True)
class Batch:
    """What R replicas see of B sentences each: the attributes of `Sentences` with first sizes R and B, and what is erased."""

    ids: Tensor
    inside: Tensor
    erased: Tensor
    target: Tensor
    context: Tensor
    target_ids: Tensor
    position_weights: Tensor
    labels: Tensor


def window(instance: Instance, longest: int) -> Instance:
    """At most `longest` tokens around the target, as much before it as after it where the sentence has them.

    Raises:
        InputError: the target alone is longer.
    """
    if len(instance.target) > longest:
        raise InputError(
            f"The target {' '.join(instance.target)[:60]!r} has {len(instance.target)} tokens and longest is {longest}."
        )
    spare = longest - len(instance.target)
    first = max(0, min(instance.start - spare // 2, len(instance.tokens) - longest))
    tokens = instance.tokens[first : first + longest]
    return Instance(tokens, instance.start - first, instance.end - first, instance.polarity)


def position_weights(length: int, start: int, end: int) -> Tensor:
    """p_i = 1 − d_i/40, and 0 beyond: float32 [length].

    d_i is the distance to the target's last token for tokens left of the target, and to its first for the others.
    """
    places = torch.arange(length)
    distance = torch.where(places < start, end - 1 - places, (places - start).abs())
    return (1 - distance / REACH).clamp(min=0).float()


def vocabulary_of(instances: Sequence[Instance]) -> list[str]:
    """All words in the order of the alphabet; word number k has id k + 1."""
    return sorted({token for instance in instances for token in instance.tokens})


def word_sentences(instances: Sequence[Instance], vocabulary: Sequence[str], *, longest: int) -> Sentences:
    """Sentences of words.

    Args:
        instances: at least one.
        vocabulary: with all their words.
        longest: see `window`.

    Raises:
        InputError: there are no instances, or a word is not in the vocabulary.
    """
    number = {word: place for place, word in enumerate(vocabulary, start=1)}
    cut = [window(instance, longest) for instance in instances]
    unknown = {token for instance in cut for token in instance.tokens if token not in number}
    if unknown:
        raise InputError(f"The vocabulary lacks {sorted(unknown)[:5]}; make it of all splits.")
    return _tensors(cut, [[number[token] for token in instance.tokens] for instance in cut])


def piece_sentences(instances: Sequence[Instance], tokenizer: SentenceTokenizer, *, longest: int) -> Sentences:
    """Sentences of word pieces between [CLS] and [SEP], which are inside but not of the context.

    Args:
        instances: at least one.
        tokenizer: whose padding has id 0.
        longest: pieces of a sentence with both special ones.

    Raises:
        InputError: there are no instances, padding has another id, or a word has no pieces.
    """
    if tokenizer.padding != ERASED:
        raise InputError(f"The tokenizer pads with id {tokenizer.padding}; erased words and padding have id {ERASED}.")
    words = sorted({token for instance in instances for token in instance.tokens})
    pieces = dict(zip(words, tokenizer.pieces(words, longest), strict=True))
    cut, ids = [], []
    for instance in instances:
        parts = [pieces[token] for token in instance.tokens]
        ends = torch.tensor([len(part) for part in parts]).cumsum(0).tolist()
        start = ends[instance.start - 1] if instance.start else 0
        flat = [piece for part in parts for piece in part]
        if ends[instance.end - 1] == start:
            raise InputError(f"The target {' '.join(instance.target)!r} has no word pieces.")
        # Ids as tokens: the window is cut in pieces, not in words.
        whole = Instance(tuple(map(str, flat)), start, ends[instance.end - 1], instance.polarity)
        short = window(whole, longest - 2)
        cut.append(Instance(("", *short.tokens, ""), short.start + 1, short.end + 1, short.polarity))
        ids.append([tokenizer.start, *map(int, short.tokens), tokenizer.separator])
    return _tensors(cut, ids, special=True)


def _tensors(instances: Sequence[Instance], ids: Sequence[Sequence[int]], *, special: bool = False) -> Sentences:
    if not instances:
        raise InputError("There are no instances; give at least one sentence with a target.")
    padded = pad_sequence([torch.tensor(row) for row in ids], batch_first=True, padding_value=ERASED)
    n = padded.shape[1]
    places = torch.arange(n)
    lengths, starts, ends = (
        torch.tensor(values)[:, None]
        for values in ([len(i.tokens) for i in instances], [i.start for i in instances], [i.end for i in instances])
    )
    inside = places < lengths
    target = (places >= starts) & (places < ends)
    ordinary = (places > 0) & (places < lengths - 1) if special else inside
    weights = torch.zeros(len(instances), n)
    for row, instance in enumerate(instances):
        length = len(instance.tokens)
        weights[row, :length] = position_weights(length, instance.start, instance.end)
    return Sentences(
        ids=padded,
        inside=inside,
        target=target,
        context=ordinary & ~target,
        target_ids=pad_sequence(
            [torch.tensor(row[i.start : i.end]) for row, i in zip(ids, instances, strict=True)], batch_first=True
        ),
        position_weights=weights,
        labels=torch.tensor([POLARITIES.index(instance.polarity) for instance in instances]),
    )
