"""The block, the decoder and the gates beside it against equations written as loops, and against timm."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers.eca import EcaModule
from timm.layers.squeeze_excite import SEModule
from torch.nn.functional import interpolate

from common.errors import ConfigError, InputError
from papers.sentence_attention.decoder import CountedDropout, Decoder, interpolation, upsample
from papers.sentence_attention.other_gates import CrossAttention, EmbeddingAttention, FeatureWise, Text, Tiled
from papers.sentence_attention.sentence_attention import SentenceAttentionBlock, SentenceGate
from papers.sentence_attention.variants import VARIANTS, WITHOUT_TEXT, make_gates

CHANNELS = (8, 8, 12, 16, 20)
B7 = (32, 48, 80, 224, 640)


def maps(batch=2, channels=CHANNELS, side=32):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, C, side >> i, side >> i, generator=generator) for i, C in enumerate(channels)]


def gates_of(variant, E=6, channels=CHANNELS) -> Any:
    return make_gates(variant, E, channels)


def text(batch=2, E=6, L=5) -> Any:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(batch, L, E, generator=generator)
    present = torch.arange(L) < torch.tensor([L, L - 2])[:, None]
    return Text(torch.randn(batch, E, generator=generator), tokens, present)


def gate_in_loops(gate: SentenceGate, t: np.ndarray, *, layer_norm: bool, softmax: bool) -> np.ndarray:
    W1, b1 = (x.detach().double().numpy() for x in (gate.expand.weight, gate.expand.bias))
    W2, b2 = (x.detach().double().numpy() for x in (gate.select.weight, gate.select.bias))
    u = [sum(W1[i, e] * t[e] for e in range(len(t))) + b1[i] for i in range(len(b1))]
    if layer_norm:
        mean = sum(u) / len(u)
        deviation = math.sqrt(sum((x - mean) ** 2 for x in u) / len(u) + 1e-5)
        u = [(x - mean) / deviation for x in u]
    u = [max(x, 0.0) for x in u]
    s = [sum(W2[c, i] * u[i] for i in range(len(u))) + b2[c] for c in range(len(b2))]
    if softmax:
        total = sum(math.exp(x) for x in s)
        return np.array([math.exp(x) / total for x in s])
    return np.array([1 / (1 + math.exp(-x)) for x in s])


@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_the_block_is_its_equations(layer_norm, activation):
    torch.manual_seed(0)
    block = SentenceAttentionBlock(6, 10, layer_norm=layer_norm, activation=activation)
    t, f = torch.randn(3, 6), torch.randn(3, 10, 4, 5)
    found = block(f, t)
    for b in range(3):
        a = gate_in_loops(block.gate, t[b].double().numpy(), layer_norm=layer_norm, softmax=activation == "softmax")
        for c in range(10):
            np.testing.assert_allclose(found[b, c].detach(), a[c] * f[b, c], rtol=1e-4, atol=1e-6)


def test_gain_c_multiplies_the_softmax_by_the_channels_and_is_refused_elsewhere():
    torch.manual_seed(0)
    plain, gained = SentenceGate(6, 10), SentenceGate(6, 10, gain="C")
    gained.load_state_dict(plain.state_dict())
    t = torch.randn(4, 6)
    torch.testing.assert_close(gained(t), 10 * plain(t))
    torch.testing.assert_close(plain(t).sum(1), torch.ones(4))
    with pytest.raises(InputError, match="gain"):
        SentenceGate(6, 10, gain="C", activation="sigmoid")


def test_the_gate_stays_in_float32_under_autocast():
    gate = SentenceGate(6, 640)
    with torch.autocast("cpu", torch.bfloat16):
        found = gate(torch.randn(2, 6, dtype=torch.bfloat16))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.sum(1), torch.ones(2))


def test_sizes_are_those_of_the_authors_code():
    def count(module):
        return sum(x.numel() for x in module.parameters())

    assert count(SentenceAttentionBlock(384, 100)) == 594_432 + 1_537 * 100
    assert count(make_gates("sab", 384, B7)) == 4_546_048


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 30), st.integers(1, 30))
def test_upsampling_is_torchs_bilinear_interpolation(h, w, height, width):
    x = torch.randn(2, 3, h, w, generator=torch.Generator().manual_seed(h * 31 + w))
    wanted = interpolate(x, size=(height, width), mode="bilinear", align_corners=False)
    torch.testing.assert_close(upsample(x, height, width), wanted, rtol=1e-4, atol=1e-5)


def test_rows_of_the_interpolation_sum_to_one():
    rows = interpolation(5, 13, dtype=torch.float64, device=torch.device("cpu"))
    torch.testing.assert_close(rows.sum(1), torch.ones(13, dtype=torch.float64), rtol=1e-6, atol=1e-6)


def test_the_decoder_merges_from_the_deepest_map():
    torch.manual_seed(0)
    decoder: Any = Decoder(CHANNELS, dropout=0.5, seed=0).eval()
    for merge in decoder.merges:
        merge[1].running_mean.normal_()
        merge[1].running_var.uniform_(0.5, 2)
    given = maps()
    y = given[4]
    for i in (3, 2, 1, 0):
        convolution, norm = decoder.merges[i]
        z = torch.einsum("oc,bchw->bohw", convolution.weight[:, :, 0, 0], y)
        scale = (norm.weight / (norm.running_var + norm.eps).sqrt())[:, None, None]
        z = (z - norm.running_mean[:, None, None]) * scale + norm.bias[:, None, None]
        z = interpolate(z, size=given[i].shape[-2:], mode="bilinear", align_corners=False)
        y = (z + given[i]).clamp(min=0)
    y = torch.einsum("oc,bchw->bohw", decoder.classify.weight[:, :, 0, 0], y) + decoder.classify.bias[:, None, None]
    wanted = interpolate(y, size=(64, 60), mode="bilinear", align_corners=False)
    torch.testing.assert_close(decoder(given, 64, 60), wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="4 maps"):
        decoder(given[:4], 64, 64)


def test_dropout_draws_anew_at_every_step_and_the_same_for_the_same_seed():
    first, second, other = CountedDropout(0.5, 3), CountedDropout(0.5, 3), CountedDropout(0.5, 4)
    x = torch.ones(4, 8, 16, 16)
    a, b = first(x), first(x)
    torch.testing.assert_close(second(x), a)
    torch.testing.assert_close(second(x), b)
    assert (a != b).any()
    assert (other(x) != a).any()
    assert a.unique().tolist() == [0, 2]
    assert a.mean() == pytest.approx(1, abs=0.03)
    first.eval()
    assert first(x) is x
    with pytest.raises(InputError, match="share"):
        CountedDropout(1.0, 0)


def test_squeeze_excite_and_efficient_channel_attention_are_timms_on_every_map():
    given = maps()
    for name, kind in (("se", SEModule), ("eca", EcaModule)):
        torch.manual_seed(0)
        gates = gates_of(name)
        assert all(isinstance(layer, kind) for layer in gates.layers)
    torch.manual_seed(0)
    se = gates_of("se")
    found = se(given, text())[4]
    layer, f = se.layers[4], given[4]
    W1, W2 = layer.fc1.weight[:, :, 0, 0], layer.fc2.weight[:, :, 0, 0]
    for b in range(2):
        z = torch.stack([f[b, c].mean() for c in range(20)])
        gate = torch.sigmoid(W2 @ torch.relu(W1 @ z + layer.fc1.bias) + layer.fc2.bias)
        torch.testing.assert_close(found[b], gate[:, None, None] * f[b])


def test_the_sentences_se_has_the_widths_of_se_and_reads_the_sentence():
    se, sentence = gates_of("se"), gates_of("sentence_se")
    for layer, block in zip(se.layers, sentence.blocks, strict=True):
        assert layer.fc1.out_channels == block.gate.expand.out_features
        assert isinstance(block.gate.norm, torch.nn.Identity)
        assert block.gate.activation == "sigmoid"


def test_gating_the_last_map_leaves_the_others():
    given = maps()
    found = gates_of("sab_last")(given, text())
    assert all(a is b for a, b in zip(found[:4], given[:4], strict=True))
    assert not torch.equal(found[4], given[4])


def test_concatenation_is_a_convolution_of_map_and_tiled_sentence():
    torch.manual_seed(0)
    tiled, given, t = Tiled(6, CHANNELS), maps(), text()
    for layer, f, found in zip(tiled.layers, given, tiled(given, t), strict=True):
        beside = t.vectors[:, :, None, None].expand(-1, -1, *f.shape[2:])
        torch.testing.assert_close(found, layer(torch.cat([f, beside], dim=1)), rtol=1e-4, atol=1e-5)


def test_film_starts_as_the_identity_and_scales_and_shifts():
    given, t = maps(), text()
    film: Any = FeatureWise(6, CHANNELS)
    for f, found in zip(given, film(given, t), strict=True):
        torch.testing.assert_close(found, f)
    torch.nn.init.normal_(film.layers[0].weight)
    γβ = t.vectors @ film.layers[0].weight.T
    found = film(given, t)[0]
    torch.testing.assert_close(found[1, 3], (1 + γβ[1, 3]) * given[0][1, 3] + γβ[1, 8 + 3], rtol=1e-4, atol=1e-5)


def test_cross_attention_is_its_equations_and_does_not_read_padding():
    torch.manual_seed(0)
    attention, given, t = CrossAttention(6, CHANNELS, heads=2), maps(), text()
    found = attention(given, t)
    f = given[3]
    for b in range(2):
        length = int(t.present[b].sum())
        tokens = t.tokens[b, :length]
        for y in range(f.shape[2]):
            for x in range(f.shape[3]):
                q = attention.query(attention.norm(f[b, :, y, x]))
                k, v = attention.key(tokens), attention.value(tokens)
                heads = []
                for head in range(2):
                    part = slice(head * 8, head * 8 + 8)
                    weights = (k[:, part] @ q[part] / math.sqrt(8)).softmax(0)
                    heads.append(weights @ v[:, part])
                wanted = f[b, :, y, x] + attention.out(torch.cat(heads))
                torch.testing.assert_close(found[3][b, :, y, x], wanted, rtol=1e-4, atol=1e-5)
    t.tokens[1, 3:] = 1e3
    torch.testing.assert_close(attention(given, t)[3], found[3])
    assert found[0] is given[0]
    with pytest.raises(InputError, match="tokens"):
        attention(given, Text(t.vectors))
    with pytest.raises(InputError, match="3 heads"):
        CrossAttention(6, CHANNELS, heads=3)


def test_eab_reads_the_image_and_the_sentence():
    torch.manual_seed(0)
    given, t = maps(), text()
    eab: Any = EmbeddingAttention(6, CHANNELS)
    found = eab(given, t)[2]
    joint = torch.cat([given[4].mean((2, 3)), t.vectors], dim=1)
    torch.testing.assert_close(found, given[2] * eab.blocks[2].gate(joint)[:, :, None, None])


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_every_variant_keeps_shapes_and_reads_text_or_not(variant):
    torch.manual_seed(0)
    gates, given, t = gates_of(variant), maps(), text()
    if variant == "film":
        for layer in gates.layers:
            torch.nn.init.normal_(layer.weight)
    found = gates(given, t)
    other = gates(given, Text(t.vectors.flip(0), t.tokens.flip(0), t.present.flip(0)))
    assert [x.shape for x in found] == [x.shape for x in given]
    same = all(torch.equal(a, b) for a, b in zip(found, other, strict=True))
    assert same == (variant in WITHOUT_TEXT)


def test_an_unknown_variant_is_named():
    with pytest.raises(ConfigError, match="'sabb'"):
        make_gates("sabb", 6, CHANNELS)
