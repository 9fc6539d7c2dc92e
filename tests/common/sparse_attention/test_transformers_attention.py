"""The plug into transformers on tiny random models: equal to SDPA when nothing is dropped, an error where it cannot serve."""

from dataclasses import dataclass

import pytest
import torch
from transformers import (
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    StaticCache,
)

from common.errors import InputError
from common.sparse_attention import Dense, MeanPooling, Selection
from common.sparse_attention.transformers_attention import SelectionStatistics, recording, register

BLOCK, N = 16, 100
SIZES = {
    "vocab_size": 97,
    "hidden_size": 128,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "eos_token_id": None,
    "pad_token_id": 0,
}
FAMILIES = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    # Qwen2 derives its head dim from the hidden size.
    "qwen2": (lambda **sizes: Qwen2Config(**{**sizes, "hidden_size": 256}), Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}


def tiny(family="llama", **changes):
    config, model = {**FAMILIES, "granite": (GraniteConfig, GraniteForCausalLM)}[family]
    torch.manual_seed(0)
    return model(config(**{**SIZES, **changes})).eval()


def tokens(length=N, batch=1):
    return torch.randint(1, 97, (batch, length), generator=torch.Generator().manual_seed(1))


@dataclass(frozen=True)
class ShuffledDense:
    """Reads everything, from keys reversed inside segments of two blocks: exact, and through the permuted path."""

    name: str = "shuffled_dense"

    def select(self, q, k):
        length, segment = k.shape[2], 2 * BLOCK
        order = torch.arange(length)
        for start in range(0, length - segment + 1, segment):
            order[start : start + segment] = order[start : start + segment].flip(0)
        segments = torch.arange(-(-length // BLOCK)) // 2
        mask = (segments[None, :] <= segments[:, None]).expand(*q.shape[:2], -1, -1)
        return Selection(mask, BLOCK, segment, order.int().expand(1, q.shape[1], length).contiguous())


@pytest.fixture(autouse=True)
def implementations():
    register("dense_blocks", Dense(BLOCK))
    register("shuffled_blocks", ShuffledDense())
    register("few_blocks", MeanPooling(BLOCK, tau=0.05))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["dense_blocks", "shuffled_blocks"])
@torch.no_grad()
def test_everything_selected_equals_sdpa(family, name):
    model = tiny(family)
    assert model.config._attn_implementation == "sdpa"
    expected = model(tokens()).logits
    model.set_attn_implementation(name)
    torch.testing.assert_close(model(tokens()).logits, expected, atol=1e-3, rtol=1e-3)
    model.set_attn_implementation("few_blocks")
    assert not torch.allclose(model(tokens()).logits, expected, atol=1e-2)  # it is really this attention that runs


@pytest.mark.parametrize("family", FAMILIES)
def test_generation_equals_sdpa(family):
    model = tiny(family)
    options = {"max_new_tokens": 12, "do_sample": False, "attention_mask": torch.ones(1, N).long()}
    expected = model.generate(tokens(), **options)
    assert expected.shape[1] == N + 12
    model.set_attn_implementation("shuffled_blocks")
    assert torch.equal(model.generate(tokens(), **options), expected)


@torch.no_grad()
def test_model_can_be_built_with_the_name():
    torch.manual_seed(0)
    model = LlamaForCausalLM._from_config(LlamaConfig(**SIZES), attn_implementation="dense_blocks").eval()
    torch.testing.assert_close(model(tokens()).logits, tiny()(tokens()).logits, atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_a_prompt_of_one_token_and_no_cache():
    model = tiny()
    expected = model(tokens(1), use_cache=False).logits
    model.set_attn_implementation("few_blocks")
    torch.testing.assert_close(model(tokens(1), use_cache=False).logits, expected)


@torch.no_grad()
def test_statistics_count_every_prefill_of_every_layer():
    statistics = SelectionStatistics()
    register("counted_blocks", MeanPooling(BLOCK, tau=0.05), on_selection=statistics)
    model = tiny()
    model.set_attn_implementation("counted_blocks")
    model.generate(tokens(), max_new_tokens=3, do_sample=False)
    per_head = statistics.density_per_head()
    assert list(per_head) == [0, 1]
    for layer, heads in per_head.items():
        assert heads.shape == (4,)
        assert ((heads > 0) & (heads < 1)).all()
        assert statistics.density_per_layer()[layer] == pytest.approx(float(heads.mean()))
    register("counted_blocks", Dense(BLOCK), on_selection=statistics)
    model(tokens())
    for layer, heads in statistics.density_per_head().items():
        torch.testing.assert_close(heads, (per_head[layer] + 1) / 2)
    statistics.reset()
    assert statistics.density_per_layer() == {}


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_recording_shows_what_attention_sees(family):
    model = tiny(family)
    seen = {}
    expected = model(tokens()).logits
    with recording(model, lambda layer, q, k, v: seen.update({layer: (q.clone(), k.clone(), v.clone())})):
        recorded = model(tokens()).logits
    torch.testing.assert_close(recorded, expected)
    assert model.config._attn_implementation == "sdpa"
    assert list(seen) == [0, 1]

    outputs = {}
    layers = model.model.layers
    hooks = [
        layer.self_attn.o_proj.register_forward_pre_hook(lambda _, args, i=i: outputs.update({i: args[0]}))
        for i, layer in enumerate(layers)
    ]
    model(tokens())
    for hook in hooks:
        hook.remove()
    for layer, (q, k, v) in seen.items():
        assert q.shape == (1, 4, N, 64)
        assert k.shape == v.shape == (1, 2, N, 64)
        logits = (q @ k.repeat_interleave(2, 1).mT / 8).masked_fill(~torch.ones(N, N).tril().bool(), -torch.inf)
        attended = (logits.softmax(-1) @ v.repeat_interleave(2, 1)).transpose(1, 2).flatten(2)
        torch.testing.assert_close(attended, outputs[layer], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_recording_ends_with_its_block_and_skips_decoding():
    model = tiny()
    model.set_attn_implementation("dense_blocks")
    calls = []
    with recording(model, lambda layer, q, k, v: calls.append(q.shape[2])):
        model.generate(tokens(), max_new_tokens=3, do_sample=False)
        with pytest.raises(InputError, match="cannot be nested"), recording(model, lambda *_: None):
            pass
    assert calls == [N, N]
    assert model.config._attn_implementation == "dense_blocks"

    def fail(*_):
        raise RuntimeError("from the callback")

    with pytest.raises(RuntimeError, match="from the callback"), recording(model, fail):
        model(tokens())
    assert model.config._attn_implementation == "dense_blocks"
    model(tokens())
    assert calls == [N, N]


def sparse(family="llama", **changes):
    model = tiny(family, **changes)
    model.set_attn_implementation("dense_blocks")
    return model


def padded():
    mask = torch.ones(1, N).long()
    mask[0, :3] = 0
    return sparse()(tokens(), attention_mask=mask)


def chunked():
    model = sparse()
    cache = model(tokens()[:, :50], use_cache=True).past_key_values
    return model(tokens()[:, 50:], past_key_values=cache)


def static_cache():
    model = sparse()
    return model(tokens(), past_key_values=StaticCache(config=model.config, max_cache_len=200))


def packed():
    positions = torch.cat([torch.arange(60), torch.arange(40)])[None]
    return sparse()(tokens(), position_ids=positions, use_cache=False)


REFUSED = {
    "2 sequences": lambda: sparse()(tokens(batch=2)),
    "hides tokens": padded,
    r"a mask other than the causal one \(sliding": packed,
    "a mask other than the causal one was given": lambda: sparse()(
        tokens(), attention_mask=torch.ones(1, 1, N, N).bool().tril()
    ),
    "50 queries meet 100 keys": chunked,
    "100 queries meet 200 keys": static_cache,
    "dropout is 0.1": lambda: sparse(attention_dropout=0.1).train()(tokens()),
    "output_attentions is on": lambda: sparse()(tokens(), output_attentions=True),
    "head dim is 32": lambda: sparse(head_dim=32)(tokens()),
    "scales its logits by 0.25": lambda: sparse("granite", attention_multiplier=0.25)(tokens()),
    "sliding window": lambda: sparse("qwen2", use_sliding_window=True, sliding_window=32, max_window_layers=0)(tokens()),
}


@pytest.mark.parametrize("message", REFUSED)
@torch.no_grad()
def test_what_it_cannot_do_is_an_error(message):
    with pytest.raises(InputError, match=message):
        REFUSED[message]()


def test_layers_with_other_attention_are_refused():
    model = sparse()
    attention = model.model.layers[0].self_attn
    hidden = torch.randn(1, N, 128)
    angles = (torch.ones(1, N, 64), torch.zeros(1, N, 64))
    for argument in ("s_aux", "softcap", "sliding_window", "position_bias"):
        with pytest.raises(InputError, match=f"{argument} in layer 0"):
            attention(hidden, angles, None, **{argument: torch.ones(4)})
    with pytest.raises(InputError, match="not causal"):
        attention(hidden, angles, None, is_causal=False)


def test_names_of_transformers_cannot_be_taken():
    for name in ("sdpa", "eager", "recording", "flash_attention_2"):
        with pytest.raises(InputError, match="exists already"):
            register(name, Dense())
