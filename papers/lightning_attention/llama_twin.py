"""The softmax twin: the Llama of transformers, without its wrapping, at the size of a TransNormerLLM."""

import torch
from pydantic import Field
from torch import Tensor, nn

from common.configuration import Parameters
from common.errors import InputError


class LlamaShape(Parameters):
    """Sizes of the twin.

    Attributes:
        vocabulary: number of tokens.
        width: of the hidden vectors.
        layers: number of layers.
        heads: number of heads, of queries and of keys.
        mlp_width: inner width of SwiGLU.
    """

    vocabulary: int = Field(ge=1)
    width: int = Field(ge=1)
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    mlp_width: int = Field(ge=1)


class LlamaTwin(nn.Module):
    """Llama: RMSNorm, rotary embedding, causal softmax attention by PyTorch's SDPA, SwiGLU. Float32 on the CPU.

    The layers are called as `LlamaModel.forward` calls them, save that no mask is made: while a CUDA graph is captured it would
    make one of N x N numbers, which the flash kernels do not take.

    Args:
        shape: sizes.
        seed: of the initial weights (transformers': N(0, 0.02)); the global generators are left as they were.

    Raises:
        InputError: the heads do not divide the width.
    """

    def __init__(self, shape: LlamaShape, *, seed: int):
        if shape.width % shape.heads:
            raise InputError(f"width = {shape.width} is no multiple of heads = {shape.heads}; give one that is.")
        from transformers import LlamaConfig, LlamaModel  # seconds of imports

        super().__init__()
        self.shape = shape
        config = LlamaConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.width,
            intermediate_size=shape.mlp_width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            bos_token_id=None,
            eos_token_id=None,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = LlamaModel._from_config(config, attn_implementation="sdpa")
            self.head = nn.Linear(shape.width, shape.vocabulary, bias=False)
            nn.init.normal_(self.head.weight, std=config.initializer_range)

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers."""
        return self.model.layers

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [B, N, vocabulary] of the tokens that follow each of `tokens`, int64 [B, N]."""
        x = self.model.embed_tokens(tokens)
        places = torch.arange(tokens.shape[1], device=tokens.device)[None]
        rotary = self.model.rotary_emb(x, position_ids=places)
        for layer in self.model.layers:
            x = layer(x, attention_mask=None, position_embeddings=rotary)
        return self.head(self.model.norm(x))
