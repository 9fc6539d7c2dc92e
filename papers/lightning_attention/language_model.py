"""Claims on the model: TransNormerLLM beside a Llama of the same size, trained alike; and both beyond the trained length."""

from common.experiment import Context, Measurement, main
from papers.lightning_attention.language_modelling import (
    LearningSettings,
    Model,
    held_out_spans,
    learn,
    make_model,
    matrix_peak,
    mean_losses,
    operations_per_token,
    perplexity,
)


class Settings(LearningSettings):
    """Axes and parameters of `config.yaml`.

    Attributes:
        model: which of the two.
        seed: of weights and of the order of data.
        test_lengths: tokens a window in which the test spans are read.
        peak_teraflops: beginning of a device's name -> its greatest rate of bfloat16 products.
    """

    model: Model
    seed: int
    test_lengths: list[int]
    peak_teraflops: dict[str, float]


def run(settings: Settings, context: Context) -> Measurement:
    """Train the model; its loss on every test span at every length.

    Beyond the rows of `learn`: `parameters`, `negative_log_likelihood` by text, span and length, `perplexity` (a byte) by
    length, and on known devices `model_flops_utilisation`. The weights are kept as an artifact.
    """
    measurement = Measurement()
    s = settings
    network = make_model(s.model, s, seed=s.seed)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    measurement.add("parameters", parameters, method=s.model)
    learn(s, {s.seed: network}, s.model, context, measurement)
    rate = measurement.rows[-1].value
    peak = matrix_peak(context.device, s.peak_teraflops)
    if peak is not None:
        share = 100 * rate * operations_per_token(network, s.length) / peak
        measurement.add("model_flops_utilisation", share, "%", method=s.model, timing=True)
    spans = held_out_spans(s, context.device)
    progress = context.progress(len(s.test_lengths) * len(spans))
    for length in s.test_lengths:
        losses: list[float] = []
        for text, windows in spans.items():
            found = mean_losses(network, windows, length, s).tolist()
            for number, loss in enumerate(found):
                place = {"text": text, "span": number, "length": length}
                measurement.add("negative_log_likelihood", loss, "nat/byte", method=s.model, **place)
            losses += found
            progress.step(f"{text} in windows of {length}")
        measurement.add("perplexity", perplexity(losses), method=s.model, length=length)
    measurement.artifacts["weights"] = dict(network.state_dict())
    return measurement


if __name__ == "__main__":
    main(run, Settings)
