"""Progressive self-supervised attention learning (Tang et al., ACL 2019; Su et al., AIJ 2021): the method alone.

    s_a(x) = s_m(x) = ∅
    for k = 1..K:
        train the network from scratch on D, with the words of s_a(x) ∪ s_m(x) erased
        for every (x, t, y) of D: attention α and prediction ŷ;
            if E(α) < ε_α:   m = argmax_i α_i;   x_m goes to s_a(x) if ŷ = y, else to s_m(x)
    train the network once more on D, nothing erased, with
        L = CE + γ · mean_x Σ_i (α_i · 1[i ∈ s_a ∪ s_m] − τ_i)²,     τ_i = 1/|s_a(x)| for i ∈ s_a(x), else 0

Sets of words are masks over positions. All functions take any leading dimensions [...], for example replicas and examples.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from common.errors import InputError

Target = Literal["share", "one"]
"""τ of an active word: 1/|s_a(x)|, or 1 as in the official code, whose division has no effect."""

Criterion = Literal["attention", "gradient", "random"]
"""What a word is picked by; `random` is ours, a control: the same sentences, any word."""


@dataclass(frozen=True)
class Words:
    """The words picked so far, of every training sentence.

    Attributes:
        active: s_a, bool [..., n].
        misleading: s_m, bool [..., n].
    """

    active: Tensor
    misleading: Tensor

    @property
    def erased(self) -> Tensor:
        """s_a ∪ s_m, bool [..., n]."""
        return self.active | self.misleading


@dataclass(frozen=True)
class Inspection:
    """What a trained network says about sentences.

    Attributes:
        attention: α, floating point [..., n], 0 where a network cannot look.
        scores: what words are picked by, [..., n]: α itself, or what `smooth_gradient` or a random generator gives.
        correct: ŷ = y, bool [...].
    """

    attention: Tensor
    scores: Tensor
    correct: Tensor


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last dimension where `mask` is True; 0 elsewhere, and everywhere if the whole row is masked.

    Args:
        scores: floating point [..., n].
        mask: bool [..., n].
    """
    scores = scores.float().masked_fill(~mask, torch.finfo(torch.float32).min)
    return torch.softmax(scores, dim=-1) * mask


def entropy(attention: Tensor) -> Tensor:
    """E(α) = −Σ_{α_i ≠ 0} α_i log2 α_i, in bits.

    Args:
        attention: floating point [..., n], not negative.

    Returns:
        [...]; 0 for a row of zeros.
    """
    return -torch.xlogy(attention, attention).sum(-1) / math.log(2)


def pick_words(inspection: Inspection, candidates: Tensor, epsilon: float | Tensor) -> Words:
    """At most one word of each sentence: the one with the greatest score, where attention is peaked.

    A sentence without candidates, such as one that is wholly erased, gives none. Of equal scores the first is taken.

    Args:
        inspection: of the sentences.
        candidates: words that may be picked, bool [..., n]: of the context, and not erased.
        epsilon: ε_α in bits, a number or [...]; a sentence gives a word where E(α) < ε_α.

    Returns:
        `active` has the word of a sentence that was classified correctly, `misleading` that of another.

    Raises:
        InputError: shapes differ.
    """
    if not inspection.attention.shape == inspection.scores.shape == candidates.shape:
        raise InputError(
            f"attention, scores and candidates have shapes {tuple(inspection.attention.shape)}, "
            f"{tuple(inspection.scores.shape)} and {tuple(candidates.shape)}; they must agree."
        )
    best = inspection.scores.masked_fill(~candidates, -torch.inf).argmax(-1, keepdim=True)
    peaked = (entropy(inspection.attention) < epsilon)[..., None]
    places = torch.arange(candidates.shape[-1], device=candidates.device)
    picked = (places == best) & candidates & peaked
    return Words(picked & inspection.correct[..., None], picked & ~inspection.correct[..., None])


