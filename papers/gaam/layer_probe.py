"""How well does each layer of each encoder do alone, for a linear probe? A check of the encoders that trains no attention."""

import numpy as np
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from common.configuration import Parameters
from common.experiment import Context, Measurement, main
from papers.gaam.layer_features import splits_of
from papers.gaam.subjects import Subject, features_of


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        data_set: which.
        subjects: data set -> how it is read.
        seeds: numbers of the runs: folds, or splits of the training images.
        validation_share: of the training samples, where there are no folds.
        penalty: of the ridge classifier, on standardised features.
        most: training samples of a probe, drawn at random; more are not needed.
    """

    data_set: str
    subjects: dict[str, Subject]
    seeds: list[int]
    validation_share: float
    penalty: float
    most: int


def run(settings: Settings, context: Context) -> Measurement:
    """Rows `probe_accuracy` by layer and run, `layer_size` (root mean square of a layer's features), and the sizes of the data.

    The probe trains on training and validation samples together, as it chooses nothing.
    """
    features = features_of(settings.data_set, settings.subjects[settings.data_set], context)
    measurement = Measurement()
    measurement.add("samples", len(features.labels))
    measurement.add("layers", features.layers)
    measurement.add("width", features.width)
    measurement.add("classes", features.classes)
    labels = features.labels.cpu().numpy()
    splits = splits_of(features, settings.seeds, settings.validation_share)
    progress = context.progress(features.layers)
    for layer in range(features.layers):
        x = features.X[:, layer].float().cpu().numpy()
        measurement.add("layer_size", np.sqrt(np.square(x, dtype=np.float64).mean()), layer=layer + 1)
        for split in splits:
            seen = np.concatenate([split.train, split.validation])
            seen = np.random.default_rng(settings.seeds[split.number]).permutation(seen)[: settings.most]
            probe = make_pipeline(StandardScaler(), RidgeClassifier(alpha=settings.penalty)).fit(x[seen], labels[seen])
            accuracy = 100 * accuracy_score(labels[split.test], probe.predict(x[split.test]))
            measurement.add("probe_accuracy", accuracy, unit="%", layer=layer + 1, run=split.number)
        progress.step(f"layer {layer + 1}")
    return measurement


if __name__ == "__main__":
    main(run, Settings)
