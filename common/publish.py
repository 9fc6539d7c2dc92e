"""From recorded results to the committed, citable tables.

python -m common.publish record <paper>        copies a run's records to results/recorded/<hardware>/
python -m common.publish tables [<paper> ...]  writes report/tables, report/figures and the tables in the README files
python -m common.publish benchmarks            writes the recorded kernel benchmarks into the kernels' README files

Tables and benchmarks read what is recorded and nothing else; with `--check` they write nothing and name what differs.
"""

import argparse
import difflib
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from common.claims import Outcome, Verdict, judge_all, write_verdicts
from common.configuration import PaperConfig, cells_of, read_paper_config
from common.errors import DataError, ReattendError
from common.experiment import stop_with_message
from common.files import whole_or_absent, write_text
from common.present import draw, paper_records, paper_tables
from common.provenance import REPOSITORY, commit, source_digest
from common.records import Record, RecordSet, Scale
from common.reported import read_reported
from common.tables import NOT_MEASURED, Table, number, summary_table
from common.workflow import papers

JUDGED: tuple[Scale, ...] = ("standard", "paper")  # scale smoke proves that the code runs; there is nothing to cite
SOURCES = "sources.json"
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


class Sources(BaseModel):
    """A commit whose sources are those that records were measured with, though their own checkout had local changes.

    Written by `record` where a copy of a checkout measured, one that git takes for changed; the digests show it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    commit: str
    source_sha256: dict[str, str]

    @property
    def note(self) -> str:
        """One line for the foot of a table."""
        return (
            "The measuring machine's copy of the checkout counted as changed; the digests of the sources in the records are "
            f"those of commit {self.commit[:12]}."
        )


@dataclass(frozen=True)
class Recorded:
    """The recorded results of one paper on one machine at one scale.

    Attributes:
        hardware: folder below results/recorded.
        config: the paper's configuration.
        scale: which scale.
        records: what was measured; at least one record.
        verdicts: of the paper's claims on these records.
        sources: the commit that has the sources, where the records' own commit does not say so.
    """

    hardware: str
    config: PaperConfig
    scale: Scale
    records: RecordSet
    verdicts: list[Verdict]
    sources: Sources | None

    @property
    def started(self) -> datetime:
        """When the last of the records was started."""
        return max(datetime.fromisoformat(record.provenance.started_at) for record in self.records.records)

    @property
    def device(self) -> str:
        """Name of the GPU, or of the processor where no experiment used one."""
        return ", ".join(_deciding_devices(self.records.records))


def _deciding_devices(records: Iterable[Record]) -> list[str]:
    """Names of the GPUs that measured; of the processors where there was no GPU."""
    devices = [record.provenance.device for record in records]
    return sorted({device.name for device in devices if device.kind == "cuda"} or {device.name for device in devices})


def hardware_name(device: str) -> str:
    """A device's name as a folder: `NVIDIA H200` -> `nvidia-h200`."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


# record: results/<paper>/<scale>/records -> results/recorded/<hardware>/<paper>/<scale>/records


