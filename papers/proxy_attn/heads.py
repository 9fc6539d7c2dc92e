"""Claim behind the method: heads of a layer agree on which tokens matter, and differ in how many they need."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.experiment import Context, Measurement, main
from common.selector_comparison import SubjectSettings, load_subject, token_windows
from common.sparse_attention.transformers_attention import recording
from papers.proxy_attn.proxy_attn import head_budgets, shared_mass


class Settings(SubjectSettings):
    """Axes and parameters of `config.yaml`, beyond those of every experiment on the subject.

    Attributes:
        text: name of the text.
        length: tokens a window.
        windows: windows of the text; each is an item of the statistics.
        block_size: tokens per block, of the budgets.
        gamma: share of the attention that sets a head's budget.
        top_share: top tokens, as a share of the window.
        skipped: how many first tokens are left out, one measurement each.
        layers: only the first layers, or all (0).
    """

    text: str
    length: int
    windows: int
    block_size: int
    gamma: float
    top_share: float
    skipped: list[int]
    layers: int


def variation(values: Tensor) -> Tensor:
    """Coefficient of variation over the last dimension: standard deviation of all values / mean."""
    return values.std(-1, correction=0) / values.mean(-1)


def pairs_mean(mass: Tensor) -> Tensor:
    """Mean over the pairs of different heads of [..., H, H]; with one head, NaN."""
    H = mass.shape[-1]
    different = ~torch.eye(H, dtype=torch.bool, device=mass.device)
    return mass[..., different].mean(-1)


@torch.inference_mode()
def run(settings: Settings, context: Context) -> Measurement:
    """Measure the last query of every window.

    Rows, by `skipped`: `shared_mass`, the attention of a head in the top tokens of another of its layer, mean over pairs and
    layers; `own_mass`, in its own; `random_mass`, in as many tokens drawn at random; `shared_mass_over_random`. `budget`, mean
    over layers and heads, and `budget_variation`, its coefficient of variation `over` the heads of a layer (mean over layers)
    and over all heads of the model. Arrays of the first window: `shared_mass_<skipped>` [layers, H, H], `budgets` [layers, H].
    """
    measurement = Measurement()
    s = settings
    subject = load_subject(s, s.length, context.device)
    windows = token_windows(subject, s.text, s.length, s.windows)
    tokens = round(s.top_share * s.length)
    progress = context.progress(len(windows))
    for number, window in enumerate(windows):
        masses: dict[int, list[Tensor]] = {skipped: [] for skipped in s.skipped}
        budgets: list[Tensor] = []

        def on_attention(
            layer: int, q: Tensor, k: Tensor, v: Tensor, masses: dict[int, list[Tensor]] = masses, budgets=budgets
        ) -> None:
            if s.layers and layer >= s.layers:
                return
            for skipped, found in masses.items():
                found.append(shared_mass(q, k, tokens, skip=skipped))
            budgets.append(head_budgets(q, k, block_size=s.block_size, gamma=s.gamma, count="reached")[0])

        with recording(subject.model, on_attention):
            subject.model.base_model(window[None].to(context.device), use_cache=False)
        for skipped, found in masses.items():
            mass = torch.stack(found)  # [layers, H, H]
            setting: dict[str, Any] = {"window": number, "skipped": skipped}
            random = tokens / (s.length - skipped)
            shared = pairs_mean(mass).mean()
            measurement.add("shared_mass", shared, **setting)
            measurement.add("own_mass", mass.diagonal(dim1=-2, dim2=-1).mean(), **setting)
            measurement.add("random_mass", random, **setting)
            measurement.add("shared_mass_over_random", shared / random, **setting)
            if number == 0:
                measurement.arrays[f"shared_mass_{skipped}"] = mass.cpu().numpy()
        budget = torch.stack(budgets)  # [layers, H]
        measurement.add("budget", budget.mean(), window=number)
        measurement.add("budget_variation", variation(budget).mean(), window=number, over="layer")
        measurement.add("budget_variation", variation(budget.flatten()), window=number, over="model")
        if number == 0:
            measurement.arrays["budgets"] = budget.cpu().numpy().astype(np.float64)
        progress.step(f"window {number}")
    return measurement


if __name__ == "__main__":
    main(run, Settings)
