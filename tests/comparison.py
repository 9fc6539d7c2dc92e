"""The suite's one way of comparing tensors."""

from torch import Tensor


def assert_close_rms(actual: Tensor, expected: Tensor, ratio: float, name: str) -> None:
    """Assert RMS(actual - expected) <= ratio * RMS(expected), computed in float64.

    Args:
        actual: what the code under test gave.
        expected: an independent reference of the same shape.
        ratio: tolerance relative to the root mean square of `expected`; 0 asks for equality.
        name: of the tensor, for the message.

    Raises:
        AssertionError: shapes differ, either side holds NaN or infinity (a failure of its own), or the error is too large.
    """
    assert actual.shape == expected.shape, f"{name}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    a, e = actual.detach().double().cpu(), expected.detach().double().cpu()
    for side, x in (("actual", a), ("expected", e)):
        bad = int((~x.isfinite()).sum())
        assert bad == 0, f"{name}: {side} holds {bad} NaN or infinite values of {x.numel()}"
    error, size = (a - e).square().mean().sqrt().item(), e.square().mean().sqrt().item()
    assert error <= ratio * size, (
        f"{name}: relative RMS error {error / size if size else float('inf'):.3g} > {ratio:.3g} (RMS {size:.3g})"
    )
