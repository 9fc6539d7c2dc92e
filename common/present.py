"""From records to verdicts, tables, figures and a report page.

`python -m common.present <what> <paper> --scale … --records … --out …`

Reads records alone: no GPU, no MLflow, no data.
"""

import argparse
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2

from common import tracking
from common.claims import judge_all, read_verdicts, write_verdicts
from common.configuration import PaperConfig, cells_of, read_paper_config
from common.errors import DataError, ReattendError
from common.experiment import stop_with_message
from common.figures import save_figure, style
from common.files import write_text
from common.provenance import REPOSITORY
from common.records import RecordSet, Scale
from common.reported import read_reported
from common.tables import (
    Table,
    claims_table,
    evidence_table,
    provenance_notes,
    reported_in_short,
    reported_table,
    tests_in_short,
)


def paper_records(config: PaperConfig, scale: Scale, root: Path) -> RecordSet:
    """The records of the cells that the configuration names; others in the folder (of earlier settings) are left out.

    Args:
        config: the paper's configuration.
        scale: which scale.
        root: folder with `<experiment>/<cell>/record.json`.

    Raises:
        DataError: a record is damaged, was made with other parameters than the configuration has, or started from other
            results of another experiment.
    """
    records = RecordSet(root)
    cells = {f"{c.paper}/{c.experiment}/{c.name}": c for name in config.experiments for c in cells_of(config, name, scale)}
    kept = []
    for record in records.records:
        cell = cells.get(record.identity)
        if cell is None:
            continue
        if cell.parameters_sha256 != record.provenance.parameters_sha256:
            raise DataError(
                f"{root}/{record.experiment}/{record.cell} was measured with other parameters than "
                f"papers/{config.paper}/config.yaml has now. Run the experiment again."
            )
        kept.append(record)
    results = {f"{record.experiment}/{record.cell}": record.results_sha256 for record in kept}
    for record in kept:
        if any(results.get(name, sha256) != sha256 for name, sha256 in record.provenance.after.items()):
            raise DataError(
                f"{root}/{record.experiment}/{record.cell} started from other results of "
                f"{', '.join(config.experiments[record.experiment].after)} than those that are there now. "
                "Run the experiment again."
            )
    records.records = kept
    return records


def paper_tables(folder: Path, config: PaperConfig, scale: Scale, records: RecordSet) -> list[Table]:
    """All tables of a paper: claims, evidence, the reported numbers beside ours (timings apart), and the paper's own.

    The paper's own tables (`tables` of `config.yaml`) whose experiments have no record yet are empty.

    Raises:
        DataError: config.yaml lists a table that `tables.py` beside it has no function for.
    """
    reported = read_reported(folder / "reported.csv")
    verdicts = judge_all(folder, records, scale)
    return [
        claims_table(config.paper, verdicts, reported, records.records),
        evidence_table(config.paper, verdicts, records.records),
        reported_table(config.paper, reported, records, timing=False),
        reported_table(config.paper, reported, records, timing=True),
        *(own_table(config, name, records) for name in config.tables),
    ]


def own_table(config: PaperConfig, name: str, records: RecordSet) -> Table:
    """One of the paper's own tables, by the function `name` of its `tables.py`, which gives columns and rows.

    Raises:
        DataError: there is no such function.
    """
    entry, columns, rows = config.tables[name], (), ()
    found = [record for record in records.records if record.experiment in entry.experiments]
    if {record.experiment for record in found} == set(entry.experiments):
        function = _function_of(config, "tables", name)
        columns, rows = function(records)
    title = f"{config.paper}: {entry.title}"
    return Table(name=name, title=title, columns=tuple(columns), rows=tuple(map(tuple, rows)), notes=provenance_notes(found))


