"""The hierarchical BiLSTM of Koshorek et al. (NAACL 2018, arXiv 1803.09337): the supervised baseline of the field.

    words of a sentence  -> frozen word vectors -> 2-layer BiLSTM, hidden 256 -> maximum over words: e_i
    e_1 .. e_n           -> 2-layer BiLSTM, hidden 256 -> linear: does a segment end after sentence i?

Trained by cross entropy on all sentences of a document but the last.
"""

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from common.data.segmentation import Document
from common.errors import InputError
from papers.topic_segmentation.word_vectors import WordVectors

_WORD = re.compile(r"\w+|[^\w\s]")
PADDING, UNKNOWN = 0, 1


def all_words_of(sentence: str, most: int) -> list[str]:
    """Lower-case words and punctuation marks, at most `most`."""
    return _WORD.findall(sentence.lower())[:most]


def word_ids(document: Document, words: WordVectors, most: int) -> list[Tensor]:
    """The words of each sentence as int64 [words], at least one; 0 is padding, 1 an unknown word."""
    found = [[words.index.get(word, -1) + 2 for word in all_words_of(sentence, most)] for sentence in document.sentences]
    return [torch.tensor(ids or [UNKNOWN]) for ids in found]


class HierarchicalBiLSTM(nn.Module):
    """See the module's text.

    Args:
        words: vectors of size d, which stay as they are; padding and unknown words are zeros.
        hidden: of each direction.
    """

    def __init__(self, words: WordVectors, hidden: int = 256):
        super().__init__()
        vectors = torch.from_numpy(words.vectors).float()
        self.words = nn.Embedding.from_pretrained(torch.cat([torch.zeros(2, vectors.shape[1]), vectors]), freeze=True)
        self.over_words = nn.LSTM(vectors.shape[1], hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.over_sentences = nn.LSTM(2 * hidden, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.boundary = nn.Linear(2 * hidden, 2)

    def forward(self, documents: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Logits [n, 2] of each document from the word ids of its sentences; class 1 ends a segment.

        Raises:
            InputError: there are no documents, or one has no sentences.
        """
        if not documents or not all(documents):
            raise InputError("The batch has no documents, or a document has no sentences; leave empty ones out.")
        device = self.boundary.weight.device
        sentences = [sentence for document in documents for sentence in document]
        lengths = torch.tensor([len(sentence) for sentence in sentences])
        vectors = self.words(pad_sequence(sentences, batch_first=True).to(device))
        states = _lstm(self.over_words, vectors, lengths)
        beyond = torch.arange(states.shape[1])[None] >= lengths[:, None]
        best = states.masked_fill(beyond.to(device)[..., None], -torch.inf).amax(dim=1)
        counts = [len(document) for document in documents]
        states = _lstm(self.over_sentences, pad_sequence(list(best.split(counts)), batch_first=True), torch.tensor(counts))
        return [self.boundary(row[:count]) for row, count in zip(states, counts, strict=True)]


def _lstm(network: nn.LSTM, inputs: Tensor, lengths: Tensor) -> Tensor:
    packed = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(network(packed)[0], batch_first=True)[0]


def ends_of(document: Document) -> Tensor:
    """Whether a segment ends after each sentence but the last: int64 [n - 1]."""
    ends = torch.zeros(len(document.sentences), dtype=torch.int64)
    ends[torch.tensor(document.segments).cumsum(0) - 1] = 1
    return ends[:-1]


def boundary_loss(model: HierarchicalBiLSTM, documents: Sequence[tuple[Sequence[Tensor], Tensor]]) -> Tensor:
    """Mean cross entropy over all sentences of a batch but the last of each document; 0 where there are none."""
    logits = torch.cat([found[:-1] for found in model([words for words, _ in documents])]).float()
    ends = torch.cat([ends for _, ends in documents]).to(logits.device)
    return cross_entropy(logits, ends, reduction="sum") / max(len(ends), 1)
