"""Configuration files, typed and checked: all errors at once, each with file, key, value and the nearest known key.

A paper's `config.yaml` lists its experiments. Every value says where it comes from and may differ by scale:

    parameters:
      block_size: {value: 128, origin: "paper, Section 4.1"}
      lengths: {smoke: [512], standard: [8192], paper: [131072], origin: "ours: fits the hardware of each scale"}
"""

import argparse
import difflib
import hashlib
import importlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from common.errors import ConfigError
from common.files import write_text
from common.records import Scale, Setting

SCALES: tuple[Scale, ...] = get_args(Scale)
ORIGINS = ("paper", "official code", "ours")


class Parameters(BaseModel):
    """Base of an experiment's parameters: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Value(BaseModel):
    """A value with its origin: one for all scales, or one for each."""

    model_config = ConfigDict(extra="forbid")

    origin: str
    value: Any = None
    smoke: Any = None
    standard: Any = None
    paper: Any = None

    @field_validator("origin")
    @classmethod
    def _known_origin(cls, origin: str) -> str:
        if not origin.startswith(ORIGINS):
            raise ValueError(f"an origin begins with one of {', '.join(map(repr, ORIGINS))}, then says where or why")
        return origin

    @model_validator(mode="after")
    def _one_or_each(self) -> "Value":
        given = self.model_fields_set - {"origin"}
        if given != {"value"} and given != set(SCALES):
            raise ValueError(
                f"give either `value` or each of {', '.join(SCALES)}; found {', '.join(sorted(given)) or 'neither'}"
            )
        return self

    def at(self, scale: Scale) -> Any:
        """The value at a scale."""
        return self.value if "value" in self.model_fields_set else getattr(self, scale)


class ByScale(BaseModel):
    """A plain value that differs by scale and needs no origin (what to bring, which device)."""

    model_config = ConfigDict(extra="forbid")

    smoke: Any
    standard: Any
    paper: Any

    def at(self, scale: Scale) -> Any:
        """The value at a scale."""
        return getattr(self, scale)


def cell_name(axes: Mapping[str, Setting]) -> str:
    """`text=wikitext-2,length=2048`: readable, and safe as the name of a folder; `all` without axes."""
    return re.sub(r"[^A-Za-z0-9=,._+-]+", "-", ",".join(f"{axis}={value}" for axis, value in axes.items())) or "all"


class Experiment(BaseModel):
    """One experiment of a paper: its question, its cells, its parameters, and what it needs."""

    model_config = ConfigDict(extra="forbid")

    question: str
    scales: list[Scale] = Field(
        default_factory=lambda: list(SCALES),
        min_length=1,
        description="at which it is run, without it all; what rests on data that users bring may be run at scale `paper` alone",
    )
    device: ByScale = Field(description="cpu or cuda, by scale")
    minutes: int = Field(default=10, gt=0, description="expected wall time at most, for cluster schedulers")
    memory_gigabytes: int = Field(default=12, gt=0)
    data: ByScale = Field(default_factory=lambda: ByScale(smoke=[], standard=[], paper=[]), description="registry names")
    after: list[str] = Field(
        default_factory=list, description="experiments whose results this one starts from; they are run first"
    )
    bring: list[str] = Field(default_factory=list, description="what the user must bring at scale `paper`, and where to get it")
    cells: dict[str, Value] = Field(default_factory=dict, description="axis -> list of settings; the cells are their product")
    one_job_per: list[str] = Field(
        default_factory=list, description="axes that are spread over jobs; the others share a process"
    )
    parameters: dict[str, Value] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> "Experiment":
        for scale in SCALES:
            if self.device.at(scale) not in ("cpu", "cuda"):
                raise ValueError(f"device.{scale} is {self.device.at(scale)!r}; it must be 'cpu' or 'cuda'")
            for axis, value in self.cells.items() if scale in self.scales else ():
                given = value.at(scale)
                if not isinstance(given, list) or not given or not all(isinstance(item, str | int | float) for item in given):
                    raise ValueError(f"cells.{axis} at scale {scale} must be a list of words or numbers, at least one")
                if len({cell_name({axis: item}) for item in given}) < len(given):
                    raise ValueError(f"cells.{axis} at scale {scale} = {given}: two settings give cells of the same name")
        unknown = set(self.one_job_per) - set(self.cells)
        if unknown:
            raise ValueError(f"one_job_per names {sorted(unknown)}, which are no axes of `cells` ({', '.join(self.cells)})")
        return self


class FigureEntry(BaseModel):
    """A figure of the report: drawn by the function of the same name in the paper's `figures.py`."""

    model_config = ConfigDict(extra="forbid")

    caption: str
    experiments: list[str]


