"""Distillation on a tiny model: only gates train, they learn, and an interruption does not change what they become."""

import pytest
import torch

from common.checkpoints import Checkpoints
from common.errors import InputError
from papers.seer_attention.distillation import median_head
from papers.seer_attention.seer_attention import distillation_loss, divergence
from papers.seer_attention.teacher import teaching
from papers.seer_attention.training import GateSettings, Optimisation, distil, make_gate

KINDS = {
    "all": GateSettings(queries=["mean"], keys=["max", "min", "mean"]),
    "two": GateSettings(queries=["mean", "max"], keys=["max"], block_rotary=False),
}
OPTIMISATION = Optimisation(steps=12, learning_rate=1e-2, warmup_steps=2, order_seed=0)


@pytest.fixture
def windows():
    return torch.randint(512, (7, 96), generator=torch.Generator().manual_seed(1))


def gates_for(model):
    return {name: make_gate(kind, model.config, block_size=16, seed=0) for name, kind in KINDS.items()}


def train(model, windows, gates, **changes):
    arguments = {"batch_size": 2, "curve_every": 3, **changes}
    with teaching(model, block_size=16) as teacher:
        return distil(teacher, windows, gates, OPTIMISATION, **arguments)


def parameters(gates):
    return {f"{name} {key}": weight.clone() for name, gate in gates.items() for key, weight in gate.state_dict().items()}


def test_only_gates_train_and_the_loss_falls(model, windows):
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    gates = gates_for(model)
    initial = parameters(gates)
    curve = train(model, windows[:2], gates)  # one batch, again and again
    assert [row["step"] for row in curve] == [3, 6, 9, 12]
    assert all(curve[-1][name] < curve[0][name] for name in KINDS)
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    trained = parameters(gates)
    assert trained.keys() == initial.keys()
    assert not any(torch.equal(initial[name], trained[name]) for name in initial)


def test_gates_side_by_side_become_what_each_becomes_alone(model, windows):
    together, alone = gates_for(model), gates_for(model)
    train(model, windows, together)
    for name, gate in alone.items():
        train(model, windows, {name: gate})
    for name, weight in parameters(together).items():
        assert torch.equal(weight, parameters(alone)[name])


def test_the_first_step_follows_the_sum_of_the_layers_losses(model, windows):
    """One step of AdamW from scratch moves every weight by the learning rate against the sign of its gradient."""
    gate = make_gate(KINDS["all"], model.config, block_size=16, seed=0)
    start = gate.W_k.detach().clone()
    with teaching(model, block_size=16) as teacher:
        lesson = teacher(windows[:2])
        layers = lesson.logits(gate).chunk(2, dim=1), lesson.block_maxima.chunk(2, dim=1)
        expected = torch.stack([distillation_loss(logits, maxima) for logits, maxima in zip(*layers, strict=True)]).sum()
        (gradient,) = torch.autograd.grad(expected, gate.W_k)
        one_step = OPTIMISATION.model_copy(update={"steps": 1, "warmup_steps": 0})
        curve = distil(teacher, windows[:2], {"all": gate}, one_step, batch_size=2, curve_every=1)
    assert curve[0]["all"] == pytest.approx(expected.item(), rel=1e-5)
    large = gradient.abs() > 1e-6  # far above Adam's epsilon
    assert large.float().mean() > 0.5
    torch.testing.assert_close((gate.W_k - start)[large], -1e-2 * gradient.sign()[large], atol=2e-4, rtol=0)


class KilledError(Exception):
    pass


class KilledAfter(Checkpoints):
    """Checkpoints of a process that dies right after writing one."""

    def save(self, name, state):
        super().save(name, state)
        if state["step"] == 6:
            raise KilledError


def test_a_killed_distillation_goes_on_to_the_same_gates(model, windows, tmp_path):
    whole = gates_for(model)
    expected = train(model, windows, whole)

    with pytest.raises(KilledError):
        train(model, windows, gates_for(model), checkpoints=KilledAfter(tmp_path, "key"), save_seconds=0)
    resumed = gates_for(model)
    seen = []
    hook = model.model.register_forward_hook(lambda module, inputs, output: seen.append(1))
    curve = train(model, windows, resumed, checkpoints=Checkpoints(tmp_path, "key"), save_seconds=0)
    hook.remove()
    assert len(seen) == 6  # steps 7 to 12
    assert [{**row, "seconds": 0} for row in curve] == [{**row, "seconds": 0} for row in expected]
    for name, weight in parameters(whole).items():
        assert torch.equal(weight, parameters(resumed)[name])
    finished = gates_for(model)
    train(model, windows, finished, checkpoints=Checkpoints(tmp_path, "key"))
    assert all(torch.equal(weight, parameters(finished)[name]) for name, weight in parameters(whole).items())


def test_divergence_and_loss_agree():
    """The loss is 10 times the mean over entries: over T entries a row, that is 10 / T times the divergence of a row."""
    g = torch.Generator().manual_seed(0)
    causal = torch.ones(8, 8, dtype=torch.bool).tril()
    logits = torch.randn(2, 3, 8, 8, generator=g).masked_fill(~causal, float("-inf"))
    maxima = torch.rand(2, 3, 8, 8, generator=g) * causal
    found = divergence(logits, maxima)
    assert found.shape == (2, 3)
    assert (found > 0).all()
    assert distillation_loss(logits, maxima).item() == pytest.approx(10 / 8 * found.mean().item(), rel=1e-5)


def test_median_head():
    assert median_head(torch.tensor([5.0, 1.0, 3.0])) == 2
    assert median_head(torch.tensor([4.0, 1.0, 3.0, 2.0])) == 3


def test_bad_input(model, windows):
    with pytest.raises(InputError, match="gates is empty"):
        train(model, windows, {})
    with pytest.raises(InputError, match="7 examples and a batch takes 8"):
        train(model, windows, gates_for(model), batch_size=8)
