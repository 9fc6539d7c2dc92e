"""Training on EmojiGround: seeds side by side, each step some scenes with all their questions; and prediction."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor, nn

from common.configuration import Parameters
from common.experiment import Context
from common.metrics.masks import Overlap, overlap
from common.training import Recipe, Replica, derived_seed, train
from papers.sentence_attention.backbones import make_backbone
from papers.sentence_attention.decoder import Decoder
from papers.sentence_attention.grounder import Grounder, Normalisation
from papers.sentence_attention.losses import cross_entropy_and_dice
from papers.sentence_attention.rendering import mask_of
from papers.sentence_attention.subjects import Painting, Sentences
from papers.sentence_attention.variants import WITH_TOKENS, make_gates

PREDICTED = 250
"""Images at once: bounds memory."""


class TwoRates(torch.optim.AdamW):
    """AdamW whose backbone learns at a share of the rate.

    Args:
        network: with a `backbone`.
        rate: float32 without dimensions; read at every step.
        share: of the rate, for the backbone.
        **options: of AdamW.
    """

    def __init__(self, network: Grounder, rate: Tensor, share: float, **options):
        slow = {id(parameter) for parameter in network.backbone.parameters()}
        groups = [
            {"params": [x for x in network.parameters() if (id(x) in slow) == backbone], "lr": rate}
            for backbone in (False, True)
        ]
        super().__init__(groups, lr=rate, **options)
        self._rate, self._share, self._slow = rate, share, torch.zeros_like(rate)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step of all parameters."""
        self._slow.copy_(self._rate * self._share)
        for group, rate in zip(self.param_groups, (self._rate, self._slow), strict=True):
            group["lr"] = rate  # a resumed training has put others here
        return super().step(closure)


