"""Recorded results and what is made from them, in a small repository: a copy of the template paper and one kernel."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from common import mlflow_import, publish, workflow
from common.records import read_record, write_record
from common.tables import number
from tests.example_records import TEMPLATE, measure_template

H200 = {"name": "NVIDIA H200", "kind": "cuda", "driver": "570.1", "cuda": "12.8"}
H100 = {**H200, "name": "NVIDIA H100 80GB HBM3"}
CPU = {"name": "AMD EPYC", "kind": "cpu"}
BENCHMARK = {
    "benchmark": "sums",
    "arguments": {"lengths": [2048, 8192], "head_dim": 64, "check": True, "note": None},
    "machine": {"device": "NVIDIA H200", "compute_capability": "9.0", "torch": "2.11.0"},
    "rows": [
        {"kernel": "ours", "length": 8192, "ms": 1.23456, "times_ours": 1.0, "error": 1.5e-5, "failed": None},
        {"kernel": "a peer", "length": 8192, "ms": 2.0, "times_ours": None, "error": 2e-3, "failed": None},
        {"kernel": "broken", "length": 8192, "ms": None, "times_ours": None, "error": 0.5, "failed": "wrong result"},
    ],
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("measured")
    measure_template(folder, "standard")
    return folder


@pytest.fixture
def repository(tmp_path, monkeypatch):
    shutil.copytree(TEMPLATE, tmp_path / "papers" / "_template", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "README.md").write_text("# Suite\n\n<!-- overview: begin -->\nold\n<!-- overview: end -->\n\nafter\n")
    readme = tmp_path / "common" / "kernels" / "sums" / "README.md"
    readme.parent.mkdir(parents=True)
    readme.write_text("# Sums\n\n<!-- benchmark: sums begin -->\n<!-- benchmark: sums end -->\n\nafter\n")
    monkeypatch.setattr(publish, "REPOSITORY", tmp_path)
    monkeypatch.setattr(workflow, "REPOSITORY", tmp_path)
    monkeypatch.setattr(publish, "commit", lambda: ("c" * 40, True))
    return tmp_path


@pytest.fixture
def call(monkeypatch, capsys, repository):
    """Calls the command line; gives its exit status and what it said."""

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["publish", *map(str, arguments)])
        monkeypatch.chdir(repository)
        try:
            publish.main()
            status = 0
        except SystemExit as stop:
            status = stop.code
        said = capsys.readouterr()
        return status, said.out + said.err

    return command


def lay_results(repository, measured, devices=(H200,), day=1, **provenance):
    """Results of a run in `results/`: the template's records as if measured on these devices in turn."""
    target = repository / "results" / "_template" / "standard" / "records"
    shutil.rmtree(target, ignore_errors=True)
    for i, path in enumerate(sorted(measured.glob("*/*/record.json"))):
        record = read_record(path)
        device = record.provenance.device.model_copy(update=devices[i % len(devices)])
        changes = {"device": device, "commit": "a" * 40, "dirty": False, "started_at": f"2026-01-0{day}T00:00:0{i}+00:00"}
        record = record.model_copy(update={"provenance": record.provenance.model_copy(update={**changes, **provenance})})
        folder = target / path.parent.relative_to(measured)
        write_record(folder, record, {})
        (folder / "tracking.json").write_text("{}")
        (folder.parent / "all.index.json").write_text("{}")
    return target


@pytest.fixture
def recorded(repository, measured, call):
    lay_results(repository, measured)
    assert call("record", "_template")[0] == 0
    assert call("tables")[0] == 0
    return repository / "results" / "recorded" / "nvidia-h200" / "_template" / "standard" / "records"


