"""Claim on decoding: how much worse are the last tokens predicted when lists are searched for only every r_m-th step?

The prompt is read densely; then each of the last tokens is predicted in a step of its own, as in generation.
"""

import torch

from common.experiment import Context, Measurement, main
from common.selector_comparison import SubjectSettings, load_subject, token_windows
from papers.hip_attention.decoding import HierarchicalDecoding, decoding_losses
from papers.hip_attention.hip_attention import HierarchicalPruning


class Settings(SubjectSettings):
    """Axes and parameters of `config.yaml`, beyond those of the subject.

    Attributes:
        text: name of the text.
        length: tokens a window.
        windows: windows of the text; each is an item of the statistics.
        steps: last tokens of a window that are decoded.
        refresh_intervals: values of r_m; 1 is the yardstick and must be among them.
        dense_layers: values of l_d.
        block_k, top_k, window, sink: of `HierarchicalPruning`.
    """

    text: str
    length: int
    windows: int
    steps: int
    refresh_intervals: list[int]
    dense_layers: list[int]
    block_k: int
    top_k: int
    window: int
    sink: int


@torch.inference_mode()
def run(settings: Settings, context: Context) -> Measurement:
    """Mean loss of the decoded tokens, dense and by refresh interval; the perplexity beyond that of a search at every step."""
    measurement = Measurement()
    s = settings
    hip = HierarchicalPruning(block_q=1, stride_q=1, block_k=s.block_k, top_k=s.top_k, window=s.window, sink=s.sink)
    subject = load_subject(s, s.length, context.device)
    windows = token_windows(subject, s.text, s.length, s.windows)
    progress = context.progress(len(windows) * (1 + len(s.refresh_intervals) * len(s.dense_layers)))
    for number, window in enumerate(windows):
        dense = decoding_losses(subject.model, window, s.steps).double().mean()
        measurement.add("negative_log_likelihood", dense, "nat/token", method="dense", window=number)
        progress.step(f"dense, window {number}")
        for dense_layers in s.dense_layers:
            losses = {}
            for interval in s.refresh_intervals:
                decoding = HierarchicalDecoding(hip, interval, dense_layers)
                with decoding.of(subject.model):
                    losses[interval] = decoding_losses(subject.model, window, s.steps).double().mean()
                measurement.add(
                    "negative_log_likelihood", losses[interval], "nat/token", method="hip",
                    refresh_interval=interval, dense_layers=dense_layers, window=number,
                )  # fmt: skip
                progress.step(f"a search every {interval} steps, {dense_layers} dense layers, window {number}")
            for interval, loss in losses.items():
                worse = 100 * (torch.exp(loss - losses[1]) - 1)
                measurement.add(
                    "perplexity_increase", worse, "%", method="hip",
                    refresh_interval=interval, dense_layers=dense_layers, window=number,
                )  # fmt: skip
    return measurement


if __name__ == "__main__":
    main(run, Settings)
