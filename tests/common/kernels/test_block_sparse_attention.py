"""Block-sparse attention against dense masked softmax in float64, written here without looking at block lists."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from common.errors import InputError, MissingHardwareError
from common.kernels.block_sparse_attention import BlockLists, block_sparse_attention, block_sparse_attention_reference
from common.kernels.block_sparse_attention import triton as kernel
from common.kernels.checks import interpreted
from tests.comparison import assert_close_rms


def hopper_present():
    return torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0)


needs_interpreter = pytest.mark.skipif(
    not interpreted() or torch.cuda.is_available(), reason="needs TRITON_INTERPRET=1 on the CPU"
)
needs_hopper = pytest.mark.skipif(not hopper_present(), reason="needs a GPU of compute capability 9.0")
TOLERANCE = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def dense(q, k, v, mask, block_size, positions=None, scale=None):
    """Softmax over {j: block selected and position(j) <= i}, in float64 with one [N, N] mask per head."""
    q, k, v = q.double(), k.double(), v.double()
    B, H, N, D = q.shape
    out = torch.zeros_like(q)
    for b in range(B):
        for h in range(H):
            kh = h // (H // k.shape[1])
            selected = mask[b, h].repeat_interleave(block_size, 0)[:N].repeat_interleave(block_size, 1)[:, :N]
            position = torch.arange(N, device=q.device) if positions is None else positions[b, kh].long()
            visible = selected & (position[None, :] <= torch.arange(N, device=q.device)[:, None])
            logits = (D**-0.5 if scale is None else scale) * q[b, h] @ k[b, kh].T
            weights = torch.softmax(torch.where(visible, logits, float("-inf")), dim=1)
            out[b, h] = weights.masked_fill(~visible.any(1, keepdim=True), 0.0) @ v[b, kh]
    return out


def make(
    N, *, B=1, H=2, Hk=2, D=64, block=64, segment=None, density=0.5, permuted=False, dtype=torch.float32, device="cpu", seed=0
):
    """Random tensors, a random mask over the blocks of earlier and own segments, and a permutation inside segments."""
    g = torch.Generator().manual_seed(seed)
    segment = segment or block
    T = -(-N // block)
    q, k, v = (torch.randn(B, heads, N, D, generator=g).to(device, dtype) for heads in (H, Hk, Hk))
    of_segment = torch.arange(T) * block // segment
    mask = (torch.rand(B, H, T, T, generator=g) < density) & (of_segment[None, :] <= of_segment[:, None])
    positions = None
    if permuted:
        shuffled = [
            torch.cat([s + torch.randperm(min(segment, N - s), generator=g) for s in range(0, N, segment)])
            for _ in range(B * Hk)
        ]
        positions = torch.stack(shuffled).view(B, Hk, N).int().to(device)
    return q, k, v, mask.to(device), positions


def check(N, implementation, **kwargs):
    block, segment = kwargs.get("block", 64), kwargs.get("segment")
    q, k, v, mask, positions = make(N, **kwargs)
    out = block_sparse_attention(
        q, k, v, BlockLists.from_mask(mask),
        block_size=block, segment_size=segment, key_positions=positions, implementation=implementation,
    )  # fmt: skip
    assert out.dtype == q.dtype
    assert out.is_contiguous()
    assert_close_rms(out, dense(q, k, v, mask, block, positions), TOLERANCE[q.dtype], f"o (N={N}, {kwargs})")


@pytest.fixture
def poisoned(monkeypatch):
    """torch.empty hands out NaN, so that an element nobody writes is seen."""
    empty, empty_like = torch.empty, torch.empty_like
    monkeypatch.setattr(torch, "empty", lambda *a, **k: _fill(empty(*a, **k)))
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: _fill(empty_like(*a, **k)))


def _fill(x):
    return x.fill_(float("nan")) if x.is_floating_point() else x


LENGTHS = [1, 15, 63, 127, 129, 300, 1000]
LAYOUTS = {  # block, segment, query heads, key heads, permuted
    "natural": {"block": 128},
    "natural-gqa3": {"block": 64, "H": 3, "Hk": 1},
    "segment-of-two": {"block": 64, "segment": 128},
    "permuted-by-query-head": {"block": 64, "segment": 128, "permuted": True},
    "permuted-by-key-head-gqa4": {"block": 64, "segment": 128, "H": 4, "Hk": 1, "permuted": True},
    "segment-longer-than-sequence": {"block": 32, "segment": 1024, "permuted": True},
    "batch": {"block": 64, "B": 2, "H": 6, "Hk": 2, "segment": 192, "permuted": True},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("N", LENGTHS)
def test_reference(N, layout):
    check(N, "reference", **LAYOUTS[layout])


@pytest.mark.parametrize("D", [8, 80])
def test_reference_takes_any_head_dim_and_float64(D):
    q, k, v, mask, _ = make(100, D=D, block=10)
    out = block_sparse_attention(q.double(), k.double(), v.double(), BlockLists.from_mask(mask), block_size=10)
    assert out.dtype == torch.float64
    assert_close_rms(out, dense(q, k, v, mask, 10), 1e-12, "o")


@needs_interpreter
@pytest.mark.parametrize("N", LENGTHS)
def test_kernel_lengths(N, poisoned):
    check(N, "triton", block=64, segment=128, H=1, Hk=1, permuted=True, dtype=torch.float16)


@needs_interpreter
@pytest.mark.parametrize("layout", LAYOUTS)
def test_kernel_layouts(layout, poisoned):
    check(200, "triton", dtype=torch.float16, **LAYOUTS[layout])


@needs_interpreter
@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
def test_kernel_densities(density, poisoned):
    check(300, "triton", density=density, block=32, segment=64, dtype=torch.float16)


@needs_interpreter
def test_kernel_float32_is_exact(poisoned):
    check(129, "triton", block=64, segment=128, permuted=True)


CONFIGURATIONS = {
    f"{k}-{d}-D{D}-block{b}": (k, d, D, b) for k, d, D, b in kernel.CONFIGURATIONS if d != torch.bfloat16
}  # the interpreter's own bfloat16 product is wrong: those run on a GPU


@needs_interpreter
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_configuration(name, poisoned):
    device_class, dtype, D, block = CONFIGURATIONS[name]
    N = block + block // 2 + 3
    q, k, v, mask, positions = make(N, H=1, Hk=1, D=D, block=block, segment=2 * block, density=0.8, permuted=True, dtype=dtype)
    out = kernel.block_sparse_attention_triton(
        q, k, v, BlockLists.from_mask(mask), block_size=block, segment_size=2 * block, key_positions=positions,
        layout=kernel.CONFIGURATIONS[device_class, dtype, D, block],
    )  # fmt: skip
    assert_close_rms(out, dense(q, k, v, mask, block, positions), TOLERANCE[dtype], name)


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


@pytest.mark.parametrize(
    "implementation",
    ["reference", pytest.param("triton", marks=needs_interpreter)],
)
@pytest.mark.parametrize(
    "kind", ["length first", "cut from wider rows", "off by one element", "head dim not last in memory", "expanded heads"]
)
def test_strides(kind, implementation):
    q, k, v, mask, _ = make(100, block=32, dtype=torch.float16)
    q, k, v = (non_contiguous(x, kind) for x in (q, k, v))
    assert not q.is_contiguous()
    out = block_sparse_attention(q, k, v, BlockLists.from_mask(mask), block_size=32, implementation=implementation)
    assert_close_rms(out, dense(q, k, v, mask, 32), 1e-3, f"o from {kind}")


@pytest.mark.parametrize("implementation", ["reference", pytest.param("triton", marks=needs_interpreter)])
def test_rows_that_see_nothing_give_zeros(implementation, poisoned):
    q, k, v, mask, positions = make(128, block=32, segment=64, permuted=True)
    mask[:] = False
    mask[..., 3, 0] = True  # the last 32 queries see block 0, the third block lists own keys that may all be later ones
    mask[..., 2, 3] = True
    out = block_sparse_attention(
        q, k, v, BlockLists.from_mask(mask),
        block_size=32, segment_size=64, key_positions=positions, implementation=implementation,
    )  # fmt: skip
    assert torch.equal(out[:, :, :64], torch.zeros_like(out[:, :, :64]))
    assert (out[:, :, 96:].abs().sum(-1) > 0).all()
    assert_close_rms(out, dense(q, k, v, mask, 32, positions), 1e-6, "o")


@pytest.mark.parametrize("implementation", ["reference", pytest.param("triton", marks=needs_interpreter)])
def test_future_keys_do_not_matter(implementation):
    q, k, v, mask, _ = make(96, block=32, density=1.0)
    blocks = BlockLists.from_mask(mask)
    before = block_sparse_attention(q, k, v, blocks, block_size=32, implementation=implementation)
    k[:, :, 50:], v[:, :, 50:] = 1e4, -1e4
    after = block_sparse_attention(q, k, v, blocks, block_size=32, implementation=implementation)
    assert torch.equal(before[:, :, :50], after[:, :, :50])
    assert not torch.equal(before[:, :, 50:], after[:, :, 50:])


@pytest.mark.parametrize("implementation", ["reference", pytest.param("triton", marks=needs_interpreter)])
def test_scale_and_large_logits(implementation):
    q, k, v, mask, _ = make(70, block=32)
    out = block_sparse_attention(
        30 * q, k, v, BlockLists.from_mask(mask), block_size=32, scale=1.7, implementation=implementation
    )
    assert_close_rms(
        out, dense(30 * q, k, v, mask, 32, scale=1.7), 2e-5, "o"
    )  # logits near 1000: float32 keeps 1e-4 of an exponent


@needs_interpreter
def test_two_runs_give_the_same_bits():
    q, k, v, mask, _ = make(130, dtype=torch.float16)
    runs = [
        block_sparse_attention(q, k, v, BlockLists.from_mask(mask), block_size=64, implementation="triton") for _ in range(2)
    ]
    assert torch.equal(*runs)


def test_permutation_inside_segments_changes_nothing_when_all_blocks_are_read():
    q, k, v, mask, positions = make(300, block=32, segment=96, density=1.1, permuted=True)
    assert positions is not None
    order = positions.long()[..., None]
    out = block_sparse_attention(
        q, k.take_along_dim(order, 2), v.take_along_dim(order, 2), BlockLists.from_mask(mask),
        block_size=32, segment_size=96, key_positions=positions,
    )  # fmt: skip
    expected = torch.nn.functional.scaled_dot_product_attention(q.double(), k.double(), v.double(), is_causal=True)
    assert_close_rms(out, expected, 1e-6, "o")


def test_torch_compile_keeps_it_whole():
    q, k, v, mask, _ = make(70, block=32)
    blocks = BlockLists.from_mask(mask)
    operator = torch.ops.reattend.block_sparse_attention
    arguments = (q, k, v, blocks.counts, blocks.indices, None, 32, 32, 0.125, "reference")
    torch.library.opcheck(operator, arguments, test_utils=("test_schema", "test_faketensor"))


def test_backward_raises():
    q, k, v, mask, _ = make(40, block=32)
    out = block_sparse_attention(q.requires_grad_(), k, v, BlockLists.from_mask(mask), block_size=32)
    with pytest.raises(RuntimeError, match="autograd"):
        out.sum().backward()


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**31))
def test_lists_hold_the_mask(heads, rows, columns, seed):
    mask = torch.rand(2, heads, rows, columns, generator=torch.Generator().manual_seed(seed)) < 0.5
    lists = BlockLists.from_mask(mask)
    assert torch.equal(lists.to_mask(columns), mask)
    for counts, indices, row in zip(
        lists.counts.view(-1), lists.indices.view(-1, columns), mask.view(-1, columns), strict=True
    ):
        expected = row.nonzero().view(-1).tolist()
        assert int(counts) == len(expected)
        assert indices.tolist() == expected + [0] * (columns - len(expected))


# Bad input: (what is changed, what the message must name).
BAD_INPUT = {
    "q with three dimensions": ({"q": torch.zeros(2, 70, 64)}, r"q has shape \(2, 70, 64\); expected \[B, H, N, D\]"),
    "integer k": ({"k": torch.zeros(1, 2, 70, 64, dtype=torch.int64)}, "k has dtype torch.int64"),
    "empty v": ({"v": torch.zeros(1, 2, 0, 64)}, "v has shape .* no size may be zero"),
    "dtype of v": ({"v": torch.zeros(1, 2, 70, 64).half()}, "v is torch.float16 on cpu but q is torch.float32"),
    "length of k": ({"k": torch.zeros(1, 2, 71, 64)}, r"\(1, 2, 71, 64\).*must agree"),
    "shape of v": ({"v": torch.zeros(1, 1, 70, 64)}, r"\(1, 1, 70, 64\); they must agree"),
    "heads": ({"k": torch.zeros(1, 3, 70, 64), "v": torch.zeros(1, 3, 70, 64)}, "q has 2 heads and k 3"),
    "block_size 0": ({"block_size": 0}, "block_size is 0; it must be a positive integer"),
    "block_size not an integer": ({"block_size": 32.0}, "block_size is 32.0"),
    "segment_size": ({"segment_size": 48}, "segment_size 48 is not a multiple of block_size 32"),
    "lists of other blocks": ({"block_size": 16}, r"blocks.counts has shape \(1, 2, 3\); expected \(1, 2, 5\)"),
    "positions int64": ({"key_positions": torch.zeros(1, 2, 70, dtype=torch.int64)}, "key_positions has dtype torch.int64"),
    "positions shape": ({"key_positions": torch.zeros(1, 1, 70, dtype=torch.int32)}, r"key_positions has shape \(1, 1, 70\)"),
    "scale": ({"scale": float("nan")}, "scale is nan"),
    "implementation": ({"implementation": "cuda"}, "implementation is 'cuda'; choose"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input(case):
    change, message = BAD_INPUT[case]
    q, k, v, mask, _ = make(70, block=32)
    arguments = {"q": q, "k": k, "v": v, "blocks": BlockLists.from_mask(mask), "block_size": 32, **change}
    with pytest.raises(InputError, match=message):
        block_sparse_attention(**arguments)


@needs_interpreter
@pytest.mark.parametrize(
    ("D", "dtype", "block", "message"),
    [
        (80, torch.float32, 32, "head dimension 80; the Triton kernel takes 64 and 128"),
        (64, torch.float64, 32, "float64; the Triton kernel takes"),
        (64, torch.float32, 48, "block_size is 48; the Triton kernel takes 16, 32, 64, 128"),
    ],
)
def test_what_the_kernel_does_not_take(D, dtype, block, message):
    q, k, v, mask, _ = make(70, D=D, block=block, dtype=dtype)
    with pytest.raises(InputError, match=message):
        block_sparse_attention(q, k, v, BlockLists.from_mask(mask), block_size=block, implementation="triton")


def test_triton_on_the_cpu_needs_the_interpreter(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    q, k, v, mask, _ = make(70, block=32)
    with pytest.raises(MissingHardwareError, match="needs tensors on a CUDA device, not on cpu"):
        block_sparse_attention(q, k, v, BlockLists.from_mask(mask), block_size=32, implementation="triton")


def test_hopper_kernel_elsewhere():
    q = torch.zeros(1, 1, 130, 128, dtype=torch.bfloat16)
    blocks = BlockLists.from_mask(torch.ones(1, 1, 2, 2, dtype=torch.bool).tril())
    with pytest.raises(MissingHardwareError, match="compute capability 9"):
        block_sparse_attention(q, q, q, blocks, block_size=128, implementation="hopper")


@pytest.mark.gpu
@needs_hopper
def test_what_the_hopper_kernel_does_not_take():
    for D, block, dtype in ((128, 64, torch.bfloat16), (128, 128, torch.float32), (32, 128, torch.float16)):
        q = torch.zeros(1, 1, block, D, dtype=dtype, device="cuda")
        blocks = BlockLists.from_mask(torch.ones(1, 1, 1, 1, dtype=torch.bool, device="cuda"))
        with pytest.raises(InputError, match="implementation='hopper' takes"):
            block_sparse_attention(q, q, q, blocks, block_size=block, implementation="hopper")


def test_bad_masks_and_lists():
    with pytest.raises(InputError, match=r"mask is torch\.int64"):
        BlockLists.from_mask(torch.zeros(1, 1, 2, 2, dtype=torch.int64))
    with pytest.raises(InputError, match="key_blocks must be at least 1"):
        BlockLists.from_mask(torch.zeros(1, 1, 2, 0, dtype=torch.bool))
    counts, indices = torch.ones(1, 1, 2, dtype=torch.int32), torch.zeros(1, 1, 2, 2, dtype=torch.int32)
    with pytest.raises(InputError, match=r"counts is torch\.int64"):
        BlockLists(counts.long(), indices)
    with pytest.raises(InputError, match=r"indices is torch.int32 \(1, 2, 2\)"):
        BlockLists(counts, indices[0])
    with pytest.raises(InputError, match="L >= 1"):
        BlockLists(counts, indices[..., :0])
    with pytest.raises(InputError, match="counts is on cpu and indices on meta"):
        BlockLists(counts, indices.to("meta"))


@pytest.mark.parametrize(
    ("counts", "indices", "message"),
    [
        ([1, 3], [[0, 0], [0, 1]], "counts must lie between 0 and L = 2; batch 0, head 0, query block 1"),
        ([1, -1], [[0, 0], [0, 1]], "counts must lie between 0"),
        ([1, 1], [[0, 0], [2, 0]], "indices must lie between 0 and 1"),
        ([1, 2], [[0, 0], [1, 0]], "must ascend"),
        ([1, 2], [[0, 0], [1, 1]], "must ascend"),
        ([1, 1], [[1, 0], [0, 0]], "a key block of a later segment"),
    ],
)
def test_lists_that_lie_are_found(counts, indices, message):
    lists = BlockLists(torch.tensor([[counts]], dtype=torch.int32), torch.tensor([[indices]], dtype=torch.int32))
    with pytest.raises(InputError, match=message):
        lists.check_contents(2)
    q = torch.zeros(1, 1, 40, 64)
    with pytest.raises(InputError, match=message):
        block_sparse_attention(q, q, q, lists, block_size=32)


def check_everything(block, D, dtype, implementation):
    """Every layout, length and density on the GPU."""
    for N in LENGTHS:
        for H, Hk, segment, permuted in (
            (2, 2, block, False),
            (3, 1, 2 * block, True),
            (4, 1, 2 * block, False),
            (4, 2, 512, True),
        ):
            for density in (0.0, 0.2, 1.0):
                check(
                    N, implementation, B=2, H=H, Hk=Hk, D=D, block=block, segment=segment, permuted=permuted,
                    density=density, dtype=dtype, device="cuda",
                )  # fmt: skip


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("D", [64, 128])
@pytest.mark.parametrize("block", [16, 32, 64, 128])
def test_triton_kernel_on_gpu(block, D, dtype, poisoned):
    check_everything(block, D, dtype, "triton")


@pytest.mark.gpu
@needs_hopper
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("D", [64, 128])
def test_hopper_kernel_on_gpu(D, dtype, poisoned):
    check_everything(128, D, dtype, "hopper")


def uneven(N, H, device, seed=0):
    """Lists whose lengths differ much: a few heads read nearly everything, most little, some rows nothing."""
    g = torch.Generator().manual_seed(seed)
    T = -(-N // 128)
    density = torch.tensor([0.9, 0.02, 0.1, 0.0])[torch.arange(H) % 4].view(1, H, 1, 1)
    mask = (torch.rand(1, H, T, T, generator=g) < density).tril(-1) | torch.eye(T, dtype=torch.bool)
    return (mask & (torch.rand(1, H, T, 1, generator=g) < 0.9)).to(device)


@pytest.mark.gpu
@needs_hopper
def test_hopper_kernel_on_many_uneven_rows(poisoned):
    """More rows than programs, so that each takes many, of every length in any order."""
    N, H = 4097, 32
    q, k, v, *_ = make(N, H=H, Hk=8, D=128, block=128, dtype=torch.bfloat16, device="cuda")
    mask = uneven(N, H, "cuda")
    out = block_sparse_attention(q, k, v, BlockLists.from_mask(mask), block_size=128, implementation="hopper")
    assert_close_rms(out, dense(q, k, v, mask, 128), TOLERANCE[torch.bfloat16], "o")


@pytest.mark.gpu
@pytest.mark.parametrize("implementation", ["triton", pytest.param("hopper", marks=needs_hopper)])
def test_fifty_runs_give_the_same_bits_on_gpu(implementation):
    q, k, v, *_ = make(2000, H=16, Hk=4, D=128, block=128, dtype=torch.bfloat16, device="cuda")
    blocks = BlockLists.from_mask(uneven(2000, 16, "cuda"))
    first = block_sparse_attention(q, k, v, blocks, block_size=128, implementation=implementation)
    for _ in range(50):
        assert torch.equal(block_sparse_attention(q, k, v, blocks, block_size=128, implementation=implementation), first)


@pytest.mark.gpu
@pytest.mark.parametrize("size", [1.0, 30.0], ids=["unit", "large"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("implementation", ["triton", pytest.param("hopper", marks=needs_hopper)])
def test_as_accurate_as_dense_sdpa_on_gpu(implementation, dtype, size):
    """With every causal block: at most 1.2 times the error of PyTorch's flash kernel, against float64."""
    for N in (15, 63, 100, 1000, 4097):
        H = 8 if N > 100 else 64  # enough numbers for the ratio of two errors to mean something
        q, k, v, *_ = make(N, H=H, Hk=2, D=128, block=128, dtype=dtype, device="cuda")
        q, v = size * q, size * v
        T = -(-N // 128)
        mask = torch.ones(1, H, T, T, dtype=torch.bool, device="cuda").tril()
        exact = dense(q, k, v, mask, 128)
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            flash = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        out = block_sparse_attention(q, k, v, BlockLists.from_mask(mask), block_size=128, implementation=implementation)
        ours, theirs = ((x.double() - exact).norm().item() for x in (out, flash))
        assert ours <= 1.2 * theirs, f"N = {N}: error {ours:.3g}, SDPA {theirs:.3g}"


@pytest.mark.gpu
@pytest.mark.parametrize(
    "kind", ["length first", "cut from wider rows", "off by one element", "head dim not last in memory", "expanded heads"]
)
def test_strides_on_gpu(kind):
    q, k, v, mask, _ = make(300, block=128, D=128, dtype=torch.bfloat16, device="cuda")
    q, k, v = (non_contiguous(x, kind) for x in (q, k, v))
    out = block_sparse_attention(q, k, v, BlockLists.from_mask(mask), block_size=128)
    assert_close_rms(out, dense(q, k, v, mask, 128), TOLERANCE[torch.bfloat16], f"o from {kind}")


@pytest.mark.gpu
def test_offsets_beyond_two_to_the_31():
    """The last of 272 heads lies beyond 2^31 elements: compare it with itself run alone."""
    H, N, block = 272, 65536, 128
    g = torch.Generator("cuda").manual_seed(0)
    q, k, v = (torch.randn(1, H, N, 128, device="cuda", dtype=torch.bfloat16, generator=g) for _ in range(3))
    assert q.numel() > 2**31
    diagonal = torch.arange(N // block, dtype=torch.int32, device="cuda").expand(1, H, -1).contiguous()
    out = block_sparse_attention(q, k, v, BlockLists(torch.ones_like(diagonal), diagonal[..., None]), block_size=block)
    q, k, v, diagonal = q[:, -1:], k[:, -1:], v[:, -1:], diagonal[:, -1:].contiguous()
    alone = block_sparse_attention(
        q.clone(), k.clone(), v.clone(), BlockLists(torch.ones_like(diagonal), diagonal[..., None]), block_size=block
    )
    assert torch.equal(out[:, -1:], alone)


@pytest.mark.gpu
def test_reference_function_agrees_with_the_kernel_on_gpu():
    q, k, v, mask, positions = make(700, block=64, segment=128, permuted=True, dtype=torch.float32, device="cuda")
    blocks = BlockLists.from_mask(mask)
    expected = block_sparse_attention_reference(
        q.double(), k.double(), v.double(), blocks, block_size=64, segment_size=128, key_positions=positions
    )
    out = block_sparse_attention(q, k, v, blocks, block_size=64, segment_size=128, key_positions=positions)
    assert_close_rms(out, expected, 1e-6, "o")
