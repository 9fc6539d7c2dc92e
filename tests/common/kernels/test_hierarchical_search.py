"""HiP's mask search: reference against loops over branches, the kernel (interpreted, and on a GPU) against the reference."""

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError, MissingHardwareError
from common.kernels import checks
from common.kernels.hierarchical_search import REPRESENTATIVES, hierarchical_search, searched_blocks
from common.kernels.hierarchical_search import triton as kernel

SMALL: dict[str, Any] = {"nodes": 4, "block_q": 8, "block_k": 2, "window": 6, "sink": 4, "stride_q": 2, "stride_k": 1}
interpreted = pytest.mark.skipif(not checks.interpreted(), reason="the GPU tests cover it")


def make(N, T=None, B=1, H=2, Hk=1, D=64, dtype=torch.float32, seed=0, device="cpu"):
    """Normal queries [B, H, N, D] and keys [B, Hk, T, D]."""
    g = torch.Generator(device).manual_seed(seed)
    shapes = (B, H, N, D), (B, Hk, T or N, D)
    return tuple(torch.randn(shape, generator=g, dtype=torch.float32, device=device).to(dtype) for shape in shapes)


def with_distinct_scores(N, T=None, **keywords):
    """Inputs of small whole numbers plus steps of 1/256: every product is exact in float32, whatever the order of its sum."""
    q, k = make(N, T, **keywords)
    return (q * 2).round(), (k * 64).round() / 64