def files_below(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_names_of_machines_become_folders():
    assert publish.hardware_name("NVIDIA H200") == "nvidia-h200"
    assert publish.hardware_name("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"
    assert publish.hardware_name("AMD Ryzen(TM) 9 ") == "amd-ryzen-tm-9"


def test_records_are_copied_byte_for_byte_and_nothing_else(repository, measured, call):
    source = lay_results(repository, measured, devices=(CPU, H200))  # experiments on the processor go along
    stale = source / "softmax_gradient" / "seed=99"
    shutil.copytree(source / "softmax_gradient" / "seed=0", stale)
    record = read_record(stale / "record.json").model_copy(update={"cell": "seed=99", "axes": {"seed": 99}})
    write_record(stale, record, {})
    status, said = call("record", "_template")
    assert (status, "results/recorded/nvidia-h200/_template/standard/records" in said) == (0, True)
    target = repository / "results" / "recorded" / "nvidia-h200" / "_template" / "standard" / "records"
    expected = {Path("softmax_gradient", f"seed={seed}", "record.json") for seed in range(5)}
    assert set(files_below(target)) == expected
    assert {path: (source / path).read_bytes() for path in expected} == files_below(target)
    assert [path.name for path in target.parent.iterdir()] == ["records"]  # nothing temporary stays


def test_recording_again_replaces_what_was_there(repository, measured, call):
    lay_results(repository, measured)
    call("record", "_template")
    source = lay_results(repository, measured, day=2)
    shutil.rmtree(source / "softmax_gradient" / "seed=4")
    status, said = call("record", "_template")
    assert status == 0
    assert "warning: softmax_gradient/seed=4 was not measured" in said
    target = repository / "results" / "recorded" / "nvidia-h200" / "_template" / "standard" / "records"
    assert sorted(path.name for path in (target / "softmax_gradient").iterdir()) == [f"seed={seed}" for seed in range(4)]
    assert "2026-01-02" in (target / "softmax_gradient" / "seed=0" / "record.json").read_text()


def test_a_paper_measured_on_the_processor_alone_is_recorded_under_its_name(repository, measured, call):
    lay_results(repository, measured, devices=(CPU,))
    assert "results/recorded/amd-epyc/_template" in call("record", "_template")[1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"devices": (H200, H100)},
            "records of experiment softmax_gradient in",
        ),
        ({"devices": (H200, H100)}, "come from several devices (NVIDIA H100 80GB HBM3, NVIDIA H200)"),
        ({"dirty": True}, "5 of 5 records"),
    ],
    ids=["two GPUs in one experiment", "two GPUs, their names", "dirty"],
)
def test_records_that_cannot_be_cited_are_refused(repository, measured, call, changes, words):
    lay_results(repository, measured, **changes)
    status, said = call("record", "_template")
    assert status == 2
    assert said.startswith("error: ")
    assert words in said
    assert not (repository / "results" / "recorded").exists()


def add_experiment(repository, name, device):
    """A second experiment of the template: the same cells, as if measured on another device."""
    path = repository / "papers" / "_template" / "config.yaml"
    shutil.copyfile(path.with_name("softmax_gradient.py"), path.with_name(f"{name}.py"))
    head, rest = path.read_text().split("  softmax_gradient:\n")
    entry, tail = rest.split("figures:\n")
    path.write_text(f"{head}  softmax_gradient:\n{entry}  {name}:\n{entry}figures:\n{tail}")
    source = repository / "results" / "_template" / "standard" / "records" / "softmax_gradient"
    for found in sorted(source.glob("*/record.json")):
        record = read_record(found)
        provenance = record.provenance.model_copy(update={"device": record.provenance.device.model_copy(update=device)})
        changed = record.model_copy(update={"experiment": name, "provenance": provenance})
        write_record(source.parent / name / found.parent.name, changed, {})


def test_experiments_of_one_paper_may_be_measured_on_different_gpus(repository, measured, call):
    lay_results(repository, measured, devices=(H200,))
    add_experiment(repository, "on_another_card", H100)
    status, said = call("record", "_template")
    assert status == 0, said
    assert "results/recorded/nvidia-h100-80gb-hbm3-nvidia-h200/_template/standard/records" in said
    assert call("tables")[0] == 0
    assert "NVIDIA H100 80GB HBM3, NVIDIA H200" in (repository / "README.md").read_text()


