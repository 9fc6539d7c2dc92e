"""Claims on the search, on queries and keys of a pretrained model: recall of the top keys, and the attention mass they hold.

Rows are those of `compare_lists`: recall, recall_lost, attention_mass and center_best.
"""

import torch
from torch import Tensor

from common.experiment import Context, Measurement, main
from common.selector_comparison import SubjectSettings, load_subject, token_windows
from common.sparse_attention.transformers_attention import recording
from papers.hip_attention.comparisons import SearchSettings, compare_lists


class Settings(SubjectSettings, SearchSettings):
    """Axes and parameters of `config.yaml`, beyond those of subject and comparison.

    Attributes:
        text: name of the text.
        length: tokens a window.
        windows: windows of the text; each is an item of the statistics.
        queries: last queries of a window that are looked at.
        layers: only the first layers, or all (0).
        seed: of the random lists.
    """

    text: str
    length: int
    windows: int
    queries: int
    layers: int
    seed: int


@torch.inference_mode()
def run(settings: Settings, context: Context) -> Measurement:
    """Compare lists in every layer, one forward pass of the model a window."""
    measurement = Measurement()
    s = settings
    subject = load_subject(s, s.length, context.device)
    windows = token_windows(subject, s.text, s.length, s.windows)
    progress = context.progress(len(windows))
    for number, window in enumerate(windows):
        kept: list[tuple[Tensor, Tensor]] = []

        def keep(layer: int, q: Tensor, k: Tensor, v: Tensor, kept: list[tuple[Tensor, Tensor]] = kept) -> None:
            if not s.layers or layer < s.layers:
                kept.append((q[:, :, -s.queries :].clone(), k.clone()))

        with recording(subject.model, keep):
            subject.model.base_model(window[None].to(context.device), use_cache=False)
        layers = [lambda _, pair=pair: pair for pair in kept]
        compare_lists(s, layers, measurement, s.seed, window=number)
        progress.step(f"window {number}")
    return measurement


if __name__ == "__main__":
    main(run, Settings)