def branch_lists(q, k, s, first_query):
    """The search for the queries [n, D] of one block, branch by branch, in Python floats."""
    M = max(0, first_query - s["window"] - s["sink"]) // s["block_k"]
    n = s["nodes"]
    if n >= M:
        return list(range(M))
    sampled = [min(offset, len(q) - 1) for offset in range(s["stride_q"] - 1, s["block_q"], s["stride_q"])]

    def score(f, e):
        if e <= f:
            return -math.inf
        block = {"first": f, "last": e - 1, "center": (f + e - 1) // 2}[s["representative"]]
        keys = [s["sink"] + block * s["block_k"] + offset for offset in range(0, s["block_k"], s["stride_k"])]
        return max(float(q[a].double() @ k[c].double()) for a in sampled for c in keys)

    branches = [(i * M // n, (i + 1) * M // n) for i in range(n)]
    while any(e - f > 1 for f, e in branches):
        halves = []
        for f, e in branches:
            m = (f + e + 1) // 2
            halves += [(f, m), (m, e)]
        branches = sorted(sorted(halves, key=lambda half: -score(*half))[:n])
    return [f for f, _ in branches]


def listed(lists, *place):
    """The blocks of one query block."""
    return lists.indices[place][: int(lists.counts[place])].tolist()


@pytest.mark.parametrize("implementation", ["reference", pytest.param("triton", marks=interpreted)])
@pytest.mark.parametrize("representative", REPRESENTATIVES)
@pytest.mark.parametrize(("stride_q", "block_k", "stride_k"), [(1, 1, 1), (2, 2, 1), (3, 4, 2), (8, 3, 1)])
def test_the_lists_are_those_of_the_definition(implementation, representative, stride_q, block_k, stride_k):
    s = {**SMALL, "representative": representative, "stride_q": stride_q, "block_k": block_k, "stride_k": stride_k}
    q, k = with_distinct_scores(13, 149, B=2, H=2, Hk=1)
    lists = hierarchical_search(q, k, **s, implementation=implementation)
    assert lists.counts.shape == (2, 2, 2)
    assert lists.indices.shape == (2, 2, 2, 4)
    for b, h, row in itertools.product(range(2), range(2), range(2)):
        block = q[b, h, row * 8 : row * 8 + 8]
        assert listed(lists, b, h, row) == branch_lists(block, k[b, 0], s, 136 + row * 8), (b, h, row)


@pytest.mark.parametrize("implementation", ["reference", pytest.param("triton", marks=interpreted)])
@pytest.mark.parametrize(("N", "block_q", "stride_q"), [(1, 1, 1), (1, 8, 2), (13, 8, 2)])
def test_the_queries_are_the_last_positions(implementation, N, block_q, stride_q):
    s = {**SMALL, "block_q": block_q, "stride_q": stride_q, "representative": "center"}
    q, k = with_distinct_scores(N, 203)
    lists = hierarchical_search(q, k, **s, implementation=implementation)
    for h, row in itertools.product(range(2), range(math.ceil(N / block_q))):
        block = q[0, h, row * block_q : (row + 1) * block_q]
        assert listed(lists, 0, h, row) == branch_lists(block, k[0, 0], s, 203 - N + row * block_q)


@interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("D", [64, 128])
@pytest.mark.parametrize(
    ("nodes", "block_q", "block_k", "stride_q"), [(1, 8, 1, 1), (5, 64, 2, 2), (16, 32, 8, 2), (33, 16, 4, 1), (64, 64, 1, 64)]
)
def test_the_interpreted_kernel_gives_the_reference_lists(dtype, D, nodes, block_q, block_k, stride_q):
    q, k = with_distinct_scores(block_q + 1, 701, H=3, Hk=1, D=D, dtype=dtype)
    s = {"nodes": nodes, "block_q": block_q, "block_k": block_k, "stride_q": stride_q, "window": 37, "sink": 3}
    expected = hierarchical_search(q, k, **s, implementation="reference")
    lists = hierarchical_search(q, k, **s, implementation="triton")
    assert torch.equal(lists.counts, expected.counts)
    assert torch.equal(lists.indices, expected.indices)


@interpreted
def test_equal_scores_keep_the_earlier_keys():
    q, k = torch.ones(1, 1, 4, 64), torch.ones(1, 1, 300, 64)
    for implementation in ("reference", "triton"):
        lists = hierarchical_search(q, k, **{**SMALL, "nodes": 7}, implementation=implementation)
        last = listed(lists, 0, 0, -1)
        assert last == list(range(7))
        assert last == branch_lists(q[0, 0], k[0, 0], {**SMALL, "nodes": 7, "representative": "center"}, 296)


@interpreted
@settings(max_examples=20, deadline=None)
@given(
    N=st.integers(1, 20), more=st.integers(0, 200), block_q=st.sampled_from([5, 8, 24]), block_k=st.integers(1, 5),
    nodes=st.integers(1, 9), window=st.integers(0, 20), sink=st.integers(0, 9), representative=st.sampled_from(REPRESENTATIVES),
    broken=st.sampled_from([None, math.nan, math.inf, -math.inf]), seed=st.integers(0, 9),
)  # fmt: skip
def test_lists_ascend_in_range_whatever_the_numbers(
    N, more, block_q, block_k, nodes, window, sink, representative, broken, seed
):
    q, k = make(N, N + more, seed=seed)
    if broken is not None:
        k[:, :, seed::7, 0] = broken
    s = {"nodes": nodes, "block_q": block_q, "block_k": block_k, "window": window, "sink": sink, "stride_q": 1,
         "representative": representative}  # fmt: skip
    M = searched_blocks(N, N + more, block_q=block_q, block_k=block_k, window=window, sink=sink)
    for implementation in ("reference", "triton"):
        lists = hierarchical_search(q, k, **s, implementation=implementation)
        assert torch.equal(lists.counts, M.clamp_max(nodes).expand_as(lists.counts))
        for h, row in itertools.product(range(2), range(len(M))):
            blocks = listed(lists, 0, h, row)
            assert blocks == sorted(set(blocks))
            assert all(0 <= block < M[row] for block in blocks)
            assert sink + (int(M[row]) * block_k) <= max(more + row * block_q - window, sink)


@interpreted
def test_strided_inputs_and_the_number_of_programs_change_nothing():
    q, k = with_distinct_scores(9, 300, H=4, Hk=2)
    s: dict[str, Any] = {**SMALL, "representative": "center"}
    expected = hierarchical_search(q, k, **s)
    strided = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k))
    assert torch.equal(hierarchical_search(*strided, **s, implementation="triton").indices, expected.indices)
    last_strided = (x.mT.contiguous().mT for x in (q, k))
    assert torch.equal(hierarchical_search(*last_strided, **s, implementation="triton").indices, expected.indices)
    for programs in (1, 1000):
        assert torch.equal(kernel.hierarchical_search_triton(q, k, **s, programs=programs).indices, expected.indices)


def test_the_reference_does_not_depend_on_its_chunks():
    from common.kernels.hierarchical_search import hierarchical_search_reference

    q, k = make(300)
    s = {**SMALL, "representative": "center"}
    whole, single = (hierarchical_search_reference(q, k, **s, chunk_bytes=size) for size in (2**28, 1))
    assert torch.equal(whole.indices, single.indices)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nodes": 0}, "nodes is 0"),
        ({"block_q": 1.5}, "block_q is 1.5"),
        ({"window": -1}, "window is -1; it must be 0 or a positive integer"),
        ({"sink": True}, "sink is True"),
        ({"stride_q": 9}, "stride_q is 9 and block_q 8"),
        ({"stride_k": 3}, "stride_k is 3 and block_k 2"),
        ({"representative": "middle"}, "representative is 'middle'; choose"),
        ({"implementation": "cuda"}, "implementation is 'cuda'"),
    ],
)
def test_wrong_settings_are_named(change, message):
    q, k = make(40)
    with pytest.raises(InputError, match=message):
        hierarchical_search(q, k, **{**SMALL, **change})


