"""From a line of `trainings` in `config.yaml` to trained networks and scored outputs: what the experiments of all tasks share.

A cell trains several replicas of one network side by side, one for each recipe and seed, all on the same examples. Its learning
curve is measured on validation points: training points of another seed. Test points are read once, at the end.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from common.configuration import Parameters
from common.errors import ConfigError
from common.experiment import Context, Measurement
from common.training import Replica, evenly_spaced, train
from papers.pointer_networks.decoding import Constraint, beam_search, greedy
from papers.pointer_networks.examples import PADDING, Examples
from papers.pointer_networks.generate import EXACT_TOURS_UP_TO, Order, Task, test_examples, training_examples
from papers.pointer_networks.pointer_networks import EncoderDecoder, PointerNetwork, Scores
from papers.pointer_networks.recipes import RECIPES
from papers.pointer_networks.tour_solvers import Solver
from papers.pointer_networks.training import Method, buckets_of, make_network, sequence_replica, steps_of

VALIDATION_SEED = 1_000_003
"""Added to the seed of the training points."""

PICTURES = 6
"""Test examples whose outputs are kept for figures."""

DECODED_VALUES = 2**22
"""Score entries of a decoding step, hypotheses times positions: bounds the memory of plain scores."""

UNITS = {
    "accuracy": "%",
    "accuracy_either_way": "%",
    "area": "%",
    "not_simple": "%",
    "area_fail": "1",
    "coverage": "%",
    "precision": "%",
    "length": "1",
    "invalid": "%",
}

Score = Callable[[Examples, Tensor], dict[str, float]]
"""Metrics of output sequences [B, m] for examples. A metric that has no value is left out."""


class Training(Parameters):
    """One training of `config.yaml`.

    Attributes:
        method: which network.
        lengths: numbers of points, drawn uniformly batch by batch.
        tested: numbers of points to test on, all among the test sets.
        examples: of all lengths together.
        epochs: passes over them.
        recipes: name of `recipes.RECIPES` -> number of seeds, counted from 0.
        solver: of tours with more than 12 cities.
        order: of the output sequences trained on.
    """

    method: Method
    lengths: list[int]
    tested: list[int]
    examples: int
    epochs: float
    recipes: dict[str, int]
    solver: Solver | None = None
    order: Order = "canonical"


class TestSet(Parameters):
    """Test examples of one length.

    Attributes:
        count: how many.
        sha256: of points and solutions, see `Examples.digest`; for tours of the points alone.
    """

    count: int
    sha256: str


class LearningSettings(Parameters):
    """What the experiments of all tasks have in common.

    Attributes:
        training: a key of `trainings`.
        trainings: see `Training`.
        hidden_size: d.
        precision: of matrix products in training; sums, losses and parameters are float32.
        scores: see `PointerNetwork`.
        data_seed: of training and test points, which differ all the same.
        validation: validation examples for the learning curve.
        curve_rows: of a learning curve.
        test_sets: number of points -> test set.
        decodings: "free", or "valid" for beams that are restricted to valid outputs -> beam widths.
    """

    training: str
    trainings: dict[str, Training]
    hidden_size: int
    precision: str = Field(pattern="^(float32|bfloat16)$")
    scores: Scores
    data_seed: int
    validation: int
    curve_rows: int
    test_sets: dict[int, TestSet]
    decodings: dict[str, list[int]]

    @property
    def chosen(self) -> Training:
        """The training of this cell.

        Raises:
            ConfigError: `trainings` lacks it, or it names an unknown recipe or a length without test set.
        """
        if self.training not in self.trainings:
            raise ConfigError(f"training = {self.training!r} is not among trainings: {', '.join(self.trainings)}.")
        chosen = self.trainings[self.training]
        if unknown := set(chosen.recipes) - set(RECIPES):
            raise ConfigError(f"trainings.{self.training}.recipes names {sorted(unknown)}; known are {', '.join(RECIPES)}.")
        if unknown := set(chosen.tested) - set(self.test_sets):
            raise ConfigError(
                f"trainings.{self.training}.tested names {sorted(unknown)}, which test_sets lacks; add them there."
            )
        return chosen


@dataclass(frozen=True)
class TaskRules:
    """What a task adds: how outputs are scored, cut off and restricted.

    Attributes:
        task: name.
        score: of the task.
        valid: which outputs a restricted beam may form.
        longest: (n, greatest number of true output positions) -> where decoding gives up.
    """

    task: Task
    score: Score
    valid: Constraint | None
    longest: Callable[[int, int], int]


@dataclass(frozen=True)
class Trained:
    """A trained network, with the coordinates of its rows."""

    network: EncoderDecoder
    recipe: str
    seed: int

    @property
    def setting(self) -> dict[str, str | int]:
        """Coordinates of a row."""
        return {"recipe": self.recipe, "seed": self.seed}


def solver_beyond_exact(training: Training, n: int) -> Solver | None:
    """The solver of tours of n cities: None, which is the exact one, up to 12."""
    return training.solver if n > EXACT_TOURS_UP_TO else None


def learn(settings: LearningSettings, rules: TaskRules, context: Context, measurement: Measurement) -> list[Trained]:
    """Train every recipe and seed of the cell, and add the rows of their learning curves.

    Rows by `examples` seen: `training_loss` (mean since the last row; none after training diverged), and every metric of the
    task as `validation_<metric>`. Of all replicas together: `training_time` and `training_rate`.
    """
    training = settings.chosen
    share = training.examples // len(training.lengths)

    def examples(n: int, count: int, seed: int, order: Order) -> Examples:
        solver = solver_beyond_exact(training, n) if rules.task == "travelling_salesman" else None
        return training_examples(rules.task, n, count, seed, context.device, order=order, solver=solver)

    buckets = buckets_of({n: examples(n, share, settings.data_seed, training.order) for n in training.lengths}, context.device)
    longest = max(training.lengths)
    validation = examples(longest, settings.validation, settings.data_seed + VALIDATION_SEED, "canonical")
    fixed_length = None if training.method == "pointer" else longest

    replicas, trained = [], {}
    for recipe_name, seeds in training.recipes.items():
        recipe = RECIPES[recipe_name].model_copy(update={"precision": settings.precision})
        steps = steps_of(training.epochs, buckets, recipe)
        for seed in range(seeds):
            name = f"{recipe_name} {seed}"
            scores = settings.scores if training.method == "pointer" else "plain"
            network = make_network(training.method, settings.hidden_size, seed=seed, length=fixed_length, scores=scores)
            curve = evenly_spaced(steps, settings.curve_rows)
            replicas.append(sequence_replica(name, network, recipe, buckets, steps=steps, order_seed=seed, curve_steps=curve))
            trained[name] = Trained(network, recipe_name, seed)

    def validate(replica: Replica) -> Mapping[str, float]:
        network = trained[replica.name].network
        decoded = decode(network, validation, rules, beam=1, restricted=rules.task == "travelling_salesman")
        return rules.score(validation, decoded)

    progress = context.progress(sum(replica.steps for replica in replicas))
    curves = train(replicas, evaluate=validate, checkpoints=context.checkpoints, progress=progress)
    for name, curve in curves.items():
        for row in curve:
            place = {**trained[name].setting, "examples": int(row["examples"]), "n": longest}
            if math.isfinite(row["loss"]):
                measurement.add("training_loss", row["loss"], "nat", method=training.method, **place)
            for metric in (name for name in UNITS if name in row):
                measurement.add(f"validation_{metric}", row[metric], UNITS[metric], method=training.method, **place)
    seconds = max(curve[-1]["seconds"] for curve in curves.values())
    seen = sum(curve[-1]["examples"] for curve in curves.values())
    measurement.add("training_time", seconds, "s", method=training.method, timing=True, replicas=len(replicas))
    measurement.add("training_rate", seen / seconds, "examples/s", method=training.method, timing=True, replicas=len(replicas))
    return list(trained.values())


def read_test_set(settings: LearningSettings, rules: TaskRules, n: int, device: str) -> Examples:
    """Draw the test set of n points and compare its digest with that of `config.yaml`.

    Raises:
        ConfigError: the digest differs: points or solutions are not those that results were recorded with.
    """
    wanted = settings.test_sets[n]
    tours = rules.task == "travelling_salesman"
    examples = test_examples(
        rules.task, n, wanted.count, settings.data_seed, device=device, solver="a2" if tours and n > EXACT_TOURS_UP_TO else None
    )
    digest = examples.digest() if not tours else Examples(examples.points, torch.zeros_like(examples.sequences[:, :1])).digest()
    if digest != wanted.sha256:
        raise ConfigError(
            f"test_sets.{n}.sha256 is {wanted.sha256!r} and the test set drawn here has {digest}. Other points or solutions "
            "give other results: find out what changed, or write the new digest if you changed count or data_seed."
        )
    return examples


@torch.inference_mode()
def decode(network: EncoderDecoder, examples: Examples, rules: TaskRules, *, beam: int, restricted: bool) -> Tensor:
    """Output sequences of a network for the points of examples: int64 [B, m]."""
    n = examples.size
    longest = int((examples.sequences != PADDING).sum(1).max())
    if restricted:
        assert rules.valid is not None, "the task has no valid outputs to restrict a beam to"
    constraint = rules.valid if restricted else None
    batch_size = max(1, DECODED_VALUES // ((n + 1) * beam))
    limit = rules.longest(n, longest)
    search = beam_search if beam > 1 else greedy
    width = {"width": beam} if beam > 1 else {}
    return search(network, examples.points, max_length=limit, constraint=constraint, batch_size=batch_size, **width).sequences


def test_all(
    settings: LearningSettings,
    rules: TaskRules,
    trained: list[Trained],
    context: Context,
    measurement: Measurement,
    further: Callable[[Examples, Tensor, dict[str, Any]], None] | None = None,
) -> None:
    """Score every network on the test sets of its training, in every decoding, and keep pictures of the first network.

    Args:
        settings: of the cell.
        rules: of the task.
        trained: the networks; the first one's outputs are kept as arrays.
        context: of the cell.
        measurement: gets a row for every metric: in percent, or in the task's unit.
        further: called with the test set, output sequences and the coordinates of the rows, for what only one task measures.
    """
    method = settings.chosen.method
    for n in settings.chosen.tested:
        examples = read_test_set(settings, rules, n, context.device)
        for number, one in enumerate(trained):
            for decoding, widths in settings.decodings.items():
                for beam in widths:
                    sequences = decode(one.network, examples, rules, beam=beam, restricted=decoding == "valid")
                    place = {**one.setting, "n": n, "decoding": decoding, "beam": beam}
                    for metric, value in rules.score(examples, sequences).items():
                        measurement.add(metric, value, UNITS[metric], method=method, **place)
                    if further is not None:
                        further(examples, sequences, place)
            if number == 0:
                keep_pictures(one.network, examples, rules, measurement)


test_all.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]  # not a test, whatever pytest takes its name for
TestSet.__test__ = False  # pyright: ignore[reportAttributeAccessIssue]


def keep_pictures(network: EncoderDecoder, examples: Examples, rules: TaskRules, measurement: Measurement) -> None:
    """Keep points, true and predicted sequences of the first examples, and a pointer network's attention in the first."""
    few = examples[:PICTURES]
    predicted = decode(network, few, rules, beam=1, restricted=rules.task == "travelling_salesman")
    n = examples.size
    measurement.arrays[f"points_{n}"] = few.points.cpu().numpy()
    measurement.arrays[f"expected_{n}"] = few.sequences.cpu().numpy()
    measurement.arrays[f"predicted_{n}"] = predicted.cpu().numpy()
    if isinstance(network, PointerNetwork):
        positions = predicted[:1, : int((predicted[0] != PADDING).sum())]
        with torch.inference_mode():
            attention = network(few.points[:1], positions).float().softmax(-1)[0]
        measurement.arrays[f"attention_{n}"] = attention.cpu().numpy()
