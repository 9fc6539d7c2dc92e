"""The experiment `cost` at scale smoke: a time and a number of parameters for every gate."""

from pathlib import Path

import pytest

from common.configuration import cells_of, read_paper_config
from common.errors import DataError
from common.experiment import measure
from papers.sentence_attention import cost

CONFIG = Path("papers/sentence_attention/config.yaml")


@pytest.mark.weights
def test_every_gate_has_a_time_and_its_parameters(tmp_path):
    config = read_paper_config(CONFIG)
    (cell,) = cells_of(config, "cost", "smoke")
    settings = cost.Settings.model_validate({**cell.axes, **cell.parameters})
    try:
        record = measure(cost.run, settings, cell, config.experiments["cost"], tmp_path)
    except DataError as error:
        pytest.skip(f"weights cannot be had here: {error}")
    for metric in ("time_per_image", "gate_parameters", "parameters"):
        rows = {row.method: row for row in record.rows if row.metric == metric}
        assert list(rows) == settings.variants
        assert all(row.timing == (metric == "time_per_image") for row in rows.values())
    gates = {row.method: row.value for row in record.rows if row.metric == "gate_parameters"}
    assert gates["sab"] > 0
