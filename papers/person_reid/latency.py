"""How long does a forward pass take, as a ratio to the plain network timed in the same run?"""

import torch

from common.configuration import Parameters
from common.experiment import Context, Measurement, main
from papers.person_reid.forward_time import Mode, Precision, Repeats, forward_times, multiply_adds
from papers.person_reid.layouts import name_of
from papers.person_reid.methods import Method, attention_of, backbone_of, chosen_layouts
from papers.person_reid.network import Backbone
from papers.person_reid.training import Job, make_network

PLAIN = "plain"


class Timing(Parameters):
    """One way of timing all networks.

    Attributes:
        device: `cuda` ways are left out where the cell runs on the CPU.
        mode: eager, or a CUDA graph.
        precision: of parameters and images.
        batches: numbers of images.
        threads: of the CPU; 0 leaves them as they are.
        repeats: of each network.
    """

    device: str
    mode: Mode
    precision: Precision
    batches: list[int]
    threads: int = 0
    repeats: Repeats


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        subject: a name in `backbones`.
        backbones: which ResNet, at which size.
        methods: name -> network; `plain` is what ratios refer to.
        timings: subject -> the ways of timing.
    """

    subject: str
    backbones: dict[str, Backbone]
    methods: dict[str, Method]
    timings: dict[str, list[Timing]]


def run(settings: Settings, context: Context) -> Measurement:
    """Count and time.

    Rows by method: `multiply_adds`, `multiply_adds_over_plain`, `parameters`; by `device`, `mode`, `precision` and `batch`
    `latency` (median), `latency_lower` and `latency_upper` (quartiles), `latency_ratio` (of medians, to plain).
    """
    measurement = Measurement()
    backbone = settings.backbones[settings.subject]
    (best,) = chosen_layouts(context.results_of("search"), "best")
    generator = torch.Generator().manual_seed(0)
    networks, counts = {}, {}
    for name, method in settings.methods.items():
        attention = attention_of(method, backbone, best)
        networks[name] = make_network(Job(name, backbone_of(method, backbone), attention, 0), 2).eval()
        counts[name] = multiply_adds(networks[name], torch.randn(1, 3, *backbone.size, generator=generator))
        size = sum(x.numel() for key, x in networks[name].named_parameters() if not key.startswith("classifier"))
        measurement.add("parameters", size / 1e6, "million", method=name, layout=name_of(attention))
        measurement.add("multiply_adds", counts[name] / 1e6, "million", method=name, layout=name_of(attention))
    for name, count in counts.items():
        measurement.add("multiply_adds_over_plain", count / counts[PLAIN], method=name)
    ways = [way for way in settings.timings[settings.subject] if context.device == "cuda" or way.device == "cpu"]
    progress = context.progress(sum(len(way.batches) for way in ways))
    before = torch.get_num_threads()
    for way in ways:
        if way.threads:
            torch.set_num_threads(way.threads)
        for batch in way.batches:
            images = torch.randn(batch, 3, *backbone.size, generator=generator)
            times = forward_times(
                networks, images, device=way.device, mode=way.mode, precision=way.precision, repeats=way.repeats
            )
            place = {"device": way.device, "mode": way.mode, "precision": way.precision, "batch": batch}
            for name, found in times.items():
                measurement.add("latency", found.median, "ms", method=name, timing=True, **place)
                measurement.add("latency_lower", found.lower, "ms", method=name, timing=True, **place)
                measurement.add("latency_upper", found.upper, "ms", method=name, timing=True, **place)
                ratio = found.median / times[PLAIN].median
                measurement.add("latency_ratio", ratio, method=name, timing=True, **place)
            progress.step(f"{way.device} {way.mode} {way.precision} batch {batch}")
        torch.set_num_threads(before)
    return measurement


if __name__ == "__main__":
    main(run, Settings)
