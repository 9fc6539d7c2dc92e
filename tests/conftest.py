"""Set up for all tests: Triton's interpreter where there is no GPU, no tracking unless a test asks, GPU tests deselected.

Workers side by side share the cores.
"""

import os

import pytest

from common.scale import cuda_devices

# Each of several workers gets its share of the cores: with more threads than cores, those of OpenMP wait for each other by
# spinning, which makes trainings of small networks many times as long. Before anything imports torch.
_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _workers > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // _workers)))
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
