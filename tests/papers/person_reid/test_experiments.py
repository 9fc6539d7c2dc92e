"""Layouts, the additive model, timing and the experiments as a whole at scale smoke."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from common.claims import check_claims, judge, judge_all, read_claims
from common.configuration import batches_of, check_parameters, read_paper_config
from common.errors import DataError, InputError
from common.experiment import Context, run_job
from common.present import draw
from common.records import RecordSet, Scale
from common.reported import read_reported
from papers.person_reid import comparison, latency, learnability, market, robot, search
from papers.person_reid.figures import front
from papers.person_reid.forward_time import Repeats, forward_times, multiply_adds
from papers.person_reid.layouts import (
    AdditiveModel,
    all_layouts,
    at_depth,
    last_of_stages,
    layout_of,
    name_of,
    placements,
    positions,
    random_layouts,
    stage_masks,
    within_stages,
)
from papers.person_reid.methods import Method, attention_of, backbone_of, chosen_layouts
from papers.person_reid.network import Backbone
from papers.person_reid.robot import rank_correlation
from papers.person_reid.training import Job, make_network, train_all

PAPER = Path("papers/person_reid")
MODULES = {
    "learnability": learnability, "search": search, "comparison": comparison, "robot": robot, "latency": latency,
    "market": market,
}  # fmt: skip
SMALL = Backbone(depth="resnet18", width=8, size=(32, 16), reduction=4)


def test_layouts_and_their_names():
    layout = frozenset([(3, 1), (1, 2)])
    assert name_of(layout) == "1.2+3.1"
    assert layout_of("1.2+3.1") == layout
    assert layout_of(name_of(frozenset())) == frozenset()
    for wrong in ("", "1", "1.2+", "1.2.3", "a.b"):
        with pytest.raises(InputError, match="is no layout"):
            layout_of(wrong)


def test_the_space():
    assert len(positions("resnet18")) == 8
    assert len(positions("resnet50")) == 16
    masks = stage_masks("resnet50")
    assert len(set(masks)) == 16
    assert last_of_stages("resnet50") in masks
    assert name_of(last_of_stages("resnet50")) == "1.3+2.4+3.6+4.3"
    assert [name_of(way) for way in placements("resnet50", 2)] == ["2.1", "2.4", "2.1+2.3", "2.1+2.2+2.3+2.4"]
    assert [name_of(way) for way in placements("resnet18", 2)] == ["2.1", "2.2", "2.1+2.2"]  # every other one is the first
    every = within_stages("resnet18", [frozenset([(1, 2), (3, 2)])], 100, np.random.default_rng(0))
    assert len(every) == 9
    assert all({stage for stage, _ in layout} == {1, 3} for layout in every)
    assert len(within_stages("resnet18", masks[1:], 5, np.random.default_rng(0))) == 5
    assert len(all_layouts("resnet18", (0, 8))) == 256
    assert len(all_layouts("resnet18", (1, 2))) == 8 + 28
    assert name_of(at_depth(layout_of("1.1+2.2+4.2"), "resnet50")) == "1.1+2.4+4.3"


def test_random_layouts_are_new_and_within_bounds():
    known = all_layouts("resnet18", (1, 1))
    found = random_layouts("resnet18", 20, (1, 3), known, np.random.default_rng(0))
    assert len(set(found)) == 20
    assert not set(found) & set(known)
    assert {len(layout) for layout in found} == {2, 3}
    with pytest.raises(InputError, match="There are not 9 layouts"):
        random_layouts("resnet18", 9, (1, 1), [], np.random.default_rng(0))


def test_the_additive_model_finds_what_is_additive_and_says_what_is_not():
    rng = np.random.default_rng(0)
    layouts = all_layouts("resnet18", (0, 8))
    weights = {place: float(value) for place, value in zip(positions("resnet18"), rng.normal(size=8), strict=True)}
    values = [5 + sum(weights[place] for place in layout) for layout in layouts]
    model = AdditiveModel("resnet18", layouts[::2], values[::2], 1e-6)
    assert model.coefficients == pytest.approx(weights, abs=1e-4)
    assert model.r2(layouts[1::2], values[1::2]) == pytest.approx(1, abs=1e-6)
    assert model.r2(layouts[1::2], list(rng.normal(size=128))) < 0.3


def test_methods_stand_where_their_papers_put_them():
    fifty = Backbone(depth="resnet50", width=64, size=(256, 128))
    best = layout_of("2.1+3.2")

    def names(**method):
        return name_of(attention_of(Method(**method), fifty, best))

    assert names() == "none"
    assert names(block="nl", layout="agw") == "2.3+2.4+3.4+3.5+3.6"  # the last 2 of stage 2 and the last 3 of stage 3
    assert names(block="rga_sc", layout="last_of_stages") == "1.3+2.4+3.6+4.3"
    assert names(block="little", layout="best") == "2.1+3.6"
    assert len(attention_of(Method(block="se", layout="all"), fifty, best)) == 16
    assert name_of(attention_of(Method(block="nl", layout="agw"), SMALL, best)) == "2.1+2.2+3.1+3.2"
    assert backbone_of(Method(deeper=True), fifty).depth == "resnet101"


@pytest.mark.parametrize(
    ("method", "extra"),
    [
        ({"block": "nl", "layout": "agw"}, 1.66),
        ({"block": "rga_sc", "layout": "last_of_stages"}, 5.77),
        ({"deeper": True}, 2.43),
    ],
)
def test_multiply_adds_of_the_fields_networks(method, extra):
    """Computed by hand from the sizes of the layers: 4.05 G of ResNet-50 at 256x128, and what each adds."""
    fifty = Backbone(depth="resnet50", width=64, size=(256, 128))
    image = torch.zeros(1, 3, 256, 128, device="meta")
    chosen = Method(**method)
    counts = []
    for depth, attention in ((fifty, {}), (backbone_of(chosen, fifty), attention_of(chosen, fifty, frozenset()))):
        with torch.device("meta"):
            network = make_network(Job("x", depth, attention, 0), 2)
        counts.append(multiply_adds(network.eval(), image) / 1e9)
    assert counts[0] == pytest.approx(4.05, abs=0.01)
    assert counts[1] - counts[0] == pytest.approx(extra, abs=0.015)


def test_times_are_finite_and_in_order_and_networks_come_back():
    networks = {name: make_network(Job(name, SMALL, {}, 0), 2) for name in ("a", "b")}
    before = {key: x.clone() for key, x in networks["a"].state_dict().items()}
    found = forward_times(
        networks,
        torch.zeros(2, 3, 32, 16),
        device="cpu",
        mode="eager",
        precision="float32",
        repeats=Repeats(warm_up=1, timed=5),
    )
    assert all(0 < times.lower <= times.median <= times.upper < 10_000 for times in found.values())
    for key, x in networks["a"].state_dict().items():
        torch.testing.assert_close(x, before[key])
    with pytest.raises(InputError, match="only a CUDA device has graphs"):
        forward_times(networks, torch.zeros(1, 3, 32, 16), device="cpu", mode="graph", precision="float32",
                      repeats=Repeats(warm_up=1, timed=1))  # fmt: skip


def test_the_front_holds_what_no_other_point_beats():
    costs, gains = np.array([3.0, 1, 2, 2, 4]), np.array([5.0, 1, 3, 4, 5])
    assert front(costs, gains).tolist() == [1, 3, 0]


def test_rank_correlation():
    assert rank_correlation([1, 2, 3], [10, 30, 20]) == pytest.approx(0.5)
    assert rank_correlation([1, 1, 1], [1, 2, 3]) == 0


def test_weights_that_are_none_are_refused(tmp_path):
    (tmp_path / "noise.pth").write_bytes(b"noise")
    with pytest.raises(DataError, match="cannot be read as PyTorch parameters"):
        market.read_weights(tmp_path / "noise.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(DataError, match="no parameters of a torchvision ResNet"):
        market.read_weights(tmp_path / "other.pth")


def test_networks_start_from_weights_that_are_brought(tmp_path):
    source = make_network(Job("x", SMALL, {}, 1), 5)
    kept = {key: x for key, x in source.state_dict().items() if not key.startswith(("neck", "classifier"))}
    torch.save({**kept, "fc.weight": torch.zeros(2)}, tmp_path / "w.pth")
    network = make_network(Job("y", SMALL, {(1, 1): "se"}, 2, market.read_weights(tmp_path / "w.pth")), 5)
    torch.testing.assert_close(network.state_dict()["layer4.1.conv2.weight"], kept["layer4.1.conv2.weight"])


def test_what_is_missing_to_bring_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("REATTEND_DATA", str(tmp_path))
    config = read_paper_config(PAPER / "config.yaml")
    values = {name: value.at("paper") for name, value in config.experiments["market"].parameters.items()}
    with pytest.raises(DataError, match=r"market1501/Market-1501-v15\.09\.15 must be brought"):
        market.read_sets(market.Settings(source="market1501", **values))


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """All experiments at scale smoke."""
    folder = tmp_path_factory.mktemp("person_reid")
    config = read_paper_config(PAPER / "config.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REATTEND_TRACKING", "off")
        patch.setattr("common.data.feature_cache.cache_folder", lambda: folder / "cache")
        patch.setattr("common.tracking.mirror", lambda *_: None)
        for name, module in MODULES.items():
            for batch in batches_of(config, name, "smoke"):
                run_job(module.run, module.Settings, config, name, batch, "smoke", folder / "records")
    return RecordSet(folder / "records")


def test_every_experiment_has_its_rows(records):
    table = records.table()
    for name, metrics in {
        "learnability": {"map", "map_in_training", "images"},
        "search": {"map", "latency", "additive_r2", "coefficient", "chosen", "range_over_deviation", "seed_deviation"},
        "comparison": {"map", "minp", "rank_1", "map_of_part", "map_gain", "parameters", "multiply_adds"},
        "robot": {"map", "rank_share", "rank_correlation", "layouts", "map_gain"},
        "latency": {"latency", "latency_lower", "latency_upper", "latency_ratio", "multiply_adds_over_plain"},
        "market": {"map", "images", "map_gain"},
    }.items():
        assert metrics <= set(table[table["experiment"] == name]["metric"]), name
    assert table[table["metric"].isin(["map", "minp", "rank_1"])]["value"].between(0, 100).all()
    assert set(table[table["metric"].str.startswith("latency")]["timing"]) == {True}


def test_the_search_chooses_by_its_own_rows_and_confirms_layouts_it_has_not_trained(records):
    table = records.table()
    rows = table[(table["experiment"] == "search") & (table["metric"] == "map")]
    few = rows[(rows["blocks"] >= 1) & (rows["blocks"] <= 3)].groupby("layout")["value"].mean()
    (best,) = chosen_layouts(records, "best")
    assert few[name_of(best)] == pytest.approx(few.max())
    trained = set(rows["layout"])
    for role in ("top", "bottom"):
        assert all(name_of(layout) not in trained for layout in chosen_layouts(records, role))
    held_out, others = (set(rows[same]["layout"]) for same in (rows["phase"] == "random", rows["phase"] != "random"))
    assert not held_out & others
    assert set(rows["seed"]) == {100, 101}  # none of which another experiment uses
    later = table[table["experiment"].isin(["comparison", "robot"]) & (table["metric"] == "map")]
    assert not set(later["seed"]) & {100, 101}
    with pytest.raises(DataError, match="choose no layout as 'middle'"):
        chosen_layouts(records, "middle")


def test_figures_are_drawn_and_nothing_is_judged_at_smoke(records, tmp_path):
    config = read_paper_config(PAPER / "config.yaml")
    check_parameters(config, PAPER / "config.yaml")
    check_claims(PAPER, list(config.experiments))
    assert {verdict.outcome for verdict in judge_all(PAPER, records, "smoke")} == {"not tested"}
    for name in config.figures:
        draw(config, name, records, tmp_path / name)
        assert (tmp_path / f"{name}.png").stat().st_size > 1000


def test_every_claim_can_be_judged_from_the_rows_that_are_written(records):
    """As if the small runs had been made at the scale that counts, and on a GPU."""
    table = records.table()
    times = table[(table["experiment"] == "latency") & (table["batch"] == 1)]
    ways = [("cuda", "graph", "bfloat16", 1), ("cuda", "graph", "bfloat16", 32), ("cuda", "graph", "bfloat16", 64),
            ("cuda", "eager", "bfloat16", 1)]  # fmt: skip
    copies = [times.assign(device=d, mode=m, precision=p, batch=b) for d, m, p, b in ways]
    measured = pd.concat([table, *copies], ignore_index=True)
    brought = measured.assign(source=measured["source"].replace("generated", "market1501"))
    claims = read_claims(PAPER / "claims.yaml", read_reported(PAPER / "reported.csv"))
    ids = {claim.id.split("_")[0] for claim in claims}
    assert {f"c{number}" for number in range(1, 9)} <= ids
    for claim in claims:
        assert not claim.not_tested
        of_scales: dict[Scale, pd.DataFrame] = {"standard": measured, "paper": brought}
        for scale, rows in of_scales.items():
            verdict = judge(claim, rows, scale, [])
            assert (verdict.outcome == "not tested") == (scale not in claim.scales), f"{claim.id}: {verdict.reason}"


def test_a_training_gives_the_same_scores_twice_and_beside_others(records):
    made = learnability.Settings.model_validate({**records.of("learnability")[0].parameters, "place": "street"})
    parts = learnability.figreid("street", made.data_seed, made.counts["street"], made.difficulty, made.backbone.size)
    schedule = made.schedule.model_copy(update={"steps": 3})
    jobs = [Job("plain", SMALL, {}, seed) for seed in (0, 1)]

    def after(_, network):
        return {"sum": [float(sum(x.double().abs().sum() for x in network.state_dict().values()))]}

    context = Context(device="cpu", label="test")
    together = train_all(jobs, parts["train"], schedule, context, after)
    alone = train_all(jobs[1:], parts["train"], schedule.model_copy(update={"side_by_side": 1}), context, after)
    assert alone["plain seed 1"] == together["plain seed 1"]
    assert together["plain seed 0"] != together["plain seed 1"]
