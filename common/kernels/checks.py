"""What the kernels' public functions check, and which implementation they choose."""

import os
from typing import Literal

import torch
from torch import Tensor

from common.errors import InputError, MissingHardwareError

Implementation = Literal["auto", "reference", "triton"]

KERNEL_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
KERNEL_HEAD_DIMS = (64, 128)


def check_floating(name: str, x: Tensor, dimensions: str) -> None:
    """Check that `x` is a floating-point tensor with one size >= 1 per word of `dimensions`.

    Raises:
        InputError: it is not; the message names `name`.
    """
    if x.ndim != len(dimensions.split()):
        raise InputError(f"{name} has shape {tuple(x.shape)}; expected [{', '.join(dimensions.split())}].")
    if not x.is_floating_point():
        raise InputError(f"{name} has dtype {x.dtype}; expected a floating-point dtype.")
    if 0 in x.shape:
        raise InputError(f"{name} has shape {tuple(x.shape)}; no size may be zero.")


def check_like(name: str, x: Tensor, other_name: str, other: Tensor) -> None:
    """Check that `x` has the dtype and the device of `other`.

    Raises:
        InputError: it has not.
    """
    if x.dtype != other.dtype or x.device != other.device:
        raise InputError(
            f"{name} is {x.dtype} on {x.device} but {other_name} is {other.dtype} on {other.device}; they must agree."
        )


def check_int32(name: str, x: Tensor, shape: tuple[int, ...], device: torch.device) -> None:
    """Check that `x` is an int32 tensor of the given shape and device.

    Raises:
        InputError: it is not.
    """
    if x.dtype != torch.int32:
        raise InputError(f"{name} has dtype {x.dtype}; expected torch.int32 (use .int()).")
    if tuple(x.shape) != shape:
        raise InputError(f"{name} has shape {tuple(x.shape)}; expected {shape}.")
    if x.device != device:
        raise InputError(f"{name} is on {x.device}; expected {device}.")


def check_heads(query_name: str, query_heads: int, key_name: str, key_heads: int) -> None:
    """Check grouped-query heads: the key heads divide the query heads.

    Raises:
        InputError: they do not.
    """
    if query_heads % key_heads:
        raise InputError(
            f"{query_name} has {query_heads} heads and {key_name} {key_heads}; the heads of {key_name} must divide those of "
            f"{query_name}."
        )


def check_positive_int(name: str, value: object) -> None:
    """Check that `value` is an integer >= 1.

    Raises:
        InputError: it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} is {value!r}; it must be a positive integer.")


def check_scale(scale: float) -> None:
    """Check that the factor of the logits is a positive finite number.

    Raises:
        InputError: it is not.
    """
    if not 0.0 < scale < float("inf"):
        raise InputError(f"scale is {scale}; it must be positive and finite.")


def is_hopper(device: torch.device) -> bool:
    """Whether a device has NVIDIA's Hopper architecture (compute capability 9.0: H100, H200)."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) == (9, 0)


def interpreted() -> bool:
    """Whether Triton runs kernels in its CPU interpreter (TRITON_INTERPRET=1, set before Triton is imported)."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def choose_implementation(implementation: str, device: torch.device) -> Literal["reference", "triton"]:
    """Resolve "auto": Triton on a CUDA device, the reference elsewhere.

    Raises:
        InputError: the name is unknown.
        MissingHardwareError: "triton" was asked for on the CPU without Triton's interpreter.
    """
    if implementation not in ("auto", "reference", "triton"):
        raise InputError(f"implementation is {implementation!r}; choose 'auto', 'reference' or 'triton'.")
    if implementation == "auto":
        return "triton" if device.type == "cuda" else "reference"
    if implementation == "triton" and device.type != "cuda" and not interpreted():
        raise MissingHardwareError(
            f"implementation='triton' needs tensors on a CUDA device, not on {device}; use implementation='reference', or set "
            "TRITON_INTERPRET=1 before starting Python to run the kernel slowly on the CPU."
        )
    return implementation


def check_kernel_supports(name: str, x: Tensor, head_dims: tuple[int, ...] = KERNEL_HEAD_DIMS) -> None:
    """Check that the Triton kernels take the dtype and the head dimension (the last size) of `x`.

    Raises:
        InputError: they do not; the reference takes every floating-point dtype and head dimension.
    """
    if x.dtype not in KERNEL_DTYPES:
        raise InputError(
            f"{name} has dtype {x.dtype}; the Triton kernel takes float16, bfloat16 and float32. Convert, or use "
            "implementation='reference'."
        )
    if x.shape[-1] not in head_dims:
        raise InputError(
            f"{name} has head dimension {x.shape[-1]}; the Triton kernel takes {' and '.join(map(str, head_dims))}. "
            "Use implementation='reference' for others."
        )
