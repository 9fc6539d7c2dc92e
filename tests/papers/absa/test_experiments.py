"""The experiments at scale smoke, on made-up reviews and a random encoder: nothing is downloaded."""

import json
import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from common.claims import judge, read_claims
from common.configuration import cells_of, read_paper_config
from common.data.aspects import POLARITIES
from common.errors import ConfigError, DataError
from common.experiment import Context, Measurement, measure
from common.figures import style
from common.provenance import REPOSITORY
from common.records import RecordSet
from common.reported import read_reported
from papers.absa import figures, progressive_learning, subjects, vector_sources, word_sources, word_vectors
from papers.absa.pipeline import SELECTIONS, Chain, Mining, Variant
from tests.papers.absa.examples import reviews, tiny_encoder, tiny_tokenizer

ON_CPU = Context("cpu", "test")
CONFIG = read_paper_config(REPOSITORY / "papers" / "absa" / "config.yaml")


def settings_of(module, experiment, **axes):
    cell = cells_of(CONFIG, experiment, "smoke")[0]
    return module.Settings.model_validate({**cell.axes, **cell.parameters, **axes})


def rows_of(measurement: Measurement, metric: str, **setting):
    return [
        row for row in measurement.rows
        if row.metric == metric
        and all({**row.setting, "method": row.method}.get(key) == value for key, value in setting.items())
    ]  # fmt: skip


def values(measurement):
    return [(row.metric, row.method, row.value) for row in measurement.rows if not row.timing]


@pytest.fixture
def _made_up(monkeypatch):
    def load(name, split):
        return reviews(60, seed=("train", "validation", "test").index(split))

    table = torch.nn.Embedding(32, 20)
    encoder = tiny_encoder()
    encoder.embeddings.word_embeddings = table
    monkeypatch.setattr(subjects, "load_instances", load)
    monkeypatch.setattr(subjects, "load_encoder", lambda device: tiny_encoder())
    monkeypatch.setattr(subjects, "load_tokenizer", tiny_tokenizer)
    monkeypatch.setattr(word_sources, "load_encoder", lambda device: encoder)
    monkeypatch.setattr(word_sources, "load_tokenizer", tiny_tokenizer)
    monkeypatch.setattr(word_sources, "embed", lambda words, device, longest: np.random.default_rng(0).random((len(words), 30)))

    def forget():
        for cached in (subjects.instances_of, subjects.tokenizer_of, subjects._pretrained):
            cached.cache_clear()

    forget()
    yield
    forget()


@pytest.mark.usefixtures("_made_up")
@pytest.mark.parametrize("model", ["memory_network", "tnet_attention", "transformer"])
def test_progressive_learning(model):
    settings = settings_of(progressive_learning, "progressive_learning", model=model, vector_size=8)
    first = progressive_learning.run(settings, ON_CPU)
    variants = set(settings.learning[model].variants)
    assert all(math.isfinite(row.value) for row in first.rows)
    for selection in SELECTIONS:
        rows = rows_of(first, "macro_f1", selection=selection)
        assert {row.method for row in rows} == variants
        assert len(rows) == 2 * len(variants)
    for seed in settings.seeds:
        f1 = {
            (row.method, row.setting["selection"]): row.value
            for row in rows_of(first, "macro_f1")
            if row.setting["seed"] == seed
        }
        (gain,) = rows_of(first, "as_gain", seed=seed)
        assert gain.value == pytest.approx(f1["as", "validation"] - f1["plain", "validation"])
        (worth,) = rows_of(first, "selection_gain", seed=seed, method="plain")
        assert worth.value == pytest.approx(f1["plain", "test"] - f1["plain", "validation"])
        accuracy = {row.setting["selection"]: row.value for row in rows_of(first, "accuracy", method="as", seed=seed)}
        assert accuracy["test"] >= max(accuracy["validation"], accuracy["last"])
    assert {row.method for row in rows_of(first, "gain_p_value")} == variants - {"plain"}
    assert {row.setting["kind"] for row in rows_of(first, "picked")} == {"active", "misleading"}
    assert len(first.arrays["active_words"]) == len(first.arrays["active_counts"]) <= settings.top
    tokens, attention = first.arrays["picture_0_tokens"], first.arrays["picture_0_attention"]
    assert attention.shape == (2, len(tokens))
    assert attention.sum(1) == pytest.approx([1, 1], abs=1e-4)
    assert first.arrays["picture_0_classes"].max() < len(POLARITIES)
    if model == "tnet_attention":
        assert {row.setting["epsilon"] for row in rows_of(first, "macro_f1", method="as_entropy_7")} == {7}
        assert values(first) == values(progressive_learning.run(settings, ON_CPU))


