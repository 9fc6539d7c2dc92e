"""Experiments at a tiny size, scores, augmentation, configuration and claims."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

from common.claims import check_claims, judge, read_claims
from common.configuration import cells_of, check_parameters, read_paper_config
from common.data.answer_grounding.generated import write_generated
from common.errors import ConfigError, DataError, InputError
from common.experiment import Context, Measurement, measure
from common.metrics.masks import Overlap, iou_of_each
from common.records import RecordSet
from common.reported import read_reported
from papers.sentence_attention import augmentation, comparison, encoded_sentences, image_free_baselines, photographs
from papers.sentence_attention.comparison import Pair
from papers.sentence_attention.emoji_ground import scenes_of
from papers.sentence_attention.scoring import add_scores, cosines
from papers.sentence_attention.subjects import PROBES, Data, digest_of, read_sentences

PAPER = Path("papers/sentence_attention")
DATA = Data(sprites="generated", seed=0, train_scenes=6, questions=2, test_scenes={"iid": 4})


def test_configuration_and_claims_are_valid():
    config = read_paper_config(PAPER / "config.yaml")
    check_parameters(config, PAPER / "config.yaml")
    check_claims(PAPER, list(config.experiments))


def test_every_pair_that_is_compared_is_measured_at_every_scale():
    config = read_paper_config(PAPER / "config.yaml")
    for scale in ("smoke", "standard", "paper"):
        measured = {(cell.axes["variant"], "") for cell in cells_of(config, "grounding", scale)}
        measured |= {(cell.axes["variant"], cell.axes["backbone"]) for cell in cells_of(config, "flexibility", scale)}
        for pair in config.experiments["comparison"].parameters["pairs"].at(scale):
            pair = Pair(**pair)
            assert (pair.method, pair.backbone) in measured
            assert (pair.over, pair.over_backbone) in measured


def row(experiment, metric, value, method, **setting):
    return {"experiment": experiment, "metric": metric, "value": value, "method": method, "record": "r", **setting}


def test_claims_are_judged_by_direction_and_margin():
    claims = {claim.id: claim for claim in read_claims(PAPER / "claims.yaml", read_reported(PAPER / "reported.csv"))}

    def outcome(gain, noise=0.01):
        generator = np.random.default_rng(0)
        rows = []
        for seed in range(3):
            for part in range(20):
                base = 0.2 + 0.05 * generator.standard_normal()
                difference = gain + noise * generator.standard_normal()
                for method, value in (("se", base), ("sab", base + difference)):
                    rows.append(row("grounding", "iou_of_part", value, method, part=part, seed=seed))
        rows.append(row("comparison", "iou_gain", gain, "sab", over="se", backbone="main"))
        reported = read_reported(PAPER / "reported.csv")
        return judge(claims["c1_sentence_gates_ground_answers"], pd.DataFrame(rows), "standard", reported).outcome

    assert outcome(0.2) == "reproduced"
    assert outcome(0.1) == "contradicted"  # the direction holds, the margin does not
    assert outcome(-0.1) == "contradicted"
    reported = read_reported(PAPER / "reported.csv")
    last = judge(claims["c8_state_of_the_art"], pd.DataFrame(), "paper", reported)
    assert last.outcome == "not tested"
    assert "not available" in last.reason


def test_scores_by_split_kind_and_part():
    scenes = scenes_of("generated", "iid", 12, 0)
    counts = Overlap(torch.arange(12), torch.full((12,), 20))
    measurement = Measurement()
    each = add_scores(measurement, counts, scenes, parts=3, method="sab", seed=1)
    np.testing.assert_allclose(each, np.arange(12) / 20)
    rows = {(r.metric, r.setting.get("part"), r.setting.get("kind")): r.value for r in measurement.rows}
    assert rows["iou_mean", None, None] == pytest.approx(5.5 / 20)
    assert rows["iou_cum", None, None] == pytest.approx(66 / 240)
    assert [rows["iou_of_part", part, None] for part in range(3)] == pytest.approx([1.5 / 20, 5.5 / 20, 9.5 / 20])
    kinds = [asked[0].kind for asked in scenes.questions]
    for kind in set(kinds):
        wanted = np.mean([each[i] for i in range(12) if kinds[i] == kind])
        assert rows["iou_of_kind", None, kind] == pytest.approx(wanted)
    assert all(r.method == "sab" and r.setting["seed"] == 1 for r in measurement.rows)


def test_cosines_of_pairs():
    vectors = np.random.default_rng(0).normal(size=(4, 3))
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    wanted = [vectors[i] @ vectors[j] / np.linalg.norm(vectors[i]) / np.linalg.norm(vectors[j]) for i, j in pairs]
    np.testing.assert_allclose(cosines(vectors), wanted)


def test_all_sentences_are_listed_once_with_the_probes():
    sentences = DATA.sentences("q")
    assert sentences == sorted(set(sentences))
    assert set(PROBES) <= set(sentences)
    assert {q.text for asked in DATA.scenes("train").questions for q in asked} <= set(sentences)
    assert not set(PROBES) & set(DATA.sentences("a"))
    both = DATA.sentences("qa")
    assert all(f"{q.text} {q.answer}" in both for asked in DATA.scenes("iid").questions for q in asked)
    assert not torch.equal(digest_of(sentences), digest_of(both))


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Records of the encoded sentences and of one training experiment's cells, at smoke size."""
    from papers.sentence_attention import flexibility, grounding

    out = tmp_path_factory.mktemp("records")
    config = read_paper_config(PAPER / "config.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{out}/mlflow.db")
        for module, wanted in (
            (encoded_sentences, None),
            (grounding, [{"variant": "sab"}, {"variant": "se"}]),
            (flexibility, [{"backbone": "mobilenetv2", "variant": "sab"}]),
        ):
            name = module.__name__.rpartition(".")[2]
            entry = config.experiments[name]
            earlier = {before: RecordSet(out, before) for before in entry.after}
            for cell in cells_of(config, name, "smoke"):
                if wanted is None or cell.axes in wanted:
                    try:
                        settings = module.Settings.model_validate({**cell.axes, **cell.parameters})
                        measure(module.run, settings, cell, entry, out / name / cell.name, earlier)
                    except DataError as error:
                        pytest.skip(f"weights cannot be had here: {error}")
    return out


