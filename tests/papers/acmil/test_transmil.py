"""The blocks of TransMIL on single bags without padding, written with loops."""

import math

import torch
from torch.nn.functional import conv1d, conv2d

from papers.acmil.transmil import (
    POSITION_KERNELS,
    VALUE_KERNEL,
    NystromAttention,
    PositionEncoding,
    TransMIL,
    iterative_pinv,
    landmark_means,
)

L = 6


def everywhere(T):
    return torch.ones(1, T, dtype=torch.bool)


def test_the_iterative_inverse_comes_near_the_inverse():
    torch.manual_seed(0)
    A = torch.softmax(torch.randn(3, 5, 5, dtype=torch.float64) + 4 * torch.eye(5), dim=-1)  # well-conditioned
    torch.testing.assert_close(iterative_pinv(A), torch.linalg.pinv(A), atol=1e-6, rtol=1e-6)


def test_landmarks_are_means_of_consecutive_tokens():
    x = torch.arange(14.0).reshape(1, 7, 2)
    means, exists = landmark_means(x, everywhere(7), 3)
    groups = [range(3), range(3, 5), range(5, 7)]  # token t belongs to floor(3 t / 7)
    torch.testing.assert_close(means[0], torch.stack([x[0, list(group)].mean(0) for group in groups]))
    assert exists.all()
    means, exists = landmark_means(x[:, :2], everywhere(2), 3)
    assert exists[0].tolist() == [True, True, False]
    torch.testing.assert_close(means[0, :2], x[0, :2])


def test_nystrom_attention_of_one_bag():
    torch.manual_seed(1)
    T, m, heads, d = 9, 4, 2, 3
    attention = NystromAttention(L, heads, m).double()
    x = torch.randn(1, T, L, dtype=torch.float64)
    tokens, of_first = attention(x, everywhere(T))
    qkv = attention.QKV(x[0])
    outputs, firsts = [], []
    for head in range(heads):
        q, k, v = (qkv[:, part * L + head * d : part * L + (head + 1) * d] for part in range(3))
        q = q / math.sqrt(d)
        group = [math.floor(t * m / T) for t in range(T)]
        q_m, k_m = (torch.stack([y[[t for t in range(T) if group[t] == g]].mean(0) for g in range(m)]) for y in (q, k))
        weights = torch.softmax(q @ k_m.T, 1) @ iterative_pinv(torch.softmax(q_m @ k_m.T, 1)) @ torch.softmax(q_m @ k.T, 1)
        kernel = attention.value_convolution[head].reshape(1, 1, VALUE_KERNEL)
        beside = torch.stack([conv1d(v[:, j].reshape(1, 1, T), kernel, padding=VALUE_KERNEL // 2)[0, 0] for j in range(d)], 1)
        outputs.append(weights @ v + beside)
        firsts.append(weights[0])
    torch.testing.assert_close(tokens[0], attention.out(torch.cat(outputs, 1)))
    torch.testing.assert_close(of_first[0], torch.stack(firsts).mean(0))


def test_with_a_landmark_a_token_it_comes_near_full_attention():
    torch.manual_seed(2)
    attention = NystromAttention(L, 2, 5).double()
    torch.nn.init.zeros_(attention.value_convolution)
    with torch.no_grad():
        attention.QKV.weight.mul_(4)  # well-conditioned: every token attends to itself most
    x = torch.randn(1, 5, L, dtype=torch.float64)
    for landmarks in (5, 8):  # with 8, three are empty
        attention.m = landmarks
        q, k, v = (y.unflatten(-1, (2, 3)).transpose(1, 2) for y in attention.QKV(x).chunk(3, dim=-1))
        full = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        torch.testing.assert_close(attention(x, everywhere(5))[0], attention.out(full), atol=0.1, rtol=0.1)


def test_position_encoding_is_a_convolution_over_the_square():
    torch.manual_seed(3)
    encoding = PositionEncoding(L).double()
    x = torch.randn(2, 9, L, dtype=torch.float64)
    found = encoding(x, torch.tensor([[3], [2]]))
    for bag, side in enumerate((3, 2)):
        square = x[bag, : side * side].T.reshape(1, L, side, side)
        expected = square.clone()
        for kernel, size in zip(encoding.kernels, POSITION_KERNELS, strict=True):
            assert isinstance(kernel, torch.nn.Conv2d)
            expected = expected + conv2d(square, kernel.weight, kernel.bias, padding=size // 2, groups=L)
        torch.testing.assert_close(found[bag, : side * side], expected.reshape(L, side * side).T)
        assert not found[bag, side * side :].any()


def test_a_bag_is_filled_to_a_square_with_its_first_instances():
    torch.manual_seed(4)
    model = TransMIL(5, 8, 2, heads=2).double()
    X = torch.randn(1, 7, 5, dtype=torch.float64)
    filled = torch.cat([X, X[:, :2]], dim=1)  # nine tokens
    torch.testing.assert_close(model(X, everywhere(7))["logits"], model(filled, everywhere(9))["logits"])
    swapped = X[:, [1, 0, *range(2, 7)]]
    assert not torch.allclose(model(X, everywhere(7))["logits"], model(swapped, everywhere(7))["logits"])
