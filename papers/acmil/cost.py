"""What does multiple branch attention cost beside ABMIL, and is ACMIL with one branch and no masking the same as ABMIL?"""

import torch
from torch.utils.flop_counter import FlopCounterMode

from common.configuration import Parameters
from common.experiment import Context, Measurement, main
from common.timing import median_milliseconds
from papers.acmil.models import Method, Sizes, make_model


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        extractor: a name in `widths`.
        widths: extractor -> features of an instance and L.
        D: hidden size of attention.
        instances: of the bag whose operations are counted and timed.
        methods: name -> method.
        repeat_milliseconds: how long a step is timed.
        seed: of the bag and the parameters.
    """

    extractor: str
    widths: dict[str, tuple[int, int]]
    D: int
    instances: int
    methods: dict[str, Method]
    repeat_milliseconds: int
    seed: int


def multiply_adds(model: torch.nn.Module, X: torch.Tensor, mask: torch.Tensor) -> int:
    """Multiply-adds of a forward pass without masking: half of what PyTorch counts as floating-point operations."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(X, mask)
    return counter.get_total_flops() // 2


def reduction_difference(X: torch.Tensor, mask: torch.Tensor, sizes: Sizes) -> float:
    """Greatest difference of logits and heat maps between ABMIL and ACMIL with M = 1, K = 0, equal parameters; float64."""
    abmil = make_model(Method(model="abmil"), sizes, X.shape[-1], 2).double()
    acmil = make_model(Method(model="acmil", M=1, K=0), sizes, X.shape[-1], 2).double()
    state = {name.replace("classifier.", "C_bag."): tensor for name, tensor in abmil.state_dict().items()}
    acmil.load_state_dict(state)
    with torch.inference_mode():
        ours, theirs = acmil(X.double(), mask, torch.tensor(0)), abmil(X.double(), mask)
    return max(float((ours[key] - theirs[key]).abs().max()) for key in ("logits", "attention"))


def run(settings: Settings, context: Context) -> Measurement:
    """Count and time.

    Rows by method: `multiply_adds` of a forward pass, `multiply_adds_over_abmil`, `step_time` (forward, loss, backward, AdamW);
    and `reduction_difference`.
    """
    measurement = Measurement()
    D_feat, L = settings.widths[settings.extractor]
    sizes = Sizes(L=L, D=settings.D)
    generator = torch.Generator().manual_seed(settings.seed)
    X = torch.randn(1, settings.instances, D_feat, generator=generator)
    mask, Y = torch.ones(1, settings.instances, dtype=torch.bool), torch.ones(1, dtype=torch.int64)
    counts = {}
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        for name, method in settings.methods.items():
            model = make_model(method, sizes, D_feat, 2)
            counts[name] = multiply_adds(model, X, mask)
            model.to(context.device)
            optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-5)
            bag = X.to(context.device), mask.to(context.device), torch.tensor(settings.seed, device=context.device)
            label = Y.to(context.device)

            def step(model=model, optimiser=optimiser, bag=bag, label=label) -> None:
                optimiser.zero_grad(set_to_none=True)
                model.loss(model(*bag), label).sum().backward()
                optimiser.step()

            milliseconds = median_milliseconds(step, context.device, settings.repeat_milliseconds)
            measurement.add("multiply_adds", counts[name] / 1e6, "million", method=name)
            measurement.add("step_time", milliseconds, "ms", method=name, timing=True)
        for name, count in counts.items():
            measurement.add("multiply_adds_over_abmil", count / counts["abmil"], method=name)
        measurement.add("reduction_difference", reduction_difference(X, mask, sizes))
    return measurement


if __name__ == "__main__":
    main(run, Settings)