def test_wrong_tensors_are_named():
    q, k = make(40)
    for arguments, message in (
        ((q[0], k), "q has shape"),
        ((q, k.double()), "k is torch.float64"),
        ((q, k[:, :, :39]), "at least as long as q"),
        ((q, k[..., :32]), "batch and head dim must be equal"),
        ((q.repeat(1, 2, 1, 1)[:, :3], k.repeat(1, 2, 1, 1)), "3 heads and k 2"),
    ):
        with pytest.raises(InputError, match=message):
            hierarchical_search(*arguments, **SMALL)


@interpreted
def test_what_the_kernel_cannot_do_is_named(monkeypatch):
    for tensors, change, message in (
        (make(40, D=32), {}, "head dimension 32"),
        (make(40, dtype=torch.float64), {}, "float64"),
        (make(40), {"nodes": 1025}, "nodes is 1025; the Triton kernel takes up to 1024"),
        (make(40), {"block_q": 512}, "block_q // stride_q is 256"),
        (make(40), {"block_k": 17}, "rounded up, is 17"),
    ):
        with pytest.raises(InputError, match=message):
            hierarchical_search(*tensors, **{**SMALL, **change}, implementation="triton")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(MissingHardwareError):
        hierarchical_search(*make(40), **SMALL, implementation="triton")


def found_share(lists, expected):
    """Share of the expected entries that were found."""
    pairs = zip(lists.to_mask(1 << 13).cpu().flatten(0, 2), expected.to_mask(1 << 13).cpu().flatten(0, 2), strict=True)
    both = [(int((a & b).sum()), int(b.sum())) for a, b in pairs]
    return sum(hit for hit, _ in both) / sum(total for _, total in both)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("D", [64, 128])
@pytest.mark.parametrize(("nodes", "block_k"), [(1, 1), (33, 8), (256, 2), (1024, 2), (512, 1)])
def test_kernel_on_gpu_gives_the_lists_of_exact_scores(dtype, D, nodes, block_k):
    """Whole-number products are exact in every dtype: the float64 reference has the same ties and must give the same lists."""
    for N, T, H, Hk, block_q in ((4097, 4097, 3, 1, 64), (1001, 3001, 4, 2, 32), (1, 5000, 2, 2, 1), (130, 4096, 2, 1, 8)):
        q, k = make(N, T, H=H, Hk=Hk, D=D, device="cuda")
        q, k = ((x * 2).round().to(dtype) for x in (q, k))
        for representative in REPRESENTATIVES:
            s: dict[str, Any] = {"nodes": nodes, "block_q": block_q, "block_k": block_k, "stride_q": min(2, block_q),
                                 "window": 37, "sink": 3, "representative": representative}  # fmt: skip
            lists = hierarchical_search(q, k, **s)
            expected = hierarchical_search(q.double(), k.double(), **s, implementation="reference")
            what = f"N={N}, T={T}, heads {H}/{Hk}, block_q={block_q}, {representative}"
            assert torch.equal(lists.counts, expected.counts), what
            assert torch.equal(lists.indices, expected.indices), what


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_kernel_on_gpu_finds_what_float64_finds_but_for_near_ties(dtype):
    q, k = make(4097, H=4, Hk=2, D=128, dtype=dtype, device="cuda")
    s: dict[str, Any] = {"nodes": 128, "block_q": 64}
    exact = hierarchical_search(q.double(), k.double(), **s, implementation="reference")
    assert found_share(hierarchical_search(q, k, **s), exact) > 0.999


@pytest.mark.gpu
def test_fifty_runs_on_gpu_give_the_same_lists():
    q, k = make(8191, H=32, Hk=8, D=128, dtype=torch.bfloat16, device="cuda")
    lists = hierarchical_search(q, k, nodes=256, block_q=64)
    for _ in range(50):
        assert torch.equal(hierarchical_search(q, k, nodes=256, block_q=64).indices, lists.indices)