TABLES_OF_EVERY_PAPER = ("claims", "evidence", "reported", "reported_timing")


class TableEntry(BaseModel):
    """A table of the report that only this paper has: made by the function of the same name in the paper's `tables.py`."""

    model_config = ConfigDict(extra="forbid")

    title: str
    experiments: list[str]


class PaperConfig(BaseModel):
    """A paper's `config.yaml`."""

    model_config = ConfigDict(extra="forbid")

    paper: str
    title: str
    experiments: dict[str, Experiment]
    figures: dict[str, FigureEntry] = Field(default_factory=dict)
    tables: dict[str, TableEntry] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _experiments_have_an_order(self) -> "PaperConfig":
        for name, experiment in self.experiments.items():
            for other in experiment.after:
                if other not in self.experiments:
                    near = difflib.get_close_matches(other, self.experiments, n=1)
                    hint = f"; did you mean {near[0]!r}?" if near else ""
                    raise ValueError(f"experiment {name!r} comes after {other!r}, which is not defined{hint}")
                if missing := [scale for scale in experiment.scales if scale not in self.experiments[other].scales]:
                    raise ValueError(f"experiment {name!r} comes after {other!r}, which is not run at scale {missing[0]}")
        try:
            TopologicalSorter({name: experiment.after for name, experiment in self.experiments.items()}).prepare()
        except CycleError as error:
            raise ValueError(f"`after` goes in a circle: {' after '.join(reversed(error.args[1]))}") from None
        return self

    @model_validator(mode="after")
    def _figures_and_tables_have_experiments(self) -> "PaperConfig":
        for kind, entries in (("figure", self.figures), ("table", self.tables)):
            for name, entry in entries.items():
                for experiment in entry.experiments:
                    if experiment not in self.experiments:
                        raise ValueError(f"{kind} {name!r} needs the experiment {experiment!r}, which is not defined")
                    if missing := [scale for scale in SCALES if scale not in self.experiments[experiment].scales]:
                        raise ValueError(
                            f"{kind} {name!r} needs the experiment {experiment!r}, which is not run at scale {missing[0]}"
                        )
        if taken := sorted(set(self.tables) & set(TABLES_OF_EVERY_PAPER)):
            raise ValueError(f"every paper has a table {taken[0]!r}; choose another name")
        return self


class SuiteConfig(BaseModel):
    """`config/config.yaml`, the settings of the whole suite, which `--config key=value` may override."""

    model_config = ConfigDict(extra="forbid")

    scale: Literal["auto", "smoke", "standard", "paper"] = Field(
        default="auto", description="smoke, standard, paper; auto takes standard where a CUDA device is present, else smoke"
    )
    results: str = Field(
        default="results",
        pattern=r"^[A-Za-z0-9_./+=-]+$",
        description="folder for everything that is generated; letters, digits and _ . / + = - (shell commands hold it)",
    )


def _known_keys(model: type[BaseModel], location: tuple) -> Iterable[str]:
    """The keys allowed at a location of a (nested) model, for suggestions."""
    current: Any = model
    for part in location[:-1]:
        field = current.model_fields.get(part) if isinstance(current, type) and issubclass(current, BaseModel) else None
        if field is None:
            continue  # a key of a mapping: the model inside stays the same
        inner = [t for t in (field.annotation, *get_args(field.annotation)) if isinstance(t, type) and issubclass(t, BaseModel)]
        current = inner[0] if inner else None
        if current is None:
            return ()
    return current.model_fields if isinstance(current, type) else ()


def explain(error: ValidationError, model: type[BaseModel], path: str) -> list[str]:
    """Every problem of a validation as one line: file, key, value, what was expected, nearest known key."""
    lines = []
    for problem in error.errors():
        location = problem["loc"]
        key = ".".join(map(str, location)) or "(top level)"
        shown = repr(problem["input"])
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            known = list(_known_keys(model, location))
            near = difflib.get_close_matches(str(location[-1]), known, n=1)
            hint = (
                f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}" if known else "it is not known here"
            )
            lines.append(f"{path}: {key}: unknown key; {hint}")
        elif problem["type"] == "missing":
            lines.append(f"{path}: {key}: this key is missing")
        else:
            lines.append(f"{path}: {key} = {shown}: {message}")
    return lines


def read_yaml(path: Path) -> Any:
    """Read a YAML file; duplicate keys are errors.

    Raises:
        ConfigError: the file is missing, or is not valid YAML (with line and column).
    """

    class Loader(yaml.SafeLoader):
        pass

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict:
        keys = [loader.construct_object(key) for key, _ in node.value]  # pyright: ignore[reportUnknownMemberType]
        for key in keys:
            if not isinstance(key, str | int | float | bool):
                raise ConfigError(f"{path}, line {node.start_mark.line + 1}: the key {key!r} is not a plain word or number.")
            if keys.count(key) > 1:
                raise ConfigError(f"{path}, line {node.start_mark.line + 1}: the key {key!r} is given twice. Keep one.")
        return yaml.SafeLoader.construct_mapping(loader, node, deep=True)

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), Loader=Loader)
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist. Check the path, or restore the file from the repository.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None


