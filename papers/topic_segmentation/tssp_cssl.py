"""Sentence labelling on a long-document encoder with TSSP and CSSL (Yu et al., EMNLP 2023, arXiv 2310.11772).

A window of a document is [CLS] and then, for each sentence, a marker and its tokens. The hidden state at the marker, h_i,
stands for sentence i; a linear layer says whether sentence i ends a topic. Where paragraphs are known, a topic ends with a
paragraph: only last sentences of paragraphs are labelled, and only they can be predicted, as in the official code.

    L = L_TS(original) + [L_TS(augmented)] + [w_tssp L_TSSP(augmented)] + [w_cssl L_CSSL(original)]

TSSP, topic-aware sentence structure prediction: in an augmented document (topics shuffled and partly replaced, sentences within
a topic shuffled but the last), classify how each sentence relates to the one before. CSSL, contrastive semantic similarity
learning: sentences of one topic lie closer than those of the next.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torch.nn.utils.rnn import pad_sequence

from common.data.segmentation import Document
from common.errors import InputError
from common.language_models.sentence_encoder import SentenceTokenizer
from papers.topic_segmentation.fine_tuning import in_batches

IGNORED = -100
ENDS_TOPIC, GOES_ON = 0, 1
FOLLOWS, SAME_TOPIC, STARTS_TOPIC = 0, 1, 2
POSITIVES, NEGATIVES, TEMPERATURE = 1, 3, 0.1


@dataclass(frozen=True)
class DocumentPieces:
    """A document as the method reads it: original or augmented.

    Attributes:
        pieces: word pieces of each sentence.
        topic: number of the topic of each sentence, rising.
        relation: TSSP class of each sentence; IGNORED for the first.
        may_end: whether a sentence may end a topic: the last of each paragraph, or all where paragraphs are unknown.
    """

    pieces: tuple[list[int], ...]
    topic: tuple[int, ...]
    relation: tuple[int, ...]
    may_end: tuple[bool, ...]


@dataclass(frozen=True)
class Window:
    """A part of a document that fits the encoder.

    Attributes:
        ids: token ids.
        markers: place of each sentence's marker in `ids`.
        first: number of the first sentence in its document.
        labels: ENDS_TOPIC, GOES_ON, or IGNORED for each sentence (one that cannot end a topic, and the window's last).
        relations: TSSP class of each sentence, or IGNORED.
    """

    ids: list[int]
    markers: list[int]
    first: int
    labels: list[int]
    relations: list[int]


def original(document: Document, tokenizer: SentenceTokenizer, longest: int) -> DocumentPieces:
    """A document as it is; sentences are cut to `longest` pieces, so that two always fit a window."""
    topic = tuple(number for number, length in enumerate(document.segments) for _ in range(length))
    relation = tuple(IGNORED if i == 0 else FOLLOWS if topic[i] == topic[i - 1] else STARTS_TOPIC for i in range(len(topic)))
    if document.paragraphs is None:
        may_end = (True,) * len(topic)
    else:
        may_end = tuple(place == length - 1 for length in document.paragraphs for place in range(length))
    return DocumentPieces(tuple(tokenizer.pieces(document.sentences, longest)), topic, relation, may_end)


def augmented(sequences: Sequence[DocumentPieces], number: int, generator: np.random.Generator) -> DocumentPieces:
    """The augmented form of one of several documents.

    1. its topics are shuffled; 2. with probability 1/2, each of them is replaced with probability 1/2 by a random topic of
    another document; 3. within each topic all sentences but the last are shuffled. Relations refer to the order after step 2;
    a sentence that ended a paragraph is labelled wherever it goes.

    Args:
        sequences: original documents.
        number: which of them.
        generator: of all draws.
    """
    topics = _topics(sequences[number])
    topics = [topics[i] for i in generator.permutation(len(topics))]
    if len(sequences) > 1 and generator.random() < 0.5:
        for i in range(len(topics)):
            if generator.random() < 0.5:
                other = int(generator.integers(len(sequences) - 1))
                candidates = _topics(sequences[other + (other >= number)])
                topics[i] = candidates[int(generator.integers(len(candidates)))]
    pieces, topic, relation, may_end = [], [], [], []
    for place, sentences in enumerate(topics):
        order = [*generator.permutation(len(sentences) - 1).tolist(), len(sentences) - 1]
        for position, i in enumerate(order):
            starts = position == 0
            relation.append(STARTS_TOPIC if starts else FOLLOWS if i == order[position - 1] + 1 else SAME_TOPIC)
            pieces.append(sentences[i][0])
            may_end.append(sentences[i][1])
            topic.append(place)
    return DocumentPieces(tuple(pieces), tuple(topic), (IGNORED, *relation[1:]), tuple(may_end))


def _topics(sequence: DocumentPieces) -> list[list[tuple[list[int], bool]]]:
    """The sentences of each topic, and whether each may end one."""
    found: list[list[tuple[list[int], bool]]] = []
    previous = None
    for pieces, topic, may_end in zip(sequence.pieces, sequence.topic, sequence.may_end, strict=True):
        if topic != previous:
            found.append([])
        found[-1].append((pieces, may_end))
        previous = topic
    return found


def windows_of(sequence: DocumentPieces, tokenizer: SentenceTokenizer, longest: int) -> list[Window]:
    """Cut a document into windows; each starts with the last sentence of the one before, which is labelled only there.

    The last sentence of the document has no label.

    Args:
        sequence: original or augmented.
        tokenizer: [CLS] begins a window and is the marker of sentences.
        longest: tokens of a window.

    Raises:
        InputError: two sentences do not fit a window.
    """
    sizes = [len(pieces) + 1 for pieces in sequence.pieces]
    n = len(sizes)
    windows, first = [], 0
    while True:
        end, used = first, 1
        while end < n and used + sizes[end] <= longest:
            used += sizes[end]
            end += 1
        if end - first < min(2, n):
            raise InputError(
                f"Sentences of {sizes[first : first + 2]} tokens do not fit a window of {longest}; cut them shorter."
            )
        ids, markers = [tokenizer.start], []
        for pieces in sequence.pieces[first:end]:
            markers.append(len(ids))
            ids += [tokenizer.start, *pieces]
        ends_topic = [i + 1 < n and sequence.topic[i] != sequence.topic[i + 1] for i in range(first, end)]
        labels = [ENDS_TOPIC if ends else GOES_ON for ends in ends_topic]
        labels = [label if sequence.may_end[i] else IGNORED for i, label in enumerate(labels, start=first)]
        labels[-1] = IGNORED  # of the next window, or the last of the document
        relations = [IGNORED, *sequence.relation[first + 1 : end]]
        windows.append(Window(ids, markers, first, labels, relations))
        if end >= n:
            return windows
        first = end - 1


@dataclass(frozen=True)
class WindowBatch:
    """Windows of a step.

    Attributes:
        ids: int64 [B, L], padded.
        mask: bool [B, L]: no padding.
        markers: int64 [S, 2]: window and place of every sentence's marker, in order.
        labels: int64 [S].
        relations: int64 [S].
    """

    ids: Tensor
    mask: Tensor
    markers: Tensor
    labels: Tensor
    relations: Tensor


def collate(windows: Sequence[Window], device: str | torch.device) -> WindowBatch:
    """Windows as tensors on a device."""
    ids = [torch.tensor(window.ids) for window in windows]
    mask = pad_sequence([torch.ones(len(row), dtype=torch.bool) for row in ids], batch_first=True)
    markers = torch.tensor([(number, place) for number, window in enumerate(windows) for place in window.markers])
    labels = torch.tensor([label for window in windows for label in window.labels])
    relations = torch.tensor([relation for window in windows for relation in window.relations])
    parts = (pad_sequence(ids, batch_first=True), mask, markers, labels, relations)
    return WindowBatch(*(part.to(device) for part in parts))


class CoherenceModel(nn.Module):
    """The encoder with the two linear layers on sentence states.

    Args:
        encoder: a BERT of hidden size d.
        dropout: before the layers.
    """

    def __init__(self, encoder: nn.Module, dropout: float = 0.1):
        super().__init__()
        self.encoder = encoder
        size = int(encoder.config.hidden_size)  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
        self.dropout = nn.Dropout(dropout)
        self.boundary = nn.Linear(size, 2)
        self.relation = nn.Linear(size, 3)

    def states(self, batch: WindowBatch) -> Tensor:
        """States h of all sentences of a batch after dropout: float [S, d]."""
        hidden = self.encoder(input_ids=batch.ids, attention_mask=batch.mask.long()).last_hidden_state
        return self.dropout(hidden)[batch.markers[:, 0], batch.markers[:, 1]]


def mean_cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    """Mean over the rows that are not IGNORED; 0 where all are, since the mean of nothing is not a number."""
    total = cross_entropy(logits.float(), classes, ignore_index=IGNORED, reduction="sum")
    return total / (classes != IGNORED).sum().clamp(min=1)


def contrast_pairs(topics: Sequence[int], generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """For every sentence of a batch one positive and three negatives, as the official code chooses them.

    Positive: the sentence before in the same topic; for the first of a topic a random one of it but the last, or itself where
    it is alone. Negatives: the next three sentences after the topic's end; where there are fewer, random ones of those behind
    the topic in place of the missing; where there are none, random ones of the first topic.

    Args:
        topics: number of the topic of each sentence, rising, at least two different.
        generator: of random choices.

    Returns:
        int64 [S, 1] and [S, 3].
    """
    topic = np.asarray(topics)
    starts = np.flatnonzero(np.r_[True, topic[1:] != topic[:-1]])
    ends = np.r_[starts[1:], len(topic)]
    positives, negatives = np.zeros((len(topic), POSITIVES), int), np.zeros((len(topic), NEGATIVES), int)
    for start, end in zip(starts, ends, strict=True):
        behind = np.arange(end, min(end + NEGATIVES, len(topic)))
        for i in range(start, end):
            positives[i] = i - 1 if i > start else generator.integers(start, max(end - 1, start + 1))
            missing = NEGATIVES - len(behind)
            span = (end, len(topic)) if len(behind) else (0, ends[0])
            negatives[i] = np.r_[behind, generator.integers(*span, size=missing)]
    return positives, negatives


def contrastive_loss(states: Tensor, topics: Sequence[int], generator: np.random.Generator) -> Tensor:
    """L_CSSL: mean over sentences of -log(Σ_pos exp(sim / τ) / Σ_{pos, neg} exp(sim / τ)), sim the cosine, τ = 0.1.

    Args:
        states: [S, d].
        topics: of each sentence.
        generator: see `contrast_pairs`.

    Returns:
        0 for fewer than three sentences or two topics.
    """
    if len(topics) < 3 or len(set(topics)) < 2:
        return states.new_zeros((), dtype=torch.float32)
    positives, negatives = (torch.from_numpy(chosen).to(states.device) for chosen in contrast_pairs(topics, generator))
    unit = normalize(states.float(), dim=1)
    similarities = (unit[:, None] * unit[torch.cat([positives, negatives], dim=1)]).sum(dim=2) / TEMPERATURE
    return (similarities.logsumexp(dim=1) - similarities[:, :POSITIVES].logsumexp(dim=1)).mean()


@dataclass(frozen=True)
class Weights:
    """Weights of the parts of the loss; 0 leaves a part out.

    Attributes:
        augmented: of boundary labelling on augmented documents.
        tssp: of TSSP.
        cssl: of CSSL.
    """

    augmented: float
    tssp: float
    cssl: float


@dataclass(frozen=True)
class Step:
    """What a step sees: windows of documents and, where a weight asks for them, of augmented documents."""

    original: WindowBatch
    augmented: WindowBatch | None


def batch_topics(labels: Tensor, markers: Tensor) -> list[int]:
    """Topics of the labelled sentences of a batch by counting boundaries; a new window is a new topic."""
    topics, topic = [], 0
    window = None
    for label, (number, _) in zip(labels.tolist(), markers.tolist(), strict=True):
        topic += int(window is not None and number != window)
        window = number
        if label != IGNORED:
            topics.append(topic)
            topic += int(label == ENDS_TOPIC)
    return topics


def coherence_loss(model: CoherenceModel, step: Step, weights: Weights, generator: np.random.Generator) -> Tensor:
    """L of the module's text on one step."""
    states = model.states(step.original)
    total = mean_cross_entropy(model.boundary(states), step.original.labels)
    if weights.cssl:
        labelled = step.original.labels != IGNORED
        topics = batch_topics(step.original.labels.cpu(), step.original.markers.cpu())
        total = total + weights.cssl * contrastive_loss(states[labelled], topics, generator)
    if step.augmented is not None:
        states = model.states(step.augmented)
        if weights.augmented:
            total = total + weights.augmented * mean_cross_entropy(model.boundary(states), step.augmented.labels)
        if weights.tssp:
            total = total + weights.tssp * mean_cross_entropy(model.relation(states), step.augmented.relations)
    return total


def steps_of_epoch(
    windows: Sequence[Window], augmented: Sequence[Window] | None, batch: int, seed: int, device: str
) -> Iterator[Step]:
    """One epoch: windows in random order, beside each batch as many augmented windows, also in random order.

    Raises:
        InputError: there are no windows.
    """
    if not windows:
        raise InputError("There are no windows to train on; give documents.")
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(windows))
    others = None
    if augmented is not None:
        rounds = -(-len(windows) // len(augmented))
        others = np.concatenate([generator.permutation(len(augmented)) for _ in range(rounds)])
    for part in in_batches(len(windows), batch):
        beside = None if augmented is None or others is None else collate([augmented[i] for i in others[part]], device)
        yield Step(collate([windows[i] for i in order[part]], device), beside)


@torch.inference_mode()
def boundary_probabilities(model: CoherenceModel, windows: Sequence[Window], sentences: int, device: str) -> Tensor:
    """P(ends a topic) of all sentences of one document but the last: float [sentences - 1] on the CPU, 0 where none may end.

    Args:
        model: in evaluation mode.
        windows: of the document, in order.
        sentences: of the document.
        device: of the model.
    """
    found = torch.zeros(max(sentences - 1, 0))
    for part in in_batches(len(windows), 16):
        batch = collate(windows[part], device)
        probabilities = model.boundary(model.states(batch)).float().softmax(dim=1)[:, ENDS_TOPIC].cpu()
        start = 0
        for window in windows[part]:
            labelled = len(window.labels) - 1  # the last is labelled by the next window, or is the last of the document
            may_end = torch.tensor(window.labels[:labelled]) != IGNORED
            found[window.first : window.first + labelled] = probabilities[start : start + labelled] * may_end
            start += len(window.labels)
    return found
