"""Tables for reading and citing: one set of strings, written as Markdown, CSV and LaTeX, so that they agree to the digit."""

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from tabulate import LATEX_ESCAPE_RULES, tabulate

from common.claims import Verdict
from common.files import write_text
from common.records import Record, RecordSet
from common.reported import ReportedNumber
from common.statistics import Interval, mean_interval

NOT_MEASURED = "–"
# What pdfLaTeX lacks outside mathematics: symbols and Greek letters.
_SYMBOLS = "≤ le ≥ ge ± pm × times · cdot − mathord{-} ≈ approx ≠ neq ∞ infty √ surd → to ← leftarrow ∈ in ∑ sum ∂ partial ‖ |"
_GREEK = (
    "α alpha β beta γ gamma δ delta ε varepsilon ζ zeta η eta θ theta ι iota κ kappa λ lambda μ mu ν nu ξ xi π pi ρ rho "
    "σ sigma τ tau υ upsilon φ varphi χ chi ψ psi ω omega "
    "Γ Gamma Δ Delta Θ Theta Λ Lambda Ξ Xi Π Pi Σ Sigma Φ Phi Ψ Psi Ω Omega"
)
_words = f"{_SYMBOLS} {_GREEK}".split()
_LATEX_SYMBOLS = {symbol: rf"$\{command}$" for symbol, command in zip(_words[::2], _words[1::2], strict=True)} | {"–": "--"}
_LATEX_ESCAPES = str.maketrans({**LATEX_ESCAPE_RULES, **_LATEX_SYMBOLS})


@dataclass(frozen=True)
class Table:
    """A table of finished strings.

    Attributes:
        name: file name without suffix.
        title: one line, the caption.
        columns: headings.
        rows: one string a cell, one line of text each: line breaks become spaces.
        notes: lines below the table.
        wide: headings of columns with long text (they wrap in LaTeX).
        links: text of a cell -> the address it links to, in Markdown.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    wide: tuple[str, ...] = field(default=())
    links: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = tuple(tuple(" ".join(cell.split()) for cell in row) for row in self.rows)
        object.__setattr__(self, "rows", rows)

    def markdown(self) -> str:
        """GitHub Markdown: title, table, notes."""
        rows = [[self._linked(cell) for cell in row] for row in self.rows]
        headers = [_markdown(column) for column in self.columns]
        body = tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)
        return "\n\n".join([f"**{_markdown(self.title)}**", body, *map(_markdown, self.notes)]) + "\n"

    def _linked(self, cell: str) -> str:
        return f"[{_markdown(cell)}]({self.links[cell]})" if cell in self.links else _markdown(cell)

    def csv(self) -> str:
        """CSV with a header line; the title and the notes are left out."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return stream.getvalue()

    def latex(self) -> str:
        r"""A booktabs tabular with caption and label, ready for `\input`."""
        body = tabulate(self.rows, headers=self.columns, tablefmt="latex_booktabs", disable_numparse=True)
        # A bracket or star after the `\\` of the line above would be read as its argument.
        lines = (" ".join(line.split()) for line in body.splitlines())
        body = "\n".join("{}" + line if line.startswith(("[", "*")) else line for line in lines)
        width = f"p{{{0.6 / max(len(self.wide), 1):.2f}\\linewidth}}"
        layout = "".join(width if column in self.wide else "l" for column in self.columns)
        body = re.sub(r"(?<=\\begin\{tabular\})\{l*\}", lambda _: "{" + layout + "}", body, count=1)
        notes = [r"\par\smallskip\footnotesize " + note.translate(_LATEX_ESCAPES) for note in self.notes]
        caption = r"\caption{" + self.title.translate(_LATEX_ESCAPES) + "}"
        lines = [r"\begin{table}", r"\centering\small", caption, rf"\label{{tab:{self.name}}}", body, *notes, r"\end{table}"]
        text = "\n".join(lines) + "\n"
        return text.translate(str.maketrans(_LATEX_SYMBOLS))

    def write(self, folder: Path) -> None:
        """Write `<name>.md`, `<name>.csv` and `<name>.tex` into a folder. Raises DataError when it cannot be written."""
        for suffix, text in (("md", self.markdown()), ("csv", self.csv()), ("tex", self.latex())):
            write_text(folder / f"{self.name}.{suffix}", text)


def _markdown(text: str) -> str:
    """Escape what GitHub would read as markup; an underscore inside a word is left as it is."""
    return re.sub(r"[\\|*`<$~]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)|\](?=[(\[:])", r"\\\g<0>", text)


