"""Claims on end-to-end speed: time to the first token of a whole model, dense and with PBS-Attn (Figure 4, Table 9).

Two subjects: the pretrained one, where the selection is real; and Llama-3.1-8B's architecture with random weights, whose
attention has no structure to select by. There all of the method's work is done, and then blocks drawn at the paper's density
(Table 5) are read in place of its selection.
"""

from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from common.configuration import Parameters
from common.experiment import Context, Measurement, main
from common.language_models import load_language_model, random_llama
from common.sparse_attention import Selector
from common.sparse_attention.at_density import AtDensity
from common.sparse_attention.transformers_attention import SelectionStatistics, register
from common.timing import median_milliseconds
from papers.pbs_attn.pbs_attn import PBSAttention
from papers.pbs_attn.subjects import token_windows

NAME = "pbs_attn_timed"


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        subject: the pretrained model, or an architecture with random weights.
        lengths: subject -> lengths of the prompt, in tokens.
        pretrained: the pretrained model's name, folder or hub id.
        text: the prompt of the pretrained model is the beginning of this text.
        shape: architecture of the random subject.
        layers: layers of the random subject; 0 for all.
        dtype: of weights and activations.
        block_size, segment_size, tau: B, S and the selection threshold.
        densities: length -> density for the random subject (Table 5).
        baseline: attention implementation of the dense model.
        repeat_milliseconds: time spent on repeating each measurement.
        seed: of weights and tokens.
    """

    subject: Literal["pretrained", "random"]
    lengths: dict[str, list[int]]
    pretrained: str
    text: str
    shape: str
    layers: int
    dtype: str
    block_size: int
    segment_size: int
    tau: float
    densities: dict[int, float]
    baseline: str
    repeat_milliseconds: int
    seed: int


def load(settings: Settings, device: str) -> tuple[PreTrainedModel, Tensor]:
    """The subject with dense attention, and its prompt: int64 [longest length]."""
    dtype, longest = getattr(torch, settings.dtype), max(settings.lengths[settings.subject])
    if settings.subject == "pretrained":
        subject = load_language_model(settings.pretrained, dtype=dtype, device=device)
        return subject.model, token_windows(subject, settings.text, longest, 1)[0]
    model = random_llama(settings.shape, seed=settings.seed, dtype=dtype, device=device, layers=settings.layers or None)
    generator = torch.Generator().manual_seed(settings.seed)
    return model, torch.randint(model.config.vocab_size, (longest,), generator=generator)


@torch.inference_mode()
def run(settings: Settings, context: Context) -> Measurement:
    """Time the forward pass that gives the first token, dense and with PBS-Attn."""
    measurement = Measurement()
    s = settings
    model, prompt = load(s, context.device)
    method = PBSAttention(block_size=s.block_size, segment_size=s.segment_size, tau=s.tau)
    progress = context.progress(2 * len(s.lengths[s.subject]))
    for length in s.lengths[s.subject]:
        tokens = prompt[None, :length].to(context.device)

        def first_token(tokens: Tensor = tokens) -> Tensor:
            return model(tokens, use_cache=True, logits_to_keep=1).logits

        selector: Selector = method
        if s.subject == "random":
            selector = AtDensity(method, s.densities[length], s.seed)
        statistics = SelectionStatistics()
        register(NAME, selector, statistics)
        model.set_attn_implementation(NAME)
        first_token()
        densities = statistics.density_per_layer()
        measurement.add("executed_density", sum(densities.values()) / len(densities), method="pbs_attn", length=length)
        register(NAME, selector, check=False)  # the first pass has checked it; a check waits for the device
        times = {}
        for name, implementation in (("dense", s.baseline), ("pbs_attn", NAME)):
            model.set_attn_implementation(implementation)
            times[name] = median_milliseconds(first_token, context.device, s.repeat_milliseconds)
            measurement.add("prefill_time", times[name], "ms", method=name, timing=True, length=length)
            progress.step(f"{length} tokens, {name}: {times[name]:.1f} ms")
        speed_up = times["dense"] / times["pbs_attn"]
        measurement.add("prefill_speed_up", speed_up, "x", method="pbs_attn", timing=True, length=length)
    return measurement


if __name__ == "__main__":
    main(run, Settings)
