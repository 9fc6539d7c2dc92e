"""Quality: perplexity of a pretrained model under each method, on the same windows of text."""

import torch

from common.experiment import Context, Measurement, main
from common.language_models import negative_log_likelihoods
from common.sparse_attention.transformers_attention import SelectionStatistics, register
from papers.pbs_attn.subjects import DENSE, SubjectSettings, load_subject, selector_named, token_windows


class Settings(SubjectSettings):
    """Axes and parameters of `config.yaml`, beyond those of every experiment on the subject.

    Attributes:
        text: name of the text.
        length: tokens a window.
        windows: windows of the text; each is an item of the statistics.
        methods: names in `subjects.METHODS`.
    """

    text: str
    length: int
    windows: int
    methods: list[str]


@torch.inference_mode()
def run(settings: Settings, context: Context) -> Measurement:
    """Mean negative log-likelihood of each window under each method, and the density that the method read."""
    measurement = Measurement()
    subject = load_subject(settings, settings.length, context.device)
    windows = token_windows(subject, settings.text, settings.length, settings.windows)
    progress = context.progress(len(settings.methods) * len(windows))
    for method in settings.methods:
        statistics = SelectionStatistics()
        if method != DENSE:
            register(method, selector_named(method, settings), statistics)
        subject.model.set_attn_implementation("sdpa" if method == DENSE else method)
        for number, window in enumerate(windows):
            nll = negative_log_likelihoods(subject.model, window[None]).mean()
            measurement.add("negative_log_likelihood", nll, "nat/token", method=method, window=number)
            measurement.add("perplexity", nll.exp(), method=method, window=number)
            progress.step(f"{method}, window {number}")
        if method != DENSE:
            densities = statistics.density_per_layer()
            measurement.add("executed_density", sum(densities.values()) / len(densities), method=method)
    subject.model.set_attn_implementation("sdpa")
    return measurement


if __name__ == "__main__":
    main(run, Settings)