class GroundingRecipe(Recipe):
    """AdamW as the authors' training code has it: one weight decay for all parameters, polynomial decay after a warm-up.

    Attributes:
        backbone_share: learning rate of the backbone over that of the rest.
        exponent: of the polynomial.
    """

    backbone_share: float = Field(default=1.0, gt=0)
    exponent: float = Field(default=0.9, gt=0)

    def rate(self, step: int, steps: int) -> float:
        """See `Recipe.rate`."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        left = 1 - (step - self.warmup_steps) / max(steps - self.warmup_steps, 1)
        return self.learning_rate * max(left**self.exponent, self.final_factor)

    def make_optimiser(self, network: nn.Module, rate: Tensor) -> torch.optim.Optimizer:
        """See `Recipe.make_optimiser`."""
        assert isinstance(network, Grounder)
        fused = rate.device.type == "cuda"
        return TwoRates(
            network, rate, self.backbone_share, betas=self.betas, weight_decay=self.weight_decay, fused=fused, capturable=fused
        )


class Fitting(Parameters):
    """How to train.

    Attributes:
        learning_rate: of gates and decoder.
        backbone_share: that of the backbone over it.
        weight_decay: of all parameters.
        scenes: of a step; each with all its questions.
        steps: how many.
        warmup: share of the steps.
        dropout: before the classifier.
        precision: of forward and backward.
        normalisation: of images, see `Grounder`.
    """

    learning_rate: float
    backbone_share: float
    weight_decay: float
    scenes: int
    steps: int
    warmup: float
    dropout: float
    precision: str = Field(pattern="^(float32|bfloat16)$")
    normalisation: Normalisation


class Backbone(Parameters):
    """Which backbone.

    Attributes:
        name: of timm.
        pretrained: on ImageNet, or as initialised.
    """

    name: str
    pretrained: bool


@dataclass(frozen=True)
class Plan:
    """A training.

    Attributes:
        variant: of `variants`.
        backbone: which.
        fitting: how.
        seeds: of initial parameters, order and dropout.
    """

    variant: str
    backbone: Backbone
    fitting: Fitting
    seeds: Sequence[int]

    @property
    def reads_tokens(self) -> bool:
        """Whether the gates read tokens."""
        return self.variant in WITH_TOKENS


def make_grounder(variant: str, backbone: Backbone, fitting: Fitting, E: int, seed: int) -> Grounder:
    """A network in its initial state, the same for the same seed. Raises ConfigError and DataError as its parts do."""
    with torch.random.fork_rng([]):
        torch.manual_seed(derived_seed(seed, "parameters"))
        taps = make_backbone(backbone.name, pretrained=backbone.pretrained)
        channels = taps.feature_info.channels()
        gates = make_gates(variant, E, channels)
        decoder = Decoder(channels, dropout=fitting.dropout, seed=derived_seed(seed, "dropout"))
    return Grounder(taps, gates, decoder, normalisation=fitting.normalisation, backbone_name=backbone.name)


def fit(plan: Plan, painting: Painting, numbers: Tensor, sentences: Sentences, context: Context) -> list[Grounder]:
    """Train one network a seed, all at once, for a fixed number of steps.

    Args:
        plan: what to train.
        painting: training scenes.
        numbers: int64 [N, Q], rows of their questions in `sentences`.
        sentences: encoded.
        context: of the cell.

    Returns:
        Networks in evaluation mode.
    """
    fitting, device = plan.fitting, painting.images.device
    recipe = GroundingRecipe(
        optimiser="adamw",
        learning_rate=fitting.learning_rate,
        backbone_share=fitting.backbone_share,
        batch_size=fitting.scenes,
        weight_decay=fitting.weight_decay,
        warmup_steps=max(1, round(fitting.warmup * fitting.steps)),
        final_factor=1e-3,
        precision="bfloat16" if fitting.precision == "bfloat16" else "float32",
    )

    def loss(network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        images, slots, targets, rows = batch
        logits = network(images, sentences.text(rows.flatten(), tokens=plan.reads_tokens))
        masks = mask_of(slots[:, None], targets).flatten(0, 1)
        return cross_entropy_and_dice(logits, masks)

    E = sentences.vectors.shape[1]
    networks = [make_grounder(plan.variant, plan.backbone, fitting, E, seed).to(device) for seed in plan.seeds]
    buckets = {0: (painting.images, painting.slots, painting.targets, numbers.to(device))}
    replicas = [
        Replica(f"seed {seed}", network, recipe, loss=loss, buckets=buckets, steps=fitting.steps, order_seed=seed)
        for seed, network in zip(plan.seeds, networks, strict=True)
    ]
    # Without this, convolutions may choose algorithms whose sums differ from run to run.
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        # Without checkpoints: they would take longer than the seconds of training that they save.
        train(replicas, progress=context.progress(fitting.steps * len(replicas)))
    finally:
        torch.backends.cudnn.deterministic = before
    return networks


@dataclass(frozen=True)
class Predicted:
    """What a network says of the first question of every scene.

    Attributes:
        counts: of pixels.
        masks: bool [first, H, W], of the first scenes.
    """

    counts: Overlap
    masks: Tensor


@torch.inference_mode()
def predict(
    network: Grounder, painting: Painting, numbers: Tensor, sentences: Sentences, plan: Plan, *, keep: int = 0
) -> Predicted:
    """Masks where grounding is likelier than background, compared with the true ones.

    Args:
        network: in evaluation mode.
        painting: test scenes with one question each.
        numbers: int64 [N, 1], rows of their questions.
        sentences: encoded.
        plan: by which the network was trained.
        keep: of the first so many scenes masks are kept.
    """
    counts: list[Overlap] = []
    kept: list[Tensor] = []
    for start in range(0, len(painting.images), PREDICTED):
        part = slice(start, start + PREDICTED)
        images = painting.images[part]
        text = sentences.text(numbers[part, 0].to(images.device), tokens=plan.reads_tokens)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=plan.fitting.precision == "bfloat16"):
            logits = network(images, text)
        masks = logits[:, 1] > logits[:, 0]
        counts.append(overlap(masks, mask_of(painting.slots[part], painting.targets[part, 0])))
        if start < keep:
            kept.append(masks[: keep - start])
    joined = Overlap(*(torch.cat(parts) for parts in zip(*counts, strict=True)))
    return Predicted(joined, torch.cat(kept) if kept else torch.zeros(0, *painting.slots.shape[1:], dtype=torch.bool))
