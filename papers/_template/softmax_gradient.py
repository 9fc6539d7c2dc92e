"""How large are the softmax's gradients, with and without the scale, as d_k grows? (Vaswani et al., 2017, Section 3.2.1)."""

import torch

from common.configuration import Parameters
from common.experiment import Context, Measurement, main
from papers._template.scaled_dot_product import attention_weights


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        seed: of the random queries and keys.
        d_k: dimensions of queries and keys.
        keys: number of keys m.
        queries: number of queries n, over which gradients are averaged.
    """

    seed: int
    d_k: list[int]
    keys: int
    queries: int


def run(settings: Settings, context: Context) -> Measurement:
    """Measure the variance of q·k and the mean gradient norm of the softmax, for components that are standard normal."""
    measurement = Measurement()
    progress = context.progress(len(settings.d_k))
    for d_k in settings.d_k:
        generator = torch.Generator().manual_seed(settings.seed)
        Q = torch.randn(settings.queries, d_k, generator=generator, dtype=torch.float64)
        K = torch.randn(settings.keys, d_k, generator=generator, dtype=torch.float64)
        measurement.add("variance_of_dot_product", (Q @ K.T).var(), d_k=d_k)
        for method, scaled in (("scaled", True), ("plain", False)):
            weights = attention_weights(Q, K, scaled=scaled)
            # The Jacobian of a softmax with output w is diag(w) - w w^T.
            jacobian = torch.diag_embed(weights) - weights[:, :, None] * weights[:, None, :]
            measurement.add("gradient_norm", jacobian.flatten(1).norm(dim=1).mean(), method=method, d_k=d_k)
        progress.step(f"d_k={d_k}")
    return measurement


if __name__ == "__main__":
    main(run, Settings)
