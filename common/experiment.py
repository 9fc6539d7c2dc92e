"""Runs the cells of an experiment: everything around the measurement that is not the measurement.

An experiment module defines `Settings` (its axes and parameters, typed) and `run(settings, context) -> Measurement`, and
ends with

    if __name__ == "__main__":
        main(run, Settings)

which gives `python -m papers.<paper>.<experiment> [--config FILE] [--scale SCALE] [--batch NAME] [--out FOLDER]`.
"""

import argparse
import hashlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np

from common import provenance
from common.checkpoints import Checkpoints
from common.configuration import (
    Cell,
    Experiment,
    PaperConfig,
    Parameters,
    batches_of,
    cells_of,
    check_parameters,
    read_paper_config,
)
from common.errors import ConfigError, DataError, MissingHardwareError, ReattendError
from common.files import write_text
from common.progress import Progress
from common.records import (
    Provenance,
    Record,
    RecordSet,
    Row,
    Scale,
    array_description,
    artifacts_are_whole,
    read_record,
    results_digest,
    write_artifacts,
    write_record,
)
from common.scale import choose_scale

if TYPE_CHECKING:
    from torch import Tensor

Earlier = Mapping[str, RecordSet]
"""Experiment -> its records, of all experiments that one comes after."""


@dataclass(frozen=True)
class Context:
    """What a running cell may ask for.

    Attributes:
        device: `cpu` or `cuda`, as the configuration says for this scale.
        label: the cell's name, for progress lines.
        checkpoints: where long work keeps its state while it runs: beside the record, and deleted once that is written. Bound
            to parameters, sources, data and kind of device. None keeps nothing.
        earlier: records of the experiments that this one comes after (`after` in `config.yaml`).
    """

    device: str
    label: str
    checkpoints: Checkpoints | None = None
    earlier: Earlier = field(default_factory=dict)

    def progress(self, total: int) -> Progress:
        """A progress counter for `total` steps, labelled with the cell's name."""
        return Progress(self.label, total)

    def results_of(self, experiment: str) -> RecordSet:
        """The records of an experiment that ran before, with their arrays and artifacts.

        Raises:
            ConfigError: `config.yaml` does not say that this experiment comes after that one.
        """
        if experiment not in self.earlier:
            raise ConfigError(
                f"{self.label} asks for the results of {experiment!r}, which are not at hand: "
                f"its experiment in config.yaml needs `after: [{experiment}]`."
            )
        return self.earlier[experiment]


@dataclass
class Measurement:
    """What a cell measured: tidy rows, arrays for figures (maps, histograms), and tensors that other experiments start from."""

    rows: list[Row] = field(default_factory=list)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    artifacts: "dict[str, dict[str, Tensor]]" = field(default_factory=dict)

    def add(
        self, metric: str, value: SupportsFloat, unit: str = "1", *, method: str = "", timing: bool = False, **setting: Any
    ) -> None:
        """Append one row. `setting` are the coordinates of the number beyond the cell's own axes."""
        self.rows.append(Row(metric=metric, value=float(value), unit=unit, method=method, setting=setting, timing=timing))


Run = Callable[[Any, Context], Measurement]

CHECKPOINTS = "checkpoints"  # folder beside the record of a cell


@dataclass(frozen=True)
class _Origin:
    """Everything that the numbers of a cell depend on: the cell, sources, data, kind of device, and records made before."""

    parameters_sha256: str
    source_sha256: str
    data: dict[str, str]
    device: str
    after: dict[str, str]

    @classmethod
    def of(cls, cell: Cell, entry: Experiment, earlier: Earlier) -> "_Origin":
        from common.data.needs import digests_of_needs

        return cls(
            cell.parameters_sha256,
            provenance.source_digest(f"papers.{cell.paper}.{cell.experiment}"),
            digests_of_needs(entry.data.at(cell.scale)),
            entry.device.at(cell.scale),
            {f"{name}/{r.cell}": r.results_sha256 for name, records in earlier.items() for r in records.records},
        )

    @property
    def key(self) -> str:
        """A digest of it, to which checkpoints are bound."""
        made_from = [self.parameters_sha256, self.source_sha256, self.data, self.device, self.after]
        return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()

    def record(self, folder: Path) -> Record | None:
        """The record that is already there, if it was made from the same and its artifacts are whole."""
        try:
            record = read_record(folder / "record.json")
        except DataError:
            return None
        p = record.provenance
        same = _Origin(p.parameters_sha256, p.source_sha256, p.data, p.device.kind, p.after) == self
        return record if same and artifacts_are_whole(folder, record) else None


