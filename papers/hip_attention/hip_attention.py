"""HiP Attention: the top keys of every block of queries by a beam search over a tree of key positions.

Lee et al., "A Training-Free Sub-quadratic Cost Transformer Model Serving Framework with Hierarchically Pruned Attention",
arXiv 2406.09827 (ICLR 2025), Section 3.

Neighbouring keys have similar scores. So the k best keys of a query are looked for from coarse to fine: the keys are cut into
chunks, each chunk is halved, a half is judged by its centre key, the better half of the halves stays, and so on until every
chunk is one block of b_k keys. Exact softmax attention then reads these keys, the first ones (sink) and the last ones (window).

    start:    n = k / b_k chunks of equal length over the M = ceil(T_c / b_k) key blocks of the search     (Section 3.1, step 1)
    round:    (f, l) -> (f, m), (m, l), m in the middle; score of a half = max q · k over the queries of the block, every
              b_sq-th of them, and the tokens of the half's centre block, every b_sk-th; the n best halves stay  (step 2; 3.2)
    result:   the n key blocks that are left, ascending                                                    (step 3)

Cost: O(T k log(T / k)) products, O(T n / b_q) indices. Scores are neither scaled nor normalised: only their order counts.

Notation: q [B, H, N, d], k [B, H_kv, N, d] after rotary embedding; ceil(N / b_q) query blocks. The search is
`common.kernels.hierarchical_search`, attention over what it finds `common.kernels.key_list_attention`; each has the method in
plain PyTorch beside its kernel.

Where the paper leaves room, or differs from its official code (v1.1):

| item | paper | official code | here |
|---|---|---|---|
| representative of a half | centre (3.1, theorem); last (3.2, formula) | centre by default | centre, or as set |
| first chunks | k / b_k (a figure: 2 k / b_k) | k / b_k | k / b_k |
| integers | - | floor(i M / n), empty halves lose | the same |
| searched keys | all | without window and sink | the same |
| window | - | of every query | from `window` tokens before the block's first query on, for all its queries |
| sampled queries | every b_sq-th | odd rows for b_sq = 2 | the last of every b_sq, and a partial block's last |
| dense layers | the first 3 or 4 | the same | none in prefill; in decoding as set |
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from common.errors import InputError
from common.kernels.block_sparse_attention import BlockLists
from common.kernels.hierarchical_search import (
    REPRESENTATIVES,
    Representative,
    hierarchical_search,
    searched_blocks,
)
from common.kernels.key_list_attention import key_list_attention
from common.sparse_attention.blocks import check_queries_and_keys

COVERAGE_BYTES = 2**28
"""Of logits that are held at a time, as far as one query block allows."""


@dataclass(frozen=True)
class HierarchicalPruning:
    """Settings of the search; a selector of keys (`common.sparse_attention.Selector`).

    Attributes:
        block_q: b_q, queries that share a list.
        block_k: b_k, keys that are kept or dropped together.
        top_k: k, keys of a list, a multiple of b_k.
        window: keys before a query block that are read in any case.
        sink: first keys that are read in any case.
        stride_q: b_sq.
        stride_k: b_sk.
        representative: which block of a half stands for it.

    Raises:
        InputError: a number is out of range or a name unknown.
    """

    block_q: int = 32
    block_k: int = 2
    top_k: int = 512
    window: int = 256
    sink: int = 16
    stride_q: int = 2
    stride_k: int = 1
    representative: Representative = "center"

    def __post_init__(self):
        for name, least in (
            ("block_q", 1), ("block_k", 1), ("top_k", 1), ("window", 0), ("sink", 0), ("stride_q", 1), ("stride_k", 1),
        ):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InputError(f"{name} is {value!r}; give an integer of at least {least}.")
        if self.top_k % self.block_k:
            raise InputError(f"top_k is {self.top_k} and block_k {self.block_k}; top_k must be a multiple of it.")
        if self.stride_q > self.block_q or self.stride_k > self.block_k:
            raise InputError(
                f"stride_q {self.stride_q} and stride_k {self.stride_k} must not exceed block_q {self.block_q} and block_k "
                f"{self.block_k}."
            )
        if self.representative not in REPRESENTATIVES:
            raise InputError(f"representative is {self.representative!r}; choose 'first', 'center' or 'last'.")

    @property
    def name(self) -> str:
        """Short name, used in tables."""
        return "hip"

    @property
    def nodes(self) -> int:
        """Key blocks of a list and width of the beam: n = k / b_k."""
        return self.top_k // self.block_k

    def searched(self, queries: int, keys: int, device: torch.device | str | None = None) -> Tensor:
        """M: how many key blocks each query block searches, of those from the sink on: int32 [ceil(queries / b_q)].

        Args:
            queries: N; they are the last of the positions.
            keys: positions.
            device: of the result.
        """
        return searched_blocks(
            queries, keys, block_q=self.block_q, block_k=self.block_k, window=self.window, sink=self.sink, device=device
        )

    def search(self, q: Tensor, k: Tensor) -> BlockLists:
        """The key blocks of every query block; the queries [B, H, N, d] are the last of the keys' [B, H_kv, T, d] positions."""
        return hierarchical_search(
            q, k, nodes=self.nodes, block_q=self.block_q, block_k=self.block_k, window=self.window, sink=self.sink,
            stride_q=self.stride_q, stride_k=self.stride_k, representative=self.representative,
        )  # fmt: skip

    def select(self, q: Tensor, k: Tensor) -> "KeyLists":
        """The keys of one prefill, see `search`."""
        return search(q, k, self)