def number(value: float) -> str:
    """A number as tables show it: four significant digits, thousands separated.

    Numbers of 1000 and more are whole; those below 0.001 have three digits and a power of ten.
    """
    magnitude = abs(float(f"{value:.3e}"))  # rounded first: 9.9996 counts as 10
    if value == 0:
        return "0"
    if magnitude < 1e-3:
        return f"{value:.2e}"
    if magnitude >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 3 - int(np.floor(np.log10(magnitude))))}f}"


def with_interval(interval: Interval) -> str:
    """`0.482 [0.471, 0.493]`, or the number alone where there is no interval."""
    if interval.low is None or interval.high is None:
        return number(interval.mean)
    return f"{number(interval.mean)} [{number(interval.low)}, {number(interval.high)}]"


def _matches(column: "pd.Series | pd.DataFrame", wanted: str) -> "pd.Series | pd.DataFrame":
    """Compare settings of any type with a setting written as text."""

    def same(value: object) -> bool:
        if isinstance(value, bool):
            return str(value).lower() == wanted.lower()
        if isinstance(value, int | float):
            try:
                return float(value) == float(wanted)
            except ValueError:
                return False
        return str(value) == wanted

    return column.map(same)


def rows_beside(reported: ReportedNumber, table: pd.DataFrame) -> pd.DataFrame:
    """Our rows that stand beside a reported number; empty when there are none."""
    if not reported.experiment or table.empty:
        return table.iloc[:0]
    keep = (table["experiment"] == reported.experiment) & (table["metric"] == reported.metric)
    if reported.method:
        keep &= table["method"] == reported.method
    for key, value in reported.settings.items():
        if key not in table:
            return table.iloc[:0]
        keep &= _matches(table[key], value)
    return table.loc[keep, :]


def reported_table(paper: str, reported: list[ReportedNumber], records: RecordSet, timing: bool) -> Table:
    """The paper's numbers beside ours.

    Args:
        paper: the paper's name.
        reported: the paper's numbers.
        records: what was measured.
        timing: True for the numbers that depend on the machine's speed, False for all others. They are kept apart so that two
            runs give the same table of the rest.
    """
    table = records.table()
    lines = []
    for entry in reported:
        rows = rows_beside(entry, table)
        is_timing = bool(rows["timing"].any()) if len(rows) else entry.unit in ("ms", "x")
        if is_timing != timing:
            continue
        ours, count, source = NOT_MEASURED, "", entry.note
        if len(rows):
            interval = mean_interval(rows["value"].to_numpy(dtype=np.float64))
            ours, count = with_interval(interval), str(interval.n)
            found = sorted(set(rows["record"]))
            source = found[0] if len(found) == 1 else f"{found[0]} and {len(found) - 1} more"
            source += f"; {entry.note}" if entry.note else ""
        lines.append((entry.table, entry.row, entry.column, f"{entry.value:,}", entry.unit, ours, count, source))
    kind = "times and speed-ups" if timing else "numbers"
    return Table(
        name="reported_timing" if timing else "reported",
        title=f"{paper}: the paper's {kind} beside ours (mean with 95% interval over n items)",
        columns=("Source", "Row", "Column", "Paper", "Unit", "Ours", "n", "Our record, or why there is none"),
        rows=tuple(lines),
        notes=provenance_notes(records.records),
        wide=("Row", "Our record, or why there is none"),
    )


def reported_in_short(verdict: Verdict, reported: list[ReportedNumber]) -> str:
    """The paper's numbers that a claim names, on one line."""
    numbers = {entry.id: entry for entry in reported}
    named = [numbers[name] for name in verdict.reported]
    return "; ".join(f"{entry.row} {entry.column}: {entry.value:,}" for entry in named) or NOT_MEASURED


def summary_table(paper: str, verdicts: list[Verdict], reported: list[ReportedNumber], records: list[Record]) -> Table:
    """One row a claim, short enough for a README: each test once, with its range where it was made in several settings."""
    lines = []
    for verdict in verdicts:
        outcomes = [piece.outcome for piece in verdict.evidence]
        if verdict.outcome == "not tested":
            outcome = f"not tested ({verdict.reason.partition('; bring: ')[0]})"  # what to bring stands in the full table
        elif verdict.outcome == "reproduced":
            outcome = "reproduced"
        else:
            outcome = f"{verdict.outcome} ({outcomes.count(verdict.outcome)} of {len(outcomes)} tests)"
        lines.append(
            (
                verdict.statement,
                reported_in_short(verdict, reported),
                "; ".join(tests_in_short(verdict)) or NOT_MEASURED,
                outcome,
            )
        )
    return Table(
        name="summary",
        title=f"{paper}: what the paper says and what we found",
        columns=("The paper says", "Paper", "Ours", "Verdict"),
        rows=tuple(lines),
        notes=provenance_notes(records),
        wide=("The paper says", "Paper", "Ours", "Verdict"),
    )


