"""Claims and verdicts. A verdict is computed from records and a claim, never typed.

A claim is a list of parts, each a test on selected rows:

- `bound`: the largest, smallest or mean value stays within a limit;
- `comparison`: one method beats another, paired over items (texts, seeds);
- `ratio`: one time divided by another, measured in the same run;
- `trend`: values do not fall along an axis;
- `agreement`: our number lies within a tolerance of the reported one.

Where a part has items, the 95% bootstrap interval of the mean decides: wholly on the claimed side of the limit is `reproduced`,
wholly on the other side `contradicted`, and an interval that holds the limit `inconclusive`.
"""

import difflib
import json
from collections.abc import Collection, Iterable
from itertools import product
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from common.configuration import read_yaml, validate
from common.errors import ConfigError, DataError
from common.files import write_text
from common.records import RecordSet, Scale, Setting
from common.reported import ReportedNumber, read_reported
from common.statistics import Interval, mean_interval

Outcome = Literal["reproduced", "contradicted", "inconclusive", "not tested"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Select(_Strict):
    """Which rows: equality on experiment, metric, method and any setting; a list means rows of all its values together.

    A part is judged only if there are rows of every value that is listed, see `_Part`.
    """

    experiment: str
    metric: str
    method: str | list[str] | None = None
    setting: dict[str, Setting | list[Setting]] = Field(default_factory=dict)

    def rows(self, table: pd.DataFrame) -> pd.DataFrame:
        """The matching lines of a record table; empty when there are none."""
        if table.empty:
            return table
        keep = (table["experiment"] == self.experiment) & (table["metric"] == self.metric)
        wanted = {**({"method": self.method} if self.method is not None else {}), **self.setting}
        for column, value in wanted.items():
            if column not in table:
                return table.iloc[:0]
            keep &= table[column].isin(value if isinstance(value, list) else [value])
        return table.loc[keep, :]

    @property
    def listed(self) -> dict[str, list[str] | list[Setting]]:
        """The columns for which several values are given."""
        conditions = {"method": self.method, **self.setting}
        return {column: value for column, value in conditions.items() if isinstance(value, list)}

    def words(self) -> str:
        """The selection in words, for messages."""
        conditions = {**({"method": self.method} if self.method is not None else {}), **self.setting}
        return f"{self.experiment}: {self.metric}" + "".join(f", {key}={value}" for key, value in conditions.items())


class Evidence(_Strict):
    """What one part of a claim found."""

    outcome: Outcome
    what: str
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    limit: float | None = None
    group: str = ""
    records: list[str] = Field(default_factory=list)


class _NotTestableError(Exception):
    """The records do not hold what a part needs; the message is the reason of `not tested`."""


def _judge(interval: Interval, limit: float, wanted: Literal["at least", "at most"], *, strict: bool = False) -> Outcome:
    """Compare an interval with a limit; one item alone decides nothing. `strict`: the limit itself is not enough."""
    if interval.low is None or interval.high is None:
        return "inconclusive"
    low, high = (interval.low, interval.high) if wanted == "at least" else (-interval.high, -interval.low)
    limit = limit if wanted == "at least" else -limit
    holds = low > limit if strict else low >= limit
    return "reproduced" if holds else "contradicted" if high < limit else "inconclusive"


def _decide(value: float, limit: float, wanted: Literal["at least", "at most"]) -> Outcome:
    holds = value >= limit if wanted == "at least" else value <= limit
    return "reproduced" if holds else "contradicted"


class _Part(_Strict):
    says: str = Field(description="the part in words, as shown in the table of evidence")
    for_each: list[str] = Field(default_factory=list, description="settings; the part must hold in each of their groups")

    def _rows(self, select: Select, table: pd.DataFrame) -> pd.DataFrame:
        """The rows that a part rests on: some of each listed value, and of each group of `for_each` that the lists name."""
        rows = select.rows(table)
        if rows.empty:
            raise _NotTestableError(f"no records of {select.words()}")
        groups = [column for column in self.for_each if column in select.listed]
        for columns in [*([column] for column in select.listed), *([groups] if groups else [])]:
            there = set(rows[columns].itertuples(index=False, name=None))
            for values in product(*(select.listed[column] for column in columns)):
                if values not in there:
                    missing = ", ".join(f"{column}={value}" for column, value in zip(columns, values, strict=True))
                    raise _NotTestableError(f"no records of {missing} among {select.words()}")
        return rows

    def _require(self, columns: Iterable[str], *frames: pd.DataFrame) -> None:
        """Refuse rows that lack a setting: grouping would leave them out without a word."""
        for column in columns:
            if any(column not in frame or frame[column].isna().any() for frame in frames):
                raise _NotTestableError(f"{self.says}: not every row has the setting {column}")

    def _groups(self, *frames: pd.DataFrame) -> list[tuple[str, list[pd.DataFrame]]]:
        """Split each frame by `for_each`; a group that one of the frames lacks is a missing measurement."""
        if not self.for_each:
            return [("", list(frames))]
        self._require(self.for_each, *frames)
        keys = {key for frame in frames for key in frame[self.for_each].itertuples(index=False, name=None)}
        groups = []
        for key in sorted(keys, key=lambda key: [(isinstance(value, str), value) for value in key]):  # numbers as numbers
            name = ", ".join(f"{column}={_as_written(value)}" for column, value in zip(self.for_each, key, strict=True))
            parts = [frame[(frame[self.for_each] == list(key)).all(axis=1)] for frame in frames]
            if any(part.empty for part in parts):
                raise _NotTestableError(f"no records of one side of {self.says}, {name}")
            groups.append((name, parts))
        return groups

    def evaluate(self, table: pd.DataFrame, reported: dict[str, ReportedNumber]) -> list[Evidence]:
        """Test the part on a table of rows; one piece of evidence a group."""
        raise AssertionError("each kind of part defines its own test")


def _as_written(value: Setting) -> Setting:
    """A whole number without the `.0` that a table's column gives it where other rows have no such setting."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _records(*frames: pd.DataFrame) -> list[str]:
    return sorted({record for frame in frames for record in frame["record"]})


class Bound(_Part):
    """The largest, smallest or mean value stays within a limit. For a mean, the rows are the items."""

    kind: Literal["bound"]
    of: Select
    statistic: Literal["max", "min", "mean"]
    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _one_limit(self) -> "Bound":
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give exactly one of at_least, at_most")
        return self

    def evaluate(self, table: pd.DataFrame, reported: dict[str, ReportedNumber]) -> list[Evidence]:
        """See the class."""
        wanted, limit = ("at most", self.at_most) if self.at_most is not None else ("at least", self.at_least)
        assert limit is not None
        found = []
        for group, (rows,) in self._groups(self._rows(self.of, table)):
            values = rows["value"].to_numpy(dtype=np.float64)
            if self.statistic == "mean":
                interval = mean_interval(values)
                outcome = _judge(interval, limit, wanted)  # pyright: ignore[reportArgumentType]
            else:
                value = float(values.max() if self.statistic == "max" else values.min())
                interval = Interval(value, None, None, values.size)
                outcome = _decide(value, limit, wanted)  # pyright: ignore[reportArgumentType]
            found.append(_evidence(self, outcome, interval, limit, group, rows))
        return found


def _evidence(part: _Part, outcome: Outcome, interval: Interval, limit: float, group: str, *frames: pd.DataFrame) -> Evidence:
    return Evidence(
        outcome=outcome,
        what=part.says,
        estimate=interval.mean,
        low=interval.low,
        high=interval.high,
        n=interval.n,
        limit=limit,
        group=group,
        records=_records(*frames),
    )


class Comparison(_Part):
    """`better` beats `than` by more than `margin`: one-sided, paired over the items named by `paired_by`.

    Two sides that are equal on every item beat neither each other: `inconclusive`.
    """

    kind: Literal["comparison"]
    better: Select
    than: Select
    paired_by: list[str] = Field(min_length=1)
    higher_is_better: bool
    margin: float = 0.0

    def evaluate(self, table: pd.DataFrame, reported: dict[str, ReportedNumber]) -> list[Evidence]:
        """See the class. The estimate is the gain: positive when `better` is better."""
        found = []
        sign = 1.0 if self.higher_is_better else -1.0
        sides = self._rows(self.better, table), self._rows(self.than, table)
        self._require(self.paired_by, *sides)
        for group, (ours, theirs) in self._groups(*sides):
            a, b = (frame.groupby(self.paired_by)["value"].mean() for frame in (ours, theirs))
            if set(a.index) != set(b.index):
                raise _NotTestableError(f"{self.says}: the two sides have different {', '.join(self.paired_by)}")
            gain = a.to_numpy(dtype=np.float64) - b.reindex(a.index).to_numpy(dtype=np.float64)
            interval = mean_interval(sign * gain)
            outcome = _judge(interval, self.margin, "at least", strict=True)
            found.append(_evidence(self, outcome, interval, self.margin, group, ours, theirs))
        return found


class Ratio(_Part):
    """`numerator / denominator` stays within a limit: the medians of values measured in the same run."""

    kind: Literal["ratio"]
    numerator: Select
    denominator: Select
    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _one_limit(self) -> "Ratio":
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give exactly one of at_least, at_most")
        return self

    def evaluate(self, table: pd.DataFrame, reported: dict[str, ReportedNumber]) -> list[Evidence]:
        """See the class. The two sides must come from the same records."""
        wanted, limit = ("at most", self.at_most) if self.at_most is not None else ("at least", self.at_least)
        assert limit is not None
        found = []
        for group, (top, bottom) in self._groups(self._rows(self.numerator, table), self._rows(self.denominator, table)):
            if set(top["record"]) != set(bottom["record"]):
                raise _NotTestableError(f"{self.says}: the two sides were not measured in the same run")
            divisor = float(bottom["value"].median())
            if divisor == 0:
                raise _NotTestableError(f"{self.says}: the denominator is 0")
            value = float(top["value"].median()) / divisor
            outcome = _decide(value, limit, wanted)  # pyright: ignore[reportArgumentType]
            found.append(_evidence(self, outcome, Interval(value, None, None, len(top)), limit, group, top, bottom))
        return found


class Trend(_Part):
    """Means along an axis never fall by more than `tolerance` from one setting to the next."""

    kind: Literal["trend"]
    of: Select
    along: str
    tolerance: float = 0.0

    def evaluate(self, table: pd.DataFrame, reported: dict[str, ReportedNumber]) -> list[Evidence]:
        """See the class. The estimate is the smallest step."""
        found = []
        selected = self._rows(self.of, table)
        self._require([self.along], selected)
        for group, (rows,) in self._groups(selected):
            means = rows.groupby(self.along)["value"].mean().sort_index()
            if len(means) < 2:
                raise _NotTestableError(f"{self.says}: a trend needs at least two settings of {self.along}")
            step = float(means.diff().min())
            outcome = _decide(step, -self.tolerance, "at least")
            found.append(_evidence(self, outcome, Interval(step, None, None, len(means)), -self.tolerance, group, rows))
        return found


class Agreement(_Part):
    """Our mean lies within `tolerance` of a reported number (two-sided). A single number is compared as it is."""

    kind: Literal["agreement"]
    of: Select
    reported: str = Field(description="id of a line of reported.csv")
    tolerance: float = Field(gt=0)

    def evaluate(self, table: pd.DataFrame, reported: dict[str, ReportedNumber]) -> list[Evidence]:
        """See the class. The estimate is ours minus reported; an interval that crosses the tolerance is inconclusive."""
        found = []
        for group, (rows,) in self._groups(self._rows(self.of, table)):
            difference = mean_interval(rows["value"].to_numpy(dtype=np.float64) - float(reported[self.reported].value))
            low = difference.mean if difference.low is None else difference.low
            high = difference.mean if difference.high is None else difference.high
            inside = low >= -self.tolerance and high <= self.tolerance
            outside = high < -self.tolerance or low > self.tolerance
            outcome: Outcome = "reproduced" if inside else "contradicted" if outside else "inconclusive"
            found.append(_evidence(self, outcome, difference, self.tolerance, group, rows))
        return found


Part = Annotated[Bound | Comparison | Ratio | Trend | Agreement, Field(discriminator="kind")]


class Claim(_Strict):
    """A falsifiable sentence of the paper and how it is tested."""

    id: str = Field(pattern=r"^[a-z0-9_]+$")
    statement: str
    source: str = Field(description="where the paper says it: section, table, figure")
    scales: list[Scale] = Field(default_factory=lambda: ["standard", "paper"])
    parts: list[Part] = Field(default_factory=list)
    not_tested: str | None = Field(default=None, description="why no test is possible, for a claim without parts")
    bring: list[str] = Field(default_factory=list, description="what a user must bring, and where to get it")
    reported: list[str] = Field(default_factory=list, description="ids of reported.csv shown beside the claim")
    deviation: str = Field(default="", description="how our test differs from the paper's")

    @model_validator(mode="after")
    def _testable_or_says_why(self) -> "Claim":
        if bool(self.parts) == bool(self.not_tested):
            raise ValueError("give either `parts` or `not_tested` with the reason")
        if "smoke" in self.scales:
            raise ValueError("scale smoke is never judged; scales may hold standard and paper")
        return self


class ClaimsFile(_Strict):
    """A paper's `claims.yaml`."""

    claims: list[Claim]

    @model_validator(mode="after")
    def _unique(self) -> "ClaimsFile":
        ids = [claim.id for claim in self.claims]
        if len(set(ids)) != len(ids):
            raise ValueError(f"claim ids must differ: {sorted({i for i in ids if ids.count(i) > 1})} are given twice")
        return self


class Verdict(_Strict):
    """The outcome of a claim with its evidence."""

    claim: str
    statement: str
    source: str
    outcome: Outcome
    reason: str = ""
    evidence: list[Evidence] = Field(default_factory=list)
    reported: list[str] = Field(default_factory=list)
    deviation: str = ""

    @property
    def words(self) -> str:
        """The outcome, with its reason in parentheses where there is one."""
        return f"{self.outcome} ({self.reason})" if self.reason else self.outcome


_VERDICTS = TypeAdapter(list[Verdict])


def read_claims(path: Path, reported: list[ReportedNumber]) -> list[Claim]:
    """Read and check a paper's `claims.yaml`.

    Raises:
        ConfigError: with every problem found, among them ids that are not in reported.csv.
    """
    claims = validate(ClaimsFile, read_yaml(path), path).claims
    known = {number.id for number in reported}
    problems = [
        f"{path}: claim {claim.id}: reported number {name!r} is not in reported.csv"
        for claim in claims
        for name in [*claim.reported, *(part.reported for part in claim.parts if isinstance(part, Agreement))]
        if name not in known
    ]
    if problems:
        raise ConfigError("\n".join(problems))
    return claims


def check_claims(folder: Path, experiments: Collection[str]) -> None:
    """Check a paper's `claims.yaml` and `reported.csv` before anything is measured.

    Args:
        folder: the paper's folder.
        experiments: names of the experiments in its `config.yaml`.

    Raises:
        ConfigError: as the readers do, and with every claim or reported number that names an unknown experiment.
    """
    reported = read_reported(folder / "reported.csv")
    named = [
        (f"{folder / 'claims.yaml'}: claim {claim.id}", value.experiment)
        for claim in read_claims(folder / "claims.yaml", reported)
        for part in claim.parts
        for _, value in part
        if isinstance(value, Select)
    ]
    named += [(f"{folder / 'reported.csv'}: {number.id}", number.experiment) for number in reported if number.experiment]
    problems = []
    for place, experiment in named:
        if experiment not in experiments:
            near = difflib.get_close_matches(experiment, experiments, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"config.yaml has {', '.join(experiments)}"
            problems.append(f"{place}: there is no experiment {experiment!r}; {hint}")
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))


