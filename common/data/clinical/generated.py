"""Made-up stays in the layouts of the readers: to run the whole way without any patient, and to test the readers."""

from pathlib import Path

import numpy as np
import pandas as pd

from common.data.clinical.mimic3_benchmark import CATEGORIES, CHANNELS, NORMAL, Task
from common.data.clinical.physionet2012 import SERIES, VENTILATION

PHENOTYPES = 25


def write_physionet2012(folder: Path, *, stays: int, seed: int) -> None:
    """Write `stays.csv`, `events_a.parquet` and `events_b.parquet` of made-up stays.

    A hidden severity raises the risk of death, the scores and half of the variables, the more the later the hour.

    Args:
        folder: exists.
        stays: of each set.
        seed: the same seed gives the same files.
    """
    rng = np.random.default_rng(seed)
    tables = []
    for first, name in ((1000, "a"), (100_000, "b")):
        severity = rng.standard_normal(stays)
        events = []
        for stay in range(stays):
            for number, series in enumerate(SERIES):
                if rng.random() < 0.2:
                    continue  # a variable that this stay never has
                minutes = np.sort(rng.integers(0, 2881, rng.integers(1, 25)))
                values = 50 + 5 * rng.standard_normal(len(minutes))
                if number % 2:
                    values += 6 * severity[stay] * minutes / 2880
                events += [(first + stay, minute, series, value) for minute, value in zip(minutes, values, strict=True)]
            if severity[stay] > 0.5:
                events.append((first + stay, int(rng.integers(0, 2881)), VENTILATION, 1.0))
        frame = pd.DataFrame(events, columns=pd.Index(["record_id", "minute", "parameter", "value"]))
        frame = frame.astype({"record_id": "int32", "minute": "int16", "parameter": "category", "value": "float32"})
        frame.to_parquet(folder / f"events_{name}.parquet", index=False)
        died = rng.random(stays) < 1 / (1 + np.exp(1 - 2 * severity))
        died[:3], died[3:6] = True, False  # both outcomes occur however few the stays
        tables.append(
            pd.DataFrame(
                {
                    "set": name,
                    "record_id": first + np.arange(stays),
                    "Age": rng.integers(18, 91, stays),
                    "Gender": rng.integers(-1, 2, stays),
                    "Height": np.where(rng.random(stays) < 0.5, -1, 170 + 10 * rng.standard_normal(stays)),
                    "ICUType": rng.integers(1, 5, stays),
                    "Weight": np.where(rng.random(stays) < 0.1, -1, 80 + 10 * rng.standard_normal(stays)),
                    "SAPS_I": np.where(rng.random(stays) < 0.1, -1, (14 + 4 * severity).clip(0)).astype(int),
                    "SOFA": np.where(rng.random(stays) < 0.1, -1, (6 + 2 * severity).clip(0)).astype(int),
                    "Length_of_stay": np.where(rng.random(stays) < 0.05, -1, rng.integers(2, 25, stays)),
                    "Survival": -1,
                    "In_hospital_death": died.astype(int),
                }
            )
        )
    pd.concat(tables).to_csv(folder / "stays.csv", index=False)


def write_benchmark(root: Path, task: Task, *, stays: int, seed: int) -> None:
    """Write one task of made-up stays in the benchmark's layout, half for training, a quarter each for validation and test.

    Args:
        root: `<root>/<task>` is made.
        task: which.
        stays: how many.
        seed: the same seed gives the same files.
    """
    rng = np.random.default_rng(seed)
    parts = {"train": range(stays // 2), "val": range(stays // 2, 3 * stays // 4), "test": range(3 * stays // 4, stays)}
    for part, numbers in parts.items():
        folder = root / task / ("test" if part == "test" else "train")
        folder.mkdir(parents=True, exist_ok=True)
        header = ["stay", "y_true"] if task == "in-hospital-mortality" else ["stay", "period_length", "y_true"]
        if task == "phenotyping":
            header = ["stay", "period_length", *(f"Phenotype {number}" for number in range(PHENOTYPES))]
        lines = [",".join(header)]
        for place, number in enumerate(numbers):
            severity = 1.0 if place % 2 else -1.0  # both labels occur in every part
            length = float(rng.integers(48, 72)) + 0.5
            name = f"{number}_episode1_timeseries.csv"
            _observations(rng, length, severity).to_csv(folder / name, index=False)
            if task == "in-hospital-mortality":
                lines.append(f"{name},{place % 2}")
            elif task == "phenotyping":
                labels = (np.arange(PHENOTYPES) + place) % 2
                lines.append(f"{name},{length},{','.join(map(str, labels))}")
            elif task == "decompensation":
                lines += [f"{name},{hour:.1f},{int(place % 2 and hour >= 24)}" for hour in range(5, 49, 12)]
            else:
                lines += [f"{name},{hour:.1f},{length - hour + 100 * (place % 3)}" for hour in range(5, 49, 12)]
        (root / task / f"{part}_listfile.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _observations(rng: np.random.Generator, length: float, severity: float) -> pd.DataFrame:
    times = np.sort(rng.uniform(0, length, 30))
    table: dict[str, list[str]] = {"Hours": [f"{time:.4f}" for time in times]}
    for channel in CHANNELS:
        seen = rng.random(len(times)) < 0.4
        if channel in CATEGORIES:
            known = CATEGORIES[channel]
            values = [known[index] for index in rng.integers(0, len(known), len(times))]
        else:
            values = [f"{NORMAL[channel] * (1 + 0.1 * severity + 0.05 * rng.standard_normal()):.3f}" for _ in times]
        table[channel] = [value if kept else "" for value, kept in zip(values, seen, strict=True)]
    return pd.DataFrame(table)