@pytest.mark.usefixtures("_made_up")
def test_other_data_sets_have_the_main_variants_and_no_pictures():
    settings = settings_of(progressive_learning, "progressive_learning", data_set="laptop", vectors="random")
    measurement = progressive_learning.run(settings, ON_CPU)
    assert {row.method for row in rows_of(measurement, "macro_f1")} == set(settings.main_variants)
    assert {row.method for row in rows_of(measurement, "picked")} == {"default"}
    assert not any(name.startswith("picture") for name in measurement.arrays)


@pytest.mark.usefixtures("_made_up")
def test_word_vectors_and_the_network_on_them(monkeypatch):
    settings = settings_of(word_vectors, "word_vectors", texts=["laptop"], vector_size=8)
    measurement = word_vectors.run(settings, ON_CPU)
    assert {row.method for row in rows_of(measurement, "macro_f1")} == set(settings.sources)
    vectors = measurement.artifacts["gensim"]
    (words,) = rows_of(measurement, "words")
    assert vectors["vectors"].shape == (words.value, 8)

    class Earlier(RecordSet):
        def __init__(self):
            self.records = [type("Record", (), {"axes": {"data_set": "mams"}, "identity": "absa/word_vectors/x"})()]  # pyright: ignore[reportAttributeAccessIssue]

        def artifact(self, record, name):
            assert name == "gensim"
            return vectors

    context = Context("cpu", "test", earlier={"word_vectors": Earlier()})
    for source in ("gensim", "minilm_pieces", "minilm_words", "random"):
        found = vector_sources.run(settings_of(vector_sources, "vector_sources", vectors=source, vector_size=8), context)
        assert {row.method for row in rows_of(found, "macro_f1")} == {"plain", "as"}
    with pytest.raises(DataError, match="same sizes and vector_size"):
        vector_sources.run(settings_of(vector_sources, "vector_sources", vectors="gensim", vector_size=7), context)
    with pytest.raises(DataError, match="no cell with data_set = 'rest'"):
        vector_sources.run(settings_of(vector_sources, "vector_sources", vectors="gensim", data_set="rest"), context)
    with pytest.raises(ConfigError, match="asks for the results"):
        vector_sources.run(settings_of(vector_sources, "vector_sources", vectors="gensim"), ON_CPU)


@pytest.mark.usefixtures("_made_up")
def test_texts_for_gensim_hold_no_other_sets_test_sentences(monkeypatch):
    asked = []

    def load(name, split):
        asked.append((name, split))
        return reviews(9, seed=len(asked))

    monkeypatch.setattr(subjects, "load_instances", load)
    word_vectors.sentences_to_read(settings_of(word_vectors, "word_vectors", texts=["laptop", "mams"]))
    assert asked == [("mams", "train"), ("mams", "validation"), ("mams", "test"), ("laptop", "train")]


@pytest.fixture
def records(_made_up, tmp_path):
    """Records of the whole paper at scale smoke."""

    def measured(module, experiment, **earlier):
        for cell in cells_of(CONFIG, experiment, "smoke"):
            settings = module.Settings.model_validate({**cell.axes, **cell.parameters, "vector_size": 8})
            measure(module.run, settings, cell, CONFIG.experiments[experiment], tmp_path / experiment / cell.name, earlier)
        return RecordSet(tmp_path, experiment)

    vectors = measured(word_vectors, "word_vectors")
    measured(vector_sources, "vector_sources", word_vectors=vectors)
    measured(progressive_learning, "progressive_learning")
    return RecordSet(tmp_path)


