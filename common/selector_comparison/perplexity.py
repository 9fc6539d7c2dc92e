"""How well the model predicts text when its prefill reads what a selector selects, at equal density."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from common.experiment import Context, Measurement
from common.language_models import negative_log_likelihoods
from common.selector_comparison.families import DENSE, Family, check_known, value_at_density, with_oracle
from common.selector_comparison.subjects import SubjectSettings, load_subject, token_windows
from common.sparse_attention import Selector
from common.sparse_attention.transformers_attention import SelectionStatistics, register

COMPARED = "compared"  # the name under which transformers knows the selector of the moment


class PerplexitySettings(SubjectSettings):
    """Axes and parameters of a comparison, beyond those of the subject.

    Attributes:
        text: name of the text.
        length: tokens a window.
        windows: windows of the text; each is an item of the statistics.
        block_size: tokens per block.
        sweeps: selector -> values of its threshold; `oracle`, by density, is among the known selectors.
        densities: at which the curves are compared.
    """

    text: str
    length: int
    windows: int
    block_size: int
    sweeps: dict[str, list[float]]
    densities: list[float]


@contextmanager
def sparse_prefill(model: PreTrainedModel, selector: Selector) -> Iterator[SelectionStatistics]:
    """Let a model attend to what a selector selects at prefill; gives the statistics of the selections made meanwhile."""
    statistics = SelectionStatistics()
    register(COMPARED, selector, statistics)
    before = model.config._attn_implementation or "sdpa"
    model.set_attn_implementation(COMPARED)
    try:
        yield statistics
    finally:
        model.set_attn_implementation(before)


def mean_density(statistics: SelectionStatistics) -> float:
    """Executed density, mean over prefills, layers and heads."""
    layers = statistics.density_per_layer().values()
    return sum(layers) / len(layers)


@torch.inference_mode()
def compare_perplexity(settings: PerplexitySettings, families: Mapping[str, Family], context: Context) -> Measurement:
    """Predict windows of a text with every selector at every value of its sweep, and with dense attention.

    Rows, a window each: `negative_log_likelihood` (mean over tokens) of `dense` and, by `threshold`, of every selector;
    `density`, executed, mean over layers and heads; `negative_log_likelihood_at_density` by `density` where the sweep reaches
    it.

    Args:
        settings: see `PerplexitySettings`.
        families: every selector of the sweeps by its name; the oracle is added.
        context: of the cell.

    Raises:
        InputError: a sweep names an unknown selector, or the text is too short.
    """
    families = with_oracle(families, settings.block_size)
    check_known(settings.sweeps, families)
    measurement = Measurement()
    subject = load_subject(settings, settings.length, context.device)
    windows = token_windows(subject, settings.text, settings.length, settings.windows)
    progress = context.progress(len(windows) * (1 + sum(map(len, settings.sweeps.values()))))
    for number, window in enumerate(windows):
        dense = negative_log_likelihoods(subject.model, window[None]).mean()
        measurement.add("negative_log_likelihood", dense, "nat/token", method=DENSE, window=number)
        progress.step(f"{DENSE}, window {number}")
        for name, values in settings.sweeps.items():
            densities, losses = [], []
            for value in values:
                with sparse_prefill(subject.model, families[name](value)) as statistics:
                    losses.append(float(negative_log_likelihoods(subject.model, window[None]).mean()))
                densities.append(mean_density(statistics))
                setting = {"threshold": value, "window": number}
                measurement.add("negative_log_likelihood", losses[-1], "nat/token", method=name, **setting)
                measurement.add("density", densities[-1], method=name, **setting)
                progress.step(f"{name} at {value}, window {number}")
            for wanted in settings.densities:
                loss = value_at_density(densities, losses, wanted)
                if loss is not None:
                    measurement.add(
                        "negative_log_likelihood_at_density", loss, "nat/token", method=name, density=wanted, window=number
                    )
    return measurement
