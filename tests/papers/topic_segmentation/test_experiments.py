"""The experiments on a few short documents: what they measure is what the configuration says."""

import math

import numpy as np
import pandas as pd
import pytest

from common.configuration import cells_of, read_paper_config
from common.errors import ConfigError, DataError, InputError
from common.experiment import Context, Measurement
from common.metrics.segmentation import CONVENTIONS, pk
from common.provenance import REPOSITORY
from common.records import RecordSet
from papers.topic_segmentation import (
    coherence,
    conventions,
    embedding,
    heads,
    lexical,
    paragraph_pairs,
    supervised_baseline,
    tables,
)
from papers.topic_segmentation.conventions import agreement, system_scores, turned_pairs
from papers.topic_segmentation.scoring import add_scores, pk_by_part
from papers.topic_segmentation.scoring_in_words import add_scores_in_words, in_words
from papers.topic_segmentation.subjects import documents_of
from papers.topic_segmentation.tssp_cssl import Weights
from tests.papers.topic_segmentation.tiny_encoder import documents, tiny_encoder, tiny_tokenizer

ON_CPU = Context(device="cpu", label="test")
CONFIG = read_paper_config(REPOSITORY / "papers" / "topic_segmentation" / "config.yaml")


def settings_of(module, experiment, cell=0, **changes):
    chosen = cells_of(CONFIG, experiment, "smoke")[cell]
    return module.Settings.model_validate({**chosen.axes, **chosen.parameters, **changes})


def rows_of(measurement, metric, **setting):
    return [
        row for row in measurement.rows
        if row.metric == metric and all(row.setting.get(key) == value for key, value in setting.items())
    ]  # fmt: skip


def values(measurement):
    return [(row.metric, row.method, tuple(row.setting.items()), row.value) for row in measurement.rows]


@pytest.fixture
def _tiny(monkeypatch):
    """Documents of made-up topics in place of every data set, and a random encoder in place of MiniLM."""

    def load(name, split, count, sentences):
        del name, sentences
        return documents(count or 6, seed=("train", "validation", "test").index(split))

    for module in (coherence, heads, lexical, embedding, paragraph_pairs, supervised_baseline):
        monkeypatch.setattr(module, "documents_of", load)
        if hasattr(module, "fresh_encoder"):
            monkeypatch.setattr(module, "fresh_encoder", tiny_encoder)
            monkeypatch.setattr(module, "tokenizer", tiny_tokenizer)
    heads._sentences.cache_clear()
    coherence._sequences.cache_clear()
    yield
    heads._sentences.cache_clear()
    coherence._sequences.cache_clear()


def test_scores_in_every_convention_and_by_part():
    measurement = Measurement()
    references, hypotheses = [(20, 20), (30, 14), (3,), (1,)], [(22, 18), (44,), (3,), (1,)]
    add_scores(measurement, references, hypotheses, method="m", parts=9, data_set="d")
    assert {row.setting["convention"] for row in rows_of(measurement, "pk")} == set(CONVENTIONS)
    (standard,) = rows_of(measurement, "pk", convention="standard")
    assert standard.value == pytest.approx(100 * pk(references, hypotheses))
    parts = [row.value for row in rows_of(measurement, "pk_of_part")]
    assert len(parts) == 3  # the last document has no window
    assert np.mean(parts) == pytest.approx(standard.value)
    assert {row.unit for row in rows_of(measurement, "boundary_f1")} == {"%"}
    assert pk_by_part([(1,)], [(1,)], 3) == []
    with pytest.raises(InputError, match="parts is 0"):
        pk_by_part(references, hypotheses, 0)


def test_pk_in_words_by_hand():
    sentences = ["a b c", "d", "e f", "g h"]
    assert in_words((2, 2), sentences) == (4, 4)
    assert in_words((1, 2, 1), ["a b c", "", "d", "e"]) == (3, 2, 1)
    with pytest.raises(InputError, match="have 3 sentences and the document 4"):
        in_words((2, 1), sentences)
    # The reference cuts after word 4 of 8, k = 2; the hypothesis after word 3. Of six windows the one over words 2 to 4 has the
    # hypothesis' cut alone, the one over words 4 to 6 the reference's. In sentences the second of two windows has
    # the reference's cut alone.
    measurement = Measurement()
    add_scores(measurement, [(2, 2)], [(1, 3)], method="m", parts=1)
    add_scores_in_words(measurement, [(2, 2)], [(1, 3)], [sentences], method="m", parts=1)
    (words,), (part,) = rows_of(measurement, "pk_in_words"), rows_of(measurement, "pk_in_words_of_part", part=0)
    assert [words.value, part.value] == pytest.approx([100 * 2 / 6] * 2)
    (in_sentences,) = rows_of(measurement, "pk", convention="standard")
    assert in_sentences.value == pytest.approx(100 * 1 / 2)


