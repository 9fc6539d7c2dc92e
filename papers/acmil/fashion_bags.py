"""Bags of about 200 Fashion-MNIST images: does attention pile up on few of them, and does ACMIL spread it?"""

import numpy as np

from common.configuration import Parameters
from common.data.bags import PaddedBags, joined, padded
from common.data.fashion_mnist import load_fashion_mnist
from common.experiment import Context, Measurement, main
from common.training import derived_seed
from papers.acmil.comparison import ABMIL, add_mean_gain, add_scores_of_runs, keep_cumulative_attention, labels_of
from papers.acmil.evaluation import test_scores
from papers.acmil.image_bags import draw_image_bags, generated_images, image_features
from papers.acmil.models import Method, Sizes
from papers.acmil.training import Run, Schedule, SideBySide, train_methods

GENERATED_IMAGES = 400
SHORTEST_CURVE = 3


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        images: `fashion_mnist` or `generated`.
        components: principal components of an image.
        mean_size: of a bag.
        spread: standard deviation of sizes.
        most_witnesses: of a positive bag.
        train_bags: of each seed.
        test_bags: of each seed.
        seeds: of bags, parameters, order and masking.
        methods: name -> method.
        sizes: of the networks.
        schedule: of the optimisation.
    """

    images: str
    components: int
    mean_size: float
    spread: float
    most_witnesses: int
    train_bags: int
    test_bags: int
    seeds: list[int]
    methods: dict[str, Method]
    sizes: Sizes
    schedule: Schedule


def _images(settings: Settings) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Features and classes of training and of test images."""
    if settings.images == "fashion_mnist":
        (train, test), features = load_fashion_mnist(), image_features(settings.components)
        return (features[0], train.classes), (features[1], test.classes)
    train, test = generated_images(GENERATED_IMAGES, 0), generated_images(GENERATED_IMAGES, 1)
    features = [images.pixels.reshape(len(images.pixels), -1)[:, : settings.components] / 255.0 for images in (train, test)]
    return (features[0].astype(np.float32), train.classes), (features[1].astype(np.float32), test.classes)


def run(settings: Settings, context: Context) -> Measurement:
    """Train and test with each seed on its own bags; rows are those of `comparison.add_scores_of_runs` and `mean_auc_gain`.

    They include `auc`, `attention_entropy`, `top10_drop`, `masking_at_test_no_better`. And of ABMIL, over epochs:
    `entropy_loss_correlation`.
    """
    measurement = Measurement()
    of_train, of_test = _images(settings)
    parts, runs, start = [], [], 0
    for seed in settings.seeds:
        sizes = {"mean_size": settings.mean_size, "spread": settings.spread, "most_witnesses": settings.most_witnesses}
        parts.append(draw_image_bags(*of_train, settings.train_bags, derived_seed(seed, "train"), **sizes))
        parts.append(draw_image_bags(*of_test, settings.test_bags, derived_seed(seed, "test"), **sizes))
        middle, end = start + settings.train_bags, start + settings.train_bags + settings.test_bags
        runs.append(Run(seed, np.arange(start, middle), np.arange(middle, end), {"seed": seed}, np.array([], dtype=np.int64)))
        start = end
    bags = padded(joined(parts), context.device)
    curve: list[np.ndarray] = []  # an epoch: loss and entropy of each run, [runs, 2]

    def after_epoch(name: str, network: SideBySide) -> None:
        if name == ABMIL:
            found = test_scores(network, runs)
            curve.append(np.array([loss_and_entropy(bags, *one) for one in zip(runs, found, strict=True)]))

    networks = train_methods(
        settings.methods, settings.sizes, settings.schedule, bags, runs, context, after_epoch=after_epoch
    )  # fmt: skip
    keep_cumulative_attention(measurement, add_scores_of_runs(measurement, networks, bags, runs))
    add_mean_gain(measurement, list(networks))
    if len(curve) >= SHORTEST_CURVE:
        by_run = np.stack(curve, axis=1)
        measurement.arrays["loss_and_entropy"] = by_run
        for run, (loss, entropy) in zip(runs, by_run.transpose(0, 2, 1), strict=True):
            measurement.add("entropy_loss_correlation", np.corrcoef(entropy, loss)[0, 1], method=ABMIL, **run.place)
    return measurement


def loss_and_entropy(bags: PaddedBags, run: Run, found: dict[str, np.ndarray]) -> tuple[float, float]:
    """Mean cross entropy and mean entropy of the heat map over the test bags of a run, nat."""
    labels = labels_of(bags, run.test)
    likelihood = found["probabilities"][np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(likelihood, np.finfo(np.float32).tiny)).mean()), float(found["entropy"].mean())


if __name__ == "__main__":
    main(run, Settings)
