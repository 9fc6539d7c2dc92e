"""Claims on the parts of TransNormerLLM (B, Tables 4 to 9) and on LA1 = LA2 (A, Table 2): small models, several seeds each."""

from typing import Any

from pydantic import Field

from common.configuration import Parameters
from common.errors import ConfigError
from common.experiment import Context, Measurement, main
from papers.lightning_attention.language_modelling import (
    LearningSettings,
    Model,
    held_out_spans,
    learn,
    make_model,
    mean_losses,
)


class Variant(Parameters):
    """A model that differs from the small TransNormerLLM.

    Attributes:
        model: which of the two.
        changes: fields of its shape.
        steps: of its training, where they differ from the others'.
    """

    model: Model = "transnormer_llm"
    changes: dict[str, Any] = Field(default_factory=dict)
    steps: int | None = None


class Settings(LearningSettings):
    """Axes and parameters of `config.yaml`.

    Attributes:
        variant: a key of `variants`.
        variants: see `Variant`.
        seeds: trainings of every variant, counted from 0.
    """

    variant: str
    variants: dict[str, Variant]
    seeds: int

    @property
    def chosen(self) -> Variant:
        """The variant of this cell. Raises ConfigError where `variants` lacks it."""
        if self.variant not in self.variants:
            raise ConfigError(f"variant = {self.variant!r} is not among variants: {', '.join(self.variants)}.")
        return self.variants[self.variant]


def run(settings: Settings, context: Context) -> Measurement:
    """Train a variant with every seed.

    Beyond the rows of `learn`: `parameters`, and for every seed `test_loss`, the mean over the spans of all test texts at the
    trained length.
    """
    measurement = Measurement()
    s, variant = settings, settings.chosen
    networks = {seed: make_model(variant.model, s, seed=seed, changes=variant.changes) for seed in range(s.seeds)}
    parameters = sum(parameter.numel() for parameter in networks[0].parameters())
    measurement.add("parameters", parameters, method=s.variant)
    learn(s, networks, s.variant, context, measurement, steps=variant.steps)
    spans = held_out_spans(s, context.device)
    for seed, network in networks.items():
        losses = [mean_losses(network, windows, s.length, s).mean() for windows in spans.values()]
        measurement.add("test_loss", sum(losses) / len(losses), "nat/byte", method=s.variant, seed=seed)
    return measurement


if __name__ == "__main__":
    main(run, Settings)