@dataclass(frozen=True)
class KeyLists:
    """The keys that every query block reads besides sink and window (`common.sparse_attention.KeySelection`).

    Attributes:
        settings: of the search.
        lists: counts [B, H, ceil(N / b_q)] and numbers of key blocks counted from the sink on, ascending.
        length: N.
    """

    settings: HierarchicalPruning
    lists: BlockLists
    length: int

    @property
    def searched(self) -> Tensor:
        """M of each query block: int32 [ceil(N / b_q)]."""
        return self.settings.searched(self.length, self.length, self.lists.counts.device)

    @property
    def window_starts(self) -> Tensor:
        """First key of each query block's window: int32 [ceil(N / b_q)]."""
        return self.settings.sink + self.searched * self.settings.block_k

    def visible(self, first: int, last: int) -> Tensor:
        """Which keys query blocks first .. last - 1 read, but for the causal mask: bool [B, H, last - first, last * b_q]."""
        s, device = self.settings, self.lists.counts.device
        indices, counts = self.lists.indices[:, :, first:last], self.lists.counts[:, :, first:last]
        keys = torch.arange(last * s.block_q, device=device)
        listed = torch.zeros(*counts.shape, len(keys) + 1, dtype=torch.bool, device=device)
        tokens = s.sink + indices[..., None].long() * s.block_k + torch.arange(s.block_k, device=device)
        in_list = torch.arange(indices.shape[3], device=device) < counts[..., None]
        listed.scatter_(3, tokens.masked_fill(~in_list[..., None], len(keys)).flatten(3), True)
        return listed[..., :-1] | (keys < s.sink) | (keys >= self.window_starts[first:last, None])

    def mask(self) -> Tensor:
        """Which keys each query reads, sink and window among them: bool [B, H, N, N]. For short sequences."""
        visible = self.visible(0, self.lists.counts.shape[2])[..., : self.length]
        visible = visible.repeat_interleave(self.settings.block_q, dim=2)[:, :, : self.length]
        return visible & torch.ones_like(visible[0, 0]).tril()

    def density(self) -> Tensor:
        """Pairs of query and key that are read, divided by N(N+1)/2: float64 [B, H]."""
        s, N = self.settings, self.length
        query = torch.arange(N, device=self.lists.counts.device)
        block = query // s.block_q
        start = self.window_starts[block]
        always = (query + 1).clamp_max(s.sink) + (query + 1 - start).clamp_min(0)
        listed = self.lists.counts[:, :, block].sum(-1) * s.block_k
        return (listed + always.sum()).double() / (N * (N + 1) / 2)

    def coverage(self, q: Tensor, k: Tensor) -> Tensor:
        """Share of dense causal attention that the keys read hold, mean over queries: float64 [B, H].

        Args:
            q: queries [B, H, N, d], as searched with.
            k: keys [B, H_kv, N, d], as searched in.
        """
        check_queries_and_keys(q, k)
        B, H, N, d = q.shape
        b_q = self.settings.block_q
        kept = torch.zeros(B, H, dtype=torch.float64, device=q.device)
        blocks_at_once = max(1, COVERAGE_BYTES // (4 * B * H * N * b_q))
        keys = k.float().mT
        for first in range(0, self.lists.counts.shape[2], blocks_at_once):
            last = min(first + blocks_at_once, self.lists.counts.shape[2])
            start, end = first * b_q, min(last * b_q, N)
            queries = q[:, :, start:end].float().reshape(B, k.shape[1], -1, d)
            logits = (queries @ keys[..., :end]).reshape(B, H, end - start, end).mul_(d**-0.5)
            place = torch.arange(end, device=q.device)
            p = logits.masked_fill_(place > place[start:, None], float("-inf")).softmax(-1)
            visible = self.visible(first, last)[..., :end]
            for number, rows in enumerate(p.split(b_q, dim=2)):
                kept += (rows @ visible[:, :, number, :, None].float()).double().sum((2, 3))
        return kept / N

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None) -> Tensor:
        """Causal softmax attention over the keys read: [B, H, N, d] from q [B, H, N, d], k and v [B, H_kv, N, d]."""
        s = self.settings
        return key_list_attention(
            q, k, v, self.lists, self.window_starts, block_q=s.block_q, block_k=s.block_k, sink=s.sink, scale=scale
        )

    def check_contents(self) -> None:
        """Check what the lists hold. Waits for the device.

        Raises:
            InputError: a count or number is out of range, the numbers of a list do not ascend, or one lies in the window.
        """
        indices, counts = self.lists.indices, self.lists.counts
        in_list = torch.arange(indices.shape[3], device=counts.device) < counts[..., None]
        for holds, rule in (
            ((counts >= 0) & (counts <= indices.shape[3]), f"counts must lie between 0 and {indices.shape[3]}"),
            (((indices.diff(dim=-1) > 0) | ~in_list[..., 1:]).all(-1), "the listed blocks must ascend, each once"),
            (
                ((indices >= 0) & (indices < self.searched[:, None]) | ~in_list).all(-1),
                "the listed blocks must lie before the window",
            ),
        ):
            if not bool(holds.all()):
                b, h, i = (int(n) for n in (~holds).nonzero()[0])
                raise InputError(
                    f"{rule}; batch {b}, head {h}, query block {i} has count {int(counts[b, h, i])} and blocks "
                    f"{indices[b, h, i].tolist()[:16]}."
                )


def search(q: Tensor, k: Tensor, settings: HierarchicalPruning) -> KeyLists:
    """Find the key blocks of every query block.

    Args:
        q: floating [B, H, N, d].
        k: floating [B, H_kv, N, d].
        settings: of the search.

    Raises:
        InputError: shapes, dtypes or devices do not fit.
    """
    check_queries_and_keys(q, k)
    return KeyLists(settings, settings.search(q, k), q.shape[2])
