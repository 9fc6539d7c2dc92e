"""A tiny random language model, texts without files, and selectors whose selections are known by hand."""

from dataclasses import dataclass

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from common.experiment import Context
from common.language_models import LanguageModel
from common.sparse_attention import Selection

BLOCK = 16
VOCABULARY = 260


@dataclass(frozen=True)
class Nearest:
    """The nearest blocks, the own one among them."""

    blocks: int
    name: str = "nearest"

    def select(self, q, k):
        B, H, N, _ = q.shape
        T = -(-N // BLOCK)
        distance = torch.arange(T)[:, None] - torch.arange(T)
        return Selection(((distance < self.blocks) & (distance >= 0)).expand(B, H, T, T), BLOCK, BLOCK)


class EveryOtherKey:
    """A selection that is no block mask: keys at an even distance from the query."""

    def __init__(self, q):
        self.B, self.H, self.N, _ = q.shape
        self.checked = 0
        distance = torch.arange(self.N)[:, None] - torch.arange(self.N)
        self.visible = distance >= 0
        self.read = self.visible & (distance % 2 == 0)

    def density(self):
        share = self.read.sum().double() / (self.N * (self.N + 1) / 2)
        return share.expand(self.B, self.H)

    def _weights(self, q, k, visible, scale):
        keys = k.repeat_interleave(self.H // k.shape[1], 1)
        logits = q.double() @ keys.double().mT * (q.shape[-1] ** -0.5 if scale is None else scale)
        return logits.masked_fill(~visible, float("-inf")).softmax(-1)

    def coverage(self, q, k):
        return self._weights(q, k, self.visible, None).masked_fill(~self.read, 0).sum(-1).mean(-1)

    def attend(self, q, k, v, *, scale=None):
        values = v.repeat_interleave(self.H // v.shape[1], 1)
        return (self._weights(q, k, self.read, scale) @ values.double()).to(q.dtype)

    def check_contents(self):
        self.checked += 1


@dataclass(frozen=True)
class Strided:
    """A selector of `EveryOtherKey`."""

    name: str = "strided"

    def select(self, q, k):
        return EveryOtherKey(q)


@pytest.fixture
def families():
    return {"nearest": lambda blocks: Nearest(round(blocks)), "strided": lambda _: Strided()}


@pytest.fixture
def on_cpu():
    return Context(device="cpu", label="test")


@pytest.fixture(scope="session")
def subject():
    """Bytes as tokens, two layers, four query and two key heads of 64 dimensions."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({token: number for number, token in enumerate([*alphabet, "<bos>"])}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<bos>", clean_up_tokenization_spaces=False)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=128, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=64, max_position_embeddings=4096, initializer_range=0.3, eos_token_id=None,
        )
    ).eval()  # fmt: skip
    return LanguageModel(model, tokenizer, "tiny", "0")


@pytest.fixture
def subject_settings():
    return {"model": "tiny", "dtype": "float32", "rope_theta": 1e4, "trained_length": 4096}


@pytest.fixture
def rows_of():
    def rows_of(measurement, metric, method=None):
        return [row for row in measurement.rows if row.metric == metric and method in (None, row.method)]

    return rows_of
