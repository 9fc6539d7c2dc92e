"""What scores without an image? Fixed masks on the real polygons of VizWiz-VQA-Grounding: what any model must beat."""

import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from common.configuration import Parameters
from common.data.answer_grounding.generated import write_generated
from common.data.answer_grounding.questions import GroundedQuestion, Polygon
from common.data.answer_grounding.vizwiz import load_vizwiz, read_annotations
from common.data.fetch import fetch
from common.experiment import Context, Measurement, main
from common.metrics.masks import cumulative_iou, mean_iou, overlap

PERCENTILES = (5, 25, 50, 75, 95)


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        source: the validation annotations, or made-up ones.
        side: masks are drawn on a square of so many pixels.
        boxes: sides of centred boxes over that of the image, percent.
        threshold: of the mean mask, which is taken over the same annotations.
    """

    source: Literal["vizwiz", "generated"]
    side: int
    boxes: list[int]
    threshold: float


def masks_of(questions: list[GroundedQuestion], side: int) -> Tensor:
    """Polygons as bool [n, side, side]."""
    polygons = [one.evidence for one in questions if isinstance(one.evidence, Polygon)]
    return torch.from_numpy(np.stack([polygon.mask(side, side) for polygon in polygons]))


def centred_box(side: int, percent: int) -> Tensor:
    """Bool [side, side]: a box of so many percent of each side."""
    edge = round(side * (1 - percent / 100) / 2)
    box = torch.zeros(side, side, dtype=torch.bool)
    box[edge : side - edge, edge : side - edge] = True
    return box


def run(settings: Settings, context: Context) -> Measurement:
    """Rows: `mask_area` (mean) and `mask_area_percentile`; `iou_mean` and `iou_cum` of every fixed mask."""
    measurement = Measurement()
    if settings.source == "vizwiz":
        questions = read_annotations(fetch("vizwiz-vqa-grounding-val"), Path())
    else:
        with tempfile.TemporaryDirectory() as folder:
            write_generated(Path(folder), "vizwiz", 20, seed=0)
            questions = load_vizwiz(Path(folder), "val")
    true = masks_of(questions, settings.side)
    areas = true.float().mean((1, 2)).numpy()
    measurement.add("mask_area", areas.mean())
    for percentile in PERCENTILES:
        measurement.add("mask_area_percentile", np.percentile(areas, percentile), percentile=percentile)
    fixed = {"all_foreground": torch.ones(settings.side, settings.side, dtype=torch.bool)}
    fixed |= {f"centred_box_{percent}": centred_box(settings.side, percent) for percent in settings.boxes}
    fixed["mean_mask"] = true.float().mean(0) > settings.threshold
    for name, mask in fixed.items():
        counts = overlap(mask.expand_as(true), true)
        measurement.add("iou_mean", mean_iou(counts), method=name)
        measurement.add("iou_cum", cumulative_iou(counts), method=name)
    measurement.arrays["mean_mask"] = true.float().mean(0).numpy()
    return measurement


if __name__ == "__main__":
    main(run, Settings)
