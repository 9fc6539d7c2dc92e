"""The layout of the MIMIC-III benchmark (Harutyunyan et al., 2019), which its MIMIC-IV successors share, brought by the user.

    <root>/<task>/train_listfile.csv, val_listfile.csv, test_listfile.csv     stay[,period_length],label...
    <root>/<task>/{train,test}/<stay>                                         Hours and 17 channels, a row an observation

where task is `in-hospital-mortality`, `decompensation`, `length-of-stay` or `phenotyping`. An observation at a full hour
belongs to the hour that ends there, as in the benchmark's discretiser.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd

from common.data.clinical.hourly_grid import fill_forward, last_in_each_hour
from common.errors import DataError, InputError

Task = Literal["in-hospital-mortality", "decompensation", "length-of-stay", "phenotyping"]
TASKS: tuple[Task, ...] = get_args(Task)
ListSplit = Literal["train", "val", "test"]

MORTALITY_HOURS = 48
NORMAL: dict[str, float] = {
    "Diastolic blood pressure": 59.0, "Fraction inspired oxygen": 0.21, "Glucose": 128.0, "Heart Rate": 86.0, "Height": 170.0,
    "Mean blood pressure": 77.0, "Oxygen saturation": 98.0, "Respiratory rate": 19.0, "Systolic blood pressure": 118.0,
    "Temperature": 36.6, "Weight": 81.0, "pH": 7.4,
}  # fmt: skip
"""Continuous channels and what stands before the first observation."""
CATEGORIES: dict[str, tuple[str, ...]] = {
    "Capillary refill rate": ("0.0", "1.0"),
    "Glascow coma scale eye opening": (
        "To Pain", "3 To speech", "1 No Response", "4 Spontaneously", "None", "To Speech", "Spontaneously", "2 To pain",
    ),
    "Glascow coma scale motor response": (
        "1 No Response", "3 Abnorm flexion", "Abnormal extension", "No response", "4 Flex-withdraws", "Localizes Pain",
        "Flex-withdraws", "Obeys Commands", "Abnormal Flexion", "6 Obeys Commands", "5 Localizes Pain", "2 Abnorm extensn",
    ),
    "Glascow coma scale total": ("11", "10", "13", "12", "15", "14", "3", "5", "4", "7", "6", "9", "8"),
    "Glascow coma scale verbal response": (
        "1 No Response", "No Response", "Confused", "Inappropriate Words", "Oriented", "No Response-ETT", "5 Oriented",
        "Incomprehensible sounds", "1.0 ET/Trach", "4 Confused", "2 Incomp sounds", "3 Inapprop words",
    ),
}  # fmt: skip
"""Categorical channels and their values."""
NORMAL_CATEGORY = {
    "Capillary refill rate": "0.0",
    "Glascow coma scale eye opening": "4 Spontaneously",
    "Glascow coma scale motor response": "6 Obeys Commands",
    "Glascow coma scale total": "15",
    "Glascow coma scale verbal response": "5 Oriented",
}
CHANNELS = tuple(sorted({**NORMAL, **CATEGORIES}, key=lambda name: (name == "pH", name)))
"""The 17 channels in the benchmark's order."""
COLUMNS = tuple(
    column
    for channel in CHANNELS
    for column in ([f"{channel}={value}" for value in CATEGORIES[channel]] if channel in CATEGORIES else [channel])
)
"""The 59 data columns: continuous channels as they are, categorical ones one-hot."""
CONTINUOUS = np.array([column in NORMAL for column in COLUMNS])


@dataclass(frozen=True)
class Sample:
    """One line of a list file.

    Attributes:
        stay: name of the file of the stay.
        hours: how much of the stay is known; None where the line does not say.
        labels: what is to be predicted: 0 or 1 (one, or 25 for phenotyping), or remaining hours.
    """

    stay: str
    hours: float | None
    labels: tuple[float, ...]


@dataclass(frozen=True)
class BenchmarkSamples:
    """Samples of one split as arrays; shorter samples are padded with 0 in front, so that the last hour stands last.

    Attributes:
        values: float32 [samples, hours, 59], `COLUMNS`; not normalised.
        observed: bool [samples, hours, 17], which channels were observed in an hour.
        present: bool [samples, hours], False for padding.
        labels: float32 [samples, labels].
    """

    values: np.ndarray
    observed: np.ndarray
    present: np.ndarray
    labels: np.ndarray


def read_list(path: Path, task: Task) -> list[Sample]:
    """Read a list file.

    Raises:
        DataError: it is missing, or a line has another number of columns than the header, or something that is no number.
    """
    try:
        lines = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}). Make it with the benchmark's create_* and split_train_val scripts."
        ) from None
    first = 1 if task == "in-hospital-mortality" else 2
    samples = []
    for number, line in enumerate(lines[1:], start=2):
        try:
            if len(line) != len(lines[0]) or len(line) <= first:
                raise ValueError(f"{len(line)} columns")
            samples.append(Sample(line[0], None if first == 1 else float(line[1]), tuple(map(float, line[first:]))))
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}; expected the columns {','.join(lines[0])}.") from None
    if not samples:
        raise DataError(f"{path} lists no samples.")
    return samples


