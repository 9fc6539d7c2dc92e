"""TransNormerLLM (TNL), the language model of Lightning Attention ("B": arXiv 2405.17381, Section 4).

    X <- X + GLA(SRMSNorm(X)),    X <- X + SGLU(SRMSNorm(X))                                              L times
    GLA:   Q = φ(X W_q), K = φ(X W_k), V = X W_v, U = X W_u;   O = (SRMSNorm(attention(Q, K, V)) ⊙ U) W_o
    SGLU:  O = [(X W_v) ⊙ (X W_u)] W_o
    attention, a head with slope s >= 0 and λ = exp(-s):   o_t = Σ_{r <= t} λ^{t-r} (q_t · k_r) v_r

The attention itself is the kernel of Lightning Attention-2 ("A": arXiv 2401.04658), `common.kernels.lightning_attention`: no
softmax, no 1/√d, no denominator. Read token by token it has a state of d x d numbers a head, whatever the length.

| left open or said twice | paper | released code | here |
|---|---|---|---|
| slopes | B, Eq. 10: (8h/H)(1 - l/L), "linear" | 2^(-8(h+1)/H)(1 - l/(L-1) + 1e-5), "geometric" | geometric; both at hand |
| head index of Eq. 10 | not given | h + 1 in the geometric form | 0, ..., H - 1: head 0 never decays |
| activation of V and U | none | none | none |
| scope of the norm after attention | "Norm" | all heads together | all heads together |
| ε of SRMSNorm | none | inside the root, 1e-6 | 1e-6 |
| initial weights | not given | N(0, 0.02) | N(0, 0.02) |
| θ of LRPE | learnable | 10000^(-2j/(H d)), j = 0, ..., H d - 1 | as the code |

This file is the method alone: it can be lifted out, with the kernel, and used as it is.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import elu, rms_norm, silu

from common.configuration import Parameters
from common.errors import InputError
from common.kernels.lightning_attention import lightning_attention, lightning_attention_recurrent

Slopes = Literal["geometric", "linear"]
Positions = Literal["mix", "lrpe_decay", "decay", "lrpe", "none"]
Norm = Literal["srms", "rms", "layer"]
Activation = Literal["swish", "elu", "none"]

EPSILON = 1e-6
INITIAL_DEVIATION = 0.02


class Shape(Parameters):
    """Sizes and variants of a TransNormerLLM; the defaults are the model that the authors trained.

    Attributes:
        vocabulary: number of tokens.
        width: d, of the hidden vectors; the heads divide it.
        layers: L.
        heads: H.
        glu_width: inner width of SGLU.
        positions: "mix" is decay everywhere and LRPE in the first layer (B, Section 4.1); "lrpe_decay" has both everywhere,
            "decay" and "lrpe" one of them, "none" neither.
        slopes: which form of the decay, see `decay_slopes`.
        temperature: whether lower layers decay faster.
        gate: whether U gates the attention.
        norm: "srms" (SRMSNorm), "rms" or "layer", the last two with learned gains.
        activation: φ of queries and keys.
        glu_activation: of one factor of SGLU; "none" is the paper's.
        attention: implementation of the attention: "auto", or "reference" for the quadratic form, which Lightning Attention-1
            computes.
    """

    vocabulary: int = Field(ge=1)
    width: int = Field(ge=1)
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    glu_width: int = Field(ge=1)
    positions: Positions = "mix"
    slopes: Slopes = "geometric"
    temperature: bool = True
    gate: bool = True
    norm: Norm = "srms"
    activation: Activation = "swish"
    glu_activation: Activation = "none"
    attention: Literal["auto", "reference"] = "auto"

    @property
    def decays(self) -> bool:
        """Whether the attention decays."""
        return self.positions in ("mix", "lrpe_decay", "decay")

    def rotates(self, layer: int) -> bool:
        """Whether layer 0..L - 1 has LRPE."""
        return self.positions in ("lrpe_decay", "lrpe") or (self.positions == "mix" and layer == 0)


def decay_slopes(heads: int, layer: int, layers: int, *, convention: Slopes = "geometric", temperature: bool = True) -> Tensor:
    """Slopes s of one layer: the attention loses the factor exp(-s) a token.

    Args:
        heads: H.
        layer: l in 0..L - 1.
        layers: L.
        convention: "geometric", of the released code: 2^(-8(h+1)/H), for H no power of two interleaved as in ALiBi, times
            1 - l/(L-1) + 1e-5. "linear", B, Eq. 10: (8h/H) times 1 - l/L.
        temperature: False leaves the factor of the layer out (B, Table 5).

    Returns:
        float32 [H].

    Raises:
        InputError: the layer is not among 0..L - 1, or the convention is unknown.
    """
    if not 0 <= layer < layers or heads < 1:
        raise InputError(f"layer = {layer} of {layers} with {heads} heads: layers count from 0, and a head is the least.")
    if convention == "linear":
        slopes, factor = [8 * h / heads for h in range(heads)], 1 - layer / layers
    elif convention == "geometric":
        slopes, factor = _alibi_slopes(heads), 1 - layer / max(layers - 1, 1) + 1e-5
    else:
        raise InputError(f"convention = {convention!r} is not known; there are 'geometric' and 'linear'.")
    return torch.tensor(slopes, dtype=torch.float64).mul(factor if temperature else 1.0).float()


def _alibi_slopes(heads: int) -> list[float]:
    """2^(-8(h+1)/H); between two powers of two every other slope of the greater one fills up those of the smaller."""
    power = 1 << (heads.bit_length() - 1)
    slopes = [2 ** (-8 * (h + 1) / power) for h in range(power)]
    between = [2 ** (-8 * (h + 1) / (2 * power)) for h in range(0, 2 * power, 2)]
    return slopes + between[: heads - power]


def srms_norm(x: Tensor) -> Tensor:
    """SRMSNorm(x) = x / (‖x‖₂ / √d) over the last dimension, without gain (B, Section 4.2)."""
    return rms_norm(x, x.shape[-1:], eps=EPSILON)


class SRMSNorm(nn.Module):
    """`srms_norm` as a module without parameters."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., d] -> [..., d]."""
        return srms_norm(x)