def tests_in_short(verdict: Verdict) -> list[str]:
    """Each test of a claim once: what it measures and our number, or its range where it was made in several settings."""
    tests: dict[str, list[Interval]] = {}
    for piece in verdict.evidence:
        if piece.estimate is not None:
            tests.setdefault(piece.what, []).append(Interval(piece.estimate, piece.low, piece.high, piece.n))
    return [f"{what}: {_range(intervals)}" for what, intervals in tests.items()]


def _range(intervals: list[Interval]) -> str:
    """`0.482 [0.471, 0.493]`, or `0.482 to 0.731 (4 settings)`."""
    if len(intervals) == 1:
        return with_interval(intervals[0])
    means = [interval.mean for interval in intervals]
    return f"{number(min(means))} to {number(max(means))} ({len(means)} settings)"


def claims_table(paper: str, verdicts: list[Verdict], reported: list[ReportedNumber], records: list[Record]) -> Table:
    """One row a claim: what the paper says, its numbers, ours, and the verdict."""
    lines = []
    for verdict in verdicts:
        ours = "; ".join(
            f"{piece.what}{f' ({piece.group})' if piece.group else ''}: "
            + with_interval(Interval(piece.estimate, piece.low, piece.high, piece.n))
            for piece in verdict.evidence
            if piece.estimate is not None
        )
        lines.append(
            (
                verdict.claim,
                verdict.statement,
                verdict.source,
                reported_in_short(verdict, reported),
                ours or NOT_MEASURED,
                verdict.words,
            )
        )
    return Table(
        name="claims",
        title=f"{paper}: claims and verdicts",
        columns=("Claim", "The paper says", "Source", "Paper", "Ours", "Verdict"),
        rows=tuple(lines),
        notes=provenance_notes(records),
        wide=("The paper says", "Paper", "Ours", "Verdict"),
    )


def evidence_table(paper: str, verdicts: list[Verdict], records: list[Record]) -> Table:
    """One row a piece of evidence: the number behind a verdict, its interval, its limit and its records."""
    lines = []
    for verdict in verdicts:
        for piece in verdict.evidence:
            estimate = NOT_MEASURED if piece.estimate is None else number(piece.estimate)
            interval = (
                NOT_MEASURED if piece.low is None or piece.high is None else f"[{number(piece.low)}, {number(piece.high)}]"
            )
            limit = NOT_MEASURED if piece.limit is None else number(piece.limit)
            found = piece.records[0] if len(piece.records) == 1 else f"{piece.records[0]} and {len(piece.records) - 1} more"
            lines.append(
                (verdict.claim, piece.what, piece.group, estimate, interval, str(piece.n), limit, piece.outcome, found)
            )
    return Table(
        name="evidence",
        title=f"{paper}: the evidence behind each verdict",
        columns=("Claim", "Test", "Where", "Ours", "95% interval", "n", "Limit", "Outcome", "Record"),
        rows=tuple(lines),
        notes=provenance_notes(records),
        wide=("Test", "Record"),
    )


def provenance_notes(records: list[Record]) -> tuple[str, ...]:
    """The footer of a table: scale, commit, hardware and versions of the records it was made from."""
    if not records:
        return ("No records.",)

    def join(values: set[str]) -> str:
        return ", ".join(sorted(values))

    commits = join({r.provenance.commit[:12] + (" with local changes" if r.provenance.dirty else "") for r in records})
    devices = join({r.provenance.device.name for r in records})
    versions = join(
        {
            f"{name} {v}"
            for r in records
            for name, v in r.provenance.versions.items()
            if name in ("torch", "triton", "transformers")
        }
    )
    drivers = join(
        {f"driver {r.provenance.device.driver}, CUDA {r.provenance.device.cuda}" for r in records if r.provenance.device.driver}
    )
    return (
        f"Scale {join({r.scale for r in records})}; {len(records)} records; commit {commits}; "
        f"{devices}{f' ({drivers})' if drivers else ''}; {versions}.",
    )
