"""OAT, the object-level attention transformer (Fang et al., ECCV 2024, arXiv 2407.13335; layers as in the official code).

A scene is N objects on a grid and a copy of the target at the end, S = N + 1 tokens. The encoder reads
F_e = concat(appearance, PE); the decoder reads the fixations so far, F_d = concat(appearance, PE) + place in the sequence, and
points at the encoder's tokens. To point at the target's copy (index N) is to stop.

    H_e = Encoder(F_e)                        [S, D]
    H_d = Decoder(F_d, H_e)                   [T, D]
    O_h = (H_d W_d)(H_e W_e)^T / sqrt(D)      h = 1, 2
    p   = softmax(w_1 O_1 + w_2 O_2 + b)      over S objects and an empty class for padding
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from common.errors import InputError
from papers.oat.attention import MultiHeadAttention
from papers.oat.positional_encoding import encode_positions

OBJECT, TARGET, BEGIN = 0, 1, 2
"""Kinds of tokens."""


@dataclass(frozen=True)
class Sizes:
    """Widths of the network.

    Attributes:
        D: of a token; half for appearance, half for position.
        layers: of encoder and of decoder.
        heads: of their attention.
        feed_forward: inner width.
        pointers: N_c, heads of the object attention.
        dropout: in the layers.
    """

    D: int = 512
    layers: int = 4
    heads: int = 4
    feed_forward: int = 512
    pointers: int = 2
    dropout: float = 0.1


@dataclass(frozen=True)
class Variant:
    """What differs between OAT and its ablations.

    Attributes:
        head: "object", the pointer over encoder tokens, or "linear", a fixed vocabulary of cells.
        memory: what the decoder reads: the tokens of all "objects", or one for the whole "image", their mean.
        appearance: "kind": one vector for each kind of token; "identity": and one for the target image, on the target's token;
            "features": a linear layer on the objects' features.
    """

    head: Literal["object", "linear"] = "object"
    memory: Literal["objects", "image"] = "objects"
    appearance: Literal["kind", "identity", "features"] = "kind"


class Scenes(NamedTuple):
    """What is searched.

    Attributes:
        target: int64 [B], cell of the target.
        identity: int64 [B], which target image.
        features: float32 [B, N, f] of the objects, or [B, 0, 0] where there are none.
    """

    target: Tensor
    identity: Tensor
    features: Tensor


class EncoderLayer(nn.Module):
    """x = LN(x + attention(x)); x = LN(x + FFN(x))."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.attention = MultiHeadAttention(sizes.D, sizes.heads, sizes.dropout)
        self.FFN = _feed_forward(sizes)
        self.norm1, self.norm2 = nn.LayerNorm(sizes.D), nn.LayerNorm(sizes.D)
        self.drop = nn.Dropout(sizes.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, S, D]."""
        x = self.norm1(x + self.drop(self.attention(x, *self.attention.keys_values(x))))
        return self.norm2(x + self.drop(self.FFN(x)))


class DecoderLayer(nn.Module):
    """x = LN(x + self attention(x)); x = LN(x + attention(x, memory)); x = LN(x + FFN(x))."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.self_attention = MultiHeadAttention(sizes.D, sizes.heads, sizes.dropout)
        self.cross_attention = MultiHeadAttention(sizes.D, sizes.heads, sizes.dropout)
        self.FFN = _feed_forward(sizes)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(sizes.D) for _ in range(3))
        self.drop = nn.Dropout(sizes.dropout)

    def forward(self, x: Tensor, own: tuple[Tensor, Tensor], memory: tuple[Tensor, Tensor], hidden: Tensor | None) -> Tensor:
        """One layer.

        Args:
            x: [..., T, D].
            own: keys and values of the decoder's tokens so far.
            memory: keys and values of the encoder's tokens.
            hidden: which of the decoder's tokens are not seen.
        """
        x = self.norm1(x + self.drop(self.self_attention(x, *own, hidden)))
        return self.rest(x, memory)

    def rest(self, x: Tensor, memory: tuple[Tensor, Tensor]) -> Tensor:
        """What follows the self attention."""
        x = self.norm2(x + self.drop(self.cross_attention(x, *memory)))
        return self.norm3(x + self.drop(self.FFN(x)))


