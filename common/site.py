"""The static site of everything recorded: `snakemake report`, or `python -m common.site --out report/site`.

Made from `results/recorded/` alone, without network and server: open `report/site/index.html`. Figures are copied beside the
pages; records are linked where they lie in the repository.
"""

import argparse
import hashlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from common.claims import Evidence, Verdict
from common.configuration import read_yaml
from common.errors import DataError, ReattendError
from common.experiment import stop_with_message
from common.files import write_text
from common.present import paper_tables
from common.provenance import REPOSITORY
from common.publish import COMPARISON, OUTCOMES, Recorded, comparison_files, read_benchmark, recorded_results
from common.records import Record
from common.reported import ReportedNumber, read_reported
from common.selector_comparison.together import comparison_table, gather
from common.tables import NOT_MEASURED, Table, number, provenance_notes, reported_in_short
from common.workflow import papers

TEMPLATES = REPOSITORY / "report" / "templates" / "site"


@dataclass(frozen=True)
class Shown:
    """A table on a page.

    Attributes:
        id: stable identifier, `<paper>/<table>`; also its address on the page, with a dash.
        table: what is shown.
        citation: one line that says which version, commit and records it was made from.
        forms: name of a format -> text to copy.
    """

    id: str
    table: Table
    citation: str
    forms: dict[str, str]

    @property
    def anchor(self) -> str:
        """The identifier as an element's id."""
        return "table-" + self.id.replace("/", "-")


def records_digest(records: Iterable[Record]) -> str:
    """Twelve hexadecimal digits of SHA-256 over the digests of what was measured: another number, another digest."""
    digests = sorted(f"{record.identity} {record.results_sha256}" for record in records)
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:12]


def citation(identifier: str, records: list[Record], version: str) -> str:
    """`Reattend 0.1.0, pbs_attn/claims, commit 0123abcd..., records 89ab...`."""
    commits = sorted({record.provenance.commit[:12] for record in records})
    return f"Reattend {version}, {identifier}, commit {', '.join(commits)}, records sha256 {records_digest(records)}"


def suite_version() -> str:
    """The version in CITATION.cff. Raises ConfigError when the file cannot be read, DataError when it has none."""
    content = read_yaml(REPOSITORY / "CITATION.cff")
    if not isinstance(content, dict) or "version" not in content:
        raise DataError("CITATION.cff has no version; add one, for tables are cited with it.")
    return str(content["version"])


def _shown(identifier: str, table: Table, records: list[Record], version: str) -> Shown:
    line = citation(identifier, records, version)
    forms = {"Markdown": table.markdown(), "CSV": table.csv(), "LaTeX": table.latex()}
    return Shown(identifier, table, line, forms)


def _evidence(piece: Evidence, by_identity: dict[str, Record], root: str) -> dict[str, Any]:
    """A piece of evidence as its page shows it: numbers, and for each record its address, command and commit."""
    interval = NOT_MEASURED if piece.low is None or piece.high is None else f"[{number(piece.low)}, {number(piece.high)}]"
    records = [by_identity[identity] for identity in piece.records if identity in by_identity]
    first = records[0].provenance if records else None
    return {
        "what": piece.what,
        "group": piece.group,
        "outcome": piece.outcome,
        "estimate": NOT_MEASURED if piece.estimate is None else number(piece.estimate),
        "interval": interval,
        "n": piece.n,
        "limit": NOT_MEASURED if piece.limit is None else number(piece.limit),
        "records": [(record.identity, f"{root}/{record.experiment}/{record.cell}/record.json") for record in records],
        "command": first.command if first else "",
        "commit": first.commit[:12] if first else "",
        "device": first.device.name if first else "",
    }


def _claim(verdict: Verdict, reported: list[ReportedNumber], by_identity: dict[str, Record], root: str) -> dict[str, Any]:
    return {
        "verdict": verdict,
        "theirs": reported_in_short(verdict, reported),
        "evidence": [_evidence(piece, by_identity, root) for piece in verdict.evidence],
    }


def _paper_page(results: Recorded, pages: Path, version: str) -> dict[str, Any]:
    """What the page of a paper shows."""
    paper, folder = results.config.paper, REPOSITORY / "papers" / results.config.paper
    stored = REPOSITORY / "results" / "recorded" / results.hardware / paper / results.scale / "records"
    root = os.path.relpath(stored, pages).replace(os.sep, "/")
    records = results.records.records
    by_identity = {record.identity: record for record in records}
    reported = read_reported(folder / "reported.csv")
    tables = paper_tables(folder, results.config, results.scale, results.records)
    return {
        "config": results.config,
        "results": results,
        "count": Counter(verdict.outcome for verdict in results.verdicts),
        "claims": [_claim(verdict, reported, by_identity, root) for verdict in results.verdicts],
        "tables": [_shown(f"{paper}/{table.name}", table, records, version) for table in tables if table.rows],
        "figures": [
            {"name": name, "caption": entry.caption, "citation": citation(f"{paper}/{name}", records, version)}
            for name, entry in results.figures.items()
        ],
        "sources": results.sources,
        "provenance": provenance_notes(records),
        "bibtex": (folder / "references.bib").read_text(encoding="utf-8"),
    }


