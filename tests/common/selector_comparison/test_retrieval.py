"""Retrieval under selectors: scores of each trial by the task's own rule, and losses of the right answer."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import cross_entropy

from common.errors import InputError
from common.language_models import passkey_prompts, passkey_scores, ruler_prompts, ruler_scores, ruler_task
from common.selector_comparison import retrieval as comparison

FILLER = "The old captain walked slowly along the harbour. Nobody answered him, because everybody slept. " * 40
LENGTH = 600


@pytest.fixture(autouse=True)
def texts(monkeypatch, subject):
    monkeypatch.setattr(comparison, "load_subject", lambda *_: subject)
    monkeypatch.setattr(comparison, "load_text", lambda *_, **__: SimpleNamespace(text=FILLER))


def settings_of(subject_settings, **changes):
    values = {
        "task": "passkey", "length": LENGTH, "seed": 3, "trials": 2, "new_tokens": 5, "text": "none",
        "filler_characters": len(FILLER), "block_size": 16, "sweeps": {"nearest": [1.0, 100.0], "strided": [0.0]},
    }  # fmt: skip
    return comparison.RetrievalSettings.model_validate({**subject_settings, **values, **changes})


def test_passkey_trials(subject, subject_settings, families, on_cpu, rows_of):
    measurement = comparison.compare_retrieval(settings_of(subject_settings), families, on_cpu)
    prompts = passkey_prompts(subject.tokenizer, FILLER, context_length=LENGTH, depths=[0.05, 0.95], seed=3)
    expected = passkey_scores(subject.model, prompts)
    scores = rows_of(measurement, "score", "dense")
    assert [row.setting for row in scores] == [{"trial": 0}, {"trial": 1}]
    assert [row.value for row in scores] == pytest.approx((100 * expected.correct.double().mean(1)).tolist())
    for method, threshold in (("dense", None), ("nearest", 100.0)):  # the nearest hundred blocks are all
        losses = [
            row.value
            for row in rows_of(measurement, "answer_negative_log_likelihood", method)
            if row.setting.get("threshold") == threshold
        ]
        assert losses == pytest.approx(expected.nll.mean(1).tolist(), rel=1e-3)
    shares = {row.setting["threshold"]: row.value for row in rows_of(measurement, "density", "nearest")}
    assert shares[100.0] == 1
    assert shares[1.0] < 0.1
    assert len(rows_of(measurement, "score", "strided")) == 2


def test_ruler_trials(subject, subject_settings, families, on_cpu, rows_of):
    settings = settings_of(subject_settings, task="niah_single_1", sweeps={"nearest": [1.0]})
    measurement = comparison.compare_retrieval(settings, families, on_cpu)
    assert ruler_task("niah_single_1", LENGTH).new_tokens != 5
    prompts = ruler_prompts("niah_single_1", subject.tokenizer, FILLER, length=LENGTH - 5, trials=2, seed=3)
    answer = torch.tensor(subject.tokenizer(" " + prompts[0].answers[0])["input_ids"])
    with torch.no_grad():
        logits = subject.model(torch.cat([prompts[0].tokens, answer])[None]).logits[0, len(prompts[0].tokens) - 1 : -1]
    losses = [row.value for row in rows_of(measurement, "answer_negative_log_likelihood", "dense")]
    assert losses[0] == pytest.approx(float(cross_entropy(logits, answer)), rel=1e-4)
    prompts = [replace(prompt, new_tokens=5) for prompt in prompts]
    scores = [row.value for row in rows_of(measurement, "score", "dense")]
    assert scores == (100 * ruler_scores(subject.model, subject.tokenizer, prompts).recall).tolist()
    assert len(rows_of(measurement, "score", "nearest")) == 2


def test_a_model_that_knows_the_answer_scores_100(subject, monkeypatch):
    prompts = ruler_prompts("niah_single_1", subject.tokenizer, FILLER, length=LENGTH, trials=2, seed=0)
    said = iter(prompts)
    monkeypatch.setattr(
        "common.language_models.ruler.greedy_continuation",
        lambda *_: torch.tensor(subject.tokenizer(f" {next(said).answers[0]}.")["input_ids"]),
    )
    scores, losses = comparison.score_ruler(subject.model, subject.tokenizer, prompts)
    assert scores.tolist() == [100.0, 100.0]
    assert (losses > 0).all()


def test_wrong_settings(subject, subject_settings, families, on_cpu):
    with pytest.raises(InputError, match="task = 'riddle' is not known"):
        comparison.compare_retrieval(settings_of(subject_settings, task="riddle"), families, on_cpu)
    with pytest.raises(InputError, match=r"sweeps names \['best'\]"):
        comparison.compare_retrieval(settings_of(subject_settings, sweeps={"best": [1.0]}), families, on_cpu)
    with pytest.raises(InputError, match="the answer has no tokens"):
        comparison.answer_negative_log_likelihood(
            subject.model, torch.tensor([1, 2]), torch.tensor([], dtype=torch.int64)
        )  # fmt: skip
