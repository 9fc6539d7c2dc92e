"""The paper's own table: every model under every protocol."""

from collections.abc import Sequence

import pandas as pd

from common.figures import rows_where
from common.records import RecordSet
from common.tables import NOT_MEASURED, number

PROTOCOLS = ("scanpath_random", "collage_disjoint", "unseen_target", "aliased")
COLUMNS = {
    "sequence_score": "SS",
    "edit_distance": "ED",
    "scan_match": "ScanMatch",
    "multi_match": "MultiMatch",
    "behaviour_difference": "Δ",
}


def protocols(records: RecordSet) -> tuple[Sequence[str], list[list[str]]]:
    """Columns and rows: a line a model, a column a metric under each protocol."""
    table = records.table()
    rows = pd.concat([rows_where(table, experiment="predict"), rows_where(table, experiment="search", decoding="sampled")])
    lines = []
    for method in dict.fromkeys(rows_where(rows, metric="sequence_score")["method"]):
        line = [str(method)]
        for protocol in PROTOCOLS:
            for metric in COLUMNS:
                found = rows_where(rows, metric=metric, method=method, protocol=protocol)["value"]
                line.append(number(float(found.mean())) if len(found) else NOT_MEASURED)
        lines.append(line)
    return ("Model", *(f"{name}, {protocol}" for protocol in PROTOCOLS for name in COLUMNS.values())), lines
