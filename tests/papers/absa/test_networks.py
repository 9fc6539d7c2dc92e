"""The three networks against their equations, written as loops in float64, and replicas against networks alone."""

import math

import numpy as np
import pytest
import torch

from common.data.aspects import Instance
from common.errors import InputError
from common.training import Recipe
from papers.absa.aspect_transformer import AspectTransformer
from papers.absa.learning import Smoothing, Supervision, attention_on, classify, fit, inspect
from papers.absa.memory_network import MemoryNetwork
from papers.absa.progressive_attention import attention_targets
from papers.absa.recurrence import lstm_states
from papers.absa.sentences import piece_sentences, vocabulary_of, word_sentences
from papers.absa.tnet_attention import TNetAttention, hard_sigmoid
from tests.papers.absa.examples import reviews, tiny_encoder, tiny_tokenizer

REVIEWS = reviews(12)
VOCABULARY = vocabulary_of(REVIEWS)
SENTENCES = word_sentences(REVIEWS, VOCABULARY, longest=20)
PIECES = piece_sentences(REVIEWS, tiny_tokenizer(), longest=20)
RECIPE = Recipe(optimiser="adam", learning_rate=0.01, batch_size=4)


def vectors(size=6):
    values = torch.randn(len(VOCABULARY) + 1, size, generator=torch.Generator().manual_seed(1))
    values[0] = 0
    return values


