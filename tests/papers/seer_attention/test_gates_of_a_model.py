"""Gates beside the layers of a model: what they read, what they learn from, and how they select inside a forward pass."""

import pytest
import torch
from torch import nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, repeat_kv

from common.errors import InputError
from common.sparse_attention.transformers_attention import recording, register
from papers.seer_attention.before_rotary import BeforeRotary
from papers.seer_attention.gates import gated
from papers.seer_attention.seer_attention import best_blocks, block_positions, blocks_above, pool
from papers.seer_attention.selector import SeerAttention, as_given, block_tables
from papers.seer_attention.teacher import teaching
from papers.seer_attention.training import GateSettings, make_gate

KIND = GateSettings(queries=["mean"], keys=["max", "min", "mean"])


def all_layers(model, before_rotary, tokens):
    """(layer, q, k, q before, k before) of every layer of a dense pass."""
    seen = []
    with recording(model, lambda layer, q, k, v: seen.append((layer, q, k, before_rotary(q, k)))):
        model.base_model(tokens, use_cache=False)
    return seen


def test_queries_and_keys_before_rotation_are_those_that_the_model_rotates(model, tokens):
    positions = torch.arange(100)[None]
    cos, sin = model.model.rotary_emb(torch.zeros(1), positions)
    with BeforeRotary(model) as before, torch.no_grad():
        seen = all_layers(model, before, tokens[:1])
    assert [layer for layer, *_ in seen] == [kept[0] for *_, kept in seen] == [0, 1]
    for _, q, k, (_, q_before, k_before) in seen:
        rotated = apply_rotary_pos_emb(q_before, k_before, cos, sin)
        assert torch.equal(rotated[0], q)
        assert torch.equal(rotated[1], k)
        assert not torch.allclose(q_before, q)


def test_hooks_are_gone_after_the_context(model, tokens):
    with BeforeRotary(model) as before:
        model.base_model(tokens[:1], use_cache=False)
    q, k = torch.zeros(1, 4, 100, 64), torch.zeros(1, 2, 100, 64)
    with pytest.raises(InputError, match="no queries and keys were kept"):
        before(q, k)
    assert not any(module._forward_hooks for module in model.modules())


def test_queries_and_keys_of_another_pass_are_refused(model, tokens):
    with BeforeRotary(model) as before:
        model.base_model(tokens[:1], use_cache=False)
        with pytest.raises(InputError, match=r"q has shape \(1, 4, 50, 64\), and layer 1 projected \(1, 100, 256\)"):
            before(torch.zeros(1, 4, 50, 64), torch.zeros(1, 2, 50, 64))


def test_models_of_another_kind_are_refused(model):
    with pytest.raises(InputError, match="Linear has no layers with q_proj and k_proj"):
        BeforeRotary(nn.Linear(2, 2))
    model.model.layers[0].self_attn.q_norm = nn.Identity()
    with pytest.raises(InputError, match="LlamaForCausalLM normalises queries and keys"):
        BeforeRotary(model)


def test_the_teacher_gives_the_pooled_map_and_leaves_the_model_as_it_is(model, tokens):
    """Against eager attention, float32, with its own pooling."""
    with torch.no_grad():
        model.set_attn_implementation("eager")
        expected = model.base_model(tokens, output_attentions=True, use_cache=False)
        model.set_attn_implementation("sdpa")
        outputs = []
        handle = model.model.register_forward_hook(lambda module, inputs, output: outputs.append(output.last_hidden_state))
        with teaching(model, block_size=32) as teacher:
            lesson = teacher(tokens)
        handle.remove()
    assert model.config._attn_implementation == "sdpa"
    torch.testing.assert_close(outputs[0], expected.last_hidden_state, atol=1e-4, rtol=1e-4)
    assert lesson.block_maxima.shape == (2, 2 * 4, 4, 4)
    for layer, attention in enumerate(expected.attentions):
        padded = nn.functional.pad(attention, (0, 28, 0, 28))
        maxima = nn.functional.max_pool2d(padded, 32)
        torch.testing.assert_close(lesson.block_maxima[:, 4 * layer : 4 * layer + 4], maxima, atol=1e-5, rtol=1e-3)


def test_a_lesson_gives_the_logits_that_the_layers_gates_give(model, tokens):
    """All layers at once, from pooled tensors, and layer by layer, from queries and keys."""
    gate = make_gate(KIND, model.config, block_size=16, seed=3)
    with torch.no_grad():
        with teaching(model, block_size=16) as teacher:
            together = teacher(tokens[:1]).logits(gate)
        tables = block_tables(model.model.rotary_emb)(100, 16, torch.device("cpu"))
        with BeforeRotary(model) as before:
            seen = all_layers(model, before, tokens[:1])
        layers = gate.of_each_layer(2)
        for layer, _, _, (_, q, k) in seen:
            alone = layers[layer](q, k, *tables)
            torch.testing.assert_close(together[:, 4 * layer : 4 * layer + 4], alone, atol=1e-4, rtol=1e-4)