def test_a_convention_without_windows_has_no_row():
    measurement = Measurement()
    add_scores(measurement, [(3, 3)], [(6,)], method="m", parts=1)
    assert not rows_of(measurement, "pk", convention="fixed_10")
    assert rows_of(measurement, "pk", convention="standard")


@pytest.mark.usefixtures("_tiny")
def test_lexical_segmenters():
    settings = settings_of(lexical, "lexical", topics=3, topic_passes=2, background={"wikipedia-sections": "folds"})
    first, second = (lexical.run(settings, ON_CPU) for _ in "ab")
    assert values(first) == values(second)
    methods = {row.method for row in rows_of(first, "pk")}
    assert methods == set(settings.methods)
    assert {row.setting["seed"] for row in rows_of(first, "pk") if row.method == "random"} == {0, 1}
    known = {row.method for row in rows_of(first, "pk", count="known")}
    assert known == {"even", "text_tiling", "text_tiling_short", "c99", "topic_tiling"}
    wanted = np.mean([len(document.segments) for document in documents(4, seed=2)])
    assert all(row.value == wanted for row in rows_of(first, "segments_per_document", count="known"))
    (nothing,) = (row for row in rows_of(first, "segments_per_document") if row.method == "none")
    assert nothing.value == 1
    (threshold,) = rows_of(first, "graph_seg_threshold")
    assert threshold.value in settings.thresholds


@pytest.mark.usefixtures("_tiny")
def test_a_topic_model_is_never_trained_on_its_document(monkeypatch):
    seen = []

    def train(texts, **_):
        seen.append(list(texts))
        return len(seen) - 1

    monkeypatch.setattr(lexical, "train_topic_model", train)
    found = documents(5)
    settings = settings_of(lexical, "lexical", background={"wikipedia-sections": "folds"}, folds=2)
    models = lexical.topic_models(settings, found)
    for document, model in zip(found, models, strict=True):
        assert document.sentences not in seen[model]  # pyright: ignore[reportArgumentType, reportCallIssue]
    assert [len(texts) for texts in seen] == [2, 3]


@pytest.mark.usefixtures("_tiny")
def test_embedding_tiling(monkeypatch):
    asked = []

    def embed(sentences, device, *, longest):
        asked.append((device, longest))
        generator = np.random.default_rng(0)
        basis = {word: generator.standard_normal(8) for sentence in sentences for word in sentence.split()}
        return np.array([sum(basis[word] for word in sentence.split()) for sentence in sentences], dtype=np.float32)

    monkeypatch.setattr(embedding, "embed", embed)
    measurement = embedding.run(settings_of(embedding, "embedding"), ON_CPU)
    assert asked == [("cpu", 32)]
    assert {row.method for row in rows_of(measurement, "pk")} == {"minilm_tiling", "minilm_c99"}


@pytest.mark.usefixtures("_tiny")
@pytest.mark.parametrize("model", ["stp", "tc+nsp", "stp+tc+nsp+context"])
def test_heads(model):
    settings = settings_of(heads, "heads", model=model, seeds=[0, 1])
    measurement = heads.run(settings, ON_CPU)
    assert {row.setting["seed"] for row in measurement.rows} == {0, 1}
    assert {row.method for row in rows_of(measurement, "pk")} == {model}
    readings = {row.setting["reading"] for row in rows_of(measurement, "pk")}
    assert readings == {"sections", "label_changes"}
    trained = set(model.removesuffix("+context").split("+"))
    assert {row.metric.partition("_")[0] for row in measurement.rows if row.metric.endswith("_accuracy")} == trained
    assert all(math.isfinite(row.value) for row in measurement.rows)
    assert values(measurement) == values(heads.run(settings, ON_CPU))


