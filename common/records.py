"""Records: what a cell measured, with its provenance. The only source of numbers in tables, figures and verdicts.

A record is a folder `<root>/<experiment>/<cell>/` with `record.json` and, where curves or maps are kept, `arrays.npz`. What
other experiments start from, such as trained weights, are artifacts: `artifacts/<name>.safetensors`, named in the record by
their digest. They are not published.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import DataError
from common.files import sha256_of, whole_or_absent, write_text

if TYPE_CHECKING:
    from torch import Tensor

Setting = str | int | float | bool
Scale = Literal["smoke", "standard", "paper"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Row(_Strict):
    """One measured number in tidy form."""

    metric: str
    value: float = Field(allow_inf_nan=False)
    unit: str = Field(description="'1' for a pure number, else SI ('ms', 'byte') or a named count ('blocks')")
    method: str = ""
    setting: dict[str, Setting] = Field(default_factory=dict)
    seed: int | None = None
    timing: bool = Field(default=False, description="depends on the machine's speed: two runs need not agree")


class Device(_Strict):
    """The machine that measured."""

    name: str
    kind: Literal["cpu", "cuda"]
    count: int
    driver: str | None = None
    cuda: str | None = None
    capability: str | None = None
    processor: str = ""


class Provenance(_Strict):
    """Where a number comes from: enough to run it again."""

    command: str
    commit: str
    dirty: bool
    parameters_sha256: str
    source_sha256: str = Field(description="digest of every module of this repository that the experiment imports")
    data: dict[str, str] = Field(description="data set/file -> sha256")
    after: dict[str, str] = Field(
        default_factory=dict, description="records that the measurement started from: experiment/cell -> their results_sha256"
    )
    versions: dict[str, str]
    device: Device
    started_at: str
    wall_seconds: float
    peak_memory_bytes: int
    peak_device_memory_bytes: int | None = None


class Record(_Strict):
    """What one cell measured."""

    schema_version: Literal[1] = 1
    paper: str
    experiment: str
    cell: str
    scale: Scale
    axes: dict[str, Setting]
    parameters: dict
    rows: tuple[Row, ...]
    arrays: dict[str, str] = Field(default_factory=dict, description="name of the array -> its shape and dtype, in arrays.npz")
    arrays_sha256: str | None = None
    artifacts: dict[str, str] = Field(default_factory=dict, description="name -> sha256 of artifacts/<name>.safetensors")
    results_sha256: str = Field(description="digest of the rows that do not depend on speed, of the arrays and artifacts")
    provenance: Provenance

    @property
    def identity(self) -> str:
        """`paper/experiment/cell`, the same in tables, figures and MLflow."""
        return f"{self.paper}/{self.experiment}/{self.cell}"


def array_description(array: np.ndarray) -> str:
    """Shape and dtype, as kept in a record: `30x9 float32`."""
    return f"{'x'.join(str(size) for size in array.shape)} {array.dtype}"


def results_digest(
    rows: Iterable[Row], arrays: Mapping[str, np.ndarray], artifacts: Mapping[str, str] = MappingProxyType({})
) -> str:
    """SHA-256 of everything measured except what depends on the machine's speed; `artifacts` are given by their sha256."""
    digest = hashlib.sha256()
    for row in rows:
        if not row.timing:
            digest.update(row.model_dump_json().encode())
    for name in sorted(arrays):
        digest.update(f"{name} {array_description(arrays[name])}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    for name in sorted(artifacts):
        digest.update(f"{name} {artifacts[name]}".encode())
    return digest.hexdigest()


def _artifact_path(folder: Path, name: str) -> Path:
    return folder / "artifacts" / f"{name}.safetensors"


def write_artifacts(folder: Path, artifacts: Mapping[str, Mapping[str, "Tensor"]]) -> dict[str, str]:
    """Write tensors for other experiments beside a record that is written afterwards.

    Args:
        folder: of the record.
        artifacts: name, usable as a file name -> named tensors, on any device.

    Returns:
        name -> sha256 of its file, for `Record.artifacts`.

    Raises:
        DataError: the folder cannot be written.
    """
    from safetensors.torch import save_file

    digests = {}
    for name, tensors in artifacts.items():
        with whole_or_absent(_artifact_path(folder, name)) as temporary:
            save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, temporary)
        digests[name] = sha256_of(_artifact_path(folder, name))
    return digests


def artifacts_are_whole(folder: Path, record: Record) -> bool:
    """Whether every artifact that the record names lies beside it as it was written."""
    paths = {_artifact_path(folder, name): sha256 for name, sha256 in record.artifacts.items()}
    return all(path.exists() and sha256_of(path) == sha256 for path, sha256 in paths.items())