def earlier_results(config: PaperConfig, experiment: str, scale: Scale, out: Path) -> dict[str, RecordSet]:
    """The records of all experiments that this one comes after.

    Args:
        config: of the paper.
        experiment: the one that is about to run.
        scale: which scale.
        out: folder of records.

    Raises:
        DataError: a record is missing, damaged, or was made from something else than would make it now; the message has the
            command that makes it.
    """
    found: dict[str, RecordSet] = {}
    for name in config.experiments[experiment].after:
        before = earlier_results(config, name, scale, out)
        cells = cells_of(config, name, scale)
        records = [_Origin.of(cell, config.experiments[name], before).record(out / name / cell.name) for cell in cells]
        missing = [cell.name for cell, record in zip(cells, records, strict=True) if record is None]
        if missing:
            raise DataError(
                f"{config.paper}/{experiment} starts from the results of {name}, and {out / name} does not hold them as they "
                f"would be made now ({', '.join(missing)}). Make them first: "
                f"python -m papers.{config.paper}.{name} --scale {scale} --out {out}"
            )
        found[name] = RecordSet(out, name)
        found[name].records = [record for record in records if record is not None]
    return found


def measure(
    run: Run, settings: Parameters, cell: Cell, entry: Experiment, folder: Path, earlier: Earlier = MappingProxyType({})
) -> Record:
    """Run one cell and write its record.

    Args:
        run: the experiment's function.
        settings: the cell's axes and parameters, typed.
        cell: which cell.
        entry: the experiment's entry in the configuration.
        folder: where the record goes.
        earlier: see `earlier_results`.

    Raises:
        MissingHardwareError: the cell needs a GPU and there is none.
        DataError: the record cannot be written, or data are missing.
    """
    import torch

    kind = entry.device.at(cell.scale)
    if kind == "cuda" and not torch.cuda.is_available():
        raise MissingHardwareError(
            f"{cell.paper}/{cell.experiment} at scale {cell.scale} needs a CUDA device and this machine shows none. "
            "Run it where a GPU is, or add `--config scale=smoke` (`--scale smoke` without Snakemake) for the CPU version."
        )
    module = f"papers.{cell.paper}.{cell.experiment}"
    origin = _Origin.of(cell, entry, earlier)
    checkpoints = Checkpoints(folder / CHECKPOINTS, origin.key)
    if kind == "cuda":
        torch.cuda.reset_peak_memory_stats()
    started_at, start = datetime.now(UTC), time.perf_counter()
    label = f"{cell.experiment} {cell.name}"
    measurement = run(settings, Context(device=kind, label=label, checkpoints=checkpoints, earlier=earlier))
    seconds = time.perf_counter() - start
    if not measurement.rows:
        raise DataError(f"{module} returned no rows for the cell {cell.name}: there is nothing to record.")
    commit, dirty = provenance.commit()
    artifacts = write_artifacts(folder, measurement.artifacts)
    record = Record(
        paper=cell.paper,
        experiment=cell.experiment,
        cell=cell.name,
        scale=cell.scale,
        axes=cell.axes,
        parameters=cell.parameters,
        rows=tuple(measurement.rows),
        arrays={name: array_description(array) for name, array in measurement.arrays.items()},
        artifacts=artifacts,
        results_sha256=results_digest(measurement.rows, measurement.arrays, artifacts),
        provenance=Provenance(
            command=f"python -m {module} --scale {cell.scale}",
            commit=commit,
            dirty=dirty,
            parameters_sha256=cell.parameters_sha256,
            source_sha256=origin.source_sha256,
            data=origin.data,
            after=origin.after,
            versions=provenance.versions(),
            device=provenance.device(kind),
            started_at=started_at.isoformat(timespec="seconds"),
            wall_seconds=round(seconds, 3),
            peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            peak_device_memory_bytes=torch.cuda.max_memory_allocated() if kind == "cuda" else None,
        ),
    )
    write_record(folder, record, measurement.arrays)
    return read_record(folder / "record.json")


