"""Are instances of one kind together in what a trained network reads, and where among them does its attention lie?"""

import warnings

import numpy as np
from sklearn.manifold import trustworthiness
from torch import Tensor

from common.configuration import Parameters
from common.data.bags import joined, padded
from common.experiment import Context, Measurement, main
from papers.acmil.bag_model import Outputs
from papers.acmil.large_bags import synthetic_runs
from papers.acmil.models import Method, Sizes
from papers.acmil.synthetic_slides import SlideRecipe, draw_slide
from papers.acmil.training import Schedule, over_bags, train_methods


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        noise: standard deviation of what is added to every feature.
        recipe: what bags look like.
        rate: of witnesses.
        train_bags: to train on.
        test_bags: drawn beside them, as in `large_bags`; nothing is scored on them.
        seed: of bags, parameters, order and masking.
        methods: name -> method, each with attention.
        sizes: of the networks.
        schedule: of the optimisation.
        slide_side: patches on a side of the slide whose instances are mapped.
        embedded: instances at most: all witnesses, and background.
        neighbours: of UMAP, and of the trustworthiness of its map.
        distance: smallest distance of two instances in the map (UMAP's `min_dist`).
    """

    noise: float
    recipe: SlideRecipe
    rate: float
    train_bags: int
    test_bags: int
    seed: int
    methods: dict[str, Method]
    sizes: Sizes
    schedule: Schedule
    slide_side: int
    embedded: int
    neighbours: int
    distance: float


def umap_of(instances: np.ndarray, neighbours: int, distance: float, seed: int) -> np.ndarray:
    """Instances [n, d] in two dimensions by UMAP: float32 [n, 2]. One thread, so that a seed gives the same map again."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="n_jobs value 1 overridden")
        from umap import UMAP  # compiles for seconds, which no other experiment should wait for

        reducer = UMAP(n_neighbors=neighbours, min_dist=distance, random_state=seed, n_jobs=1)
        return np.asarray(reducer.fit_transform(instances), dtype=np.float32)


def run(settings: Settings, context: Context) -> Measurement:
    """Train the methods on the bags of one seed, and map what they read of a slide's instances.

    Rows by method: `trustworthiness` of the map (share of near neighbours in it that are near before, 1 at best) and
    `attention_on_witnesses`, the attention of all witnesses together. Arrays `embedding_<method>` [n, 2],
    `embedding_attention_<method>` [n] and `embedding_kinds` [n] (0 background, 1 pattern A, 2 pattern B).
    """
    parts, runs = synthetic_runs(
        settings.recipe, [settings.rate], [settings.seed], settings.train_bags, settings.test_bags, settings.noise
    )
    slide = draw_slide(settings.recipe, settings.slide_side, settings.seed, noise=settings.noise)
    bags = padded(joined([*parts, slide]), context.device)
    networks = train_methods(settings.methods, settings.sizes, settings.schedule, bags, runs, context)
    assert slide.kinds is not None
    kinds = slide.kinds
    background = np.random.default_rng(settings.seed).permutation(np.flatnonzero(kinds == 0))
    chosen = np.concatenate([np.flatnonzero(kinds > 0), background])[: settings.embedded]

    def attention_and_instances(outputs: Outputs, _: Tensor) -> Outputs:
        return {"attention": outputs["attention"].mean(1), "instances": outputs["instances"]}

    measurement = Measurement()
    measurement.arrays["embedding_kinds"] = kinds[chosen]
    for name, network in networks.items():
        (found,) = over_bags(network, [np.array([len(bags) - 1])], attention_and_instances)
        attention, instances = found["attention"][0, : len(kinds)], found["instances"][0, : len(kinds)]
        embedding = umap_of(instances[chosen], settings.neighbours, settings.distance, settings.seed)
        trust = trustworthiness(instances[chosen], embedding, n_neighbors=settings.neighbours)
        measurement.add("trustworthiness", trust, method=name)
        measurement.add("attention_on_witnesses", attention[kinds > 0].sum(), method=name)
        measurement.arrays[f"embedding_{name}"] = embedding
        measurement.arrays[f"embedding_attention_{name}"] = attention[chosen]
    return measurement


if __name__ == "__main__":
    main(run, Settings)
