"""The sentence encoder: cosines known from another implementation, its cache, and bad input. Needs the 91 MB model."""

import numpy as np
import pytest
import torch

from common.errors import InputError
from common.language_models import sentence_encoder
from common.language_models.sentence_encoder import embed, load_encoder, load_tokenizer, mean_of_tokens

pytestmark = pytest.mark.weights
SENTENCES = ["A man is eating food.", "A man is eating a piece of bread.", "The girl is carrying a baby."]


def test_cosines_and_cache(tmp_path, monkeypatch):
    fetched = {file: sentence_encoder.fetch("minilm", file) for file in ("config.json", "tokenizer.json", "model.safetensors")}
    monkeypatch.setattr(sentence_encoder, "fetch", lambda _, file: fetched[file])
    monkeypatch.setenv("REATTEND_CACHE", str(tmp_path))
    vectors = embed(SENTENCES, "cpu")
    assert vectors.dtype == np.float32
    cosines = (vectors @ vectors.T)[[0, 0, 1], [1, 2, 2]]
    assert cosines == pytest.approx([0.7553, -0.1050, -0.0610], abs=1e-4)  # of sentence-transformers
    assert len(list((tmp_path / "embeddings").glob("*.safetensors"))) == 1

    def broken(*_):
        raise AssertionError("the cache was not used")

    with monkeypatch.context() as patch:
        patch.setattr(sentence_encoder, "load_encoder", broken)
        assert embed(SENTENCES, "cpu").tolist() == vectors.tolist()
        with pytest.raises(AssertionError, match="cache was not used"):
            embed(SENTENCES[:2], "cpu")
    reordered = embed(SENTENCES[::-1], "cpu", batch_size=2)
    assert reordered[::-1] == pytest.approx(vectors, abs=1e-5)
    assert embed([SENTENCES[0] * 9], "cpu", longest=8) == pytest.approx(embed([SENTENCES[0]], "cpu", longest=8), abs=1e-5)


def test_padding_has_no_part():
    tokenizer, network = load_tokenizer(), load_encoder("cpu")
    pieces = tokenizer.pieces(SENTENCES, 4)
    assert [len(ids) for ids in pieces] == [4, 4, 4]
    ids = tokenizer.batch([pieces[0], pieces[1][:2]])
    assert ids[0].tolist() == [tokenizer.start, *pieces[0], tokenizer.separator]
    assert ids[1].tolist()[-2:] == [tokenizer.padding, tokenizer.padding]
    mask = ids != tokenizer.padding
    with torch.inference_mode():
        both = mean_of_tokens(network(input_ids=ids, attention_mask=mask.long()).last_hidden_state, mask)
        short = ids[1:, :4]
        alone = mean_of_tokens(network(input_ids=short).last_hidden_state, short != tokenizer.padding)
    assert both[1].tolist() == pytest.approx(alone[0].tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("sentences", "longest", "message"), [([], 8, "no sentences"), (["a"], 2, "longest is 2"), (["a"], 513, "longest is 513")]
)
def test_bad_input(sentences, longest, message):
    with pytest.raises(InputError, match=message):
        embed(sentences, "cpu", longest=longest)