@pytest.mark.weights
def test_encoded_sentences_are_minilms(records):
    from common.language_models.sentence_encoder import embed

    encoded = RecordSet(records, "encoded_sentences")
    config = read_paper_config(PAPER / "config.yaml")
    data = Data(**config.experiments["grounding"].parameters["data"].at("smoke"))
    sentences = read_sentences(encoded, data, "q", "cpu")
    texts = list(sentences.rows)
    torch.testing.assert_close(sentences.vectors, torch.from_numpy(embed(texts, "cpu", longest=32)), rtol=0, atol=2e-3)
    assert sentences.tokens is not None
    assert sentences.present is not None
    weights = sentences.present.float()[..., None]
    means = (sentences.tokens.float() * weights).sum(1) / weights.sum(1)
    torch.testing.assert_close(torch.nn.functional.normalize(means, dim=1), sentences.vectors, rtol=0, atol=3e-3)
    cosine = {r.setting["sentence"]: r.value for r in encoded.records[0].rows if r.metric == "cosine"}
    assert cosine["Where is the dog?"] == pytest.approx(0.833, abs=2e-3)
    assert read_sentences(encoded, data, "qa", "cpu").tokens is None
    with pytest.raises(DataError, match="other sentences"):
        read_sentences(encoded, DATA, "q", "cpu")


@pytest.mark.weights
def test_a_training_cell_measures_what_claims_and_figures_need(records):
    table = RecordSet(records).table()
    ours = table[table["experiment"] == "grounding"]
    assert set(ours["metric"]) == {"iou_mean", "iou_cum", "iou_of_kind", "iou_of_part", "gate_spearman", "gate_cosine"}
    assert set(ours.loc[ours["metric"] == "iou_mean", "split"]) == {"iid", "newname", "synonym", "newcomb", "style", "relation"}
    (sab,) = (r for r in RecordSet(records).of("grounding") if r.axes["variant"] == "sab")
    arrays = RecordSet(records).arrays(sab)
    assert arrays["images"].shape == (6, 3, 32, 32)
    assert arrays["true"].shape == arrays["predicted"].shape == (6, 32, 32)
    (spearman,) = (r.value for r in sab.rows if r.metric == "gate_spearman")
    assert spearman == pytest.approx(spearmanr(*arrays["gate_pairs"])[0], abs=1e-6)
    whole = next(r.value for r in sab.rows if r.metric == "iou_mean" and r.setting["split"] == "iid")
    assert arrays["iou_iid"].mean() == pytest.approx(whole, abs=1e-6)


@pytest.mark.weights
def test_comparison_is_paired_over_images(records):
    sets = {name: RecordSet(records, name) for name in ("grounding", "flexibility")}
    pairs = [
        Pair(method="sab", over="se"),
        Pair(method="sab", over="sab", over_backbone="mobilenetv2"),
    ]
    measurement = comparison.run(comparison.Settings(pairs=pairs), Context("cpu", "test", earlier=sets))
    found = {(r.metric, r.setting["over_backbone"]): r.value for r in measurement.rows}
    by = {r.axes["variant"]: sets["grounding"].arrays(r)["iou_iid"] for r in sets["grounding"].records}
    other = sets["flexibility"].arrays(sets["flexibility"].records[0])["iou_iid"]
    assert found["iou_gain", "main"] == pytest.approx(float((by["sab"] - by["se"]).mean()), abs=1e-6)
    assert found["iou_gain", "mobilenetv2"] == pytest.approx(float((by["sab"] - other).mean()), abs=1e-6)
    assert found["iou_gain_low", "main"] <= found["iou_gain", "main"] <= found["iou_gain_high", "main"]
    with pytest.raises(DataError, match="'film'"):
        comparison.iou_of(sets["grounding"], "film", "")


