"""Mining and the loss, against hand-worked examples and equations written as loops in float64."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from papers.absa.progressive_attention import (
    Inspection,
    Words,
    attention_loss,
    attention_targets,
    entropy,
    masked_softmax,
    mix,
    pick_words,
    progressive_words,
    smooth_gradient,
)

WORDS = ("the", "food", "was", "great", "but", "late")
CONTEXT = torch.tensor([[True, False, True, True, True, True]])


def test_entropy_by_hand():
    attention = torch.tensor([[0.25] * 4, [1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.0] * 4])
    assert entropy(attention).tolist() == [2, 0, 1, 0]


@given(st.lists(st.tuples(st.floats(-20, 20), st.booleans()), min_size=1, max_size=8))
def test_masked_softmax_is_a_softmax_over_what_is_left(entries):
    scores, mask = (torch.tensor(column) for column in zip(*entries, strict=True))
    found = masked_softmax(scores, mask)
    total = sum(math.exp(score) for score, left in entries if left)
    for value, (score, left) in zip(found.tolist(), entries, strict=True):
        assert value == pytest.approx(math.exp(score) / total if left else 0, rel=1e-4, abs=1e-9)


def say(attention, correct) -> Inspection:
    weights = torch.tensor([attention])
    return Inspection(weights, weights, torch.tensor([correct]))


def test_mining_a_sentence_round_by_round():
    rounds = [
        say([0.02, 0.45, 0.03, 0.40, 0.02, 0.08], True),  # the target has the most, of the context "great"
        say([0.05, 0.40, 0.05, 0.00, 0.10, 0.40], False),  # then "late", and the class is wrong
        say([0.25, 0.25, 0.25, 0.00, 0.25, 0.00], True),  # 2 bits are too much
    ]
    seen = []

    def inspect(k, erased):
        seen.append([word for word, gone in zip(WORDS, erased[0].tolist(), strict=True) if gone])
        return rounds[k - 1]

    found = list(progressive_words(inspect, CONTEXT, 1.95, 3))
    assert seen == [[], ["great"], ["great", "late"]]
    assert [words.active.nonzero().tolist() for words in found] == [[[0, 3]]] * 3
    assert [words.misleading.nonzero().tolist() for words in found] == [[], [[0, 5]], [[0, 5]]]
    with pytest.raises(InputError, match="rounds is 0"):
        list(progressive_words(inspect, CONTEXT, 1.95, 0))


def test_the_threshold_is_strict_and_may_differ_by_sentence():
    attention = torch.tensor([[0.5, 0.5], [0.5, 0.5]])
    inspection = Inspection(attention, attention, torch.tensor([True, True]))
    candidates = torch.ones(2, 2, dtype=torch.bool)
    assert not pick_words(inspection, candidates, 1.0).active.any()
    found = pick_words(inspection, candidates, torch.tensor([1.0, 1.01]))
    assert found.active.tolist() == [[False, False], [True, False]]  # of equals the first


def test_a_sentence_that_is_wholly_erased_gives_no_word():
    nothing = torch.zeros(1, 6)
    found = pick_words(Inspection(nothing, nothing, torch.tensor([False])), torch.zeros(1, 6, dtype=torch.bool), 4.0)
    assert not found.erased.any()
    with pytest.raises(InputError, match="must agree"):
        pick_words(Inspection(nothing, nothing[:, :5], torch.tensor([False])), CONTEXT, 4.0)


@given(st.integers(0, 10_000))
def test_at_most_one_word_a_round_never_a_target_and_never_twice(seed):
    generator = torch.Generator().manual_seed(seed)
    context = torch.rand(5, 4, generator=generator) < 0.7
    before = torch.zeros(5, dtype=torch.int64)
    gone = torch.zeros_like(context)

    def inspect(_, erased):
        scores = 3 * torch.randn(5, 4, generator=generator)
        attention = masked_softmax(scores, context & ~erased)
        return Inspection(attention, attention, torch.rand(5, generator=generator) < 0.5)

    for words in progressive_words(inspect, context, 1.5, 6):
        assert not (words.active & words.misleading).any()
        assert not (words.erased & ~context).any()
        assert (gone <= words.erased).all()
        gone, count = words.erased, words.erased.sum(1)
        assert ((count - before) <= 1).all()
        before = count


@pytest.mark.parametrize("target", ["share", "one"])
def test_the_loss_as_a_loop(target):
    generator = torch.Generator().manual_seed(0)
    attention = torch.softmax(torch.randn(6, 5, generator=generator, dtype=torch.float64), dim=-1)
    active = torch.rand(6, 5, generator=generator) < 0.4
    misleading = (torch.rand(6, 5, generator=generator) < 0.3) & ~active
    active[0] = misleading[0] = active[1] = False
    found = attention_loss(attention, active | misleading, attention_targets(active, target))
    for row in range(6):
        expected = 0.0
        for i in range(5):
            a = float(attention[row, i])
            if active[row, i]:
                wanted = 1 / int(active[row].sum()) if target == "share" else 1.0
                expected += (a - wanted) ** 2
            elif misleading[row, i]:
                expected += a**2
        assert float(found[row]) == pytest.approx(expected, abs=1e-7)
    assert float(found[0]) == 0


def test_variants_have_their_kinds_of_words():
    words = Words(torch.tensor([[True, False, False]]), torch.tensor([[False, True, False]]))
    mixed = mix([words] * 3, ["both", "active", "misleading"])
    assert mixed.erased[:, 0].tolist() == [[True, True, False], [True, False, False], [False, True, False]]


def test_the_gradient_of_a_linear_classifier_by_hand():
    X = torch.tensor([[[1.0, 2.0], [3.0, -1.0], [0.5, 0.5], [9.0, 9.0]]])
    W = torch.tensor([[1.0, 0.0], [0.0, 2.0]])  # logit of class c: sum over words of x · W[c]
    candidates = torch.tensor([[True, True, True, False]])

    def logits(x):
        return x.sum(1) @ W.T

    def measured(noise, samples):
        return smooth_gradient(
            logits, X, torch.tensor([1]), candidates, samples=samples, noise=noise, generator=torch.Generator().manual_seed(0)
        )[0]

    # Gradient times input is 2 x_2: 4, -2, 1; minus the smallest 6, 0, 3; divided by 9.
    assert measured(0.0, 2).tolist() == pytest.approx([6 / 9, 0, 3 / 9, 0])
    noisy = measured(0.15, 200)
    assert noisy.tolist() == pytest.approx([6 / 9, 0, 3 / 9, 0], abs=0.02)
    assert float(noisy.sum()) == pytest.approx(1)
    assert torch.equal(noisy, measured(0.15, 200))


def test_the_gradient_of_a_sentence_without_words():
    X = torch.ones(1, 2, 3)
    found = smooth_gradient(
        lambda x: x.sum(1), X, torch.tensor([0]), torch.zeros(1, 2, dtype=torch.bool),
        samples=1, noise=0.1, generator=torch.Generator(),
    )  # fmt: skip
    assert found.tolist() == [[0, 0]]
