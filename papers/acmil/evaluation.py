"""From outputs to numbers: classification scores and what heat maps look like."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from torch import Tensor

from common.data.bags import PaddedBags
from common.errors import InputError
from common.experiment import Measurement
from papers.acmil.acmil import diversity_loss
from papers.acmil.bag_model import Outputs
from papers.acmil.training import Run, SideBySide, over_bags

TOP = 10
"""Instances whose attention is summed in Figures 5 and 10."""
CUMULATED = 50


def classification_scores(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Macro AUC (one against the rest), macro F1 and accuracy.

    Args:
        labels: int64 [bags].
        probabilities: float [bags, C], rows summing to 1.

    Raises:
        InputError: a class has no bag, so that its AUC is not defined.
    """
    classes = probabilities.shape[1]
    if missing := sorted(set(range(classes)) - set(labels.tolist())):
        raise InputError(f"No bag of {len(labels)} has class {missing[0]}, so that there is no AUC; test on more bags.")
    predicted = probabilities.argmax(1)
    score = probabilities[:, 1] if classes == 2 else probabilities
    return {
        "auc": float(roc_auc_score(labels, score, multi_class="ovr", average="macro")),
        "f1_macro": float(f1_score(labels, predicted, average="macro", labels=range(classes), zero_division=0.0)),  # pyright: ignore[reportArgumentType]
        "accuracy": float(accuracy_score(labels, predicted)),
    }


def cumulative_attention(a: Tensor, count: int = CUMULATED) -> Tensor:
    """Sum of the 1, 2, ... `count` largest attentions: a [B, N] to [B, count]; a smaller bag stays at its sum."""
    top = a.sort(-1, descending=True).values[:, :count].cumsum(-1)
    return top if top.shape[1] == count else torch.cat([top, top[:, -1:].expand(-1, count - top.shape[1])], dim=1)


def attention_entropy(a: Tensor) -> Tensor:
    """-Σ a log a in nat: a [B, N] to [B]."""
    return torch.special.entr(a).sum(-1)


def attention_recall(a: Tensor, kinds: Tensor, kind: int) -> Tensor:
    """Share of the instances of a kind among the w most attended, w the number of all witnesses: [B]; not a number without.

    Args:
        a: [B, N].
        kinds: int64 [B, N], 0 for background.
        kind: which witnesses.
    """
    rank = a.argsort(-1, descending=True).argsort(-1)
    found = rank < (kinds > 0).sum(-1, keepdim=True)
    return (found & (kinds == kind)).sum(-1) / (kinds == kind).sum(-1)


def bag_measures(bags: PaddedBags) -> Callable[[Outputs, Tensor], Mapping[str, Tensor]]:
    """A `measure` for `over_bags`: probabilities, and what can be said of the heat maps."""

    def measure(outputs: Outputs, numbers: Tensor) -> Mapping[str, Tensor]:
        found = {"probabilities": outputs["logits"].softmax(-1)}
        if "attention" in outputs:
            branches = outputs["attention"]
            a = branches.mean(1)
            found |= {"cumulative": cumulative_attention(a), "entropy": attention_entropy(a)}
            if branches.shape[1] > 1:
                found["cosine"] = diversity_loss(branches)
            kinds = bags.kinds[numbers]
            found |= {f"recall_{name}": attention_recall(a, kinds, kind) for kind, name in ((1, "a"), (2, "b"))}
        return found

    return measure


def test_scores(network: SideBySide, runs: Sequence[Run], *, masking: bool = False) -> list[dict[str, np.ndarray]]:
    """`bag_measures` of every run's test bags."""
    return over_bags(network, [run.test for run in runs], bag_measures(network.bags), masking=masking)


test_scores.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]  # not a test, whatever pytest takes its name for


def mean_where_defined(values: np.ndarray) -> float | None:
    """Mean of the finite values; None without any."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else None


def add_map_rows(measurement: Measurement, found: Mapping[str, np.ndarray], *, method: str, **place: Any) -> None:
    """Rows on heat maps, means over test bags.

    `top10_attention`, `attention_entropy`, `branch_cosine`, `recall_a`, `recall_b`.
    """
    if "cumulative" not in found:
        return
    values = {
        "top10_attention": found["cumulative"][:, TOP - 1],
        "attention_entropy": found["entropy"],
        "branch_cosine": found.get("cosine", np.array([])),
        "recall_a": found["recall_a"],
        "recall_b": found["recall_b"],
    }
    for metric, each in values.items():
        mean = mean_where_defined(each)
        if mean is not None:
            measurement.add(metric, mean, "nat" if metric == "attention_entropy" else "1", method=method, **place)
