"""At which positions should the block stand? A search in phases, an additive model of it, and what is chosen for fresh seeds.

1. The plain network, every single position, and all 16 subsets of the last blocks of the four stages.
2. Within the stages of the best two subsets: attention first, last, at every other block, at all.
3. Random layouts that no phase has seen: they test the rules, which are fitted on phases 1 and 2.

Everything is chosen by validation identities. Queries of the test are not looked at here.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from pydantic import model_validator

from common.configuration import Parameters
from common.experiment import Context, Measurement, main
from common.metrics.reidentification import scores_in_short
from common.training import derived_seed
from papers.person_reid.blocks import BlockName
from papers.person_reid.figreid import Counts, Difficulty, figreid
from papers.person_reid.forward_time import Mode, Precision, Repeats, forward_times, multiply_adds
from papers.person_reid.layouts import (
    AdditiveModel,
    Layout,
    all_layouts,
    name_of,
    positions,
    random_layouts,
    stage_masks,
    within_stages,
)
from papers.person_reid.network import Backbone
from papers.person_reid.training import Job, Schedule, Scores, Trial, make_network, train_all


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        block: which block is placed.
        backbone: which ResNet, at which size.
        data_seed: of FigReID.
        counts: of its identities and images.
        difficulty: of its cameras and nuisances.
        schedule: of every training.
        seeds: of the trainings of a layout.
        single_seeds: of those of the plain network and of single positions, whose differences a claim judges.
        best_masks: subsets of stages that phase 2 refines.
        within: layouts of phase 2 at most.
        random: layouts of phase 3.
        random_blocks: least and greatest number of positions in phase 3, and of the layouts that the rules choose from.
        penalty: of the additive model.
        confirmed: layouts with the highest and with the lowest prediction that fresh seeds confirm.
        few: positions at most of the layout that is called best.
        time_mode: how the forward pass is timed, by device.
        time_batch: images of it.
        time_precision: of it, by device.
        repeats: of it.
    """

    block: BlockName
    backbone: Backbone
    data_seed: int
    counts: Counts
    difficulty: Difficulty
    schedule: Schedule
    seeds: list[int]
    single_seeds: list[int]
    best_masks: int
    within: int
    random: int
    random_blocks: tuple[int, int]
    penalty: float
    confirmed: int
    few: int
    time_mode: Mapping[str, Mode]
    time_batch: int
    time_precision: Mapping[str, Precision]
    repeats: Repeats

    @model_validator(mode="after")
    def _seeds_are_enough(self) -> "Settings":
        if len(self.seeds) < 2 or not set(self.seeds) <= set(self.single_seeds):
            raise ValueError(f"seeds is {self.seeds} and single_seeds {self.single_seeds}; give two or more, among the others")
        return self


def mean_map(found: Mapping[str, Scores], layout: Layout, seeds: Sequence[int]) -> float:
    """Mean validation mAP of a layout over seeds, in percent."""
    return float(np.mean([found[f"{name_of(layout)} seed {seed}"]["map"][0] for seed in seeds]))


def seed_deviation(found: Mapping[str, Scores], layouts: Sequence[Layout], seeds: Sequence[int]) -> float:
    """Standard deviation of a layout's mAP over seeds: root of the mean variance over layouts."""
    values = [[found[f"{name_of(layout)} seed {seed}"]["map"][0] for seed in seeds] for layout in layouts]
    return float(np.sqrt(np.var(values, axis=1, ddof=1).mean()))