def test_image_free_masks_on_made_up_annotations():
    settings = image_free_baselines.Settings(source="generated", side=32, boxes=[80], threshold=0.2)
    rows = image_free_baselines.run(settings, Context("cpu", "test")).rows
    found = {(r.metric, r.method): r.value for r in rows}
    area = found["mask_area", ""]
    assert found["iou_mean", "all_foreground"] == pytest.approx(area)
    assert found["iou_cum", "all_foreground"] == pytest.approx(area)
    assert image_free_baselines.centred_box(10, 60).sum() == 36


def photograph(height=20, width=30):
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (height, width, 3)).astype(np.uint8)
    return augmentation.labelled(pixels, generator.random((height, width)) < 0.5)


def test_test_photographs_are_resized_and_padded_in_the_middle():
    one = augmentation.for_testing(photograph(), 60)
    assert one.pixels.shape == (3, 60, 60)
    assert (one.label[:10] == augmentation.IGNORED).all()
    assert (one.label[50:] == augmentation.IGNORED).all()
    assert (one.label[10:50] != augmentation.IGNORED).all()
    assert (one.pixels[:, :10] == 0).all()


def test_placing_crops_and_pads():
    one = photograph(6, 9)
    placed = augmentation.placed(one, 8, left=1.0, top=0.5)
    assert torch.equal(placed.label[1:7], one.label[:, 1:])
    assert (placed.label[[0, 7]] == augmentation.IGNORED).all()
    assert torch.equal(placed.pixels[:, 1:7], one.pixels[:, :, 1:])
    with pytest.raises(InputError, match="same size"):
        augmentation.labelled(np.zeros((3, 4, 3), np.uint8), np.zeros((4, 4), bool))


def test_training_photographs_are_the_same_for_the_same_generator_and_keep_labels():
    found = [augmentation.for_training(photograph(), 24, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert torch.equal(found[0].pixels, found[1].pixels)
    assert not torch.equal(found[0].pixels, found[2].pixels)
    for seed in range(30):
        one = augmentation.for_training(photograph(), 24, np.random.default_rng(seed))
        assert one.pixels.shape == (3, 24, 24)
        assert set(one.label.unique().tolist()) <= {0, 1, 2}


@pytest.mark.parametrize("number", range(len(augmentation.OPERATIONS)))
def test_operations_move_photograph_and_label_alike(number):
    mask = np.zeros((40, 60), bool)
    mask[15:25, 20:35] = True
    pixels = np.where(mask[..., None], 255, 0).astype(np.uint8).repeat(3, axis=2)
    one = augmentation.OPERATIONS[number](augmentation.labelled(pixels, mask))
    assert one.pixels.shape[1:] == one.label.shape
    bright = one.pixels[0] > 127
    assert iou_of_each(Overlap((bright & (one.label == 1)).sum()[None], (bright | (one.label == 1)).sum()[None]))[0] > 0.85


def settings_of(**change):
    given = {
        "data_set": "vizwiz", "variant": "sab", "source": "generated", "text": "qa", "backbone": "mobilenetv2_100",
        "weights": "none", "seeds": [0], "epochs": 1, "warmup_epochs": 0, "batch": 4, "side": 32, "test_side": 32,
        "learning_rate": 1e-4, "weight_decay": 0.05, "dropout": 0.5, "workers": 0, "precision": "float32",
    }  # fmt: skip
    return photographs.Settings(**{**given, **change})


@pytest.fixture
def made_up_vectors(monkeypatch):
    def embed(sentences, device, **_):
        return np.stack([np.random.default_rng(len(s)).normal(size=384).astype(np.float32) for s in sentences])

    monkeypatch.setattr(photographs, "embed", embed)


def test_photographs_are_trained_and_tested_the_same_twice(made_up_vectors):
    found = [photographs.run(settings_of(), Context("cpu", "test")).rows for _ in range(2)]
    assert found[0] == found[1]
    values = {(r.metric, r.setting.get("part")): r.value for r in found[0]}
    assert values["questions", "train"] == values["questions", "test"] == photographs.GENERATED
    assert 0 <= values["iou_mean", None] <= 1


def test_photographs_are_looked_for_where_the_user_brings_them(made_up_vectors, monkeypatch, tmp_path):
    monkeypatch.setenv("REATTEND_DATA", str(tmp_path))
    with pytest.raises(DataError, match="VQS"):
        photographs.run(settings_of(data_set="vqs", source="brought"), Context("cpu", "test"))
    write_generated(tmp_path / "answer_grounding" / "vqs", "vqs", 5, seed=0)
    rows = photographs.run(settings_of(data_set="vqs", source="brought"), Context("cpu", "test")).rows
    assert {r.value for r in rows if r.metric == "questions"} == {5}
    with pytest.raises(DataError, match=r"b7\.safetensors"):
        photographs.make_network(settings_of(weights="b7.safetensors"), 384, 0)
    with pytest.raises(ConfigError, match="tokens"):
        photographs.make_network(settings_of(variant="cross_attention"), 384, 0)
