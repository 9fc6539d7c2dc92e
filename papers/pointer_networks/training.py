"""Training of the three networks on output sequences, with teacher forcing (arXiv 1506.03134, Equations 1 and 2)."""

from collections.abc import Collection, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from common.errors import InputError
from common.training import Loss, Replica
from papers.pointer_networks.examples import PADDING, Examples
from papers.pointer_networks.pointer_networks import (
    AttentionSequenceToSequence,
    EncoderDecoder,
    PointerNetwork,
    Scores,
    SequenceToSequence,
)
from papers.pointer_networks.recipes import LossName, SequenceRecipe

Method = Literal["pointer", "attention", "lstm"]


def make_network(
    method: Method, hidden_size: int, *, seed: int, length: int | None = None, scores: Scores = "plain"
) -> EncoderDecoder:
    """One of the three networks, on the CPU.

    Args:
        method: "pointer" (Section 2.3), "attention" (2.2) or "lstm" (2.1).
        hidden_size: d.
        seed: of the initial parameters.
        length: n of a fixed vocabulary; for "attention" and "lstm" only, and needed there.
        scores: how scores of additive attention are computed, see `PointerNetwork`.

    Raises:
        InputError: the length is missing or out of place, or a size is not positive.
    """
    if (length is None) != (method == "pointer"):
        raise InputError(f"length is {length} for {method!r}; a fixed vocabulary needs one, and a pointer network takes none.")
    if method == "pointer":
        return PointerNetwork(hidden_size, seed=seed, scores=scores)
    assert length is not None
    if method == "attention":
        return AttentionSequenceToSequence(hidden_size, length, seed=seed, scores=scores)
    return SequenceToSequence(hidden_size, length, seed=seed)


def sequence_loss(logits: Tensor, sequences: Tensor, loss: LossName = "token") -> Tensor:
    """Negative log-probability of sequences, in float32 or, for float64, float64.

    Args:
        logits: [B, m, n + 1].
        sequences: int64 [B, m]; padding has no part in it.
        loss: "token" is the mean over all positions, "sequence" the mean over examples of the sum over positions.

    Returns:
        A number, without dimensions.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    total = cross_entropy(
        logits.flatten(0, 1), sequences.flatten(), ignore_index=PADDING, reduction="mean" if loss == "token" else "sum"
    )
    return total if loss == "token" else total / len(sequences)


def teacher_forced_loss(loss: LossName) -> Loss:
    """The loss of a batch (points, sequences) in the form that a `Replica` takes."""

    def of_batch(network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        points, sequences = batch
        return sequence_loss(network(points, sequences), sequences, loss)

    return of_batch


def buckets_of(examples: Mapping[int, Examples], device: torch.device | str) -> dict[int, tuple[Tensor, Tensor]]:
    """Data sets by number of points, as training takes them: float32 points and sequences without common padding.

    Several replicas may share the result.

    Args:
        examples: n -> examples of n points.
        device: where to train.

    Raises:
        InputError: a data set has another number of points than its key says.
    """
    buckets = {}
    for n, data in examples.items():
        if data.size != n:
            raise InputError(f"examples[{n}] has {data.size} points an example; the key must be that number.")
        longest = int((data.sequences != PADDING).sum(1).max())
        buckets[n] = (data.points.to(device, torch.float32), data.sequences[:, :longest].to(device).contiguous())
    return buckets


def steps_of(epochs: float, buckets: Mapping[int, tuple[Tensor, Tensor]], recipe: SequenceRecipe) -> int:
    """Steps that take as many examples as `epochs` passes over all buckets; at least 1."""
    return max(1, round(epochs * sum(len(points) for points, _ in buckets.values()) / recipe.batch_size))


def sequence_replica(
    name: str,
    network: EncoderDecoder,
    recipe: SequenceRecipe,
    buckets: Mapping[int, tuple[Tensor, Tensor]],
    *,
    steps: int,
    order_seed: int,
    curve_steps: Collection[int] = (),
) -> Replica:
    """A replica that trains a network on output sequences; the network moves to the device of the buckets.

    Args:
        name: unique among the replicas trained together.
        network: one of the three, in its initial state.
        recipe: how to optimise, and the loss.
        buckets: of `buckets_of`.
        steps: length of the training.
        order_seed: of the order of data; replicas with one seed see the same batches.
        curve_steps: see `Replica`.

    Raises:
        InputError: a bucket is smaller than a batch, or a step is out of range.
    """
    device = next(iter(buckets.values()))[0].device if buckets else torch.device("cpu")
    return Replica(
        name,
        network.to(device),
        recipe,
        loss=teacher_forced_loss(recipe.loss),
        buckets=buckets,
        steps=steps,
        order_seed=order_seed,
        curve_steps=curve_steps,
    )
