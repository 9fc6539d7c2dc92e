"""AG News (Zhang et al., 2015): titles and descriptions of news in four classes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from common.data.fetch import fetch
from common.errors import DataError

CLASSES = ("World", "Sports", "Business", "Sci/Tech")


@dataclass(frozen=True)
class News:
    """Texts with their classes.

    Attributes:
        texts: title and description, one space between them.
        labels: int64 [texts], numbers in `CLASSES`.
        groups: int64 [texts]: the fold, or for the official split 0 for training and 1 for test texts.
        folds: whether `groups` are folds.
    """

    texts: tuple[str, ...]
    labels: np.ndarray
    groups: np.ndarray
    folds: bool


def _texts(table: pd.DataFrame) -> tuple[str, ...]:
    return tuple(f"{title} {description}" for title, description in zip(table["title"], table["description"], strict=True))


def load_ag_news_folds() -> News:
    """The official test split, 7,600 texts in five stratified folds. Raises DataError when the file cannot be had."""
    table = pd.read_csv(fetch("ag-news"), keep_default_na=False)
    labels, folds = (table[name].to_numpy(np.int64) for name in ("label", "fold"))
    return News(_texts(table), labels, folds, folds=True)


def read_ag_news(train: Path, test: Path) -> News:
    """The official files: `class,title,description` without a header, classes from 1.

    Args:
        train: `train.csv`, 120,000 texts.
        test: `test.csv`, 7,600 texts.

    Raises:
        DataError: a file cannot be read, or is not like this.
    """
    tables = []
    for path in (train, test):
        try:
            table = pd.read_csv(path, header=None, keep_default_na=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read as AG News ({error}); bring the official file.") from error
        if table.shape[1] != 3 or not set(table[0]) <= set(range(1, len(CLASSES) + 1)):
            raise DataError(f"{path} has {table.shape[1]} columns; AG News has three: a class from 1 to 4, title, description.")
        tables.append(table.rename(columns={0: "label", 1: "title", 2: "description"}))
    whole = pd.concat(tables, ignore_index=True)
    groups = np.repeat([0, 1], [len(table) for table in tables])
    return News(_texts(whole), whole["label"].to_numpy(np.int64) - 1, groups, folds=False)
