"""What does each gate cost: milliseconds for an image, parameters?"""

import torch

from common.configuration import Parameters
from common.experiment import Context, Measurement, main
from common.timing import median_milliseconds
from papers.sentence_attention.other_gates import Text
from papers.sentence_attention.training import Backbone, Fitting, make_grounder
from papers.sentence_attention.variants import WITH_TOKENS

E = 384


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        variants: of `variants`.
        backbone: of all.
        fitting: whose precision and normalisation are used.
        canvas: side of an image.
        batches: images at once.
        tokens: of a sentence, for the gates that read them.
        repeat_milliseconds: of each timing.
        rounds: the variants are timed one after the other, so often.
    """

    variants: list[str]
    backbone: Backbone
    fitting: Fitting
    canvas: int
    batches: list[int]
    tokens: int
    repeat_milliseconds: int
    rounds: int


@torch.inference_mode()
def run(settings: Settings, context: Context) -> Measurement:
    """Rows: `time_per_image` by batch and round (the sentence is encoded already), `gate_parameters` and `parameters`."""
    measurement = Measurement()
    device = context.device
    networks = {
        name: make_grounder(name, settings.backbone, settings.fitting, E, seed=0).to(device).eval()
        for name in settings.variants
    }
    for name, network in networks.items():
        measurement.add("gate_parameters", sum(x.numel() for x in network.gates.parameters()), "parameters", method=name)
        measurement.add("parameters", sum(x.numel() for x in network.parameters()), "parameters", method=name)
    generator = torch.Generator().manual_seed(0)
    progress = context.progress(settings.rounds * len(settings.batches) * len(networks))
    for batch in settings.batches:
        shape = (batch, 3, settings.canvas, settings.canvas)
        images = torch.randint(0, 256, shape, generator=generator).to(device, torch.uint8)
        tokens = torch.randn(batch, settings.tokens, E, generator=generator).to(device)
        present = torch.ones(batch, settings.tokens, dtype=torch.bool, device=device)
        vectors = torch.nn.functional.normalize(tokens.mean(1), dim=1)
        for timed in range(settings.rounds):
            for name, network in networks.items():
                text = Text(vectors, tokens, present) if name in WITH_TOKENS else Text(vectors)

                def once(network: torch.nn.Module = network, images: torch.Tensor = images, text: Text = text) -> None:
                    with torch.autocast(device, torch.bfloat16, enabled=settings.fitting.precision == "bfloat16"):
                        network(images, text)

                milliseconds = median_milliseconds(once, device, settings.repeat_milliseconds) / batch
                measurement.add("time_per_image", milliseconds, "ms", method=name, timing=True, batch=batch, round=timed)
                progress.step(f"{name}, {batch} images")
    return measurement


if __name__ == "__main__":
    main(run, Settings)
