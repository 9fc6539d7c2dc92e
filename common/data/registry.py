"""The registry: which data and weights exist, under which licence, with which sha256, and where they come from."""

import difflib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from common.configuration import read_yaml, validate
from common.errors import DataError

REGISTRY = Path(__file__).with_name("registry.yaml")

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""A file's or folder's name: no slash, so that nothing is ever written outside its folder."""


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(known)}."


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Cleaning(_Entry):
    """How the text of a Project Gutenberg file is taken out: see `common.data.cleaning.clean`."""

    lines: list[tuple[int, int]] = Field(min_length=1, description="first and last line of each part kept, from 1")
    heading: str | None = Field(default=None, description="a title put before the text, where the file's own was cut off")

    @field_validator("lines")
    @classmethod
    def _ascending(cls, lines: list[tuple[int, int]]) -> list[tuple[int, int]]:
        flat = [number for part in lines for number in part]
        if flat[0] < 1 or flat != sorted(flat):
            raise ValueError("the line numbers must be positive and ascending")
        return lines


class Upstream(_Entry):
    """The file as its source has it, where that is not the file wanted."""

    sha256: Sha256
    bytes: int = Field(gt=0)


class UrlSource(_Entry):
    """A file on the web; with `clean`, one that is cleaned after it was verified against `upstream`."""

    kind: Literal["url"]
    url: str = Field(pattern=r"^https?://\S+$")
    upstream: Upstream | None = None
    clean: Cleaning | None = None

    @model_validator(mode="after")
    def _both_or_neither(self) -> "UrlSource":
        if (self.upstream is None) != (self.clean is None):
            raise ValueError("`upstream` and `clean` go together: give both or neither")
        return self


class PackageSource(_Entry):
    """A file inside a Python package: the installed one, or else the one in the wheel that pip downloads."""

    kind: Literal["package"]
    distribution: Name
    version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+!_-]*$")
    member: str = Field(pattern=r"^[^/\\][^\\]*$", description="path inside the wheel")
    wheel_sha256: Sha256 | None = Field(default=None, description="absent where each platform has a wheel of its own")


Source = Annotated[UrlSource | PackageSource, Field(discriminator="kind")]


class FileEntry(_Entry):
    """One file."""

    name: Name
    sha256: Sha256
    bytes: int = Field(gt=0)
    text: Name | None = Field(default=None, description="its name for `common.data.texts.load_text`, after the data set's")
    split: Literal["train", "validation", "test"] | None = None
    title: str | None = None
    sources: list[Source] = Field(default_factory=list, description="tried in order, after the mirror folder and the cache")


class DataSet(_Entry):
    """A data set or a set of weights."""

    name: Name
    version: Name
    folder: Name = Field(description="its folder inside $REATTEND_DATA")
    title: str
    licence: str = Field(min_length=1, description="SPDX identifier where one exists")
    attribution: str
    redistributable: bool
    citation: str = Field(pattern=r"^@\w+\{", description="BibTeX")
    files: list[FileEntry] = Field(min_length=1)

    @field_validator("files")
    @classmethod
    def _no_file_twice(cls, files: list[FileEntry]) -> list[FileEntry]:
        for kind, names in (("file", [f.name for f in files]), ("text", [f.text for f in files if f.text])):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"the {kind} {', '.join(twice)} is listed twice")
        return files

    def file(self, name: str | None = None) -> FileEntry:
        """The entry of a file; without a name, that of the only file.

        Raises:
            DataError: there is no such file, or there are several and none is named.
        """
        names = [entry.name for entry in self.files]
        if name is None and len(names) == 1:
            return self.files[0]
        if name is None:
            raise DataError(f"The data set {self.name!r} has {len(names)} files; name one of them: {', '.join(names)}.")
        if name not in names:
            raise DataError(f"The data set {self.name!r} has no file {name!r}{_nearest(name, names)}")
        return self.files[names.index(name)]


class Registry(_Entry):
    """All data sets of a registry file."""

    datasets: list[DataSet]

    @field_validator("datasets")
    @classmethod
    def _no_data_set_twice(cls, datasets: list[DataSet]) -> list[DataSet]:
        for field in ("name", "folder"):
            values = [getattr(dataset, field) for dataset in datasets]
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"the {field} {', '.join(twice)} is used by two data sets")
        return datasets

    def dataset(self, name: str) -> DataSet:
        """The entry of a data set.

        Raises:
            DataError: there is none of that name; the message gives the nearest.
        """
        for entry in self.datasets:
            if entry.name == name:
                return entry
        raise DataError(f"There is no data set {name!r}{_nearest(name, [entry.name for entry in self.datasets])}")


@cache
def load_registry(path: Path = REGISTRY) -> Registry:
    """Read and check a registry file.

    Raises:
        ConfigError: with every problem of the file, one a line: file, key, value, what was expected.
    """
    return validate(Registry, read_yaml(path), path)
