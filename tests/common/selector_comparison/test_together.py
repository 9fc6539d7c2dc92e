"""The table and the figure of all papers: own methods, shared baselines, and what is left out."""

from pathlib import Path

import pytest

from common.figures import save_figure, style
from common.records import RecordSet, Row, read_record, write_record
from common.selector_comparison.together import comparison_figure, comparison_table, gather
from tests.example_records import make_record

DENSITIES = (0.1, 0.2, 0.3)


def row(metric, value, method, **setting):
    return Row(metric=metric, value=value, unit="1", method=method, setting=setting)


def write_paper(root: Path, paper: str, coverage: dict[str, float], block_size: int, losses: dict[str, float]) -> RecordSet:
    """Records of a paper: coverage of each method (less at lower density), losses added to 3 nats, times at 131,072 tokens."""

    def write(experiment, rows, **axes):
        cell = ",".join(f"{key}={value}" for key, value in axes.items())
        record = make_record(
            rows, cell=cell, paper=paper, experiment=experiment, axes=axes, parameters={"block_size": block_size}
        )
        write_record(root / experiment / cell, record, {})

    for text, more in (("book", 0.0), ("play", 0.02)):
        rows = [
            row("coverage_at_density", value + more - (0.3 - density), method, density=density, window=0)
            for method, value in coverage.items()
            for density in DENSITIES
        ]
        write("coverage", rows, text=text, length=8192)
        rows = [row("negative_log_likelihood", 3.0, "dense", window=0)]
        rows += [
            row("negative_log_likelihood_at_density", 3.0 + value, method, density=density, window=0)
            for method, value in losses.items()
            for density in DENSITIES[1:]
        ]
        write("perplexity", rows, text=text, length=8192)
    for task in ("passkey", f"task_of_{paper}"):
        rows = [row("density", density, paper, threshold=density) for density in (0.2, 0.4)]
        rows += [row("score", score, "dense", trial=trial) for trial, score in ((0, 100.0), (1, 60.0))]
        rows += [
            row("score", score if task == "passkey" else 0.0, paper, threshold=density, trial=trial)
            for density, scores in ((0.2, (50.0, 50.0)), (0.4, (100.0, 60.0)))
            for trial, score in enumerate(scores)
        ]
        write("retrieval", rows, task=task, length=8192, seed=0)
    rows = [
        row("selection_time", 10.0, paper),
        row("total_time", 50.0, paper),
        row("total_time", 200.0, "cudnn", stage="total"),
    ]
    write("selection_time", rows, length=131072)
    return RecordSet(root)


@pytest.fixture
def measured(tmp_path):
    papers = {
        "first_attn": ("FirstAttn: blocks by guess", {"first_attn": 0.9, "first_attn_variant": 0.99, "mean_pooling": 0.7}, 128),
        "second": ("Second: keys by chance", {"second": 0.8, "mean_pooling": 0.6}, 128),
        "third": ("Third", {"third": 0.85, "mean_pooling": 0.5}, 64),
    }
    records = {
        name: (title, write_paper(tmp_path / name, name, coverage, size, {name: 0.05}))
        for name, (title, coverage, size) in papers.items()
    }
    return gather(records)


def test_one_row_a_selector_with_the_papers_first(measured):
    table = comparison_table(measured)
    assert [line[0] for line in table.rows] == [
        "FirstAttn", "Second", "Third", "mean pooling", "mean pooling, blocks of 64"
    ]  # fmt: skip


def test_numbers_are_means_over_windows_and_papers(measured):
    rows = {
        line[0]: dict(zip(comparison_table(measured).columns, line, strict=True)) for line in comparison_table(measured).rows
    }
    assert rows["FirstAttn"]["Coverage at 0.3"].startswith("0.91")  # of 0.90 and 0.92
    assert rows["FirstAttn"]["Coverage at 0.1"].startswith("0.71")
    assert rows["mean pooling"]["Coverage at 0.3"].startswith("0.66")  # of 0.7 and 0.6, and 0.02 more for one text
    assert rows["FirstAttn"]["Loss added at 0.2 (nats)"].startswith("0.05")
    retrieval = "Retrieval, points to dense (density nearest 0.25)"
    assert rows["FirstAttn"][retrieval] == "-30.0 (at 0.20)"  # -50 and -10 on the task that all papers have
    assert rows["FirstAttn"]["Selection, % of dense"] == "5.000"
    assert rows["FirstAttn"]["Speed-up over dense"] == "4.000"
    assert rows["mean pooling"][retrieval] == "–"


def test_the_figure_shows_every_selector(measured, tmp_path):
    with style():
        figure = comparison_figure(measured)
        shown = {text.get_text() for text in figure.legends[0].get_texts()}
        assert shown == set(measured.selectors) - {"mean pooling, blocks of 64"}
        save_figure(figure, tmp_path / "selectors")
    assert (tmp_path / "selectors.svg").stat().st_size > 0


def test_papers_without_the_shared_experiments_do_not_count(tmp_path):
    record = make_record([row("accuracy", 1.0, "pointer")], paper="other", experiment="hulls", cell="seed=0")
    write_record(tmp_path / "hulls" / "seed=0", record, {})
    assert gather({"other": ("Other", RecordSet(tmp_path))}) is None


def test_a_paper_may_name_the_shared_experiments_otherwise(tmp_path):
    write_paper(tmp_path / "own", "own", {"own": 0.9}, 128, {"own": 0.05})
    for name, other in (("equal_density", "coverage"), ("equal_density_perplexity", "perplexity")):
        (tmp_path / "own" / other).rename(tmp_path / "own" / name)
        for path in sorted((tmp_path / "own" / name).iterdir()):
            record = read_record(path / "record.json")
            write_record(path, record.model_copy(update={"experiment": name}), {})
            meaning_of_its_own = [row("coverage_at_density", 0.1, "own", density=0.3, window=0)]
            other_record = make_record(
                meaning_of_its_own, cell=path.name, paper="own", experiment=other, axes=record.axes,
                parameters={"block_size": 128},
            )  # fmt: skip
            write_record(tmp_path / "own" / other / path.name, other_record, {})
    measured = gather({"own": ("Own", RecordSet(tmp_path / "own"))})
    assert measured is not None
    table = comparison_table(measured)
    line = dict(zip(table.columns, table.rows[0], strict=True))
    assert line["Coverage at 0.3"].startswith("0.91")
    assert line["Loss added at 0.2 (nats)"].startswith("0.05")