def run(settings: Settings, context: Context) -> Measurement:
    """Search.

    Rows by `layout`, `blocks`, `phase` and seed, on validation queries: `map`, `minp`, `rank_1`, `rank_5`, `rank_10`, `loss`;
    by layout `latency` and `multiply_adds`. Rows of the whole: `seed_deviation`, `single_position_range`,
    `range_over_deviation`; by `target` (map, latency) `additive_r2` and by position (`stage`, `block`) `coefficient`;
    `chosen` by layout, whose method is its role: `best`, `top` or `bottom`.
    """
    measurement = Measurement()
    depth = settings.backbone.depth
    parts = figreid("street", settings.data_seed, settings.counts, settings.difficulty, settings.backbone.size)
    trial = Trial.of(parts["validation_query"], parts["validation_gallery"], context.device)
    rng = np.random.default_rng(derived_seed(settings.data_seed, "layouts"))
    found: dict[str, Scores] = {}
    phases: dict[Layout, str] = {}

    def job(layout: Layout, seed: int) -> Job:
        return Job(name_of(layout), settings.backbone, dict.fromkeys(sorted(layout), settings.block), seed)

    def after(_: Job, network: torch.nn.Module) -> Scores:
        scores = trial.scores_of(network, settings.schedule.precision)  # pyright: ignore[reportArgumentType]
        return {name: [value] for name, value in scores_in_short(scores).items()}

    def try_layouts(phase: str, layouts: Sequence[Layout], seeds: Sequence[int]) -> None:
        jobs = [job(layout, seed) for layout in layouts for seed in seeds]
        jobs = [job for job in jobs if job.name not in found]
        found.update(train_all(jobs, parts["train"], settings.schedule, context, after, label=phase))
        for layout in layouts:
            phases.setdefault(layout, phase)

    singles: list[Layout] = [frozenset([place]) for place in positions(depth)]
    masks = stage_masks(depth)
    often: list[Layout] = [frozenset(), *singles]
    try_layouts("singles", often, settings.single_seeds)
    try_layouts("masks", masks, settings.seeds)
    refined = sorted((mask for mask in masks if mask), key=lambda mask: -mean_map(found, mask, settings.seeds))
    try_layouts(
        "within", within_stages(depth, refined[: settings.best_masks], settings.within, rng), settings.seeds
    )  # fmt: skip
    fitted = list(phases)
    held_out = random_layouts(depth, settings.random, settings.random_blocks, fitted, rng)
    try_layouts("random", held_out, settings.seeds)

    used = {layout: settings.single_seeds if layout in often else settings.seeds for layout in phases}
    for layout, phase in phases.items():
        for seed in used[layout]:
            for metric, values in found[f"{name_of(layout)} seed {seed}"].items():
                measurement.add(
                    metric, values[0], "nat" if metric == "loss" else "%", method=settings.block,
                    layout=name_of(layout), blocks=len(layout), phase=phase, seed=seed,
                )  # fmt: skip
    maps = {layout: mean_map(found, layout, used[layout]) for layout in phases}
    deviation = seed_deviation(found, list(phases), settings.seeds)
    single_maps = [maps[layout] for layout in singles]
    measurement.add("seed_deviation", deviation, "%")
    measurement.add("single_position_range", max(single_maps) - min(single_maps), "%")
    measurement.add("range_over_deviation", (max(single_maps) - min(single_maps)) / max(deviation, 1e-9))

    times = _times(settings, context, list(phases), measurement)
    for target, values in (("map", maps), ("latency", times)):
        model = AdditiveModel(depth, fitted, [values[layout] for layout in fitted], settings.penalty)
        r2 = model.r2(held_out, [values[layout] for layout in held_out])
        measurement.add("additive_r2", r2, timing=target == "latency", target=target)
        for (stage, block), value in model.coefficients.items():
            unit = "%" if target == "map" else "ms"
            measurement.add("coefficient", value, unit, timing=target == "latency", target=target, stage=stage, block=block)
        if target == "map":
            _choose(measurement, settings, model, maps)
    return measurement


def _times(settings: Settings, context: Context, layouts: Sequence[Layout], measurement: Measurement) -> dict[Layout, float]:
    """Median milliseconds of a forward pass of each layout, with its rows."""
    networks = {
        name_of(layout): make_network(
            Job(name_of(layout), settings.backbone, dict.fromkeys(sorted(layout), settings.block), 0), 2
        )
        for layout in layouts
    }
    images = torch.randn(settings.time_batch, 3, *settings.backbone.size, generator=torch.Generator().manual_seed(0))
    for network in networks.values():
        network.eval()
    counts = {name: multiply_adds(network, images[:1]) for name, network in networks.items()}
    times = forward_times(
        networks, images, device=context.device, mode=settings.time_mode[context.device],
        precision=settings.time_precision[context.device], repeats=settings.repeats,
    )  # fmt: skip
    for layout in layouts:
        place = {"layout": name_of(layout), "blocks": len(layout)}
        measurement.add("multiply_adds", counts[name_of(layout)] / 1e6, "million", method=settings.block, **place)
        measurement.add("latency", times[name_of(layout)].median, "ms", method=settings.block, timing=True, **place)
    return {layout: times[name_of(layout)].median for layout in layouts}


def _choose(measurement: Measurement, settings: Settings, model: AdditiveModel, maps: Mapping[Layout, float]) -> None:
    """Rows of the layouts that other experiments confirm with fresh seeds.

    `best` is the layout with the highest validation mAP of those with few positions; `top` and `bottom` have the highest and
    lowest predictions of those that were never trained.
    """
    few = [layout for layout in maps if 1 <= len(layout) <= settings.few]
    best = max(few, key=lambda layout: (maps[layout], name_of(layout)))
    measurement.add("chosen", maps[best], "%", method="best", layout=name_of(best))
    unseen = [layout for layout in all_layouts(settings.backbone.depth, settings.random_blocks) if layout not in maps]
    predictions = model.predict(unseen)
    order = np.argsort(predictions, kind="stable")
    for role, numbers in (("top", order[::-1][: settings.confirmed]), ("bottom", order[: settings.confirmed])):
        for number in numbers:
            measurement.add("chosen", predictions[number], "%", method=role, layout=name_of(unseen[number]))


if __name__ == "__main__":
    main(run, Settings)
