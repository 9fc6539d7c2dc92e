"""LongBench under selectors: answers of each example scored by the task's own rule, prompts cut, files that must be brought."""

import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from common.claims import judge, read_claims
from common.configuration import cells_of, read_paper_config
from common.errors import DataError, InputError
from common.language_models import greedy_continuation
from common.language_models.longbench import (
    LongBenchExample,
    load_longbench,
    longbench_file,
    longbench_prompt,
    longbench_score,
    longbench_task,
)
from common.reported import read_reported
from common.selector_comparison import longbench as comparison

TEXT = "The old captain walked slowly along the harbour. Nobody answered him, because everybody slept. " * 100
ENTRIES = [
    {"context": "A ship lay at the pier. " * 30, "input": "Where lay it?", "answers": ["at the pier", "in Bergen"]},
    {"context": "The cook left. " * 40, "input": "Who left?", "answers": ["the cook"]},
    {"context": "Nothing happened.", "input": "What happened?", "answers": ["nothing"]},
]
LENGTH = 200


@pytest.fixture(autouse=True)
def brought(monkeypatch, subject, tmp_path):
    """The subject, the text that is generated from, and a folder of data with one task of LongBench and of LongBench-E."""
    monkeypatch.setattr(comparison, "load_subject", lambda *_: subject)
    monkeypatch.setattr(comparison, "load_text", lambda *_, **__: SimpleNamespace(text=TEXT))
    monkeypatch.setenv("REATTEND_DATA", str(tmp_path))
    folder = tmp_path / "longbench"
    folder.mkdir()
    folder.joinpath("hotpotqa.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in ENTRIES))
    folder.joinpath("hotpotqa_e.jsonl").write_text(json.dumps(ENTRIES[2]) + "\n")
    return folder


def settings_of(subject_settings, **changes):
    values = {
        "task": "hotpotqa", "source": "longbench", "text": "none", "examples": 0, "prompt_tokens": LENGTH, "new_tokens": 3,
        "block_size": 16, "sweeps": {"nearest": [1.0, 100.0], "strided": [0.0]},
    }  # fmt: skip
    return comparison.LongBenchSettings.model_validate({**subject_settings, **values, **changes})


def says(monkeypatch, subject, *answers):
    """Let the model say these, one after the other, and keep the prompts and how many tokens were allowed."""
    asked, said = [], iter(answers)

    def continuation(model, prompt, new_tokens):
        assert model is subject.model
        asked.append((prompt, new_tokens))
        return torch.tensor(subject.tokenizer(next(said))["input_ids"])

    monkeypatch.setattr(comparison, "greedy_continuation", continuation)
    return asked


def test_answers_are_scored_as_worked_out_by_hand(subject, subject_settings, families, on_cpu, rows_of, monkeypatch):
    # Of "at a pier, a big one" four words count (at pier big one), of "at the pier" two, both shared: F1 = 2 * 2 / (4 + 2).
    dense = ["at a pier, a big one", "the cook", "something"]
    nearest = ["Bergen", "a cook and a dog", "nothing"]  # F1: 2 / (1 + 2); 2 / (3 + 1); 1
    asked = says(monkeypatch, subject, *dense, *nearest)
    monkeypatch.setattr(comparison, "mean_density", lambda _: 0.5)  # this model never ran
    settings = settings_of(subject_settings, new_tokens=0, sweeps={"nearest": [2.0]})
    measurement = comparison.compare_longbench(settings, families, on_cpu)
    found = {method: [row.value for row in rows_of(measurement, "score", method)] for method in ("dense", "nearest")}
    assert found["dense"] == pytest.approx([100 * 2 / 3, 100, 0])
    assert found["nearest"] == pytest.approx([100 * 2 / 3, 50, 100])
    assert [row.setting for row in rows_of(measurement, "score", "nearest")] == [
        {"example": number, "threshold": 2.0} for number in range(3)
    ]
    (relative,) = rows_of(measurement, "relative_score")
    assert relative.method == "nearest"
    assert relative.setting == {"threshold": 2.0}
    assert relative.value == pytest.approx(100 * (2 / 3 + 1 / 2 + 1) / (2 / 3 + 1))
    assert [new_tokens for _, new_tokens in asked] == [longbench_task("hotpotqa").new_tokens] * 6
    for (before, _), (after, _) in zip(asked[:3], asked[3:], strict=True):
        assert torch.equal(before, after)


def test_the_model_says_it_with_what_the_selector_reads(subject, subject_settings, families, on_cpu, rows_of, brought):
    measurement = comparison.compare_longbench(settings_of(subject_settings), families, on_cpu)
    task, examples = longbench_task("hotpotqa"), load_longbench(brought, "hotpotqa")
    expected = []
    with torch.no_grad():
        for example in examples:
            prompt = longbench_prompt(task, example, subject.tokenizer, length=LENGTH)
            answer = subject.tokenizer.decode(greedy_continuation(subject.model, prompt, 3))
            expected.append(100 * longbench_score(task, answer, example))
    assert [row.value for row in rows_of(measurement, "score", "dense")] == expected
    shares = {}
    for row in rows_of(measurement, "density", "nearest"):
        shares.setdefault(row.setting["threshold"], []).append(row.value)
    assert shares[100.0] == [1, 1, 1]  # the nearest hundred blocks are all
    assert len(shares[1.0]) == 3
    T = -(-LENGTH // 16)
    assert shares[1.0][0] == pytest.approx(1 / ((T + 1) / 2), rel=0.1)  # the diagonal of T (T + 1) / 2 blocks
    assert len(rows_of(measurement, "score", "strided")) == 3


def test_a_score_relative_to_nothing_is_no_row(subject, subject_settings, families, on_cpu, rows_of, monkeypatch):
    says(monkeypatch, subject, "one", "two", "three", "Bergen", "the cook", "nothing")
    monkeypatch.setattr(comparison, "mean_density", lambda _: 0.5)
    measurement = comparison.compare_longbench(settings_of(subject_settings, sweeps={"nearest": [2.0]}), families, on_cpu)
    assert rows_of(measurement, "relative_score") == []
    assert len(rows_of(measurement, "score", "nearest")) == 3


def test_a_long_prompt_loses_its_middle_and_a_short_one_nothing(
    subject, subject_settings, families, on_cpu, rows_of, monkeypatch
):
    asked = says(monkeypatch, subject, *"abc")
    settings = settings_of(subject_settings, prompt_tokens=500, sweeps={})
    measurement = comparison.compare_longbench(settings, families, on_cpu)
    task = longbench_task("hotpotqa")
    texts = [task.prompt.format(**{name: entry[name] for name in ("context", "input")}) for entry in ENTRIES]
    assert [len(text) > 500 for text in texts] == [True, True, False]  # a byte is a token
    expected = [text if len(text) <= 500 else text[:250] + text[-250:] for text in texts]
    assert [subject.tokenizer.decode(prompt) for prompt, _ in asked] == expected
    assert [row.value for row in rows_of(measurement, "prompt_tokens")] == [500, 500, len(texts[2])]
    assert settings.context_tokens == 503


def test_the_same_numbers_twice(subject_settings, families, on_cpu):
    settings = settings_of(subject_settings, source="generated", examples=2)
    first, second = (comparison.compare_longbench(settings, families, on_cpu) for _ in range(2))
    assert first.rows == second.rows


def test_generated_examples_go_through_a_file_of_longbench(subject_settings):
    examples = comparison.examples_of(settings_of(subject_settings, source="generated", examples=2))
    context, answer = comparison.CONTEXT, comparison.ANSWER
    assert [example.context for example in examples] == [TEXT[:context], TEXT[context + answer : 2 * context + answer]]
    assert examples[0].answers == (TEXT[context : context + answer],)


def test_which_examples(subject_settings):
    assert len(comparison.examples_of(settings_of(subject_settings))) == 3
    assert [e.input for e in comparison.examples_of(settings_of(subject_settings, examples=1))] == ["Where lay it?"]
    even = comparison.examples_of(settings_of(subject_settings, source="longbench_e"))
    assert even == [LongBenchExample("Nothing happened.", "What happened?", ("nothing",))]


@pytest.mark.parametrize(("source", "file"), [("longbench", "qasper.jsonl"), ("longbench_e", "qasper_e.jsonl")])
def test_a_missing_file_says_what_to_bring_and_where_to(subject_settings, families, on_cpu, source, file):
    message = rf"longbench/{file} must be brought: get it from data.zip of THUDM/LongBench .* \$REATTEND_DATA/longbench/{file}"
    with pytest.raises(DataError, match=message):
        comparison.compare_longbench(settings_of(subject_settings, task="qasper", source=source), families, on_cpu)


def test_what_cannot_be_scored_is_refused_before_the_model_runs(subject_settings, families, on_cpu, brought, monkeypatch):
    monkeypatch.setattr(comparison, "load_subject", lambda *_: pytest.fail("the model was loaded"))
    entry = {"context": "c", "input": "i", "answers": ["Paragraph three"]}
    (brought / "passage_count.jsonl").write_text(json.dumps(entry) + "\n")
    with pytest.raises(InputError, match="answer 'Paragraph three' has no number"):
        comparison.compare_longbench(settings_of(subject_settings, task="passage_count"), families, on_cpu)
    with pytest.raises(InputError, match="'riddle' is not among LongBench's English tasks"):
        comparison.compare_longbench(settings_of(subject_settings, task="riddle"), families, on_cpu)
    with pytest.raises(InputError, match=r"sweeps names \['best'\]"):
        comparison.compare_longbench(settings_of(subject_settings, sweeps={"best": [1.0]}), families, on_cpu)
    with pytest.raises(InputError, match="examples is 0; of generated ones at least 1"):
        comparison.compare_longbench(settings_of(subject_settings, source="generated"), families, on_cpu)
    with pytest.raises(InputError, match="the text has 9500 characters; 3 generated examples need 12600"):
        comparison.compare_longbench(settings_of(subject_settings, source="generated", examples=3), families, on_cpu)


def rows_at_scale_paper(paper, method, gain):
    """Rows as the configuration gives them at scale paper: the method scores `gain` points more than all others, near 50."""
    rows = []
    for cell in cells_of(read_paper_config(Path("papers") / paper / "config.yaml"), "longbench", "paper"):
        for name, values in {"dense": [None], **cell.parameters["sweeps"]}.items():
            more = gain if name == method else 0.0
            for value in values:
                here = {"experiment": "longbench", "record": cell.name, **cell.axes, "method": name, "threshold": value}
                rows.append(here | {"metric": "relative_score", "value": 2 * (50 + more)})
                for example in range(3):
                    rows.append(here | {"metric": "score", "example": example, "value": 50.0 + example + more})
                    rows.append(here | {"metric": "density", "example": example, "value": 0.5})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("paper", "claim", "method", "better", "worse"),
    [
        ("pbs_attn", "longbench_above_mean_pooling", "pbs_attn", 4.0, 0.0),  # without any gain nothing beats anything
        ("pbs_attn", "longbench_close_to_full", "pbs_attn", -1.0, -1.5),
        ("seer_attention", "longbench_close_to_full", "seer_attention_threshold", 0.5, -1.5),
        ("hip_attention", "longbench_kept_at_32k", "hip", -2.0, -4.0),  # 96% and 92% of 50 points
    ],
)
def test_claims_are_judged_on_what_the_configuration_measures(paper, claim, method, better, worse):
    folder = Path("papers") / paper
    reported = read_reported(folder / "reported.csv")
    (found,) = (one for one in read_claims(folder / "claims.yaml", reported) if one.id == claim)
    assert judge(found, rows_at_scale_paper(paper, method, better), "paper", reported).outcome == "reproduced"
    assert judge(found, rows_at_scale_paper(paper, method, worse), "paper", reported).outcome == "contradicted"
    at_standard = judge(found, pd.DataFrame(), "standard", reported)
    assert at_standard.outcome == "not tested"
    assert "needs scale paper; bring: the weights" in at_standard.reason


@pytest.mark.parametrize("paper", ["pbs_attn", "proxy_attn", "seer_attention", "hip_attention"])
def test_every_file_that_is_read_is_among_what_to_bring(paper):
    config = read_paper_config(Path("papers") / paper / "config.yaml")
    bring = " ".join(config.experiments["longbench"].bring)
    for cell in cells_of(config, "longbench", "paper"):
        even = cell.parameters["source"] == "longbench_e"
        assert f" {longbench_file(str(cell.axes['task']), even=even)}" in bring