@pytest.mark.usefixtures("_tiny")
@pytest.mark.parametrize("loss", list(coherence.LOSSES))
def test_coherence(loss, monkeypatch):
    asked = []
    real = coherence.coherence_loss

    def spied(model, step, weights, generator):
        asked.append((weights, step.augmented is not None))
        return real(model, step, weights, generator)

    monkeypatch.setattr(coherence, "coherence_loss", spied)
    measurement = coherence.run(settings_of(coherence, "coherence", loss=loss, tested_on=["a", "b"]), ON_CPU)
    expected = {
        "base": (Weights(0, 0, 0), False), "augmented": (Weights(1, 0, 0), True), "tssp": (Weights(1, 1, 0), True),
        "cssl": (Weights(0, 0, 0.5), False), "tssp+cssl": (Weights(1, 1, 0.5), True),
    }  # fmt: skip
    assert set(asked) == {expected[loss]}
    assert {row.setting["tested_on"] for row in rows_of(measurement, "boundary_f1")} == {"a", "b"}
    assert all(math.isfinite(row.value) for row in measurement.rows)


@pytest.mark.usefixtures("_tiny")
def test_coherence_depends_on_the_seed_alone():
    settings = settings_of(coherence, "coherence", loss="tssp+cssl")
    first, again = (values(coherence.run(settings, ON_CPU)) for _ in "ab")
    other = values(coherence.run(settings.model_copy(update={"seed": settings.seed + 1}), ON_CPU))
    assert first == again
    assert first != other


def test_coherence_knows_how_to_train_on_a_set():
    settings = settings_of(coherence, "coherence", loss="base", trained_on="elsewhere")
    with pytest.raises(ConfigError, match="how to train on wikipedia-sections, and trained_on is elsewhere"):
        coherence.run(settings, ON_CPU)


@pytest.mark.usefixtures("_tiny")
def test_members_and_their_ensemble():
    measurement = paragraph_pairs.run(settings_of(paragraph_pairs, "paragraph_pairs"), ON_CPU)
    by_method = {
        method: [row.value for row in rows_of(measurement, "pk", convention="standard") if row.method == method]
        for method in ("member", "ensemble")
    }
    assert [len(found) for found in by_method.values()] == [3, 3]
    assert len(set(by_method["ensemble"])) == 1
    assert {row.setting["seed"] for row in rows_of(measurement, "pair_accuracy")} == {0, 1, 2}


@pytest.mark.usefixtures("_tiny")
def test_the_supervised_baseline():
    settings = settings_of(supervised_baseline, "supervised_baseline")
    first, second = (supervised_baseline.run(settings, ON_CPU) for _ in "ab")
    assert values(first) == values(second)
    (threshold,) = rows_of(first, "threshold")
    assert threshold.value in settings.thresholds
    assert {row.method for row in rows_of(first, "pk")} == {"bilstm"}


def test_agreement_and_turned_pairs_by_hand():
    same = np.array([[1.0, 10], [2, 20], [3, 30], [4, np.nan]])
    assert agreement(same) == pytest.approx(1)
    assert turned_pairs(same) == 0
    one_turned = np.array([[1.0, 20], [2, 10], [3, 30]])
    assert agreement(one_turned) == pytest.approx(1 / 3)
    assert turned_pairs(one_turned) == pytest.approx(100 / 3)
    assert agreement(same[:2]) is None
    assert agreement(np.array([[1.0, 5], [2, 5], [3, 5]])) is None
    assert turned_pairs(same[:1]) == 0


def table(scores):
    """Rows as a record table has them: {(data set, method, count): {convention: P_k}}."""
    return pd.DataFrame(
        [
            {"metric": metric, "data_set": data_set, "method": method, "count": count, "convention": name, "value": value}
            for (data_set, method, count), by_name in scores.items()
            for name, value in by_name.items()
            for metric in ("pk", "window_diff")
            for _ in range(2)  # seeds
        ]
    )  # fmt: skip


