"""How sure is a gain of TSCAN over the baselines, given the test stays? Bootstrap over stays, of the mean AUROC over seeds."""

import numpy as np

from common.configuration import Parameters
from common.errors import ConfigError
from common.experiment import Context, Measurement, main
from common.metrics.classification import bootstrapped_aurocs, discrimination


class Settings(Parameters):
    """Parameters of `config.yaml`.

    Attributes:
        models: of `mortality`, TSCAN's.
        baselines: of `mortality`.
        resamples: of the test stays.
        seed: of the resamples.
    """

    models: list[str]
    baselines: list[str]
    resamples: int
    seed: int


def run(settings: Settings, context: Context) -> Measurement:
    """Rows `auroc_gain`, `auroc_gain_low` and `auroc_gain_high`, a 95% interval."""
    measurement = Measurement()
    records = context.results_of("mortality")
    names = [*settings.models, *settings.baselines]
    of_model = {record.axes["model"]: record for record in records.of("mortality")}
    if unknown := [name for name in names if name not in of_model]:
        raise ConfigError(f"comparison: mortality has no model {unknown[0]!r}; it has {', '.join(map(str, of_model))}.")
    arrays = {name: records.arrays(of_model[name]) for name in names}
    died = arrays[names[0]]["died"]
    scores = np.concatenate([arrays[name]["probabilities"] for name in names])
    sizes = [len(arrays[name]["probabilities"]) for name in names]
    places = np.split(np.arange(len(scores)), np.cumsum(sizes)[:-1])
    resampled = bootstrapped_aurocs(died, scores, resamples=settings.resamples, seed=settings.seed)
    measured = np.array([discrimination(died, row).auroc for row in scores])
    mean = {name: measured[place].mean() for name, place in zip(names, places, strict=True)}
    drawn = {name: resampled[:, place].mean(1) for name, place in zip(names, places, strict=True)}
    for model in settings.models:
        for baseline in settings.baselines:
            low, high = np.percentile(drawn[model] - drawn[baseline], [2.5, 97.5])
            for metric, value in (("", mean[model] - mean[baseline]), ("_low", low), ("_high", high)):
                measurement.add(f"auroc_gain{metric}", value, method=model, over=baseline)
    return measurement


if __name__ == "__main__":
    main(run, Settings)