def _category(channel: str, text: str, path: Path) -> float:
    known = CATEGORIES[channel]
    if text in known:
        return float(known.index(text))
    try:  # 15 and 15.0 are the same score
        return float([float(value) for value in known].index(float(text)))
    except ValueError:
        raise DataError(f"{path}: {channel} is {text!r}; it must be one of {', '.join(known)}.") from None


def read_stay(path: Path, hours: int) -> tuple[np.ndarray, np.ndarray]:
    """One stay on a grid of hours.

    Args:
        path: CSV of observations.
        hours: length of the grid; later observations are left out.

    Returns:
        Values float32 [hours, 59], filled forward and with normal values before the first observation, and which channels were
        observed, bool [hours, 17].

    Raises:
        DataError: the file is missing, lacks a column, or holds an unknown category or something that is no number.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}). Make it with the benchmark's create_* scripts.") from None
    missing = [name for name in ("Hours", *CHANNELS) if name not in table]
    if missing:
        raise DataError(f"{path} lacks the columns {', '.join(missing)}.")
    minutes, variables, values = [], [], []
    try:
        times = table["Hours"].to_numpy().astype(np.float64)
        for index, channel in enumerate(CHANNELS):
            rows = np.flatnonzero(table[channel].to_numpy() != "")
            texts = table[channel].to_numpy()[rows]
            numbers = [_category(channel, text, path) for text in texts] if channel in CATEGORIES else [float(x) for x in texts]
            minutes.append((60 * times[rows] - 1e-3).clip(min=0))
            variables.append(np.full(len(rows), index))
            values.append(np.array(numbers, dtype=np.float64))
    except ValueError as error:
        raise DataError(f"{path}: {error}; Hours and continuous channels hold numbers.") from None
    minute = np.concatenate(minutes)
    zeros = np.zeros(len(minute), dtype=np.int64)
    grid = last_in_each_hour(
        zeros, minute, np.concatenate(variables), np.concatenate(values), stays=1, hours=hours, names=CHANNELS
    )  # fmt: skip
    before = [NORMAL[c] if c in NORMAL else float(CATEGORIES[c].index(NORMAL_CATEGORY[c])) for c in CHANNELS]
    filled = fill_forward(grid.values, np.array(before))[0]
    columns = []
    for index, channel in enumerate(CHANNELS):
        column = filled[:, index]
        columns.append(np.eye(len(CATEGORIES[channel]))[column.astype(np.int64)] if channel in CATEGORIES else column[:, None])
    return np.concatenate(columns, axis=1).astype(np.float32), grid.observed[0]


def load_samples(root: Path, task: Task, split: ListSplit, *, hours: int, limit: int, seed: int) -> BenchmarkSamples:
    """The samples of a split.

    Args:
        root: folder that holds the tasks' folders.
        task: which.
        split: which list file.
        hours: T; of longer samples the last T hours count. In-hospital mortality knows the first 48 hours.
        limit: at most so many samples, drawn without replacement; 0 is all.
        seed: of that draw.

    Raises:
        DataError: as `read_list` and `read_stay`.
        InputError: an unknown task, or hours below 1.
    """
    if task not in TASKS or hours < 1:
        raise InputError(f"task is {task!r} and hours {hours}; tasks are {', '.join(TASKS)}, and hours is at least 1.")
    samples = read_list(root / task / f"{split}_listfile.csv", task)
    if limit and limit < len(samples):
        chosen = np.sort(np.random.default_rng(seed).choice(len(samples), limit, replace=False))
        samples = [samples[index] for index in chosen]
    folder = root / task / ("test" if split == "test" else "train")
    values = np.zeros((len(samples), hours, len(COLUMNS)), dtype=np.float32)
    observed = np.zeros((len(samples), hours, len(CHANNELS)), dtype=bool)
    present = np.zeros((len(samples), hours), dtype=bool)
    by_stay: dict[str, list[int]] = {}
    for index, sample in enumerate(samples):
        by_stay.setdefault(sample.stay, []).append(index)
    for stay, indices in by_stay.items():
        known = [_whole_hours(samples[index], task) for index in indices]
        stay_values, stay_observed = read_stay(folder / stay, max(known))
        for index, length in zip(indices, known, strict=True):
            part = slice(max(0, length - hours), length)
            size = length - part.start
            values[index, -size:] = stay_values[part]
            observed[index, -size:] = stay_observed[part]
            present[index, -size:] = True
    return BenchmarkSamples(values, observed, present, np.array([sample.labels for sample in samples], dtype=np.float32))


def _whole_hours(sample: Sample, task: Task) -> int:
    """Hours known of a sample. Where the stay goes on, a begun hour is left out: it may hold what came later."""
    if sample.hours is None:
        return MORTALITY_HOURS
    return max(1, int(np.ceil(sample.hours)) if task == "phenotyping" else int(sample.hours))


def known_samples(root: Path, tasks: Sequence[Task]) -> list[str]:
    """Which of the list files are missing, as paths."""
    paths = [root / task / f"{split}_listfile.csv" for task in tasks for split in ("train", "val", "test")]
    return [str(path) for path in paths if not path.is_file()]
