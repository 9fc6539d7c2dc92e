"""Distillation: gates of any number of kinds learn side by side from one frozen model (Section 3.2 of the paper)."""

import time
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from transformers import PretrainedConfig, get_cosine_schedule_with_warmup

from common.checkpoints import Checkpoints
from common.configuration import Parameters
from common.errors import InputError
from common.progress import Progress
from common.training import Batches
from papers.seer_attention.seer_attention import AttentionGate, Pooling, distillation_loss
from papers.seer_attention.teacher import Teacher

CHECKPOINT = "distillation"


class GateSettings(Parameters):
    """A kind of gate.

    Attributes:
        queries: how queries are pooled.
        keys: how keys are pooled.
        block_rotary: with rotary embedding of the blocks.
        seeds: how many gates of this kind, with seeds 0, 1, ... of their initial weights.
    """

    queries: list[Pooling]
    keys: list[Pooling]
    block_rotary: bool = True
    seeds: int = Field(default=1, ge=1)


class TrainingSettings(Parameters):
    """One pass of distillation: its gates see the same batches.

    Attributes:
        length: tokens a sequence.
        batch_size: sequences a step.
        gates: name -> kind.
    """

    length: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    gates: dict[str, GateSettings]


class Optimisation(Parameters):
    """AdamW without weight decay; linear warm-up, then half a cosine to zero.

    Attributes:
        steps: of the optimiser.
        learning_rate: greatest of the schedule.
        warmup_steps: first steps, in which the rate rises.
        order_seed: of the order of the sequences.
    """

    steps: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    warmup_steps: int = Field(ge=0)
    order_seed: int


def make_gate(kind: GateSettings, model: PretrainedConfig, *, block_size: int, seed: int) -> AttentionGate:
    """The gate of all layers of a model, untrained.

    Args:
        kind: of gate.
        model: configuration of the model.
        block_size: B.
        seed: of the initial weights.
    """
    heads = model.num_attention_heads
    head_dim = getattr(model, "head_dim", None) or model.hidden_size // heads
    return AttentionGate(
        model.num_hidden_layers * heads,
        model.num_hidden_layers * model.num_key_value_heads,
        head_dim,
        seed=seed,
        block_size=block_size,
        query_poolings=kind.queries,
        key_poolings=kind.keys,
        block_rotary=kind.block_rotary,
    )


def distil(
    teacher: Teacher,
    windows: Tensor,
    gates: Mapping[str, AttentionGate],
    optimisation: Optimisation,
    *,
    batch_size: int,
    curve_every: int,
    checkpoints: Checkpoints | None = None,
    save_seconds: float = 60.0,
    progress: Progress | None = None,
) -> list[dict[str, float]]:
    """Train gates in place. A checkpoint of the same work is resumed: on the CPU with the numbers of an uninterrupted run.

    The host waits for the device only where the curve gets a row.

    Args:
        teacher: the frozen model.
        windows: training sequences, int64 [W, N] on the model's device.
        gates: name -> gate of all layers, on the model's device; float32.
        optimisation: how.
        batch_size: sequences a step.
        curve_every: steps between two rows of the curve; the last step always gives one.
        checkpoints: where to save and resume; None does neither.
        save_seconds: between two checkpoints, which are written at rows of the curve; the last row always gives one.
        progress: counts rows of the curve.

    Returns:
        The curve: a row has `step`, `seconds` (so far), and for every gate its name -> mean loss since the last row, the sum of
        all layers as in the official code.

    Raises:
        InputError: there are no gates, or fewer windows than a batch takes.
        DataError: a checkpoint cannot be written.
    """
    if not gates:
        raise InputError("gates is empty; there is nothing to train.")
    layers = teacher.before_rotary.layers
    parameters = [parameter for gate in gates.values() for parameter in gate.parameters()]
    optimiser = torch.optim.AdamW(
        parameters, lr=optimisation.learning_rate, weight_decay=0.0, fused=windows.device.type == "cuda"
    )
    schedule = get_cosine_schedule_with_warmup(optimiser, optimisation.warmup_steps, optimisation.steps)
    batches = Batches({windows.shape[1]: (windows,)}, batch_size, optimisation.order_seed)
    losses = torch.zeros(len(gates), dtype=torch.float64, device=windows.device)
    first, seconds_before, curve = 0, 0.0, []

    state = checkpoints.load(CHECKPOINT) if checkpoints is not None else None
    if state is not None:
        first, seconds_before, curve = state["step"], state["seconds"], state["curve"]
        for name, gate in gates.items():
            gate.load_state_dict(state["gates"][name])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        batches.load_state(state["batches"])
        if progress is not None:
            progress.step("resumed", steps=len(curve))

    start = saved = time.monotonic()
    last_row = first
    for step in range(first + 1, optimisation.steps + 1):
        _, rows = batches.draw()
        lesson = teacher(windows[rows])
        optimiser.zero_grad(set_to_none=True)
        for number, gate in enumerate(gates.values()):
            loss = layers * distillation_loss(lesson.logits(gate), lesson.block_maxima)
            loss.backward()
            losses[number] += loss.detach()
        optimiser.step()
        schedule.step()
        if step % curve_every and step != optimisation.steps:
            continue
        means = (losses / (step - last_row)).tolist()
        losses.zero_()
        last_row = step
        now = time.monotonic()
        row: dict[str, Any] = {"step": step, "seconds": seconds_before + now - start, **dict(zip(gates, means, strict=True))}
        curve.append(row)
        if progress is not None:
            progress.step(f"step {step}, loss {means[0]:.4g}")
        if checkpoints is not None and (now - saved >= save_seconds or step == optimisation.steps):
            state = {
                "step": step,
                "seconds": row["seconds"],
                "curve": curve,
                "gates": {name: dict(gate.state_dict()) for name, gate in gates.items()},
                "optimiser": optimiser.state_dict(),
                "schedule": schedule.state_dict(),
                "batches": batches.state(),
            }
            checkpoints.save(CHECKPOINT, state)
            saved = time.monotonic()
    for gate in gates.values():
        gate.requires_grad_(False)
    return curve