def progressive_words(
    inspect_after_training: Callable[[int, Tensor], Inspection], context: Tensor, epsilon: float | Tensor, rounds: int
) -> Iterator[Words]:
    """The sets s_a and s_m after each of the K rounds.

    Args:
        inspect_after_training: (k, erased words) -> what a network says that was trained from scratch with these words
            erased, about the same sentences with the same words erased.
        context: words of the sentences that may be picked at all, bool [..., n].
        epsilon: see `pick_words`.
        rounds: K.

    Raises:
        InputError: K is not positive.
    """
    if rounds < 1:
        raise InputError(f"rounds is {rounds}; words are picked in at least one round.")
    words = Words(torch.zeros_like(context), torch.zeros_like(context))
    for k in range(1, rounds + 1):
        inspection = inspect_after_training(k, words.erased)
        found = pick_words(inspection, context & ~words.erased, epsilon)
        words = Words(words.active | found.active, words.misleading | found.misleading)
        yield words


def attention_targets(active: Tensor, target: Target) -> Tensor:
    """τ: float32 [..., n] from s_a [..., n]; 0 for a sentence without active words."""
    wanted = active.float()
    return wanted / wanted.sum(-1, keepdim=True).clamp(min=1) if target == "share" else wanted


def attention_loss(attention: Tensor, members: Tensor, targets: Tensor) -> Tensor:
    """Σ_i (α_i · 1[i ∈ s_a ∪ s_m] − τ_i)² of each sentence.

    Args:
        attention: α, floating point [..., n].
        members: s_a ∪ s_m, bool [..., n].
        targets: τ, [..., n], 0 outside s_a.

    Returns:
        [...]; 0 for a sentence without picked words.
    """
    return (attention * members - targets).square().sum(-1)


def smooth_gradient(
    logits_of: Callable[[Tensor], Tensor],
    X: Tensor,
    labels: Tensor,
    candidates: Tensor,
    *,
    samples: int,
    noise: float,
    generator: torch.Generator,
) -> Tensor:
    """Importance of words by gradient times input, averaged over noisy inputs (SmoothGrad; AIJ 2021).

    g_i = mean over samples of Σ_d (∂ logit_y / ∂X ⊙ X)_id at X + noise · N(0, 1); the smallest g of a sentence's candidates is
    taken away from all of them; they are divided by their sum.

    Args:
        logits_of: hidden states [..., n, d] -> logits [..., classes]; differentiable.
        X: the last hidden states, floating point [..., n, d].
        labels: gold classes y, int64 [...].
        candidates: words that have an importance, bool [..., n].
        samples: how many noisy inputs.
        noise: standard deviation; the same draw is added to all sentences.
        generator: of the noise, on the CPU.

    Returns:
        float32 [..., n]: not negative, 0 outside `candidates`; a sentence's sum is 1, or 0 where all its values are equal.
    """
    total = torch.zeros(X.shape[:-1], device=X.device)
    for _ in range(samples):
        # One draw for all leading dimensions: what is compared is the words of a sentence.
        drawn = torch.randn(X.shape[-2:], generator=generator).to(X.device)
        noisy = (X.detach().float() + noise * drawn).requires_grad_()
        with torch.enable_grad():
            gold = logits_of(noisy).gather(-1, labels[..., None]).sum()
            (slope,) = torch.autograd.grad(gold, noisy)
        total += (slope * noisy).sum(-1).detach() / samples
    lowest = total.masked_fill(~candidates, torch.inf).amin(-1, keepdim=True)
    shifted = torch.where(candidates, total - lowest, 0.0)
    return shifted / shifted.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)


def mix(words: Sequence[Words], kinds: Sequence[Literal["both", "active", "misleading"]]) -> Words:
    """Stack the words of variants: "+AS" has both kinds, "+AS_a" the active ones only, "+AS_m" the misleading ones.

    Args:
        words: of each variant, [...] alike.
        kinds: of each variant.

    Returns:
        masks [variants, ...].
    """
    active = [w.active if kind != "misleading" else torch.zeros_like(w.active) for w, kind in zip(words, kinds, strict=True)]
    wrong = [w.misleading if kind != "active" else torch.zeros_like(w.active) for w, kind in zip(words, kinds, strict=True)]
    return Words(torch.stack(active), torch.stack(wrong))
