"""CAMELYON16 as in the paper: the authors' features and splits, the epoch chosen on validation slides."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from common.configuration import Parameters
from common.data.bags import Bags, PaddedBags, padded
from common.data.segmentation.document import brought
from common.data.slide_features import PARTS, Splits, read_slide_features, read_split, write_slide_features
from common.errors import ConfigError
from common.experiment import Context, Measurement, main
from papers.acmil.comparison import labels_of, masks_in_training
from papers.acmil.evaluation import TOP, bag_measures, classification_scores
from papers.acmil.models import Method, Sizes
from papers.acmil.synthetic_slides import SlideRecipe, draw_bags
from papers.acmil.training import Run, Schedule, SideBySide, over_bags, train_methods

GENERATED = "generated"
GENERATED_SLIDES = {"train": 12, "val": 4, "test": 8}
FOLDER = "camelyon16"
WHERE_FROM = "the hub data set dazhangyu123/AEM-dataset, and split_<seed>.json from the code's folder splits/camelyon"


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        features: a name in `files`, or `generated`: a few slides written and read in the same layout.
        files: features -> name of the HDF5 file in `$REATTEND_DATA/camelyon16/`.
        sizes: features -> sizes of the networks.
        schedules: features -> optimisation.
        seeds: each has its split file `split_<seed>.json`, parameters, order and masking.
        methods: name -> method.
    """

    features: str
    files: dict[str, str]
    sizes: dict[str, Sizes]
    schedules: dict[str, Schedule]
    seeds: list[int]
    methods: dict[str, Method]


def write_generated(folder: Path, seeds: list[int]) -> Path:
    """A small HDF5 file of slides and a split for each seed, in the authors' layout; returns the path of the HDF5 file."""
    recipe = SlideRecipe(
        d=16, smallest=20, largest=40, clusters=3, cluster_spread=1.0, pattern_features=2, shift_a=4.0, shift_b=2.0,
        both_patterns=0.7,
    )  # fmt: skip
    drawn = draw_bags(recipe, 0.1, sum(GENERATED_SLIDES.values()), 0, part="train")
    names = tuple(f"slide_{number:03d}" for number in range(len(drawn)))
    positions = np.stack([np.arange(len(drawn.instances)) * 256, np.zeros(len(drawn.instances), dtype=np.int64)], axis=1)
    path = folder / "features.h5"
    write_slide_features(path, Bags(drawn.instances, drawn.offsets, drawn.labels, positions=positions, names=names))
    for seed in seeds:
        generator = np.random.default_rng(seed)
        # Pairs of a negative and a positive slide, so that every part has both.
        pairs = generator.permutation(len(drawn) // 2)
        order = [name for pair in pairs for name in names[2 * pair : 2 * pair + 2]]
        split, start = {}, 0
        for part, count in GENERATED_SLIDES.items():
            split[part] = order[start : start + count]
            start += count
        (folder / f"split_{seed}.json").write_text(json.dumps(split), encoding="utf-8")
    return path


def read_slides(settings: Settings) -> tuple[Bags, dict[int, Splits]]:
    """Features of all slides, and the split of each seed.

    Raises:
        ConfigError: no file is named for the features.
        DataError: a file is missing or not of the layout.
    """

    def read(folder: Path, path: Path) -> tuple[Bags, dict[int, Splits]]:
        slides = read_slide_features(path)
        return slides, {seed: read_split(folder / f"split_{seed}.json", slides.names) for seed in settings.seeds}

    if settings.features == GENERATED:
        with tempfile.TemporaryDirectory() as temporary:
            return read(Path(temporary), write_generated(Path(temporary), settings.seeds))
    if settings.features not in settings.files:
        raise ConfigError(f"features = {settings.features!r}; files names {', '.join(settings.files)}.")
    path = brought(FOLDER, settings.files[settings.features], WHERE_FROM)
    return read(path.parent, path)


def run(settings: Settings, context: Context) -> Measurement:
    """Train with each seed on its split and test after every epoch.

    Rows by method, seed and `selection`, `best_validation` (the epoch with the largest sum of macro F1 and AUC on the
    validation slides, as in the official code) and `last`: `auc`, `f1_macro`, `accuracy`, `top10_attention`, the first three
    also as `..._masked_at_test`, and `epoch`.
    """
    measurement = Measurement()
    slides, splits = read_slides(settings)
    place = {name: number for number, name in enumerate(slides.names)}
    numbers = {
        seed: {part: np.array([place[name] for name in split[part]]) for part in PARTS} for seed, split in splits.items()
    }
    runs = [
        Run(seed, of["train"], of["test"], {"seed": seed}, of["val"]) for seed, of in numbers.items()
    ]  # fmt: skip
    bags = padded(slides, context.device, dtype=torch.float16)
    curves: dict[str, list[list[Mapping[str, dict[str, float]]]]] = {name: [] for name in settings.methods}
    measure = bag_measures(bags)

    def after_epoch(name: str, network: SideBySide) -> None:
        found = {
            part: over_bags(network, [getattr(run, part) for run in runs], measure) for part in ("validation", "test")
        }  # fmt: skip
        if masks_in_training(network.method):
            found["masked_test"] = over_bags(network, [run.test for run in runs], measure, masking=True)
        curves[name].append([_scores(bags, run, {part: found[part][r] for part in found}) for r, run in enumerate(runs)])

    sizes, schedule = settings.sizes[settings.features], settings.schedules[settings.features]
    for name, method in settings.methods.items():  # one after the other: slides are large
        train_methods(
            {name: method}, sizes, schedule, bags, runs, context, standardise=False, after_epoch=after_epoch, label=name
        )  # fmt: skip
    for name, curve in curves.items():
        for r, seed in enumerate(settings.seeds):
            quality = [epoch[r]["validation"]["f1_macro"] + epoch[r]["validation"]["auc"] for epoch in curve]
            chosen = {"best_validation": int(np.argmax(quality)), "last": len(curve) - 1}
            for selection, epoch in chosen.items():
                measurement.add("epoch", epoch + 1, "epochs", method=name, seed=seed, selection=selection)
                for metric, value in curve[epoch][r]["test"].items():
                    measurement.add(metric, value, method=name, seed=seed, selection=selection)
    return measurement


def _scores(bags: PaddedBags, run: Run, found: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, dict[str, float]]:
    """Scores of one run on its validation and test slides; the test slides with their top-10 attention, and masked."""
    scores = {
        part: classification_scores(labels_of(bags, getattr(run, part)), found[part]["probabilities"])
        for part in ("validation", "test")
    }
    if "cumulative" in found["test"]:
        scores["test"]["top10_attention"] = float(found["test"]["cumulative"][:, TOP - 1].mean())
    if "masked_test" in found:
        masked = classification_scores(labels_of(bags, run.test), found["masked_test"]["probabilities"])
        scores["test"] |= {f"{metric}_masked_at_test": value for metric, value in masked.items()}
    return scores


if __name__ == "__main__":
    main(run, Settings)
