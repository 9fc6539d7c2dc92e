"""Block maxima of the attention map against the whole map in float64, computed row by row here."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

from common.errors import InputError, MissingHardwareError
from common.kernels.attention_block_max import attention_block_max, attention_block_max_reference
from common.kernels.attention_block_max import triton as kernel
from common.kernels.checks import interpreted
from tests.comparison import assert_close_rms

needs_interpreter = pytest.mark.skipif(
    not interpreted() or torch.cuda.is_available(), reason="needs TRITON_INTERPRET=1 on the CPU"
)
IMPLEMENTATIONS = ["reference", pytest.param("triton", marks=needs_interpreter)]
# Inputs are exact in float64, and the probabilities are float32 whatever the inputs are; the output has the dtype of q.
MAXIMA_TOLERANCE = 2e-6
OUTPUT_TOLERANCE = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def expected_of(q, k, v, block_size, causal=True, scale=None):
    """The maxima and the output: exp(logit - largest) / sum, one query at a time."""
    q, k, v = q.double(), k.double(), v.double()
    B, H, N, D = q.shape
    T = -(-N // block_size)
    maxima = q.new_zeros(B, H, T, T)
    o = torch.zeros_like(q)
    for h in range(H):
        kh = h // (H // k.shape[1])
        for r in range(N):
            seen = r + 1 if causal else N
            logits = (D**-0.5 if scale is None else scale) * (k[:, kh, :seen] @ q[:, h, r, :, None])[..., 0]  # [B, seen]
            weights = (logits - logits.amax(1, keepdim=True)).exp()
            weights = weights / weights.sum(1, keepdim=True)
            o[:, h, r] = (weights[..., None] * v[:, kh, :seen]).sum(1)
            for j, block in enumerate(weights.split(block_size, dim=1)):
                entry = maxima[:, h, r // block_size, j]
                entry.copy_(torch.maximum(entry, block.amax(1)))
    return maxima, o


def make(N, *, B=1, H=2, Hk=2, D=64, dtype=torch.float32, device="cpu", seed=0):
    """Queries long enough that the largest probabilities lie between 0.1 and 1."""
    g = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(B, heads, N, D, generator=g) for heads in (H, Hk, Hk))
    return tuple(x.to(device, dtype) for x in (3 * q, k, v))


def check(N, implementation, *, block_size=64, causal=True, **shape):
    """With values and without, against `expected_of`."""
    q, k, v = make(N, **shape)
    maxima, o = attention_block_max(q, k, v, block_size=block_size, causal=causal, implementation=implementation)
    expected_maxima, expected_o = expected_of(q, k, v, block_size, causal)
    what = f"N={N}, block_size={block_size}, causal={causal}, {shape}"
    assert maxima.dtype == torch.float32
    assert o.dtype == q.dtype
    assert o.is_contiguous()
    assert_close_rms(maxima, expected_maxima, MAXIMA_TOLERANCE, f"maxima ({what})")
    assert_close_rms(o, expected_o, OUTPUT_TOLERANCE[q.dtype], f"o ({what})")
    if causal:
        assert not maxima.triu(1).any()
    without_values = attention_block_max(q, k, block_size=block_size, causal=causal, implementation=implementation)
    assert_close_rms(without_values, expected_maxima, MAXIMA_TOLERANCE, f"maxima without values ({what})")


@pytest.fixture
def poisoned(monkeypatch):
    """torch.empty hands out NaN, so that an element nobody writes, or that is read unwritten, is seen."""
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: _fill(empty(*a, **k)))


def _fill(x):
    return x.fill_(float("nan")) if x.is_floating_point() else x


LENGTHS = [1, 15, 63, 64, 100, 130]
HEADS = {"mha": (2, 2), "gqa3": (3, 1), "gqa2-of-4": (4, 2)}


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "full"])
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("N", LENGTHS)
def test_reference(N, heads, causal):
    H, Hk = HEADS[heads]
    check(N, "reference", block_size=32, causal=causal, B=2, H=H, Hk=Hk)


@pytest.mark.parametrize(("D", "block_size"), [(8, 10), (80, 1), (64, 300)])
def test_reference_takes_any_size_and_float64(D, block_size):
    q, k, v = (x.double() for x in make(75, D=D))
    maxima, o = attention_block_max(q, k, v, block_size=block_size)
    expected_maxima, expected_o = expected_of(q, k, v, block_size)
    assert maxima.dtype == o.dtype == torch.float64
    assert_close_rms(maxima, expected_maxima, 1e-12, "maxima")
    assert_close_rms(o, expected_o, 1e-12, "o")


@needs_interpreter
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "full"])
@pytest.mark.parametrize("N", LENGTHS)
def test_kernel_lengths(N, causal, dtype, poisoned):
    check(N, "triton", causal=causal, H=2, Hk=1, dtype=dtype)


@needs_interpreter
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("block_size", kernel.BLOCK_SIZES)
def test_kernel_block_sizes_and_heads(block_size, heads, poisoned):
    H, Hk = HEADS[heads]
    check(130, "triton", block_size=block_size, B=2 if Hk == 1 else 1, H=H, Hk=Hk, dtype=torch.float16)


CONFIGURATIONS = {
    f"{dtype}-D{D}-block{block_size}-{layout}": (dtype, D, block_size, layout)
    for (_, dtype, D, block_size), layout in kernel.CONFIGURATIONS.items()
    if dtype != torch.bfloat16
}  # the interpreter's own bfloat16 product is wrong: those run on a GPU


@needs_interpreter
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_configuration(name, poisoned):
    dtype, D, block_size, layout = CONFIGURATIONS[name]
    q, k, v = make(block_size + block_size // 2 + 3, H=1, Hk=1, D=D, dtype=dtype)
    maxima, o = kernel.attention_block_max_triton(q, k, v, block_size=block_size, layout=layout)
    assert o is not None
    expected_maxima, expected_o = expected_of(q, k, v, block_size)
    assert_close_rms(maxima, expected_maxima, MAXIMA_TOLERANCE, f"maxima of {name}")
    assert_close_rms(o, expected_o, OUTPUT_TOLERANCE[dtype], f"o of {name}")


@needs_interpreter
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_programs_share_the_tiles_without_changing_a_bit(dtype, poisoned):
    q, k, v = make(290, H=3, Hk=1, dtype=dtype)
    first_maxima, first_o = kernel.attention_block_max_triton(q, k, v, block_size=32, programs=1)
    assert_close_rms(first_maxima, expected_of(q, k, v, 32)[0], MAXIMA_TOLERANCE, "maxima")
    assert first_o is not None
    for programs in (2, 7, 10**6):
        maxima, o = kernel.attention_block_max_triton(q, k, v, block_size=32, programs=programs)
        assert torch.equal(maxima, first_maxima)
        assert o is not None
        assert torch.equal(o, first_o)


@needs_interpreter
@pytest.mark.parametrize("block_size", [16, 128])
def test_more_columns_than_are_read_at_once(block_size, poisoned, monkeypatch):
    monkeypatch.setattr(kernel, "CHUNK", 8 if block_size == 16 else 2)
    check(390, "triton", block_size=block_size, H=1, Hk=1, dtype=torch.float16)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("sign", [1, -1], ids=["peaked", "all logits far below zero"])
def test_logits_of_several_hundred(sign, dtype, implementation):
    q, k, v = make(100, dtype=dtype)
    q, k = (12 * q.abs(), k.abs()) if sign == 1 else (-12 * q.abs(), k.abs())
    logits = q[0, 0].double() @ k[0, 0].double().T * 64**-0.5
    assert logits.abs().median() > 150
    maxima, o = attention_block_max(q, k, v, block_size=16, implementation=implementation)
    expected_maxima, expected_o = expected_of(q, k, v, 16)
    # float32 keeps about 1e-4 of a base-2 exponent near 1000.
    assert_close_rms(maxima, expected_maxima, 1e-4, "maxima")
    assert maxima.max() <= 1 + 1e-4
    assert_close_rms(o, expected_o, max(1e-4, OUTPUT_TOLERANCE[dtype]), "o")


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "full"])
def test_scale(causal, implementation):
    q, k, v = make(70)
    maxima, o = attention_block_max(q, k, v, block_size=32, causal=causal, scale=0.31, implementation=implementation)
    expected_maxima, expected_o = expected_of(q, k, v, 32, causal, scale=0.31)
    assert_close_rms(maxima, expected_maxima, 5e-6, "maxima")
    assert_close_rms(o, expected_o, 5e-6, "o")


def non_contiguous(x, kind):
    """The same values laid out differently."""
    if kind == "length first":
        return x.transpose(1, 2).contiguous().transpose(1, 2)
    if kind == "cut from wider rows":
        return torch.cat([x, x], dim=-1)[..., : x.shape[-1]]
    if kind == "off by one element":
        return torch.cat([x[..., :1], x], dim=-1)[..., 1:]
    if kind == "head dim not last in memory":
        return x.mT.contiguous().mT
    return x[:, :1].expand_as(x)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    "kind", ["length first", "cut from wider rows", "off by one element", "head dim not last in memory", "expanded heads"]
)
def test_strides(kind, implementation):
    q, k, v = (non_contiguous(x, kind) for x in make(100, H=4, Hk=2, dtype=torch.float16))
    assert not q.is_contiguous()
    maxima, o = attention_block_max(q, k, v, block_size=32, implementation=implementation)
    expected_maxima, expected_o = expected_of(q, k, v, 32)
    assert_close_rms(maxima, expected_maxima, MAXIMA_TOLERANCE, f"maxima from {kind}")
    assert_close_rms(o, expected_o, 1e-3, f"o from {kind}")
    assert o.is_contiguous()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_two_runs_give_the_same_bits(implementation):
    q, k, v = make(130, dtype=torch.float16)
    first, second = (attention_block_max(q, k, v, implementation=implementation) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_future_keys_do_not_matter(implementation):
    q, k, v = make(96, H=1, Hk=1)
    before = attention_block_max(q, k, v, block_size=16, implementation=implementation)
    k[:, :, 48:], v[:, :, 48:] = 1e4, -1e4
    after = attention_block_max(q, k, v, block_size=16, implementation=implementation)
    assert torch.equal(before[0][:, :, :3], after[0][:, :, :3])
    assert torch.equal(before[1][:, :, :48], after[1][:, :, :48])
    assert not torch.equal(before[0], after[0])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_nan_is_seen_where_it_matters_and_nowhere_else(implementation):
    q, k, v = make(100, H=1, Hk=1)
    k[0, 0, 40, 3] = float("nan")  # rows from 40 on see it, that is the query blocks from 2 on
    maxima, o = attention_block_max(q, k, v, block_size=16, implementation=implementation)
    lower = torch.ones(7, 7, dtype=torch.bool).tril()
    assert torch.equal(maxima[0, 0].isnan(), lower & (torch.arange(7) >= 2)[:, None])
    assert torch.equal(o[0, 0].isnan().all(1), torch.arange(100) >= 40)
    assert not o[0, 0, :40].isnan().any()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 90), st.integers(1, 40), st.integers(1, 3), st.booleans(), st.integers(0, 2**31))
def test_max_pooling_of_the_whole_map(N, block_size, group, causal, seed):
    q, k, v = make(N, H=2 * group, Hk=2, D=8, seed=seed)
    maxima, o = attention_block_max(q, k, v, block_size=block_size, causal=causal)
    p = attention_block_max(q, k, block_size=1, causal=causal)  # blocks of one entry: the map itself
    pooled = torch.nn.functional.max_pool2d(p, block_size, ceil_mode=True)
    torch.testing.assert_close(maxima, pooled, rtol=1e-5, atol=0)
    torch.testing.assert_close(p.sum(-1), torch.ones_like(p[..., 0]))
    torch.testing.assert_close(
        o, scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True), rtol=1e-4, atol=1e-5
    )


class LargestTensor(TorchDispatchMode):
    """Notes how many elements the largest tensor has that an operation returns."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else (out,):
            if isinstance(x, torch.Tensor):
                self.elements = max(self.elements, x.numel())
        return out


