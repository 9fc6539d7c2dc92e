"""Training of replicas side by side, and what a trained network says about sentences."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from common.training import Recipe, Replica, derived_seed, train
from papers.absa.progressive_attention import Criterion, Inspection, attention_loss, smooth_gradient
from papers.absa.replicas import AspectNetwork, Represented
from papers.absa.sentences import Batch, Sentences


@dataclass(frozen=True)
class Supervision:
    """What replicas learn about attention.

    Attributes:
        members: s_a ∪ s_m, bool [R, N, n].
        targets: τ, float [R, N, n].
        weights: γ, float32 [R].
    """

    members: Tensor
    targets: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Smoothing:
    """How importance by gradient is averaged.

    Attributes:
        samples: noisy copies of the hidden states.
        noise: standard deviation.
    """

    samples: int
    noise: float


def fit(
    network: AspectNetwork,
    sentences: Sentences,
    recipe: Recipe,
    epochs: int,
    *,
    erased: Tensor | None = None,
    supervision: Supervision | None = None,
    tested: Mapping[str, Sentences] | None = None,
    evaluation_batch: int = 256,
) -> dict[str, np.ndarray]:
    """Train all replicas of a network in place.

    Every seed has an order of data of its own, the same for all its copies: the examples are renumbered by a permutation of the
    seed before the common order is applied. What an epoch leaves, fewer examples than a batch, is dropped.

    Args:
        network: in its initial state, on the device of the sentences.
        sentences: to train on.
        recipe: how; its batch is made smaller where there are fewer sentences.
        epochs: passes over the sentences.
        erased: words that replicas do not see, bool [R, N, n].
        supervision: of attention.
        tested: name -> sentences that are classified after every epoch.
        evaluation_batch: sentences at once in that.

    Returns:
        For each name in `tested`: predicted classes, int8 [epochs, R, sentences].
    """
    device = sentences.ids.device
    batch = min(recipe.batch_size, len(sentences))
    recipe = recipe.model_copy(update={"batch_size": batch})
    steps = epochs * (len(sentences) // batch)
    numbers = [
        torch.randperm(len(sentences), generator=torch.Generator().manual_seed(derived_seed(seed, "order")))
        for seed in network.seeds
    ]
    buckets = {0: (torch.stack(numbers, dim=1).to(device),)}
    # Dropout draws from the device's generator; there is one replica in common.training's sense, so that nothing else does.
    torch.manual_seed(derived_seed(network.seeds[0], "dropout"))

    def loss(module: nn.Module, drawn: tuple[Tensor, ...]) -> Tensor:
        rows = drawn[0].T.repeat(network.copies, 1)
        seen = sentences.batch(rows, erased)
        out = module(seen)
        logits = out.logits.float().flatten(0, 1)
        losses = cross_entropy(logits, seen.labels.flatten(), reduction="none").view(rows.shape).mean(1)
        if supervision is not None:
            replica = torch.arange(len(rows), device=device)[:, None]
            penalty = attention_loss(
                out.attention, supervision.members[replica, rows], supervision.targets[replica, rows].float()
            )
            losses = losses + supervision.weights * penalty.mean(1)
        return losses.sum()  # replicas share no parameters: each gets the gradient of its own loss

    found: dict[str, list[np.ndarray]] = {name: [] for name in tested or {}}

    def evaluate(_: Replica) -> dict[str, float]:
        for name, held_out in (tested or {}).items():
            found[name].append(classify(network, held_out, evaluation_batch, recipe.precision))
        return {}

    curve = [epoch * (len(sentences) // batch) for epoch in range(1, epochs + 1)] if tested else []
    side_by_side = Replica(
        "replicas", network, recipe, loss=loss, buckets=buckets, steps=steps, order_seed=0, curve_steps=curve
    )
    train([side_by_side], evaluate=evaluate if tested else None)
    return {name: np.stack(values) for name, values in found.items()}


def _chunks(network: AspectNetwork, sentences: Sentences, size: int) -> Iterator[Tensor]:
    """Rows of at most `size` sentences, the same for all replicas: int64 [R, size]."""
    for rows in torch.arange(len(sentences), device=sentences.ids.device).split(size):
        yield rows.expand(network.replicas, -1)


Precision = Literal["float32", "bfloat16"]
"""Of matrix products, as in training."""


def _autocast(sentences: Sentences, precision: Precision) -> torch.autocast:
    return torch.autocast(sentences.ids.device.type, torch.bfloat16, enabled=precision == "bfloat16")


@torch.no_grad()
def classify(network: AspectNetwork, sentences: Sentences, size: int, precision: Precision = "float32") -> np.ndarray:
    """Predicted classes, int8 [R, N]. The network must be in evaluation mode."""
    with _autocast(sentences, precision):
        parts = [network(sentences.batch(rows)).logits.argmax(-1).to(torch.int8) for rows in _chunks(network, sentences, size)]
    return torch.cat(parts, dim=1).cpu().numpy()


@torch.no_grad()
def attention_on(network: AspectNetwork, sentences: Sentences, size: int, precision: Precision = "float32") -> Tensor:
    """α of sentences, float32 [R, N, n] on their device. The network must be in evaluation mode."""
    with _autocast(sentences, precision):
        return torch.cat([network(sentences.batch(rows)).attention for rows in _chunks(network, sentences, size)], dim=1)


@torch.no_grad()
def inspect(
    network: AspectNetwork,
    sentences: Sentences,
    erased: Tensor,
    criteria: list[Criterion],
    *,
    smoothing: Smoothing,
    round_number: int,
    size: int,
    precision: Precision = "float32",
) -> Inspection:
    """Attention, importance and correctness of all sentences under the words that are erased, without dropout.

    Args:
        network: trained, in evaluation mode.
        sentences: that it was trained on.
        erased: bool [R, N, n].
        criteria: of each copy, see `Criterion`.
        smoothing: of the criterion `gradient`.
        round_number: k; random words differ from round to round.
        size: sentences at once.
        precision: see `Precision`.
    """
    seeds, device = len(network.seeds), sentences.ids.device
    generator = torch.Generator().manual_seed(derived_seed(round_number, "importance"))
    attention, scores, correct = [], [], []
    for rows in _chunks(network, sentences, size):
        seen = sentences.batch(rows, erased)
        with _autocast(sentences, precision):
            represented = network.represent(seen)
            out = network.attend(represented, seen)
        by = out.attention.clone()
        slopes = None
        for copy, criterion in enumerate(criteria):
            here = slice(copy * seeds, (copy + 1) * seeds)
            if criterion == "random":
                by[here] = torch.rand(by[here].shape, generator=generator).to(device)
            elif criterion == "gradient":
                if slopes is None:
                    slopes = smooth_gradient(
                        _logits_of(network, represented, seen),
                        represented.X,
                        seen.labels,
                        seen.context,
                        samples=smoothing.samples,
                        noise=smoothing.noise,
                        generator=generator,
                    )
                by[here] = slopes[here]
        attention.append(out.attention)
        scores.append(by)
        correct.append(out.logits.argmax(-1) == seen.labels)
    return Inspection(torch.cat(attention, 1), torch.cat(scores, 1), torch.cat(correct, 1))


def _logits_of(network: AspectNetwork, represented: Represented, seen: Batch) -> Callable[[Tensor], Tensor]:
    return lambda X: network.attend(Represented(X, represented.query), seen).logits
