"""From a data set and a network to mined words, trained variants and scored rows: what the experiments share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from common.configuration import Parameters
from common.errors import ConfigError
from common.experiment import Measurement
from common.progress import Progress
from common.training import Recipe
from papers.absa.learning import Smoothing, Supervision, attention_on, fit, inspect
from papers.absa.progressive_attention import (
    Criterion,
    Inspection,
    Target,
    Words,
    attention_targets,
    entropy,
    mix,
    progressive_words,
)
from papers.absa.replicas import AspectNetwork
from papers.absa.scoring import Selection, accuracy, chosen_epoch, macro_f1, paired_bootstrap
from papers.absa.subjects import Subject, free_memory

PLAIN, AS, ONE = "plain", "as", "as_target_one"
SELECTIONS: tuple[Selection, ...] = ("validation", "last", "test")
MAKE = Callable[[int], AspectNetwork]
"""Number of copies of each seed -> a network in its initial state, on the device."""


class Chain(Parameters):
    """A way to pick words, round after round.

    Attributes:
        criterion: what a word is picked by.
        epsilon: ε_α in bits.
    """

    criterion: Criterion = "attention"
    epsilon: float


class Variant(Parameters):
    """A way to train at last, with nothing erased.

    Attributes:
        chain: whose words are used.
        rounds: of them, at most K; 0 is K.
        kinds: of words.
        target: τ of active words.
        weight: γ as a multiple of the model's.
    """

    chain: str = "default"
    rounds: int = 0
    kinds: Literal["both", "active", "misleading"] = "both"
    target: Target = "share"
    weight: float = 1.0


class Learning(Parameters):
    """How a network is trained.

    Attributes:
        recipe: optimiser, rate and batch.
        epochs: of every training.
        rounds: K.
        weight: γ.
        evaluation_batch: sentences at once where nothing is learned.
        variants: names of those that are trained on data sets in `wide`; the others get `main_variants`.
    """

    recipe: Recipe
    epochs: int
    rounds: int
    weight: float
    evaluation_batch: int
    variants: list[str]


class Mining(Parameters):
    """What chains and variants there are.

    Attributes:
        chains: name -> chain; `default` must be there.
        variants: name -> variant; `plain` and `as` must be there.
        samples: of the gradient's average.
        noise: standard deviation of the noise in it.
    """

    chains: dict[str, Chain]
    variants: dict[str, Variant]
    samples: int
    noise: float

    def chosen(self, names: Sequence[str]) -> dict[str, Variant]:
        """The variants of these names.

        Raises:
            ConfigError: one is unknown, its chain is, or `plain` or `as` is missing.
        """
        if unknown := [name for name in names if name not in self.variants]:
            raise ConfigError(f"The variants {unknown} are not among mining.variants: {', '.join(self.variants)}.")
        if missing := {PLAIN, AS} - set(names):
            raise ConfigError(f"The variants lack {sorted(missing)}: every comparison starts from them.")
        found = {name: self.variants[name] for name in names}
        for name, variant in found.items():
            if variant.chain not in self.chains:
                raise ConfigError(f"mining.variants.{name}.chain is {variant.chain!r}; chains are {', '.join(self.chains)}.")
        return found


@dataclass(frozen=True)
class Trained:
    """What the final trainings left.

    Attributes:
        network: all replicas.
        variants: name -> variant, in the order of the network's copies.
        words: of the default chain after its last round, masks [seeds, N, n].
        predictions: split -> int8 [epochs, R, sentences].
    """

    network: AspectNetwork
    variants: dict[str, Variant]
    words: Words
    predictions: dict[str, np.ndarray]

    def of(self, variant: str, seed: int) -> int:
        """The replica of a variant and the number of a seed."""
        return list(self.variants).index(variant) * len(self.network.seeds) + seed


def mine(
    make: MAKE,
    seeds: int,
    subject: Subject,
    learning: Learning,
    mining: Mining,
    chains: Mapping[str, Chain],
    progress: Progress,
) -> list[dict[str, Words]]:
    """K rounds of all chains side by side.

    Args:
        make: gives a network in its initial state.
        seeds: number of seeds that it has.
        subject: whose training sentences are used.
        learning: how networks are trained, and K.
        mining: how gradients are averaged.
        chains: which.
        progress: counts rounds.

    Returns:
        For each round: chain -> words, masks [seeds, N, n].
    """
    train = subject.sentences["train"]
    criteria: list[Criterion] = [chain.criterion for chain in chains.values()]

    def inspect_after_training(k: int, erased: Tensor) -> Inspection:
        network = make(len(chains))
        fit(network, train, learning.recipe, learning.epochs, erased=erased)
        found = inspect(
            network, train, erased, criteria,
            smoothing=Smoothing(mining.samples, mining.noise), round_number=k, size=learning.evaluation_batch,
            precision=learning.recipe.precision,
        )  # fmt: skip
        free_memory(train.ids.device.type)
        progress.step(f"words of round {k}")
        return found

    context = train.context.expand(len(chains) * seeds, -1, -1)
    epsilon = torch.tensor([chain.epsilon for chain in chains.values()], device=context.device)
    epsilon = epsilon.repeat_interleave(seeds)[:, None]

    def by_chain(words: Words) -> dict[str, Words]:
        parts = zip(chains, words.active.split(seeds), words.misleading.split(seeds), strict=True)
        return {name: Words(active, misleading) for name, active, misleading in parts}

    return [by_chain(words) for words in progressive_words(inspect_after_training, context, epsilon, learning.rounds)]


def train_variants(
    make: MAKE, subject: Subject, learning: Learning, rounds: list[dict[str, Words]], variants: dict[str, Variant]
) -> Trained:
    """The final trainings of all variants side by side, nothing erased.

    Raises:
        ConfigError: a variant uses more rounds than there are.
    """
    for name, variant in variants.items():
        if variant.rounds > len(rounds):
            raise ConfigError(f"mining.variants.{name}.rounds is {variant.rounds} and {len(rounds)} rounds are trained.")
    used = [rounds[variant.rounds - 1 if variant.rounds else -1][variant.chain] for variant in variants.values()]
    mixed = mix(used, [variant.kinds for variant in variants.values()])
    targets = torch.stack(
        [attention_targets(active, variant.target) for active, variant in zip(mixed.active, variants.values(), strict=True)]
    )
    network = make(len(variants))
    device = targets.device
    weights = torch.tensor([learning.weight * v.weight for v in variants.values()], device=device)
    supervision = Supervision(mixed.erased.flatten(0, 1), targets.flatten(0, 1), weights.repeat_interleave(len(network.seeds)))
    tested = {split: subject.sentences[split] for split in ("validation", "test")}
    predictions = fit(
        network, subject.sentences["train"], learning.recipe, learning.epochs,
        supervision=supervision, tested=tested, evaluation_batch=learning.evaluation_batch,
    )  # fmt: skip
    return Trained(network, variants, rounds[-1]["default"], predictions)


def learn(
    make: MAKE, seeds: int, subject: Subject, learning: Learning, mining: Mining, names: Sequence[str], progress: Progress
) -> tuple[Trained, list[dict[str, Words]]]:
    """Mine words with all chains that the named variants need, and train the variants."""
    variants = mining.chosen(names)
    needed = {"default", *(variant.chain for variant in variants.values())}
    chains = {name: chain for name, chain in mining.chains.items() if name in needed}
    rounds = mine(make, seeds, subject, learning, mining, chains, progress)
    trained = train_variants(make, subject, learning, rounds, variants)
    progress.step("variants")
    return trained, rounds


def add_scores(measurement: Measurement, subject: Subject, trained: Trained, mining: Mining, resamples: int) -> None:
    """Rows of accuracy and macro-F1, of what selection and +AS are worth, and of paired tests over test sentences.

    Rows by `seed`: `accuracy` and `macro_f1` in every selection; `accuracy_by_aspect` of targets that training has, or has not;
    `as_gain`, `selection_gain`. Over seeds: `gain_over_sentences` with `gain_low`, `gain_high`, `gain_p_value`, and
    `target_difference` in standard deviations.
    """
    labels = {split: subject.sentences[split].labels.cpu().numpy() for split in ("validation", "test")}
    known = {instance.target for instance in subject.instances["train"]}
    seen = np.array([instance.target in known for instance in subject.instances["test"]])
    f1: dict[tuple[str, Selection], list[float]] = {}
    chosen: dict[str, list[np.ndarray]] = {}
    for name, variant in trained.variants.items():
        place = _setting(variant, mining)
        for number, seed in enumerate(trained.network.seeds):
            replica = trained.of(name, number)
            by_split = {split: trained.predictions[split][:, replica] for split in ("validation", "test")}
            for selection in SELECTIONS:
                epoch = chosen_epoch(
                    selection, (labels["validation"], by_split["validation"]), (labels["test"], by_split["test"])
                )
                predicted = by_split["test"][epoch]
                value = macro_f1(labels["test"], predicted)
                f1.setdefault((name, selection), []).append(value)
                measurement.add(
                    "accuracy", accuracy(labels["test"], predicted), "%", method=name, selection=selection, seed=seed, **place
                )
                measurement.add("macro_f1", value, "%", method=name, selection=selection, seed=seed, **place)
                if selection == "validation":
                    chosen.setdefault(name, []).append(predicted)
                    measurement.add("chosen_epoch", epoch + 1, "epochs", method=name, seed=seed, **place)
                    for word, which in (("seen", seen), ("unseen", ~seen)):
                        if which.any():
                            value = accuracy(labels["test"][which], predicted[which])
                            measurement.add("accuracy_by_aspect", value, "%", method=name, aspect=word, seed=seed, **place)
    for number, seed in enumerate(trained.network.seeds):
        gain = f1[AS, "validation"][number] - f1[PLAIN, "validation"][number]
        measurement.add("as_gain", gain, "percentage points", method=AS, seed=seed)
        for name in (PLAIN, AS):
            gain = f1[name, "test"][number] - f1[name, "validation"][number]
            measurement.add("selection_gain", gain, "percentage points", method=name, seed=seed)
    for name in trained.variants:
        if name != PLAIN:
            found = paired_bootstrap(labels["test"], np.stack(chosen[name]), np.stack(chosen[PLAIN]), resamples=resamples)
            measurement.add("gain_over_sentences", found.gain, "percentage points", method=name)
            measurement.add("gain_low", found.low, "percentage points", method=name)
            measurement.add("gain_high", found.high, "percentage points", method=name)
            measurement.add("gain_p_value", found.p_value, method=name)
    if ONE in trained.variants and len(trained.network.seeds) > 1:
        ours, other = (np.array(f1[name, "validation"]) for name in (AS, ONE))
        spread = max(float(ours.std(ddof=1)), 1e-6)
        measurement.add("target_difference", (other.mean() - ours.mean()) / spread, "standard deviations", method=ONE)


def _setting(variant: Variant, mining: Mining) -> dict[str, Any]:
    """Coordinates of a variant, for curves."""
    return {"epsilon": mining.chains[variant.chain].epsilon, "words_of_rounds": variant.rounds, "weight": variant.weight}


def add_words(
    measurement: Measurement, subject: Subject, rounds: list[dict[str, Words]], seeds: Sequence[int], top: int
) -> None:
    """Rows of how many sentences gave a word, and arrays of the words that the default chain picked most often.

    Rows by chain, round, kind and seed: `picked`, the percentage of training sentences whose word was picked in this round.
    Arrays: `active_words` and `misleading_words` with `active_counts`, `misleading_counts`, the mean over seeds.
    """
    before: dict[str, Words] = {}
    for k, by_chain in enumerate(rounds, start=1):
        for chain, words in by_chain.items():
            for kind in ("active", "misleading"):
                mask = getattr(words, kind)
                total = mask.flatten(1).sum(1)
                if chain in before:
                    total = total - getattr(before[chain], kind).flatten(1).sum(1)
                for number, seed in enumerate(seeds):
                    share = 100 * int(total[number]) / mask.shape[1]
                    measurement.add("picked", share, "%", method=chain, round=k, kind=kind, seed=seed)
        before = by_chain
    counts = word_counts(subject, rounds[-1]["default"])
    for kind, by_seed in counts.items():
        mean = by_seed.mean(axis=0)
        order = np.argsort(-mean, kind="stable")[:top]
        order = order[mean[order] > 0]
        measurement.arrays[f"{kind}_words"] = np.array([subject.names[number] for number in order] or [""], dtype=np.str_)
        measurement.arrays[f"{kind}_counts"] = mean[order].astype(np.float32) if len(order) else np.zeros(1, np.float32)


def word_counts(subject: Subject, words: Words) -> dict[str, np.ndarray]:
    """How often each id is active and misleading, for each seed: int64 [seeds, ids]."""
    ids = subject.sentences["train"].ids
    found = {}
    for kind in ("active", "misleading"):
        rows = [torch.bincount(ids[mask], minlength=len(subject.names)) for mask in getattr(words, kind)]
        found[kind] = torch.stack(rows).cpu().numpy()
    return found


def add_attention(
    measurement: Measurement,
    subject: Subject,
    trained: Trained,
    learning: Learning,
    *,
    least: int,
    pictures: int,
    longest_picture: int,
) -> None:
    """Rows and arrays of attention before (`plain`) and after (`as`).

    A word is active where it was picked as active at least `least` times and more often than as misleading, and the other way
    round. Rows by seed and method: `attention_mass` by `kind`, the mean α on such words together, of test sentences that have
    some; `attention_on_picked` by `kind`, the mean α on the very words that were picked, on training sentences;
    `attention_entropy` in bits, on test sentences. Arrays, of the first seed: `picture_<k>_tokens`, `picture_<k>_attention`
    [2, tokens], `picture_<k>_target` and `picture_<k>_classes` (label, before, after).
    """
    test = subject.sentences["test"]
    counts = word_counts(subject, trained.words)
    size, precision = learning.evaluation_batch, learning.recipe.precision
    attention = attention_on(trained.network, test, size, precision)
    on_training = attention_on(trained.network, subject.sentences["train"], size, precision)
    for name in (PLAIN, AS):
        for number, seed in enumerate(trained.network.seeds):
            alpha = attention[trained.of(name, number)]
            measurement.add("attention_entropy", entropy(alpha).mean(), "bits", method=name, seed=seed)
            for kind, other in (("active", "misleading"), ("misleading", "active")):
                listed = (counts[kind][number] >= least) & (counts[kind][number] > counts[other][number])
                places = torch.from_numpy(listed).to(test.ids.device)[test.ids] & test.context
                some = places.any(1)
                if bool(some.any()):
                    mass = (alpha * places).sum(1)[some].mean()
                    measurement.add("attention_mass", mass, method=name, kind=kind, seed=seed)
                picked = getattr(trained.words, kind)[number]
                if bool(picked.any()):
                    value = on_training[trained.of(name, number)][picked].mean()
                    measurement.add("attention_on_picked", value, method=name, kind=kind, seed=seed)
    del on_training
    short = (test.inside.sum(1) <= longest_picture).nonzero()[:pictures, 0].tolist()
    for k, row in enumerate(short):
        inside = test.inside[row].cpu()
        before, after = trained.of(PLAIN, 0), trained.of(AS, 0)
        names = [subject.names[number] for number in test.ids[row].cpu()[inside].tolist()]
        measurement.arrays[f"picture_{k}_tokens"] = np.array(names, dtype=np.str_)
        measurement.arrays[f"picture_{k}_attention"] = attention[[before, after], row].cpu()[:, inside].numpy()
        measurement.arrays[f"picture_{k}_target"] = test.target[row].cpu()[inside].numpy()
        said = [int(trained.predictions["test"][-1, replica, row]) for replica in (before, after)]
        measurement.arrays[f"picture_{k}_classes"] = np.array([int(test.labels[row]), *said], dtype=np.int64)
