"""TransNormerLLM against a model written here in float64, token by token; decay slopes, SRMSNorm and LRPE by hand."""

import math
from typing import Any, cast

import pytest
import torch
from pydantic import ValidationError
from torch.nn.functional import cross_entropy, layer_norm

from common.errors import InputError
from papers.lightning_attention.llama_twin import LlamaShape, LlamaTwin
from papers.lightning_attention.transnormer_llm import LRPE, Shape, TransNormerLLM, decay_slopes, srms_norm

SMALL: dict[str, Any] = {"vocabulary": 11, "width": 12, "layers": 3, "heads": 3, "glu_width": 10}
VARIANTS: dict[str, dict[str, Any]] = {
    "the paper's": {},
    "LRPE in every layer": {"positions": "lrpe_decay"},
    "decay alone": {"positions": "decay"},
    "LRPE alone": {"positions": "lrpe"},
    "no positions": {"positions": "none"},
    "linear slopes": {"slopes": "linear"},
    "no temperature": {"temperature": False},
    "no gate": {"gate": False},
    "RMSNorm": {"norm": "rms"},
    "LayerNorm": {"norm": "layer"},
    "1 + elu": {"activation": "elu"},
    "no activation": {"activation": "none"},
    "swish in SGLU": {"glu_activation": "swish"},
}


def model(seed=0, **changes):
    """A small model in float64, all of whose parameters are random: learned gains and angles too."""
    network = TransNormerLLM(Shape(**{**SMALL, **changes}), seed=seed).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.5, generator=generator)
    return network


def tokens(N=9, B=2, seed=0):
    return torch.randint(SMALL["vocabulary"], (B, N), generator=torch.Generator().manual_seed(seed))


def naive_logits(network, sequence):
    """Logits [N, vocabulary] of one sequence in float64: every attention score by its definition, one pair at a time."""
    shape, weights = network.shape, dict(network.named_parameters())
    H, d = shape.heads, shape.width // shape.heads

    def norm(x, name):
        mean_square = (x * x).mean(-1, keepdim=True)
        if shape.norm == "srms":
            return x / (mean_square + 1e-6).sqrt()
        gain = weights[f"{name}.weight"]
        if shape.norm == "rms":
            return x / (mean_square + 1e-6).sqrt() * gain
        return layer_norm(x, (x.shape[-1],), gain, weights[f"{name}.bias"], eps=1e-6)

    def activate(x, name):
        return {"swish": x * torch.sigmoid(x), "elu": torch.where(x > 0, 1 + x, torch.exp(x)), "none": x}[name]

    x = weights["embedding.weight"][sequence]
    for layer in range(shape.layers):
        at = f"blocks.{layer}."
        parts = (norm(x, f"{at}attention_norm") @ weights[f"{at}attention.project.weight"].T).split(shape.width, dim=-1)
        q, k, v = activate(parts[0], shape.activation), activate(parts[1], shape.activation), parts[2]
        rotated = shape.positions in ("lrpe", "lrpe_decay") or (shape.positions == "mix" and layer == 0)
        o = torch.zeros_like(x)
        for h in range(H):
            head = slice(h * d, (h + 1) * d)
            theta = weights[f"{at}attention.lrpe.theta"][h, 0] if rotated else torch.zeros(d, dtype=torch.float64)
            if shape.slopes == "geometric":  # 3 heads: the 2 of two, then the first of four
                slope = (2**-4, 2**-8, 2**-2)[h] * ((1 - layer / 2 + 1e-5) if shape.temperature else 1)
            else:
                slope = 8 * h / 3 * (1 - layer / 3)
            if shape.positions in ("lrpe", "none"):
                slope = 0.0
            for t in range(len(x)):
                for r in range(t + 1):
                    phase = torch.polar(torch.ones_like(theta), theta * (t - r))
                    score = (q[t, head] * k[r, head] * phase).sum().real * math.exp(-slope * (t - r))
                    o[t, head] = o[t, head] + score * v[r, head]
        o = norm(o, f"{at}attention.norm") * (parts[3] if shape.gate else 1)
        x = x + o @ weights[f"{at}attention.out.weight"].T
        v, u = (norm(x, f"{at}glu_norm") @ weights[f"{at}glu.project.weight"].T).split(shape.glu_width, dim=-1)
        x = x + (activate(v, shape.glu_activation) * u) @ weights[f"{at}glu.out.weight"].T
    return norm(x, "norm") @ weights["head.weight"].T


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_logits_are_those_of_the_definition(changes):
    network, sequences = model(**changes), tokens(7)
    expected = torch.stack([naive_logits(network, sequence) for sequence in sequences])
    torch.testing.assert_close(network(sequences), expected, rtol=1e-6, atol=1e-6)  # slopes are float32


