"""The networks by name, each in its initial state: Glorot's uniform weights and zero biases, as Keras has them."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

from common.configuration import Parameters
from common.training import derived_seed
from papers.tscan.gru_d import GRUD
from papers.tscan.lstm import LSTM
from papers.tscan.temporal_spatial import CODE, PAPER, TSCAN, Sizes, Variant
from papers.tscan.transformer import Transformer

NetworkName = Literal["tscan_paper", "tscan_code", "transformer", "lstm", "bilstm", "gru_d"]


class NetworkSizes(Parameters):
    """Widths of the networks.

    Attributes:
        E: of TSCAN's heads together.
        heads: of TSCAN.
        feed_forward: of TSCAN.
        dropout: of TSCAN.
        lstm: hidden units.
        gru_d: hidden units.
        transformer: width of a token.
        transformer_layers: layers of the Transformer; its heads and dropout are TSCAN's.
    """

    E: int
    heads: int
    feed_forward: int
    dropout: float
    lstm: int
    gru_d: int
    transformer: int
    transformer_layers: int

    @property
    def of_layers(self) -> Sizes:
        """Those of TSCAN."""
        return Sizes(self.E, self.heads, self.feed_forward, self.dropout)


def initialised(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A network with dense layers drawn by Glorot's uniform rule from a seed; the global random state stays as it was.

    Recurrent weights (`U`) keep what their class gives them.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(derived_seed(seed, "initial parameters"))
        network = make()
        for name, module in network.named_modules():
            if isinstance(module, nn.Linear):
                if not name.endswith(".U"):
                    nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    return network


def make_network(name: NetworkName, sizes: NetworkSizes, *, hours: int, variables: int, outputs: int) -> nn.Module:
    """One of the networks; its weights are to be drawn by `initialised`.

    Args:
        name: which. "gru_d" reads 3 d columns: values, observations, gaps.
        sizes: of all.
        hours: T.
        variables: d.
        outputs: logits.
    """
    if name in ("tscan_paper", "tscan_code"):
        variant = PAPER if name == "tscan_paper" else CODE
        return make_tscan(variant, sizes, hours=hours, variables=variables, outputs=outputs)
    if name == "transformer":
        return Transformer(hours, variables, outputs, sizes.transformer, sizes.transformer_layers, sizes.of_layers)
    if name == "gru_d":
        return GRUD(variables, outputs, sizes.gru_d, sizes.dropout)
    return LSTM(variables, outputs, sizes.lstm, sizes.dropout, both_directions=name == "bilstm")


def make_tscan(variant: Variant, sizes: NetworkSizes, *, hours: int, variables: int, outputs: int) -> TSCAN:
    """TSCAN in any variant."""
    return TSCAN(hours, variables, outputs, sizes.of_layers, variant)