def test_figures_and_verdicts(records):
    with style():
        for name in CONFIG.figures:
            figure = getattr(figures, name)(records)
            assert any(axes.has_data() for axes in figure.axes), name
            plt.close(figure)
        shown = figures.mined_words(records)
        by_model = {record.axes["model"]: record for record in records.of("progressive_learning")}
        for model, (active, misleading) in zip(figures.MODEL_NAMES, np.array(shown.axes).reshape(-1, 2), strict=True):
            record = by_model[model]
            arrays = records.arrays(record)
            for axes, kind in ((active, "active"), (misleading, "misleading")):
                assert [text.get_text() for text in axes.get_yticklabels()] == list(arrays[f"{kind}_words"])
        plt.close(shown)
    reported = read_reported(REPOSITORY / "papers" / "absa" / "reported.csv")
    claims = read_claims(REPOSITORY / "papers" / "absa" / "claims.yaml", reported)
    verdicts = {claim.id: judge(claim, records.table(), "standard", reported) for claim in claims}
    # What smoke trains is judged when it is called standard; what it leaves out is missing, and said so.
    gains = verdicts["as_improves_base_models"].evidence
    table = records.table()
    for evidence, model in zip(gains, figures.MODEL_NAMES, strict=True):
        rows = table[(table["metric"] == "as_gain") & (table["model"] == model)]
        assert evidence.estimate == pytest.approx(rows["value"].mean(), abs=1e-9)
    assert len(verdicts["attention_moves_to_active_words"].evidence) >= 2
    assert verdicts["as_improves_on_the_papers_sets"].outcome == "not tested"
    assert verdicts["published_tnet_att_as"].outcome == "not tested"


def test_variants_are_checked_before_anything_is_trained():
    mining = Mining(
        chains={"default": Chain(epsilon=4)},
        variants={"plain": Variant(weight=0), "as": Variant(), "odd": Variant(chain="nowhere")},
        samples=1,
        noise=0.1,
    )
    assert list(mining.chosen(["plain", "as"])) == ["plain", "as"]
    for names, said in ((["plain", "as", "more"], "'more'"), (["plain"], "lack"), (["plain", "as", "odd"], "'nowhere'")):
        with pytest.raises(ConfigError, match=said):
            mining.chosen(names)


def test_an_encoder_of_the_users(tmp_path, monkeypatch):
    subjects.tokenizer_of.cache_clear()
    subjects._pretrained.cache_clear()
    monkeypatch.setenv("REATTEND_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"Put config\.json, tokenizer\.json and model\.safetensors"):
        subjects.fresh_encoder("my_bert")
    folder = tmp_path / "my_bert"
    folder.mkdir()
    original = tiny_encoder()
    (folder / "config.json").write_text(json.dumps(original.config.to_dict()))
    state = {f"bert.{name}": value.contiguous() for name, value in original.state_dict().items()}
    save_file({**state, "cls.bias": torch.zeros(3)}, folder / "model.safetensors")
    tiny_tokenizer().tokenizer.save(str(folder / "tokenizer.json"))
    found = subjects.fresh_encoder("my_bert").state_dict()
    assert all(torch.equal(value, found[name]) for name, value in original.state_dict().items())
    assert subjects.tokenizer_of("my_bert").start == 2
    subjects._pretrained.cache_clear()
    del state["bert.encoder.layer.0.output.dense.weight"]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(DataError, match="lacks"):
        subjects.fresh_encoder("my_bert")
    subjects.tokenizer_of.cache_clear()
    subjects._pretrained.cache_clear()


@pytest.mark.usefixtures("_made_up")
def test_glove_of_the_users(tmp_path, monkeypatch):
    settings = settings_of(progressive_learning, "progressive_learning", vectors="glove", vector_size=2)
    monkeypatch.delenv("REATTEND_DATA", raising=False)
    with pytest.raises(DataError, match="REATTEND_DATA is not set"):
        progressive_learning.word_vectors_of(settings, ["good"])
    monkeypatch.setenv("REATTEND_DATA", str(tmp_path))
    (tmp_path / "glove").mkdir()
    (tmp_path / word_sources.GLOVE).write_text("good 3 4\n")
    assert progressive_learning.word_vectors_of(settings, ["good"]).tolist() == [[0, 0], [3, 4]]
