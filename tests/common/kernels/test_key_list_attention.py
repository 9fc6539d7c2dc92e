"""Attention over listed key blocks: reference against float64 softmax over a mask, the kernel against both."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError, MissingHardwareError
from common.kernels import checks
from common.kernels.block_sparse_attention import BlockLists
from common.kernels.key_list_attention import key_list_attention, key_list_attention_reference
from common.kernels.key_list_attention import triton as kernel
from tests.comparison import assert_close_rms

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
interpreted = pytest.mark.skipif(not checks.interpreted(), reason="the GPU tests cover it")


def problem(
    N, T=None, B=1, H=2, Hk=1, D=64, block_q=16, block_k=2, sink=5, window=9, L=6, dtype=torch.float32, seed=0, device="cpu"
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Tensors and random lists of blocks between sink and window: what `key_list_attention` takes, and the settings."""
    T = T or N
    g = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(B, h, length, D, generator=g).to(dtype).to(device) for h, length in ((H, N), (Hk, T), (Hk, T)))
    first_query = torch.arange(T - N, T, block_q)
    searched = (first_query - window - sink).clamp_min(0) // block_k
    rows = len(first_query)
    draw = torch.rand(B, H, rows, max(int(searched.max()), L), generator=g)
    draw = draw.masked_fill(torch.arange(draw.shape[3]) >= searched[:, None], 2.0)
    counts = (torch.rand(B, H, rows, generator=g) * (searched.clamp_max(L) + 1)).int()
    chosen = draw.argsort(-1)[..., :L]
    past = int(searched.max()) + L
    indices = chosen.masked_fill(torch.arange(L) >= counts[..., None], past).sort(-1).values
    indices = indices.masked_fill(torch.arange(L) >= counts[..., None], 0).int()
    lists = BlockLists(counts.to(device), indices.to(device))
    starts = (sink + searched * block_k).int().to(device)
    return (q, k, v, lists, starts), {"block_q": block_q, "block_k": block_k, "sink": sink}


def visible(lists, starts, N, T, block_q, block_k, sink):
    """Which keys each query reads, from the definition: bool [B, H, N, T]."""
    B, H, rows = lists.counts.shape
    mask = torch.zeros(B, H, N, T, dtype=torch.bool)
    for b, h, i in itertools.product(range(B), range(H), range(rows)):
        keys = set(range(sink)) | set(range(int(starts[i]), T))
        for block in lists.indices[b, h, i, : int(lists.counts[b, h, i])].tolist():
            keys |= set(range(sink + block * block_k, sink + (block + 1) * block_k))
        for r in range(i * block_q, min((i + 1) * block_q, N)):
            mask[b, h, r, [c for c in keys if c <= T - N + r]] = True
    return mask


