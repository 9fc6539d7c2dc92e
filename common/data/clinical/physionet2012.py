"""PhysioNet/Computing in Cardiology Challenge 2012: adult ICU stays, 48 hours of 37 variables, and outcomes.

Set a is for training and set b for testing; the tables also hold whatever other sets a folder has. Two tables:

- `events_<set>.parquet`: `record_id`, `minute` since admission (0..2880), `parameter`, `value`; in the order of the source.
- `stays.csv`: a row a stay: descriptors at admission, severity scores and outcomes; -1 means unknown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from common.data.clinical.hourly_grid import HourlyGrid, last_in_each_hour
from common.data.fetch import fetch
from common.errors import DataError

DATA_SET = "physionet2012"
HOURS = 48
SERIES = (
    "ALP", "ALT", "AST", "Albumin", "BUN", "Bilirubin", "Cholesterol", "Creatinine", "DiasABP", "FiO2", "GCS",
    "Glucose", "HCO3", "HCT", "HR", "K", "Lactate", "MAP", "Mg", "NIDiasABP", "NIMAP", "NISysABP", "Na",
    "PaCO2", "PaO2", "Platelets", "RespRate", "SaO2", "SysABP", "Temp", "TroponinI", "TroponinT", "Urine",
    "WBC", "Weight", "pH",
)  # fmt: skip
"""The 36 measured series."""
VENTILATION = "MechVent"
"""Recorded only when it is 1."""
DESCRIPTORS = ("Age", "Gender", "Height", "AdmissionWeight", "Coronary", "CardiacSurgery", "Medical", "Surgical")
"""Static columns: four numbers and one of four types of unit."""
_STAY_COLUMNS = [
    "set", "record_id", "Age", "Gender", "Height", "ICUType", "Weight", "SAPS_I", "SOFA", "Length_of_stay", "In_hospital_death",
]  # fmt: skip
_EVENT_COLUMNS = ["record_id", "minute", "parameter", "value"]


@dataclass(frozen=True)
class IntensiveCareStays:
    """Stays of one set, in the order of their record ids.

    Attributes:
        grid: 48 hours of `SERIES` and `VENTILATION`.
        descriptors: float32 [stays, 8], `DESCRIPTORS`; NaN where unknown.
        died: int64 [stays], 1 for death in hospital.
        days: float64 [stays], length of the hospital stay; NaN where unknown.
        saps: float64 [stays], SAPS-I; NaN where unknown.
        sofa: float64 [stays], SOFA; NaN where unknown.
    """

    grid: HourlyGrid
    descriptors: np.ndarray
    died: np.ndarray
    days: np.ndarray
    saps: np.ndarray
    sofa: np.ndarray


def _columns(table: pd.DataFrame, needed: Sequence[str], path: Path) -> pd.DataFrame:
    missing = [name for name in needed if name not in table]
    if missing:
        raise DataError(f"{path} lacks the columns {', '.join(missing)}. Bring the file that the registry describes.")
    return table


def read_stays(stays_file: Path, events_file: Path, name: str) -> IntensiveCareStays:
    """Read one set from two files.

    Args:
        stays_file: CSV of stays.
        events_file: parquet of measurements.
        name: of the set, as in the column `set` of the stays.

    Raises:
        DataError: a file cannot be read, lacks a column, has an unknown variable or a stay that the other lacks, or the set is
            absent.
    """
    try:
        stays = _columns(pd.read_csv(stays_file), _STAY_COLUMNS, stays_file)
        events = _columns(pd.read_parquet(events_file), _EVENT_COLUMNS, events_file)
    except (OSError, ValueError) as error:
        raise DataError(f"{stays_file} or {events_file} cannot be read: {error}. Fetch them again.") from None
    stays = stays.loc[stays["set"] == name, :].sort_values(by="record_id").reset_index(drop=True)
    if stays.empty:
        raise DataError(f"{stays_file} has no stays of set {name!r}.")
    records = stays["record_id"].to_numpy()
    found = events["record_id"].to_numpy()
    place = np.searchsorted(records, found).clip(max=len(records) - 1)
    if not (records[place] == found).all():
        stranger = found[records[place] != found][0]
        raise DataError(f"{events_file} has measurements of record {stranger}, which {stays_file} does not list in set {name}.")
    names = (*SERIES, VENTILATION)
    parameters = events["parameter"].astype("category")
    unknown = set(map(str, parameters.cat.categories)) - set(names)
    if unknown:
        raise DataError(f"{events_file} has unknown variables: {', '.join(sorted(unknown))}.")
    index = np.array([names.index(str(parameter)) for parameter in parameters.cat.categories], dtype=np.int64)
    grid = last_in_each_hour(
        place,
        events["minute"].to_numpy(),
        index[parameters.cat.codes.to_numpy()] if len(events) else np.zeros(0, dtype=np.int64),
        events["value"].to_numpy(),
        stays=len(records),
        hours=HOURS,
        names=names,
    )

    def known(column: str) -> np.ndarray:
        values = stays[column].to_numpy(dtype=np.float64)
        return np.where(values < 0, np.nan, values)

    unit = stays["ICUType"].to_numpy()
    numbers = [known(column) for column in ("Age", "Gender", "Height", "Weight")]
    return IntensiveCareStays(
        grid=grid,
        descriptors=np.stack([*numbers, *((unit == kind).astype(np.float64) for kind in (1, 2, 3, 4))], 1).astype(np.float32),
        died=stays["In_hospital_death"].to_numpy(dtype=np.int64),
        days=known("Length_of_stay"),
        saps=known("SAPS_I"),
        sofa=known("SOFA"),
    )


def load_stays(name: str) -> IntensiveCareStays:
    """The stays of set "a" or "b". Raises DataError as `fetch` and `read_stays` do."""
    return read_stays(fetch(DATA_SET, "stays.csv"), fetch(DATA_SET, f"events_{name}.parquet"), name)
