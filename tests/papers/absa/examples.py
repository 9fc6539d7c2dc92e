"""Sentences and networks that the tests of this paper share."""

import random

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel

from common.data.aspects import POLARITIES, Instance
from common.language_models.sentence_encoder import SentenceTokenizer

GOOD, BAD, PLAIN = ("good", "great"), ("bad", "awful"), ("the", "was", "and", "here", "we", "had")
THINGS = ("food", "service", "place")


def reviews(count: int, seed: int = 0) -> list[Instance]:
    """Sentences whose polarity is that of the one sentiment word, neutral where there is none."""
    draw = random.Random(seed)
    found = []
    for number in range(count):
        polarity = POLARITIES[number % 3]
        words = draw.choices(PLAIN, k=draw.randint(2, 6))
        if polarity != "neutral":
            words.insert(draw.randint(0, len(words)), draw.choice(GOOD if polarity == "positive" else BAD))
        place = draw.randint(0, len(words))
        target = draw.sample(THINGS, draw.randint(1, 2))
        words[place:place] = target
        found.append(Instance(tuple(words), place, place + len(target), polarity))
    return found


def tiny_tokenizer() -> SentenceTokenizer:
    """Word pieces: "food" is "foo" and "##d"."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "foo", "##d", *GOOD, *BAD, *PLAIN, "service", "place"]
    tokenizer = Tokenizer(WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    return SentenceTokenizer(tokenizer, 2, 3, 0)


def tiny_encoder() -> BertModel:
    """A random BERT with two layers."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=32, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=32,
    )  # fmt: skip
    return BertModel(config, add_pooling_layer=False).eval()