def expected_of(arguments, s, scale=None):
    """Softmax over the visible keys in float64."""
    q, k, v, lists, starts = arguments
    mask = visible(lists, starts, q.shape[2], k.shape[2], **s).to(q.device)
    K, V = (x.double().repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    logits = q.double() @ K.mT * (q.shape[3] ** -0.5 if scale is None else scale)
    return logits.masked_fill(~mask, float("-inf")).softmax(-1).nan_to_num() @ V


@pytest.mark.parametrize("implementation", ["reference", pytest.param("triton", marks=interpreted)])
@pytest.mark.parametrize(
    ("N", "T", "heads", "block_q", "block_k", "sink", "window"),
    [
        (101, 101, (1, 4, 2), 16, 2, 5, 9),
        (101, 101, (2, 3, 1), 32, 4, 0, 0),
        (70, 70, (1, 2, 2), 24, 3, 80, 5),  # the sink is longer than the text
        (1, 333, (2, 4, 1), 1, 2, 16, 40),  # decoding
        (37, 200, (1, 2, 1), 16, 8, 3, 20),
    ],
)
def test_the_output_is_a_softmax_over_the_visible_keys(implementation, N, T, heads, block_q, block_k, sink, window):
    B, H, Hk = heads
    arguments, s = problem(N, T, B, H, Hk, block_q=block_q, block_k=block_k, sink=sink, window=window)
    o = key_list_attention(*arguments, **s, implementation=implementation)
    assert o.dtype == torch.float32
    assert_close_rms(o, expected_of(arguments, s), 1e-6, "o")
    scaled = key_list_attention(*arguments, **s, scale=0.3, implementation=implementation)
    assert_close_rms(scaled, expected_of(arguments, s, 0.3), 1e-6, "o, scaled")


def test_float64_stays_float64_and_chunks_change_nothing():
    arguments, s = problem(101, dtype=torch.float64)
    o = key_list_attention(*arguments, **s)
    assert o.dtype == torch.float64
    assert_close_rms(o, expected_of(arguments, s), 1e-14, "o")
    q, k, v, lists, starts = arguments
    single = key_list_attention_reference(q, k, v, lists.counts, lists.indices, starts, **s, scale=0.125, chunk_bytes=1)
    torch.testing.assert_close(single, o, rtol=1e-12, atol=1e-12)


@interpreted
@pytest.mark.parametrize(("dtype", "D", "block_m"), [key for key in kernel.CONFIGURATIONS if key[0] != torch.bfloat16], ids=str)
def test_every_configuration_in_the_interpreter(dtype, D, block_m):
    arguments, s = problem(
        block_m + 9, 260, H=2, Hk=1, D=D, block_q=block_m - 5, sink=7, window=30, L=40, dtype=dtype, seed=block_m
    )
    o = key_list_attention(*arguments, **s, implementation="triton")
    assert o.dtype == dtype
    assert_close_rms(o, expected_of(arguments, s), TOLERANCE[dtype], "o")


@interpreted
@settings(max_examples=25, deadline=None)
@given(
    N=st.integers(1, 90), more=st.integers(0, 60), block_q=st.integers(1, 40), block_k=st.integers(1, 5),
    sink=st.integers(0, 20), window=st.integers(0, 20), L=st.integers(1, 30), seed=st.integers(0, 9),
)  # fmt: skip
def test_kernel_and_reference_agree(N, more, block_q, block_k, sink, window, L, seed):
    arguments, s = problem(
        N, N + more, block_q=block_q, block_k=block_k, sink=sink, window=window, L=L, seed=seed
    )  # fmt: skip
    expected = key_list_attention(*arguments, **s, implementation="reference")
    assert_close_rms(key_list_attention(*arguments, **s, implementation="triton"), expected, 1e-5, "o")


@pytest.mark.parametrize("implementation", ["reference", pytest.param("triton", marks=interpreted)])
def test_a_query_without_keys_gets_zeros(implementation):
    (q, k, v, lists, _), s = problem(20, sink=0)
    nothing = BlockLists(torch.zeros_like(lists.counts), lists.indices)
    starts = torch.full((2,), 18, dtype=torch.int32)
    o = key_list_attention(q, k, v, nothing, starts, **{**s, "sink": 0}, implementation=implementation)
    assert (o[:, :, :18] == 0).all()
    assert_close_rms(o[:, :, 18], v[:, :, 18].expand(1, 2, 64), 1e-6, "the first query with a key")


@pytest.mark.parametrize("implementation", ["reference", pytest.param("triton", marks=interpreted)])
def test_strided_inputs(implementation):
    (q, k, v, lists, starts), s = problem(50)
    expected = key_list_attention(q, k, v, lists, starts, **s)
    for strided in (lambda x: x.transpose(1, 2).contiguous().transpose(1, 2), lambda x: x.mT.contiguous().mT):
        o = key_list_attention(strided(q), strided(k), strided(v), lists, starts, **s, implementation=implementation)
        assert o.is_contiguous()
        assert_close_rms(o, expected, 1e-6, "o")


def test_a_backward_pass_raises():
    (q, k, v, lists, starts), s = problem(20)
    o = key_list_attention(q.requires_grad_(), k, v, lists, starts, **s)
    with pytest.raises(RuntimeError):
        o.sum().backward()


def test_bad_input_is_named():
    (q, k, v, lists, starts), s = problem(40)
    fewer_heads = replace(lists, counts=lists.counts[:, :1], indices=lists.indices[:, :1])
    cases = [
        ((q[0], k, v, lists, starts), {}, "q has shape"),
        ((q, k.double(), v, lists, starts), {}, "k is torch.float64"),
        ((q, k[:, :, 1:], v, lists, starts), {}, "at least as long as q"),
        ((q, k, v[:, :, 1:], lists, starts), {}, "v .* they must agree"),
        ((q.repeat(1, 2, 1, 1)[:, :3], k.repeat(1, 2, 1, 1), v.repeat(1, 2, 1, 1), lists, starts), {}, "3 heads and k 2"),
        ((q, k, v, fewer_heads, starts), {}, "lists are for batch"),
        ((q, k, v, lists, starts.long()), {}, "window_starts has dtype torch.int64"),
        ((q, k, v, lists, starts[:1]), {}, "window_starts has shape"),
        ((q, k, v, lists, starts), {"block_k": 0}, "block_k is 0"),
        ((q, k, v, lists, starts), {"sink": -1}, "sink is -1"),
        ((q, k, v, lists, starts), {"scale": math.inf}, "scale is inf"),
        ((q, k, v, lists, starts), {"implementation": "cuda"}, "implementation is 'cuda'"),
    ]
    for arguments, change, message in cases:
        with pytest.raises(InputError, match=message):
            key_list_attention(*arguments, **{**s, **change})


@interpreted
def test_what_the_kernel_cannot_do_is_named(monkeypatch):
    sizes: dict[str, Any]
    for sizes, message in (({"D": 32}, "head dimension 32"), ({"block_q": 129}, "block_q is 129")):
        arguments, s = problem(200, **sizes)
        with pytest.raises(InputError, match=message):
            key_list_attention(*arguments, **s, implementation="triton")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    arguments, s = problem(40)
    with pytest.raises(MissingHardwareError):
        key_list_attention(*arguments, **s, implementation="triton")


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "D", "block_m"), list(kernel.CONFIGURATIONS), ids=str)
def test_kernel_on_gpu(dtype, D, block_m):
    for N, T, B, H, Hk, block_k, L in (
        (1, 1500, 2, 4, 1, 2, 256),
        (257, 257, 1, 3, 1, 1, 33),
        (1001, 1001, 1, 4, 2, 2, 128),
        (700, 1333, 2, 2, 2, 8, 7),
    ):
        for block_q in (block_m, block_m - 3):
            arguments, s = problem(
                N, T, B, H, Hk, D, block_q=block_q, block_k=block_k, sink=13, window=100, L=L, dtype=dtype, device="cuda"
            )
            expected = key_list_attention(*(x.double() for x in arguments[:3]), *arguments[3:], **s, implementation="reference")
            o = key_list_attention(*arguments, **s)
            assert_close_rms(o, expected, TOLERANCE[dtype], f"N={N}, T={T}, heads {H}/{Hk}, blocks {block_q}, {block_k}")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("N", [1, 8191])
def test_fifty_runs_on_gpu_give_the_same_bits(dtype, N):
    arguments, s = problem(
        N, 8191, H=32, Hk=8, D=128, block_q=64 if N > 1 else 1, sink=16, window=256, L=256, dtype=dtype, device="cuda"
    )
    o = key_list_attention(*arguments, **s)
    for _ in range(50):
        assert torch.equal(key_list_attention(*arguments, **s), o)
