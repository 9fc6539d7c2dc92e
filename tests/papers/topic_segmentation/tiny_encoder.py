"""A random encoder of one layer with a tokenizer of a few words: the neural methods without any download."""

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel

from common.data.segmentation import Document
from common.language_models.sentence_encoder import SentenceTokenizer

TOPICS = {"cats": "cat purr mouse tail", "stars": "star sun light sky", "laws": "law court judge bail"}
WORDS = [word for words in TOPICS.values() for word in words.split()]


def tiny_tokenizer():
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    return SentenceTokenizer(tokenizer, vocabulary["[CLS]"], vocabulary["[SEP]"], vocabulary["[PAD]"])


def tiny_encoder(device="cpu", layers=1):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=4 + len(WORDS), hidden_size=32, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=64
    )
    encoder = BertModel(config, add_pooling_layer=False)
    torch.nn.Module.to(encoder, device)
    return encoder.eval()


def documents(count, seed=0, labelled=True):
    """Documents of three or more short sections, neighbours about different topics; a sentence has two words of its topic."""
    generator = torch.Generator().manual_seed(seed)

    def draw(limit):
        return int(torch.randint(limit, (), generator=generator))

    found = []
    for number in range(count):
        sentences, segments, labels = [], [], []
        for _ in range(3 + draw(3)):
            label = [name for name in TOPICS if not labels or name != labels[-1]][draw(2 if labels else 3)]
            words = TOPICS[label].split()
            segments.append(2 + draw(3))
            labels.append(label)
            sentences += [f"{words[draw(4)]} {words[draw(4)]}" for _ in range(segments[-1])]
        paragraphs = tuple(part for length in segments for part in ((1,) * length))
        found.append(Document(str(number), tuple(sentences), tuple(segments), tuple(labels) if labelled else None, paragraphs))
    return found
