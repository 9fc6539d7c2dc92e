"""From the words of `config.yaml` to a network: an attention on layers, and a decoder."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from common.configuration import Parameters
from common.errors import InputError
from papers.gaam.decoders import ConvolutionalDecoder, LinearDecoder, picture
from papers.gaam.gaussian_attention import Exponent, GaussianAttention
from papers.gaam.gaussian_mixture import GaussianMixture
from papers.gaam.grouped_query import GroupedQueryAttention
from papers.gaam.multi_head import Axis, MultiHeadAttention, NormalisedMultiHeadAttention, ResidualMultiHeadAttention

Gate = GaussianAttention | GaussianMixture
ModelName = Literal[
    "last_layer", "layer_average", "layer_weights", "identity", "mha", "mha_bn", "mha_residual", "gaam", "mixture", "gqgaam"
]
LINEAR = {"last_layer": "last", "layer_average": "average", "layer_weights": "weighted"}


class Method(Parameters):
    """A model and what the paper or its code leaves open; other models ignore what is not theirs.

    Attributes:
        model: which. The three linear ones have no convolutions; `identity` is the decoder without attention.
        heads: of the Gaussian gate: "all" is one head on all layers (v2), "parts" is the number in `Sizes.parts` (v1).
        learned: False freezes δ and ξ.
        exponent: of the Gaussian, see `gaussian_gate`.
        normalised: the gate over layers, see `gaussian_gate`.
        gate: of gqgaam; False leaves the gate away.
        axis: of multi-head attention.
        per_query: of gqgaam: attention as in the literature, in place of the code's.
        l2: factor of an L2 term in the loss with Adam, the paper's text; 0 takes AdamW with the experiment's weight decay.
    """

    model: ModelName
    heads: Literal["all", "parts"] = "all"
    learned: bool = True
    exponent: Exponent = "width"
    normalised: bool = False
    gate: bool = True
    axis: Axis = "layers"
    per_query: bool = False
    l2: float = Field(default=0.0, ge=0)

    @property
    def mixes_samples(self) -> bool:
        """Whether a sample's output depends on the others of its batch, in evaluation too."""
        return self.model in ("mha", "mha_bn") and self.axis == "batch"


class Sizes(Parameters):
    """Widths that all methods share.

    Attributes:
        parts: heads of v1 and of the mixture: they split the layers.
        gaussians: n of the mixture.
        attention_heads: of multi-head attention.
        channels: of the decoder's hidden pictures.
        query: width, query heads, key heads, width of a head of grouped-query attention.
        query_picture: height and width of the picture of its result.
    """

    parts: int = Field(ge=1)
    gaussians: int = Field(default=4, ge=1)
    attention_heads: int = Field(default=8, ge=1)
    channels: int = Field(default=512, ge=1)
    query: tuple[int, int, int, int] = (512, 8, 2, 64)
    query_picture: tuple[int, int] = (8, 64)


class LayerNetwork(nn.Module):
    """X [..., B, N, d] to logits [..., B, classes].

    Args:
        attention: on X; None leaves X as it is.
        decoder: on the result.
        gate: the part of `attention` that is a Gaussian gate.
    """

    def __init__(self, attention: nn.Module | None, decoder: nn.Module, gate: Gate | None = None):
        super().__init__()
        self.attention = attention if attention is not None else nn.Identity()
        self.decoder = decoder
        self._gate = (gate,)  # in a tuple: its parameters are those of `attention`

    def forward(self, X: Tensor, *, want_gate: bool = False) -> Tensor:
        """Logits, or the gate DA [..., B, N, d] for `want_gate`."""
        if want_gate:
            (gate,) = self._gate
            if gate is None:
                raise InputError("This network has no Gaussian gate.")
            return gate.gate(X)
        return self.decoder(self.attention(X))


def make_network(method: Method, sizes: Sizes, N: int, d: int, classes: int) -> LayerNetwork:
    """A network with parameters drawn from torch's generator.

    Args:
        method: which.
        sizes: of its parts.
        N: layers of the encoder.
        d: their width.
        classes: of the result.

    Raises:
        InputError: heads do not fit layers or features.
    """
    name = method.model
    if name in LINEAR:
        return LayerNetwork(None, LinearDecoder(N, d, classes, LINEAR[name]))
    gate: Gate | None = None
    attention: nn.Module | None = None
    shape = picture(d)
    if name == "mha":
        attention = MultiHeadAttention(d, sizes.attention_heads, method.axis)
    elif name == "mha_bn":
        attention = NormalisedMultiHeadAttention(d, sizes.attention_heads, N, method.axis)
    elif name == "mha_residual":
        attention = ResidualMultiHeadAttention(d, sizes.attention_heads)
    elif name == "mixture":
        attention = gate = GaussianMixture(sizes.parts, sizes.gaussians)
    elif name in ("gaam", "gqgaam"):
        g = 1 if method.heads == "all" else sizes.parts
        if g < 1 or N % g or N // g < 2:
            raise InputError(f"parts = {g} heads do not split {N} layers into equal parts of at least two.")
        gate = GaussianAttention(g, d, learned=method.learned, exponent=method.exponent, normalised=method.normalised)
        attention = gate
        if name == "gqgaam":
            query = GroupedQueryAttention(d, *sizes.query, per_query=method.per_query)
            if not method.gate:
                gate = None
            attention = nn.Sequential(gate, query) if gate is not None else query
            shape = sizes.query_picture
    return LayerNetwork(attention, ConvolutionalDecoder(N, shape, sizes.channels, classes), gate)


def parameter_counts(network: LayerNetwork) -> dict[str, int]:
    """Learned numbers: of the attention, of the decoder without its last linear layer, of that layer, and of the gate alone."""

    def count(module: nn.Module) -> int:
        return sum(x.numel() for x in module.parameters())

    classifier = network.decoder.get_submodule("classifier")
    (gate,) = network._gate
    return {
        "attention": count(network.attention),
        "decoder": count(network.decoder) - count(classifier),
        "classifier": count(classifier),
        "gate": 0 if gate is None else count(gate),
    }


def initial_networks(method: Method, sizes: Sizes, N: int, d: int, classes: int, seeds: list[int]) -> list[LayerNetwork]:
    """One network a seed; the global generator is left as it was."""
    networks = []
    with torch.random.fork_rng([]):
        for seed in seeds:
            torch.manual_seed(seed)
            networks.append(make_network(method, sizes, N, d, classes))
    return networks
