"""Does the appearance of objects matter to OAT? In synthetic search, whose policy is known."""

import numpy as np
import torch

from common.configuration import Parameters
from common.data.amazon_book_covers import COLUMNS, ROWS
from common.experiment import Context, Measurement, main
from common.metrics.scanpaths import behaviour, behaviour_difference, paths_of, sequence_score
from common.training import derived_seed
from papers.oat.decoding import generate
from papers.oat.oat import OAT, Scenes, Variant
from papers.oat.synthetic import searches
from papers.oat.training import Fitting, NetworkSettings, Trials, held_out_loss, make_networks, make_table, train


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        appearance: "features", or "kind": all objects look alike.
        seeds: of networks and samples; the scenes are the same for all.
        scenes: of training.
        held_out: of validation and of test, each.
        longest: fixations of a scanpath.
        network: widths.
        fitting: how to train.
        samples: scanpaths drawn for each test scene.
    """

    appearance: str
    seeds: list[int]
    scenes: int
    held_out: int
    longest: int
    network: NetworkSettings
    fitting: Fitting
    samples: int


def run(settings: Settings, context: Context) -> Measurement:
    """Rows by `seed`: `cross_entropy`, `attainable_cross_entropy` of the policy, `sequence_score`, `behaviour_difference`."""
    measurement = Measurement()
    drawn = searches(settings.scenes + 2 * settings.held_out, seed=0, longest=settings.longest)
    device = context.device
    padded = [path + [0] * (settings.longest - len(path)) for path in drawn.paths]
    paths = paths_of(padded, device)
    paths = type(paths)(paths.objects, torch.tensor([len(path) for path in drawn.paths], device=device))
    target = torch.from_numpy(drawn.target).to(device)
    scenes = Scenes(target, torch.zeros_like(target), torch.from_numpy(drawn.features).to(device))
    trials = Trials(scenes, paths, (ROWS, COLUMNS))
    rows = np.split(np.arange(len(paths)), [settings.scenes, settings.scenes + settings.held_out])
    table = make_table("distance", 2.0, trials.grid, settings.network)
    variant = Variant(appearance="features" if settings.appearance == "features" else "kind")
    networks = make_networks(settings.network, variant, table, trials, settings.seeds, longest=settings.longest)
    same = [rows[0]] * len(settings.seeds), [rows[1]] * len(settings.seeds)
    found = train(networks, trials, *same, settings.fitting, seeds=settings.seeds, longest=settings.longest)
    tested = trials[torch.from_numpy(rows[2]).to(device)]
    attainable = float(drawn.attainable[rows[2]].sum() / drawn.counts[rows[2]].sum())
    measurement.add("attainable_cross_entropy", attainable, "nat", method="policy")
    again = torch.arange(len(tested.paths), device=device).repeat_interleave(settings.samples)
    human = behaviour(tested.paths, tested.scenes.target)
    for number, seed in enumerate(settings.seeds):
        network = found.networks.network(number)
        assert isinstance(network, OAT)
        generator = torch.Generator(device).manual_seed(derived_seed(seed, "samples"))
        predicted = generate(network, tested.scenes, longest=settings.longest, samples=settings.samples, generator=generator)

        def add(metric: str, value: float, unit: str = "1", *, seed: int = seed) -> None:
            measurement.add(metric, value, unit, method=settings.appearance, seed=seed)

        add("cross_entropy", held_out_loss(network, tested), "nat")
        add("sequence_score", float(sequence_score(predicted, tested.paths[again]).mean()))
        add("behaviour_difference", behaviour_difference(behaviour(predicted, tested.scenes.target[again]), human))
        add("best_epoch", found.epoch[number], "epochs")
    return measurement


if __name__ == "__main__":
    main(run, Settings)