def record(paper: str, scale: Scale, results: Path, *, allow_dirty: bool = False) -> Path:
    """Copy the records of a paper's current cells to where committed results are kept; those that were there are replaced.

    Args:
        paper: the paper's name.
        scale: which scale.
        results: folder of results, with `<paper>/<scale>/records`.
        allow_dirty: take records that were measured with local changes.

    Returns:
        The folder of the copies.

    Raises:
        DataError: there are no records, they are damaged or of other parameters, or those of one experiment, or behind one
            piece of evidence, come from several kinds of GPU; or they come from several commits or a changed working tree,
            and this checkout lacks the sources they were measured with.
    """
    config = _paper_config(paper)
    source = results / paper / scale / "records"
    kept = paper_records(config, scale, source)
    if not kept.records:
        raise DataError(
            f"{source} holds no record of {paper}. Run `snakemake papers/{paper}/all --config scale={scale}` first."
        )
    devices = _deciding_devices(kept.records)
    commits = sorted({r.provenance.commit for r in kept.records})
    dirty = [r.identity for r in kept.records if r.provenance.dirty]
    if len(devices) > 1:
        _check_that_devices_do_not_mix(paper, kept, scale, source)
    same_sources = _commit_with_these_sources(kept.records) if dirty or len(commits) > 1 else None
    if len(commits) > 1 and same_sources is None:
        raise DataError(
            f"The records in {source} come from several commits ({', '.join(c[:12] for c in commits)}), so no single checkout "
            "gives these numbers. Check out, without changes, a commit that has the sources they all were measured with, or "
            "measure all of them from one commit (`--again` measures a cell anew)."
        )
    if dirty and same_sources is None and not allow_dirty:
        raise DataError(
            f"{len(dirty)} of {len(kept.records)} records in {source} were measured with local changes ({dirty[0]}"
            f"{', ...' if len(dirty) > 1 else ''}), so the commit does not give these numbers. Check out, without changes, the "
            "commit that has the sources they were measured with, or commit and measure again, or add --allow-dirty."
        )
    target = REPOSITORY / "results" / "recorded" / hardware_name(", ".join(devices)) / paper / scale / "records"
    _copy_records(kept, target)
    if same_sources is None:
        (target.parent / SOURCES).unlink(missing_ok=True)
    else:
        write_text(target.parent / SOURCES, same_sources.model_dump_json(indent=1) + "\n")
    return target


def _check_that_devices_do_not_mix(paper: str, records: RecordSet, scale: Scale, source: Path) -> None:
    """Several kinds of GPU may measure a paper, but never one experiment, nor the numbers of one comparison.

    Raises:
        DataError: an experiment, or a piece of evidence, rests on several.
    """
    by_identity = {record.identity: record for record in records.records}
    together: dict[str, list[Record]] = {}
    for measured in records.records:
        together.setdefault(f"experiment {measured.experiment}", []).append(measured)
    for verdict in judge_all(REPOSITORY / "papers" / paper, records, scale):
        for piece in verdict.evidence:
            where = f"claim {verdict.claim} ({piece.what}{f', {piece.group}' if piece.group else ''})"
            together.setdefault(where, []).extend(by_identity[identity] for identity in piece.records)
    for what, measured in together.items():
        devices = _deciding_devices(measured)
        if len(devices) > 1:
            raise DataError(
                f"The records of {what} in {source} come from several devices ({', '.join(devices)}). Measure all of them on "
                "one (`--again` measures a cell anew)."
            )


def _commit_with_these_sources(records: Iterable[Record]) -> "Sources | None":
    """This checkout's commit, if it has no changes and the very sources that the records were measured with; else None."""
    here, changed = commit()
    digests = {f"papers.{r.paper}.{r.experiment}": r.provenance.source_sha256 for r in records}
    same = all(r.provenance.source_sha256 == source_digest(f"papers.{r.paper}.{r.experiment}") for r in records)
    return Sources(commit=here, source_sha256=digests) if same and not changed else None


def _paper_config(paper: str) -> PaperConfig:
    """A paper's configuration. Raises DataError with the nearest names when there is no such paper."""
    known = papers()
    if paper not in known:
        near = difflib.get_close_matches(paper, known, n=3, cutoff=0.4)
        raise DataError(f"There is no paper {paper!r}. Did you mean {' or '.join(near) or 'one of ' + ', '.join(known)}?")
    return read_paper_config(REPOSITORY / "papers" / paper / "config.yaml")


def missing_cells(config: PaperConfig, scale: Scale, records: RecordSet) -> list[str]:
    """`experiment/cell` of every cell that the configuration names and the records lack."""
    cells = [f"{name}/{cell.name}" for name in config.experiments for cell in cells_of(config, name, scale)]
    found = {f"{r.experiment}/{r.cell}" for r in records.records}
    return [cell for cell in cells if cell not in found]