def read_artifact(folder: Path, record: Record, name: str) -> dict[str, "Tensor"]:
    """The tensors of an artifact, on the CPU.

    Raises:
        DataError: the record has no such artifact, or the file is missing or differs from what the record says.
    """
    from safetensors.torch import load_file

    if name not in record.artifacts:
        raise DataError(f"{record.identity} has no artifact {name!r}; it has: {', '.join(record.artifacts) or 'none'}.")
    path = _artifact_path(folder, name)
    if not path.exists() or sha256_of(path) != record.artifacts[name]:
        raise DataError(f"{path} is missing or differs from its record. Delete {folder} and run {record.experiment} again.")
    return load_file(path)


def write_record(folder: Path, record: Record, arrays: Mapping[str, np.ndarray]) -> None:
    """Write `arrays.npz` first and `record.json` last, so that a folder with a record is complete.

    Raises:
        DataError: the folder cannot be written.
    """
    if arrays:
        with whole_or_absent(folder / "arrays.npz") as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **dict(arrays))
        record = record.model_copy(update={"arrays_sha256": sha256_of(folder / "arrays.npz")})
    lines = json.loads(record.model_dump_json())
    rows = lines.pop("rows")
    head = json.dumps(lines, indent=1, ensure_ascii=False)
    # One row a line: a changed number is one changed line in a diff.
    body = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in rows)
    write_text(folder / "record.json", head[:-2] + f',\n "rows": [\n{body}\n ]\n}}\n')


def read_record(path: Path) -> Record:
    """Read and check one `record.json`.

    Raises:
        DataError: the file is missing, is not a record, or its digest does not fit its rows.
    """
    try:
        record = Record.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"There is no record at {path}. Run its experiment first.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}). Delete it and run the experiment again.") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
        raise DataError(f"{path} is not a valid record ({problems}). Delete the file and run the experiment again.") from None
    arrays = read_arrays(path.parent, record)
    if results_digest(record.rows, arrays, record.artifacts) != record.results_sha256:
        raise DataError(
            f"The numbers in {path} do not fit its digest: the file was changed after it was written. Measure again."
        )
    return record


def read_arrays(folder: Path, record: Record) -> dict[str, np.ndarray]:
    """The arrays that a record keeps beside its rows, by name.

    Raises:
        DataError: the file is missing or differs from what the record says.
    """
    if not record.arrays:
        return {}
    path = folder / "arrays.npz"
    if not path.exists() or sha256_of(path) != record.arrays_sha256:
        raise DataError(f"{path} is missing or differs from its record. Delete {folder} and run the experiment again.")
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in record.arrays}


class RecordSet:
    """All records below a folder, or those of one experiment, as one tidy table."""

    def __init__(self, root: Path, experiment: str = "*"):
        self.root = Path(root)
        paths = sorted(self.root.glob(f"{experiment}/*/record.json"))
        self.records = [read_record(path) for path in paths]
        self._folders = {record.identity: path.parent for record, path in zip(self.records, paths, strict=True)}

    def __len__(self) -> int:
        return len(self.records)

    def arrays(self, record: Record) -> dict[str, np.ndarray]:
        """The arrays of one record of this set."""
        return read_arrays(self._folders[record.identity], record)

    def artifact(self, record: Record, name: str) -> dict[str, "Tensor"]:
        """An artifact of one record of this set. Raises DataError as `read_artifact` does."""
        return read_artifact(self._folders[record.identity], record, name)

    def of(self, experiment: str) -> list[Record]:
        """The records of one experiment, in the order of their cells."""
        return [record for record in self.records if record.experiment == experiment]

    def table(self) -> pd.DataFrame:
        """One line a row: experiment, cell, metric, value, unit, method, seed, timing, and a column for each setting."""
        lines = [
            {
                "experiment": record.experiment,
                "cell": record.cell,
                **record.axes,
                **row.setting,
                "metric": row.metric,
                "value": row.value,
                "unit": row.unit,
                "method": row.method,
                "seed": row.seed if row.seed is not None else {**record.axes, **row.setting}.get("seed"),
                "timing": row.timing,
                "record": record.identity,
            }
            for record in self.records
            for row in record.rows
        ]
        columns = ["experiment", "cell", "metric", "value", "unit", "method", "seed", "timing", "record"]
        return pd.DataFrame(lines, columns=pd.Index(columns) if not lines else None)
