"""all-MiniLM-L6-v2: sentences to vectors, frozen with a cache on disk, or as a network to fine-tune."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from common.data.fetch import cache_folder, digests, fetch, locked
from common.errors import InputError
from common.files import whole_or_absent

if TYPE_CHECKING:
    from transformers import BertModel

MINILM = "minilm"
LONGEST = 512
"""Positions of the model, with its two special tokens."""


@dataclass(frozen=True)
class SentenceTokenizer:
    """The model's word pieces.

    Attributes:
        tokenizer: without padding or truncation.
        start: id of [CLS].
        separator: id of [SEP].
        padding: id of [PAD].
    """

    tokenizer: Tokenizer
    start: int
    separator: int
    padding: int

    def pieces(self, sentences: Sequence[str], most: int) -> list[list[int]]:
        """Ids of each sentence without special tokens, at most `most` of them."""
        encoded = self.tokenizer.encode_batch(list(sentences), add_special_tokens=False)
        return [encoding.ids[:most] for encoding in encoded]

    def batch(self, pieces: Sequence[Sequence[int]]) -> Tensor:
        """[CLS] pieces [SEP], padded at the end: int64 [sentences, longest]."""
        rows = [torch.tensor([self.start, *ids, self.separator]) for ids in pieces]
        return pad_sequence(rows, batch_first=True, padding_value=self.padding)


def load_tokenizer() -> SentenceTokenizer:
    """The tokenizer of MiniLM. Raises DataError when its file cannot be had."""
    tokenizer = Tokenizer.from_file(str(fetch(MINILM, "tokenizer.json")))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    vocabulary = tokenizer.get_vocab()
    return SentenceTokenizer(tokenizer, vocabulary["[CLS]"], vocabulary["[SEP]"], vocabulary["[PAD]"])


def load_encoder(device: str) -> "BertModel":
    """The pretrained network in float32 and evaluation mode: BERT with 6 layers, 384 dimensions, without a pooling layer.

    Raises:
        DataError: its files cannot be had.
    """
    from transformers import BertConfig, BertModel

    config = BertConfig(**json.loads(fetch(MINILM, "config.json").read_text(encoding="utf-8")))
    network = BertModel(config, add_pooling_layer=False)
    state = load_file(fetch(MINILM, "model.safetensors"))
    network.load_state_dict({name: tensor for name, tensor in state.items() if not name.startswith("pooler.")}, strict=False)
    torch.nn.Module.to(network, device)  # transformers' own `to` has no usable type
    return network.eval()


def mean_of_tokens(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean of hidden states [B, L, d] over the places where mask [B, L] is True: [B, d] in float32."""
    weights = mask.to(torch.float32)[..., None]
    return (hidden.float() * weights).sum(1) / weights.sum(1).clamp(min=1)


@torch.inference_mode()
def _encode(sentences: Sequence[str], device: str, longest: int, batch_size: int) -> Tensor:
    tokenizer, network = load_tokenizer(), load_encoder(device)
    pieces = tokenizer.pieces(sentences, longest - 2)
    order = sorted(range(len(pieces)), key=lambda number: len(pieces[number]))
    vectors = torch.zeros(len(pieces), network.config.hidden_size)
    for start in range(0, len(order), batch_size):
        numbers = order[start : start + batch_size]
        ids = tokenizer.batch([pieces[number] for number in numbers]).to(device)
        mask = ids != tokenizer.padding
        hidden = network(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        vectors[numbers] = mean_of_tokens(hidden, mask).cpu()
    return torch.nn.functional.normalize(vectors, dim=1)


def embed(sentences: Sequence[str], device: str, *, longest: int = 128, batch_size: int = 256) -> np.ndarray:
    """Sentence embeddings of the frozen model: mean over tokens, length 1. Kept on disk by a digest of the content.

    Args:
        sentences: n of them.
        device: `cpu` or `cuda`; the two keep their numbers apart.
        longest: tokens of a sentence, the two special ones included; the rest is cut off.
        batch_size: sentences at once; part of the content, since it changes the last digits.

    Returns:
        float32 [n, 384].

    Raises:
        InputError: there are no sentences, or `longest` is not in 3..512.
        DataError: the model cannot be had, or the cache cannot be written.
    """
    if not sentences:
        raise InputError("There are no sentences to embed; leave empty documents out.")
    if not 3 <= longest <= LONGEST:
        raise InputError(f"longest is {longest}; it lies in 3..{LONGEST}.")
    content = json.dumps([digests(MINILM), torch.__version__, device, longest, batch_size, list(sentences)])
    path = cache_folder() / "embeddings" / f"{hashlib.sha256(content.encode()).hexdigest()}.safetensors"
    with locked(path):
        if not path.is_file():
            with whole_or_absent(path) as temporary:
                save_file({"vectors": _encode(sentences, device, longest, batch_size)}, temporary)
    return load_file(path)["vectors"].numpy()