def test_gates_of_layers_need_whole_layers(model):
    gate = make_gate(KIND, model.config, block_size=16, seed=3)
    with pytest.raises(InputError, match="layers is 3; it must divide 8 heads and 4 key heads"):
        gate.of_each_layer(3)


def test_block_tables_are_the_models_at_the_first_positions(model):
    cos, sin = block_tables(model.model.rotary_emb)(50, 16, torch.device("cpu"))
    frequencies = 10_000.0 ** (-torch.arange(0, 64, 2) / 64)
    angles = block_positions(50, 16)[:, None] * frequencies
    torch.testing.assert_close(cos, torch.cat([angles, angles], 1).cos(), atol=1e-5, rtol=0)
    torch.testing.assert_close(sin, torch.cat([angles, angles], 1).sin(), atol=1e-5, rtol=0)


def test_the_selector_reads_the_blocks_of_its_layers_gate_inside_a_forward_pass(model, tokens):
    gate = make_gate(KIND, model.config, block_size=16, seed=3)
    gate.W_k.data *= 30
    expected = {}
    with torch.no_grad(), teaching(model, block_size=16) as teacher:
        first_layer = teacher(tokens[:1]).logits(gate)[:, :4]  # of later layers the inputs differ once blocks are left out
    expected["density"] = best_blocks(first_layer, 0.4)
    expected["threshold"] = blocks_above(first_layer, 0.2)
    for name, value in (("density", 0.4), ("threshold", 0.2)):
        seen = {}
        with gated(model) as made, torch.no_grad():
            family = made.by_density(gate) if name == "density" else made.by_threshold(gate)
            selector = family(value)
            register("seer_under_test", selector, lambda layer, selection, seen=seen: seen.update({layer: selection}))
            model.set_attn_implementation("seer_under_test")
            model.base_model(tokens[:1], use_cache=False)
            model.set_attn_implementation("sdpa")
        assert sorted(seen) == [0, 1]
        assert torch.equal(seen[0].mask, expected[name])
        assert seen[0].block_size == seen[0].segment_size == 16


def test_everything_selected_is_dense_attention(model, tokens):
    gate = make_gate(KIND, model.config, block_size=16, seed=3)
    with gated(model) as made, torch.no_grad():
        expected = model.base_model(tokens[:1], use_cache=False).last_hidden_state
        register("seer_under_test", made.by_density(gate)(1.0))
        model.set_attn_implementation("seer_under_test")
        found = model.base_model(tokens[:1], use_cache=False).last_hidden_state
        model.set_attn_implementation("sdpa")
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_gate_without_block_rotary_does_not_see_distances(model):
    generator = torch.Generator().manual_seed(0)
    block = torch.randn(1, 4, 16, 64, generator=generator), torch.randn(1, 2, 16, 64, generator=generator)
    q, k = (x.repeat(1, 1, 5, 1) for x in block)  # five equal blocks
    angles = torch.randn(5, 64, generator=generator)
    for rotary, equal in ((False, True), (True, False)):
        kind = KIND.model_copy(update={"block_rotary": rotary})
        gate = make_gate(kind, model.config, block_size=16, seed=0).of_each_layer(2)[0]
        last = gate(q, k, angles.cos(), angles.sin())[0, :, -1]
        assert torch.allclose(last, last[:, :1].expand_as(last), atol=1e-6) is equal


def test_a_selector_needs_one_of_density_and_threshold():
    for density, threshold in ((None, None), (0.5, 0.1)):
        with pytest.raises(InputError, match="give exactly one of them"):
            SeerAttention([], lambda *_: (torch.zeros(1), torch.zeros(1)), as_given, density, threshold)


def test_pooling_bfloat16_is_close_to_pooling_float32():
    x = torch.randn(1, 2, 200, 8, generator=torch.Generator().manual_seed(0))
    rounded = pool(x.bfloat16(), 64, ("max", "min", "mean"))
    torch.testing.assert_close(rounded.float(), pool(x.bfloat16().float(), 64, ("max", "min", "mean")), atol=2e-3, rtol=8e-3)


def test_grouped_heads_use_the_key_head_of_their_group(model):
    """The gates of two layers: query head 5 of the second layer's group reads that layer's keys."""
    gate = make_gate(KIND, model.config, block_size=16, seed=0)
    q, k = torch.randn(1, 8, 16, 64), torch.randn(1, 4, 16, 64)
    angles = torch.zeros(1, 64)
    logits = gate(q, k, angles.cos(), angles.sin())
    pooled = pool(repeat_kv(k, 2), 16, gate.key_poolings)[0, :, 0]
    expected = torch.einsum("hd,hdc,hc->h", pooled, gate.W_k, q.mean(2)[0]) / 8
    torch.testing.assert_close(logits[0, :, 0, 0], expected, atol=1e-5, rtol=1e-4)
