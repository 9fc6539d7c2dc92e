"""How much sooner a whole model gives its first token when its prefill reads what a selector selects."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from common.configuration import Parameters
from common.errors import InputError
from common.experiment import Context, Measurement
from common.language_models import load_language_model, random_llama
from common.selector_comparison.families import DENSE, Family, check_known
from common.selector_comparison.perplexity import COMPARED, mean_density, sparse_prefill
from common.selector_comparison.subjects import token_windows
from common.sparse_attention import Selector
from common.sparse_attention.at_density import AtDensity
from common.sparse_attention.transformers_attention import register
from common.timing import median_milliseconds


class PrefillSettings(Parameters):
    """Axes and parameters of a comparison.

    Attributes:
        subject: the pretrained model, or an architecture with random weights.
        lengths: subject -> lengths of the prompt, in tokens.
        pretrained: the pretrained model's name, folder or hub id.
        text: the prompt of the pretrained model is the beginning of this text.
        shape: architecture of the random subject.
        layers: layers of the random subject; 0 for all.
        dtype: of weights and activations.
        block_size: tokens per block.
        thresholds: selector -> its threshold.
        densities: length -> density at which the random subject reads (`AtDensity`).
        baseline: attention implementation of the dense model.
        repeat_milliseconds: time spent on repeating each measurement.
        seed: of weights, tokens and blocks.
    """

    subject: Literal["pretrained", "random"]
    lengths: dict[str, list[int]]
    pretrained: str
    text: str
    shape: str
    layers: int
    dtype: str
    block_size: int
    thresholds: dict[str, float]
    densities: dict[int, float]
    baseline: str
    repeat_milliseconds: int
    seed: int


def load_prefill_subject(settings: PrefillSettings, device: str) -> tuple[PreTrainedModel, Tensor]:
    """The subject with dense attention, and its prompt: int64 [longest length]."""
    dtype, longest = getattr(torch, settings.dtype), max(settings.lengths[settings.subject])
    if settings.subject == "pretrained":
        subject = load_language_model(settings.pretrained, dtype=dtype, device=device)
        return subject.model, token_windows(subject, settings.text, longest, 1)[0]
    model = random_llama(settings.shape, seed=settings.seed, dtype=dtype, device=device, layers=settings.layers or None)
    generator = torch.Generator().manual_seed(settings.seed)
    return model, torch.randint(model.config.vocab_size, (longest,), generator=generator)


@torch.inference_mode()
def compare_prefill(
    settings: PrefillSettings,
    families: Mapping[str, Family],
    context: Context,
    *,
    subject: tuple[PreTrainedModel, Tensor] | None = None,
) -> Measurement:
    """Time the forward pass that gives the first token, dense and with every selector.

    Random weights give attention without structure to select by: there a selector does all of its work, and then blocks drawn
    at a given density are read in place of its own. A selection that is no mask of blocks is read as it is.

    Rows, by `length`: `prefill_time` in ms and `prefill_speed_up` over dense; `density`, executed.

    Args:
        settings: see `PrefillSettings`.
        families: every selector of `thresholds` by its name.
        context: of the cell.
        subject: what `load_prefill_subject` gave, for families that were made for this very model; loaded here by default.

    Raises:
        InputError: `thresholds` names an unknown selector, `densities` lacks a length, or the text is too short.
    """
    s = settings
    check_known(s.thresholds, families, "thresholds")
    lengths = s.lengths[s.subject]
    if s.subject == "random" and (missing := set(lengths) - set(s.densities)):
        raise InputError(f"densities lacks the lengths {sorted(missing)}; give each a density.")
    measurement = Measurement()
    model, prompt = load_prefill_subject(s, context.device) if subject is None else subject
    progress = context.progress(len(lengths) * (1 + len(s.thresholds)))
    for length in lengths:
        tokens = prompt[None, :length].to(context.device)

        def first_token(tokens: Tensor = tokens) -> Tensor:
            return model(tokens, use_cache=True, logits_to_keep=1).logits

        model.set_attn_implementation(s.baseline)
        dense = median_milliseconds(first_token, context.device, s.repeat_milliseconds)
        measurement.add("prefill_time", dense, "ms", method=DENSE, timing=True, length=length)
        progress.step(f"{length} tokens, {DENSE}: {dense:.1f} ms")
        for name, threshold in s.thresholds.items():
            selector: Selector = families[name](threshold)
            if s.subject == "random":
                selector = AtDensity(selector, s.densities[length], s.seed)
            with sparse_prefill(model, selector) as statistics:
                first_token()
                measurement.add("density", mean_density(statistics), method=name, length=length)
                register(COMPARED, selector, check=False)  # the first pass has checked it; a check waits for the device
                time = median_milliseconds(first_token, context.device, s.repeat_milliseconds)
            measurement.add("prefill_time", time, "ms", method=name, timing=True, length=length)
            measurement.add("prefill_speed_up", dense / time, "x", method=name, timing=True, length=length)
            progress.step(f"{length} tokens, {name}: {time:.1f} ms")
    return measurement