def test_gradients_are_those_of_the_definition():
    network, sequence, targets = model(), tokens(6, 1), tokens(6, 1, seed=1)[0]
    parameters = list(network.parameters())
    found = torch.autograd.grad(cross_entropy(network(sequence)[0], targets), parameters)
    expected = torch.autograd.grad(cross_entropy(naive_logits(network, sequence[0]), targets), parameters)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("changes", [{}, {"positions": "lrpe_decay", "slopes": "linear"}, {"gate": False}], ids=str)
@pytest.mark.parametrize("pieces", [[1] * 9, [5, 1, 1, 1, 1], [4, 3, 1, 1], [9]], ids=str)
def test_decoding_in_any_pieces_is_the_prefill(changes, pieces):
    network, sequences = model(**changes), tokens(9)
    memory, found, sizes = None, [], set()
    for piece in sequences.split(pieces, dim=1):
        logits, memory = network.read(piece, memory)
        found.append(logits)
        sizes.add(memory.bytes)
    torch.testing.assert_close(torch.cat(found, dim=1), network(sequences), rtol=1e-9, atol=1e-9)
    assert memory is not None
    assert memory.tokens == 9
    layers = [2 if network.shape.rotates(layer) else 1 for layer in range(3)]
    assert sizes == {8 * 2 * 3 * 4 * 4 * sum(layers)}  # float64, batch, heads, d x d, twice as wide with LRPE


def test_later_tokens_change_nothing_before_them():
    network, sequences = model(), tokens(9)
    changed = sequences.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % SMALL["vocabulary"]
    assert torch.equal(network(changed)[:, :6], network(sequences)[:, :6])
    assert not torch.allclose(network(changed)[:, 6:], network(sequences)[:, 6:])


def test_geometric_slopes_of_the_released_code():
    torch.testing.assert_close(decay_slopes(8, 0, 3), torch.tensor([1 / 2**n for n in range(1, 9)]) * (1 + 1e-5))
    assert decay_slopes(8, 1, 3, temperature=False).tolist() == [1 / 2**n for n in range(1, 9)]
    torch.testing.assert_close(decay_slopes(2, 1, 3), torch.tensor([2**-4, 2**-8]) * (0.5 + 1e-5))
    torch.testing.assert_close(decay_slopes(2, 2, 3), torch.tensor([2**-4, 2**-8]) * 1e-5)
    # Six heads: the slopes of four, then every other one of eight, as ALiBi has it.
    expected = [1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 2, 1 / 8]
    assert decay_slopes(6, 0, 9, temperature=False).tolist() == expected
    torch.testing.assert_close(decay_slopes(1, 0, 1), torch.tensor([2**-8]) * (1 + 1e-5))


def test_linear_slopes_of_equation_10():
    assert decay_slopes(4, 0, 2, convention="linear").tolist() == [0, 2, 4, 6]
    assert decay_slopes(4, 1, 2, convention="linear").tolist() == [0, 1, 2, 3]
    assert decay_slopes(4, 1, 2, convention="linear", temperature=False).tolist() == [0, 2, 4, 6]


def test_srms_norm_by_hand():
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0], [-30.0, 40.0]])
    root = math.sqrt(12.5)
    expected = torch.tensor([[3 / root, 4 / root], [0.0, 0.0], [-3 / root, 4 / root]])
    torch.testing.assert_close(srms_norm(x), expected, rtol=1e-6, atol=1e-6)


