"""What the Snakefiles ask: hints for misspelt papers, the plan of a paper, the closing words."""

import pytest

from common import workflow
from common.configuration import SCALES
from common.errors import ConfigError
from common.workflow import PaperPlan, closing_words, misspelt_target, papers, run_jobs_elsewhere, suite_settings


def test_the_template_is_a_paper():
    assert "_template" in papers()


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("papers/_tmplate/all", "'_tmplate'. Did you mean papers/_template/all"),
        ("papers/template", "'template'. Did you mean papers/_template"),
        ("papers/zzz/tables", "'zzz'. Did you mean one of _template, "),
    ],
)
def test_a_misspelt_paper_gets_the_nearest_names(target, hint):
    said = misspelt_target(["--cores", "1", target])
    assert said is not None
    assert hint in said


@pytest.mark.parametrize(
    "target", ["papers/_template/all", "doctor", "results/x/y", "papers/_template/config.yaml", "--config", "papers"]
)
def test_other_arguments_get_no_hint(target):
    assert misspelt_target([target]) is None


def test_settings_of_the_suite_are_checked_all_at_once():
    settings, choice = suite_settings({"scale": "smoke", "results": "elsewhere"})
    assert (settings.results, choice.scale) == ("elsewhere", "smoke")
    with pytest.raises(ConfigError) as caught:
        suite_settings({"scale": "huge", "resluts": "x"})
    assert "scale = 'huge'" in str(caught.value)
    assert "resluts: unknown key; did you mean 'results'?" in str(caught.value)
    with pytest.raises(ConfigError, match="results = 'my results'"):
        suite_settings({"results": "my results"})


def test_the_plan_of_the_template():
    plan = PaperPlan("_template", "smoke")
    assert plan.batches() == [("softmax_gradient", "all")]
    assert plan.settings("softmax_gradient", "all")[4] == {"seed": 4, "d_k": [4, 64], "keys": 64, "queries": 256}
    assert (plan.gpus("softmax_gradient"), plan.device("softmax_gradient")) == (0, "cpu")
    assert (plan.minutes("softmax_gradient"), plan.memory_megabytes("softmax_gradient")) == (2, 2048)
    assert plan.data() == {"softmax_gradient": []}
    assert plan.words()["captions"].keys() == {"gradient_against_dimension"}
    assert plan.sources("figures") != plan.sources("common.tables")


def test_a_job_that_needs_a_gpu_gets_one_of_its_own():
    plan = PaperPlan("pbs_attn", "standard")
    assert plan.python(["coverage"]) == "python -m common.gpus 1 python"
    assert PaperPlan("pbs_attn", "smoke").python(["coverage", "exactness"]) == "python"


def test_on_a_cluster_the_scale_is_said_and_gpus_are_elsewhere(monkeypatch):
    monkeypatch.delenv("REATTEND_JOBS", raising=False)
    with pytest.raises(ConfigError, match="add `--config scale=standard`"):
        run_jobs_elsewhere("auto")
    assert "REATTEND_JOBS" not in workflow.os.environ
    monkeypatch.setenv("REATTEND_JOBS", "")  # taken back after the test
    run_jobs_elsewhere("standard")
    assert workflow.os.environ["REATTEND_JOBS"] == "elsewhere"


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.setattr(workflow, "papers", lambda: ["_template", "one", "two"])
    monkeypatch.setenv("REATTEND_TRACKING", "on")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("_template", "one", "two"):
        (tmp_path / name / "smoke").mkdir(parents=True)
        (tmp_path / name / "smoke" / "report.html").touch()
    return str(tmp_path)


@pytest.mark.parametrize(
    ("targets", "named"),
    [
        ([], ["one", "two"]),
        (["all"], ["one", "two"]),
        (["papers/_template/all"], ["_template"]),
        (["doctor"], []),
        (["papers/one/tables"], []),
    ],
)
def test_closing_words_name_what_was_made(made, targets, named):
    words = closing_words(made, "smoke", targets)
    assert [line.split(" at ")[0] for line in words.splitlines() if " at scale smoke:" in line] == named


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("sqlite:////data/mlflow.db", "`mlflow ui --backend-store-uri sqlite:////data/mlflow.db`"),
        ("http://server:5000", "MLflow: open http://server:5000"),
    ],
)
def test_closing_words_open_the_mlflow_that_was_written_to(made, monkeypatch, uri, words):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert words in closing_words(made, "smoke", ["papers/one/all"])
    monkeypatch.setenv("REATTEND_TRACKING", "off")
    assert "MLflow" not in closing_words(made, "smoke", ["papers/one/all"])


def test_stages_put_an_experiment_behind_those_it_starts_from():
    stages = PaperPlan("seer_attention", "smoke").stages()
    assert [sorted({experiment for experiment, _ in stage}) for stage in stages] == [
        ["distillation", "ground_truth", "kernel_time", "selection_time"],
        ["ablations", "coverage", "longbench", "perplexity", "prefill_time", "retrieval"],
    ]
    plan = PaperPlan("hip_attention", "standard")
    assert plan.stages() == [plan.batches()]


def test_an_experiment_that_is_not_run_at_a_scale_has_no_jobs_there():
    jobs = {scale: {experiment for experiment, _ in PaperPlan("hip_attention", scale).batches()} for scale in SCALES}
    assert jobs["smoke"] == jobs["paper"] == jobs["standard"] | {"longbench"}
    assert "longbench" not in jobs["standard"]


def test_a_stage_without_jobs_is_left_out():
    plan = PaperPlan("seer_attention", "standard")
    for entry in plan.config.experiments.values():
        if entry.after:
            entry.scales = ["smoke"]
    assert plan.stages() == [plan.batches()]
    assert {experiment for experiment, _ in plan.batches()} == {"distillation", "ground_truth", "kernel_time", "selection_time"}
