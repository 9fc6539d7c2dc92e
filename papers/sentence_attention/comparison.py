"""How much better is one gate than another, over images and seeds? Paired on the test scenes `iid`."""

from typing import Any

import numpy as np

from common.configuration import Parameters
from common.errors import DataError
from common.experiment import Context, Measurement, main
from common.records import RecordSet
from common.statistics import mean_interval


class Pair(Parameters):
    """A comparison: the gain of `method` over `over`.

    Attributes:
        method: a variant.
        over: another.
        backbone: of `flexibility`; empty: that of `grounding`.
        over_backbone: of `flexibility`; empty: that of `grounding`.
    """

    method: str
    over: str
    backbone: str = ""
    over_backbone: str = ""


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        pairs: what is compared.
    """

    pairs: list[Pair]


def iou_of(records: RecordSet, variant: str, backbone: str) -> np.ndarray:
    """IoU float32 [seeds, scenes] of a variant. Raises DataError when no record has it."""
    for record in records.records:
        if record.axes.get("variant") == variant and record.axes.get("backbone", "") == backbone:
            return records.arrays(record)["iou_iid"]
    raise DataError(f"No record has the variant {variant!r} on {backbone or 'the main backbone'}; add it to config.yaml.")


def run(settings: Settings, context: Context) -> Measurement:
    """Rows: `iou_gain`, mean over images and seeds; `iou_gain_low`, `iou_gain_high`: 95% bootstrap interval over images."""
    measurement = Measurement()
    for pair in settings.pairs:
        sides = [
            iou_of(context.results_of("flexibility" if backbone else "grounding"), variant, backbone).astype(np.float64)
            for variant, backbone in ((pair.method, pair.backbone), (pair.over, pair.over_backbone))
        ]
        interval = mean_interval(sides[0].mean(0) - sides[1].mean(0))
        low = interval.mean if interval.low is None else interval.low
        high = interval.mean if interval.high is None else interval.high
        place: dict[str, Any] = {
            "over": pair.over,
            "backbone": pair.backbone or "main",
            "over_backbone": pair.over_backbone or "main",
        }
        for metric, value in (("iou_gain", interval.mean), ("iou_gain_low", low), ("iou_gain_high", high)):
            measurement.add(metric, value, method=pair.method, **place)
    return measurement


if __name__ == "__main__":
    main(run, Settings)
