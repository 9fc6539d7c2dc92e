"""Records for tests: made by hand, or measured with the template paper in a second."""

from pathlib import Path

from common.configuration import cells_of, read_paper_config
from common.experiment import run_batch
from common.records import Device, Provenance, Record, results_digest
from papers._template.softmax_gradient import Settings, run

TEMPLATE = Path("papers/_template")

PROVENANCE = Provenance(
    command="python -m papers._template.softmax_gradient",
    commit="0" * 40,
    dirty=False,
    parameters_sha256="1" * 64,
    source_sha256="2" * 64,
    data={},
    versions={"python": "3.11"},
    device=Device(name="a processor", kind="cpu", count=2),
    started_at="2026-01-01T00:00:00+00:00",
    wall_seconds=1.0,
    peak_memory_bytes=1,
)


def make_record(rows, arrays=None, cell="seed=0", **changes):
    """A record with these rows and arrays; `changes` replace other fields."""
    arrays = arrays or {}
    fields = {
        "paper": "example",
        "experiment": "measure",
        "cell": cell,
        "scale": "standard",
        "axes": {"seed": 0},
        "parameters": {"size": 3},
        "rows": tuple(rows),
        "arrays": {name: f"{'x'.join(map(str, a.shape))} {a.dtype}" for name, a in arrays.items()},
        "results_sha256": results_digest(rows, arrays),
        "provenance": PROVENANCE,
    }
    return Record(**{**fields, **changes})


def measure_template(out, scale, *, again=False):
    """Measure the template paper's cells at a scale; returns their records."""
    config = read_paper_config(TEMPLATE / "config.yaml")
    cells = cells_of(config, "softmax_gradient", scale)
    return run_batch(run, Settings, cells, config.experiments["softmax_gradient"], out, again=again)