def test_lrpe_by_hand():
    lrpe = LRPE(2, 1)
    assert lrpe.theta.flatten().tolist() == pytest.approx([1.0, 1e-4])  # 10000^0, 10000^(-2/2)
    x = torch.tensor([2.0, 3.0]).view(1, 2, 1, 1).expand(1, 2, 2, 1)
    expected = [
        [[2 * math.cos(5), 2 * math.sin(5)], [2 * math.cos(6), 2 * math.sin(6)]],
        [[3 * math.cos(5e-4), 3 * math.sin(5e-4)], [3 * math.cos(6e-4), 3 * math.sin(6e-4)]],
    ]
    torch.testing.assert_close(lrpe(x, start=5)[0], torch.tensor(expected))


def test_lrpe_products_depend_on_distances_alone():
    lrpe = LRPE(1, 4).double()
    q, k = torch.randn(2, 1, 1, 1, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    products = [(lrpe(q, start=t) * lrpe(k, start=t - 3)).sum() for t in (3, 10, 1000)]
    expected = (q * k * torch.cos(3 * lrpe.theta)).sum()
    torch.testing.assert_close(torch.stack(products), expected.expand(3), rtol=1e-9, atol=1e-9)


def test_the_seed_alone_makes_the_weights():
    first, second, other = (TransNormerLLM(Shape(**SMALL), seed=seed) for seed in (0, 0, 1))
    weights = [dict(network.named_parameters()) for network in (first, second, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["head.weight"], weights[2]["head.weight"])
    large = TransNormerLLM(Shape(**{**SMALL, "width": 300}), seed=0)
    assert large.get_parameter("blocks.0.attention.project.weight").std().item() == pytest.approx(0.02, rel=0.02)


def test_the_twin_is_transformers_llama():
    from transformers import LlamaForCausalLM

    twin = LlamaTwin(LlamaShape(vocabulary=11, width=16, layers=2, heads=2, mlp_width=20), seed=0)
    whole = LlamaForCausalLM(twin.model.config)
    whole.model.load_state_dict(twin.model.state_dict())
    whole.lm_head.load_state_dict(twin.head.state_dict())
    sequences = tokens(30)
    torch.testing.assert_close(twin(sequences), whole(sequences).logits)
    assert not torch.equal(twin(sequences), LlamaTwin(twin.shape, seed=1)(sequences))


def test_a_block_compiles_whole():
    for network in (
        TransNormerLLM(Shape(**SMALL), seed=0),
        LlamaTwin(LlamaShape(vocabulary=11, width=12, layers=2, heads=3, mlp_width=9), seed=0),
    ):
        expected = network(tokens())
        for block in network.blocks:
            block.compile(fullgraph=True, dynamic=False, backend="eager")
        torch.testing.assert_close(network(tokens()), expected)
        torch.compiler.reset()


def test_bad_input():
    network = model()
    _, memory = network.read(tokens(3))
    for call, message in [
        (lambda: TransNormerLLM(Shape(**{**SMALL, "heads": 5}), seed=0), "width = 12 is no multiple of heads = 5"),
        (
            lambda: LlamaTwin(LlamaShape(vocabulary=11, width=12, layers=1, heads=5, mlp_width=9), seed=0),
            "width = 12 is no multiple of heads = 5",
        ),
        (lambda: decay_slopes(4, 3, 3), "layer = 3 of 3"),
        (lambda: decay_slopes(4, 0, 3, convention=cast(Any, "alibi")), "convention = 'alibi' is not known"),
        (lambda: network.read(tokens(3)[:, :0]), r"shape \(2, 0\); expected \[B, N\]"),
        (lambda: network.read(tokens(3)[0]), r"shape \(3,\)"),
        (lambda: network.read(tokens(3, B=1), memory), "memory has 3 layers and a batch of 2; this model has 3 layers"),
        (lambda: model(layers=2).read(tokens(3), memory), "this model has 2 layers"),
    ]:
        with pytest.raises(InputError, match=message):
            call()
    for wrong in ({"positions": "rotary"}, {"layers": 0}, {"norm": "batch"}, {"dropout": 0.1}):
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            Shape(**{**SMALL, **wrong})
