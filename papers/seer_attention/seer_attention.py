"""SeerAttention: a small learned gate beside a frozen layer predicts the block maxima of its attention map.

Gao et al., "SeerAttention: Learning Intrinsic Sparse Attention in Your LLMs", arXiv 2410.13276 (NeurIPS 2025).

    1. q̄ = mean over each block of B queries, k̄ = [max, min, mean] over each block of B keys, both before rotary embedding
    2. k̄ W with one matrix a query head; q̄ as it is, or q̄ W_q
    3. rotary embedding at the first position of each block: 0, B, 2B, ...
    4. logits = q̄ k̄^T / sqrt(h), causal over blocks; score = softmax over key blocks                (the gate)

    gt = block maxima of softmax(Q K^T / sqrt(d)), each row divided by its sum                        (ground truth)
    loss = 10 · mean of KL(gt ‖ score) over all entries of the last three quarters of the rows        (distillation)

At prefill a block is read if its score exceeds a threshold, or if it is among a row's best; the last two block rows are kept
whole.

Notation: q [Bt, H, N, d], k [Bt, H_kv, N, d]; T = ceil(N / B); gate width h.

Where the paper leaves room, or differs from its official code (commit aba03e3):

| item | paper | official code | here |
|---|---|---|---|
| rotary embedding of blocks | theta / B | the model's tables at 0, B, 2B, ... | code's |
| W_q | in Equation 1 | absent unless q is pooled in several ways or h != d | code's; `query_projection=True` has it |
| order of the key poolings | - | max, min, mean | code's |
| loss | KL divergence | mean over all entries times 10, first quarter of the rows dropped | code's |
| ground truth | - | rows divided by their sum | code's |
| rows of the question | not pruned | the last two block rows are dense | code's |
| mean of a partial last block | - | over its own tokens | code's |
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from common.errors import InputError
from common.kernels.checks import check_positive_int
from common.sparse_attention.blocks import causal_blocks, check_queries_and_keys, number_of_blocks

Pooling = Literal["max", "min", "mean"]

INITIAL_STANDARD_DEVIATION = 0.02
DENSE_ROWS = 2
LOSS_FACTOR = 10.0


def pool(x: Tensor, block_size: int, poolings: Sequence[Pooling]) -> Tensor:
    """Pool every block of tokens, a partial last one over its own tokens: [Bt, H, N, d] to [Bt, H, T, len(poolings) d]."""
    N = x.shape[2]
    T = number_of_blocks(N, block_size)
    missing = T * block_size - N
    tokens = torch.full((T,), block_size, device=x.device)
    tokens[-1] -= missing

    def blocks(fill: float) -> Tensor:
        return pad(x, (0, 0, 0, missing), value=fill).unflatten(2, (T, block_size))

    pooled = {
        "max": lambda: blocks(float("-inf")).amax(3),
        "min": lambda: blocks(float("inf")).amin(3),
        "mean": lambda: blocks(0.0).sum(3) / tokens[:, None].to(x.dtype),
    }
    return torch.cat([pooled[name]() for name in poolings], dim=-1)


class AttentionGate(nn.Module):
    """The gate of one attention layer (AttnGate), or those of L layers side by side: L H heads and L H_kv key heads.

    Computes in the dtype of its weights, float32 unless they are cast.

    Args:
        heads: H.
        key_heads: H_kv, a divisor of H.
        head_dim: d.
        seed: of the initial weights, drawn from N(0, 0.02).
        block_size: B.
        gate_dim: h; d by default.
        query_poolings: how queries are pooled.
        key_poolings: how keys are pooled.
        query_projection: project pooled queries, too; always so if they are pooled in several ways or h differs from d.
        block_rotary: step 3; without it the gate knows nothing of distances (an ablation of the paper).

    Raises:
        InputError: a size or a pooling is not one.
    """

    def __init__(
        self,
        heads: int,
        key_heads: int,
        head_dim: int,
        *,
        seed: int,
        block_size: int = 64,
        gate_dim: int | None = None,
        query_poolings: Sequence[Pooling] = ("mean",),
        key_poolings: Sequence[Pooling] = ("max", "min", "mean"),
        query_projection: bool = False,
        block_rotary: bool = True,
    ):
        super().__init__()
        gate_dim = head_dim if gate_dim is None else gate_dim
        for name, value in (
            ("heads", heads), ("key_heads", key_heads), ("head_dim", head_dim),
            ("block_size", block_size), ("gate_dim", gate_dim),
        ):  # fmt: skip
            check_positive_int(name, value)
        if heads % key_heads:
            raise InputError(f"heads is {heads} and key_heads {key_heads}; the number of key heads must divide that of heads.")
        if gate_dim % 2:
            raise InputError(f"gate_dim is {gate_dim}; rotary embedding needs an even number.")
        for name, poolings in (("query_poolings", query_poolings), ("key_poolings", key_poolings)):
            if not poolings or set(poolings) - set(get_args(Pooling)) or len(set(poolings)) < len(poolings):
                raise InputError(
                    f"{name} is {tuple(poolings)}; give some of {', '.join(map(repr, get_args(Pooling)))}, each once."
                )
        self.heads, self.key_heads, self.head_dim, self.block_size = heads, key_heads, head_dim, block_size
        self.query_poolings, self.key_poolings = tuple(query_poolings), tuple(key_poolings)
        self.block_rotary = block_rotary
        projected = query_projection or len(query_poolings) > 1 or gate_dim != head_dim
        generator = torch.Generator().manual_seed(seed)

        def weight(number: int, inputs: int) -> nn.Parameter:
            return nn.Parameter(INITIAL_STANDARD_DEVIATION * torch.randn(number, inputs, gate_dim, generator=generator))

        self.W_q = weight(heads, len(query_poolings) * head_dim) if projected else None
        self.W_k = weight(key_heads if projected else heads, len(key_poolings) * head_dim)

    def forward(self, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Logits of the blocks.

        Args:
            q: queries before rotary embedding, [Bt, H, N, d].
            k: keys before rotary embedding, [Bt, H_kv, N, d].
            cos: the model's rotary table at the first position of every block, [T, h] (see `block_positions`).
            sin: as cos.

        Returns:
            [Bt, H, T, T], -inf above the diagonal.

        Raises:
            InputError: shapes, dtypes or devices do not fit.
        """
        check_queries_and_keys(q, k)
        if (q.shape[1], k.shape[1], q.shape[3]) != (self.heads, self.key_heads, self.head_dim):
            raise InputError(
                f"q has shape {tuple(q.shape)} and k {tuple(k.shape)}; this gate takes {self.heads} and {self.key_heads} heads "
                f"of size {self.head_dim}."
            )
        pooled_q = pool(q, self.block_size, self.query_poolings)
        pooled_k = pool(k, self.block_size, self.key_poolings)
        return self.logits(pooled_q, pooled_k, cos, sin)

    def logits(self, pooled_q: Tensor, pooled_k: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Steps 2 to 4 on what `pool` gave.

        Args:
            pooled_q: [Bt, H, T, len(query_poolings) d].
            pooled_k: [Bt, H_kv, T, len(key_poolings) d].
            cos: as in `forward`.
            sin: as cos.

        Returns:
            [Bt, H, T, T], -inf above the diagonal.

        Raises:
            InputError: the tables do not fit.
        """
        T, gate_dim, dtype = pooled_q.shape[2], self.W_k.shape[2], self.W_k.dtype
        for name, table in (("cos", cos), ("sin", sin)):
            if table.shape != (T, gate_dim):
                raise InputError(f"{name} has shape {tuple(table.shape)}; expected ({T}, {gate_dim}), a row for every block.")
        pooled_q, pooled_k = pooled_q.to(dtype), pooled_k.to(dtype)
        repeats = self.heads // self.key_heads
        if self.W_q is None:
            pooled_k = pooled_k.repeat_interleave(repeats, dim=1) @ self.W_k
        else:
            pooled_q = pooled_q @ self.W_q
            pooled_k = (pooled_k @ self.W_k).repeat_interleave(repeats, dim=1)
        if self.block_rotary:
            pooled_q, pooled_k = apply_rotary_pos_emb(pooled_q, pooled_k, cos[None].to(dtype), sin[None].to(dtype))
        logits = pooled_q @ pooled_k.mT * gate_dim**-0.5
        return logits.masked_fill(~causal_blocks(T, logits.device), float("-inf"))

    def of_each_layer(self, layers: int) -> "list[AttentionGate]":
        """The gates of single layers, which share the weights of this one.

        Args:
            layers: L, whose heads lie side by side in this gate.

        Raises:
            InputError: the heads cannot be shared out.
        """
        if self.heads % layers or self.key_heads % layers:
            raise InputError(f"layers is {layers}; it must divide {self.heads} heads and {self.key_heads} key heads.")

        gates = []
        for layer in range(layers):
            gate = AttentionGate(
                self.heads // layers,
                self.key_heads // layers,
                self.head_dim,
                seed=0,
                block_size=self.block_size,
                gate_dim=self.W_k.shape[2],
                query_poolings=self.query_poolings,
                key_poolings=self.key_poolings,
                query_projection=self.W_q is not None,
                block_rotary=self.block_rotary,
            ).to(self.W_k.device)
            for mine, whole in zip(gate.parameters(), self.parameters(), strict=True):
                mine.data = whole.detach().unflatten(0, (layers, -1))[layer]
            gates.append(gate.requires_grad_(False))
        return gates


def block_positions(length: int, block_size: int, device: torch.device | str | None = None) -> Tensor:
    """First position of every block, for the model's rotary embedding: int64 [T]."""
    return torch.arange(0, length, block_size, device=device)


def distillation_loss(logits: Tensor, block_maxima: Tensor) -> Tensor:
    """How far the gate is from the ground truth (as the official code has it).

    Args:
        logits: of the gate, [Bt, H, T, T], -inf above the diagonal.
        block_maxima: of the layer's attention, [Bt, H, T, T], zero above the diagonal.

    Returns:
        10 times the mean, over all entries of the block rows from T // 4 on, of gt (log gt - log score); no dimensions.

    Raises:
        InputError: the shapes differ.
    """
    return LOSS_FACTOR * _divergence_terms(logits, block_maxima).mean()


def divergence(logits: Tensor, block_maxima: Tensor) -> Tensor:
    """KL(gt ‖ score) of a block row in nats, mean over the rows that `distillation_loss` takes.

    Args:
        logits: as in `distillation_loss`.
        block_maxima: likewise.

    Returns:
        [Bt, H].

    Raises:
        InputError: the shapes differ.
    """
    return _divergence_terms(logits, block_maxima).sum(-1).mean(-1)


def ground_truth(block_maxima: Tensor) -> Tensor:
    """Block maxima [Bt, H, T, T], each row divided by its sum: float32."""
    return block_maxima.float() / block_maxima.float().sum(-1, keepdim=True)


def _divergence_terms(logits: Tensor, block_maxima: Tensor) -> Tensor:
    """Terms gt (log gt - log score) of the block rows from T // 4 on: float32 [Bt, H, T - T // 4, T]."""
    if logits.shape != block_maxima.shape or logits.ndim != 4:
        raise InputError(
            f"logits has shape {tuple(logits.shape)} and block_maxima {tuple(block_maxima.shape)}; they must be [Bt, H, T, T]."
        )
    first = logits.shape[2] // 4
    truth = ground_truth(block_maxima[:, :, first:])
    score = logits[:, :, first:].float().log_softmax(-1)
    # Where the truth is zero the term is zero; -inf times zero would be no number, forwards and backwards.
    score = score.masked_fill(truth == 0, 0.0)
    return truth.xlogy(truth) - truth * score


def blocks_above(logits: Tensor, threshold: float, *, dense_rows: int = DENSE_ROWS) -> Tensor:
    """Blocks whose score exceeds a threshold; own blocks and the last rows are always read: bool [Bt, H, T, T].

    Raises:
        InputError: the threshold does not lie in [0, 1).
    """
    if not 0 <= threshold < 1:
        raise InputError(f"threshold is {threshold}; a score lies between 0 and 1.")
    return _with_forced(logits.float().softmax(-1) > threshold, dense_rows)


def best_blocks(logits: Tensor, density: float, *, dense_rows: int = DENSE_ROWS) -> Tensor:
    """The k best blocks of every row, k = max(1, floor((1 - sqrt(1 - density)) T)): bool [Bt, H, T, T].

    Rows of fewer than k blocks keep all, which makes the share of all causal blocks `density`. Own blocks and the last rows are
    always read.

    Raises:
        InputError: the density does not lie in (0, 1].
    """
    if not 0 < density <= 1:
        raise InputError(f"density is {density}; give a share of the causal blocks, 0 < density <= 1.")
    T = logits.shape[-1]
    k = max(1, int((1 - (1 - density) ** 0.5) * T + 1e-9))
    best = torch.zeros_like(logits, dtype=torch.bool).scatter_(3, logits.topk(k, dim=3).indices, True)
    return _with_forced(best, dense_rows)


def _with_forced(mask: Tensor, dense_rows: int) -> Tensor:
    T = mask.shape[-1]
    rows = torch.arange(T, device=mask.device)[:, None] >= T - dense_rows
    own = torch.eye(T, dtype=torch.bool, device=mask.device)
    return (mask | rows | own) & causal_blocks(T, mask.device)