@pytest.mark.parametrize("blocks_at_once", [1, 3, 100])
def test_the_reference_holds_a_bounded_part_of_the_map(blocks_at_once):
    N, H, block_size = 400, 4, 16
    q, k, v = make(N, H=H, Hk=2, D=8)
    block_of_rows = H * N * block_size
    with LargestTensor() as largest:
        maxima, o = attention_block_max_reference(
            q, k, v, block_size=block_size, chunk_bytes=4 * block_of_rows * blocks_at_once
        )
    assert o is not None
    assert largest.elements <= max(q.numel(), block_of_rows * min(blocks_at_once, N // block_size))
    whole = attention_block_max_reference(q, k, v, block_size=block_size)
    assert_close_rms(maxima, whole[0], 1e-6, "maxima")
    assert whole[1] is not None
    assert_close_rms(o, whole[1], 1e-6, "o")


def test_the_reference_never_holds_less_than_a_block():
    q, k, v = make(100)
    maxima, _ = attention_block_max_reference(q, k, v, block_size=32, chunk_bytes=1)
    assert_close_rms(maxima, expected_of(q, k, v, 32)[0], MAXIMA_TOLERANCE, "maxima")


@pytest.mark.parametrize("with_values", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
def test_torch_compile_keeps_it_whole(with_values, dtype):
    q, k, v = make(70, dtype=dtype)
    operator = torch.ops.reattend.attention_block_max
    arguments = (q, k, v if with_values else None, 32, True, 0.125, "reference")
    torch.library.opcheck(operator, arguments, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("output", [0, 1], ids=["maxima", "o"])
def test_backward_raises(output):
    q, k, v = make(40)
    out = attention_block_max(q.requires_grad_(), k, v)[output]
    with pytest.raises(RuntimeError, match="autograd"):
        out.sum().backward()


# Bad input: (what is changed, what the message must name).
BAD_INPUT = {
    "q with three dimensions": ({"q": torch.zeros(2, 70, 64)}, r"q has shape \(2, 70, 64\); expected \[B, H, N, D\]"),
    "integer k": ({"k": torch.zeros(1, 2, 70, 64, dtype=torch.int64)}, "k has dtype torch.int64"),
    "empty v": ({"v": torch.zeros(1, 2, 0, 64)}, "v has shape .* no size may be zero"),
    "dtype of v": ({"v": torch.zeros(1, 2, 70, 64).half()}, "v is torch.float16 on cpu but q is torch.float32"),
    "length of k": ({"k": torch.zeros(1, 2, 71, 64)}, r"q has shape \(1, 2, 70, 64\) and k \(1, 2, 71, 64\); they must agree"),
    "head dimension of v": ({"v": torch.zeros(1, 2, 70, 32)}, r"and v \(1, 2, 70, 32\); they must agree"),
    "heads of v": ({"v": torch.zeros(1, 1, 70, 64)}, r"k has shape \(1, 2, 70, 64\) and v \(1, 1, 70, 64\); they must agree"),
    "heads": ({"k": torch.zeros(1, 3, 70, 64), "v": torch.zeros(1, 3, 70, 64)}, "q has 2 heads and k 3"),
    "block_size 0": ({"block_size": 0}, "block_size is 0; it must be a positive integer"),
    "block_size not an integer": ({"block_size": 32.0}, "block_size is 32.0"),
    "causal": ({"causal": 1}, "causal is 1; it must be True or False"),
    "scale": ({"scale": float("nan")}, "scale is nan"),
    "implementation": ({"implementation": "cuda"}, "implementation is 'cuda'; choose"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input(case):
    change, message = BAD_INPUT[case]
    q, k, v = make(70)
    arguments = {"q": q, "k": k, "v": v, "block_size": 32, **change}
    with pytest.raises(InputError, match=message):
        attention_block_max(**arguments)


@needs_interpreter
@pytest.mark.parametrize(
    ("D", "dtype", "block_size", "message"),
    [
        (80, torch.float32, 32, "head dimension 80; the Triton kernel takes 64 and 128"),
        (64, torch.float64, 32, "float64; the Triton kernel takes"),
        (64, torch.float32, 48, "block_size is 48; the Triton kernel takes 16, 32, 64, 128"),
    ],
)
def test_what_the_kernel_does_not_take(D, dtype, block_size, message):
    q, k, _ = make(70, D=D, dtype=dtype)
    with pytest.raises(InputError, match=message):
        attention_block_max(q, k, block_size=block_size, implementation="triton")


def test_triton_on_the_cpu_needs_the_interpreter(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    q, k, _ = make(70)
    with pytest.raises(MissingHardwareError, match="needs tensors on a CUDA device, not on cpu"):
        attention_block_max(q, k, implementation="triton")


def dense(q, k, v, block_size, causal):
    """The whole map in float64, max-pooled: as `expected_of`, for lengths that it would take too long for."""
    group = q.shape[1] // k.shape[1]
    K, V = (x.double().repeat_interleave(group, dim=1) for x in (k, v))
    logits = q.double() @ K.mT * q.shape[-1] ** -0.5
    if causal:
        future = torch.ones(logits.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        logits = logits.masked_fill(future, float("-inf"))
    p = logits.softmax(-1)
    return torch.nn.functional.max_pool2d(p, block_size, ceil_mode=True), p @ V


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("D", [64, 128])
@pytest.mark.parametrize("block_size", kernel.BLOCK_SIZES)
def test_kernel_on_gpu(block_size, D, dtype, poisoned):
    for N in (1, 15, 63, 128, 129, 1000, 4097):
        for B, H, Hk, causal in ((1, 2, 2, True), (2, 3, 1, True), (1, 4, 2, False)):
            q, k, v = make(N, B=B, H=H, Hk=Hk, D=D, dtype=dtype, device="cuda")
            expected_maxima, expected_o = dense(q, k, v, block_size, causal)
            maxima, o = attention_block_max(q, k, v, block_size=block_size, causal=causal)
            what = f"N={N}, heads {H}/{Hk}, causal={causal}"
            assert_close_rms(maxima, expected_maxima, 1e-5, f"maxima ({what})")
            assert_close_rms(o, expected_o, OUTPUT_TOLERANCE[dtype], f"o ({what})")
            without_values = attention_block_max(q, k, block_size=block_size, causal=causal)
            assert_close_rms(without_values, expected_maxima, 1e-5, f"maxima without values ({what})")


@pytest.mark.gpu
@pytest.mark.parametrize("block_size", [16, 64, 128])
def test_fifty_runs_on_gpu_give_the_same_bits(block_size):
    """More tiles than programs: a program that read another warp's row maxima too early would not repeat itself."""
    q, k, v = make(4097, H=32, Hk=8, D=128, dtype=torch.bfloat16, device="cuda")
    maxima, o = attention_block_max(q, k, v, block_size=block_size)
    for _ in range(50):
        again = attention_block_max(q, k, v, block_size=block_size)
        assert torch.equal(again[0], maxima)
        assert torch.equal(again[1], o)


@pytest.mark.gpu
def test_memory_on_gpu_grows_with_the_length_and_not_its_square():
    def extra(N):
        q, k, v = make(N, H=32, Hk=8, D=128, dtype=torch.bfloat16, device="cuda")
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        maxima, o = attention_block_max(q, k, v, block_size=64)
        results = maxima.numel() * maxima.itemsize + o.numel() * o.itemsize
        return torch.cuda.max_memory_allocated() - before - results

    short, long = extra(8192), extra(32768)
    assert 0 < long <= 4.1 * short
    assert long < 32 * 32768 * (32768 // 64) * 4  # row maxima of every head at once
