"""StreamingLLM: the first tokens (attention sinks) and a window of recent ones, whatever the queries and keys hold.

Xiao et al., "Efficient Streaming Language Models with Attention Sinks", arXiv 2309.17453 (ICLR 2024). As a
baseline of prefill attention the name means this mask with the original positions, which MInference (arXiv 2407.02490)
calls A-shape:

    M[i, j] = j < ceil(sinks / B)  or  i - j < ceil(window / B),  j <= i

| item | paper | codes that use it as a prefill baseline | here |
|---|---|---|---|
| positions | numbered anew inside the cache, at decoding | original positions | original positions |
| unit | tokens | tokens: c < sinks or r - c < window | whole blocks, sizes rounded up |
| window of a query | the latest tokens | the latest tokens | window - B + 1 tokens at a block's first row, window at its last |
| sinks, window | 4, the rest of the cache | MInference 128, 3,968; FlexPrefill 1,024, 8,192 | MInference's by default |
| no sinks | "window attention", which fails | - | sink_tokens=0 |
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from common.errors import InputError
from common.kernels.checks import check_positive_int
from common.sparse_attention.blocks import check_queries_and_keys, check_sizes, number_of_blocks
from common.sparse_attention.selection import Selection


@dataclass(frozen=True)
class StreamingLLM:
    """The first blocks and the latest blocks, in every head.

    Attributes:
        block_size: tokens per block, B.
        sink_tokens: first tokens that every query reads; 0 for none.
        window_tokens: latest tokens that every query reads, its own block included.

    Raises:
        InputError: an attribute is out of range.
    """

    block_size: int = 128
    sink_tokens: int = 128
    window_tokens: int = 3968

    def __post_init__(self):
        check_sizes(self.block_size, self.block_size)
        check_positive_int("window_tokens", self.window_tokens)
        if not isinstance(self.sink_tokens, int) or isinstance(self.sink_tokens, bool) or self.sink_tokens < 0:
            raise InputError(f"sink_tokens is {self.sink_tokens!r}; it must be 0 or a positive integer.")

    @property
    def name(self) -> str:
        """Short name, used in tables."""
        return "streaming_llm"

    def select(self, q: Tensor, k: Tensor) -> Selection:
        """Select blocks for q [B, H, N, D], k [B, Hkv, N, D], of which only the shapes matter."""
        check_queries_and_keys(q, k)
        B, H, N, _ = q.shape
        T = number_of_blocks(N, self.block_size)
        places = torch.arange(T, device=q.device)
        distance = places[:, None] - places  # [T, T], i - j
        sinks = places < number_of_blocks(self.sink_tokens, self.block_size)
        window = distance < number_of_blocks(self.window_tokens, self.block_size)
        mask = (sinks | window) & (distance >= 0)
        return Selection(mask.expand(B, H, T, T), block_size=self.block_size, segment_size=self.block_size)
