"""Reported numbers: what is printed in the paper, with its table and row (`reported.csv`)."""

import csv
from decimal import Decimal
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.configuration import explain
from common.errors import ConfigError


class ReportedNumber(BaseModel):
    """One line of `reported.csv`.

    The last five columns say which of our rows stand beside it: empty where we measure nothing comparable, and then `note` says
    why. They follow the words of a record: `setting` is `length=8192;subject=structured`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[a-z0-9_.+-]+$")
    table: str
    row: str
    column: str
    value: Decimal = Field(allow_inf_nan=False, description="with the digits that are printed")
    unit: str
    experiment: str = ""
    metric: str = ""
    method: str = ""
    setting: str = ""
    note: str = ""

    @property
    def settings(self) -> dict[str, str]:
        """`setting` taken apart; values as text."""
        return {
            key.strip(): value.strip() for key, _, value in (pair.partition("=") for pair in self.setting.split(";") if pair)
        }


def read_reported(path: Path) -> list[ReportedNumber]:
    """Read and check a paper's `reported.csv`.

    Raises:
        ConfigError: the file is missing, or with every line that is wrong.
    """
    numbers: list[ReportedNumber] = []
    problems: list[str] = []
    try:
        with Path(path).open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            lines, header = list(reader), reader.fieldnames or []
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist. A paper without reported numbers has the header line alone.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read as CSV in UTF-8: {error}.") from None
    fields = ReportedNumber.model_fields
    if not {name for name in fields if fields[name].is_required()} <= set(header) <= set(fields):
        raise ConfigError(f"{path}: the header is {','.join(header) or 'missing'}; it must be {','.join(fields)}.")
    for number, line in enumerate(lines, start=2):
        if None in line or None in line.values():
            problems.append(f"{path}, line {number}: it does not have as many fields as the header")
            continue
        try:
            entry = ReportedNumber.model_validate(line)
            if any("=" not in pair for pair in entry.setting.split(";") if pair):
                problems.append(f"{path}, line {number}: setting = {entry.setting!r}: write key=value;key=value")
            numbers.append(entry)
        except ValidationError as error:
            problems += explain(error, ReportedNumber, f"{path}, line {number}")
    ids = [entry.id for entry in numbers]
    problems += [f"{path}: the id {name!r} is given twice" for name in sorted({i for i in ids if ids.count(i) > 1})]
    if problems:
        raise ConfigError("\n".join(problems))
    return numbers