def test_a_comparison_across_gpus_is_refused(repository, measured, call):
    lay_results(repository, measured, devices=(H200,))
    add_experiment(repository, "on_another_card", H100)
    path = repository / "papers" / "_template" / "claims.yaml"
    than = "than: {experiment: softmax_gradient, metric: gradient_norm"
    path.write_text(path.read_text().replace(than, than.replace("softmax_gradient", "on_another_card")))
    status, said = call("record", "_template")
    assert status == 2
    assert "claim scaling_keeps_gradients (gradient norm, scaled minus plain" in said
    assert not (repository / "results" / "recorded").exists()


def lay_results_of_two_commits(repository, measured, **provenance):
    """Results of which one record is of another commit."""
    target = lay_results(repository, measured, **provenance)
    folder = target / "softmax_gradient" / "seed=0"
    record = read_record(folder / "record.json")
    changed = record.provenance.model_copy(update={"commit": "b" * 40})
    write_record(folder, record.model_copy(update={"provenance": changed}), {})


def test_records_of_several_commits_are_refused_also_with_allow_dirty(repository, measured, call):
    lay_results_of_two_commits(repository, measured, dirty=True)
    for option in ((), ("--allow-dirty",)):
        status, said = call("record", "_template", *option)
        assert status == 2
        assert "come from several commits (aaaaaaaaaaaa, bbbbbbbbbbbb)" in said


@pytest.mark.parametrize("dirty", [False, True], ids=["clean", "with local changes"])
def test_records_of_several_commits_are_taken_where_a_clean_checkout_has_their_very_sources(
    repository, measured, call, monkeypatch, dirty
):
    lay_results_of_two_commits(repository, measured, dirty=dirty)
    monkeypatch.setattr(publish, "commit", lambda: ("c" * 40, True))  # with changes it proves nothing
    assert "come from several commits" in call("record", "_template")[1]
    monkeypatch.setattr(publish, "commit", lambda: ("c" * 40, False))
    assert call("record", "_template")[0] == 0
    assert call("tables")[0] == 0
    assert "those of commit cccccccccccc" in (repository / "papers/_template/README.md").read_text()


def test_records_of_several_commits_and_other_sources_are_refused(repository, measured, call, monkeypatch):
    lay_results_of_two_commits(repository, measured, source_sha256="0" * 64)
    monkeypatch.setattr(publish, "commit", lambda: ("c" * 40, False))
    for option in ((), ("--allow-dirty",)):
        assert "come from several commits" in call("record", "_template", *option)[1]


def test_dirty_records_are_taken_when_asked_and_the_tables_say_so(repository, measured, call):
    lay_results(repository, measured, dirty=True)
    assert call("record", "_template", "--allow-dirty")[0] == 0
    assert call("tables")[0] == 0
    for path in ("papers/_template/README.md", "report/tables/_template/claims.md", "report/tables/_template/evidence.tex"):
        assert "with local changes" in (repository / path).read_text()


def test_dirty_records_are_taken_where_a_clean_checkout_has_their_very_sources(repository, measured, call, monkeypatch):
    lay_results(repository, measured, dirty=True)
    monkeypatch.setattr(publish, "commit", lambda: ("c" * 40, False))
    assert call("record", "_template")[0] == 0
    folder = repository / "results" / "recorded" / "nvidia-h200" / "_template" / "standard"
    assert json.loads((folder / "sources.json").read_text())["commit"] == "c" * 40
    assert call("tables")[0] == 0
    for path in ("papers/_template/README.md", "report/tables/_template/claims.md", "report/tables/_template/evidence.tex"):
        assert "those of commit cccccccccccc" in (repository / path).read_text()
    assert call("tables", "--check")[0] == 0
    (folder / "sources.json").write_text("{}")
    assert "sources.json is damaged" in call("tables", "--check")[1]


def test_dirty_records_with_other_sources_are_refused_and_an_old_statement_goes(repository, measured, call, monkeypatch):
    lay_results(repository, measured, dirty=True)
    monkeypatch.setattr(publish, "commit", lambda: ("c" * 40, False))
    assert call("record", "_template")[0] == 0
    lay_results(repository, measured, dirty=True, source_sha256="0" * 64)
    assert "were measured with local changes" in call("record", "_template")[1]
    assert call("record", "_template", "--allow-dirty")[0] == 0
    assert not list((repository / "results" / "recorded").rglob("sources.json"))


