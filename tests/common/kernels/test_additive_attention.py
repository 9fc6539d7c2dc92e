"""Additive attention scores and their gradients against naive float64 code written here."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError, MissingHardwareError
from common.kernels.additive_attention import additive_attention
from common.kernels.checks import Implementation, interpreted
from tests.comparison import assert_close_rms

needs_interpreter = pytest.mark.skipif(
    not interpreted() or torch.cuda.is_available(), reason="needs TRITON_INTERPRET=1 on the CPU"
)
IMPLEMENTATIONS = ["reference", pytest.param("triton", marks=needs_interpreter)]
# Inputs are exact in float64: only tanh and sums in float32 round, and the gradients' last rounding to the dtype.
SCORES = 2e-6
GRADIENTS = {torch.float32: 2e-6, torch.float16: 6e-4, torch.bfloat16: 5e-3}

SHAPES = [  # B, M, N, D
    (1, 1, 1, 1),
    (2, 1, 70, 16),
    (3, 5, 6, 20),
    (1, 17, 33, 48),
    (2, 40, 3, 130),
]


def tensors(B, M, N, D, dtype=torch.float32, device="cpu", seed=0, spread=1.0):
    """q, k, weight, and a gradient of the scores in float32."""
    g = torch.Generator().manual_seed(seed)
    q, k, weight, du = (torch.randn(shape, generator=g) for shape in ((B, M, D), (B, N, D), (D,), (B, M, N)))
    q, k, weight = (x.to(device, dtype) for x in (spread * q, spread * k, weight))
    return q, k, weight, du.to(device)


def naive(q, k, weight, du):
    """Scores and gradients of q, k and weight, one pair at a time."""
    q, k, weight, du = (x.double() for x in (q, k, weight, du))
    u = torch.zeros_like(du)
    dq, dk, dweight = (torch.zeros_like(x) for x in (q, k, weight))
    for b in range(q.shape[0]):
        for i in range(q.shape[1]):
            for j in range(k.shape[1]):
                t = torch.tanh(q[b, i] + k[b, j])
                u[b, i, j] = (weight * t).sum()
                slope = du[b, i, j] * weight * (1 - t**2)
                dq[b, i] += slope
                dk[b, j] += slope
                dweight += du[b, i, j] * t
    return u, dq, dk, dweight


def results(q, k, weight, du, implementation: Implementation = "auto"):
    leaves = [x.detach().requires_grad_() for x in (q, k, weight)]
    u = additive_attention(*leaves, implementation=implementation)
    return (u.detach(), *torch.autograd.grad(u, leaves, du))


def check(actual, expected, dtypes):
    u, dq, dk, dweight = actual
    assert u.dtype == torch.float32
    assert (dq.dtype, dk.dtype, dweight.dtype) == (dtypes[0], dtypes[0], dtypes[1])
    assert_close_rms(u, expected[0], SCORES, "scores")
    for name, x, wanted, dtype in zip(("dq", "dk", "dweight"), actual[1:], expected[1:], (dtypes[0], *dtypes), strict=True):
        assert_close_rms(x, wanted, GRADIENTS[dtype], name)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scores_and_gradients(shape, dtype, implementation):
    inputs = tensors(*shape, dtype=dtype)
    check(results(*inputs, implementation=implementation), naive(*inputs), (dtype, dtype))


@needs_interpreter
@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31))
def test_kernel_of_any_shape(B, M, N, D, seed):
    q, k, weight, du = tensors(B, M, N, D, seed=seed)
    exact = results(*(x.double() for x in (q, k, weight, du)), implementation="reference")
    check(results(q, k, weight, du, implementation="triton"), exact, (torch.float32, torch.float32))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_weight_of_another_dtype(implementation):
    q, k, weight, du = tensors(2, 3, 4, 24, dtype=torch.float16)
    weight = weight.float() * 1.0001
    check(results(q, k, weight, du, implementation=implementation), naive(q, k, weight, du), (torch.float16, torch.float32))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_strided_input(implementation):
    q, k, weight, du = tensors(2, 9, 11, 32)
    q = q.transpose(1, 2).contiguous().transpose(1, 2)
    k = torch.cat([k, k], dim=2)[:, :, :32]
    weight = torch.stack([weight, weight], dim=1)[:, 0]
    du = du.transpose(1, 2).contiguous().transpose(1, 2)
    check(results(q, k, weight, du, implementation=implementation), naive(q, k, weight, du), (torch.float32, torch.float32))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_an_expanded_gradient(implementation):
    q, k, weight, _ = tensors(2, 3, 4, 16)
    leaves = [x.requires_grad_() for x in (q, k, weight)]
    additive_attention(*leaves, implementation=implementation).sum().backward()
    _, dq, dk, dweight = naive(q.detach(), k.detach(), weight.detach(), torch.ones(2, 3, 4))
    for name, leaf, wanted in zip(("dq", "dk", "dweight"), leaves, (dq, dk, dweight), strict=True):
        assert leaf.grad is not None
        assert_close_rms(leaf.grad, wanted, 2e-6, name)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp2")  # meant to: e^2x is infinite and tanh is 1
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("size", [100.0, 1e30])
def test_saturated_units(size, implementation):
    check_saturated_units(size, "cpu", implementation)


@pytest.mark.gpu
@pytest.mark.parametrize("size", [100.0, 1e30])
def test_saturated_units_on_gpu(size):
    check_saturated_units(size, "cuda", "triton")


def check_saturated_units(size, device, implementation):
    q = torch.tensor([[[size, -size, size, 0.0]]], device=device)
    k = torch.tensor([[[size, -size, -size, 0.5]]], device=device)
    weight, du = torch.tensor([1.0, 2.0, 4.0, 8.0], device=device), torch.ones(1, 1, 1, device=device)
    u, dq, _, dweight = results(q, k, weight, du, implementation)
    t = torch.tensor(0.5, dtype=torch.float64).tanh().item()
    assert u.item() == pytest.approx(1 - 2 + 0 + 8 * t, rel=1e-6)
    assert dq[0, 0].tolist() == pytest.approx([0, 0, 4, 8 * (1 - t**2)], rel=1e-6)
    assert dweight.tolist() == pytest.approx([1, -1, 0, t], rel=1e-6)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_small_units_keep_an_absolute_error_of_float32(implementation):
    q, k, _, _ = tensors(1, 20, 20, 1, spread=1e-3)
    u = additive_attention(q, k, torch.ones(1), implementation=implementation)
    exact = torch.tanh(q.double()[:, :, None, 0] + k.double()[:, None, :, 0])
    assert float((u - exact).abs().max()) < 2.5e-7


def test_reference_keeps_float64():
    leaves = [x.double().requires_grad_() for x in tensors(2, 3, 4, 5)[:3]]
    assert torch.autograd.gradcheck(lambda q, k, w: additive_attention(q, k, w, implementation="reference"), leaves)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_autocast_does_not_round_the_scores(implementation):
    q, k, weight, _ = tensors(2, 3, 4, 16)
    exact = additive_attention(q, k, weight, implementation=implementation)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(additive_attention(q, k, weight, implementation=implementation), exact)


@needs_interpreter
def test_the_kernel_gives_the_same_bits_twice():
    inputs = tensors(3, 35, 40, 50)
    for first, second in zip(*(results(*inputs, implementation="triton") for _ in range(2)), strict=True):
        assert torch.equal(first, second)


@needs_interpreter
def test_operators_keep_the_rules_of_torch():
    q, k, weight, du = tensors(2, 3, 4, 16)
    leaves = tuple(x.requires_grad_() for x in (q, k, weight))
    torch.library.opcheck(torch.ops.reattend.additive_attention, leaves)
    torch.library.opcheck(torch.ops.reattend.additive_attention_backward, (q.detach(), k.detach(), weight.detach(), du))


def test_bad_input(monkeypatch):
    q, k, weight, _ = tensors(2, 3, 4, 16)
    for call, message in [
        (lambda: additive_attention(q[0], k, weight), r"q has shape \(3, 16\); expected \[B, M, D\]"),
        (lambda: additive_attention(q, k[:, :0], weight), "k has shape .* no size may be zero"),
        (lambda: additive_attention(q, k.half(), weight), "k is torch.float16 on cpu but q is torch.float32"),
        (lambda: additive_attention(q, k[:1], weight), "batch and hidden size must agree"),
        (lambda: additive_attention(q, k[..., :8], weight), "batch and hidden size must agree"),
        (lambda: additive_attention(q, k, weight[:8]), r"weight has shape \(8,\) on cpu; expected \(16,\) on cpu"),
        (lambda: additive_attention(q, k, weight.int()), "weight has dtype torch.int32; expected a floating-point dtype"),
        (lambda: additive_attention(q, k, weight.to("meta")), r"weight has shape \(16,\) on meta"),
    ]:
        with pytest.raises(InputError, match=message):
            call()
    if not torch.cuda.is_available():
        double = (x.double() for x in (q, k, weight))
        monkeypatch.setenv("TRITON_INTERPRET", "1")
        with pytest.raises(InputError, match=r"q has dtype torch\.float64; the Triton kernel takes float16, bfloat16 and"):
            additive_attention(*double, implementation="triton")
        monkeypatch.setenv("TRITON_INTERPRET", "0")
        with pytest.raises(MissingHardwareError, match="implementation='triton' needs tensors on a CUDA device"):
            additive_attention(q, k, weight, implementation="triton")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [*SHAPES, (8, 22, 51, 512), (4, 265, 51, 256), (64, 1, 501, 256)], ids=str)
def test_scores_and_gradients_on_gpu(shape, dtype):
    q, k, weight, du = tensors(*shape, dtype=dtype, device="cuda")
    exact = results(*(x.double() for x in (q, k, weight, du)), implementation="reference")
    check(results(q, k, weight, du), exact, (dtype, dtype))


@pytest.mark.gpu
def test_twenty_runs_on_gpu_give_the_same_bits():
    inputs = tensors(16, 30, 51, 256, dtype=torch.bfloat16, device="cuda")
    first = results(*inputs)
    for _ in range(20):
        assert all(torch.equal(x, y) for x, y in zip(first, results(*inputs), strict=True))


@pytest.mark.gpu
def test_memory_on_gpu_is_that_of_inputs_and_outputs():
    q, k, weight, du = tensors(128, 265, 51, 256, dtype=torch.bfloat16, device="cuda")
    results(q, k, weight, du)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    results(q, k, weight, du)
    assert torch.cuda.max_memory_allocated() - before < 128 * 265 * 51 * 256 * 2 / 8


@pytest.mark.gpu
def test_torch_compile_on_gpu():
    inputs = tensors(2, 5, 6, 64, device="cuda")
    leaves = [x.requires_grad_() for x in inputs[:3]]

    def run(q, k, weight):
        return additive_attention(2 * q, k, weight).softmax(-1)

    torch.testing.assert_close(torch.compile(run, fullgraph=True)(*leaves), run(*leaves))
