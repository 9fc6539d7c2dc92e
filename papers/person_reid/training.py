"""Trainings of networks side by side on one device, and the features and scores of what was trained."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from common.configuration import Parameters
from common.data.market1501 import ImageSet
from common.experiment import Context
from common.metrics.reidentification import QueryScores, cosine_distances, market_scores
from common.training import Loss, Recipe, Replica, derived_seed, evenly_spaced, train
from papers.person_reid.augmentation import augmented, normalised
from papers.person_reid.blocks import BlockName
from papers.person_reid.losses import batch_hard_triplet, smoothed_cross_entropy
from papers.person_reid.network import Backbone, Position, ReidNetwork
from papers.person_reid.sampling import identity_batches

IMAGES_AT_ONCE = 256  # for features


class Schedule(Parameters):
    """How networks are trained.

    Attributes:
        steps: batches.
        P: identities of a batch.
        K: images of each.
        learning_rate: after the warm-up.
        warm_up: share of the steps in which it rises.
        milestones: shares of the steps from which on it is a tenth.
        weight_decay: L2, on all parameters.
        epsilon: of label smoothing.
        margin: of the triplet loss.
        padding: pixels before a random crop.
        precision: of forward and backward.
        side_by_side: networks trained at one time.
    """

    steps: int = Field(ge=1)
    P: int = Field(ge=2)
    K: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    warm_up: float = Field(ge=0, lt=1)
    milestones: tuple[float, ...]
    weight_decay: float = Field(ge=0)
    epsilon: float = Field(ge=0, lt=1)
    margin: float = Field(ge=0)
    padding: int = Field(ge=0)
    precision: Literal["float32", "bfloat16"]
    side_by_side: int = Field(ge=1)

    @property
    def recipe(self) -> Recipe:
        """As the suite's loop reads it; one row of its buckets is a whole batch."""
        return Recipe(
            optimiser="adam",
            learning_rate=self.learning_rate,
            batch_size=1,
            precision=self.precision,
            schedule="steps",
            warmup_steps=round(self.warm_up * self.steps),
            weight_decay=self.weight_decay,
            milestones=self.milestones,
        )


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        method: its name in rows.
        backbone: which ResNet.
        attention: position -> block.
        seed: of parameters, batches and augmentation.
        weights: parameters of the ResNet to start from, by torchvision's names; None starts from random ones.
    """

    method: str
    backbone: Backbone
    attention: Mapping[Position, BlockName]
    seed: int
    weights: Mapping[str, Tensor] | None = None

    @property
    def name(self) -> str:
        """Of the training, unique in an experiment."""
        return f"{self.method} seed {self.seed}"


Scores = dict[str, list[float]]
"""Metric -> its numbers, one or one a part."""


def make_network(job: Job, identities: int) -> ReidNetwork:
    """The network of a job before its first step, on the CPU."""
    with torch.random.fork_rng([]):
        torch.manual_seed(derived_seed(job.seed, "parameters"))
        network = ReidNetwork(job.backbone, job.attention, identities)
    if job.weights is not None:
        missing = network.load_state_dict(dict(job.weights), strict=False).missing_keys
        assert all(key.split(".")[0] in ("attention", "neck", "classifier") for key in missing), missing
    return network


def bag_of_tricks(pixels: Tensor, labels: Tensor, schedule: Schedule) -> Loss:
    """The loss of a batch: L_id + L_triplet of augmented images.

    Args:
        pixels: uint8 [images, 3, H, W], all training images.
        labels: int64 [images], 0..identities - 1, on the same device.
        schedule: whose ε, margin and padding count.

    Returns:
        A function of a network and a batch, (rows int64 [1, P K], seed int64 [1]): one row of the buckets is a whole batch. It
        reads nothing back from the device and copies nothing to it.
    """

    def loss(network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        assert isinstance(network, ReidNetwork)
        rows, seed = batch[0][0], batch[1][0]
        target = labels[rows]
        f, logits = network.for_training(augmented(pixels[rows], seed, schedule.padding))
        with torch.autocast(pixels.device.type, enabled=False):
            return smoothed_cross_entropy(logits.float(), target, schedule.epsilon) + batch_hard_triplet(
                f.float(), target, schedule.margin
            )

    return loss


def train_all(
    jobs: Sequence[Job],
    images: ImageSet,
    schedule: Schedule,
    context: Context,
    after: Callable[[Job, ReidNetwork], Scores],
    *,
    label: str = "networks",
    curve: Callable[[ReidNetwork], float] | None = None,
    curve_rows: int = 1,
) -> dict[str, Scores]:
    """Train every job on the same images, and score it.

    After every group of networks that stand side by side their scores are kept, so that a killed process goes on from there.

    Args:
        jobs: with different names.
        images: to train on.
        schedule: of all jobs.
        context: of the cell.
        after: called with each trained network, in evaluation mode; returns its scores.
        label: of the checkpoints, where a cell trains more than once.
        curve: called during training, in evaluation mode; its numbers are the score `curve`.
        curve_rows: how often.

    Returns:
        Name of the job -> scores, with `loss` (mean since the last row of the curve), and `curve`, `curve_step` if asked for.
    """
    device = torch.device(context.device)
    pixels = torch.from_numpy(images.pixels).to(device)
    _, labels = np.unique(images.identities, return_inverse=True)
    loss = bag_of_tricks(pixels, torch.from_numpy(labels).to(device), schedule)
    identities = int(labels.max()) + 1
    found: dict[str, Scores] = {}
    progress = context.progress(len(jobs) * schedule.steps)

    def evaluate(replica: Replica) -> dict[str, float]:
        assert curve is not None
        assert isinstance(replica.network, ReidNetwork)
        return {"curve": curve(replica.network)}

    for start in range(0, len(jobs), schedule.side_by_side):
        group = jobs[start : start + schedule.side_by_side]
        kept_as = f"{label}_{start}"
        kept = context.checkpoints.load(kept_as) if context.checkpoints is not None else None
        if kept is not None and list(kept) == [job.name for job in group]:
            found |= kept
            progress.step("resumed", steps=len(group) * schedule.steps)
            continue
        replicas = []
        for job in group:
            rows = identity_batches(images.identities, schedule.P, schedule.K, schedule.steps, job.seed)
            seeds = torch.arange(schedule.steps) + derived_seed(job.seed, "augmentation") // 2
            network = make_network(job, identities).to(device)
            network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
            replicas.append(
                Replica(
                    job.name,
                    network,
                    schedule.recipe,
                    loss=loss,
                    buckets={0: (torch.from_numpy(rows).to(device), seeds.to(device))},
                    steps=schedule.steps,
                    order_seed=job.seed,
                    curve_steps=evenly_spaced(schedule.steps, curve_rows),
                )
            )
        with torch.backends.cudnn.flags(enabled=True, deterministic=True):
            curves = train(replicas, evaluate=evaluate if curve is not None else None, progress=progress)
            for job, replica in zip(group, replicas, strict=True):
                assert isinstance(replica.network, ReidNetwork)
                rows = curves[job.name]
                found[job.name] = {"loss": [rows[-1]["loss"]], **after(job, replica.network)}
                if curve is not None:
                    found[job.name] |= {"curve": [row["curve"] for row in rows], "curve_step": [row["step"] for row in rows]}
        if context.checkpoints is not None:
            context.checkpoints.save(kept_as, {job.name: found[job.name] for job in group})
    return found


def features(network: ReidNetwork, pixels: Tensor, precision: str) -> Tensor:
    """f_bn float32 [images, features] of uint8 images [images, 3, H, W] on the network's device."""
    network.eval()
    with torch.inference_mode(), torch.autocast(pixels.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        return torch.cat([network(normalised(part)).float() for part in pixels.split(IMAGES_AT_ONCE)])


@dataclass(frozen=True)
class Trial:
    """Queries and a gallery on a device.

    Attributes:
        query: uint8 [queries, 3, H, W].
        gallery: uint8 [images, 3, H, W].
        identities: int64 of queries and gallery.
        cameras: int64 of queries and gallery.
    """

    query: Tensor
    gallery: Tensor
    identities: tuple[Tensor, Tensor]
    cameras: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, query: ImageSet, gallery: ImageSet, device: str) -> "Trial":
        """From two sets of images."""

        def move(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array).to(device)

        return cls(
            move(query.pixels),
            move(gallery.pixels),
            (move(query.identities), move(gallery.identities)),
            (move(query.cameras), move(gallery.cameras)),
        )

    def scores(self, query_features: Tensor, gallery_features: Tensor) -> QueryScores:
        """By cosine distance of features [images, d]."""
        return market_scores(cosine_distances(query_features, gallery_features), *self.identities, *self.cameras)

    def scores_of(self, network: ReidNetwork, precision: str) -> QueryScores:
        """Of a network."""
        return self.scores(*(features(network, pixels, precision) for pixels in (self.query, self.gallery)))