def _feed_forward(sizes: Sizes) -> nn.Sequential:
    inner = nn.Linear(sizes.D, sizes.feed_forward), nn.ReLU(), nn.Dropout(sizes.dropout)
    return nn.Sequential(*inner, nn.Linear(sizes.feed_forward, sizes.D))


class ObjectAttention(nn.Module):
    """The pointer head: logits over the S encoder tokens and, constant, 0 before the heads are combined, for padding."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.W_e = nn.ModuleList(nn.Linear(sizes.D, sizes.D) for _ in range(sizes.pointers))
        self.W_d = nn.ModuleList(nn.Linear(sizes.D, sizes.D) for _ in range(sizes.pointers))
        self.w = nn.Linear(sizes.pointers, 1)

    def forward(self, H_d: Tensor, H_e: Tensor) -> Tensor:
        """H_d [B, T, D] and H_e [B, S, D] give [B, T, S + 1]."""
        O = torch.stack(  # noqa: E741 (the paper's name)
            [W_d(H_d) @ W_e(H_e).transpose(-1, -2) for W_d, W_e in zip(self.W_d, self.W_e, strict=True)], dim=-1
        )
        O = torch.cat([O, torch.zeros_like(O[..., :1, :])], dim=-2) / math.sqrt(H_d.shape[-1])  # noqa: E741
        return self.w(O)[..., 0]


class OAT(nn.Module):
    """The whole network.

    Args:
        grid: rows and columns; N = rows * columns.
        sizes: widths.
        variant: OAT itself or an ablation.
        table: W of the positional encoding, frozen.
        features: of an object, for the appearance "features".
        identities: how many target images there are.
        longest: fixations of a scanpath at most.

    Raises:
        InputError: heads do not divide D, or the table does not fit the grid or D.
    """

    table: Tensor
    order: Tensor

    def __init__(
        self, grid: tuple[int, int], sizes: Sizes, variant: Variant, table: Tensor, *, longest: int, features: int = 0,
        identities: int = 1,
    ):  # fmt: skip
        super().__init__()
        if sizes.D % (2 * sizes.heads):
            raise InputError(f"D is {sizes.D} and heads {sizes.heads}; twice the heads must divide D.")
        if len(table) < max(grid) or not 2 * table.shape[1] < sizes.D // 2 <= 3 * table.shape[1]:
            raise InputError(
                f"The table is {list(table.shape)}; a grid of {grid} needs {max(grid)} rows, and three of them fill D / 2 = "
                f"{sizes.D // 2} entries."
            )
        self.grid, self.N, self.variant, self.half_width = grid, grid[0] * grid[1], variant, sizes.D // 2
        self.kinds = nn.Embedding(3, self.half_width)
        if variant.appearance == "features":
            self.appearance = nn.Linear(features, self.half_width)
        if variant.appearance == "identity":
            self.identities = nn.Embedding(identities, self.half_width)
        self.encoder = nn.ModuleList(EncoderLayer(sizes) for _ in range(sizes.layers))
        self.decoder = nn.ModuleList(DecoderLayer(sizes) for _ in range(sizes.layers))
        self.drop = nn.Dropout(sizes.dropout)
        self.head = ObjectAttention(sizes) if variant.head == "object" else nn.Linear(sizes.D, self.N + 2)
        self.register_buffer("table", table.clone(), persistent=False)
        self.register_buffer("order", sequence_encoding(longest + 1, sizes.D), persistent=False)

    @property
    def decoder_layers(self) -> list[DecoderLayer]:
        """The layers of the decoder, as what they are."""
        return [layer for layer in self.decoder if isinstance(layer, DecoderLayer)]

    @property
    def stop(self) -> int:
        """Index that ends a scanpath: N, the target's copy."""
        return self.N

    def encode(self, scenes: Scenes) -> Tensor:
        """H_e [B, S, D]."""
        cells = torch.arange(self.N, device=scenes.target.device).expand(*scenes.target.shape, -1)
        objects = self._token(cells, torch.zeros_like(cells), scenes, OBJECT)
        target = self._token(scenes.target[..., None], torch.ones_like(scenes.target[..., None]), scenes, TARGET)
        x = torch.cat([objects, target], dim=-2)
        for layer in self.encoder:
            x = layer(x)
        return x

    def memory(self, H_e: Tensor) -> list[tuple[Tensor, Tensor]]:
        """What each decoder layer reads of the encoder: keys and values."""
        read = H_e if self.variant.memory == "objects" else H_e.mean(-2, keepdim=True)
        return [layer.cross_attention.keys_values(read) for layer in self.decoder_layers]

    def tokens(self, path: Tensor, scenes: Scenes) -> Tensor:
        """F_d of BEGIN and the fixations [B, T]: [B, T + 1, D], before dropout."""
        begin = self.begin(scenes)
        flags = (path == scenes.target[..., None]).long()
        return torch.cat([begin, self._token(path, flags, scenes, OBJECT)], dim=-2) + self.order[: path.shape[-1] + 1]

    def begin(self, scenes: Scenes) -> Tensor:
        """BEGIN, which stands in the centre: [B, 1, D], without its place in the sequence."""
        rows, columns = self.grid
        centre = torch.full_like(scenes.target[..., None], (rows // 2) * columns + columns // 2)
        return self._token(centre, torch.zeros_like(centre), scenes, BEGIN)

    def fixation(self, cells: Tensor, scenes: Scenes) -> Tensor:
        """Tokens of fixations [B, T] without their place in the sequence: [B, T, D]."""
        return self._token(cells, (cells == scenes.target[..., None]).long(), scenes, OBJECT)

    def forward(self, scenes: Scenes, path: Tensor) -> Tensor:
        """Logits [B, T + 1, N + 2] of what comes after BEGIN and after each fixation, by teacher forcing.

        Args:
            scenes: B of them.
            path: int64 [B, T], cells; what lies behind the end may be any cell.
        """
        H_e = self.encode(scenes)
        x = self.drop(self.tokens(path, scenes))
        T = x.shape[-2]
        later = torch.ones(T, T, dtype=torch.bool, device=x.device).triu(1)
        for layer, memory in zip(self.decoder_layers, self.memory(H_e), strict=True):
            x = layer(x, layer.self_attention.keys_values(x), memory, later)
        return self.logits(x, H_e)

    def logits(self, H_d: Tensor, H_e: Tensor) -> Tensor:
        """The head."""
        return self.head(H_d, H_e) if self.variant.head == "object" else self.head(H_d)

    def _token(self, cells: Tensor, flags: Tensor, scenes: Scenes, kind: int) -> Tensor:
        """concat(appearance, PE) of cells [B, T]."""
        columns = self.grid[1]
        appearance = self.kinds.weight[kind].expand(*cells.shape, -1)
        if self.variant.appearance == "features" and kind != BEGIN:
            index = cells[..., None].expand(*cells.shape, scenes.features.shape[-1])
            appearance = appearance + self.appearance(scenes.features.gather(-2, index))
        if self.variant.appearance == "identity" and kind == TARGET:
            appearance = appearance + self.identities(scenes.identity)[..., None, :]
        place = encode_positions(self.table, cells // columns, cells % columns, flags, self.half_width)
        return torch.cat([appearance, place.to(appearance.dtype)], dim=-1)


def sequence_encoding(length: int, D: int) -> Tensor:
    """Sines and cosines of the place in a sequence, base 10000: float32 [length, D]."""
    frequencies = 10000.0 ** (-torch.arange(0, D, 2, dtype=torch.float64) / D)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1).float()


def initialise(network: OAT) -> OAT:
    """Glorot's uniform rule for every parameter with two dimensions or more, as in the official code; biases stay."""
    for parameter in network.parameters():
        if parameter.ndim >= 2:
            nn.init.xavier_uniform_(parameter)
    return network
