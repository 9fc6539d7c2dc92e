"""The paper's four data sets, which the user brings: TextVQA-X, VizWiz-VQA-Grounding, VQS, VQA-X.

At the other scales the same code reads made-up files in the same layouts: it proves the way, and says nothing.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from common.configuration import Parameters
from common.data.answer_grounding.generated import DataSetName, write_generated
from common.data.answer_grounding.questions import GroundedQuestion, read_pair
from common.data.answer_grounding.textvqa_x import load_textvqa_x
from common.data.answer_grounding.vizwiz import load_vizwiz
from common.data.answer_grounding.vqa_x import load_vqa_x
from common.data.answer_grounding.vqs import load_vqs
from common.errors import ConfigError
from common.experiment import Context, Measurement, main
from common.language_models.sentence_encoder import embed
from common.metrics.masks import Overlap, cumulative_iou, mean_iou, overlap
from common.training import derived_seed
from papers.sentence_attention.augmentation import IGNORED, Labelled, for_testing, for_training, labelled
from papers.sentence_attention.backbones import make_backbone
from papers.sentence_attention.decoder import Decoder
from papers.sentence_attention.emoji_ground import TextMode
from papers.sentence_attention.grounder import Grounder
from papers.sentence_attention.losses import cross_entropy_and_dice
from papers.sentence_attention.other_gates import Text
from papers.sentence_attention.training import GroundingRecipe
from papers.sentence_attention.variants import WITH_TOKENS, make_gates

FOLDER = "answer_grounding"
BACKBONES = "backbones"
GENERATED = 12
"""Questions a split of made-up files."""

READERS: dict[DataSetName, Callable[[Path], tuple[list[GroundedQuestion], list[GroundedQuestion]]]] = {
    "vizwiz": lambda root: (load_vizwiz(root, "train"), load_vizwiz(root, "val")),
    "textvqa_x": lambda root: (load_textvqa_x(root, "train"), load_textvqa_x(root, "val")),
    "vqs": lambda root: (load_vqs(root, "train"), load_vqs(root, "val")),
    "vqa_x": lambda root: (load_vqa_x(root, "val"), load_vqa_x(root, "test")),
}
"""Name -> questions to train on and to test on. VQA-X has no masks for training, so that its validation part serves."""


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        data_set: which.
        variant: of `variants`, without those that read tokens.
        source: made-up files, or `$REATTEND_DATA/answer_grounding/<data set>`.
        text: question, answer, or both.
        backbone: of timm.
        weights: file below `$REATTEND_DATA/backbones`, "registry" for those of the registry, "none" for none.
        seeds: of initial parameters, order, augmentation and dropout.
        epochs: of training.
        warmup_epochs: of the learning rate.
        batch: photographs a step.
        side: of a training crop.
        test_side: of a test image.
        learning_rate: of all parameters.
        weight_decay: of all parameters.
        dropout: before the classifier.
        workers: processes that read photographs.
        precision: of forward and backward.
    """

    data_set: DataSetName
    variant: str
    source: Literal["generated", "brought"]
    text: TextMode
    backbone: str
    weights: str
    seeds: list[int]
    epochs: int
    warmup_epochs: int
    batch: int
    side: int
    test_side: int
    learning_rate: float
    weight_decay: float
    dropout: float
    workers: int
    precision: Literal["float32", "bfloat16"]


