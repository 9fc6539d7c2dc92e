"""What the experiments share: sentences, vocabularies, word vectors and the encoder, read once for all cells of a process."""

import json
import os
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer

from common.configuration import Parameters
from common.data.aspects import Instance, Split, load_instances
from common.errors import DataError
from common.language_models.sentence_encoder import SentenceTokenizer, load_encoder, load_tokenizer
from papers.absa.sentences import Sentences, piece_sentences, vocabulary_of, word_sentences

if TYPE_CHECKING:
    from transformers import BertModel

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
MINILM = "minilm"


class Sizes(Parameters):
    """How many instances of each split are read, the first ones; 0 is all."""

    train: int
    validation: int
    test: int


@dataclass(frozen=True)
class Subject:
    """A data set as tensors.

    Attributes:
        instances: by split.
        sentences: by split, on the device.
        names: name of each id.
    """

    instances: dict[Split, list[Instance]]
    sentences: dict[Split, Sentences]
    names: list[str]


@lru_cache(maxsize=4)
def instances_of(data_set: str, split: Split, count: int) -> list[Instance]:
    """The first `count` instances of a split; 0 is all. Raises DataError as `load_instances`."""
    found = load_instances(data_set, split)
    return found[:count] if count else found


def all_instances(data_set: str, sizes: Sizes) -> dict[Split, list[Instance]]:
    """The instances of all splits."""
    return {split: instances_of(data_set, split, getattr(sizes, split)) for split in SPLITS}


def vocabulary(data_set: str, sizes: Sizes) -> list[str]:
    """The words of all splits."""
    return vocabulary_of([instance for found in all_instances(data_set, sizes).values() for instance in found])


def subject_of_words(data_set: str, sizes: Sizes, longest: int, device: str) -> Subject:
    """A data set in words; id 0 is padding."""
    instances, words = all_instances(data_set, sizes), vocabulary(data_set, sizes)
    sentences: dict[Split, Sentences] = {
        split: word_sentences(found, words, longest=longest).to(device) for split, found in instances.items()
    }
    return Subject(instances, sentences, ["", *words])


def subject_of_pieces(data_set: str, sizes: Sizes, longest: int, device: str, encoder: str) -> Subject:
    """A data set in the word pieces of an encoder."""
    instances, tokenizer = all_instances(data_set, sizes), tokenizer_of(encoder)
    sentences: dict[Split, Sentences] = {
        split: piece_sentences(found, tokenizer, longest=longest).to(device) for split, found in instances.items()
    }
    count = tokenizer.tokenizer.get_vocab_size()
    return Subject(instances, sentences, [tokenizer.tokenizer.id_to_token(number) or "" for number in range(count)])


@lru_cache(maxsize=1)
def tokenizer_of(encoder: str) -> SentenceTokenizer:
    """The tokenizer of `minilm`, or of an encoder in a folder below $REATTEND_DATA.

    Raises:
        DataError: it cannot be had.
    """
    if encoder == MINILM:
        return load_tokenizer()
    tokenizer = Tokenizer.from_file(str(_file_of(encoder, "tokenizer.json")))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    words = tokenizer.get_vocab()
    return SentenceTokenizer(tokenizer, words["[CLS]"], words["[SEP]"], words["[PAD]"])


def fresh_encoder(encoder: str) -> "BertModel":
    """`minilm`, or the BERT in a folder below $REATTEND_DATA, as it was pretrained, on the CPU.

    Raises:
        DataError: it cannot be had.
    """
    return deepcopy(_pretrained(encoder))


@lru_cache(maxsize=1)
def _pretrained(encoder: str) -> "BertModel":
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel

    if encoder == MINILM:
        return load_encoder("cpu")
    config = BertConfig(**json.loads(_file_of(encoder, "config.json").read_text(encoding="utf-8")))
    network = BertModel(config, add_pooling_layer=False)
    state = {name.removeprefix("bert."): value for name, value in load_file(_file_of(encoder, "model.safetensors")).items()}
    wanted = set(network.state_dict()) - {"embeddings.position_ids"}
    if wanted - set(state):
        raise DataError(
            f"{_file_of(encoder, 'model.safetensors')} lacks {sorted(wanted - set(state))[:3]}: is it a BERT of transformers?"
        )
    network.load_state_dict({name: state[name] for name in wanted}, strict=False)
    return network.eval()


def _file_of(encoder: str, name: str) -> Path:
    folder = os.environ.get("REATTEND_DATA")
    path = Path(folder or ".") / encoder / name
    if not folder or not path.is_file():
        raise DataError(
            f"The encoder {encoder!r} has no {name} at {path}. Put config.json, tokenizer.json and model.safetensors of a BERT "
            f"(for the paper: bert-large-uncased) into $REATTEND_DATA/{encoder}/."
        )
    return path


def free_memory(device: str) -> None:
    """Give memory of finished trainings back to the device."""
    if device == "cuda":
        torch.cuda.empty_cache()
