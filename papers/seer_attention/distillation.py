"""Distillation: gates learn the block maxima of a frozen model's attention; only the gates train.

Gates of one cell see the same batches in the same order, whatever their seed: the frozen model runs once a step for them all.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from common.data.texts import load_text
from common.errors import InputError
from common.experiment import Context, Measurement, main
from common.selector_comparison import SubjectSettings, load_subject, token_windows
from papers.seer_attention.gates import GATES, tensor_name
from papers.seer_attention.seer_attention import AttentionGate, divergence, ground_truth
from papers.seer_attention.teacher import Lesson, teaching
from papers.seer_attention.training import Optimisation, TrainingSettings, distil, make_gate


class Settings(SubjectSettings):
    """Axes and parameters of `config.yaml`, beyond those of the subject.

    Attributes:
        training: name of the cell's training.
        trainings: name -> its sequences and gates.
        optimisation: steps and learning rate.
        texts: training texts, joined by end-of-text tokens and cut into sequences.
        held_out_text: on which the gates are tested; none of `texts`, but for scale smoke.
        held_out_windows: windows of it; each is an item of the statistics.
        block_size: B.
        curve_every: steps between two rows of the curve.
    """

    training: str
    trainings: dict[str, TrainingSettings]
    optimisation: Optimisation
    texts: list[str]
    held_out_text: str
    held_out_windows: int
    block_size: int
    curve_every: int

    @property
    def chosen(self) -> TrainingSettings:
        """The cell's training."""
        return self.trainings[self.training]


@lru_cache(maxsize=1)
def _joined(tokenizer: PreTrainedTokenizerBase, texts: tuple[str, ...]) -> Tensor:
    """The tokens of the texts, each with the end-of-text token behind it: int64 [N]."""
    contents = [load_text(name, unwrap=name.startswith("long-texts")).text for name in texts]
    rows = tokenizer(contents, add_special_tokens=False, verbose=False)["input_ids"]
    return torch.tensor([token for row in rows for token in (*row, tokenizer.eos_token_id)])


def training_windows(tokenizer: PreTrainedTokenizerBase, texts: list[str], length: int) -> Tensor:
    """Texts joined by the tokenizer's end-of-text token and cut: int64 [W, length]; what is left over is dropped.

    Raises:
        InputError: the texts are shorter than one window.
    """
    tokens = _joined(tokenizer, tuple(texts))
    count = len(tokens) // length
    if count < 1:
        raise InputError(f"texts have {len(tokens)} tokens together, and a window {length}; give more text.")
    return tokens[: count * length].view(count, length)


def median_head(heads: Tensor) -> int:
    """The head with the median of [H] numbers (the lower of two)."""
    return int(heads.argsort()[(len(heads) - 1) // 2])


class HeldOut:
    """How far gates are from the truth on windows that they have not seen."""

    def __init__(self, measurement: Measurement, layers: int):
        self.measurement, self.layers = measurement, layers

    def add(self, lesson: Lesson, gate: AttentionGate, method: str, *, seed: int, window: int) -> None:
        """A row: KL(gt ‖ score) of a block row in nats, mean over rows, heads and layers."""
        mean = divergence(lesson.logits(gate), lesson.block_maxima).mean()
        self.measurement.add("held_out_divergence", mean, "nat", method=method, seed=seed, window=window)

    def keep_map(self, lesson: Lesson, gate: AttentionGate) -> None:
        """Keep the true and the predicted map of the head with the median divergence."""
        logits = lesson.logits(gate)
        head = median_head(divergence(logits, lesson.block_maxima)[0])
        heads = logits.shape[1] // self.layers
        self.measurement.arrays |= {
            "map_true": ground_truth(lesson.block_maxima)[0, head].cpu().numpy(),
            "map_predicted": logits[0, head].softmax(-1).cpu().numpy(),
            "map_layer_and_head": np.array(divmod(head, heads)),
        }


def run(settings: Settings, context: Context) -> Measurement:
    """Train the gates of one training; rows are its curve and the divergence on held-out text, the artifact is the gates."""
    measurement = Measurement()
    s, training = settings, settings.chosen
    subject = load_subject(s, training.length, context.device)
    model = subject.model.requires_grad_(False)
    windows = training_windows(subject.tokenizer, s.texts, training.length)
    held_out = token_windows(subject, s.held_out_text, training.length, s.held_out_windows)
    places = {f"{name} {seed}": (name, seed) for name, kind in training.gates.items() for seed in range(kind.seeds)}

    def untrained(name: str, seed: int) -> AttentionGate:
        return make_gate(training.gates[name], model.config, block_size=s.block_size, seed=seed).to(context.device)

    gates = {label: untrained(*place) for label, place in places.items()}
    progress = context.progress(math.ceil(s.optimisation.steps / s.curve_every))
    with teaching(model, s.block_size) as teacher:
        curve = distil(
            teacher,
            windows.to(context.device),
            gates,
            s.optimisation,
            batch_size=training.batch_size,
            curve_every=s.curve_every,
            checkpoints=context.checkpoints,
            progress=progress,
        )
        first = next(iter(gates))
        scores = HeldOut(measurement, model.config.num_hidden_layers)
        with torch.no_grad():
            for number, window in enumerate(held_out):
                lesson = teacher(window[None].to(context.device))
                for label, (name, seed) in places.items():
                    scores.add(lesson, gates[label], name, seed=seed, window=number)
                    if label == first:
                        scores.add(lesson, untrained(name, seed), "untrained", seed=seed, window=number)
                if number == 0:
                    scores.keep_map(lesson, gates[first])

    for row in curve:
        for label, (name, seed) in places.items():
            if math.isfinite(row[label]):
                measurement.add("distillation_loss", row[label], method=name, seed=seed, step=int(row["step"]))
    measurement.add("training_time", curve[-1]["seconds"], "s", timing=True)
    tokens = s.optimisation.steps * training.batch_size * training.length
    measurement.add("training_tokens", tokens, "tokens")
    measurement.add("training_rate", tokens / curve[-1]["seconds"], "tokens/s", timing=True)
    measurement.artifacts[GATES] = {
        tensor_name(name, seed, parameter): weight
        for label, (name, seed) in places.items()
        for parameter, weight in gates[label].state_dict().items()
    }
    return measurement


if __name__ == "__main__":
    main(run, Settings)
