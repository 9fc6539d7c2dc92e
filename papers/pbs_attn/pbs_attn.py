"""PBS-Attn: block-sparse prefill attention on keys sorted inside segments.

Wang et al., "Sparser Block-Sparse Attention via Token Permutation", arXiv 2510.21270v2 (ICML 2026).

Attention does not change when keys and values are permuted together. So PBS-Attn sorts the keys of every segment of S tokens by
how much the last queries attend to them: important keys then share blocks, and fewer blocks of B keys cover the attention. A
segment still comes wholly before the next, so causality needs care in the query's own segment only. Training-free; after rotary
embedding, per layer, at prefill. (No query reads a later key, but *which* earlier blocks it reads depends on the last queries.)

    1. pi = argsort, segment by segment, of mean over rows of softmax(Q_last K^T / sqrt(d))
    2. K' = K[pi], V' = V[pi]; queries stay where they are, so the output needs no inverse      (Algorithm 1)
    3. a_i = softmax(q̄_i K̄'^T / sqrt(d)) over block means; keep the shortest prefix >= tau     (Algorithm 2)
    4. attention over the kept blocks, masked by original positions in the own segment         (common/kernels)

Notation: q [1, H, N, d], k [1, H_kv, N, d], T = ceil(N / B) blocks, G = floor(N / S) whole segments.

Where the paper leaves room, or differs from its official code (commit 8ce8e02):

| item | paper | official code | here |
|---|---|---|---|
| keys in the importance softmax | all N | the G whole segments | code's; order="last_block_all_keys" is the paper's |
| causal mask in the importance softmax | not mentioned | none | none; order="last_block_causal" has it, over all N keys |
| blocks in the selection softmax | a_i[1:i] (Algorithm 2), text: without the own segment | earlier segments | code's |
| sum never reaches tau | keep all (Algorithm 2) | keeps none | paper's |
| tau = 1 | - | keeps all if an integer; a float may keep none | keeps all |
| own segment | kept | kept, also above the diagonal | code's: a key there may be visible |
| sink (block that holds token 0) | said of MeanPooling only | kept | kept |
| mean of a partial last block | not mentioned | over B, zero-padded | code's; partial_block="own_length" divides by its rows |
| query permutation, inverse | Algorithm 1 has both | absent | absent (the paper's ablation finds no gain) |
| GQA | replicate keys, or one shared permutation (Appendix G) | replicate | gqa="replicated" or "shared" |
| N <= S | - | plain causal | plain causal |
| random-query attention (Table 4) | not defined | - | B of all N without replacement, the same for all heads, no causal mask |
| average-query attention (Table 4) | not defined | - | one query, the mean of all N, no causal mask |
| greedy, local (Table 4) | not defined | - | **our definition**: see `greedy` |
| random (Table 4) | not defined | - | uniform inside every whole segment, own to each key head |
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from common.errors import InputError
from common.kernels.block_selection import block_means, check_share, select_top_p
from common.kernels.block_sparse_attention import BlockLists
from common.kernels.segment_sort import key_importance, segment_argsort
from common.sparse_attention.blocks import check_queries_and_keys, check_sizes
from common.sparse_attention.dense import causal_selection
from common.sparse_attention.mean_pooling import PartialBlock, check_partial_block
from common.sparse_attention.selection import Selection

# (q [B, H, N, d], k [B, Hkv, N, d], block_size, segment_size, seed) -> order: int32 [B, H or Hkv, N], the original position of
# the key at each place. A permutation inside every whole segment; the N mod S tokens of the tail stay.
KeyOrder = Callable[[Tensor, Tensor, int, int, int], Tensor]


def whole_segments(k: Tensor, segment_size: int) -> Tensor:
    """Keys of the G whole segments: k[:, :, : G * S]."""
    return k[:, :, : k.shape[2] // segment_size * segment_size]


def with_tail(order: Tensor, length: int) -> Tensor:
    """Append the tail's own positions to an order of the whole segments: int32 [B, H, G * S] -> [B, H, N]."""
    B, H, sorted_length = order.shape
    tail = torch.arange(sorted_length, length, dtype=torch.int32, device=order.device)
    return torch.cat([order, tail.expand(B, H, -1)], dim=2)


def last_block(q: Tensor, k: Tensor, block_size: int, segment_size: int, seed: int) -> Tensor:
    """The paper's order: by the mean attention of the last B queries to the keys of the whole segments."""
    importance = key_importance(q[:, :, -block_size:], whole_segments(k, segment_size), scale=q.shape[-1] ** -0.5)
    return with_tail(segment_argsort(importance, segment_size), k.shape[2])


