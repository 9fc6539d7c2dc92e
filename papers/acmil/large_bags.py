"""Large synthetic bags with known witnesses: where does attention go, and what does it cost on patterns that it leaves out?"""

import numpy as np
from sklearn.manifold import TSNE
from torch import Tensor

from common.configuration import Parameters
from common.data.bags import Bags, joined, padded
from common.errors import ConfigError
from common.experiment import Context, Measurement, main
from papers.acmil.bag_model import Outputs
from papers.acmil.comparison import add_mean_gain, add_scores_of_runs, keep_cumulative_attention
from papers.acmil.models import Method, Sizes
from papers.acmil.synthetic_slides import SlideRecipe, draw_bags, draw_slide
from papers.acmil.training import Run, Schedule, SideBySide, over_bags, train_methods

PERPLEXITY = 30
PICTURED = ("abmil", "acmil")


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        features: `strong` or `weak`, a name in `noise` and `methods_of`.
        noise: features -> standard deviation of what is added to every feature.
        recipe: what bags look like.
        rates: of witnesses.
        train_bags: of each seed and rate.
        test_bags: of each seed and rate.
        seeds: of bags, parameters, order and masking.
        methods: name -> method.
        methods_of: features -> names of the methods that are trained on them.
        sizes: of the networks.
        schedule: of the optimisation.
        slide_side: patches on a side of the slide that is pictured.
        pictured_rate: the slide is read by networks trained at this rate.
        embedded: instances of the slide in the picture of embeddings, at most.
    """

    features: str
    noise: dict[str, float]
    recipe: SlideRecipe
    rates: list[float]
    train_bags: int
    test_bags: int
    seeds: list[int]
    methods: dict[str, Method]
    methods_of: dict[str, list[str]]
    sizes: Sizes
    schedule: Schedule
    slide_side: int
    pictured_rate: float
    embedded: int


def synthetic_runs(
    recipe: SlideRecipe, rates: list[float], seeds: list[int], train_bags: int, test_bags: int, noise: float
) -> tuple[list[Bags], list[Run]]:
    """Bags of every seed and rate, and the run of each."""
    parts, runs, start = [], [], 0
    for rate in rates:
        for seed in seeds:
            parts.append(draw_bags(recipe, rate, train_bags, seed, part="train", noise=noise))
            parts.append(draw_bags(recipe, rate, test_bags, seed, part="test", noise=noise))
            middle, end = start + train_bags, start + train_bags + test_bags
            place = {"seed": seed, "rate": rate}
            runs.append(Run(seed, np.arange(start, middle), np.arange(middle, end), place, np.array([], dtype=np.int64)))
            start = end
    return parts, runs


def run(settings: Settings, context: Context) -> Measurement:
    """Train and test for each seed and rate; rows are those of `comparison.add_scores_of_runs` and `mean_auc_gain`.

    They include `auc`, `f1_macro`, `top10_attention`, `top10_drop`, `attention_entropy`, `branch_cosine`, `recall_b`,
    `masking_at_test_no_better`.

    Raises:
        ConfigError: `methods_of` or `noise` lacks the features, or names an unknown method; no network has the pictured rate.
    """
    names = settings.methods_of.get(settings.features, [])
    if settings.features not in settings.noise or not names or set(names) - set(settings.methods):
        raise ConfigError(
            f"features = {settings.features!r}: noise and methods_of need it, with names among {', '.join(settings.methods)}."
        )
    if settings.pictured_rate not in settings.rates:
        raise ConfigError(f"pictured_rate = {settings.pictured_rate} is not among rates = {settings.rates}.")
    measurement = Measurement()
    noise = settings.noise[settings.features]
    counts = settings.train_bags, settings.test_bags
    parts, runs = synthetic_runs(settings.recipe, settings.rates, settings.seeds, *counts, noise)
    slide = draw_slide(settings.recipe, settings.slide_side, settings.seeds[0], noise=noise)
    bags = padded(joined([*parts, slide]), context.device)
    networks = train_methods(
        {name: settings.methods[name] for name in names}, settings.sizes, settings.schedule, bags, runs, context
    )
    keep_cumulative_attention(measurement, add_scores_of_runs(measurement, networks, bags, runs))
    add_mean_gain(measurement, names)
    pictured = next(r for r, one in enumerate(runs) if one.place["rate"] == settings.pictured_rate)
    keep_slide(measurement, networks, slide, pictured, len(bags) - 1, settings)
    return measurement


def keep_slide(
    measurement: Measurement, networks: dict[str, SideBySide], slide: Bags, replica: int, number: int, settings: Settings
) -> None:
    """Arrays for two pictures: the slide's kinds and heat maps [side, side], and its instances in two dimensions (t-SNE)."""
    side = settings.slide_side
    assert slide.kinds is not None
    measurement.arrays["slide_kinds"] = slide.kinds.reshape(side, side)
    for name in PICTURED:
        if name not in networks:
            continue
        network = networks[name]

        def one_replica(outputs: Outputs, _: Tensor) -> Outputs:
            return {"attention": outputs["attention"].mean(1), "instances": outputs["instances"]}

        found = over_bags(network, [np.array([number])] * len(network.stacked), one_replica)[replica]
        attention, instances = found["attention"][0, : side * side], found["instances"][0, : side * side]
        measurement.arrays[f"slide_{name}"] = attention.reshape(side, side)
        witnesses = np.flatnonzero(slide.kinds > 0)
        background = np.random.default_rng(0).permutation(np.flatnonzero(slide.kinds == 0))
        chosen = np.concatenate([witnesses, background])[: settings.embedded]
        perplexity = min(PERPLEXITY, (len(chosen) - 1) / 3)
        embedded = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(instances[chosen])
        measurement.arrays[f"embedding_{name}"] = embedded.astype(np.float32)
        measurement.arrays[f"embedding_attention_{name}"] = attention[chosen]
        measurement.arrays["embedding_kinds"] = slide.kinds[chosen]


if __name__ == "__main__":
    main(run, Settings)
