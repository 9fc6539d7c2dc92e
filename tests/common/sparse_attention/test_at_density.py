"""A method's whole work at a given density: the blocks are drawn as asked for, and the keys stay in the method's order."""

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from common.errors import InputError
from common.sparse_attention import MeanPooling, Selection, density, sparse_attention, structured_inputs
from common.sparse_attention.at_density import AtDensity, blocks_at_density

B, S, H, N = 16, 32, 4, 640


@dataclass(frozen=True)
class Reversed:
    """Every block, from keys reversed inside segments."""

    name: str = "reversed"

    def select(self, q, k):
        order = torch.arange(N).view(-1, S).flip(1).flatten().int().expand(1, H, N).contiguous()
        segments = torch.arange(N // B) // 2
        return Selection((segments[None] <= segments[:, None]).expand(1, H, -1, -1), B, S, order)


def inputs():
    return structured_inputs(
        N, heads=H, key_heads=2, head_dim=64, topic_chunk=32, locality_period=128, heavy_hitter_period=8
    )  # fmt: skip


def test_blocks_have_that_density():
    lists = blocks_at_density(N, H, 0.4, block_size=B, segment_size=S, device="cpu", seed=0)
    lists.check_contents(N // B, S // B)
    mask = lists.to_mask(N // B)
    for i in range(N // B):
        own, earlier = 2, i // 2 * 2
        wanted = max(math.ceil(0.4 * (i + 1)), own)
        assert mask[0, :, i].sum(-1).tolist() == [min(wanted, own + earlier)] * H
        assert mask[0, :, i, 0].all() == (wanted > own or i < 2)
    assert float(density(mask, S, B).mean()) == pytest.approx(0.4, abs=0.05)
    other = blocks_at_density(N, H, 0.4, block_size=B, segment_size=S, device="cpu", seed=1)
    assert not torch.equal(other.indices, lists.indices)


@pytest.mark.parametrize(("selector", "segment"), [(Reversed(), S), (MeanPooling(B), B)])
def test_a_selector_at_a_density_reads_drawn_blocks_in_its_own_order(selector, segment):
    q, k, v = inputs()
    made = selector.select(q, k)
    at_density = AtDensity(selector, 0.4, seed=3)
    selection = at_density.select(q, k)
    drawn = blocks_at_density(N, H, 0.4, block_size=B, segment_size=segment, device="cpu", seed=3)
    assert isinstance(selection, Selection)
    assert torch.equal(selection.mask, drawn.to_mask(N // B))
    assert (selection.key_order is None) == (made.key_order is None)
    if made.key_order is not None:
        assert selection.key_order is not None
        assert torch.equal(selection.key_order, made.key_order)
    assert sparse_attention(q, k, v, selection).isfinite().all()
    again = at_density.select(q, k)
    assert isinstance(again, Selection)
    assert again.selected is selection.selected  # drawn once


def test_a_selection_that_is_no_block_mask_is_read_as_it_is():
    class Nothing:
        pass

    class Chooser:
        name = "chooser"

        def __init__(self):
            self.made = Nothing()

        def select(self, q, k):
            return self.made

    chooser: Any = Chooser()
    assert AtDensity(chooser, 0.4).select(*inputs()[:2]) is chooser.made


def test_wrong_density_and_batch():
    with pytest.raises(InputError, match="density"):
        AtDensity(MeanPooling(B), 0.0)
    with pytest.raises(InputError, match="density"):
        blocks_at_density(N, H, 1.5, block_size=B, segment_size=S, device="cpu", seed=0)
    q, k = (torch.randn(2, heads, 64, 64) for heads in (H, 2))
    with pytest.raises(InputError, match="one sequence at a time"):
        AtDensity(MeanPooling(B), 0.4).select(q, k)
