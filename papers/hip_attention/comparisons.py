"""The comparison of lists of keys that the experiments on recall share."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from common.configuration import Parameters
from common.experiment import Measurement
from common.kernels.hierarchical_search import REPRESENTATIVES
from papers.hip_attention.found_keys import LastQueries
from papers.hip_attention.hip_attention import HierarchicalPruning

Inputs = Callable[[HierarchicalPruning], tuple[Tensor, Tensor]]
"""The last queries [1, H, N, d] and the keys [1, H_kv, T, d] of one layer, for settings of the search."""


class SearchSettings(Parameters):
    """Settings of the search, and those over which it is varied, one at a time.

    Attributes:
        block_q, block_k, top_k, window, sink, stride_q: of `HierarchicalPruning`.
        top_ks: values of k.
        block_qs: values of b_q, each with every value of b_k.
        block_ks: values of b_k.
    """

    block_q: int
    block_k: int
    top_k: int
    window: int
    sink: int
    stride_q: int
    top_ks: list[int]
    block_qs: list[int]
    block_ks: list[int]

    def hip(self, **changes) -> HierarchicalPruning:
        """The search with some settings changed."""
        base = {name: getattr(self, name) for name in ("block_q", "block_k", "top_k", "window", "sink", "stride_q")}
        return HierarchicalPruning(**{**base, **changes})


class _Means:
    """Per-head numbers of several layers."""

    def __init__(self):
        self.values: dict[tuple, list[Tensor]] = {}

    def keep(self, metric: str, method: str, heads: Tensor, **setting: Any) -> None:
        self.values.setdefault((metric, method, tuple(setting.items())), []).append(heads)

    def heads(self, metric: str, method: str) -> Tensor:
        """Of all layers one after the other, at the settings as they are."""
        return torch.cat(self.values[metric, method, (("sweep", "none"),)])


def compare_lists(s: SearchSettings, layers: Iterable[Inputs], measurement: Measurement, seed: int, **setting: Any) -> None:
    """Add rows: means over layers and heads of `recall` and `attention_mass`, and the share of heads that centre suits best.

    Methods at the settings as they are, where `sweep` is `none`: `hip` (centre), `first` and `last` (representatives),
    `random`, `strided`, and `exact`, the blocks of largest logits, whose mass no search can be expected to exceed by much. In
    the varied runs of `hip`, `sweep` is `top_k`, or `blocks` (b_q by b_k). `recall_lost` is 1 - recall over sizes of blocks.

    Args:
        s: settings.
        layers: inputs of every layer.
        measurement: where the rows go.
        seed: of the random lists.
        setting: of every row.
    """
    means = _Means()
    for inputs in layers:
        hip = s.hip()
        q, k = inputs(hip)
        last = LastQueries(q, k, hip)
        lists = {"random": last.random(seed), "strided": last.strided(), "exact": last.exact()}
        for representative in REPRESENTATIVES:
            name = "hip" if representative == "center" else representative
            lists[name] = s.hip(representative=representative).search(q, k)
        for name, found in lists.items():
            means.keep("recall", name, last.recall(found), sweep="none")
            means.keep("attention_mass", name, last.mass(found), sweep="none")
        varied = [({"sweep": "top_k", "top_k": top_k}, s.hip(top_k=top_k)) for top_k in s.top_ks]
        varied += [
            ({"sweep": "blocks", "block_q": block_q, "block_k": block_k}, s.hip(block_q=block_q, block_k=block_k))
            for block_q in s.block_qs
            for block_k in s.block_ks
        ]
        for names, changed in varied:
            q, k = inputs(changed)
            last = LastQueries(q, k, changed)
            found = changed.search(q, k)
            means.keep("recall", "hip", last.recall(found), **names)
            means.keep("attention_mass", "hip", last.mass(found), **names)
    for (metric, method, names), heads in means.values.items():
        measurement.add(metric, torch.cat(heads).mean(), method=method, **dict(names), **setting)
        if metric == "recall" and dict(names).get("sweep") == "blocks":
            measurement.add("recall_lost", 1 - torch.cat(heads).mean(), method=method, **dict(names), **setting)
    mass = {name: means.heads("attention_mass", name) for name in ("first", "hip", "last")}
    best = (mass["hip"] >= mass["first"]) & (mass["hip"] >= mass["last"])
    measurement.add("center_best", 100 * best.double().mean(), "%", method="hip", **setting)
