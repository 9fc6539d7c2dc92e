"""Every method: its equations written with loops, order and padding of instances, single instances, constant features."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from papers.acmil.acmil import diversity_loss, stochastic_top_k_mask
from papers.acmil.bag_model import softmax_over_instances
from papers.acmil.dtfd import pseudo_bags
from papers.acmil.gated_attention import GatedAttention
from tests.papers.acmil.every_model import CLASSES, D_FEAT, METHODS, D, L, bags_of, model_of

SEED = torch.tensor(17)
ORDERLESS = [name for name in METHODS if name != "transmil"]  # its position encoding sees the order


def reduced(model, x):
    return [torch.relu(model.reduce.W0.weight @ one) for one in x]


def softmax(scores):
    total = sum(math.exp(score) for score in scores)
    return [math.exp(score) / total for score in scores]


def gated_scores(attention, h, branch=0):
    """Scores of one branch, instance by instance."""
    rows = slice(None) if attention.trunks == 1 else slice(branch * D, (branch + 1) * D)
    found = []
    for one in h:
        t = torch.tanh(attention.V1.weight[rows] @ one + attention.V1.bias[rows])
        g = torch.sigmoid(attention.V2.weight[rows] @ one + attention.V2.bias[rows])
        found.append((attention.w.weight[branch] @ (t * g) + attention.w.bias[branch]).item())
    return found


def weighted(a, h) -> Any:
    return sum(weight * one for weight, one in zip(a, h, strict=True))


@pytest.mark.parametrize("shared_trunk", [True, False])
def test_gated_attention(shared_trunk):
    attention = GatedAttention(L, D, 3, shared_trunk=shared_trunk).double()
    H = torch.randn(2, 4, L, dtype=torch.float64)
    S = attention(H)
    assert S.shape == (2, 3, 4)
    for bag in range(2):
        for branch in range(3):
            torch.testing.assert_close(S[bag, branch].tolist(), gated_scores(attention, H[bag], branch))


def test_abmil():
    model = model_of("abmil")
    X, mask = bags_of(4, 6)
    outputs = model(X, mask)
    for bag, size in enumerate((4, 6)):
        h = reduced(model, X[bag, :size])
        a = softmax(gated_scores(model.attention, h))
        torch.testing.assert_close(outputs["attention"][bag, 0, :size].tolist(), a)
        torch.testing.assert_close(outputs["logits"][bag], model.classifier(weighted(a, h)))


@pytest.mark.parametrize("name", ["mba", "acmil_separate_trunks"])
def test_branches_and_their_loss(name):
    model = model_of(name)
    X, mask = bags_of(5)
    h = reduced(model, X[0])
    maps = [softmax(gated_scores(model.attention, h, branch)) for branch in range(3)]
    outputs, Y = model(X, mask), torch.tensor([2])
    branch_logits = [C(weighted(a, h)) for C, a in zip(model.C, maps, strict=True)]
    mean_map = [sum(values) / 3 for values in zip(*maps, strict=True)]
    logits = model.C_bag(weighted(mean_map, h))
    torch.testing.assert_close(outputs["attention"][0].tolist(), maps)
    torch.testing.assert_close(outputs["logits"][0], logits)
    torch.testing.assert_close(outputs["branch_logits"][0], torch.stack(branch_logits))

    def cosine(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))

    L_d = (cosine(maps[0], maps[1]) + cosine(maps[0], maps[2]) + cosine(maps[1], maps[2])) * 2 / (3 * 2)
    L_p = sum(cross_entropy(one, Y[0]) for one in branch_logits) / 3
    expected = cross_entropy(logits, Y[0]) + L_p + L_d
    torch.testing.assert_close(model.loss(outputs, Y)[0], expected)
    model.diversity = 0.0
    torch.testing.assert_close(model.loss(outputs, Y)[0], expected - L_d)


def test_diversity_by_hand():
    a = torch.tensor([[[1.0, 0, 0], [0, 1, 0]], [[0.5, 0.5, 0], [0.5, 0.5, 0]], [[1, 0, 0], [0.5, 0.5, 0]]])
    torch.testing.assert_close(diversity_loss(a), torch.tensor([0.0, 1.0, math.sqrt(0.5)]))
    assert diversity_loss(a[:, :1]).tolist() == [0, 0, 0]


def test_one_branch_without_masking_is_abmil():
    abmil, acmil = model_of("abmil"), model_of("stkim", seed=3)
    acmil.K = 0
    acmil.load_state_dict({name.replace("classifier.", "C_bag."): x for name, x in abmil.state_dict().items()})
    X, mask = bags_of(4, 7, 1)
    for seed in (None, SEED):
        ours, theirs = acmil(X, mask, seed), abmil(X, mask, seed)
        for key in ("logits", "attention"):
            assert (ours[key] - theirs[key]).abs().max().item() < 1e-6
        Y = torch.tensor([0, 1, 2])
        assert (acmil.loss(ours, Y) - abmil.loss(theirs, Y)).abs().max().item() < 1e-6


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=3), st.integers(0, 15), st.sampled_from([0.0, 0.2, 0.6, 1.0]),
    st.integers(0, 10**6), st.booleans(), st.sampled_from([None, 0.01, 0.5]),
)  # fmt: skip
def test_masking_takes_out_the_right_number_of_the_largest(sizes, K, p, seed, bernoulli, share):
    N = max(sizes) + 2
    mask = torch.arange(N) < torch.tensor(sizes)[:, None]
    S = torch.randn(len(sizes), 4, N, generator=torch.Generator().manual_seed(seed))
    out = stochastic_top_k_mask(S, mask, torch.tensor(seed), K, p, share=share, bernoulli=bernoulli)
    for bag, n in enumerate(sizes):
        K_bag = min(K, n) if share is None else min(K, n, math.ceil(share * n - 1e-6))
        for branch in range(4):
            taken = set(out[bag, branch].nonzero().flatten().tolist())
            top = set(S[bag, branch, :n].topk(K_bag).indices.tolist())
            assert taken <= top
            if bernoulli:
                assert len(taken) <= min(K_bag, n - 1)
            else:
                assert len(taken) == min(math.floor(K_bag * p + 1e-6), n - 1)


def test_masking_is_uniform_over_the_top_and_different_in_each_branch():
    S = torch.arange(20.0).repeat(1, 2, 1)
    mask = torch.ones(1, 20, dtype=torch.bool)
    draws = torch.stack([stochastic_top_k_mask(S, mask, torch.tensor(seed), 10, 0.6) for seed in range(600)]).float()
    assert not draws[..., :10].any()
    share = draws.mean(0)[0, :, 10:]
    assert float((share - 0.6).abs().max()) < 0.1  # five standard deviations
    assert (draws[:, 0, 0] != draws[:, 0, 1]).any(-1).float().mean() > 0.9
    bernoulli = torch.stack([stochastic_top_k_mask(S, mask, torch.tensor(s), 10, 0.6, bernoulli=True) for s in range(600)])
    counts = bernoulli[:, 0, 0].sum(-1).float()
    assert counts.mean() == pytest.approx(6, abs=0.35)
    assert counts.var() == pytest.approx(10 * 0.6 * 0.4, rel=0.3)


def test_masked_heat_maps_are_zero_and_renormalised():
    model = model_of("acmil")
    X, mask = bags_of(9)
    plain, masked = model(X, mask)["attention"][0], model(X, mask, SEED)["attention"][0]
    for branch in range(3):
        gone = masked[branch] == 0
        assert int(gone.sum()) == math.floor(3 * 0.6)
        assert gone[plain[branch].topk(3).indices].sum() == gone.sum()
        expected = plain[branch] * ~gone
        torch.testing.assert_close(masked[branch], expected / expected.sum())


def test_softmax_in_half_precision_resolves_many_instances():
    S = torch.zeros(1, 100_000, dtype=torch.float16)
    a = softmax_over_instances(S, torch.ones(1, 100_000, dtype=torch.bool))
    assert a.dtype == torch.float32
    assert float(a.sum()) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("name", "pool"), [("mean", torch.mean), ("max", torch.amax)])
def test_pooling(name, pool):
    model = model_of(name)
    X, mask = bags_of(3, 5)
    outputs = model(X, mask)
    for bag, size in enumerate((3, 5)):
        z = pool(torch.stack(reduced(model, X[bag, :size])), 0)
        torch.testing.assert_close(outputs["logits"][bag], model.classifier(z))


def test_clam_clusters_the_most_and_least_attended():
    model = model_of("clam")
    X, mask = bags_of(7, 3, 1)
    Y = torch.tensor([2, 0, 1])
    outputs = model(X, mask)
    losses = model.loss(outputs, Y)
    for bag, size in enumerate((7, 3, 1)):
        h = reduced(model, X[bag, :size])
        scores = gated_scores(model.attention, h)
        order = sorted(range(size), key=lambda n: scores[n])
        k = min(2, size // 2)
        weight = model.instance_classifiers.weight.reshape(CLASSES, 2, L)[Y[bag]]
        bias = model.instance_classifiers.bias.reshape(CLASSES, 2)[Y[bag]]
        each = [cross_entropy(weight @ h[n] + bias, torch.tensor(1)) for n in order[size - k :]]
        each += [cross_entropy(weight @ h[n] + bias, torch.tensor(0)) for n in order[:k]]
        expected = 0.7 * cross_entropy(model.classifier(weighted(softmax(scores), h)), Y[bag])
        expected = expected + 0.3 * sum(each) / max(len(each), 1)
        torch.testing.assert_close(losses[bag], expected)


def test_dsmil():
    model = model_of("dsmil")
    X, mask = bags_of(4, 6)
    Y = torch.tensor([1, 0])
    outputs = model(X, mask)
    for bag, size in enumerate((4, 6)):
        h = reduced(model, X[bag, :size])
        c = [model.instance_classifier(one) for one in h]
        q = [model.Q(one) for one in h]
        features, maps = [], []
        for k in range(CLASSES):
            critical = max(range(size), key=lambda n, k=k: c[n][k].item())
            maps.append(softmax([(q[n] @ q[critical]).item() / math.sqrt(D) for n in range(size)]))
            features.append(weighted(maps[-1], h))
        maximum = torch.stack(c).max(0).values
        bag_logits = model.bag_classifier(torch.cat(features))
        logits = (maximum + bag_logits) / 2
        torch.testing.assert_close(outputs["logits"][bag], logits)
        torch.testing.assert_close(outputs["attention"][bag, 0, :size].tolist(), maps[int(logits.argmax())])
        loss = 0.5 * cross_entropy(maximum, Y[bag]) + 0.5 * cross_entropy(bag_logits, Y[bag])
        torch.testing.assert_close(model.loss(outputs, Y)[bag], loss)


@given(st.lists(st.integers(1, 11), min_size=1, max_size=4), st.integers(1, 5), st.none() | st.integers(0, 10**6))
def test_pseudo_bags_split_a_bag(sizes, G, seed):
    mask = torch.arange(max(sizes) + 1) < torch.tensor(sizes)[:, None]
    members = pseudo_bags(mask, G, None if seed is None else torch.tensor(seed))
    assert (members.sum(1) == mask).all()
    counts = members.sum(-1)
    assert (counts.amax(1) - counts.amin(1) <= 1).all()


def test_dtfd():
    model = model_of("dtfd")
    X, mask = bags_of(7, 2)
    Y = torch.tensor([0, 2])
    for seed in (None, SEED):
        outputs = model(X, mask, seed)
        groups = pseudo_bags(mask, 3, seed)
        for bag, size in enumerate((7, 2)):
            h = reduced(model, X[bag, :size])
            features, losses, maps = [], [], []
            for group in groups[bag]:
                members = group.nonzero().flatten().tolist()
                if not members:
                    continue
                own = [h[n] for n in members]
                a = softmax(gated_scores(model.attention_1, own))
                features.append(weighted(a, own))
                maps.append(dict(zip(members, a, strict=True)))
                losses.append(cross_entropy(model.classifier_1(features[-1]), Y[bag]))
            b = softmax(gated_scores(model.attention_2, features))
            logits = model.classifier_2(weighted(b, features))
            torch.testing.assert_close(outputs["logits"][bag], logits)
            torch.testing.assert_close(model.loss(outputs, Y)[bag], sum(losses) / len(losses) + cross_entropy(logits, Y[bag]))
            attention = [sum(w * own.get(n, 0) for w, own in zip(b, maps, strict=True)) for n in range(size)]
            torch.testing.assert_close(outputs["attention"][bag, 0, :size].tolist(), attention)


def test_multi_head_attention():
    model = model_of("mha_acmil")
    X, mask = bags_of(4)
    h, d = reduced(model, X[0]), L // 2
    outputs = model(X, mask)

    def embed(maps, W_V, W_O, norm):
        heads = [weighted(a, [W_V(one)[k * d : (k + 1) * d] for one in h]) for k, a in enumerate(maps)]
        return norm(W_O(torch.cat(heads)))

    every = []
    for i in range(3):
        q, keys = model.W_Q[i](model.q[i]), [model.W_K[i](one) for one in h]
        heads = [slice(0, d), slice(d, 2 * d)]
        every.append([softmax([(q[head] @ key[head]).item() / math.sqrt(d) for key in keys]) for head in heads])
        logits = model.C[i](embed(every[-1], model.W_V[i], model.W_O[i], model.norm[i]))
        torch.testing.assert_close(outputs["branch_logits"][0, i], logits)
        torch.testing.assert_close(outputs["attention"][0, i], torch.tensor(every[-1]).double().mean(0), atol=1e-6, rtol=1e-5)
    mean = [[sum(every[i][k][n] for i in range(3)) / 3 for n in range(4)] for k in range(2)]
    torch.testing.assert_close(outputs["logits"][0], model.C_bag(embed(mean, model.W_V_bag, model.W_O_bag, model.norm_bag)))


@pytest.mark.parametrize("name", ORDERLESS)
def test_the_order_of_instances_does_not_matter(name):
    model = model_of(name)
    X, mask = bags_of(8)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(5))
    if name == "dtfd":
        model.G = 1  # pseudo-bags go by position; with one there is no split
    one, other = model(X, mask), model(X[:, order], mask)
    torch.testing.assert_close(one["logits"], other["logits"])
    if "attention" in one:
        torch.testing.assert_close(one["attention"][..., order], other["attention"])


@pytest.mark.parametrize("seed", [None, SEED])
@pytest.mark.parametrize("name", list(METHODS))
def test_padding_and_neighbours_in_the_batch_do_not_matter(name, seed):
    model = model_of(name)
    X, mask = bags_of(5, 9, 1, 6, padding=4)
    Y = torch.tensor([0, 1, 2, 1])
    together = model(X, mask, seed)
    if seed is not None and name not in ("mean", "max", "abmil", "clam", "dsmil", "transmil", "mba", "mha"):
        assert torch.isfinite(model.loss(together, Y)).all()  # draws differ with the shape; what they do is tested elsewhere
        return
    for bag, size in enumerate((5, 9, 1, 6)):
        alone = model(X[bag : bag + 1, :size], mask[bag : bag + 1, :size], seed)
        torch.testing.assert_close(together["logits"][bag], alone["logits"][0])
        torch.testing.assert_close(model.loss(together, Y)[bag], model.loss(alone, Y[bag : bag + 1])[0])
        if "attention" in alone:
            torch.testing.assert_close(together["attention"][bag, :, :size], alone["attention"][0])
            assert not together["attention"][bag, :, size:].any()


@pytest.mark.parametrize("seed", [None, SEED])
@pytest.mark.parametrize("name", list(METHODS))
def test_single_instances_and_constant_features(name, seed):
    model = model_of(name)
    X, mask = bags_of(1, 6)
    X[1] = X[1, 0]
    outputs = model(X, mask, seed)
    model.loss(outputs, torch.tensor([0, 1])).sum().backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    if "attention" in outputs:
        torch.testing.assert_close(outputs["attention"].sum(-1), torch.ones_like(outputs["attention"].sum(-1)))
        assert (outputs["attention"][0, :, 0] == 1).all()
        if seed is None and name != "dtfd":
            torch.testing.assert_close(outputs["attention"][1], torch.full_like(outputs["attention"][1], 1 / 6))
    if seed is None and "attention" in outputs:  # copies of one instance are that instance
        torch.testing.assert_close(outputs["logits"][1], model(X[1:, :1], mask[1:, :1])["logits"][0])


def test_features_of_one_instance_reach_the_logits():
    X, mask = bags_of(6)
    for name in METHODS:
        changed = X.clone()
        changed[0, 3] += torch.ones(D_FEAT, dtype=torch.float64)
        model = model_of(name)
        assert not torch.allclose(model(X, mask)["logits"], model(changed, mask)["logits"]), name
