"""What a list of keys holds: recall of the exact top keys and attention mass, and lists to compare the search with.

Everything here looks at the last N queries of T positions, which is enough to judge lists and leaves long contexts cheap.
"""

import torch
from torch import Tensor

from common.kernels.block_sparse_attention import BlockLists
from papers.hip_attention.hip_attention import HierarchicalPruning


class LastQueries:
    """The exact scores of the last queries of one layer, against which lists are held.

    Args:
        q: the last queries [1, H, N, d].
        k: keys [1, H_kv, T, d].
        settings: b_q, b_k, k, window and sink of the lists.
    """

    def __init__(self, q: Tensor, k: Tensor, settings: HierarchicalPruning):
        s = self.settings = settings
        _, H, N, d = q.shape
        T = k.shape[2]
        self.searched = s.searched(N, T, q.device).long()
        keys = k[0].float().repeat_interleave(H // k.shape[1], dim=0)
        logits = q[0].float() @ keys.mT * d**-0.5  # [H, N, T]
        place = torch.arange(T, device=q.device)
        future = place > place[T - N :, None]
        self.attention = logits.masked_fill(future, float("-inf")).softmax(-1)
        blocks = torch.arange(N, device=q.device) // s.block_q
        rows = len(self.searched)
        best = logits.new_full((H, rows, T), float("-inf"))  # of a block's queries: what its list is to hold
        best.scatter_reduce_(1, blocks[None, :, None].expand_as(logits), logits, "amax")
        outside = (place < s.sink) | (place >= (s.sink + self.searched * s.block_k)[:, None])
        self.best = best.masked_fill(outside, float("-inf"))
        self.query_blocks = blocks

    def block_scores(self) -> Tensor:
        """Largest logit of every key block, -inf outside of the search: [H, ceil(N / b_q), largest M]."""
        s, most = self.settings, int(self.searched.max())
        return self.best[..., s.sink : s.sink + most * s.block_k].unflatten(2, (most, s.block_k)).amax(3)

    def lists(self, blocks: Tensor) -> BlockLists:
        """Lists of blocks [H, ceil(N / b_q), n]; one that searches fewer than n has them in its first places."""
        counts = self.searched.clamp_max(blocks.shape[2]).int().expand(1, *blocks.shape[:2])
        return BlockLists(counts.contiguous(), blocks.int()[None].contiguous())

    def exact(self) -> BlockLists:
        """The blocks that hold the largest logits."""
        scores = self.block_scores()
        return self.lists(scores.topk(min(self.settings.nodes, scores.shape[2]), dim=2).indices)

    def random(self, seed: int) -> BlockLists:
        """Blocks drawn without order or repetition."""
        scores = self.block_scores()
        g = torch.Generator(scores.device).manual_seed(seed)
        draw = torch.rand(scores.shape, generator=g, device=scores.device).masked_fill(scores.isneginf(), -1.0)
        return self.lists(draw.topk(min(self.settings.nodes, scores.shape[2]), dim=2).indices)

    def strided(self) -> BlockLists:
        """Blocks at equal distances."""
        n = min(self.settings.nodes, int(self.searched.max()))
        places = torch.arange(n, device=self.searched.device)
        M = self.searched[:, None]
        blocks = torch.where(n < M, (2 * places + 1) * M // (2 * n), places)
        return self.lists(blocks.expand(self.best.shape[0], -1, -1))

    def _listed(self, lists: BlockLists) -> Tensor:
        """Keys of the lists: bool [H, ceil(N / b_q), T]."""
        s, T = self.settings, self.best.shape[2]
        tokens = s.sink + lists.indices[0, ..., None].long() * s.block_k + torch.arange(s.block_k, device=self.best.device)
        in_list = torch.arange(lists.indices.shape[3], device=self.best.device) < lists.counts[0, ..., None]
        listed = torch.zeros(*self.best.shape[:2], T + 1, dtype=torch.bool, device=self.best.device)
        return listed.scatter_(2, tokens.masked_fill(~in_list[..., None], T).flatten(2), True)[..., :T]

    def recall(self, lists: BlockLists) -> Tensor:
        """Share of the k keys with the largest logits that are listed, mean over the query blocks: float64 [H]."""
        listed = self._listed(lists)
        top = self.best.topk(min(self.settings.top_k, self.best.shape[2]), dim=2)
        counted = ~top.values.isneginf()
        hits = listed.gather(2, top.indices) & counted
        return (hits.sum(2).double() / counted.sum(2)).mean(1)

    def mass(self, lists: BlockLists, *, among: Tensor | None = None) -> Tensor:
        """Attention mass of the keys that are read, with sink and window, mean over the queries: float64 [H].

        Args:
            lists: of key blocks.
            among: bool [T], as a share of the mass of these keys, which must have some; None for all keys.
        """
        s = self.settings
        place = torch.arange(self.best.shape[2], device=self.best.device)
        own = (place < s.sink) | (place >= (s.sink + self.searched * s.block_k)[:, None])
        return self._mass((self._listed(lists) | own)[:, self.query_blocks], among)

    def window_mass(self, keys: int, *, among: Tensor | None = None) -> Tensor:
        """As `mass`, of the sink and a sliding window with in all `keys` more keys than the settings' window: float64 [H]."""
        s, T = self.settings, self.best.shape[2]
        place = torch.arange(T, device=self.best.device)
        query = place[T - len(self.query_blocks) :, None]
        read = (place < s.sink) | (query - place < s.window + keys)
        return self._mass(read[None], among)

    def _mass(self, read: Tensor, among: Tensor | None) -> Tensor:
        kept = self.attention.masked_fill(~read, 0.0)
        if among is None:
            return kept.sum(2).double().mean(1)
        return kept[..., among].sum((1, 2)).double() / self.attention[..., among].sum((1, 2)).double()


def equal_budget(lists: BlockLists, settings: HierarchicalPruning) -> int:
    """What a window of equal cost may read beyond the settings' window: the listed keys, and that a block's window is longer.

    Mean over the heads, of the last query block.
    """
    return round(float(lists.counts[0, :, -1].double().mean()) * settings.block_k) + (settings.block_q - 1) // 2