def _benchmarks(version: str) -> list[dict[str, Any]]:
    """Every recorded benchmark: its table, command and file."""
    found = []
    for path in sorted((REPOSITORY / "results" / "recorded").glob("*/benchmarks/*.json")):
        entry = read_benchmark(path)
        table = entry.table()
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        line = f"Reattend {version}, benchmarks/{entry.benchmark}, file sha256 {digest}"
        forms = {"Markdown": table.markdown(), "CSV": table.csv(), "LaTeX": table.latex()}
        found.append(
            {
                "shown": Shown(f"benchmarks/{path.parts[-3]}-{entry.benchmark}", table, line, forms),
                "command": entry.command,
                "file": path.relative_to(REPOSITORY).as_posix(),
            }
        )
    return found


def build(out: Path, names: Iterable[str] | None = None) -> list[Path]:
    """Write the site; what stood at `out` before is replaced when all is written.

    Args:
        out: folder.
        names: papers; None: all but those whose name begins with an underscore.

    Returns:
        The pages.

    Raises:
        DataError, ConfigError: as `publish.recorded_results`; or `out` holds something that is no site.
    """
    if out.exists() and not (out / "index.html").exists() and any(out.iterdir()):
        raise DataError(f"{out} holds files that are not a site. Choose another folder with --out.")
    version = suite_version()
    wanted = [paper for paper in papers() if not paper.startswith("_")] if names is None else names
    recorded = {paper: recorded_results(paper) for paper in wanted}
    published = {paper: results[0] for paper, results in recorded.items() if results}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.globals |= {"version": version, "outcomes": OUTCOMES}
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".site.") as temporary:
        new, pages = Path(temporary) / "new", []

        def page(name: str, template: str, **content: Any) -> None:
            text = environment.get_template(template).render(root="../" * name.count("/"), page=name, **content)
            write_text(new / name, text)
            pages.append(out / name)

        rows = [
            {
                "paper": paper,
                "title": results.config.title,
                "count": Counter(verdict.outcome for verdict in results.verdicts),
                "scale": results.scale,
                "device": results.device,
                "date": f"{results.started:%Y-%m-%d}",
            }
            for paper, results in published.items()
        ]
        waiting = [read_title(paper) for paper, results in recorded.items() if not results]
        page("index.html", "index.html.j2", rows=rows, waiting=waiting, total=sum((row["count"] for row in rows), Counter()))
        for paper, results in published.items():
            page(f"papers/{paper}.html", "paper.html.j2", **_paper_page(results, out / "papers", version))
            for name in results.figures:
                _copy_figure(REPOSITORY / "report" / "figures" / paper / f"{name}.svg", new / "figures" / paper)
        measured = gather({paper: (results.config.title, results.records) for paper, results in published.items()})
        if measured is not None:
            table = comparison_table(measured, provenance_notes(measured.records))
            for path, content in comparison_files(dict(published)).items():
                if path.suffix == ".svg":
                    (new / "figures" / COMPARISON).mkdir(parents=True)
                    (new / "figures" / COMPARISON / path.name).write_bytes(content)
            shown = _shown(f"{COMPARISON}/{table.name}", table, measured.records, version)
            page(
                "sparse_attention.html",
                "sparse_attention.html.j2",
                shown=shown,
                figure=f"figures/{COMPARISON}/{table.name}.svg",
            )
        stored = os.path.relpath(REPOSITORY, out).replace(os.sep, "/")
        page("kernels.html", "kernels.html.j2", benchmarks=_benchmarks(version), repository=stored)
        page("methods.html", "methods.html.j2")
        for asset in ("style.css", "site.js"):
            shutil.copyfile(TEMPLATES / asset, new / asset)
        old = Path(temporary) / "old"
        if out.exists():
            os.replace(out, old)
        os.replace(new, out)
    return pages


def read_title(paper: str) -> str:
    """The title in a paper's configuration."""
    return str(read_yaml(REPOSITORY / "papers" / paper / "config.yaml")["title"])  # pyright: ignore[reportIndexIssue]


def _copy_figure(source: Path, folder: Path) -> None:
    if not source.exists():
        raise DataError(f"{source} is missing. Run `python -m common.publish tables` first.")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, folder / source.name)


def main() -> None:
    """Command line: see the module's text."""
    parser = argparse.ArgumentParser(prog="python -m common.site", description="The static site of everything recorded.")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "report" / "site", help="folder; default: report/site")
    arguments = parser.parse_args()
    try:
        pages = build(arguments.out.resolve())
        print(f"{len(pages)} pages; open {arguments.out / 'index.html'}")
    except ReattendError as error:
        stop_with_message(error)


if __name__ == "__main__":
    main()