def _norm(name: Norm, width: int) -> nn.Module:
    if name == "srms":
        return SRMSNorm()
    return nn.RMSNorm(width, eps=EPSILON) if name == "rms" else nn.LayerNorm(width, eps=EPSILON)


def _activate(name: Activation, x: Tensor) -> Tensor:
    return silu(x) if name == "swish" else 1 + elu(x) if name == "elu" else x


class LRPE(nn.Module):
    """Linearised relative position encoding (B, Section 4.1): (q_t, k_r) -> Σ_j q_tj k_rj cos(θ_j (t - r)), θ learned.

    x_t becomes [x_t cos(θt), x_t sin(θt)], which is twice as wide.
    """

    def __init__(self, heads: int, head_dim: int):
        super().__init__()
        j = torch.arange(heads * head_dim, dtype=torch.float64)
        theta = 10000.0 ** (-2 * j / (heads * head_dim))
        self.theta = nn.Parameter(theta.float().view(heads, 1, head_dim))

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """[B, H, N, d] at positions start, start + 1, ... -> [B, H, N, 2d]; angles are float32 or wider."""
        t = torch.arange(start, start + x.shape[2], device=x.device, dtype=self.theta.dtype)
        angles = self.theta * t[:, None]
        return torch.cat([x * angles.cos(), x * angles.sin()], dim=-1).to(x.dtype)


