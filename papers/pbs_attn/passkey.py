"""Quality: retrieval of a number hidden in a long text, under each method, on the same prompts."""

import numpy as np
import torch

from common.data.texts import load_text
from common.experiment import Context, Measurement, main
from common.language_models import passkey_prompts, passkey_scores
from common.sparse_attention.transformers_attention import register
from papers.pbs_attn.subjects import DENSE, SubjectSettings, load_subject, selector_named


class Settings(SubjectSettings):
    """Axes and parameters of `config.yaml`, beyond those of every experiment on the subject.

    Attributes:
        length: tokens of a prompt with its answer.
        seed: of the prompts; each seed is an item of the statistics.
        text: filler.
        filler_characters: how much of it is used, from its beginning.
        trials: prompts, at depths spread evenly from 5% to 95%.
        methods: names in `subjects.METHODS`.
    """

    length: int
    seed: int
    text: str
    filler_characters: int
    trials: int
    methods: list[str]


def run(settings: Settings, context: Context) -> Measurement:
    """Teacher-forced accuracy and negative log-likelihood of the answer's tokens, mean over the trials."""
    measurement = Measurement()
    subject = load_subject(settings, settings.length, context.device)
    filler = load_text(settings.text, unwrap=settings.text.startswith("long-texts")).text[: settings.filler_characters]
    depths = np.linspace(0.05, 0.95, settings.trials).tolist()
    prompts = passkey_prompts(subject.tokenizer, filler, context_length=settings.length, depths=depths, seed=settings.seed)
    progress = context.progress(len(settings.methods))
    for method in settings.methods:
        if method != DENSE:
            register(method, selector_named(method, settings))
        subject.model.set_attn_implementation("sdpa" if method == DENSE else method)
        with torch.inference_mode():
            scores = passkey_scores(subject.model, prompts)
        measurement.add("passkey_accuracy", 100 * scores.correct.double().mean(), "%", method=method)
        measurement.add("passkey_negative_log_likelihood", scores.nll.double().mean(), "nat/token", method=method)
        progress.step(method)
    subject.model.set_attn_implementation("sdpa")
    return measurement


if __name__ == "__main__":
    main(run, Settings)