def validate(model: type[BaseModel], content: Any, path: Path | str) -> Any:
    """Validate `content` against a pydantic model.

    Raises:
        ConfigError: with every problem found, one a line.
    """
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path}: expected keys and values, found {type(content).__name__}.")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ConfigError("\n".join(explain(error, model, str(path)))) from None


class Cell(BaseModel):
    """One run of an experiment: a setting of each axis and the resolved parameters."""

    model_config = ConfigDict(frozen=True)

    paper: str
    experiment: str
    scale: Scale
    axes: dict[str, Setting]
    parameters: dict[str, Any]

    @property
    def name(self) -> str:
        """The cell's settings as the name of its folder: see `cell_name`."""
        return cell_name(self.axes)

    @property
    def parameters_sha256(self) -> str:
        """Digest of axes and parameters: what a record must agree with to count as made by this cell."""
        content = json.dumps({"axes": self.axes, "parameters": self.parameters}, sort_keys=True, default=str)
        return hashlib.sha256(content.encode()).hexdigest()


def cells_of(config: PaperConfig, experiment: str, scale: Scale) -> list[Cell]:
    """The cells of an experiment at a scale: the product of its axes, in the order of the file; none if it is not run there."""
    entry = config.experiments[experiment]
    if scale not in entry.scales:
        return []
    parameters = {name: value.at(scale) for name, value in entry.parameters.items()}
    axes = {axis: value.at(scale) for axis, value in entry.cells.items()}
    return [
        Cell(
            paper=config.paper,
            experiment=experiment,
            scale=scale,
            axes=dict(zip(axes, point, strict=True)),
            parameters=parameters,
        )
        for point in itertools.product(*axes.values())
    ]


def batches_of(config: PaperConfig, experiment: str, scale: Scale) -> dict[str, list[Cell]]:
    """The cells grouped into jobs by `one_job_per`; the key is the job's name, `all` when there is one job."""
    grouped: dict[str, list[Cell]] = {}
    for cell in cells_of(config, experiment, scale):
        spread = config.experiments[experiment].one_job_per
        grouped.setdefault(cell_name({axis: cell.axes[axis] for axis in spread}), []).append(cell)
    return grouped


def read_paper_config(path: Path) -> PaperConfig:
    """Read and check the shape of a paper's `config.yaml` (not the parameters: see `check_parameters`).

    Raises:
        ConfigError: with every problem found.
    """
    path = Path(path)
    config = validate(PaperConfig, read_yaml(path), path)
    folder = path.resolve().parent.name
    if config.paper != folder:
        raise ConfigError(f"{path}: paper = {config.paper!r}: it must be the name of its folder, {folder!r}")
    problems = []
    for name, experiment in config.experiments.items():
        if not (path.parent / f"{name}.py").exists():
            problems.append(f"{path}: experiments.{name}: there is no {name}.py beside this file")
        for axis in experiment.cells:
            if axis in experiment.parameters:
                problems.append(f"{path}: experiments.{name}: {axis!r} is both an axis of `cells` and a parameter")
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def check_parameters(config: PaperConfig, path: Path) -> None:
    """Check each experiment's parameters and axes, at every scale, against the typed model in its module.

    Raises:
        ConfigError: with every problem found in any experiment at any scale.
    """
    problems: list[str] = []
    for name in config.experiments:
        model = getattr(importlib.import_module(f"papers.{config.paper}.{name}"), "Settings", None)
        if model is None:
            problems.append(f"{path}: experiments.{name}: {name}.py defines no class Settings for its axes and parameters")
            continue
        for scale in SCALES:
            for cell in cells_of(config, name, scale):
                try:
                    model.model_validate({**cell.axes, **cell.parameters})
                except ValidationError as error:
                    problems += explain(error, model, f"{path}: experiments.{name} at scale {scale}")
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))


def write_schema(path: Path) -> None:
    """Write the JSON schema of `config/config.yaml` and of the papers' `config.yaml`, for editors."""
    schema = {"suite": SuiteConfig.model_json_schema(), "paper": PaperConfig.model_json_schema()}
    write_text(path, json.dumps(schema, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m common.configuration", description="Write the configuration files' schema."
    )
    parser.add_argument("--schema", type=Path, required=True, help="file to write: config/schema.json")
    write_schema(parser.parse_args().schema)
