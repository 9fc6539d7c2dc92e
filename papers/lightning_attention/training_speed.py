"""Claim on training speed: tokens a second over the sequence length, at one number of tokens a step (A, Table 1)."""

from collections.abc import Callable

import torch

from common.configuration import Parameters
from common.experiment import Context, Measurement, main
from common.timing import median_milliseconds
from common.training import Recipe
from papers.lightning_attention.language_modelling import (
    LanguageModel,
    compile_blocks,
    matrix_peak,
    next_byte_loss,
    operations_per_token,
)
from papers.lightning_attention.llama_twin import LlamaShape, LlamaTwin
from papers.lightning_attention.transnormer_llm import Shape, TransNormerLLM


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        lengths: tokens a sequence; they divide `tokens`.
        tokens: of a step.
        transnormer_llm: sizes of TransNormerLLM.
        llama: sizes of its softmax twin.
        recipe: optimiser and precision.
        compile: whether blocks are compiled.
        peak_teraflops: see `language_model.Settings`.
        repeat_milliseconds: time spent on repeating each measurement.
        seed: of weights and tokens.
    """

    lengths: list[int]
    tokens: int
    transnormer_llm: Shape
    llama: LlamaShape
    recipe: Recipe
    compile: bool
    peak_teraflops: dict[str, float]
    repeat_milliseconds: int
    seed: int


def training_step(network: LanguageModel, recipe: Recipe, windows: torch.Tensor) -> Callable[[], None]:
    """A whole step on windows [B, N + 1]: forward, loss, backward, optimiser."""
    rate = torch.full((), recipe.learning_rate, device=windows.device)
    optimiser = recipe.make_optimiser(network, rate)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(windows.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            loss = next_byte_loss(network, (windows,))
        loss.backward()
        optimiser.step()

    return step


def run(settings: Settings, context: Context) -> Measurement:
    """`tokens_per_second` of both models at every length; on a CUDA device `peak_memory`, on known ones the utilisation.

    `speed_range` is the greatest minus the least rate, in percent of the greatest, where every length fits;
    `out_of_memory` marks one that does not.
    """
    measurement = Measurement()
    s, device = settings, context.device
    progress = context.progress(2 * len(s.lengths))
    peak = matrix_peak(device, s.peak_teraflops)
    models: dict[str, Callable[[], LanguageModel]] = {
        "transnormer_llm": lambda: TransNormerLLM(s.transnormer_llm, seed=s.seed),
        "llama": lambda: LlamaTwin(s.llama, seed=s.seed),
    }
    for name, make in models.items():
        network = make().to(device)
        measurement.add("parameters", sum(parameter.numel() for parameter in network.parameters()), method=name)
        rates: list[float] = []
        for length in s.lengths:
            generator = torch.Generator(device).manual_seed(s.seed)
            shape = (s.tokens // length, length + 1)
            windows = torch.randint(s.transnormer_llm.vocabulary, shape, generator=generator, device=device)
            if s.compile:
                compile_blocks(network)
            step = training_step(network, s.recipe, windows)
            try:
                step()
                if device == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                time = median_milliseconds(step, device, s.repeat_milliseconds)
            except torch.OutOfMemoryError:
                measurement.add("out_of_memory", 1, method=name, length=length)
                progress.step(f"{name}, {length} tokens: out of memory")
                continue
            rate = 1000 * s.tokens / time
            rates.append(rate)
            measurement.add("tokens_per_second", rate, "1/s", method=name, timing=True, length=length)
            if device == "cuda":
                measurement.add("peak_memory", torch.cuda.max_memory_allocated() / 2**20, "MiB", method=name, length=length)
            if peak is not None:
                share = 100 * rate * operations_per_token(network, length) / peak
                measurement.add("model_flops_utilisation", share, "%", method=name, timing=True, length=length)
            progress.step(f"{name}, {length} tokens: {rate:,.0f} tokens/s")
            del step
        if len(rates) == len(s.lengths):
            spread = 100 * (max(rates) - min(rates)) / max(rates)
            measurement.add("speed_range", spread, "%", method=name, timing=True)
    return measurement


if __name__ == "__main__":
    main(run, Settings)