def test_what_is_not_there_is_one_message(repository, measured, call):
    assert "holds no record of _template. Run `snakemake papers/_template/all" in call("record", "_template")[1]
    assert "There is no paper 'templte'. Did you mean _template?" in call("record", "templte")[1]
    assert "Nothing is recorded of _template" in call("tables", "_template")[1]
    assert "There is no paper 'templte'. Did you mean _template?" in call("tables", "templte")[1]
    assert call("record", "_template", "--scale", "smoke")[0] == 2  # nothing there that could be cited


def test_a_tampered_record_is_refused(repository, recorded, call):
    path = recorded / "softmax_gradient" / "seed=2" / "record.json"
    path.write_text(re.sub(r'("metric": "gradient_norm", "value": )0\.\d+', r"\g<1>0.123", path.read_text(), count=1))
    for option in ((), ("--check",)):
        status, said = call("tables", *option)
        assert status == 2
        assert "do not fit its digest" in said


def test_tables_figures_and_readmes_are_made_from_recorded_results(repository, recorded, call):
    assert {path.name for path in (repository / "report" / "tables" / "_template").iterdir()} == {"verdicts.json"} | {
        f"{name}.{suffix}" for name in ("claims", "evidence", "reported", "reported_timing") for suffix in ("md", "csv", "tex")
    }
    assert {path.name for path in (repository / "report" / "figures" / "_template").iterdir()} == {
        f"gradient_against_dimension.{suffix}" for suffix in ("svg", "png")
    }
    readme = (repository / "papers" / "_template" / "README.md").read_text()
    block = readme[readme.index("<!-- results: begin -->") : readme.index("<!-- results: end -->")]
    verdicts = json.loads((repository / "report" / "tables" / "_template" / "verdicts.json").read_text())
    lines = [line for line in block.splitlines() if line.startswith("| ")]
    assert len(lines) == 1 + len(verdicts)
    for line, verdict in zip(lines[1:], verdicts, strict=True):
        assert verdict["outcome"] in line.split("|")[-2]
    assert number(verdicts[0]["evidence"][0]["estimate"]) in lines[1]
    estimates = [piece["estimate"] for piece in verdicts[1]["evidence"]]
    assert f"{number(min(estimates))} to {number(max(estimates))} (2 settings)" in lines[2]
    assert "28.4" in lines[3]
    for words in ("NVIDIA H200", "aaaaaaaaaaaa", "2026-01-01", "snakemake papers/_template/all --config scale=standard"):
        assert words in block
    assert "Generated by `python -m common.publish tables`" in block
    assert readme.startswith("# Template")
    assert "## Add your paper" in readme
    overview = (repository / "README.md").read_text()
    assert overview.startswith("# Suite\n\n<!-- overview: begin -->\n<!-- Generated by `python -m common.publish tables`")
    assert overview.endswith("<!-- overview: end -->\n\nafter\n")
    assert "old" not in overview
    outcomes = [verdict["outcome"] for verdict in verdicts]
    cells = [cell.strip() for cell in re.findall(r"\| \[Attention.*", overview)[0].split("|")[2:6]]
    assert cells == [str(outcomes.count(o)) for o in ("reproduced", "contradicted", "inconclusive", "not tested")]


def test_every_link_leads_to_a_file(repository, recorded):
    for path in ("README.md", "papers/_template/README.md", "report/tables/README.md"):
        links = re.findall(r"\]\(([^)]+)\)", (repository / path).read_text())
        assert links
        for link in links:
            assert ((repository / path).parent / link).exists(), f"{path}: {link}"


def test_made_twice_the_bytes_are_the_same(repository, recorded, call):
    first = files_below(repository)
    for path in first:
        if path.parts[0] == "report":
            (repository / path).unlink()
    status, said = call("tables")
    assert status == 0
    assert "report/tables/_template/claims.md" in said
    assert files_below(repository) == first
    assert call("tables") == (0, "")  # nothing left to write