def test_what_a_convention_moves(monkeypatch):
    scores = {
        ("d", "a", "found"): {"standard": 10.0, "fixed_10": 40.0},
        ("d", "a", "known"): {"standard": 20.0, "fixed_10": 30.0},
        ("d", "b", "found"): {"standard": 30.0, "fixed_10": 20.0},
        ("e", "a", "found"): {"standard": 3.0, "fixed_10": 3.0},
        ("e", "a", "known"): {"standard": 2.0, "fixed_10": 2.0},
        ("e", "b", "found"): {"standard": 1.0, "fixed_10": 1.0},
    }
    settings = conventions.Settings(experiments=["lexical"], standard="standard", readings=[("d", "e"), ("d", "f")])
    context = Context("cpu", "test", earlier={"lexical": RecordSet(REPOSITORY / "nowhere")})
    with pytest.raises(DataError, match="hold no pk"):
        conventions.run(settings, context)
    monkeypatch.setattr(RecordSet, "table", lambda _: table(scores))
    measurement = conventions.run(settings, context)
    ranges = {(row.setting["data_set"], row.method): row.value for row in rows_of(measurement, "pk_range")}
    assert ranges["d", "a"] == 30
    assert ranges["d", "a, count known"] == 10
    assert ranges["e", "b"] == 0
    (tau,) = (row.value for row in rows_of(measurement, "pk_rank_agreement", data_set="d"))
    assert tau == pytest.approx(-1)
    (turned,) = (row.value for row in rows_of(measurement, "pk_turned_pairs", data_set="d"))
    assert turned == 100
    (reading,) = rows_of(measurement, "pk_reading_agreement")
    assert (reading.value, reading.setting) == (pytest.approx(-1), {"data_set": "d", "other": "e"})
    assert list(system_scores(table(scores), "pk").columns) == ["fixed_10", "standard"]
    with pytest.raises(ConfigError, match="asks for the results of 'other'"):
        conventions.run(settings.model_copy(update={"experiments": ["other"]}), context)


def test_the_table_of_conventions_shows_every_system_that_learns_nothing_and_its_range(monkeypatch):
    row = {"metric": "pk", "data_set": "d", "count": "found"}
    rows = [
        {**row, "experiment": "lexical", "method": "c99", "convention": "standard", "value": 12.04},
        {**row, "experiment": "lexical", "method": "c99", "convention": "fixed_10", "value": 20.0},
        {**row, "experiment": "embedding", "method": "minilm_c99", "convention": "standard", "value": 7.0},
        {**row, "experiment": "heads", "method": "stp", "convention": "standard", "value": 1.0},
    ]
    monkeypatch.setattr(RecordSet, "table", lambda _: pd.DataFrame(rows))
    columns, lines = tables.conventions(RecordSet(REPOSITORY / "nowhere"))
    assert list(columns) == ["Data set", "System", "standard", "k = 10", "range"]
    assert lines == [["d", "c99", "12.0", "20.0", "8.0"], ["d", "minilm_c99", "7.0", "–", "0.0"]]


def test_systems_of_all_experiments_and_data_sets_of_the_first(monkeypatch):
    line = {"metric": "pk", "convention": "standard", "value": 1.0}
    by_experiment = {
        "lexical": [
            {**line, "data_set": name, "method": "c99", "count": count}
            for name in ("d", "d-label-changes") for count in ("found", "known")
        ],
        "heads": [
            {**line, "data_set": name, "method": "stp", "reading": reading}
            for name in ("d", "only here") for reading in ("sections", "label_changes")
        ],
        "coherence": [{**line, "method": "tssp", "trained_on": "other", "tested_on": "d"}],
    }  # fmt: skip
    whole = pd.DataFrame([row for rows in by_experiment.values() for row in rows])
    found = system_scores(whole, "pk").index.tolist()
    assert set(found) == {
        ("d", "c99"), ("d", "c99, count known"), ("d-label-changes", "c99"), ("d-label-changes", "c99, count known"),
        ("d", "stp"), ("d-label-changes", "stp"), ("only here", "stp"), ("only here-label-changes", "stp"),
        ("d", "tssp, trained on other"),
    }  # fmt: skip
    for rows in by_experiment.values():
        rows += [{**row, "metric": "window_diff"} for row in rows]
    tables = iter([pd.DataFrame(rows) for rows in (*by_experiment.values(), by_experiment["lexical"])])
    monkeypatch.setattr(RecordSet, "table", lambda _: next(tables))
    earlier = {name: RecordSet(REPOSITORY / "nowhere") for name in by_experiment}
    settings = conventions.Settings(experiments=list(by_experiment), standard="standard", readings=[])
    measurement = conventions.run(settings, Context("cpu", "test", earlier=earlier))
    assert {row.setting["data_set"] for row in rows_of(measurement, "pk_range")} == {"d", "d-label-changes"}


def test_documents_are_cut_down():
    found = documents_of("wikipedia-sections", "test", 2, 30)
    assert [len(document.sentences) for document in found] == [30, 30]
    assert [sum(document.segments) for document in found] == [30, 30]
    assert len(documents_of("wikipedia-sections", "test", 0, 0)) == 24
