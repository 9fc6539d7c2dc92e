"""Stays of PhysioNet 2012 as arrays that all models share: values, observations, gaps; set a to learn from, set b to test on.

Before the first observation a variable has the median of set a. The normaliser learns from set a; no label is used in either.
"""

import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from sklearn.model_selection import train_test_split

from common.data.clinical import Normaliser, fill_forward, hours_since_observed
from common.data.clinical.feature_cache import cached_arrays, content_key
from common.data.clinical.generated import write_physionet2012
from common.data.clinical.physionet2012 import (
    DATA_SET,
    DESCRIPTORS,
    SERIES,
    VENTILATION,
    IntensiveCareStays,
    load_stays,
    read_stays,
)
from common.data.fetch import digests
from common.files import sha256_of
from common.provenance import source_digest

DataName = Literal["physionet2012", "generated"]
COLUMNS = (*SERIES, VENTILATION, *DESCRIPTORS)
"""The 45 columns: 36 series, ventilation, 8 descriptors that are repeated in time."""
GENERATED_STAYS = 60


@dataclass(frozen=True)
class Stays:
    """Both sets, set a first.

    Attributes:
        values: float32 [stays, 48, 45], `COLUMNS`: filled forward, clipped, z-scores.
        observed: bool [stays, 48, 45]; a descriptor counts as observed in every hour where it is known.
        since: float32 [stays, 48, 45], hours since it was observed.
        summary: float64 [stays, features], of logistic regression; NaN for statistics of nothing.
        died: int64 [stays].
        days: float64 [stays], length of the hospital stay; NaN where unknown.
        saps: float64 [stays]; NaN where unknown.
        sofa: float64 [stays]; NaN where unknown.
        learning: rows of set a.
        test: rows of set b.
    """

    values: np.ndarray
    observed: np.ndarray
    since: np.ndarray
    summary: np.ndarray
    died: np.ndarray
    days: np.ndarray
    saps: np.ndarray
    sofa: np.ndarray
    learning: np.ndarray
    test: np.ndarray


def arrays_of(a: IntensiveCareStays, b: IntensiveCareStays) -> dict[str, np.ndarray]:
    """The fields of `Stays` from two sets."""
    from papers.tscan.logistic_regression import summary_features

    series = np.concatenate([a.grid.values, b.grid.values])
    # Ventilation is recorded only while it is on: where nothing is recorded it is off.
    series[:, :, len(SERIES)] = np.nan_to_num(series[:, :, len(SERIES)])
    descriptors = np.concatenate([a.descriptors, b.descriptors])
    raw = np.concatenate([series, np.repeat(descriptors[:, None], series.shape[1], axis=1)], axis=2)
    normaliser = Normaliser.fit(raw[: len(a.died)])
    observed = ~np.isnan(raw)
    return {
        "values": normaliser.apply(fill_forward(raw, normaliser.median)),
        "observed": observed,
        "since": hours_since_observed(observed),
        "summary": np.concatenate(
            [summary_features(series.clip(normaliser.low[: series.shape[2]], normaliser.high[: series.shape[2]])), descriptors],
            axis=1,
        ),
        "died": np.concatenate([a.died, b.died]),
        "days": np.concatenate([a.days, b.days]),
        "saps": np.concatenate([a.saps, b.saps]),
        "sofa": np.concatenate([a.sofa, b.sofa]),
        "learning": np.arange(len(a.died)),
        "test": np.arange(len(a.died), len(a.died) + len(b.died)),
    }


@lru_cache(maxsize=2)
def load(name: DataName) -> Stays:
    """Both sets, from the cache where the same files were read by the same code before.

    Args:
        name: "physionet2012", or "generated" for made-up stays in the same layout.

    Raises:
        DataError: files are missing or wrong.
    """
    source = source_digest("papers.tscan.stays")
    if name == "physionet2012":
        key = content_key(digests(DATA_SET), {}, source)
        return Stays(**cached_arrays("tscan", key, lambda: arrays_of(load_stays("a"), load_stays("b"))))
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_physionet2012(folder, stays=GENERATED_STAYS, seed=0)
        files = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
        key = content_key(files, {}, source)
        a, b = (read_stays(folder / "stays.csv", folder / f"events_{s}.parquet", s) for s in ("a", "b"))
        return Stays(**cached_arrays("tscan-generated", key, lambda: arrays_of(a, b)))


def split(labels: np.ndarray, learning: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows for training (80%) and validation (20%), stratified by label.

    Args:
        labels: of all stays.
        learning: the rows to split.
        seed: another seed, another split.
    """
    training, validation = train_test_split(learning, test_size=0.2, random_state=seed, stratify=labels[learning])
    return np.asarray(training), np.asarray(validation)
