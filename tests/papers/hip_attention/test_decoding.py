"""Decoding with kept lists: against the definition, and on a small model."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from common.errors import InputError
from common.language_models import random_llama
from papers.hip_attention.decoding import HierarchicalDecoding, decoding_losses
from papers.hip_attention.hip_attention import HierarchicalPruning

HIP = HierarchicalPruning(block_k=2, top_k=16, window=10, sink=4)


def tensors(T, seed=0):
    g = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(1, h, n, 64, generator=g, dtype=torch.float64) for h, n in ((4, T), (2, T), (2, T)))


def steps(decoding, q, k, v, first, last):
    """Decode positions first .. last - 1 in turn."""
    outputs = [decoding.attend(0, q[:, :, t : t + 1], k[:, :, : t + 1], v[:, :, : t + 1]) for t in range(first, last)]
    return torch.cat(outputs, dim=2)


def test_lists_are_kept_and_no_key_is_lost_between_searches():
    q, k, v = tensors(120)
    decoding = HierarchicalDecoding(HIP, refresh_interval=4)
    out = steps(decoding, q, k, v, 100, 112)
    assert decoding.searches == 3
    for t in range(100, 112):
        searched_at = t - t % 4
        lists = decoding.settings.search(q[:, :, searched_at : searched_at + 1], k[:, :, : searched_at + 1])
        window = 4 + (searched_at - 10 - 4) // 2 * 2
        for head in range(4):
            blocks = lists.indices[0, head, 0, : int(lists.counts[0, head, 0])].tolist()
            keys = sorted(
                {*range(4), *(4 + 2 * block + offset for block in blocks for offset in (0, 1)), *range(window, t + 1)}
            )
            p = (q[0, head, t] @ k[0, head // 2, keys].T / 8).softmax(0)
            torch.testing.assert_close(out[0, head, t - 100], p @ v[0, head // 2, keys])


def test_a_search_at_every_step_is_the_prefill_of_single_queries():
    q, k, v = tensors(80)
    decoding = HierarchicalDecoding(HIP, refresh_interval=1)
    out = steps(decoding, q, k, v, 60, 80)
    assert decoding.searches == 20
    selection = decoding.settings.select(q, k)
    torch.testing.assert_close(out, selection.attend(q, k, v)[:, :, 60:])


def test_layers_have_lists_of_their_own_and_a_shorter_cache_is_another_text():
    q, k, v = tensors(100)
    decoding = HierarchicalDecoding(HIP, refresh_interval=8)
    for layer in (0, 1, 0):
        decoding.attend(layer, q[:, :, 90:91], k[:, :, :91], v[:, :, :91])
    assert decoding.searches == 3  # the same length again is no next step
    decoding.attend(0, q[:, :, 91:92], k[:, :, :92], v[:, :, :92])
    assert decoding.searches == 3
    decoding.attend(0, q[:, :, 50:51], k[:, :, :51], v[:, :, :51])
    assert decoding.searches == 4


@pytest.fixture(scope="module")
def model():
    return random_llama("tiny", seed=0, dtype=torch.float32, device="cpu")


@pytest.fixture
def tokens():
    return torch.randint(512, (90,), generator=torch.Generator().manual_seed(0))


def test_dense_losses_are_those_of_one_forward_pass(model, tokens):
    logits = model(tokens[None]).logits[0, :-1].float()
    expected = cross_entropy(logits, tokens[1:], reduction="none")[-6:]
    torch.testing.assert_close(decoding_losses(model, tokens, 6), expected, rtol=1e-4, atol=1e-5)


def test_a_model_decodes_with_lists_and_goes_back(model, tokens):
    dense = decoding_losses(model, tokens, 6)
    everything = HierarchicalDecoding(HierarchicalPruning(block_k=2, top_k=512, window=10, sink=4))
    before = model.config._attn_implementation
    with everything.of(model):
        torch.testing.assert_close(decoding_losses(model, tokens, 6), dense, rtol=1e-4, atol=1e-5)
        assert everything.searches == 2  # one a layer
    few = HierarchicalDecoding(HIP, refresh_interval=2)
    with few.of(model):
        assert not torch.allclose(decoding_losses(model, tokens, 6), dense, rtol=1e-4, atol=1e-5)
        assert few.searches == 6
    assert model.config._attn_implementation == before
    torch.testing.assert_close(decoding_losses(model, tokens, 6), dense)


def test_dense_layers_attend_to_everything(model, tokens):
    dense = decoding_losses(model, tokens, 4)
    decoding = HierarchicalDecoding(HIP, refresh_interval=1, dense_layers=2)
    with decoding.of(model):
        torch.testing.assert_close(decoding_losses(model, tokens, 4), dense)
        assert decoding.searches == 0


def test_wrong_arguments_are_named(model, tokens):
    for arguments, message in (
        ({"refresh_interval": 0}, "refresh_interval is 0"),
        ({"dense_layers": -1}, "dense_layers is -1"),
    ):
        with pytest.raises(InputError, match=message):
            HierarchicalDecoding(HIP, **arguments)
    q, k, v = tensors(20)
    with pytest.raises(InputError, match="20 queries; a decoding step has one"):
        HierarchicalDecoding(HIP).attend(0, q, k, v)
    for count in (0, 89):
        with pytest.raises(InputError, match=f"steps = {count}"):
            decoding_losses(model, tokens, count)


def test_the_scale_is_that_of_the_model():
    q, k, v = tensors(12)
    wide = HierarchicalDecoding(HierarchicalPruning(window=100, sink=4))
    out = wide.attend(0, q[:, :, 11:], k, v, scale=0.3)
    expected = scaled_dot_product_attention(q[:, :, 11:], k, v, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(out, expected)
    assert not math.isclose(0.3, 64**-0.5)
