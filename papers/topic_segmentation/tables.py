"""The paper's own table: the same segmentations under every convention, as numbers to copy."""

from collections.abc import Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd

from common.metrics.segmentation import CONVENTIONS
from common.records import RecordSet
from common.tables import NOT_MEASURED
from papers.topic_segmentation.conventions import system_scores

CONVENTION_NAMES = MappingProxyType(
    {
        "standard": "standard",
        "half_even": "halves rounded to even",
        "pooled": "windows of all documents pooled",
        "corpus_window": "one k for the data set",
        "fixed_10": "k = 10",
        "concatenated": "documents concatenated",
        "concatenated_inner_gaps": "concatenated, k from inner gaps",
        "final_boundary": "end of document is a boundary",
        "padded": "ends padded",
    }
)


def unsupervised(records: RecordSet) -> pd.DataFrame:
    """Rows of the methods that learn nothing from the data sets, which therefore read all of them."""
    table = records.table()
    keep = table["experiment"].isin(["lexical", "embedding"]).to_numpy()
    return table.loc[keep, :]


def conventions(records: RecordSet) -> tuple[Sequence[str], list[list[str]]]:
    """P_k of the same segmentations under every convention, a line a data set and system, and how far they lie apart.

    Returns:
        Columns and rows.
    """
    scores = system_scores(unsupervised(records), "pk")
    names = [name for name in CONVENTIONS if name in scores.columns]
    rows = []
    for data_set, system in scores.index:
        values = scores.loc[(data_set, system), names].to_numpy(dtype=np.float64)
        shown = [f"{value:.1f}" if np.isfinite(value) else NOT_MEASURED for value in values]
        rows.append([str(data_set), str(system), *shown, f"{np.nanmax(values) - np.nanmin(values):.1f}"])
    return ("Data set", "System", *(CONVENTION_NAMES[name] for name in names), "range"), rows
