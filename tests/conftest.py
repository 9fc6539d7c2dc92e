"""Set up for all tests: Triton's interpreter where there is no GPU, no tracking unless a test asks, GPU tests deselected."""

import os

import pytest

from common.scale import cuda_devices

if not cuda_devices():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports Triton
os.environ.setdefault("REATTEND_TRACKING", "off")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect `gpu` tests where there is no CUDA device: their number is printed, they are not counted as skipped."""
    if cuda_devices():
        return
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    if gpu:
        config.hook.pytest_deselected(items=gpu)
        items[:] = [item for item in items if item not in gpu]