def blown_up(network, factor=20.0):
    """Weights far from 0, so that gates saturate and attention differs."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name not in "ABC":
                parameter.mul_(factor)
                if parameter.ndim == 2:
                    parameter.add_(0.3)
    return network.eval()


def make(kind, seeds=(0,), copies=1):
    if kind == "memory_network":
        return MemoryNetwork(vectors(), seeds=seeds, copies=copies), SENTENCES
    if kind == "tnet_attention":
        return TNetAttention(vectors(), seeds=seeds, copies=copies, hidden=3, dropout=0.3), SENTENCES
    return AspectTransformer(tiny_encoder(), seeds=seeds, copies=copies), PIECES


KINDS = ("memory_network", "tnet_attention", "transformer")


def softmax(scores):
    powers = np.exp(np.array(scores) - max(scores))
    return powers / powers.sum()


def test_the_memory_network_as_loops():
    network = blown_up(MemoryNetwork(vectors(), seeds=[3]))
    A, B, C, M, H, W = (getattr(network, name)[0].double().detach().numpy() for name in "ABCMHW")
    batch = SENTENCES.batch(torch.arange(12)[None])
    out = network(batch)
    for row, instance in enumerate(REVIEWS):
        ids = [VOCABULARY.index(word) + 1 for word in instance.tokens]
        v = np.mean([B[number] for number in ids[instance.start : instance.end]], axis=0)
        context = [i for i in range(len(ids)) if not instance.start <= i < instance.end]
        alpha = softmax([A[ids[i]] @ (v @ M) for i in context])
        o = sum(a * C[ids[i]] for a, i in zip(alpha, context, strict=True))
        assert out.attention[0, row, context].tolist() == pytest.approx(alpha.tolist(), abs=1e-5)
        assert out.logits[0, row].tolist() == pytest.approx(((o + v @ H) @ W).tolist(), rel=1e-3, abs=1e-3)


def hard(x):
    return np.clip(0.2 * x + 0.5, 0, 1)


def lstm(rows, W_x, W_h, b, real, through_padding):
    width = len(W_h)
    h = c = np.zeros(width)
    states = []
    for x, counts in zip(rows, real, strict=True):
        gates = x @ W_x + h @ W_h + b
        o, i, f = (hard(gates[k * width : (k + 1) * width]) for k in range(3))
        if counts or through_padding:
            c = f * c + i * np.tanh(gates[3 * width :])
            h = o * np.tanh(c)
        states.append(h)
    return states


def test_the_recurrence_as_pytorch_differentiates_it():
    generator = torch.Generator().manual_seed(0)
    steps = 3 * torch.randn(5, 2, 3, 16, generator=generator, dtype=torch.float64)
    W_h = torch.randn(2, 4, 16, generator=generator, dtype=torch.float64)
    steps.requires_grad_()
    W_h.requires_grad_()
    h = c = torch.zeros(2, 3, 4, dtype=torch.float64)
    states = []
    for step in steps:
        u = step + h @ W_h
        o, i, f = hard_sigmoid(u[..., :12]).chunk(3, dim=-1)
        c = f * c + i * torch.tanh(u[..., 12:])
        h = o * torch.tanh(c)
        states.append(h)
    found, expected = lstm_states(steps, W_h), torch.stack(states)
    assert torch.allclose(found, expected, atol=1e-12)
    weights = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    for ours, theirs in zip(
        torch.autograd.grad((found * weights).sum(), (steps, W_h)),
        torch.autograd.grad((expected * weights).sum(), (steps, W_h)),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, atol=1e-10)


@pytest.mark.parametrize("through_padding", [False, True])
def test_tnet_as_loops(through_padding):
    network = blown_up(TNetAttention(vectors(), seeds=[3], hidden=3, dropout=0.3, through_padding=through_padding))
    P = {name: parameter[0].double().detach().numpy() for name, parameter in network.named_parameters()}
    erased = torch.zeros(1, 12, SENTENCES.ids.shape[1], dtype=torch.bool)
    erased[0, :, 1] = SENTENCES.context[:, 1]
    with torch.no_grad():
        out = network(SENTENCES.batch(torch.arange(12)[None], erased))
    table = vectors().double().numpy()

    def both_ways(ids, real, name):
        rows = [0.7 * table[number] for number in ids]
        W_x, W_h, b = (P[f"{name}.{part}"] for part in ("W_x", "W_h", "b"))
        forwards = lstm(rows, W_x, W_h, b, real, through_padding)
        backwards = lstm(rows[::-1], W_x, W_h, b, real[::-1], through_padding)[::-1]
        return [np.concatenate(pair) for pair in zip(forwards, backwards, strict=True)], forwards[-1], backwards[0]

    for row in range(12):
        gone = erased[0, row].tolist()
        ids = [0 if g else number for number, g in zip(SENTENCES.ids[row].tolist(), gone, strict=True)]
        inside, targets = SENTENCES.inside[row].tolist(), SENTENCES.target_ids[row].tolist()
        H, _, _ = both_ways(ids, inside, "sentence_lstm")
        Ht, last, first = both_ways(targets, [number > 0 for number in targets], "target_lstm")
        q = np.concatenate([last, first])
        counted = [h for h, number in zip(Ht, targets, strict=True) if number or through_padding]
        for _ in range(2):
            new = []
            for i, h in enumerate(H):
                weights = softmax([t @ h for t in counted])
                r = sum(a * t for a, t in zip(weights, counted, strict=True))
                transformed = np.tanh(np.concatenate([h, r]) @ P["W"] + P["b"])
                g = hard(h @ P["W_g"] + P["b_g"])
                new.append(float(SENTENCES.position_weights[row, i]) * (g * transformed + (1 - g) * h))
            H = new
        seen = [i for i in range(len(ids)) if inside[i] and not gone[i]]
        alpha = softmax([H[i] @ q for i in seen])
        feature = 0.7 * sum(a * H[i] for a, i in zip(alpha, seen, strict=True))
        assert out.attention[0, row, seen].tolist() == pytest.approx(alpha.tolist(), abs=1e-4)
        assert float(out.attention[0, row].sum()) == pytest.approx(1, abs=1e-5)
        assert out.logits[0, row].tolist() == pytest.approx((feature @ P["W_c"] + P["b_c"]).tolist(), rel=1e-3, abs=1e-3)


def test_the_encoder_is_bert():
    network, sentences = make("transformer", seeds=(0, 1))
    network.eval()
    X = network.represent(sentences.batch(torch.arange(12).expand(2, -1))).X
    with torch.no_grad():
        expected = tiny_encoder()(input_ids=sentences.ids, attention_mask=sentences.inside.long()).last_hidden_state
    for replica in X:
        assert torch.allclose(replica[sentences.inside], expected[sentences.inside], atol=1e-5)


def test_the_transformers_head_as_loops():
    network, sentences = AspectTransformer(tiny_encoder(), seeds=[0]), PIECES
    with torch.no_grad():
        network.w.mul_(30)
    network.eval()
    batch = sentences.batch(torch.arange(12)[None])
    represented = network.represent(batch)
    out = network.attend(represented, batch)
    X, w, W, b = (value[0].double().detach().numpy() for value in (represented.X, network.w, network.W, network.b))
    for row in range(12):
        target, context = (mask[row].nonzero()[:, 0].tolist() for mask in (sentences.target, sentences.context))
        beta = softmax([float(X[row, i] @ w[:, 0]) for i in target])
        t = sum(a * X[row, i] for a, i in zip(beta, target, strict=True))
        alpha = softmax([float(X[row, i] @ t) / math.sqrt(16) for i in context])
        feature = t + sum(a * X[row, i] for a, i in zip(alpha, context, strict=True))
        assert out.attention[0, row, context].tolist() == pytest.approx(alpha.tolist(), abs=1e-4)
        assert out.logits[0, row].tolist() == pytest.approx((feature @ W + b).tolist(), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sentence_that_is_wholly_erased_has_no_attention_and_finite_logits(kind):
    network, sentences = make(kind)
    everything = sentences.inside[None].clone()
    out = network.train()(sentences.batch(torch.arange(12)[None], everything))
    assert out.attention.abs().sum() == 0
    assert torch.isfinite(out.logits).all()
    out.logits.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sentence_of_the_target_alone(kind):
    alone = [Instance(("food",), 0, 1, "neutral"), REVIEWS[0]]
    _, like = make(kind)
    words = like is SENTENCES
    sentences = word_sentences(alone, VOCABULARY, longest=9) if words else piece_sentences(alone, tiny_tokenizer(), longest=9)
    network = make(kind)[0].eval()
    with torch.no_grad():
        out = network(sentences.batch(torch.arange(2)[None]))
    assert torch.isfinite(out.logits).all()
    assert float(out.attention[0, 0].sum()) == pytest.approx(1 if kind == "tnet_attention" else 0)


@pytest.mark.parametrize("kind", KINDS)
def test_replicas_start_as_networks_alone_and_copies_alike(kind):
    together, sentences = make(kind, seeds=(5, 7), copies=2)
    together.eval()
    found = together(sentences.batch(torch.arange(12).expand(4, -1))).logits
    for number, seed in enumerate((5, 7)):
        alone = make(kind, seeds=(seed,))[0].eval()(sentences.batch(torch.arange(12)[None])).logits[0]
        for copy in range(2):
            assert torch.allclose(found[2 * copy + number], alone, atol=1e-5)
    assert not torch.allclose(found[0], found[1], atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_that_of_the_seed(kind):
    network, sentences = make(kind, seeds=(5, 7), copies=2)
    torch.manual_seed(0)
    found = network.train()(sentences.batch(torch.arange(12).expand(4, -1))).logits
    assert torch.allclose(found[:2], found[2:], atol=1e-6)
    if kind != "memory_network":
        again = network(sentences.batch(torch.arange(12).expand(4, -1))).logits
        assert not torch.allclose(found, again, atol=1e-9)


def supervise(active, weights, seeds):
    members = active.expand(len(weights) * seeds, -1, -1).clone()
    return Supervision(members, attention_targets(members, "share"), torch.tensor(weights).repeat_interleave(seeds))


@pytest.mark.parametrize("kind", KINDS)
def test_variants_side_by_side_train_as_alone(kind):
    _, sentences = make(kind)
    active = torch.zeros_like(sentences.context)
    active[torch.arange(12), sentences.context.float().argmax(1)] = True
    together, _ = make(kind, seeds=(5, 7), copies=2)
    found = fit(together, sentences, RECIPE, 2, supervision=supervise(active, [0.0, 3.0], 2), tested={"test": sentences})
    assert found["test"].shape == (2, 4, 12)
    logits = together(sentences.batch(torch.arange(12).expand(4, -1))).logits
    for copy, weight in enumerate([0.0, 3.0]):
        alone, _ = make(kind, seeds=(5, 7))
        fit(alone, sentences, RECIPE, 2, supervision=supervise(active, [weight], 2))
        expected = alone(sentences.batch(torch.arange(12).expand(2, -1))).logits
        assert torch.allclose(logits[2 * copy : 2 * copy + 2], expected, atol=2e-3)
    assert not torch.allclose(logits[:2], logits[2:], atol=1e-4)
    assert np.array_equal(found["test"][-1], classify(together, sentences, 5))


@pytest.mark.parametrize("kind", KINDS)
def test_supervision_moves_attention(kind):
    _, sentences = make(kind)
    active = torch.zeros_like(sentences.context)
    active[torch.arange(12), sentences.context.float().argmax(1)] = True
    network, _ = make(kind, seeds=(0,), copies=2)
    fit(network, sentences, RECIPE, 40, supervision=supervise(active, [0.0, 5.0], 1))
    attention = attention_on(network, sentences, 8)
    before, after = (float(attention[copy][active].mean()) for copy in range(2))
    assert after > before + 0.1


def test_inspection_by_criterion():
    network, sentences = make("tnet_attention", seeds=(0, 1), copies=3)
    fit(network, sentences, RECIPE, 3)
    erased = torch.zeros(6, *sentences.context.shape, dtype=torch.bool)
    erased[0, 0] = sentences.context[0]

    def look(size):
        return inspect(
            network, sentences, erased, ["attention", "gradient", "random"],
            smoothing=Smoothing(3, 0.1), round_number=1, size=size,
        )  # fmt: skip

    found, again = look(12), look(12)
    assert torch.equal(found.scores, again.scores)
    assert torch.equal(found.scores[:2], found.attention[:2])
    assert not torch.equal(found.scores[2:4], found.attention[2:4])
    gradient = found.scores[2:4]
    assert float(gradient[:, ~sentences.context].abs().max()) == 0
    assert torch.allclose(gradient.sum(-1), torch.ones(2, 12), atol=1e-4)
    assert (found.scores[4:] >= 0).all()
    assert torch.allclose(look(5).attention, found.attention, atol=1e-6)
    labels = torch.from_numpy(classify(network, sentences, 12))
    assert torch.equal(found.correct[1:], labels[1:] == sentences.labels)


def test_the_transformer_in_bfloat16():
    network, sentences = make("transformer", seeds=(0,), copies=2)
    recipe = RECIPE.model_copy(update={"precision": "bfloat16"})
    active = torch.zeros_like(sentences.context)
    fit(network, sentences, recipe, 2, supervision=supervise(active, [0.0, 1.0], 1), tested={"test": sentences})
    attention = attention_on(network, sentences, 5, "bfloat16")
    assert attention.dtype == torch.float32
    assert torch.allclose(attention.sum(-1), torch.ones(2, 12), atol=1e-2)
    found = inspect(
        network, sentences, torch.zeros(2, *active.shape, dtype=torch.bool), ["attention", "gradient"],
        smoothing=Smoothing(2, 0.1), round_number=1, size=5, precision="bfloat16",
    )  # fmt: skip
    assert torch.isfinite(found.scores).all()
    assert found.correct.shape == (2, 12)


def test_networks_need_seeds():
    with pytest.raises(InputError, match="at least one of each"):
        MemoryNetwork(vectors(), seeds=[])
