"""Reads the weights of a CTranslate2 model (`model.bin`) without the library: a flat list of named arrays.

Little endian: u32 version, string, u32 revision, u32 count; then for each variable a string, u8 rank, rank x u32 dimensions, u8
type, u32 bytes, and the data. A string is a u16 length, which counts a final zero, and its bytes.
"""

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

from common.errors import DataError

DTYPES = {0: np.dtype("<f4"), 1: np.dtype("i1"), 2: np.dtype("<i2"), 3: np.dtype("<i4"), 4: np.dtype("<f2")}
VERSION = 6


def _numbers(stream: BinaryIO, layout: str) -> tuple[int, ...]:
    size = struct.calcsize(layout)
    content = stream.read(size)
    if len(content) < size:
        raise EOFError
    return struct.unpack(layout, content)


def _string(stream: BinaryIO) -> str:
    (length,) = _numbers(stream, "<H")
    content = stream.read(length)
    if len(content) < length:
        raise EOFError
    return content.rstrip(b"\0").decode("utf-8")


def read_variables(path: Path, prefix: str = "") -> dict[str, np.ndarray]:
    """The variables of a model whose names begin with a prefix.

    Args:
        path: of `model.bin`.
        prefix: others are passed over unread.

    Returns:
        Name without the prefix -> array in the dtype of the file.

    Raises:
        DataError: the file cannot be read, has another version, ends early, or holds a variable whose size does not fit.
    """
    found: dict[str, np.ndarray] = {}
    try:
        with path.open("rb") as stream:
            (version,) = _numbers(stream, "<I")
            if version != VERSION:
                raise DataError(f"{path} is a CTranslate2 model of version {version}; this reader knows version {VERSION}.")
            _string(stream)
            _, count = _numbers(stream, "<II")
            for _ in range(count):
                name = _string(stream)
                (rank,) = _numbers(stream, "<B")
                shape = _numbers(stream, f"<{rank}I")
                kind, size = _numbers(stream, "<BI")
                dtype = DTYPES.get(kind)
                if dtype is None or int(np.prod(shape, dtype=np.int64)) * dtype.itemsize != size:
                    raise DataError(f"{path}: the variable {name!r} has type {kind}, shape {shape} and {size} bytes: damaged.")
                if not name.startswith(prefix):
                    stream.seek(size, 1)
                    continue
                content = stream.read(size)
                if len(content) < size:
                    raise EOFError
                found[name.removeprefix(prefix)] = np.frombuffer(content, dtype).reshape(shape)
    except (EOFError, UnicodeDecodeError):
        raise DataError(f"{path} is no whole CTranslate2 model: it ends early. Remove it, to have it fetched again.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    return found
