"""What experiments on EmojiGround share: painted scenes with their questions, and the sentences' vectors."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from common.configuration import Parameters
from common.data.emoji_sprites import Style
from common.errors import DataError
from common.records import RecordSet
from papers.sentence_attention.emoji_ground import Scenes, Split, SpriteSet, TextMode, scenes_of, sprites_of
from papers.sentence_attention.other_gates import Text
from papers.sentence_attention.rendering import paint, target_bits

PROBES = tuple(f"Where is the {name}?" for name in ("puppy", "dog", "teapot"))
"""Sentences whose gates are compared, whatever the scenes ask."""


class Data(Parameters):
    """Which scenes.

    Attributes:
        sprites: the 723 drawings, or made-up ones.
        seed: of all scenes.
        train_scenes: how many.
        questions: of each training scene.
        test_scenes: split -> how many, one question each.
    """

    sprites: SpriteSet
    seed: int
    train_scenes: int
    questions: int
    test_scenes: dict[Split, int]

    def scenes(self, split: Split) -> Scenes:
        """Of one split. Raises DataError when the drawings cannot be had."""
        if split == "train":
            return scenes_of(self.sprites, split, self.train_scenes, self.seed, self.questions)
        return scenes_of(self.sprites, split, self.test_scenes[split], self.seed)

    def sentences(self, mode: TextMode) -> list[str]:
        """Every sentence of every split once, and the probes, in the order of the alphabet."""
        splits: list[Split] = ["train", *self.test_scenes]
        every = {sentence for split in splits for row in self.scenes(split).sentences(mode) for sentence in row}
        return sorted(every.union(PROBES if mode == "q" else ()))


def digest_of(sentences: list[str]) -> Tensor:
    """SHA-256 of a list of sentences, uint8 [32]."""
    return torch.frombuffer(bytearray(hashlib.sha256("\n".join(sentences).encode()).digest()), dtype=torch.uint8)


@dataclass(frozen=True)
class Sentences:
    """Encoded sentences on a device.

    Attributes:
        rows: sentence -> its row.
        vectors: float32 [M, E].
        tokens: float16 [M, L, E], or None.
        present: bool [M, L], or None.
    """

    rows: dict[str, int]
    vectors: Tensor
    tokens: Tensor | None
    present: Tensor | None

    def numbers(self, scenes: Scenes, mode: TextMode) -> Tensor:
        """Rows of the questions of scenes, int64 [N, Q]."""
        return torch.tensor([[self.rows[sentence] for sentence in row] for row in scenes.sentences(mode)])

    def text(self, numbers: Tensor, *, tokens: bool) -> Text:
        """The text of rows int64 [B]."""
        if not tokens or self.tokens is None or self.present is None:
            return Text(self.vectors[numbers])
        return Text(self.vectors[numbers], self.tokens[numbers].float(), self.present[numbers])


def read_sentences(earlier: RecordSet, data: Data, mode: TextMode, device: str) -> Sentences:
    """The sentences of scenes as `encoded_sentences` encoded them.

    Raises:
        DataError: they were encoded for other scenes.
    """
    sentences = data.sentences(mode)
    stored = earlier.artifact(earlier.of("encoded_sentences")[0], mode)
    if not torch.equal(stored["digest"], digest_of(sentences)):
        raise DataError(
            f"encoded_sentences holds other sentences (mode {mode!r}) than these scenes ask. "
            "Give both experiments the same `data` in config.yaml and run encoded_sentences again."
        )
    tokens = present = None
    if "tokens" in stored:
        lengths = stored["offsets"].diff()
        rows = torch.nn.utils.rnn.pad_sequence(list(stored["tokens"].split(lengths.tolist())), batch_first=True)
        tokens = rows.to(device)
        present = (torch.arange(rows.shape[1]) < lengths[:, None]).to(device)
    return Sentences(
        {sentence: row for row, sentence in enumerate(sentences)}, stored["vectors"].float().to(device), tokens, present
    )


@dataclass(frozen=True)
class Painting:
    """Scenes of a split on a device.

    Attributes:
        images: uint8 [N, 3, H, W].
        slots: uint8 [N, H, W], see `rendering.Painted`.
        targets: int64 [N, Q], one bit a slot of the mask.
    """

    images: Tensor
    slots: Tensor
    targets: Tensor


@lru_cache(maxsize=16)
def _painting(sprites: SpriteSet, split: Split, count: int, seed: int, questions: int, canvas: int, device: str) -> Painting:
    scenes = scenes_of(sprites, split, count, seed, questions)
    style: Style = "noto" if split == "style" else "twemoji"
    painted = paint(scenes, sprites_of(sprites).pixels[style], canvas, device)
    return Painting(painted.images, painted.slots, torch.from_numpy(target_bits(scenes)).to(device))


def painting_of(data: Data, split: Split, canvas: int, device: str) -> Painting:
    """The scenes of a split, painted once for all cells of a process. Raises DataError when the drawings cannot be had."""
    training = split == "train"
    count, questions = (data.train_scenes, data.questions) if training else (data.test_scenes[split], 1)
    return _painting(data.sprites, split, count, data.seed, questions, canvas, device)
