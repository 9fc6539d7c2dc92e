"""A transformer with attention from the target to its context (the BERT model of Su et al., AIJ 2021).

    X = encoder(sentence),   β = softmax_{i ∈ target} (w · X_i),   t = Σ_i β_i X_i
    α = softmax_{i ∈ context} (X_i · t / √d),   logits = W (t + Σ_i α_i X_i) + b

The encoder is BERT's, with a leading replica dimension, so that seeds and variants are fine-tuned side by side. Its input
embeddings stay as they were pretrained. The context has no special and no target pieces. An erased piece gets padding's id,
stays in the encoder's own attention as in the official code, and gets no α.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from common.data.aspects import POLARITIES
from papers.absa.progressive_attention import masked_softmax
from papers.absa.replicas import AspectNetwork, Attended, Represented, affine
from papers.absa.sentences import Batch

if TYPE_CHECKING:
    from transformers import BertModel

HEAD_DEVIATION = 0.02
"""w and W are normal with this standard deviation, as BERT's own weights are."""


class AspectTransformer(AspectNetwork):
    """R transformers of one pretrained encoder.

    Args:
        encoder: BERT, whose parameters every replica starts from; not changed.
        seeds: see `AspectNetwork`.
        copies: see `AspectNetwork`.
        dropout: of attention probabilities, sublayers' outputs and the feature.
    """

    def __init__(self, encoder: "BertModel", *, seeds: Sequence[int], copies: int = 1, dropout: float = 0.1):
        super().__init__(seeds, copies)
        config = encoder.config
        self.dropout, self.heads, self.epsilon = dropout, config.num_attention_heads, config.layer_norm_eps
        self.embeddings = encoder.embeddings.requires_grad_(False)
        self.embeddings.eval()
        self.layers = nn.ModuleList()
        state = encoder.state_dict()
        for number in range(config.num_hidden_layers):

            def part(name: str, number: int = number) -> Tensor:
                value = state[f"encoder.layer.{number}.{name}"]
                return value.T if value.ndim == 2 else value  # a linear layer of PyTorch holds W transposed

            own = [f"attention.self.{name}" for name in ("query", "key", "value")]
            parts = {
                "W_qkv": torch.cat([part(f"{name}.weight") for name in own], dim=1),
                "b_qkv": torch.cat([part(f"{name}.bias") for name in own]),
                "W_o": part("attention.output.dense.weight"),
                "b_o": part("attention.output.dense.bias"),
                "gain_1": part("attention.output.LayerNorm.weight"),
                "bias_1": part("attention.output.LayerNorm.bias"),
                "W_up": part("intermediate.dense.weight"),
                "b_up": part("intermediate.dense.bias"),
                "W_down": part("output.dense.weight"),
                "b_down": part("output.dense.bias"),
                "gain_2": part("output.LayerNorm.weight"),
                "bias_2": part("output.LayerNorm.bias"),
            }
            self.layers.append(nn.ParameterDict({name: self.same(value) for name, value in parts.items()}))
        d = config.hidden_size

        def normal(*shape: int) -> nn.Parameter:
            return self.drawn(lambda generator: HEAD_DEVIATION * torch.randn(*shape, generator=generator))

        self.w, self.W, self.b = normal(d, 1), normal(d, len(POLARITIES)), self.same(torch.zeros(len(POLARITIES)))

    def train(self, mode: bool = True) -> "AspectTransformer":
        """Training mode of all but the frozen embeddings."""
        super().train(mode)
        self.embeddings.eval()
        return self

    def _dropped(self, x: Tensor) -> Tensor:
        return x * self.keep_mask(x, self.dropout) / (1 - self.dropout) if self.training else x

    def _normalised(self, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        plain = torch.nn.functional.layer_norm(x.float(), x.shape[-1:], eps=self.epsilon)
        return plain * gain[:, None, None] + bias[:, None, None]

    def _attention(self, x: Tensor, inside: Tensor, layer: nn.ParameterDict) -> Tensor:
        """Self-attention of all pieces: [R, B, n, d]."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(2, 3)
            for part in affine(x, layer["W_qkv"], layer["b_qkv"]).chunk(3, dim=-1)
        )
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        weights = masked_softmax(scores, inside[:, :, None, None, :].expand_as(scores))
        return affine((self._dropped(weights) @ v.float()).transpose(2, 3).flatten(3), layer["W_o"], layer["b_o"])

    def represent(self, batch: Batch) -> Represented:
        """X, the last hidden states in float32; the query is made of them."""
        replicas, count, n = batch.ids.shape
        x = self.embeddings(input_ids=batch.ids.view(-1, n)).view(replicas, count, n, -1)
        x = self._dropped(x)
        for layer in self.layers:
            assert isinstance(layer, nn.ParameterDict)
            mixed = self._dropped(self._attention(x, batch.inside, layer))
            x = self._normalised(x + mixed, layer["gain_1"], layer["bias_1"])
            up = gelu(affine(x, layer["W_up"], layer["b_up"]))
            down = self._dropped(affine(up, layer["W_down"], layer["b_down"]))
            x = self._normalised(x + down, layer["gain_2"], layer["bias_2"])
        return Represented(x, None)

    def attend(self, represented: Represented, batch: Batch) -> Attended:
        """See the module's equations."""
        X = represented.X
        beta = masked_softmax(affine(X, self.w)[..., 0], batch.target)
        t = (beta[..., None, :] @ X)[..., 0, :]
        alpha = masked_softmax((X @ t[..., None])[..., 0] / math.sqrt(X.shape[-1]), batch.context)
        feature = t + (alpha[..., None, :] @ X)[..., 0, :]
        return Attended(alpha, affine(self._dropped(feature), self.W, self.b).float())
