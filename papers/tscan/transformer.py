"""A plain Transformer encoder over all hours (Vaswani et al., 2017), with an input embedding: what TSCAN leaves out."""

from torch import Tensor, nn

from papers.tscan.fusion import mean_over_hours
from papers.tscan.multi_head_attention import positional_encoding
from papers.tscan.temporal_spatial import Encoder, Sizes


class Transformer(nn.Module):
    """Dense(d -> width), positional encoding, encoder layers over T hours, mean over hours, dropout, dense.

    Args:
        hours: T.
        variables: d.
        outputs: logits.
        width: of a token.
        layers: how many.
        sizes: of the layers.
    """

    PE: Tensor

    def __init__(self, hours: int, variables: int, outputs: int, width: int, layers: int, sizes: Sizes):
        super().__init__()
        self.embed = nn.Linear(variables, width)
        self.layers = nn.ModuleList(Encoder(width, sizes) for _ in range(layers))
        self.drop, self.dense = nn.Dropout(sizes.dropout), nn.Linear(width, outputs)
        self.register_buffer("PE", positional_encoding(hours, width), persistent=False)

    def forward(self, X: Tensor, present: Tensor | None = None) -> Tensor:
        """X [B, T, d], present: bool [B, T] -> logits [B, outputs]."""
        x = self.embed(X) + self.PE
        mask = None if present is None else (~present).unsqueeze(-2)
        for layer in self.layers:
            x, _ = layer(x, mask)
        return self.dense(self.drop(mean_over_hours(x, present)))
