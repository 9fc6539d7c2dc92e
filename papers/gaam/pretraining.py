"""A small vision transformer learns to fill in masked patches: the frozen encoder of the images."""

import numpy as np

from common.configuration import Parameters
from common.experiment import Context, Measurement, main
from common.training import Recipe
from papers.gaam.masked_patches import VisionSizes, pretrain
from papers.gaam.subjects import images_of


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        images: data set whose training images are seen, without their labels.
        samples: made at scale smoke; None takes all training images.
        sizes: of the transformer.
        recipe: how to optimise.
        epochs: data set -> passes over the images.
        seed: of parameters, order and masks.
    """

    images: str
    samples: int | None
    sizes: VisionSizes
    recipe: Recipe
    epochs: dict[str, int]
    seed: int


def run(settings: Settings, context: Context) -> Measurement:
    """Pretrain, and keep the weights as the artifact `vision`. Row `masked_error` at the end, array `curve` [points, 2]."""
    train, _ = images_of(settings.images, settings.samples)
    network, curve = pretrain(
        train.pixels, settings.sizes, settings.recipe, settings.epochs[settings.images], settings.seed, context
    )
    measurement = Measurement()
    measurement.add("masked_error", curve[-1]["loss"], unit="half range")
    measurement.add("first_masked_error", curve[0]["loss"], unit="half range")
    measurement.add("pretraining_seconds", curve[-1]["seconds"], unit="s", timing=True)
    measurement.arrays["curve"] = np.array([[row["step"], row["loss"]] for row in curve])
    measurement.artifacts["vision"] = dict(network.state_dict())
    return measurement


if __name__ == "__main__":
    main(run, Settings)