def _copy_records(records: RecordSet, target: Path) -> None:
    """Copy `record.json` and `arrays.npz` of every record; `target` is the old or the new set, never a mixture."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".records.") as temporary:
            new, old = Path(temporary) / "new", Path(temporary) / "old"
            for entry in records.records:
                place = Path(entry.experiment) / entry.cell
                (new / place).mkdir(parents=True)
                for name in ("record.json", "arrays.npz") if entry.arrays else ("record.json",):
                    shutil.copyfile(records.root / place / name, new / place / name)
            if target.exists():
                os.replace(target, old)
            os.replace(new, target)
    except OSError as error:
        raise DataError(
            f"Cannot write {target}: {error.strerror}. Make room or the folder writable, then run again."
        ) from error


# tables: results/recorded -> report/ and the README files


def recorded_results(paper: str) -> list[Recorded]:
    """Everything recorded of a paper, the newest first.

    Raises:
        DataError: a record is damaged, or was measured with other parameters than the configuration has.
        ConfigError: the paper's configuration, claims or reported numbers are wrong.
    """
    config = _paper_config(paper)
    folder = REPOSITORY / "papers" / paper
    found = []
    for scale in JUDGED:
        for path in sorted((REPOSITORY / "results" / "recorded").glob(f"*/{paper}/{scale}/records")):
            records = paper_records(config, scale, path)
            if records.records:
                verdicts = judge_all(folder, records, scale)
                found.append(
                    Recorded(
                        path.relative_to(REPOSITORY / "results/recorded").parts[0],
                        config,
                        scale,
                        records,
                        verdicts,
                        _sources(path.parent / SOURCES),
                    )
                )
    return sorted(found, key=lambda results: results.started, reverse=True)


def _sources(path: Path) -> Sources | None:
    """What a `sources.json` says; None where there is none. Raises DataError when it is damaged."""
    if not path.exists():
        return None
    try:
        return Sources.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DataError(f"{path} is damaged ({error.errors()[0]['msg']}). Restore it from the repository.") from None


def paper_files(results: Recorded) -> dict[Path, bytes]:
    """Tables, verdicts and figures of a paper: path below the repository -> content."""
    config, paper = results.config, results.config.paper
    with tempfile.TemporaryDirectory() as temporary:
        tables, figures = Path(temporary) / "report/tables" / paper, Path(temporary) / "report/figures" / paper
        for table in paper_tables(REPOSITORY / "papers" / paper, config, results.scale, results.records):
            notes = (results.sources.note,) if results.sources else ()
            replace(table, notes=(*table.notes, *notes)).write(tables)
        write_verdicts(tables / "verdicts.json", results.verdicts)
        for name in config.figures:
            draw(config, name, results.records, figures / name)
        written = sorted(path for path in Path(temporary).rglob("*") if path.is_file())
        return {path.relative_to(temporary): path.read_bytes() for path in written}


def results_block(published: Recorded, others: list[Recorded]) -> str:
    """What stands between the markers in a paper's README: the compact table, where it comes from, how to reproduce it."""
    paper, scale = published.config.paper, published.scale
    reported = read_reported(REPOSITORY / "papers" / paper / "reported.csv")
    table = summary_table(paper, published.verdicts, reported, published.records.records)
    tables, figures = f"../../report/tables/{paper}", f"../../report/figures/{paper}"
    lines = [
        table.markdown().rstrip(),
        f"Measured on {published.started:%Y-%m-%d}. Reproduce with `snakemake papers/{paper}/all --config scale={scale}`.",
        f"All numbers: [claims]({tables}/claims.md), [evidence]({tables}/evidence.md), "
        f"[the paper's numbers beside ours]({tables}/reported.md), [times]({tables}/reported_timing.md)"
        + (f"; [figures]({figures}/)." if published.config.figures else "."),
    ]
    if published.sources:
        lines.insert(1, published.sources.note)
    if others:
        lines.append("Also recorded: " + ", ".join(f"{o.device} (scale {o.scale}, {o.started:%Y-%m-%d})" for o in others) + ".")
    return "\n\n".join(lines)


def overview_table(published: Mapping[str, Recorded | None], root: str) -> Table:
    """One row a paper: how many of its claims came out how.

    Args:
        published: paper -> its published results, None where nothing is recorded.
        root: relative address of the repository's root from where the table will stand, `""` or `"../../"`.
    """
    rows, links = [], {}
    for paper, results in published.items():
        title = read_paper_config(REPOSITORY / "papers" / paper / "config.yaml").title
        links[title] = f"{root}papers/{paper}/README.md"
        if results is None:
            rows.append((title, *[NOT_MEASURED] * len(OUTCOMES), "not recorded yet", NOT_MEASURED))
            continue
        links[paper] = f"{root}report/tables/{paper}/claims.md"
        count = Counter(verdict.outcome for verdict in results.verdicts)
        where = f"{results.device}, {results.started:%Y-%m-%d}"
        rows.append((title, *(str(count[outcome]) for outcome in OUTCOMES), where, paper))
    return Table(
        name="overview",
        title="Claims by verdict",
        columns=("Paper", *(outcome.capitalize() for outcome in OUTCOMES), "Measured on", "Tables"),
        rows=tuple(rows),
        links=links,
    )