def run_batch(
    run: Run,
    settings_type: type[Parameters],
    cells: list[Cell],
    entry: Experiment,
    out: Path,
    *,
    again: bool,
    earlier: Earlier = MappingProxyType({}),
) -> list[Record]:
    """Run the cells of a batch one after the other; a cell whose record is current is kept.

    Args:
        run: the experiment's function.
        settings_type: the typed model of axes and parameters.
        cells: the cells of the batch.
        entry: the experiment's entry in the configuration.
        out: folder of records; a cell's record goes to `<out>/<experiment>/<cell>/`.
        again: measure again even where a current record exists.
        earlier: see `earlier_results`.
    """
    from common import tracking

    experiment = cells[0].experiment
    progress = Progress(f"{cells[0].paper}/{experiment}", len(cells), interval=0)
    records = []
    for cell in cells:
        folder = out / experiment / cell.name
        record = None if again else _Origin.of(cell, entry, earlier).record(folder)
        kept = record is not None
        if record is None:
            settings = settings_type.model_validate({**cell.axes, **cell.parameters})
            record = measure(run, settings, cell, entry, folder, earlier)
        Checkpoints(folder / CHECKPOINTS, key="").remove()
        records.append(record)
        tracking.mirror(record, folder)
        progress.step(f"{cell.name} ({'kept: nothing it depends on changed' if kept else 'measured'})")
    return records


def run_job(
    run: Run,
    settings_type: type[Parameters],
    config: PaperConfig,
    experiment: str,
    batch: str,
    scale: Scale,
    out: Path,
    *,
    again: bool = False,
) -> None:
    """Run a batch of an experiment, and write its records and then the index of them.

    Args:
        run: the experiment's function.
        settings_type: the typed model of axes and parameters.
        config: the paper's configuration.
        experiment: the experiment's name.
        batch: one of `batches_of(config, experiment, scale)`.
        scale: which scale.
        out: folder of records.
        again: measure again even where a current record exists.

    Raises:
        ReattendError: see `measure` and `earlier_results`.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS gives the same numbers twice
    earlier = earlier_results(config, experiment, scale, out)
    cells = batches_of(config, experiment, scale)[batch]
    records = run_batch(run, settings_type, cells, config.experiments[experiment], out, again=again, earlier=earlier)
    write_index(out / experiment / f"{batch}.index.json", records)


def write_index(path: Path, records: list[Record]) -> None:
    """Write which records a batch consists of: the file that Snakemake waits for."""
    content = [{"cell": record.cell, "results_sha256": record.results_sha256} for record in records]
    write_text(path, json.dumps(content, indent=1) + "\n")


def stop_with_message(error: ReattendError) -> None:
    """Print what is wrong and how to mend it, and exit with status 2."""
    print(f"error: {error}", file=sys.stderr, flush=True)
    raise SystemExit(2)


def main(run: Run, settings_type: type[Parameters]) -> None:
    """Command line of an experiment module. Exits with 2 and one clear message when the user has something to mend."""
    spec = sys.modules["__main__"].__spec__
    assert spec is not None, "experiments run as modules: python -m papers.<paper>.<experiment>"
    _, paper, experiment = spec.name.split(".")
    parser = argparse.ArgumentParser(
        prog=f"python -m {spec.name}", description=(sys.modules["__main__"].__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--config", type=Path, default=Path("papers") / paper / "config.yaml", help="default: %(default)s")
    parser.add_argument("--scale", choices=["auto", "smoke", "standard", "paper"], default="auto", help="default: %(default)s")
    parser.add_argument("--batch", help="run only this job of the experiment (see one_job_per); default: all")
    parser.add_argument("--out", type=Path, help="folder of records; default: results/<paper>/<scale>/records")
    parser.add_argument("--again", action="store_true", help="measure again even where a current record exists")
    arguments = parser.parse_args()
    try:
        scale: Scale = choose_scale(arguments.scale).scale
        config = read_paper_config(arguments.config)
        if config.paper != paper or experiment not in config.experiments:
            raise ConfigError(
                f"{arguments.config} does not describe papers/{paper}/{experiment}.py: give that paper's config.yaml."
            )
        check_parameters(config, arguments.config)
        if scale not in (scales := config.experiments[experiment].scales):
            raise ConfigError(
                f"{experiment} is not run at scale {scale}; it is run at scale {' and '.join(scales)}: choose one with --scale."
            )
        batches = batches_of(config, experiment, scale)
        if arguments.batch is not None and arguments.batch not in batches:
            raise ConfigError(f"--batch {arguments.batch}: {experiment} has the batches {', '.join(batches)} at scale {scale}.")
        out = arguments.out or Path("results") / paper / scale / "records"
        for name in batches if arguments.batch is None else [arguments.batch]:
            run_job(run, settings_type, config, experiment, name, scale, out, again=arguments.again)
    except ReattendError as error:
        stop_with_message(error)
