"""The suite's solved instances, where they can be had."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.data.fetch import fetch
from common.errors import DataError

Solved = Callable[[str, str], Tensor]


@pytest.fixture(scope="session")
def solved() -> Solved:
    """(file, array) -> tensor: points as they are; indices from 1, `PADDING` behind them, as int64."""

    def load(file: str, array: str) -> Tensor:
        try:
            path = fetch("pointer-networks-fixtures", file)
        except DataError as error:
            pytest.skip(f"the solved instances are not on the web, and here is no mirror of them: {error}")
        values: NDArray[np.float32 | np.int16] = np.load(path)[array]
        if values.dtype == np.float32:
            return torch.from_numpy(values)
        positions = torch.from_numpy(values).long()
        return torch.where(positions < 0, -1, positions + 1)

    return load