def _tables_page(published: Mapping[str, Recorded | None]) -> str:
    """`report/tables/README.md`: the overview, and links to every file."""
    sections = [
        "# Recorded results",
        _generated_by("tables"),
        "Every table is made from `results/recorded/` alone. Each comes as Markdown for reading, CSV for computing and LaTeX "
        "for `\\input`; the last line of a table says which commit and machine its numbers come from.",
        overview_table(published, "../../").markdown().rstrip(),
    ]
    for paper, results in published.items():
        if results is None:
            continue
        names = ("claims", "evidence", "reported", "reported_timing")
        lines = [
            f"- {name.replace('_', ', ')}: " + ", ".join(f"[{s}]({paper}/{name}.{s})" for s in ("md", "csv", "tex"))
            for name in names
        ]
        lines.append(f"- verdicts: [json]({paper}/verdicts.json)")
        for name, entry in results.config.figures.items():
            formats = ", ".join(f"[{suffix}](../figures/{paper}/{name}.{suffix})" for suffix in ("svg", "png"))
            lines.append(f"- figure {name.replace('_', ' ')}: {formats}. {entry.caption}")
        sections += [f"## {results.config.title}", "\n".join(lines)]
    return "\n\n".join(sections) + "\n"


def table_files(wanted: Iterable[str] = ()) -> tuple[dict[Path, bytes], list[Path]]:
    """Every file that `tables` makes.

    Args:
        wanted: papers to publish; without any, all that have recorded results.

    Returns:
        Path below the repository -> content, and the files in the papers' folders that are no longer made.

    Raises:
        DataError, ConfigError: as `recorded_results`; or a named paper has no recorded results; or a README lacks its markers.
    """
    wanted = list(wanted)
    recorded = {paper: recorded_results(paper) for paper in dict.fromkeys([*papers(), *wanted])}
    for paper in wanted:
        if not recorded[paper]:
            raise DataError(
                f"Nothing is recorded of {paper}. Run `python -m common.publish record {paper}` after measuring it."
            )
    files: dict[Path, bytes] = {}
    stale: list[Path] = []
    for paper, results in recorded.items():
        if wanted and paper not in wanted:
            continue
        made = paper_files(results[0]) if results else {}
        files |= made
        for part in ("tables", "figures"):
            there = (REPOSITORY / "report" / part / paper).glob("*")
            stale += [path for path in map(_relative, there) if path not in made]
        readme = Path("papers") / paper / "README.md"
        if results:
            files[readme] = _with_block(readme, "results", results_block(results[0], results[1:]), "tables")
        elif _has_block(readme, "results"):
            files[readme] = _with_block(readme, "results", "No results are recorded yet.", "tables")
    published = {
        paper: results[0] if results else None for paper, results in recorded.items() if results or not paper.startswith("_")
    }
    files[Path("report/tables/README.md")] = _tables_page(published).encode()
    overview = overview_table(published, "").markdown().rstrip()
    files[Path("README.md")] = _with_block(Path("README.md"), "overview", overview, "tables")
    return files, stale


# benchmarks: results/recorded/<hardware>/benchmarks -> common/kernels/*/README.md


