"""Markdown, CSV and LaTeX hold the same strings: each is parsed back by an independent reader and compared cell by cell."""

import csv
import io
import re
import shutil
import subprocess
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from common.claims import Evidence, Outcome, Verdict
from common.records import RecordSet, Row, write_record
from common.reported import ReportedNumber
from common.statistics import Interval
from common.tables import (
    NOT_MEASURED,
    Table,
    claims_table,
    evidence_table,
    number,
    provenance_notes,
    reported_table,
    rows_beside,
    summary_table,
    with_interval,
)
from tests.example_records import PROVENANCE, make_record

HOSTILE = [
    "a | b",
    "50 % & more",
    "snake_case _start end_",
    "#1 {x} $5 $",
    "~3 x^2",
    "back\\slash \\| pipe",
    "*bold* **bold** `code` ~~struck~~",
    "<b>tag</b> a < b > c",
    "&amp; &lt;",
    "[1] [0.471, 0.493]",
    "[text](address)",
    "τ ≤ 0.9 ± 1 × 2 · 3 ≥ −4 √d → ∞",
    "q·k, Größe, naïve",
    "two\nlines",
    "",
    "1,234",
    '"quoted", comma',
]


def parse_markdown(text):
    """Headings and rows as GitHub shows them; fails when anything is read as markup."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    assert "table_open" in [token.type for token in tokens]
    rows, inside = [], False
    for token in tokens:
        inside = (inside or token.type in ("td_open", "th_open")) and token.type not in ("td_close", "th_close")
        if token.type == "tr_open":
            rows.append([])
        if token.type == "inline" and inside:
            kinds = {child.type for child in token.children or ()}
            assert kinds <= {"text", "text_special"}, f"read as markup: {kinds} in {token.content}"
            rows[-1].append("".join(child.content for child in token.children or ()))
    assert not re.search(r"(?<!\\)\$", text), "GitHub reads $...$ as mathematics"
    return tuple(rows[0]), tuple(map(tuple, rows[1:]))


def parse_csv(text):
    head, *rows = csv.reader(io.StringIO(text))
    return tuple(head), tuple(map(tuple, rows))


LATEX = {
    r"\textbackslash{}": "\\",
    r"\textasciitilde{}": "~",
    r"\^{}": "^",
    r"\ensuremath{<}": "<",
    r"\ensuremath{>}": ">",
    **{"\\" + character: character for character in "&%$#_{}"},
    r"$\tau$": "τ",
    r"$\le$": "≤",
    r"$\ge$": "≥",
    r"$\pm$": "±",
    r"$\times$": "×",
    r"$\cdot$": "·",
    r"$\mathord{-}$": "−",
    r"$\surd$": "√",
    r"$\to$": "→",
    r"$\infty$": "∞",
    "--": "–",
}


def parse_latex(text):
    """Headings and rows of a booktabs tabular, with every command taken back to its character."""
    command = re.compile("|".join(map(re.escape, sorted(LATEX, key=len, reverse=True))))

    def row(line):
        assert line.endswith(r"\\")
        cells = re.split(r"(?<!\\)&", line.removesuffix(r"\\").removeprefix("{}"))
        return tuple(command.sub(lambda m: LATEX[m.group()], cell.strip()) for cell in cells)

    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")].splitlines()
    middle = body.index(r"\midrule")
    (head,) = body[1:middle]
    return row(head), tuple(row(line) for line in body[middle + 1 :])


def check(table):
    expected = (table.columns, table.rows)
    assert parse_markdown(table.markdown()) == expected
    assert parse_csv(table.csv()) == expected
    assert parse_latex(table.latex()) == expected


def test_three_formats_of_hostile_text_agree_cell_by_cell():
    rows = tuple((cell, str(i), HOSTILE[-1 - i]) for i, cell in enumerate(HOSTILE))
    check(
        Table(
            "hostile", "100 % _x_ & {more} ~ ^ \\ $", ("A | B", "n_x", "50 %"), rows, ("a_b & 5 % of [x] \\ ~ ^ {",), ("A | B",)
        )
    )


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.text(alphabet="ab1 .,|&%_#${}~^\\<>*`[]()!:;é\nτ±≤–√=", max_size=12)] * 2).filter(any),
        min_size=1,
        max_size=4,
    )
)
def test_three_formats_of_any_text_agree_cell_by_cell(rows):
    check(Table("any", "title", ("left", "right"), tuple(rows)))


def test_a_table_without_rows_keeps_its_headings():
    table = Table("empty", "nothing", ("a", "b"), ())
    assert parse_csv(table.csv()) == (("a", "b"), ())
    assert parse_markdown(table.markdown()) == (("a", "b"), ())
    assert r"\begin{tabular}{ll}" in table.latex()
    assert parse_latex(table.latex()) == (("a", "b"), ())


def test_title_and_notes_stand_in_markdown_and_latex_escaped():
    table = Table("t", "50% of _template", ("a",), (("1",),), ("x_y & z",))
    assert table.markdown().startswith("**50% of \\_template**\n")
    assert table.markdown().endswith("\nx_y & z\n")
    assert r"\caption{50\% of \_template}" in table.latex()
    assert r"x\_y \& z" in table.latex()
    assert r"\label{tab:t}" in table.latex()


def test_latex_is_balanced_and_wraps_wide_columns():
    table = Table("t", "a title", ("a", "b", "c"), (("{", "}", "\\"),), wide=("b", "c"))
    text = re.sub(r"\\[{}]", "", table.latex())
    assert text.count("{") == text.count("}")
    assert r"\begin{tabular}{lp{0.30\linewidth}p{0.30\linewidth}}" in text
    assert re.findall(r"\\(?:begin|end)\{\w+\}", text) == [
        r"\begin{table}",
        r"\begin{tabular}",
        r"\end{tabular}",
        r"\end{table}",
    ]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_a_latex_document_with_the_tables_compiles(tmp_path):
    hostile = Table(
        "hostile",
        "100 % _x_ & {more} ~ ^ \\ $",
        ("A | B", "50 %"),
        tuple((cell, cell) for cell in [*HOSTILE, "αβγδεζηθικλμνξπρστυφχψω ΓΔΘΛΞΠΣΦΨΩ ∈∑∂‖≈≠←"]),
        ("a_b & 5 % of [x] \\ ~ ^ {",),
        ("A | B",),
    )
    tables = [hostile, Table("empty", "nothing", ("a", "b"), ())]
    for table in tables:
        table.write(tmp_path)
    inputs = "\n".join(rf"\input{{{table.name}.tex}}" for table in tables)
    (tmp_path / "main.tex").write_text(
        "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n" + inputs + "\n\\end{document}\n"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    assert (tmp_path / "main.pdf").stat().st_size > 1000


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (0.5, "0.5000"),
        (-0.01234, "-0.01234"),
        (28.4, "28.40"),
        (999.94, "999.9"),
        (999.96, "1,000"),
        (9.99996, "10.00"),
        (1234.5678, "1,235"),
        (123456.7, "123,457"),
        (0.001, "0.001000"),
        (0.00099999999, "0.001000"),
        (0.000123456, "1.23e-04"),
        (-1e-9, "-1.00e-09"),
    ],
)
def test_numbers_have_four_significant_digits(value, shown):
    assert number(value) == shown


@given(st.floats(min_value=1e-12, max_value=1e12))
def test_a_shown_number_is_near_the_number(value):
    shown = float(number(value).replace(",", ""))
    assert shown == pytest.approx(value, rel=6e-3 if value < 1e-3 else 6e-4)
    assert number(-value) == "-" + number(value)


def test_an_interval_is_shown_where_there_is_one():
    assert with_interval(Interval(0.5, 0.25, 0.75, 4)) == "0.5000 [0.2500, 0.7500]"
    assert with_interval(Interval(0.5, None, None, 1)) == "0.5000"


@pytest.fixture
def records(tmp_path):
    rows = [
        Row(metric="error", value=1, unit="1", method="ours", setting={"length": 8, "exact": True}),
        Row(metric="error", value=3, unit="1", method="ours", setting={"length": 8, "exact": True}),
        Row(metric="error", value=9, unit="1", method="theirs", setting={"length": 16, "exact": False}),
        Row(metric="time", value=5, unit="ms", method="ours", timing=True),
    ]
    write_record(tmp_path / "measure" / "seed=0", make_record(rows), {})
    return RecordSet(tmp_path)


def reported(**changes):
    fields = {"id": "x", "table": "Table 1", "row": "ours", "column": "c", "value": 2.5, "unit": "1"}
    return ReportedNumber.model_validate({**fields, "experiment": "measure", "metric": "error"} | changes)


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({}, [1, 3, 9]),
        ({"method": "ours"}, [1, 3]),
        ({"setting": "length=8"}, [1, 3]),
        ({"setting": "length=8.0;exact=true"}, [1, 3]),
        ({"setting": "exact=False"}, [9]),
        ({"setting": "length=long"}, []),
        ({"setting": "depth=1"}, []),
        ({"experiment": ""}, []),
        ({"metric": "gain"}, []),
    ],
)
def test_our_rows_beside_a_reported_number_are_those_its_columns_name(records, changes, values):
    assert list(rows_beside(reported(**changes), records.table())["value"]) == values


def test_reported_numbers_stand_beside_ours_and_times_apart(records):
    entries = [
        reported(method="ours"),
        reported(id="y", metric="time", unit="ms"),
        reported(id="z", experiment="", note="no such model here"),
    ]
    numbers, times = (reported_table("example", entries, records, timing=timing) for timing in (False, True))
    assert [row[3:] for row in numbers.rows] == [
        ("2.5", "1", "2.000 [1.000, 3.000]", "2", "example/measure/seed=0"),
        ("2.5", "1", NOT_MEASURED, "", "no such model here"),
    ]
    assert [row[3:7] for row in times.rows] == [("2.5", "ms", "5.000", "1")]
    assert (numbers.name, times.name) == ("reported", "reported_timing")
    check(numbers)
    check(times)


def test_claims_and_evidence_show_what_the_verdicts_hold(records):
    piece = Evidence(
        outcome="reproduced",
        what="gain",
        estimate=2.0,
        low=1.0,
        high=3.0,
        n=2,
        limit=0.5,
        group="length=8",
        records=["a/b/c", "a/b/d"],
    )
    verdicts = [
        Verdict(claim="holds", statement="It holds.", source="Table 1", outcome="reproduced", evidence=[piece], reported=["x"]),
        Verdict(claim="open", statement="It may.", source="Table 2", outcome="not tested", reason="no data"),
    ]
    claims = claims_table("example", verdicts, [reported()], records.records)
    assert claims.rows == (
        ("holds", "It holds.", "Table 1", "ours c: 2.5", "gain (length=8): 2.000 [1.000, 3.000]", "reproduced"),
        ("open", "It may.", "Table 2", NOT_MEASURED, NOT_MEASURED, "not tested (no data)"),
    )
    evidence = evidence_table("example", verdicts, records.records)
    assert evidence.rows == (
        ("holds", "gain", "length=8", "2.000", "[1.000, 3.000]", "2", "0.5000", "reproduced", "a/b/c and 1 more"),
    )
    check(claims)
    check(evidence)


def test_the_summary_has_each_test_once_with_its_range(records):
    def piece(what, estimate, outcome: Outcome = "reproduced", **interval):
        return Evidence(outcome=outcome, what=what, estimate=estimate, n=2, records=["a/b/c"], **interval)

    pieces = [piece("gain", 2.0), piece("gain", -1.5, "contradicted"), piece("loss", 0.25, low=0.125, high=0.5)]
    base: dict[str, Any] = {"source": "Table 1", "reported": ["x"]}
    verdicts = [
        Verdict(claim="a", statement="It holds.", outcome="reproduced", evidence=pieces[2:], **base),
        Verdict(claim="b", statement="It fails.", outcome="contradicted", reason="gain", evidence=pieces, **base),
        Verdict(claim="c", statement="It may.", source="", outcome="not tested", reason="no data; bring: weights; texts"),
    ]
    summary = summary_table("example", verdicts, [reported()], records.records)
    loss = "loss: 0.2500 [0.1250, 0.5000]"
    assert summary.rows == (
        ("It holds.", "ours c: 2.5", loss, "reproduced"),
        ("It fails.", "ours c: 2.5", f"gain: -1.500 to 2.000 (2 settings); {loss}", "contradicted (1 of 3 tests)"),
        ("It may.", NOT_MEASURED, NOT_MEASURED, "not tested (no data)"),
    )
    check(summary)


def test_cells_link_in_markdown_alone():
    table = Table("t", "title", ("a", "b"), (("the_paper [1]", "other"),), links={"the_paper [1]": "papers/x/README.md"})
    assert "[the_paper [1]](papers/x/README.md) | other" in table.markdown()
    tokens = MarkdownIt("commonmark").enable("table").parse(table.markdown())
    links = [c for token in tokens for c in token.children or () if c.type == "link_open"]
    assert [link.attrs["href"] for link in links] == ["papers/x/README.md"]
    plain = Table("t", "title", ("a", "b"), table.rows)
    assert (table.csv(), table.latex()) == (plain.csv(), plain.latex())


def test_notes_say_where_the_numbers_come_from():
    row = [Row(metric="error", value=1, unit="1")]
    changed = PROVENANCE.model_copy(update={"commit": "f" * 40, "dirty": True, "versions": {"torch": "2.11.0", "numpy": "2"}})
    (note,) = provenance_notes([make_record(row), make_record(row, provenance=changed)])
    assert note == "Scale standard; 2 records; commit 000000000000, ffffffffffff with local changes; a processor; torch 2.11.0."
    assert provenance_notes([]) == ("No records.",)


def test_tables_are_written_in_three_formats(tmp_path):
    table = Table("t", "title", ("a",), (("1",),))
    table.write(tmp_path / "tables")
    found = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "tables").iterdir()}
    assert found == {"t.md": table.markdown(), "t.csv": table.csv(), "t.tex": table.latex()}