class Photographs(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Photographs, labels and sentence vectors; the same for the same seed and epoch.

    Args:
        questions: of a split.
        vectors: float32 [n, E].
        side: of the square.
        seed: of the augmentation; None: as in testing.
    """

    def __init__(self, questions: list[GroundedQuestion], vectors: np.ndarray, side: int, seed: int | None):
        self.questions, self.vectors, self.side, self.seed = questions, torch.from_numpy(vectors), side, seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        one = labelled(*read_pair(self.questions[number]))
        if self.seed is None:
            one = for_testing(one, self.side)
        else:
            generator = np.random.default_rng(derived_seed(self.seed, "augmentation", self.epoch, number))
            one = for_training(one, self.side, generator)
        assert isinstance(one, Labelled)
        return one.pixels, one.label, self.vectors[number]


@contextmanager
def folder_of(settings: Settings) -> Iterator[Path]:
    """Where the data set lies: made-up files are removed at the end."""
    if settings.source == "brought":
        yield Path(os.environ.get("REATTEND_DATA", ".")).expanduser() / FOLDER / settings.data_set
        return
    with tempfile.TemporaryDirectory() as folder:
        write_generated(Path(folder), settings.data_set, GENERATED, seed=0)
        yield Path(folder)


def sentence_of(one: GroundedQuestion, mode: TextMode) -> str:
    """The text that the network reads."""
    return {"q": one.question, "a": one.answer, "qa": f"{one.question} {one.answer}"}[mode]


def make_network(settings: Settings, E: int, seed: int) -> Grounder:
    """The network in its initial state. Raises ConfigError and DataError as its parts do."""
    if settings.variant in WITH_TOKENS:
        raise ConfigError(f"variant = {settings.variant!r} reads tokens, which EmojiGround alone has; choose another.")
    brought = Path(os.environ.get("REATTEND_DATA", ".")).expanduser() / BACKBONES / settings.weights
    named = settings.weights in ("none", "registry")
    with torch.random.fork_rng([]):
        torch.manual_seed(derived_seed(seed, "parameters"))
        taps = make_backbone(settings.backbone, pretrained=settings.weights != "none", weights=None if named else brought)
        channels = taps.feature_info.channels()
        gates = make_gates(settings.variant, E, channels)
        decoder = Decoder(channels, dropout=settings.dropout, seed=derived_seed(seed, "dropout"))
    return Grounder(taps, gates, decoder, normalisation="instance", backbone_name=settings.backbone)


def train_one(settings: Settings, network: Grounder, photographs: Photographs, seed: int, context: Context) -> None:
    """Train for all epochs; a checkpoint after each of them is resumed."""
    device = context.device
    batch = min(settings.batch, len(photographs))
    steps = len(photographs) // batch
    recipe = GroundingRecipe(
        optimiser="adamw",
        learning_rate=settings.learning_rate,
        batch_size=batch,
        weight_decay=settings.weight_decay,
        warmup_steps=settings.warmup_epochs * steps,
        final_factor=1e-3,
    )
    rate = torch.zeros((), device=device)
    optimiser = recipe.make_optimiser(network, rate)
    name, first = f"seed {seed}", 0
    state = context.checkpoints.load(name) if context.checkpoints is not None else None
    if state is not None:
        network.load_state_dict(state["network"])
        optimiser.load_state_dict({**optimiser.state_dict(), "state": state["optimiser"]})
        first = state["epoch"]
    network.train()
    progress = context.progress(settings.epochs)
    for epoch in range(first, settings.epochs):
        photographs.epoch = epoch
        order = torch.randperm(len(photographs), generator=torch.Generator().manual_seed(derived_seed(seed, "order", epoch)))
        loader = DataLoader(photographs, batch_size=batch, sampler=order.tolist(), drop_last=True, num_workers=settings.workers)
        for number, (pixels, label, vectors) in enumerate(loader):
            rate.fill_(recipe.rate(epoch * steps + number, settings.epochs * steps))
            label = label.to(device)
            with torch.autocast(device, torch.bfloat16, enabled=settings.precision == "bfloat16"):
                logits = network(pixels.to(device), Text(vectors.to(device)))
            loss = cross_entropy_and_dice(logits, label == 1, label != IGNORED)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        if context.checkpoints is not None:
            kept = {"network": network.state_dict(), "optimiser": optimiser.state_dict()["state"], "epoch": epoch + 1}
            context.checkpoints.save(name, kept)
        progress.step(f"seed {seed}, epoch {epoch + 1}")
    network.eval()


@torch.inference_mode()
def test_one(settings: Settings, network: Grounder, photographs: Photographs, context: Context) -> Overlap:
    """Pixels of every test question; padding is left out."""
    counts = []
    for pixels, label, vectors in DataLoader(photographs, batch_size=settings.batch, num_workers=settings.workers):
        with torch.autocast(context.device, torch.bfloat16, enabled=settings.precision == "bfloat16"):
            logits = network(pixels.to(context.device), Text(vectors.to(context.device)))
        counts.append(overlap((logits[:, 1] > logits[:, 0]).cpu(), label == 1, label != IGNORED))
    return Overlap(*(torch.cat(parts) for parts in zip(*counts, strict=True)))


test_one.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]  # not a test, whatever pytest takes its name for


def run(settings: Settings, context: Context) -> Measurement:
    """Train with every seed and test: rows `iou_mean` and `iou_cum`, and `questions` of both parts."""
    measurement = Measurement()
    with folder_of(settings) as root:
        train, test = READERS[settings.data_set](root)
        sentences = [sentence_of(one, settings.text) for one in (*train, *test)]
        vectors = embed(sentences, context.device)
        for seed in settings.seeds:
            network = make_network(settings, vectors.shape[1], seed).to(context.device)
            train_one(settings, network, Photographs(train, vectors[: len(train)], settings.side, seed), seed, context)
            tested = Photographs(test, vectors[len(train) :], settings.test_side, None)
            counts = test_one(settings, network, tested, context)
            measurement.add("iou_mean", mean_iou(counts), method=settings.variant, seed=seed)
            measurement.add("iou_cum", cumulative_iou(counts), method=settings.variant, seed=seed)
        for part, questions in (("train", train), ("test", test)):
            measurement.add("questions", len(questions), "questions", part=part)
    return measurement


if __name__ == "__main__":
    main(run, Settings)
