"""Features on disk, named by a digest of everything that they are made from."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from common.data.fetch import cache_folder, locked
from common.files import whole_or_absent


def cached_features(content: Mapping[str, Any], make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What `make` returns, made once for a content.

    Args:
        content: everything that the features depend on (digests of data, settings, versions); values that JSON can hold.
        make: called where the cache has nothing for this content.

    Returns:
        Name -> tensor on the CPU.

    Raises:
        DataError: the cache cannot be written.
    """
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path = cache_folder() / "features" / f"{digest}.safetensors"
    with locked(path):
        if not path.is_file():
            with whole_or_absent(path) as temporary:
                save_file({name: tensor.contiguous() for name, tensor in make().items()}, temporary)
    return load_file(path)