def _function_of(config: PaperConfig, module: str, name: str) -> Callable[[RecordSet], Any]:
    """The function of a paper's `figures.py` or `tables.py` that config.yaml names. DataError when there is none."""
    listed: Mapping[str, object] = getattr(config, module)
    function = getattr(importlib.import_module(f"papers.{config.paper}.{module}"), name, None) if name in listed else None
    if function is None:
        raise DataError(
            f"--name {name}: papers/{config.paper}/config.yaml lists the {module} {', '.join(listed) or 'none'}, "
            f"and each must be a function in {module}.py beside it."
        )
    return function


def draw(config: PaperConfig, name: str, records: RecordSet, path: Path) -> None:
    """Draw one figure of a paper with the function `name` of its `figures.py`.

    Raises:
        DataError: the figure is not in config.yaml, or there is no such function.
    """
    function = _function_of(config, "figures", name)
    with style():
        save_figure(function(records), path)


def _svg_element(path: Path) -> str:
    """The `<svg>` element of a file, without the XML declaration, which HTML forbids. DataError when it is missing."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}. Make it with `python -m common.present figure … --name {path.stem}`."
        ) from None
    return text[text.index("<svg") :]


def report_page(folder: Path, config: PaperConfig, scale: Scale, records: RecordSet, out: Path) -> None:
    """Write the paper's page: verdicts, tables and figures, self-contained (figures are embedded)."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(REPOSITORY / "report" / "templates"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    figures = [
        {"name": name, "caption": entry.caption, "svg": _svg_element(out.parent / "figures" / f"{name}.svg")}
        for name, entry in config.figures.items()
    ]
    reported = read_reported(folder / "reported.csv")
    claims = [
        {"verdict": verdict, "theirs": reported_in_short(verdict, reported), "ours": tests_in_short(verdict)}
        for verdict in judge_all(folder, records, scale)
    ]
    page = environment.get_template("paper.html.j2").render(
        config=config,
        scale=scale,
        claims=claims,
        measured=any(claim["ours"] for claim in claims),
        # The claims stand on the page already, and the footer is the same for all tables.
        tables=paper_tables(folder, config, scale, records)[1:],
        provenance=provenance_notes(records.records),
        dirty=sum(record.provenance.dirty for record in records.records),
        figures=figures,
        bibtex=(folder / "references.bib").read_text(encoding="utf-8"),
        records=records.records,
    )
    write_text(out, page)


def main() -> None:
    """Command line: see the module's text."""
    parser = argparse.ArgumentParser(
        prog="python -m common.present", description="Verdicts, tables, figures and report from records."
    )
    parser.add_argument("what", choices=["verdicts", "tables", "figure", "figures", "report", "mlflow"])
    parser.add_argument("paper")
    parser.add_argument("--scale", required=True, choices=["smoke", "standard", "paper"])
    parser.add_argument("--records", type=Path, required=True, help="folder of records")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="file (verdicts, figure without suffix, report, mlflow) or folder (tables, figures)",
    )
    parser.add_argument("--name", default="", help="with `figure`: which one")
    arguments = parser.parse_args()
    folder = REPOSITORY / "papers" / arguments.paper
    try:
        config = read_paper_config(folder / "config.yaml")
        records = paper_records(config, arguments.scale, arguments.records)
        if arguments.what == "verdicts":
            write_verdicts(arguments.out, judge_all(folder, records, arguments.scale))
        elif arguments.what == "tables":
            for table in paper_tables(folder, config, arguments.scale, records):
                table.write(arguments.out)
        elif arguments.what == "figure":
            draw(config, arguments.name, records, arguments.out)
        elif arguments.what == "figures":
            for name in config.figures:
                draw(config, name, records, arguments.out / name)
        elif arguments.what == "report":
            report_page(folder, config, arguments.scale, records, arguments.out)
        else:
            verdicts = {v.claim: v.outcome for v in read_verdicts(arguments.out.parent / "verdicts.json")}
            run_id = tracking.mirror_summary(arguments.paper, arguments.scale, arguments.out.parent, verdicts)
            write_text(arguments.out, (run_id or "not tracked") + "\n")
    except ReattendError as error:
        stop_with_message(error)


if __name__ == "__main__":
    main()
