"""What do branches, fusion, segments, carry-over, masks and the cross attention's values contribute? (Table VI, Figure 5)."""

import numpy as np
import torch

from common.configuration import Parameters
from common.experiment import Context, Measurement, main
from common.training.side_by_side import SideBySide
from papers.tscan.attention_profile import hours_correlations
from papers.tscan.mortality import tensors_of
from papers.tscan.networks import NetworkSizes, initialised, make_tscan
from papers.tscan.scoring import add_scores, auroc
from papers.tscan.stays import DataName, load, split
from papers.tscan.temporal_spatial import ReceivedAttention
from papers.tscan.training import PREDICTED, Fitting, Tensors, fit, predict, same_rows
from papers.tscan.variants import variant_named


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        variant: of `variants.VARIANTS`.
        data_set: of `stays.load`.
        seeds: as in `mortality`.
        sizes: of the layers.
        fitting: as in `mortality`.
        small_batch: of the variant `code_batch_8`.
    """

    variant: str
    data_set: DataName
    seeds: list[int]
    sizes: NetworkSizes
    fitting: Fitting
    small_batch: int


@torch.no_grad()
def mean_attention(networks: SideBySide, tensors: Tensors, rows: torch.Tensor) -> ReceivedAttention:
    """What tokens receive, averaged over stays: hours [S, T] and variables [S, n, d], on the CPU."""
    sums: list[torch.Tensor] = []
    for part in rows.split(PREDICTED, dim=1):
        _, received = networks(*tensors.inputs(part), attention=True)
        found = [x.double().sum(1) for x in received]
        sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
    return ReceivedAttention(*(x.cpu() / rows.shape[1] for x in sums))


def run(settings: Settings, context: Context) -> Measurement:
    """Train one variant with every seed: rows of `scoring.add_scores`, and `hours_spearman` of the temporal branch."""
    measurement = Measurement()
    stays, variant = load(settings.data_set), variant_named(settings.variant)
    masks = settings.variant == "code_observations"
    tensors = tensors_of(stays, stays.died[:, None].astype(np.float32), context.device, masks=masks)
    splits = [split(stays.died, stays.learning, seed) for seed in settings.seeds]
    hours, variables = tensors.series.shape[1:]
    fitting = settings.fitting
    if settings.variant == "code_batch_8":
        fitting = fitting.model_copy(update={"batch": settings.small_batch})

    def make():
        return make_tscan(variant, settings.sizes, hours=hours, variables=variables, outputs=1)

    fitted = fit(
        [initialised(make, seed) for seed in settings.seeds],
        tensors,
        [rows for rows, _ in splits],
        [rows for _, rows in splits],
        fitting,
        auroc,
        seeds=settings.seeds,
    )
    rows = same_rows(tensors, stays.test, len(settings.seeds))
    for seed, probabilities in zip(settings.seeds, predict(fitted.networks, tensors, rows)[:, :, 0], strict=True):
        add_scores(measurement, stays.died[stays.test], probabilities, method=settings.variant, seed=seed)
    if variant.branches != "spatial":
        received = mean_attention(fitted.networks, tensors, rows).hours.numpy()
        measurement.arrays["hours"] = received
        for seed, row in zip(settings.seeds, received, strict=True):
            for part, value in hours_correlations(row, variant.segments, causal=variant.causal_hours).items():
                measurement.add(
                    "hours_spearman", value, method=settings.variant, part=part, segments=variant.segments, seed=seed
                )  # fmt: skip
    return measurement


if __name__ == "__main__":
    main(run, Settings)
