"""Key importance, segment sort and gathering against naive float64 code written here."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError, MissingHardwareError
from common.kernels.checks import interpreted
from common.kernels.segment_sort import gather_keys_values, key_importance, segment_argsort
from common.kernels.segment_sort.triton import SEGMENT_SIZES
from tests.comparison import assert_close_rms

needs_interpreter = pytest.mark.skipif(
    not interpreted() or torch.cuda.is_available(), reason="needs TRITON_INTERPRET=1 on the CPU"
)
IMPLEMENTATIONS = ["reference", pytest.param("triton", marks=needs_interpreter)]
TOLERANCE = {
    torch.float32: 2e-6,
    torch.float16: 1e-5,
    torch.bfloat16: 1e-5,
}  # inputs are exact in float64: only the softmax rounds

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def importance(q, k, scale):
    """exp(logit) / sum of exp(logit), row by row, averaged."""
    out = torch.zeros(*q.shape[:2], k.shape[2], dtype=torch.float64, device=k.device)
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for row in q[b, h].double():
                logits = scale * (k[b, h // (q.shape[1] // k.shape[1])].double() @ row)
                weights = (logits - logits.max()).exp()
                out[b, h] += weights / weights.sum() / q.shape[2]
    return out


def tensors(B, H, Hk, M, N, D, dtype=torch.float32, device="cpu", seed=0):
    g = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(B, heads, rows, D, generator=g) for heads, rows in ((H, M), (Hk, N), (Hk, N)))
    return tuple(x.to(device, dtype) for x in (2 * q, k, v))


SHAPES = [  # B, H, Hk, M, Nk, D
    (1, 1, 1, 1, 1, 64),
    (1, 2, 2, 3, 15, 64),
    (2, 3, 1, 16, 127, 64),
    (1, 4, 1, 33, 300, 128),
    (1, 6, 2, 128, 129, 128),
    (1, 1, 1, 130, 1025, 64),
]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_key_importance(shape, dtype, implementation):
    q, k, _ = tensors(*shape, dtype=dtype)
    out = key_importance(q, k, 0.2, implementation=implementation)
    assert out.dtype == torch.float32
    assert_close_rms(out, importance(q, k, 0.2), TOLERANCE[dtype], "importance")


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_key_importance_of_strided_input(implementation):
    q, k, _ = tensors(1, 4, 2, 200, 200, 64)
    q = q.transpose(1, 2).contiguous().transpose(1, 2)[:, :, -20:]
    k = k.mT.contiguous().mT[:, :, :190]
    out = key_importance(q, k, implementation=implementation)
    assert_close_rms(out, importance(q, k, 64**-0.5), 2e-6, "importance")


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_key_importance_with_large_logits(implementation):
    q, k, _ = tensors(1, 1, 1, 20, 100, 64)
    out = key_importance(50 * q, k, 1.0, implementation=implementation)
    assert_close_rms(
        out, importance(50 * q, k, 1.0), 1e-3, "importance"
    )  # logits of thousands: float32 keeps 1e-4 of an exponent
    assert out.sum(-1).item() == pytest.approx(1.0, abs=1e-3)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.sampled_from([1, 2, 7, 16]), st.integers(0, 2**31))
def test_segment_argsort(heads, segments, size, seed):
    g = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 4, (2, heads, segments * size), generator=g).float()  # many ties
    order = segment_argsort(scores, size)
    assert order.dtype == torch.int32
    for row, places in zip(scores.view(-1, segments * size).tolist(), order.view(-1, segments * size).tolist(), strict=True):
        for start in range(0, segments * size, size):
            expected = sorted(range(start, start + size), key=lambda n: (-row[n], n))
            assert places[start : start + size] == expected


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(("H", "Hk", "Ho", "D"), [(1, 1, 1, 64), (4, 2, 2, 128), (4, 2, 4, 64), (6, 2, 6, 20)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_gather_keys_values(H, Hk, Ho, D, dtype, implementation):
    _, k, v = tensors(2, H, Hk, 1, 77, D, dtype=dtype)
    g = torch.Generator().manual_seed(1)
    order = torch.stack([torch.randperm(77, generator=g) for _ in range(2 * Ho)]).view(2, Ho, 77).int()
    k = k.transpose(1, 2).contiguous().transpose(1, 2)
    k_out, v_out = gather_keys_values(k, v, order, implementation=implementation)
    for b in range(2):
        for h in range(Ho):
            places = order[b, h].tolist()
            assert torch.equal(k_out[b, h], torch.stack([k[b, h // (Ho // Hk), n] for n in places]))
            assert torch.equal(v_out[b, h], torch.stack([v[b, h // (Ho // Hk), n] for n in places]))


def test_bad_input():
    q, k, v = tensors(1, 2, 2, 4, 10, 64)
    order = torch.zeros(1, 2, 10, dtype=torch.int32)
    for call, message in [
        (lambda: key_importance(q[0], k), r"q_last has shape \(2, 4, 64\); expected \[B, H, M, D\]"),
        (lambda: key_importance(q, k[:, :, :0]), "k has shape .* no size may be zero"),
        (lambda: key_importance(q, k.half()), "k is torch.float16 on cpu but q_last is torch.float32"),
        (lambda: key_importance(q, k[..., :32]), "batch and head dimension must agree"),
        (lambda: key_importance(q, k.repeat(1, 2, 1, 1)), "q_last has 2 heads and k 4"),
        (lambda: key_importance(q, k, -1.0), "scale is -1.0"),
        (lambda: key_importance(q, k, implementation="fast"), "implementation is 'fast'"),  # pyright: ignore[reportArgumentType]
        (lambda: segment_argsort(k[..., 0], 4), "covers 10 keys, which is not a multiple of segment_size 4"),
        (lambda: segment_argsort(k[..., 0], 0), "segment_size is 0"),
        (lambda: segment_argsort(k[..., 0], 5, implementation="triton"), "segment_size 5; the Triton kernel takes"),
        (lambda: segment_argsort(k, 5), r"importance has shape .* expected \[B, H, Ns\]"),
        (lambda: segment_argsort(order, 5), "importance has dtype torch.int32"),
        (lambda: gather_keys_values(k, v[:, :1], order), r"v \(1, 1, 10, 64\); they must agree"),
        (lambda: gather_keys_values(k, v.half(), order), "v is torch.float16"),
        (lambda: gather_keys_values(k, v, order.long()), "order is torch.int64"),
        (lambda: gather_keys_values(k, v, order[..., :9]), r"expected int32 \[1, heads, 10\]"),
        (lambda: gather_keys_values(k, v, order[:, :1]), "order has 1 heads and k 2"),
        (lambda: gather_keys_values(k, v, order + 10), r"values from 10 to 10; they must lie in \[0, 10\)"),
        (lambda: gather_keys_values(k, v, order.to("meta")), "order is on meta and k on cpu"),
    ]:
        with pytest.raises(InputError, match=message):
            call()


@needs_interpreter
def test_what_the_kernel_does_not_take():
    q, k, _ = tensors(1, 1, 1, 4, 10, 80)
    with pytest.raises(InputError, match="head dimension 80"):
        key_importance(q, k, implementation="triton")
    with pytest.raises(InputError, match="float64"):
        key_importance(q.double(), k.double(), implementation="triton")


def test_triton_on_the_cpu_needs_the_interpreter(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    q, k, v = tensors(1, 1, 1, 4, 10, 64)
    with pytest.raises(MissingHardwareError, match="TRITON_INTERPRET"):
        key_importance(q, k, implementation="triton")
    with pytest.raises(MissingHardwareError, match="TRITON_INTERPRET"):
        gather_keys_values(k, v, torch.zeros(1, 1, 10, dtype=torch.int32), implementation="triton")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [*SHAPES, (1, 8, 2, 128, 5000, 128)], ids=str)
def test_key_importance_on_gpu(shape, dtype):
    q, k, _ = tensors(*shape, dtype=dtype, device="cuda")
    assert_close_rms(key_importance(q, k, 0.2), importance(q, k, 0.2), 2e-5, "importance")


@pytest.mark.gpu
@pytest.mark.parametrize(("N", "Ho"), [(1, 2), (5000, 2), (5000, 8)])
def test_gather_keys_values_on_gpu(N, Ho):
    _, k, v = tensors(2, 2, 2, 1, N, 128, dtype=torch.bfloat16, device="cuda")
    order = torch.rand(2, Ho, N, device="cuda").argsort(-1).int()
    k_out, v_out = gather_keys_values(k, v, order)
    for h in range(Ho):
        source = h // (Ho // 2)
        for b in range(2):
            assert torch.equal(k_out[b, h], k[b, source, order[b, h].long()])
            assert torch.equal(v_out[b, h], v[b, source, order[b, h].long()])


def awkward_scores(dtype, length):
    """Ties, signs, zeros of both signs, infinities, numbers too small to be normal, NaN."""
    g = torch.Generator().manual_seed(length)
    scores = torch.randint(-3, 4, (2, 3, length), generator=g).to(dtype)
    special = torch.tensor([0.0, -0.0, float("inf"), -float("inf"), 1e-40, -1e-40, float("nan"), 1e-7], dtype=dtype)
    scores[:, 1, ::3] = special[torch.arange(len(scores[0, 1, ::3])) % len(special)]
    return scores


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [16, 128, 256])
def test_argsort_kernel_equals_torch(size, dtype):
    scores = awkward_scores(dtype, 3 * size).to(DEVICE)
    expected = segment_argsort(scores, size, implementation="reference")
    assert torch.equal(segment_argsort(scores, size, implementation="triton"), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("size", SEGMENT_SIZES)
def test_argsort_kernel_on_gpu(size):
    scores = awkward_scores(torch.float32, 40 * size).cuda()
    assert torch.equal(segment_argsort(scores, size).cpu(), segment_argsort(scores.cpu(), size))