class BenchmarkRecord(BaseModel):
    """What `python -m benchmarks <name> --out <file>` writes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    benchmark: str
    arguments: dict[str, str | int | float | bool | None | list[str | int | float]]
    machine: dict[str, str]
    rows: list[dict[str, str | int | float | None]]

    @property
    def command(self) -> str:
        """The command that measured it, without `--out`."""
        words = [f"python -m benchmarks {self.benchmark}"]
        for name, value in self.arguments.items():
            option = f"--{name.replace('_', '-')}"
            if isinstance(value, bool):
                words += [option] if value else []
            elif value is not None:
                words.append(f"{option} {' '.join(map(str, value)) if isinstance(value, list) else value}")
        return " ".join(words)

    def table(self) -> Table:
        """The rows that were reported as a table; the others as notes with their reason."""
        reported = [row for row in self.rows if row.get("failed") is None]
        keys = dict.fromkeys(key for row in reported for key, value in row.items() if value is not None)
        failed = [
            "Not reported: "
            + ", ".join(f"{_words(k)} {_cell(v)}" if k != "kernel" else _cell(v) for k, v in row.items() if _says_which(k, v))
            + f": {row['failed']}"
            for row in self.rows
            if row.get("failed") is not None
        ]
        versions = ", ".join(f"{_words(name)} {value}" for name, value in self.machine.items() if name != "device")
        device = self.machine.get("device", "an unnamed device")
        return Table(
            name=self.benchmark,
            title=f"{_words(self.benchmark)} on {device}",
            columns=tuple(_words(key) for key in keys),
            rows=tuple(tuple(_cell(row.get(key)) for key in keys) for row in reported),
            notes=(*failed, f"{device}; {versions}."),
        )


def _says_which(key: str, value: object) -> bool:
    """Whether a field of a failed row says which kernel and sizes failed (not what was measured)."""
    return key not in ("failed", "error") and value is not None


def _words(key: str) -> str:
    return key.replace("_", " ")


def _cell(value: str | int | float | None) -> str:
    if value is None:
        return NOT_MEASURED
    return number(value) if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value


def read_benchmark(path: Path) -> BenchmarkRecord:
    """Read a recorded benchmark. Raises DataError when it is not one."""
    try:
        return BenchmarkRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
        raise DataError(
            f"{path} is no recorded benchmark ({reason}). Measure again with `python -m benchmarks {path.stem} --out {path}`."
        ) from None


def benchmark_files() -> dict[Path, bytes]:
    """README of a kernel -> its content with the recorded benchmarks; one table for each machine.

    Raises:
        DataError: a file is no recorded benchmark, or no kernel's README holds its markers.
    """
    recorded: dict[str, list[Path]] = {}
    for path in sorted((REPOSITORY / "results" / "recorded").glob("*/benchmarks/*.json")):
        recorded.setdefault(path.stem, []).append(path)
    readmes = sorted(map(_relative, (REPOSITORY / "common" / "kernels").glob("*/README.md")))
    texts = {readme: (REPOSITORY / readme).read_text(encoding="utf-8") for readme in readmes}
    places = {name: readme for readme in readmes for name in re.findall(r"<!-- benchmark: (\S+) begin -->", texts[readme])}
    for name in recorded:
        if name not in places:
            begin, end = _markers(f"benchmark: {name}")
            raise DataError(
                f"No common/kernels/*/README.md holds the lines `{begin}` and `{end}`, where {recorded[name][0]} would be "
                "shown. Add them to the README of the kernel."
            )
    for name, readme in places.items():
        blocks = []
        for path in recorded.get(name, []):
            entry = read_benchmark(path)
            blocks.append(f"{entry.table().markdown().rstrip()}\n\nMeasured by `{entry.command}`.")
        block = "\n\n".join(blocks) or "No benchmark is recorded yet."
        texts[readme] = _replace_block(readme, texts[readme], f"benchmark: {name}", block, "benchmarks")
    return {readme: texts[readme].encode() for readme in sorted(set(places.values()))}


# blocks between markers, and writing or checking


def _relative(path: Path) -> Path:
    return path.relative_to(REPOSITORY)


def _generated_by(what: str) -> str:
    return f"<!-- Generated by `python -m common.publish {what}`; edits are overwritten. -->"


def _markers(name: str) -> tuple[str, str]:
    """`<!-- results: begin -->` for `results`, `<!-- benchmark: x begin -->` for `benchmark: x`."""
    colon = "" if ":" in name else ":"
    return f"<!-- {name}{colon} begin -->", f"<!-- {name}{colon} end -->"


def _has_block(path: Path, name: str) -> bool:
    full = REPOSITORY / path
    return full.exists() and _markers(name)[0] in full.read_text(encoding="utf-8")


def _with_block(path: Path, name: str, block: str, what: str) -> bytes:
    """A file's content with another text between its markers. Raises DataError when file or markers are missing."""
    full = REPOSITORY / path
    text = full.read_text(encoding="utf-8") if full.exists() else ""
    return _replace_block(path, text, name, block, what).encode()


