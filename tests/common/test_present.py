"""Verdicts, tables, figures and the report from a folder of records, and from nothing else."""

import csv
import json
import re
import shutil
import sys
import types

import pytest

from common import present
from common.configuration import TableEntry, read_paper_config
from common.errors import DataError
from common.records import RecordSet, read_record, write_record
from tests.example_records import TEMPLATE, measure_template


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("measured")
    measure_template(folder / "standard" / "records", "standard")
    measure_template(folder / "smoke" / "records", "smoke")
    return folder


@pytest.fixture
def results(measured, tmp_path):
    shutil.copytree(measured, tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture
def call(monkeypatch, results):
    def command(what, out, *more, scale="standard", paper="_template"):
        arguments = [
            what,
            paper,
            "--scale",
            scale,
            "--records",
            results / scale / "records",
            "--out",
            results / scale / out,
            *more,
        ]
        monkeypatch.setattr(sys, "argv", ["present", *map(str, arguments)])
        present.main()

    return command


def everything(call, scale="standard"):
    call("verdicts", "verdicts.json", scale=scale)
    call("tables", "tables", scale=scale)
    call("figure", "figures/gradient_against_dimension", "--name", "gradient_against_dimension", scale=scale)
    call("report", "report.html", scale=scale)
    call("mlflow", "mlflow_run.txt", scale=scale)


def test_everything_is_made_from_records_alone(call, results):
    everything(call)
    folder = results / "standard"
    verdicts = {v["claim"]: v for v in json.loads((folder / "verdicts.json").read_text())}
    assert list(verdicts) == ["variance_is_d_k", "scaling_keeps_gradients", "translation_quality"]
    assert verdicts["variance_is_d_k"]["outcome"] == "reproduced"
    assert verdicts["translation_quality"]["outcome"] == "not tested"
    identities = {f"_template/softmax_gradient/seed={seed}" for seed in range(5)}
    assert set(verdicts["variance_is_d_k"]["evidence"][0]["records"]) == identities
    assert {p.name for p in (folder / "tables").iterdir()} == {
        f"{name}.{suffix}" for name in ("claims", "evidence", "reported", "reported_timing") for suffix in ("md", "csv", "tex")
    }
    page = (folder / "report.html").read_text(encoding="utf-8")
    for claim in verdicts:
        assert f'id="claim-{claim}"' in page
    assert "<svg" in page
    assert "@inproceedings{vaswani2017attention" in page
    assert not re.search(r'(src|href)="(?!#)', page), "the page must be self-contained"
    assert (folder / "mlflow_run.txt").read_text() == "not tracked\n"


def test_the_report_says_when_records_were_measured_with_local_changes(call, results):
    everything(call)
    folders = [path.parent for path in sorted(results.glob("standard/records/*/*/record.json"))]
    for dirty, seen in ((0, False), (2, True)):
        for number, folder in enumerate(folders):
            record = read_record(folder / "record.json")
            provenance = record.provenance.model_copy(update={"dirty": number < dirty})
            write_record(folder, record.model_copy(update={"provenance": provenance}), {})
        call("report", "report.html")
        page = (results / "standard" / "report.html").read_text(encoding="utf-8")
        assert ('id="dirty"' in page) == seen
        assert ("2 of 5 records were measured with local changes" in page) == seen


def test_the_numbers_in_the_tables_are_those_of_the_records(call, results):
    everything(call)
    table = RecordSet(results / "standard" / "records").table()
    rows = table[(table["metric"] == "variance_of_dot_product") & (table["d_k"] == 64)]
    with (results / "standard" / "tables" / "reported.csv").open(encoding="utf-8", newline="") as stream:
        line = next(line for line in csv.DictReader(stream) if line["Column"] == "d_k = 64")
    assert line["Ours"].startswith(f"{rows['value'].mean():.2f} [")
    assert line["n"] == "5"
    evidence = (results / "standard" / "tables" / "evidence.csv").read_text()
    assert f"{rows['value'].mean() - 64:.4f}"[:6] in evidence


def test_smoke_is_shown_and_not_judged(call, results):
    everything(call, scale="smoke")
    verdicts = json.loads((results / "smoke" / "verdicts.json").read_text())
    assert {v["outcome"] for v in verdicts} == {"not tested"}
    assert "no claim is judged" in (results / "smoke" / "report.html").read_text()


def test_two_runs_give_the_same_bytes(call, results):
    everything(call)
    made = {p: p.read_bytes() for p in (results / "standard").rglob("*") if p.is_file()}
    everything(call)
    assert {p: p.read_bytes() for p in made} == made


def refused(capsys, call, *arguments, **keywords):
    with pytest.raises(SystemExit) as caught:
        call(*arguments, **keywords)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    return said


@pytest.mark.parametrize("what", ["verdicts", "tables", "report"])
def test_a_tampered_record_is_refused(call, results, capsys, what):
    path = results / "standard" / "records" / "softmax_gradient" / "seed=2" / "record.json"
    text = path.read_text()
    value = re.search(r'"metric": "gradient_norm", "value": (0\.\d+)', text)
    assert value is not None
    path.write_text(text.replace(value.group(1), "0.123", 1))
    said = refused(capsys, call, what, "out")
    assert f"The numbers in {path} do not fit its digest" in said
    assert not (results / "standard" / "out").exists()


def test_records_of_other_parameters_are_refused(call, results, capsys):
    shutil.rmtree(results / "standard" / "records")
    shutil.copytree(results / "smoke" / "records", results / "standard" / "records")
    assert "was measured with other parameters" in refused(capsys, call, "verdicts", "verdicts.json")


def test_records_of_cells_that_are_no_more_are_left_out(measured, tmp_path):
    config = read_paper_config(TEMPLATE / "config.yaml")
    shutil.copytree(measured / "standard" / "records", tmp_path / "records")
    axis = config.experiments["softmax_gradient"].cells["seed"]
    axis.value = [0, 1, 2]
    records = present.paper_records(config, "standard", tmp_path / "records")
    assert [record.axes["seed"] for record in records.records] == [0, 1, 2]


def test_without_records_nothing_is_tested(call, results):
    shutil.rmtree(results / "standard" / "records")
    call("verdicts", "verdicts.json")
    verdicts = json.loads((results / "standard" / "verdicts.json").read_text())
    assert {v["outcome"] for v in verdicts} == {"not tested"}
    assert verdicts[0]["reason"].startswith("no records of softmax_gradient")


def test_what_the_user_can_mend_is_one_message(call, results, capsys):
    assert "papers/nowhere/config.yaml does not exist" in refused(capsys, call, "verdicts", "v", paper="nowhere")
    assert "lists the figures gradient_against_dimension" in refused(capsys, call, "figure", "figures/x", "--name", "x")
    assert "lists the figures gradient_against_dimension" in refused(capsys, call, "figure", "figures/x")
    assert "verdicts.json cannot be read" in refused(capsys, call, "mlflow", "mlflow_run.txt")
    assert "Make it with `python -m common.present figure" in refused(capsys, call, "report", "report.html")


def test_a_figure_that_config_lists_must_be_a_function(measured, tmp_path):
    config = read_paper_config(TEMPLATE / "config.yaml")
    config.figures["missing"] = config.figures["gradient_against_dimension"]
    with pytest.raises(DataError, match=r"each must be a function in figures\.py"):
        present.draw(config, "missing", RecordSet(measured / "standard" / "records"), tmp_path / "missing")


@pytest.fixture
def with_own_table(monkeypatch):
    """The template's configuration with a table of its own, made by a module that stands in for `tables.py`."""
    config = read_paper_config(TEMPLATE / "config.yaml")
    config.tables["norms"] = TableEntry(title="gradient norms", experiments=["softmax_gradient"])
    module = types.SimpleNamespace(
        norms=lambda records: (("seeds", "of"), [[str(len(records.records)), records.records[0].paper]])
    )
    monkeypatch.setitem(sys.modules, "papers._template.tables", module)
    return config


def test_a_table_of_the_papers_own_stands_beside_the_others(measured, with_own_table):
    records = RecordSet(measured / "standard" / "records")
    own = present.paper_tables(TEMPLATE, with_own_table, "standard", records)[-1]
    assert (own.name, own.title) == ("norms", "_template: gradient norms")
    assert (own.columns, own.rows) == (("seeds", "of"), (("5", "_template"),))
    assert "5 records" in own.notes[0]


def test_a_table_of_the_papers_own_is_empty_before_its_experiments_are_measured(measured, with_own_table):
    records = RecordSet(measured / "standard" / "records")
    records.records = []
    own = present.paper_tables(TEMPLATE, with_own_table, "standard", records)[-1]
    assert (own.columns, own.rows) == ((), ())


def test_a_table_that_config_lists_must_be_a_function(measured, with_own_table):
    with_own_table.tables["missing"] = with_own_table.tables["norms"]
    with pytest.raises(DataError, match=r"each must be a function in tables\.py"):
        present.own_table(with_own_table, "missing", RecordSet(measured / "standard" / "records"))
