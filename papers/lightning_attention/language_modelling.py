"""From settings to trained and tested language models of bytes: what the experiments on quality share.

Tokens are bytes. With the 49,152 tokens of SmolLM2 embedding and head would be larger than all blocks, and the ten books would
make some 2.6 million tokens, so that 100 million are 40 passes; as bytes they are ten. A model predicts the next byte.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import cache
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from common.configuration import Parameters
from common.data.texts import load_text
from common.errors import InputError
from common.experiment import Context, Measurement
from common.training import DataParallel, Recipe, Replica, evenly_spaced, order_of_data, train
from papers.lightning_attention.llama_twin import LlamaShape, LlamaTwin
from papers.lightning_attention.transnormer_llm import Shape, TransNormerLLM

Model = Literal["transnormer_llm", "llama"]
LanguageModel = TransNormerLLM | LlamaTwin

VOCABULARY = 256
TOKENS_AT_ONCE = 65536
"""Of evaluation: bounds its memory."""


class LearningSettings(Parameters):
    """What the experiments on quality have in common.

    Attributes:
        transnormer_llm: sizes of TransNormerLLM.
        llama: sizes of its softmax twin.
        recipe: how to optimise.
        steps: of a training.
        length: tokens a training sequence.
        compile: whether blocks are compiled.
        curve_rows: of a learning curve.
        training_texts: names of texts that are trained on.
        validation_text: for the learning curve.
        validation_windows: of the training length, spread over the validation text.
        test_texts: read once, at the end.
        spans: of every test text, spread over it: the items of the statistics.
        span_length: tokens a span; test lengths divide it.
    """

    transnormer_llm: Shape
    llama: LlamaShape
    recipe: Recipe
    steps: int = Field(ge=1)
    length: int = Field(ge=1)
    compile: bool
    curve_rows: int = Field(ge=1)
    training_texts: list[str]
    validation_text: str
    validation_windows: int = Field(ge=1)
    test_texts: list[str]
    spans: int = Field(ge=1)
    span_length: int = Field(ge=1)


def make_model(
    model: Model, settings: LearningSettings, *, seed: int, changes: Mapping[str, object] | None = None
) -> LanguageModel:
    """An untrained model on the CPU.

    Args:
        model: which of the two.
        settings: their sizes.
        seed: of the initial weights.
        changes: fields of its shape that differ from `settings`.

    Raises:
        pydantic.ValidationError: `changes` do not fit the shape.
    """
    if model == "llama":
        return LlamaTwin(LlamaShape.model_validate({**settings.llama.model_dump(), **(changes or {})}), seed=seed)
    return TransNormerLLM(Shape.model_validate({**settings.transnormer_llm.model_dump(), **(changes or {})}), seed=seed)


def compile_blocks(network: LanguageModel) -> None:
    """Compile every block of a network, each whole: equal blocks share one compilation."""
    torch.compiler.reset()  # an earlier length or variant would count towards the limit of compilations
    for block in network.blocks:
        block.compile(fullgraph=True, dynamic=False)


@cache
def bytes_of(name: str) -> Tensor:
    """A text as uint8 [N], with the line wraps of books undone. Raises DataError when it cannot be had."""
    return torch.frombuffer(bytearray(load_text(name, unwrap=True).text.encode("utf-8")), dtype=torch.uint8)


def adjacent_windows(tokens: Tensor, length: int) -> Tensor:
    """All windows of a text, uint8 [W, length + 1]: a window's last token is the first of the next, so each is predicted once.

    Raises:
        InputError: the text is shorter than one window.
    """
    if len(tokens) <= length:
        raise InputError(f"The text has {len(tokens)} bytes, and a window takes {length + 1}; give a longer text.")
    return tokens.unfold(0, length + 1, length).contiguous()


def spread_windows(tokens: Tensor, length: int, count: int) -> Tensor:
    """`count` windows [count, length + 1] that begin at equal distances; they do not overlap but by their last token.

    Raises:
        InputError: the text is too short for so many.
    """
    if count * length + 1 > len(tokens):
        raise InputError(f"{count} windows of {length} bytes do not fit a text of {len(tokens)}; take fewer or shorter ones.")
    distance = (len(tokens) - 1 - length) // max(count - 1, 1)
    return torch.stack([tokens[number * distance :][: length + 1] for number in range(count)])


def next_byte_loss(network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """Mean negative log-likelihood, nats a byte, of windows [B, N + 1]: the form that a `Replica` takes."""
    windows = batch[0].long()
    logits = network(windows[:, :-1])
    return cross_entropy(logits.flatten(0, 1).float(), windows[:, 1:].flatten())


@torch.no_grad()
def mean_losses(network: nn.Module, spans: Tensor, length: int, settings: LearningSettings) -> Tensor:
    """Mean negative log-likelihood of every span, read in windows of `length`: the same bytes are predicted at every length.

    Compiled blocks run as they are written: a compilation for every shape would take longer.

    Args:
        network: on the device of `spans`.
        spans: uint8 [S, L + 1].
        length: tokens a window; divides L.
        settings: say whether blocks are compiled, and the precision.

    Returns:
        float64 [S] on the CPU, nats a byte.

    Raises:
        InputError: `length` does not divide L.
    """
    count, size = len(spans), spans.shape[1] - 1
    if size % length:
        raise InputError(f"length = {length} does not divide the {size} bytes of a span; give one that does.")
    windows = torch.stack([adjacent_windows(span, length) for span in spans]).flatten(0, 1)
    losses = []
    for part in windows.split(max(1, TOKENS_AT_ONCE // length)):
        part = part.long()
        stance = torch.compiler.set_stance("force_eager") if settings.compile else nullcontext()
        with stance, torch.autocast(part.device.type, torch.bfloat16, enabled=settings.recipe.precision == "bfloat16"):
            logits = network(part[:, :-1])
        losses.append(cross_entropy(logits.transpose(1, 2).float(), part[:, 1:], reduction="none").double().sum(1))
    return (torch.cat(losses).view(count, -1).sum(1) / size).cpu()


def operations_per_token(network: LanguageModel, length: int) -> float:
    """Floating-point operations of forward and backward, a token, that the definition asks for; nothing is computed twice.

    Two a parameter of a matrix product and token, and the products of the attention: over the causal half of the scores for
    softmax, writing and reading the state for linear attention. Backward is twice as much.
    """
    embedding = next(module for module in network.modules() if isinstance(module, nn.Embedding))
    matrices = sum(parameter.numel() for parameter in network.parameters() if parameter.ndim == 2) - embedding.weight.numel()
    shape = network.shape
    if isinstance(network, LlamaTwin):
        attention = 2.0 * length * shape.width * shape.layers
    else:
        head = shape.width // shape.heads
        states = sum(shape.width * head * (2 if network.shape.rotates(layer) else 1) for layer in range(shape.layers))
        attention = 4.0 * states
    return 3 * (2 * matrices + attention)


def training_windows(settings: LearningSettings, device: torch.device | str) -> Tensor:
    """The training texts one after the other, in windows, uint8 [W, length + 1] on the device."""
    return adjacent_windows(torch.cat([bytes_of(name) for name in settings.training_texts]), settings.length).to(device)


def replica_of(
    name: str,
    network: LanguageModel,
    settings: LearningSettings,
    windows: Tensor,
    *,
    steps: int,
    order_seed: int,
    parallel: DataParallel | None = None,
) -> Replica:
    """A replica that trains a network on windows; the network moves to their device, and is compiled where settings say so."""
    network.to(windows.device)
    if settings.compile:
        compile_blocks(network)
    return Replica(
        name,
        network,
        settings.recipe,
        loss=next_byte_loss,
        buckets={settings.length: (windows,)},
        steps=steps,
        order_seed=order_seed,
        curve_steps=evenly_spaced(steps, settings.curve_rows),
        parallel=parallel,
    )


def validation_of(settings: LearningSettings, device: torch.device | str) -> Callable[[Replica], dict[str, float]]:
    """What a row of a learning curve gets: the loss on the validation text, and the seconds that this took."""
    windows = spread_windows(bytes_of(settings.validation_text), settings.length, settings.validation_windows).to(device)

    def validate(replica: Replica) -> dict[str, float]:
        begun = time.monotonic()
        loss = float(mean_losses(replica.network, windows, settings.length, settings).mean())
        return {"validation_loss": loss, "evaluation_seconds": time.monotonic() - begun}

    return validate


def learn(
    settings: LearningSettings,
    networks: Mapping[int, LanguageModel],
    method: str,
    context: Context,
    measurement: Measurement,
    *,
    steps: int | None = None,
) -> None:
    """Train networks side by side, and add their learning curves, the order of their data, and how fast it went.

    Rows by `tokens` seen, a seed each: `training_loss` (mean since the last row; none after training diverged),
    `validation_loss`. Of all together: `tokens_per_second`, without evaluation.

    Args:
        settings: see `LearningSettings`.
        networks: seed -> untrained network; the seed orders the data, too.
        method: of the rows.
        context: of the cell.
        measurement: gets the rows.
        steps: other than those of the settings.
    """
    s, steps = settings, steps or settings.steps
    windows = training_windows(s, context.device)
    replicas = {
        seed: replica_of(f"seed {seed}", network, s, windows, steps=steps, order_seed=seed)
        for seed, network in networks.items()
    }
    progress = context.progress(steps * len(replicas))
    validate = validation_of(s, context.device)
    curves = train(list(replicas.values()), evaluate=validate, checkpoints=context.checkpoints, progress=progress)
    for seed, replica in replicas.items():
        for row in curves[replica.name]:
            place = {"seed": seed, "tokens": row["examples"] * s.length}
            if math.isfinite(row["loss"]):
                measurement.add("training_loss", row["loss"], "nat/byte", method=method, **place)
            if math.isfinite(row["validation_loss"]):
                measurement.add("validation_loss", row["validation_loss"], "nat/byte", method=method, **place)
        order = order_of_data({s.length: (windows,)}, s.recipe.batch_size, seed, steps)[:, 1:]
        measurement.arrays[f"order_{seed}"] = order.to(torch.int32).numpy()
    seconds = max(curve[-1]["seconds"] for curve in curves.values())
    # The last evaluation comes after the last row's clock was read.
    seconds -= sum(row["evaluation_seconds"] for curve in curves.values() for row in curve[:-1])
    tokens = steps * s.recipe.batch_size * s.length * len(replicas)
    measurement.add("tokens_per_second", tokens / seconds, "1/s", method=method, timing=True, replicas=len(replicas))


def held_out_spans(settings: LearningSettings, device: torch.device | str) -> dict[str, Tensor]:
    """Test text -> its spans, uint8 [spans, span_length + 1] on the device."""
    s = settings
    return {name: spread_windows(bytes_of(name), s.span_length, s.spans).to(device) for name in s.test_texts}


def matrix_peak(device: str, peaks: Mapping[str, float]) -> float | None:
    """Operations a second of the first entry of `peaks` whose name begins the device's; None on the CPU and other devices."""
    if device != "cuda":
        return None
    name = torch.cuda.get_device_name()
    return next((1e12 * peak for begin, peak in peaks.items() if name.startswith(begin)), None)


def perplexity(losses: Sequence[float]) -> float:
    """The exponential of a mean loss."""
    return math.exp(sum(losses) / len(losses))