def _replace_block(path: Path, text: str, name: str, block: str, what: str) -> str:
    begin, end = _markers(name)
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise DataError(
            f"{path} must hold the lines `{begin}` and `{end}` once each, in this order; the generated text goes between them."
        )
    before, rest = text.split(begin)
    return f"{before}{begin}\n{_generated_by(what)}\n\n{block}\n\n{end}{rest.split(end)[1]}"


def write_files(files: Mapping[Path, bytes], stale: Iterable[Path] = ()) -> list[Path]:
    """Write what differs, remove what is no longer made; returns the files that changed. Raises DataError."""
    changed = [path for path, content in files.items() if _content(path) != content]
    for path in changed:
        with whole_or_absent(REPOSITORY / path) as temporary:
            temporary.write_bytes(files[path])
    for path in stale:
        (REPOSITORY / path).unlink()
    return [*changed, *stale]


def differences(files: Mapping[Path, bytes], stale: Iterable[Path] = ()) -> list[str]:
    """One line for each file that is not as it would be written.

    Of a figure the SVG is compared, if the same matplotlib made it; a PNG must exist.
    """
    lines = []
    for path, content in files.items():
        there = _content(path)
        if there is None:
            lines.append(f"{path} is missing")
        elif there != content and _comparable(path, there, content):
            lines.append(f"{path} differs")
    return lines + [f"{path} is no longer made" for path in stale]


def _content(path: Path) -> bytes | None:
    full = REPOSITORY / path
    return full.read_bytes() if full.exists() else None


def _comparable(path: Path, there: bytes, content: bytes) -> bool:
    version = re.compile(rb"Matplotlib v[0-9.]+")
    if path.suffix == ".svg":
        return version.findall(there) == version.findall(content)
    return path.suffix != ".png"


def main() -> None:
    """Command line: see the module's text."""
    parser = argparse.ArgumentParser(prog="python -m common.publish", description="Committed tables from recorded results.")
    commands = parser.add_subparsers(dest="what", required=True)
    command = commands.add_parser("record", help="copy a run's records to results/recorded/<hardware>/")
    command.add_argument("paper")
    command.add_argument("--scale", choices=JUDGED, default="standard", help="default: %(default)s")
    command.add_argument("--results", type=Path, default=REPOSITORY / "results", help="folder of results; default: results")
    command.add_argument("--allow-dirty", action="store_true", help="take records that were measured with local changes")
    command = commands.add_parser("tables", help="tables, figures and README blocks from recorded results")
    command.add_argument("papers", nargs="*", help="default: all with recorded results")
    figures = "of a figure the SVG is compared, if the same matplotlib made it"
    command.add_argument("--check", action="store_true", help=f"write nothing; exit 1 and name what differs ({figures})")
    command = commands.add_parser("benchmarks", help="recorded kernel benchmarks into the kernels' README files")
    command.add_argument("--check", action="store_true", help="write nothing; exit 1 and name what differs")
    arguments = parser.parse_args()
    try:
        if arguments.what == "record":
            target = record(arguments.paper, arguments.scale, arguments.results, allow_dirty=arguments.allow_dirty)
            print(f"recorded in {_relative(target)}; now run `python -m common.publish tables`")
            config = _paper_config(arguments.paper)
            for cell in missing_cells(config, arguments.scale, RecordSet(target)):
                print(f"warning: {cell} was not measured")
            return
        files, stale = table_files(arguments.papers) if arguments.what == "tables" else (benchmark_files(), [])
        if arguments.check:
            found = differences(files, stale)
            for line in found:
                print(line)
            if found:
                parser.exit(1, f"Run `python -m common.publish {arguments.what}` and commit what it writes.\n")
            print(f"{len(files)} files are as the recorded results say")
        else:
            for path in write_files(files, stale):
                print(path)
    except ReattendError as error:
        stop_with_message(error)


if __name__ == "__main__":
    main()
