"""Claim on needles: of a hidden number and the question for it, how much attention do lists keep that a sliding window loses?

Rows: attention_mass and needle_mass of both, and heads_above_window_attention_mass and heads_above_window_needle_mass.
"""

import torch
from torch import Tensor

from common.data.texts import load_text
from common.experiment import Context, Measurement, main
from common.language_models import passkey_prompts
from common.selector_comparison import SubjectSettings, load_subject
from common.sparse_attention.transformers_attention import recording
from papers.hip_attention.found_keys import LastQueries, equal_budget
from papers.hip_attention.hip_attention import HierarchicalPruning

NEEDLE_TOKENS = 32  # from the needle's first token on: the sentence that holds the number


class Settings(SubjectSettings):
    """Axes and parameters of `config.yaml`, beyond those of the subject.

    Attributes:
        text: filler.
        filler_characters: of it that are used.
        length: tokens of a prompt.
        seed: of the prompts.
        depths: where the needle is hidden, 0 to 1.
        queries: last tokens of the prompt, the question among them.
        block_q, block_k, top_k, window, sink, stride_q: of `HierarchicalPruning`.
        layers: only the first layers, or all (0).
    """

    text: str
    filler_characters: int
    length: int
    seed: int
    depths: list[float]
    queries: int
    block_q: int
    block_k: int
    top_k: int
    window: int
    sink: int
    stride_q: int
    layers: int


@torch.inference_mode()
def run(settings: Settings, context: Context) -> Measurement:
    """Per prompt: mean mass of the keys read and of the needle's, and the share of heads where lists hold more."""
    measurement = Measurement()
    s = settings
    hip = HierarchicalPruning(
        block_q=s.block_q, block_k=s.block_k, top_k=s.top_k, window=s.window, sink=s.sink, stride_q=s.stride_q
    )
    subject = load_subject(s, s.length, context.device)
    filler = load_text(s.text, unwrap=s.text.startswith("long-texts")).text[: s.filler_characters]
    prompts = passkey_prompts(subject.tokenizer, filler, context_length=s.length, depths=s.depths, seed=s.seed)
    progress = context.progress(len(prompts))
    for number, prompt in enumerate(prompts):
        masses: dict[tuple[str, str], list[Tensor]] = {}
        needle = torch.zeros(len(prompt.tokens), dtype=torch.bool, device=context.device)
        needle[prompt.needle_start : prompt.needle_start + NEEDLE_TOKENS] = True

        def measure(layer: int, q: Tensor, k: Tensor, v: Tensor, masses: dict = masses, needle: Tensor = needle) -> None:
            if s.layers and layer >= s.layers:
                return
            q = q[:, :, -s.queries :]
            last, lists = LastQueries(q, k, hip), hip.search(q, k)
            budget = equal_budget(lists, hip)
            for metric, among in (("attention_mass", None), ("needle_mass", needle)):
                masses.setdefault((metric, "hip"), []).append(last.mass(lists, among=among))
                masses.setdefault((metric, "window"), []).append(last.window_mass(budget, among=among))

        with recording(subject.model, measure):
            subject.model.base_model(prompt.tokens[None].to(context.device), use_cache=False)
        heads = {key: torch.cat(layers) for key, layers in masses.items()}
        for (metric, method), values in heads.items():
            measurement.add(metric, values.mean(), method=method, prompt=number, depth=s.depths[number])
        for metric in ("attention_mass", "needle_mass"):
            above = 100 * (heads[metric, "hip"] > heads[metric, "window"]).double().mean()
            measurement.add(f"heads_above_window_{metric}", above, "%", method="hip", prompt=number, depth=s.depths[number])
        progress.step(f"prompt {number}")
    return measurement


if __name__ == "__main__":
    main(run, Settings)