def test_check_passes_and_writes_nothing_when_all_is_current(repository, recorded, call):
    before = files_below(repository)
    status, said = call("tables", "--check")
    assert status == 0, said
    assert files_below(repository) == before


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("report/tables/_template/claims.md", "reproduced", "contradicted"),
        ("report/tables/_template/reported.csv", "64", "65"),
        ("report/tables/README.md", "Recorded", "Wonderful"),
        ("report/figures/_template/gradient_against_dimension.svg", "gradient", "Gradient"),
        ("papers/_template/README.md", "| reproduced", "| all reproduced"),
        ("README.md", "NVIDIA H200", "NVIDIA H300"),
    ],
)
def test_check_names_what_was_edited_and_regenerating_mends_it(repository, recorded, call, path, old, new):
    text = (repository / path).read_text()
    assert old in text
    (repository / path).write_text(text.replace(old, new))
    status, said = call("tables", "--check")
    assert status == 1
    assert said.splitlines() == [f"{path} differs", "Run `python -m common.publish tables` and commit what it writes."]
    assert call("tables") == (0, f"{path}\n")
    assert (repository / path).read_text() == text
    assert call("tables", "--check")[0] == 0


def test_check_names_what_is_missing_and_what_is_left_over(repository, recorded, call):
    (repository / "report/figures/_template/gradient_against_dimension.png").unlink()
    (repository / "report/figures/_template/renamed.svg").write_text("<svg/>")
    status, said = call("tables", "--check")
    assert status == 1
    assert said.splitlines()[:2] == [
        "report/figures/_template/gradient_against_dimension.png is missing",
        "report/figures/_template/renamed.svg is no longer made",
    ]
    assert call("tables")[0] == 0
    assert not (repository / "report/figures/_template/renamed.svg").exists()
    assert call("tables", "--check")[0] == 0


def test_check_fails_after_other_records_were_recorded(repository, recorded, measured, call):
    shutil.rmtree(recorded / "softmax_gradient" / "seed=4")
    status, said = call("tables", "--check")
    assert status == 1
    assert "report/tables/_template/evidence.csv differs" in said
    assert "papers/_template/README.md differs" in said


def test_a_figure_of_another_matplotlib_is_not_compared(repository, recorded, call):
    path = repository / "report/figures/_template/gradient_against_dimension.svg"
    path.write_text(re.sub(r"Matplotlib v[\d.]+", "Matplotlib v3.0.0", path.read_text()).replace("gradient", "Gradient"))
    assert call("tables", "--check")[0] == 0


def test_the_newest_of_several_machines_is_published_and_the_others_are_named(repository, recorded, measured, call):
    lay_results(repository, measured, devices=(H100,), day=3)
    call("record", "_template")
    call("tables", "_template")
    readme = (repository / "papers" / "_template" / "README.md").read_text()
    assert "Measured on 2026-01-03." in readme
    assert "Also recorded: NVIDIA H200 (scale standard, 2026-01-01)." in readme
    assert "NVIDIA H100 80GB HBM3" in (repository / "report" / "tables" / "_template" / "claims.md").read_text()


def test_a_new_paper_needs_no_change_here(repository, recorded, call):
    shutil.copytree(repository / "papers" / "_template", repository / "papers" / "newcomer")
    config = repository / "papers" / "newcomer" / "config.yaml"
    text = config.read_text().replace("paper: _template", "paper: newcomer")
    config.write_text(re.sub(r'title: ".*"', 'title: "A new paper"', text))
    assert call("tables")[0] == 0
    assert re.search(
        r"\[A new paper\]\(papers/newcomer/README\.md\) .*not recorded yet", (repository / "README.md").read_text()
    )
    assert "No results are recorded yet." in (repository / "papers" / "newcomer" / "README.md").read_text()


