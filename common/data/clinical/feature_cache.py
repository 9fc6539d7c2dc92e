"""Features kept by content: made once for the same files, the same settings and the same code."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from common.data.fetch import cache_folder, locked
from common.errors import DataError
from common.files import whole_or_absent


def content_key(files: Mapping[str, str], settings: Mapping[str, Any], source: str) -> str:
    """A digest of everything that features depend on.

    Args:
        files: name -> sha256 of every file that is read.
        settings: of the pipeline; plain values.
        source: digest of the code.
    """
    content = json.dumps([dict(files), dict(settings), source], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def cached_arrays(name: str, key: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays from the cache, or made and put there.

    Args:
        name: what they are; part of the file's name.
        key: of `content_key`.
        make: called where the cache has none.

    Raises:
        DataError: the cache cannot be written, or its file is damaged.
    """
    path = cache_folder() / "features" / f"{name}-{key[:32]}.npz"
    with locked(path):
        if not path.is_file():
            arrays = make()
            with whole_or_absent(path) as temporary:
                np.savez(temporary, **arrays)  # pyright: ignore[reportArgumentType]
        try:
            with np.load(path, allow_pickle=False) as stored:
                return {key: stored[key] for key in stored.files}
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path} is damaged ({error}). Delete it, and it is made again.") from None
