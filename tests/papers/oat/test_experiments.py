"""Protocols, predictors, synthetic searches and training of OAT."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from common.configuration import read_paper_config
from common.data.amazon_book_covers import AMAZON_BOOK_COVERS, Scanpath
from common.data.fetch import fetch
from common.errors import ConfigError, DataError, InputError
from common.experiment import Context
from common.metrics.scanpaths import paths_of
from common.training.best_epoch import Epochs
from papers.oat import appearance, predict, search
from papers.oat.oat import OAT, Scenes, Variant
from papers.oat.predictors import predictors, walk_cross_entropy, walk_steps
from papers.oat.protocols import parts_of
from papers.oat.scanpath_sets import load
from papers.oat.scoring import normalised_saliency
from papers.oat.synthetic import searches, step_probabilities
from papers.oat.training import (
    IGNORED,
    Fitting,
    NetworkSettings,
    Trials,
    held_out_loss,
    make_networks,
    make_table,
    mean_losses,
    train,
)

SMALL = NetworkSettings(
    D=32, layers=1, heads=2, feed_forward=32, pointers=2, dropout=0.0, table_steps=50
)  # fmt: skip


@pytest.fixture(scope="module")
def made_up():
    return load("made_up")


@pytest.fixture(scope="module")
def amazon():
    try:
        fetch(AMAZON_BOOK_COVERS, "splits.json")
    except DataError as error:
        pytest.skip(str(error))
    return load("amazon_book_covers")


def test_the_authors_list_as_rebuilt(amazon):
    parts = parts_of("aliased", *amazon)
    assert [len(rows) for rows in (parts.train, parts.validation, parts.test)] == [475, 59, 60]
    assert set(Counter(record.collage for record in parts.records).values()) == {6}
    assert {record.subject for record in parts.records} == {6}
    learned = {parts.records[row].collage for row in parts.train}
    assert len(learned) == 99
    assert all(parts.records[row].collage in learned for row in parts.test)
    tested = [parts.records[row] for row in parts.test]
    assert np.mean([len(record.cells) for record in tested]) == pytest.approx(8.35, abs=0.005)


@pytest.mark.parametrize("protocol", ["scanpath_random", "collage_disjoint", "unseen_target"])
def test_parts_share_what_they_may(made_up, protocol):
    parts = parts_of(protocol, *made_up, fold=3)
    rows = [set(part.tolist()) for part in (parts.train, parts.validation, parts.test)]
    assert len(rows[0] | rows[1] | rows[2]) == sum(map(len, rows))
    collages = [{parts.records[row].collage for row in part} for part in rows]
    assert bool(collages[0] & collages[2]) == (protocol == "scanpath_random")
    if protocol == "unseen_target":
        assert {parts.records[row].target_image for row in rows[2]} == {3}
        assert 3 not in {parts.records[row].target_image for row in rows[0] | rows[1]}


def test_unknown_parts_are_named(made_up):
    with pytest.raises(InputError, match="protocol is 'random'"):
        parts_of("random", *made_up)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="fold is 5; there are 5"):
        parts_of("unseen_target", *made_up, fold=5)


def test_the_walks_steps_by_hand():
    steps = walk_steps(target=1)
    np.testing.assert_allclose(steps.sum(1), 1)
    assert steps[0, 0] / steps[0, 14] == pytest.approx(2 / np.exp(-1 / (2 * 1.5**2)))  # to stay against one row down
    assert steps[0, 1] / steps[0, 2] == pytest.approx(15 * np.exp(-1 / 18) / np.exp(-4 / 18))  # the target is beside


def test_the_walk_on_people(amazon):
    assert walk_cross_entropy([scanpath for scanpath in amazon[0] if scanpath.kept]) == pytest.approx(3.317, abs=0.02)


def test_predictors_by_name(made_up):
    for protocol in ("scanpath_random", "collage_disjoint", "aliased"):
        parts = parts_of(protocol, *made_up)
        found = predictors(parts)
        test, generator = parts.records[parts.test[0]], np.random.default_rng(0)
        assert (found["look_up"] is None) == (protocol == "collage_disjoint")
        assert (found["human"] is None) == (protocol == "aliased")
        for name in ("uniform_human_length", "centre", "frequency", "walk"):
            draw = found[name]
            assert draw is not None
            assert len(draw(test, generator)) == len(test.cells)
        learned = {parts.records[row].cells for row in parts.train}
        copy, look_up = found["random_collage"], found["look_up"]
        assert copy is not None
        assert copy(test, generator) in learned
        if protocol == "aliased":
            assert look_up is not None
            assert look_up(test, generator) == test.cells


def test_saliency_by_hand():
    human = Scanpath(1, 1, 0, 0, (0, 3), np.zeros((2, 2)), (10, 10), True)
    predicted = paths_of([[0, 1], [2]])  # two samples: cells 0, 1 and 2 of 84
    mean = 3 / 84
    spread = (mean * (1 - mean)) ** 0.5
    assert normalised_saliency(predicted, [human]) == pytest.approx(((1 - mean) / spread + (0 - mean) / spread) / 2)


def test_the_searchers_policy_by_hand():
    likeness = np.zeros(84)
    likeness[1] = 0.5
    p = step_probabilities(likeness, [0, 2], target=2)
    assert p.sum() == pytest.approx(1)
    assert p[84] == pytest.approx(0.9)
    weights = {1: np.exp(4 * 0.5 - 1 / 12.5), 3: np.exp(-1 / 12.5), 0: np.exp(-4 / 12.5 - 3)}
    assert p[1] / p[3] == pytest.approx(weights[1] / weights[3])
    assert p[0] / p[3] == pytest.approx(weights[0] / weights[3])
    moves = p[:84] / 0.1
    assert moves[2] > 0.17  # to look again
    assert step_probabilities(likeness, [], 2)[84] == 0


def test_searches_are_the_same_twice_and_their_loss_is_the_policys():
    one, other = searches(4, 7, 30), searches(4, 7, 30)
    assert one.paths == other.paths
    np.testing.assert_array_equal(one.features, other.features)
    np.testing.assert_allclose(np.linalg.norm(one.features, axis=2), 1, rtol=1e-6)
    for n in range(4):
        likeness = one.features[n].astype(float) @ one.features[n, one.target[n]].astype(float)
        said = [*one.paths[n], 84]
        loss = -sum(
            np.log(step_probabilities(likeness, one.paths[n][:place], int(one.target[n]))[what])
            for place, what in enumerate(said)
        )  # fmt: skip
        assert one.attainable[n] == pytest.approx(loss, rel=1e-4)
        assert one.counts[n] == len(said) <= 31


def trials(count=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    paths = paths_of([torch.randint(0, 84, (1 + n % 4,), generator=generator).tolist() for n in range(count)])
    scenes = Scenes(torch.arange(count) * 5, torch.zeros(count, dtype=torch.int64), torch.zeros(count, 0, 0))
    return Trials(scenes, paths, (6, 14))


def test_what_follows_is_the_next_fixation_then_the_stop():
    part = Trials(trials(2).scenes, paths_of([[3, 4], [5]]), (6, 14))
    assert part.following.tolist() == [[3, 4, 84], [5, 84, IGNORED]]


def test_losses_are_the_sum_of_each_networks_mean():
    logits = torch.randn(2, 3, 4, 86, generator=torch.Generator().manual_seed(0))
    following = torch.randint(0, 85, (2, 3, 4), generator=torch.Generator().manual_seed(1))
    following[0, 1, 2:] = IGNORED
    expected = 0.0
    for s in range(2):
        said = [(b, t) for b in range(3) for t in range(4) if following[s, b, t] != IGNORED]
        expected += -sum(logits[s, b, t].log_softmax(-1)[following[s, b, t]] for b, t in said) / len(said)
    torch.testing.assert_close(mean_losses(logits, following), expected)


@pytest.mark.parametrize(
    ("device", "precision"),
    [("cpu", "float32"), *(pytest.param("cuda", name, marks=pytest.mark.gpu) for name in ("float32", "bfloat16"))],
)
def test_a_few_scanpaths_are_learned_by_heart(device, precision):
    data = trials()
    moved = Trials(Scenes(*(x.to(device) for x in data.scenes)), paths_of(data.paths.lists(), device), data.grid)
    networks = make_networks(SMALL, Variant(), make_table("distance", 2.0, (6, 14), SMALL), moved, [0, 1], longest=4)
    fitting = Fitting(
        learning_rate=3e-3, batch=12, clip_norm=1.0, precision=precision, criterion="loss",
        epochs=Epochs(greatest=200, patience=200, every=50, first=50),
    )  # fmt: skip
    rows = [np.arange(12)] * 2
    found = train(networks, moved, rows, rows, fitting, seeds=[0, 1], longest=4)
    for number in range(2):
        network = found.networks.network(number)
        assert isinstance(network, OAT)
        assert held_out_loss(network, moved) < 0.3


def settings_of(module, experiment, **changes):
    config = read_paper_config(Path("papers/oat/config.yaml"))
    entry = config.experiments[experiment]
    values = {name: parameter.at("smoke") for name, parameter in entry.parameters.items()}
    return module.Settings.model_validate({**values, **changes})


def test_an_unknown_training_is_named():
    with pytest.raises(ConfigError, match="training = 'none' is not among trainings: random,"):
        search.run(settings_of(search, "search", training="none"), Context("cpu", "test"))


def test_predictors_give_rows_of_every_metric():
    measurement = predict.run(settings_of(predict, "predict", protocol="aliased", seeds=[0]), Context("cpu", "test"))
    scores = {(row.metric, row.method): row.value for row in measurement.rows}
    assert scores["sequence_score", "look_up"] == 1
    assert scores["edit_distance", "look_up"] == 0
    assert scores["behaviour_difference", "look_up"] == pytest.approx(0)
    assert scores["multi_match", "look_up"] > 0.98  # cell centres beside raw fixations
    assert scores["next_cell_cross_entropy", "uniform"] == pytest.approx(np.log(84))


def test_appearance_is_the_same_twice():
    settings = settings_of(appearance, "appearance", appearance="features", scenes=20, held_out=4, seeds=[0])
    one, other = (appearance.run(settings, Context("cpu", "test")) for _ in range(2))
    assert one.rows == other.rows
