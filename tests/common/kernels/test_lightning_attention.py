"""Linear attention with decay against a float64 loop written here, and against SDPA's rounding error on a GPU."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError, MissingHardwareError
from common.kernels.checks import Implementation, interpreted
from common.kernels.lightning_attention import (
    lightning_attention,
    lightning_attention_quadratic,
    lightning_attention_recurrent,
    lightning_attention_reference,
)
from common.kernels.lightning_attention import triton as kernel
from common.kernels.lightning_attention.triton import Blocks, Configuration, Walk
from common.kernels.lightning_attention.triton_backward import lightning_attention_backward_triton
from tests.comparison import assert_close_rms

needs_interpreter = pytest.mark.skipif(
    not interpreted() or torch.cuda.is_available(), reason="needs TRITON_INTERPRET=1 on the CPU"
)
IMPLEMENTATIONS = ["reference", pytest.param("triton", marks=needs_interpreter)]
# One rounding to float16 costs 2.1e-4. Outputs take up to two (a decayed value, the output), gradients three (states, weights).
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 3e-4}
GRADIENT_TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 4e-4}
NAMES = ("o", "final state", "dq", "dk", "dv", "dinitial")
SLOPES = [0.05, 8.0]
SHORT = Configuration(64, states=Walk(64, 8, 2), outputs=Walk(64, 4, 2), columns=64, gradients=Walk(32, 8, 2))


def draw(N, *, B=1, slopes=SLOPES, D=64, E=64, sequences=None, dtype=torch.float32, device="cpu", size=1.0, seed=0):
    """q, k, v, slopes, initial state, and the gradients of output and final state."""
    g = torch.Generator().manual_seed(seed)
    H = len(slopes)
    q, k, v, do = (size * torch.randn(B, H, N, d, generator=g) for d in (D, D, E, E))
    q, k, v, do = (x.to(device, dtype) for x in (q, k, v, do))
    state = torch.float64 if dtype == torch.float64 else torch.float32
    S_0, dS = (size**2 * torch.randn(sequences or B, H, D, E, generator=g).to(device, state) for _ in range(2))
    return q, k, v, torch.tensor(slopes, device=device), S_0, do, dS


def expected(q, k, v, slopes, S_0, do, dS, *, scale=1.0, cu_seqlens=None):
    """The definition in float64, with autograd: o, final state and the four gradients."""
    leaves = [x.detach().double().requires_grad_() for x in (q, k, v, S_0)]
    places = [0, q.shape[2]] if cu_seqlens is None else cu_seqlens.tolist()
    o, final = [], []
    for s, (begin, end) in enumerate(itertools.pairwise(places)):
        S = leaves[3] if cu_seqlens is None else leaves[3][s : s + 1]
        for t in range(begin, end):
            outer = leaves[1][:, :, t, :, None] * leaves[2][:, :, t, None, :]
            S = torch.exp(-slopes.double())[:, None, None] * S + outer
            o.append(scale * torch.einsum("bhd,bhde->bhe", leaves[0][:, :, t], S))
        final.append(S)
    o, final = torch.stack(o, dim=2), torch.cat(final)
    torch.autograd.backward([o, final], [do.double(), dS.double()])
    return o.detach(), final.detach(), *(x.grad for x in leaves)


def chunked_float64(q, k, v, slopes, S_0, do, dS, *, cu_seqlens=None):
    """As `expected` for long sequences: the quadratic reference on pieces of 200 tokens, which hand their state on."""
    leaves = [x.detach().double().requires_grad_() for x in (q, k, v, S_0)]
    places = [0, q.shape[2]] if cu_seqlens is None else cu_seqlens.tolist()
    o, final = [], []
    for s, (begin, end) in enumerate(itertools.pairwise(places)):
        S = leaves[3] if cu_seqlens is None else leaves[3][s : s + 1]
        for t in range(begin, end, 200):
            q_t, k_t, v_t = (x[:, :, t : min(t + 200, end)] for x in leaves[:3])
            o_t, S = lightning_attention_quadratic(q_t, k_t, v_t, slopes, initial_state=S)
            o.append(o_t)
        final.append(S)
    o, final = torch.cat(o, dim=2), torch.cat(final)
    torch.autograd.backward([o, final], [do.double(), dS.double()])
    return o.detach(), final.detach(), *(x.grad for x in leaves)


def actual(q, k, v, slopes, S_0, do, dS, *, scale=1.0, cu_seqlens=None, implementation: Implementation = "triton"):
    """The same from the public function."""
    leaves = [x.detach().requires_grad_() for x in (q, k, v, S_0)]
    o, final = lightning_attention(
        leaves[0], leaves[1], leaves[2], slopes,
        scale=scale, initial_state=leaves[3], output_final_state=True, cu_seqlens=cu_seqlens, implementation=implementation,
    )  # fmt: skip
    assert final is not None
    torch.autograd.backward([o, final], [do, dS])
    return o.detach(), final.detach(), *(x.grad for x in leaves)


def with_layout(layout, q, k, v, slopes, S_0, do, dS, *, scale=1.0, cu_seqlens=None):
    """The same from the kernels, with a configuration to choose."""
    given = {"scale": scale, "cu_seqlens": cu_seqlens, "layout": layout}
    o, final, states = kernel.lightning_attention_triton(q, k, v, slopes, initial_state=S_0, output_final_state=True, **given)
    return o, final, *lightning_attention_backward_triton(q, k, v, slopes, states, do, dS, need_dinitial=True, **given)


def assert_all_close(results, references, dtype, case=""):
    for name, result, reference in zip(NAMES, results, references, strict=True):
        tolerance = (TOLERANCE if name in ("o", "final state") else GRADIENT_TOLERANCE)[dtype]
        assert_close_rms(result, reference, tolerance, f"{name} {case}")


@pytest.fixture
def poisoned(monkeypatch):
    """torch.empty hands out NaN, so that an element nobody writes is seen."""
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: _fill(empty(*a, **k)))


def _fill(x):
    return x.fill_(float("nan")) if x.is_floating_point() else x


@pytest.fixture
def short_blocks(monkeypatch):
    """Blocks of 64 tokens, so that short sequences have several; float32 in the separate kernels for dk and dv."""
    exact = Configuration(64, states=Walk(64, 8, 1), outputs=Walk(32, 8, 1), columns=64, gradients=None)

    def short(device_class, dtype):
        return exact if dtype == torch.float32 else SHORT

    monkeypatch.setattr(kernel, "configuration", short)
    monkeypatch.setattr("common.kernels.lightning_attention.configuration", short)
    monkeypatch.setattr("common.kernels.lightning_attention.triton_backward.configuration", short)


# The reference: two forms that share no code, the loop above, and finite differences.


@pytest.mark.parametrize("form", [lightning_attention_recurrent, lightning_attention_quadratic])
@pytest.mark.parametrize("N", [1, 2, 15, 100])
def test_reference_forms(form, N):
    q, k, v, slopes, S_0, *_ = case = draw(N, B=2, D=5, E=3, dtype=torch.float64)
    o, final = form(q, k, v, slopes, scale=0.3, initial_state=S_0)
    wanted = expected(*case, scale=0.3)
    assert_close_rms(o, wanted[0], 1e-12, "o")
    assert_close_rms(final, wanted[1], 1e-12, "final state")


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 6), st.integers(1, 6), st.lists(st.floats(0, 20), min_size=1, max_size=3),
    st.integers(0, 2**31),
)  # fmt: skip
def test_reference_forms_agree_on_anything(N, D, E, slopes, seed):
    q, k, v, s, S_0, *_ = draw(N, slopes=slopes, D=D, E=E, dtype=torch.float64, seed=seed)
    recurrent = lightning_attention_recurrent(q, k, v, s, initial_state=S_0)
    quadratic = lightning_attention_quadratic(q, k, v, s, initial_state=S_0)
    for name, a, b in zip(("o", "final state"), quadratic, recurrent, strict=True):
        assert_close_rms(a, b, 1e-10, name)


def test_two_tokens_by_hand():
    q, k, v = (torch.tensor(x, dtype=torch.float64).view(1, 1, 2, 1) for x in ([2.0, 3.0], [5.0, 7.0], [11.0, 13.0]))
    half = torch.tensor([2.0], dtype=torch.float64).log()  # a token loses half per step
    S_0 = torch.full((1, 1, 1, 1), 17.0, dtype=torch.float64)
    o, final = lightning_attention(q, k, v, half, initial_state=S_0, output_final_state=True)
    assert final is not None
    # S_1 = 17 / 2 + 5 * 11, S_2 = S_1 / 2 + 7 * 13
    assert_close_rms(o.flatten(), torch.tensor([2 * 63.5, 3 * 122.75], dtype=torch.float64), 1e-15, "o")
    assert final.item() == pytest.approx(122.75)


def test_gradients_of_the_reference_by_finite_differences():
    q, k, v, slopes, S_0, *_ = draw(7, D=3, E=2, dtype=torch.float64, sequences=2)
    cu_seqlens = torch.tensor([0, 3, 7])
    leaves = [x.requires_grad_() for x in (q, k, v, S_0)]

    def run(q, k, v, S_0):
        o, final = lightning_attention(q, k, v, slopes, initial_state=S_0, output_final_state=True, cu_seqlens=cu_seqlens)
        assert final is not None
        return o, final

    assert torch.autograd.gradcheck(run, leaves)


# The kernels.


@needs_interpreter
@pytest.mark.parametrize("N", [1, 15, 63, 100, 140])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_kernel_lengths(N, dtype, short_blocks, poisoned):
    case = draw(N, dtype=dtype)
    assert_all_close(actual(*case), expected(*case), dtype, f"N={N}")


@needs_interpreter
@pytest.mark.parametrize(("D", "E"), [(64, 128), (128, 64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_kernel_head_dimensions_batch_and_scale(D, E, dtype, short_blocks, poisoned):
    case = draw(130, B=2, slopes=[0.3], D=D, E=E, dtype=dtype)
    assert_all_close(actual(*case, scale=0.3), expected(*case, scale=0.3), dtype)


PACKED = {"many": [0, 1, 3, 67, 131, 132, 200], "one": [0, 70], "blocks": [0, 64, 192]}


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("packing", PACKED)
def test_packed_sequences(packing, dtype, implementation, short_blocks, poisoned):
    places = torch.tensor(PACKED[packing])
    case = draw(PACKED[packing][-1], sequences=len(places) - 1, dtype=dtype)
    results = actual(*case, cu_seqlens=places, implementation=implementation)
    assert_all_close(results, expected(*case, cu_seqlens=places), dtype, packing)


@needs_interpreter
def test_packed_sequences_are_separate(short_blocks):
    case = draw(150, sequences=2, slopes=[0.05], dtype=torch.float16)
    places = torch.tensor([0, 70, 150])
    before = actual(*case, cu_seqlens=places)
    for x in case[:3]:
        x[:, :, :70] = 1.0
    after = actual(*case, cu_seqlens=places)
    assert all(torch.equal(a[:, :, 70:], b[:, :, 70:]) for a, b in zip(before[2:5], after[2:5], strict=True))
    assert torch.equal(before[0][:, :, 70:], after[0][:, :, 70:])
    assert not torch.equal(before[0][:, :, :70], after[0][:, :, :70])


@needs_interpreter
@pytest.mark.parametrize("slope", [0.0, 1e-4, 0.7, 8.0, 80.0])
def test_each_decay_over_several_blocks(slope, short_blocks, poisoned):
    case = draw(195, slopes=[slope], dtype=torch.float16)
    assert_all_close(actual(*case), expected(*case), torch.float16, f"slope {slope}")


@needs_interpreter
@pytest.mark.parametrize(("size", "dtype"), [(1e4, torch.float32), (60.0, torch.float16), (0.02, torch.float16)])
def test_magnitudes(size, dtype, short_blocks):
    # float16: weights (q k) and states pass 65504 though the scaled outputs do not; and small ones are not lost.
    q, k, v, slopes, S_0, do, dS = draw(140, slopes=[0.05], dtype=dtype, size=size)
    case = (q, k, v, slopes, S_0, do / size, dS / size**3)
    scale = size**-2 / 16
    assert_all_close(actual(*case, scale=scale), expected(*case, scale=scale), dtype, f"size {size}")


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("kind", ["length first", "cut from wider rows", "off by one element", "expanded heads"])
def test_strides(kind, implementation, short_blocks):
    def laid_out(x):
        if kind == "length first":
            return x.transpose(1, 2).contiguous().transpose(1, 2)
        if kind == "cut from wider rows":
            return torch.cat([x, x], dim=-1)[..., : x.shape[-1]]
        if kind == "off by one element":
            return torch.cat([x[..., :1], x], dim=-1)[..., 1:]
        return x[:, :1].expand_as(x)

    q, k, v, slopes, S_0, do, dS = draw(100, dtype=torch.float16)
    q, k, v, do = (laid_out(x) for x in (q, k, v, do))
    assert not q.is_contiguous()
    case = (q, k, v, slopes, S_0.mT.contiguous().mT, do, dS.mT.contiguous().mT)
    assert_all_close(actual(*case, implementation=implementation), expected(*case), torch.float16, kind)


@needs_interpreter
def test_only_what_is_asked_for(short_blocks, poisoned):
    q, k, v, slopes, _, do, _ = draw(150, slopes=[0.05], dtype=torch.float16)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    o, final = lightning_attention(leaves[0], leaves[1], leaves[2], slopes, implementation="triton")
    assert final is None
    o.backward(do)
    zero = torch.zeros(1, 1, 64, 64)
    references = expected(q, k, v, slopes, zero, do, zero)
    assert_close_rms(o, references[0], TOLERANCE[torch.float16], "o")
    for name, x, reference in zip(("dq", "dk", "dv"), leaves, references[2:5], strict=True):
        assert x.grad is not None
        assert_close_rms(x.grad, reference, GRADIENT_TOLERANCE[torch.float16], name)


@needs_interpreter
def test_gradient_through_the_final_state_alone(short_blocks, poisoned):
    q, k, v, slopes, S_0, do, dS = draw(150, slopes=[0.05], dtype=torch.float16)
    leaves = [x.requires_grad_() for x in (q, k, v, S_0)]
    _, final = lightning_attention(
        q, k, v, slopes, initial_state=S_0, output_final_state=True, implementation="triton"
    )  # fmt: skip
    assert final is not None
    final.backward(dS)
    references = expected(q, k, v, slopes, S_0, torch.zeros_like(do), dS)[2:]
    assert leaves[0].grad is not None
    assert not leaves[0].grad.any()
    for name, x, reference in zip(("dk", "dv", "dinitial"), leaves[1:], references[1:], strict=True):
        assert x.grad is not None
        assert_close_rms(x.grad, reference, GRADIENT_TOLERANCE[torch.float16], name)


@needs_interpreter
def test_states_can_be_handed_on(short_blocks):
    q, k, v, slopes, S_0, *_ = draw(200, slopes=[0.05], dtype=torch.float16)
    first, middle = lightning_attention(
        q[:, :, :77], k[:, :, :77], v[:, :, :77], slopes,
        initial_state=S_0, output_final_state=True, implementation="triton",
    )  # fmt: skip
    second, _ = lightning_attention(
        q[:, :, 77:], k[:, :, 77:], v[:, :, 77:], slopes, initial_state=middle, implementation="triton"
    )
    whole, _ = lightning_attention(q, k, v, slopes, initial_state=S_0, implementation="triton")
    assert_close_rms(torch.cat([first, second], dim=2), whole, 4e-4, "o")  # both rounded


@needs_interpreter
def test_two_runs_give_the_same_bits(short_blocks):
    case = draw(150, slopes=[0.05], dtype=torch.float16)
    assert all(torch.equal(a, b) for a, b in zip(actual(*case), actual(*case), strict=True))


DISTINCT = {
    f"{c}": (dtype, c) for (_, dtype), c in kernel.CONFIGURATIONS.items() if dtype != torch.bfloat16
}  # the interpreter's own bfloat16 product is wrong: those run on a GPU


@needs_interpreter
@pytest.mark.parametrize("name", DISTINCT)
def test_every_configuration(name, poisoned):
    dtype, layout = DISTINCT[name]
    case = draw(2 * layout.block + 9, slopes=[0.01], dtype=dtype)
    assert_all_close(with_layout(layout, *case), chunked_float64(*case), dtype, name)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_blocks_cover_packed_sequences(lengths):
    boundaries = torch.tensor([0, *lengths]).cumsum(0).int()
    blocks = Blocks.of(8, 1, sum(lengths), boundaries)
    assert blocks.first is not None
    assert blocks.owner is not None
    owner = [s for s, n in enumerate(lengths) for _ in range(-(-n // 8))]
    assert blocks.owner.tolist() == owner + [len(lengths)] * (blocks.count - len(owner))
    assert blocks.first.tolist() == [owner.index(s) for s in range(len(lengths))] + [len(owner)]


@needs_interpreter
@pytest.mark.parametrize(("packed", "states"), [(False, False), (True, True)])
def test_operators_keep_the_rules_of_torch(packed, states, short_blocks):
    q, k, v, slopes, S_0, do, dS = draw(20, slopes=[0.1], sequences=2 if packed else 1, dtype=torch.float16)
    cu_seqlens = torch.tensor([0, 3, 20], dtype=torch.int32) if packed else None
    leaves = [x.requires_grad_() for x in (q, k, v)]
    initial = S_0.requires_grad_() if states else None
    torch.library.opcheck(torch.ops.reattend.lightning_attention, (*leaves, slopes, initial, cu_seqlens, 0.5, states))
    _, _, kept = torch.ops.reattend.lightning_attention(q, k, v, slopes, initial, cu_seqlens, 0.5, states)
    torch.library.opcheck(
        torch.ops.reattend.lightning_attention_backward,
        (*(x.detach() for x in (q, k, v)), slopes, kept.detach(), do, dS if states else None, cu_seqlens, 0.5, states),
        test_utils=("test_schema", "test_faketensor"),
    )


# Bad input: (what is changed, what the message must name).
BAD_INPUT = {
    "q with three dimensions": ({"q": torch.zeros(2, 70, 64)}, r"q has shape \(2, 70, 64\); expected \[B, H, N, D\]"),
    "integer k": ({"k": torch.zeros(1, 2, 70, 64, dtype=torch.int64)}, "k has dtype torch.int64"),
    "empty v": ({"v": torch.zeros(1, 2, 0, 64)}, "v has shape .* no size may be zero"),
    "dtype of v": ({"v": torch.zeros(1, 2, 70, 64).half()}, "v is torch.float16 on cpu but q is torch.float32"),
    "width of k": ({"k": torch.zeros(1, 2, 70, 32)}, r"\(1, 2, 70, 32\).*q and k must have one shape"),
    "length of v": ({"v": torch.zeros(1, 2, 71, 64)}, "v may differ in its last size only"),
    "heads of decay": ({"decay": torch.zeros(3)}, r"decay has shape \(3,\).*each of the 2 heads"),
    "integer decay": ({"decay": torch.zeros(2, dtype=torch.int64)}, "decay has dtype torch.int64"),
    "growth": ({"decay": torch.tensor([0.0, -0.5])}, r"decay is \[0.0.*-0.5\]; slopes must be finite and >= 0"),
    "infinite decay": ({"decay": torch.tensor([0.0, float("inf")])}, "decay is .*inf"),
    "scale": ({"scale": 0.0}, "scale is 0.0"),
    "dtype of initial_state": ({"initial_state": torch.zeros(1, 2, 64, 64).half()}, "initial_state is torch.float16"),
    "shape of initial_state": ({"initial_state": torch.zeros(3, 2, 64, 64)}, r"expected \(1, 2, 64, 64\)"),
    "dtype of cu_seqlens": ({"cu_seqlens": torch.tensor([0.0, 70.0])}, "cu_seqlens is torch.float32"),
    "short cu_seqlens": ({"cu_seqlens": torch.tensor([70])}, r"cu_seqlens is torch.int64 with shape \(1,\)"),
    "end of cu_seqlens": ({"cu_seqlens": torch.tensor([0, 60])}, "must ascend from 0 to N = 70"),
    "empty sequence": ({"cu_seqlens": torch.tensor([0, 20, 20, 70])}, "without empty sequences"),
    "implementation": ({"implementation": "cuda"}, "implementation is 'cuda'; choose"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input(case):
    change, message = BAD_INPUT[case]
    q, k, v, decay, *_ = draw(70)
    with pytest.raises(InputError, match=message):
        lightning_attention(**{"q": q, "k": k, "v": v, "decay": decay, **change})


def test_packed_batch():
    q, k, v, decay, *_ = draw(70, B=2)
    with pytest.raises(InputError, match="q has batch size 2; with cu_seqlens"):
        lightning_attention(q, k, v, decay, cu_seqlens=torch.tensor([0, 70]))


@needs_interpreter
@pytest.mark.parametrize(
    ("D", "E", "dtype", "message"),
    [
        (80, 64, torch.float32, "q has head dimension 80; the Triton kernel takes 64 and 128"),
        (64, 256, torch.float32, "v has head dimension 256"),
        (64, 64, torch.float64, "float64; the Triton kernel takes"),
    ],
)
def test_what_the_kernel_does_not_take(D, E, dtype, message):
    q, k, v, decay, *_ = draw(20, D=D, E=E, dtype=dtype)
    with pytest.raises(InputError, match=message):
        lightning_attention(q, k, v, decay, implementation="triton")


def test_triton_on_the_cpu_needs_the_interpreter(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    q, k, v, decay, *_ = draw(20)
    with pytest.raises(MissingHardwareError, match="needs tensors on a CUDA device, not on cpu"):
        lightning_attention(q, k, v, decay, implementation="triton")


# On a GPU: real sizes; the yardstick is what SDPA loses in the same dtype.


def relative_rms(actual, expected):
    return ((actual.double() - expected).norm() / expected.norm()).item()


def sdpa_errors(dtype, N, D):
    """What dense causal softmax attention loses: relative RMS errors of o, dq, dk, dv to float64."""
    q, k, v, _, _, do, _ = draw(N, slopes=[0.0] * 4, D=D, E=D, dtype=dtype, device="cuda")
    results = []
    for cast in (dtype, torch.float64):
        leaves = [x.detach().to(cast).requires_grad_() for x in (q, k, v)]
        o = torch.nn.functional.scaled_dot_product_attention(leaves[0], leaves[1], leaves[2], is_causal=True)
        o.backward(do.to(cast))
        results.append((o.detach(), *(x.grad for x in leaves)))
    return [relative_rms(a, b) for a, b in zip(*results, strict=True)]


GPU_SLOPES = [0.0, 0.004, 0.03, 0.1, 0.7, 8.0]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("N", [1, 15, 63, 100, 1000, 4097])
@pytest.mark.parametrize("size", [1.0, 30.0])
def test_errors_on_gpu_are_those_of_sdpa(N, dtype, size):
    bound = sdpa_errors(dtype, 2048, 128)
    B = 2 if N > 15 else 64  # with one token a head's error is that of a few rounded scalars: take the RMS over many
    q, k, v, slopes, S_0, do, dS = draw(N, B=B, slopes=GPU_SLOPES, D=128, E=128, dtype=dtype, device="cuda")
    k = k * size
    if dtype == torch.float16:  # outputs and gradients of size 30 sqrt(N D) would pass 65504
        v, do = v / size, do / size
    case = (q, k, v, slopes, S_0, do, dS)
    results, references = actual(*case), chunked_float64(*case)
    # The states are float32, but sums of products with one rounded factor, as the gradients are.
    o, dq, dk, dv = (factor * error for factor, error in zip((1.2, 1.5, 1.5, 1.5), bound, strict=True))
    allowed = {"o": o, "final state": dv, "dq": dq, "dk": dk, "dv": dv, "dinitial": dv}
    for name, result, reference in zip(NAMES, results, references, strict=True):
        for h, slope in enumerate(GPU_SLOPES):
            index = (slice(None), h)
            if reference[index].norm() > 0:
                error = relative_rms(result[index], reference[index])
                assert error <= allowed[name], f"{name}, slope {slope}: {error:.3g}, allowed {allowed[name]:.3g}"


@pytest.mark.gpu
@pytest.mark.parametrize(("D", "E"), [(64, 64), (64, 128), (128, 64), (128, 128)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("device_class", ["hopper", "other"])
@pytest.mark.parametrize("packed", [False, True])
def test_every_configuration_on_gpu(D, E, dtype, device_class, packed):
    layout = kernel.CONFIGURATIONS[device_class, dtype]
    N = 2 * layout.block + 777
    places = torch.tensor([0, 1, 65, N - layout.block, N], device="cuda", dtype=torch.int32) if packed else None
    case = draw(N, slopes=GPU_SLOPES, D=D, E=E, sequences=4 if packed else 1, dtype=dtype, device="cuda")
    results = with_layout(layout, *case, cu_seqlens=places)
    tolerance = {torch.bfloat16: 3.5e-3, torch.float16: 4.5e-4, torch.float32: 2e-6}[dtype]
    for name, result, reference in zip(NAMES, results, chunked_float64(*case, cu_seqlens=places), strict=True):
        assert_close_rms(result, reference, tolerance, name)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_fifty_runs_on_gpu_give_the_same_bits(dtype):
    case = draw(5000, B=2, slopes=GPU_SLOPES, D=128, E=128, dtype=dtype, device="cuda")
    first = actual(*case)
    for _ in range(49):
        assert all(torch.equal(a, b) for a, b in zip(first, actual(*case), strict=True))


@pytest.mark.gpu
def test_length_first_tensors_are_not_copied_on_gpu():
    B, N, H, D = 1, 32768, 16, 128
    q, k, v = (torch.randn(B, N, H, D, device="cuda", dtype=torch.bfloat16).transpose(1, 2) for _ in range(3))
    slopes = torch.full((H,), 0.01, device="cuda")
    lightning_attention(q, k, v, slopes)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    o, _ = lightning_attention(q, k, v, slopes)
    one = o.numel() * o.element_size()
    assert torch.cuda.max_memory_allocated() - before < 1.5 * one  # the output and the states, no copy of an input


@pytest.mark.gpu
@pytest.mark.parametrize("packed", [False, True])
def test_torch_compile_on_gpu(packed):
    q, k, v, slopes, S_0, do, dS = draw(
        3000, slopes=GPU_SLOPES, D=128, E=128, sequences=2 if packed else 1, dtype=torch.bfloat16, device="cuda"
    )
    places = torch.tensor([0, 1000, 3000], device="cuda") if packed else None

    def run(q, k, v, S_0):
        o, final = lightning_attention(q, k, v, slopes, initial_state=S_0, output_final_state=True, cu_seqlens=places)
        assert final is not None
        return 2 * o, final

    results = []
    for call in (run, torch.compile(run, fullgraph=True)):
        leaves = [x.detach().requires_grad_() for x in (q, k, v, S_0)]
        outputs = call(*leaves)
        torch.autograd.backward(outputs, [do, dS])
        results.append((*outputs, *(x.grad for x in leaves)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.gpu
def test_operators_on_gpu_keep_the_rules_of_torch():
    q, k, v, slopes, S_0, do, dS = draw(300, D=128, E=128, dtype=torch.bfloat16, device="cuda")
    leaves = [x.requires_grad_() for x in (q, k, v, S_0)]
    torch.library.opcheck(torch.ops.reattend.lightning_attention, (*leaves[:3], slopes, leaves[3], None, 0.5, True))
    _, _, kept = torch.ops.reattend.lightning_attention(q, k, v, slopes, S_0, None, 0.5, True)
    torch.library.opcheck(
        torch.ops.reattend.lightning_attention_backward,
        (*(x.detach() for x in (q, k, v)), slopes, kept.detach(), do, dS, None, 0.5, True),
        test_utils=("test_schema", "test_faketensor"),
    )


@pytest.mark.gpu
def test_auto_takes_the_kernel_on_gpu_and_agrees_with_the_reference():
    q, k, v, slopes, *_ = draw(500, D=128, E=128, dtype=torch.float16, device="cuda")
    fast, _ = lightning_attention(q, k, v, slopes)
    exact, _ = lightning_attention_reference(q.double(), k.double(), v.double(), slopes)
    assert_close_rms(fast, exact, TOLERANCE[torch.float16], "o")