class GatedLinearAttention(nn.Module):
    """Token mixing (B, Section 4.2)."""

    def __init__(self, shape: Shape, layer: int):
        super().__init__()
        self.shape, self.heads = shape, shape.heads
        self.project = nn.Linear(shape.width, (4 if shape.gate else 3) * shape.width, bias=False)
        self.norm = _norm(shape.norm, shape.width)
        self.out = nn.Linear(shape.width, shape.width, bias=False)
        self.lrpe = LRPE(shape.heads, shape.width // shape.heads) if shape.rotates(layer) else None
        slopes = decay_slopes(shape.heads, layer, shape.layers, convention=shape.slopes, temperature=shape.temperature)
        self.register_buffer("slopes", slopes if shape.decays else torch.zeros_like(slopes), persistent=False)

    def forward(
        self, x: Tensor, state: Tensor | None = None, start: int = 0, keep_state: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Mix tokens x [B, N, d] at positions start, ... that follow `state` [B, H, D, E].

        Returns:
            [B, N, d], and the state after the last token, None where it is not kept.
        """
        slopes = self.get_buffer("slopes")
        q, k, v, *u = self.project(x).chunk(4 if self.shape.gate else 3, dim=-1)
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in (q, k, v))
        q, k = _activate(self.shape.activation, q), _activate(self.shape.activation, k)
        if self.lrpe is not None:
            q, k = self.lrpe(q, start), self.lrpe(k, start)
        if state is not None and x.shape[1] == 1:  # a step of decoding: the recurrence is its own fastest form
            o, state = lightning_attention_recurrent(q, k, v, slopes, initial_state=state)
        else:
            o, state = lightning_attention(
                q, k, v, slopes, initial_state=state, output_final_state=keep_state, implementation=self.shape.attention
            )
        o = self.norm(o.transpose(1, 2).flatten(2))
        return self.out(o * u[0] if u else o), state


class SimpleGLU(nn.Module):
    """Channel mixing, SGLU (B, Section 4.2)."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.activation: Activation = shape.glu_activation
        self.project = nn.Linear(shape.width, 2 * shape.glu_width, bias=False)
        self.out = nn.Linear(shape.glu_width, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., d] -> [..., d]."""
        v, u = self.project(x).chunk(2, dim=-1)
        return self.out(_activate(self.activation, v) * u)


class Block(nn.Module):
    """One layer."""

    def __init__(self, shape: Shape, layer: int):
        super().__init__()
        self.attention_norm, self.attention = _norm(shape.norm, shape.width), GatedLinearAttention(shape, layer)
        self.glu_norm, self.glu = _norm(shape.norm, shape.width), SimpleGLU(shape)

    def forward(
        self, x: Tensor, state: Tensor | None = None, start: int = 0, keep_state: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """As `GatedLinearAttention.forward`."""
        mixed, state = self.attention(self.attention_norm(x), state, start, keep_state)
        x = x + mixed
        return x + self.glu(self.glu_norm(x)), state


@dataclass(frozen=True)
class Memory:
    """What decoding keeps of the tokens so far: its size does not depend on their number.

    Attributes:
        tokens: how many were read.
        states: S of every layer, float32 [B, H, D, E]; D is twice the head dimension in a layer with LRPE.
    """

    tokens: int
    states: tuple[Tensor, ...]

    @property
    def bytes(self) -> int:
        """Size of all states."""
        return sum(state.numel() * state.element_size() for state in self.states)


class TransNormerLLM(nn.Module):
    """The whole model, float32 on the CPU after construction.

    Args:
        shape: sizes and variants.
        seed: of the initial weights; the global generator is left as it was.

    Raises:
        InputError: the heads do not divide the width.
    """

    def __init__(self, shape: Shape, *, seed: int):
        if shape.width % shape.heads:
            raise InputError(f"width = {shape.width} is no multiple of heads = {shape.heads}; give one that is.")
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(Block(shape, layer) for layer in range(shape.layers))
        self.norm = _norm(shape.norm, shape.width)
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=False)
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=INITIAL_DEVIATION, generator=generator)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [B, N, vocabulary] of the tokens that follow each of `tokens`, int64 [B, N]."""
        x = self.embedding(tokens)
        for block in self.blocks:
            x, _ = block(x)
        return self.head(self.norm(x))

    def read(self, tokens: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory]:
        """Go on after `memory`: a prompt in one call, then a token a call, in any pieces.

        Args:
            tokens: int64 [B, N], N >= 1.
            memory: of the tokens before; None at the beginning.

        Returns:
            Logits [B, N, vocabulary], and the memory of all tokens.

        Raises:
            InputError: no tokens, or a memory of another batch size or number of layers.
        """
        if tokens.dim() != 2 or not tokens.shape[1]:
            raise InputError(f"tokens has shape {tuple(tokens.shape)}; expected [B, N] with N >= 1.")
        if memory is not None and (len(memory.states) != len(self.blocks) or len(memory.states[0]) != len(tokens)):
            raise InputError(
                f"memory has {len(memory.states)} layers and a batch of {len(memory.states[0])}; this model has "
                f"{len(self.blocks)} layers and tokens a batch of {len(tokens)}."
            )
        start, states = (0, None) if memory is None else (memory.tokens, memory.states)
        x, after = self.embedding(tokens), []
        for layer, block in enumerate(self.blocks):
            x, state = block(x, None if states is None else states[layer], start, keep_state=True)
            after.append(state)
        return self.head(self.norm(x)), Memory(start + tokens.shape[1], tuple(after))