def judge(claim: Claim, table: pd.DataFrame, scale: Scale, reported: list[ReportedNumber]) -> Verdict:
    """Compute a claim's verdict.

    All parts reproduced is `reproduced`; any part contradicted is `contradicted`; anything else that was tested is
    `inconclusive`.

    Args:
        claim: the claim.
        table: `RecordSet.table()` of one paper at one scale.
        scale: the scale of the records.
        reported: the paper's numbers.
    """

    def verdict(outcome: Outcome, reason: str = "", evidence: list[Evidence] | None = None) -> Verdict:
        return Verdict(
            claim=claim.id,
            statement=claim.statement,
            source=claim.source,
            outcome=outcome,
            reason=reason,
            evidence=evidence or [],
            reported=claim.reported,
            deviation=claim.deviation,
        )

    bring = f"; bring: {'; '.join(claim.bring)}" if claim.bring else ""
    if claim.not_tested:
        return verdict("not tested", claim.not_tested + bring)
    if scale == "smoke":
        return verdict("not tested", "scale smoke proves that the code runs and is never judged")
    if scale not in claim.scales:
        return verdict("not tested", f"needs scale {' or '.join(claim.scales)}{bring}")
    numbers = {number.id: number for number in reported}
    evidence: list[Evidence] = []
    for part in claim.parts:
        try:
            evidence += part.evaluate(table, numbers)
        except _NotTestableError as missing:
            return verdict("not tested", str(missing), evidence)
    outcomes = [piece.outcome for piece in evidence]
    if "contradicted" in outcomes:
        failed = [
            f"{piece.what}{f' ({piece.group})' if piece.group else ''}" for piece in evidence if piece.outcome == "contradicted"
        ]
        return verdict("contradicted", "; ".join(failed), evidence)
    if all(outcome == "reproduced" for outcome in outcomes):
        return verdict("reproduced", "", evidence)
    open_parts = [
        f"{piece.what}{f' ({piece.group})' if piece.group else ''}" for piece in evidence if piece.outcome == "inconclusive"
    ]
    return verdict("inconclusive", "the interval holds the limit, or there is one item: " + "; ".join(open_parts), evidence)


def judge_all(paper_folder: Path, records: RecordSet, scale: Scale) -> list[Verdict]:
    """The verdicts of a paper, in the order of its `claims.yaml`. Raises ConfigError as the readers do."""
    reported = read_reported(paper_folder / "reported.csv")
    table = records.table()
    return [judge(claim, table, scale, reported) for claim in read_claims(paper_folder / "claims.yaml", reported)]


def write_verdicts(path: Path, verdicts: list[Verdict]) -> None:
    """Write `verdicts.json`."""
    write_text(path, json.dumps([verdict.model_dump() for verdict in verdicts], indent=1, ensure_ascii=False) + "\n")


def read_verdicts(path: Path) -> list[Verdict]:
    """Read `verdicts.json`. Raises DataError when it is missing or is not one."""
    try:
        return _VERDICTS.validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Make it with `python -m common.present verdicts`.") from None
    except ValidationError as error:
        raise DataError(
            f"{path} holds no verdicts ({error.errors()[0]['msg']}). Delete it and judge the claims again."
        ) from None
