"""The claims on Market-1501, which you bring; below scale paper a few drawn figures, written and read in its layout."""

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from common.configuration import Parameters
from common.data.market1501 import ImageSet, export_market1501, read_market1501
from common.data.segmentation.document import brought
from common.errors import DataError
from common.experiment import Context, Measurement, main
from common.metrics.reidentification import by_part, scores_in_short
from papers.person_reid.figreid import Counts, Difficulty, figreid
from papers.person_reid.methods import Method, attention_of, backbone_of, chosen_layouts
from papers.person_reid.network import Backbone, ReidNetwork
from papers.person_reid.training import Job, Schedule, Scores, Trial, train_all

FOLDER = "market1501"
DATA, DATA_FROM = "Market-1501-v15.09.15", "the authors of Zheng et al., ICCV 2015 (zheng-lab.cecs.anu.edu.au)"
WEIGHTS_FROM = "download.pytorch.org/models (torchvision, ImageNet)"


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        source: `generated`, or `market1501`, which is brought.
        backbone: which ResNet, at which size.
        weights: depth -> file of ImageNet parameters to start from; empty starts from random ones.
        data_seed: of generated figures.
        counts: of them.
        difficulty: of them.
        schedule: of every training.
        methods: name -> network.
        seeds: of each method.
        parts: of the test identities, over which intervals are taken.
    """

    source: str
    backbone: Backbone
    weights: dict[str, str]
    data_seed: int
    counts: Counts
    difficulty: Difficulty
    schedule: Schedule
    methods: dict[str, Method]
    seeds: list[int]
    parts: int


def read_weights(path: Path) -> dict[str, Tensor]:
    """Parameters of a ResNet by torchvision's names, without its classifier.

    Raises:
        DataError: the file does not hold them.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds here, none of them documented
        raise DataError(f"{path} cannot be read as PyTorch parameters ({error}). Get it from {WEIGHTS_FROM} again.") from None
    if not isinstance(content, dict) or "layer4.0.conv1.weight" not in content:
        raise DataError(f"{path} holds no parameters of a torchvision ResNet. Get it from {WEIGHTS_FROM} again.")
    return {name: tensor for name, tensor in content.items() if not name.startswith("fc.")}


def read_sets(settings: Settings) -> dict[str, ImageSet]:
    """Training, query and gallery images, read from files."""
    size = settings.backbone.size
    if settings.source == "market1501":
        return read_market1501(brought(FOLDER, DATA, DATA_FROM), size)
    parts = figreid("street", settings.data_seed, settings.counts, settings.difficulty, size)
    with tempfile.TemporaryDirectory() as folder:
        export_market1501(Path(folder), {name: parts[name] for name in ("train", "query", "gallery")})
        return read_market1501(Path(folder), size)


def run(settings: Settings, context: Context) -> Measurement:
    """Train and test.

    Rows by `source`: `images` by `part`; by method and seed `map`, `minp`, `rank_1`, `rank_5`, `rank_10`; `map_of_part` by
    `part` of the test identities; `map_gain`, the mean over seeds of the block's mAP less that of the plain network.
    """
    measurement = Measurement()
    (best,) = chosen_layouts(context.results_of("search"), "best")
    sets = read_sets(settings)
    for name, images in sets.items():
        measurement.add("images", len(images), "images", part=name)
    trial = Trial.of(sets["query"], sets["gallery"], context.device)
    weights = {depth: read_weights(brought(FOLDER, file, WEIGHTS_FROM)) for depth, file in settings.weights.items()}

    def after(_: Job, network: ReidNetwork) -> Scores:
        scores = trial.scores_of(network, settings.schedule.precision)
        found = {metric: [value] for metric, value in scores_in_short(scores).items()}
        return {**found, "part": [100 * value for value in by_part(scores, trial.identities[0], settings.parts)]}

    jobs = []
    for name, method in settings.methods.items():
        backbone = backbone_of(method, settings.backbone)
        attention = attention_of(method, settings.backbone, best)
        jobs += [Job(name, backbone, attention, seed, weights.get(backbone.depth)) for seed in settings.seeds]
    found = train_all(jobs, sets["train"], settings.schedule, context, after)
    totals = dict.fromkeys(settings.methods, 0.0)
    for job in jobs:
        scores = found[job.name]
        totals[job.method] += scores["map"][0] / len(settings.seeds)
        for metric in ("map", "minp", "rank_1", "rank_5", "rank_10"):
            measurement.add(metric, scores[metric][0], "%", method=job.method, seed=job.seed)
        for part, value in enumerate(scores["part"]):
            measurement.add("map_of_part", value, "%", method=job.method, seed=job.seed, part=part)
    measurement.add("map_gain", totals["little_best"] - totals["plain"], "%", method="little_best", over="plain")
    return measurement


if __name__ == "__main__":
    main(run, Settings)