def last_block_all_keys(q: Tensor, k: Tensor, block_size: int, segment_size: int, seed: int) -> Tensor:
    """As `last_block`, with the softmax over all N keys."""
    importance = key_importance(q[:, :, -block_size:], k, scale=q.shape[-1] ** -0.5)
    return with_tail(segment_argsort(_whole(importance, segment_size), segment_size), k.shape[2])


def last_block_causal(q: Tensor, k: Tensor, block_size: int, segment_size: int, seed: int) -> Tensor:
    """As `last_block`, with the softmax over the keys that each query sees."""
    B, H, N, d = q.shape
    positions = torch.arange(N, device=q.device)
    hidden = positions > positions[-block_size:, None]
    importance = q.new_empty(B, H, N, dtype=torch.float32)
    for b in range(B):
        for h in range(H):  # head by head: [B, N] logits, never [H, B, N]
            logits = q[b, h, -block_size:].float() @ k[b, h // (H // k.shape[1])].float().mT * d**-0.5
            importance[b, h] = logits.masked_fill_(hidden, float("-inf")).softmax(-1).mean(0)
    return with_tail(segment_argsort(_whole(importance, segment_size), segment_size), N)


def random_query(q: Tensor, k: Tensor, block_size: int, segment_size: int, seed: int) -> Tensor:
    """By the mean attention of B queries drawn at random (Table 4)."""
    generator = torch.Generator(q.device).manual_seed(seed)
    drawn = torch.randperm(q.shape[2], generator=generator, device=q.device)[:block_size]
    importance = key_importance(q[:, :, drawn], whole_segments(k, segment_size), scale=q.shape[-1] ** -0.5)
    return with_tail(segment_argsort(importance, segment_size), k.shape[2])


def average_query(q: Tensor, k: Tensor, block_size: int, segment_size: int, seed: int) -> Tensor:
    """By the attention of the mean of all queries (Table 4)."""
    mean = q.mean(2, keepdim=True, dtype=torch.float32).to(q.dtype)
    importance = key_importance(mean, whole_segments(k, segment_size), scale=q.shape[-1] ** -0.5)
    return with_tail(segment_argsort(importance, segment_size), k.shape[2])


def greedy(q: Tensor, k: Tensor, block_size: int, segment_size: int, seed: int) -> Tensor:
    """By similarity of the keys of a segment, without queries (Table 4, "greedy (local)"; our definition).

    Blocks are filled one after another: the first key that is left (in natural order) and the B - 1 keys left that have the
    highest cosine similarity to it. Ties: earlier key first.
    """
    B, Hk, N, d = k.shape
    G, S = N // segment_size, segment_size
    order = torch.empty(B, Hk, G, S, dtype=torch.int32, device=k.device)
    segment_start = torch.arange(G, device=k.device)[:, None] * S
    for b in range(B):
        for h in range(Hk):
            keys = normalize(k[b, h, : G * S].float(), dim=-1).view(G, S, d)
            left = torch.ones(G, S, dtype=torch.bool, device=k.device)
            for place in range(0, S, block_size):
                first = left.int().argmax(-1, keepdim=True)
                similarity = (keys @ keys.take_along_dim(first[..., None], dim=1).mT)[..., 0]
                similarity = similarity.masked_fill(~left, float("-inf")).scatter(-1, first, float("inf"))
                block = similarity.argsort(dim=-1, descending=True, stable=True)[:, :block_size]
                order[b, h, :, place : place + block_size] = block + segment_start
                left.scatter_(-1, block, False)
    return with_tail(order.flatten(2), N)


def random(q: Tensor, k: Tensor, block_size: int, segment_size: int, seed: int) -> Tensor:
    """Keys shuffled inside their segments (Table 4)."""
    B, Hk, N, _ = k.shape
    G = N // segment_size
    generator = torch.Generator(k.device).manual_seed(seed)
    order = torch.rand(B, Hk, G, segment_size, generator=generator, device=k.device).argsort(-1)
    order = order + torch.arange(G, device=k.device)[:, None] * segment_size
    return with_tail(order.int().flatten(2), N)


def none(q: Tensor, k: Tensor, block_size: int, segment_size: int, seed: int) -> Tensor:
    """Natural order, as a permutation."""
    B, Hk, N, _ = k.shape
    return torch.arange(N, dtype=torch.int32, device=k.device).expand(B, Hk, N).contiguous()


def _whole(importance: Tensor, segment_size: int) -> Tensor:
    return importance[..., : importance.shape[-1] // segment_size * segment_size].contiguous()


KEY_ORDERS: dict[str, KeyOrder] = {
    order.__name__: order
    for order in (
        last_block,
        last_block_all_keys,
        last_block_causal,
        random_query,
        average_query,
        greedy,
        random,
        none,
    )
}


def select_blocks(
    q: Tensor,
    k: Tensor,
    order: Tensor,
    *,
    block_size: int,
    segment_size: int,
    tau: float,
    partial_block: PartialBlock = "zero_padded",
) -> BlockLists:
    """Block selection (Algorithm 2): M.

    Args:
        q: queries [B, H, N, d]; N > segment_size.
        k: keys [B, Hkv, N, d] in natural order; Hkv divides H.
        order: pi, int32 [B, H or Hkv, N].
        block_size: B.
        segment_size: S.
        tau: share of the pooled attention to keep, in (0, 1].
        partial_block: how a partial last block is averaged.

    Returns:
        Lists of the blocks of K' = K[pi] that each of the T query blocks reads.
    """
    own_length = partial_block == "own_length"
    q_means = block_means(q, block_size, own_length=own_length)
    k_means = block_means(k, block_size, order=order, own_length=own_length)
    sink_place = (order[..., :segment_size] == 0).int().argmax(-1)
    sink_block = (sink_place // block_size).int().repeat_interleave(q.shape[1] // order.shape[1], dim=1)
    return select_top_p(q_means, k_means, tau=tau, segment_blocks=segment_size // block_size, always=sink_block)


@dataclass(frozen=True)
class PBSAttention:
    """The method, as a Selector. Defaults are the paper's.

    Attributes:
        block_size: B, tokens per block.
        segment_size: S, tokens per segment; a multiple of B.
        tau: share of the pooled attention to keep, in (0, 1].
        order: the key order, a name in `KEY_ORDERS` (Table 4).
        gqa: "replicated": every query head has its own order of its keys. "shared": the queries of a group are averaged over
            heads, one order for each key head (Appendix G). Orders that do not look at queries always have one for each key
            head.
        partial_block: how a partial last block is averaged.
        seed: of the orders random_query and random.

    Raises:
        InputError: an attribute is out of range or unknown.
    """

    block_size: int = 128
    segment_size: int = 256
    tau: float = 0.9
    order: str = "last_block"
    gqa: Literal["replicated", "shared"] = "replicated"
    partial_block: PartialBlock = "zero_padded"
    seed: int = 0

    def __post_init__(self):
        check_sizes(self.block_size, self.segment_size)
        check_share("tau", self.tau)
        check_partial_block(self.partial_block)
        if self.order not in KEY_ORDERS:
            raise InputError(f"order is {self.order!r}; choose one of {', '.join(KEY_ORDERS)}.")
        if self.gqa not in ("replicated", "shared"):
            raise InputError(f"gqa is {self.gqa!r}; choose 'replicated' or 'shared'.")

    @property
    def name(self) -> str:
        """Short name, used in tables."""
        return "pbs_attn"

    def key_order(self, q: Tensor, k: Tensor) -> Tensor:
        """The permutation pi: int32 [B, H or Hkv, N] for q [B, H, N, d], k [B, Hkv, N, d]."""
        if self.gqa == "shared":
            q = q.unflatten(1, (k.shape[1], -1)).mean(2, dtype=torch.float32).to(q.dtype)
        return KEY_ORDERS[self.order](q, k, self.block_size, self.segment_size, self.seed)

    def select(self, q: Tensor, k: Tensor) -> Selection:
        """Order the keys and select blocks.

        Args:
            q: queries [B, H, N, d] after rotary embedding.
            k: keys [B, Hkv, N, d] after rotary embedding; Hkv divides H.

        Raises:
            InputError: a shape, dtype or device does not fit.
        """
        check_queries_and_keys(q, k)
        if q.shape[2] <= self.segment_size:
            return causal_selection(q, self.block_size)
        order = self.key_order(q, k)
        blocks = select_blocks(
            q,
            k,
            order,
            block_size=self.block_size,
            segment_size=self.segment_size,
            tau=self.tau,
            partial_block=self.partial_block,
        )
        return Selection(blocks, block_size=self.block_size, segment_size=self.segment_size, key_order=order)
