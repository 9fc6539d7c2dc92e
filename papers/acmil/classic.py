"""Do the methods of ACMIL beat ABMIL on the classic sets of small bags, in cross-validation?"""

import numpy as np
from sklearn.model_selection import StratifiedKFold

from common.configuration import Parameters
from common.data.bags import Bags, padded
from common.data.mil_classic import load_mil_classic
from common.experiment import Context, Measurement, main
from common.training import derived_seed
from papers.acmil.comparison import add_masked_rows, add_mean_gain, add_spread_rows, labels_of, masks_in_training
from papers.acmil.evaluation import add_map_rows, classification_scores, test_scores
from papers.acmil.models import Method, Sizes
from papers.acmil.synthetic_slides import SlideRecipe, draw_bags
from papers.acmil.training import Run, Schedule, train_methods

GENERATED = "generated"
GENERATED_BAGS = 24


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        data_set: a name of `common.data.mil_classic`, or `generated`.
        seeds: of folds, parameters, order and masking.
        folds: of the stratified cross-validation.
        methods: name -> method.
        sizes: of the networks.
        schedule: of the optimisation.
    """

    data_set: str
    seeds: list[int]
    folds: int
    methods: dict[str, Method]
    sizes: Sizes
    schedule: Schedule


def bags_of(name: str) -> Bags:
    """The bags of a data set; `generated` are small bags for scale smoke."""
    if name != GENERATED:
        return load_mil_classic(name)
    recipe = SlideRecipe(
        d=12, smallest=2, largest=8, clusters=2, cluster_spread=1.0, pattern_features=2, shift_a=4.0, shift_b=2.0,
        both_patterns=0.7,
    )  # fmt: skip
    return draw_bags(recipe, 0.2, GENERATED_BAGS, seed=0, part="train")


def folds_of(labels: np.ndarray, folds: int, seeds: list[int]) -> list[Run]:
    """One run for each seed and fold."""
    runs = []
    for seed in seeds:
        splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(labels, labels)
        for fold, (train, test) in enumerate(splits):
            place = {"seed": seed, "fold": fold}
            runs.append(Run(derived_seed(seed, "fold", fold), train, test, place, np.array([], dtype=np.int64)))
    return runs


def run(settings: Settings, context: Context) -> Measurement:
    """Train on every fold of every seed, and score by seed.

    Rows by method and seed: `auc` (mean over folds), `f1_macro` and `accuracy` (all folds together), `top10_drop`,
    `masking_at_test_no_better` and the others of `comparison`. By method: `mean_auc_gain`.
    """
    measurement = Measurement()
    bags = padded(bags_of(settings.data_set), context.device)
    runs = folds_of(bags.labels.cpu().numpy(), settings.folds, settings.seeds)
    networks = train_methods(settings.methods, settings.sizes, settings.schedule, bags, runs, context)
    by_seed = {seed: [r for r, one in enumerate(runs) if one.place["seed"] == seed] for seed in settings.seeds}
    every = {}
    for name, network in networks.items():
        found = test_scores(network, runs)
        masked = test_scores(network, runs, masking=True) if masks_in_training(network.method) else None
        every[name] = []
        for seed, numbers in by_seed.items():
            labels = [labels_of(bags, runs[r].test) for r in numbers]

            def mean_auc(of, labels=labels, numbers=numbers) -> float:
                each = [
                    classification_scores(own, of[r]["probabilities"])["auc"] for own, r in zip(labels, numbers, strict=True)
                ]
                return float(np.mean(each))

            together = {key: np.concatenate([found[r][key] for r in numbers]) for key in found[0]}
            scores = classification_scores(np.concatenate(labels), together["probabilities"]) | {"auc": mean_auc(found)}
            for metric, value in scores.items():
                measurement.add(metric, value, method=name, seed=seed)
            add_map_rows(measurement, together, method=name, seed=seed)
            if masked is not None:
                add_masked_rows(measurement, scores["auc"], mean_auc(masked), method=name, seed=seed)
            every[name].append(together)
    add_spread_rows(measurement, every, [{"seed": seed} for seed in by_seed])
    add_mean_gain(measurement, list(networks))
    return measurement


if __name__ == "__main__":
    main(run, Settings)