@pytest.mark.parametrize("broken", ["", "<!-- overview: end -->\n<!-- overview: begin -->\n", "<!-- overview: begin -->\n"])
def test_a_readme_without_its_markers_is_named_and_nothing_is_written(repository, recorded, call, broken):
    (repository / "README.md").write_text(broken)
    (repository / "report" / "tables" / "_template" / "claims.md").unlink()
    status, said = call("tables")
    assert status == 2
    assert "README.md must hold the lines `<!-- overview: begin -->` and `<!-- overview: end -->` once each" in said
    assert not (repository / "report" / "tables" / "_template" / "claims.md").exists()


def lay_benchmark(repository, hardware="nvidia-h200", name="sums", **changes):
    path = repository / "results" / "recorded" / hardware / "benchmarks" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**BENCHMARK, **changes}))
    return path


def test_benchmarks_are_shown_in_the_readme_of_their_kernel(repository, call):
    lay_benchmark(repository)
    readme = repository / "common" / "kernels" / "sums" / "README.md"
    assert call("benchmarks") == (0, "common/kernels/sums/README.md\n")
    text = readme.read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")]
    assert rows == [
        ["kernel", "length", "ms", "times ours", "error"],
        ["ours", "8,192", "1.235", "1.000", "1.50e-05"],
        ["a peer", "8,192", "2.000", "–", "0.002000"],
    ]
    assert "Not reported: broken, length 8,192: wrong result" in text
    assert "NVIDIA H200; compute capability 9.0, torch 2.11.0." in text
    assert "Measured by `python -m benchmarks sums --lengths 2048 8192 --head-dim 64 --check`." in text
    assert "Generated by `python -m common.publish benchmarks`" in text
    assert text.startswith("# Sums\n")
    assert text.endswith("<!-- benchmark: sums end -->\n\nafter\n")
    assert call("benchmarks", "--check")[0] == 0
    readme.write_text(text.replace("1.235", "1.134"))
    assert call("benchmarks", "--check")[0] == 1
    assert call("benchmarks")[0] == 0
    assert readme.read_text() == text
    lay_benchmark(repository, rows=BENCHMARK["rows"][:1])
    assert "common/kernels/sums/README.md differs" in call("benchmarks", "--check")[1]


def test_each_machine_has_its_table_and_no_machine_says_so(repository, call):
    readme = repository / "common" / "kernels" / "sums" / "README.md"
    assert call("benchmarks")[0] == 0
    assert "No benchmark is recorded yet." in readme.read_text()
    lay_benchmark(repository)
    lay_benchmark(repository, "nvidia-h100", machine={"device": "NVIDIA H100", "torch": "2.11.0"})
    call("benchmarks")
    assert re.findall(r"\*\*sums on (.*)\*\*", readme.read_text()) == ["NVIDIA H100", "NVIDIA H200"]


def test_a_damaged_or_homeless_benchmark_is_named(repository, call):
    path = lay_benchmark(repository)
    path.write_text("{}")
    status, said = call("benchmarks")
    assert status == 2
    assert f"{path} is no recorded benchmark" in said
    lay_benchmark(repository)
    lay_benchmark(repository, name="products")
    status, said = call("benchmarks")
    assert status == 2
    assert "`<!-- benchmark: products begin -->`" in said


def test_recorded_results_become_mlflow_runs(repository, recorded, tmp_path, monkeypatch, capsys):
    uri = f"sqlite:///{tmp_path / 'imported' / 'mlflow.db'}"
    monkeypatch.setenv("REATTEND_TRACKING", "on")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(mlflow_import, "REPOSITORY", repository)
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["mlflow_import", "_template"])
        mlflow_import.main()
    assert capsys.readouterr().out.splitlines() == [
        "_template: 5 runs made, 0 were there already",
        "_template: 0 runs made, 5 were there already",
    ]
    client = MlflowClient(tracking_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name("_template").experiment_id])  # pyright: ignore[reportOptionalMemberAccess]
    (parent,) = (run for run in runs if "imported_from" in run.data.tags)
    below = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert "tables and figures (standard)" in [run.info.run_name for run in below]
    assert len(below) == len(runs) - 1 == 6
    monkeypatch.setenv("REATTEND_TRACKING", "off")
    with pytest.raises(SystemExit):
        mlflow_import.main()
    assert "REATTEND_TRACKING is off" in capsys.readouterr().err
