"""Every Python snippet of the documentation runs as printed, on small inputs that are given here, and does what it says."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from common.experiment import Context
from common.kernels.hierarchical_search import hierarchical_search
from common.selector_comparison import coverage as coverage_comparison
from common.sparse_attention import Selection
from common.training import Recipe
from tests.test_documentation import DOCUMENTS, Block, blocks_of

LENGTH, HEADS, KEY_HEADS, DIM = 300, 4, 2, 64
Names = dict[str, Any]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    """Float32 numbers, the same in every run."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def attention_inputs(length: int = LENGTH) -> Names:
    """q [1, H, N, D], k and v [1, Hk, N, D]."""
    return {
        "q": normal(1, HEADS, length, DIM),
        "k": normal(1, KEY_HEADS, length, DIM, seed=1),
        "v": normal(1, KEY_HEADS, length, DIM, seed=2),
    }


def block_mask(block: int) -> torch.Tensor:
    """Every earlier block, bool [1, H, T, T]: attention to all keys."""
    blocks = -(-LENGTH // block)
    return torch.ones(1, HEADS, blocks, blocks, dtype=torch.bool).tril()


def dense(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Causal attention, grouped heads."""
    return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def linear_inputs(length: int = 40) -> Names:
    """q, k, v [1, H, N, D], a decay per head, and a state [1, H, D, D]."""
    q, k, v = (normal(1, HEADS, length, DIM, seed=seed) for seed in range(3))
    return {"q": q, "k": k, "v": v, "decay": torch.linspace(0.01, 0.3, HEADS), "state": normal(1, HEADS, DIM, DIM, seed=3)}


def equal(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """The same up to float32 rounding of sums."""
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def give_readme(_: pytest.MonkeyPatch, folder: Path) -> Names:
    """Both kernels read the same q, k and v: as many heads for keys as for queries. And a saved model."""
    linear = linear_inputs(LENGTH)
    return {**linear, "mask": block_mask(128), "path": tiny_llama(folder)}


def give_list_attention(_: pytest.MonkeyPatch, __: Path) -> Names:
    given = attention_inputs()
    lists = hierarchical_search(given["q"], given["k"], nodes=256, block_q=64, block_k=2, window=256, sink=16)
    # The window begins where the blocks that were searched end.
    starts = (16 + (torch.arange(0, LENGTH, 64) - 256 - 16).clamp(min=0) // 2 * 2).int()
    return {**given, "lists": lists, "window_starts": starts}


class Everything:
    """A selector that reads all blocks."""

    def __init__(self, threshold: float):
        self.threshold = threshold

    def select(self, q: torch.Tensor, k: torch.Tensor) -> Selection:
        blocks = -(-q.shape[2] // 128)
        mask = torch.ones(q.shape[0], q.shape[1], blocks, blocks, dtype=torch.bool).tril()
        return Selection(mask, 128, k.shape[2])


def give_comparison(monkeypatch: pytest.MonkeyPatch, _: Path) -> Names:
    """One layer instead of a pretrained model."""
    given = attention_inputs(512)

    class Recording:
        def __init__(self, model, on_attention):
            self.model, self.on_attention = model, on_attention

        def __enter__(self):
            self.model.on_attention = self.on_attention

        def __exit__(self, *_):
            return None

    class OneLayer:
        on_attention: Callable

        @property
        def base_model(self) -> "OneLayer":
            return self

        def __call__(self, *_, **__):
            self.on_attention(0, given["q"], given["k"], given["v"])

    model = OneLayer()
    monkeypatch.setattr(coverage_comparison, "load_subject", lambda *_: SimpleNamespace(model=model))
    monkeypatch.setattr(coverage_comparison, "token_windows", lambda *_: torch.zeros(1, 512, dtype=torch.int64))
    monkeypatch.setattr(coverage_comparison, "recording", Recording)
    settings = coverage_comparison.CoverageSettings.model_validate({
        "model": "none", "dtype": "float32", "rope_theta": 1e4, "trained_length": 512, "text": "none", "length": 512,
        "windows": 1, "block_size": 128, "sweeps": {"mine": [1.0], "mean_pooling": [0.5, 0.9]}, "densities": [0.9], "layers": 0,
    })  # fmt: skip
    return {"MySelector": Everything, "settings": settings, "context": Context("cpu", "test")}


def give_training(_: pytest.MonkeyPatch, __: Path) -> Names:
    x = normal(64, 3)

    def network(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Linear(3, 1)

    return {
        "network": network,
        "recipe": Recipe(optimiser="adam", learning_rate=0.01, batch_size=8, clip_norm=None),
        "loss": lambda network, batch: nn.functional.mse_loss(network(batch[0])[:, 0], batch[1]),
        "buckets": {3: (x, x.sum(1))},
        "accuracy": lambda network: float((network(x)[:, 0].sign() == x.sum(1).sign()).float().mean()),
        "context": Context("cpu", "test"),
    }


def check_training(names: Names) -> None:
    assert len(names["curves"]) == 3


def tiny_llama(folder: Path) -> str:
    """The path of a saved model of two layers, for `from_pretrained`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=HEADS * DIM, intermediate_size=64, num_hidden_layers=2, num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS, vocab_size=50, max_position_embeddings=512,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    return str(folder / "model")


def check_plug(n: Names) -> None:
    """Both kernels gave an output, and the model reads with the method."""
    assert n["o"].shape == n["q"].shape
    assert n["model"].config._attn_implementation == "pbs_attn"
    with torch.no_grad():
        assert torch.isfinite(n["model"](torch.arange(48)[None]).logits).all()


def check_registered(_: Names) -> None:
    from transformers import AttentionInterface

    assert "hip" in AttentionInterface().valid_keys()


def check_list_attention(n: Names) -> None:
    equal(n["o"], dense(n["q"], n["k"], n["v"]))  # so few keys that all are read


def check_block_max(n: Names) -> None:
    equal(n["o"], dense(n["q"], n["k"], n["v"]))
    equal(n["target"].sum(-1), torch.ones(n["A"].shape[:-1]))


def check_selection(n: Names) -> None:
    assert isinstance(n["selection"], Selection)


def check_lists(n: Names) -> None:
    """Of every query block as many lists as there are heads."""
    assert n["lists"].indices.shape[:3] == (1, HEADS, -(-LENGTH // 64))


def check_comparison(n: Names) -> None:
    coverage = [row.value for row in n["measurement"].rows if (row.metric, row.method) == ("coverage", "mine")]
    assert coverage
    assert all(value == pytest.approx(1, abs=1e-4) for value in coverage)


def check_data(n: Names) -> None:
    assert n["load_text"]("long-texts/moby_dick", unwrap=True).text
    assert all(entry.state == "ready" for entry in n["status"]("smollm2-135m-instruct"))


def check_perplexity(n: Names) -> None:
    assert 10 < float(n["nll"].mean().exp()) < 40


def check_additive(n: Names) -> None:
    q, k, v = n["q"], n["k"], n["v"]
    equal(n["u"], (q[:, :, None] + k[:, None]).tanh() @ v)


def check_linear(n: Names) -> None:
    assert n["o"].shape == n["q"].shape
    assert n["final_state"].shape == n["state"].shape
    equal(n["o"][:, :, 0], torch.einsum("bhde,bhd->bhe", first_state(n), n["q"][:, :, 0]))


def first_state(n: Names) -> torch.Tensor:
    """S_1 = exp(-decay) S_0 + k_1 v_1^T."""
    outer = n["k"][:, :, 0, :, None] * n["v"][:, :, 0, None, :]
    return (-n["decay"]).exp()[None, :, None, None] * n["state"] + outer


def given(names: Callable[[], Names]) -> Callable[[pytest.MonkeyPatch, Path], Names]:
    """A way to give that needs neither patches nor a folder."""
    return lambda monkeypatch, folder: names()


KERNELS = "common/kernels"
RULER = {"length=4096": "length=600", "trials=25": "trials=1"}
# Document -> for all of its snippets, run in their order: what they are given, what is made smaller, what holds afterwards.
SNIPPETS: dict[str, tuple[Callable[[pytest.MonkeyPatch, Path], Names], dict[str, str], Callable[[Names], None]]] = {
    "README.md": (give_readme, {}, check_plug),
    f"{KERNELS}/additive_attention/README.md": (
        given(lambda: {"q": normal(2, 5, 32), "k": normal(2, 7, 32, seed=1), "v": normal(32, seed=2)}), {}, check_additive
    ),
    f"{KERNELS}/attention_block_max/README.md": (given(attention_inputs), {}, check_block_max),
    f"{KERNELS}/block_sparse_attention/README.md": (
        given(lambda: {**attention_inputs(), "mask": block_mask(128)}), {}, check_list_attention
    ),
    f"{KERNELS}/hierarchical_search/README.md": (
        given(attention_inputs), {}, check_lists
    ),
    f"{KERNELS}/key_list_attention/README.md": (give_list_attention, {}, check_list_attention),
    f"{KERNELS}/lightning_attention/README.md": (given(linear_inputs), {}, check_linear),
    "common/selector_comparison/README.md": (give_comparison, {}, check_comparison),
    "common/training/README.md": (give_training, {"steps=10_000": "steps=40", "[1000]": "[10]"}, check_training),
    "papers/hip_attention/README.md": (given(dict), {}, check_registered),
    "papers/proxy_attn/README.md": (given(attention_inputs), {}, check_selection),
    "common/data/README.md": (given(dict), {}, check_data),
    "common/language_models/README.md": (given(dict), {"windows=16": "windows=2", **RULER}, check_perplexity),
}  # fmt: skip
NEED_WEIGHTS = ("common/data/README.md", "common/language_models/README.md")


def python_of(path: Path) -> list[Block]:
    """The Python snippets of a document."""
    return [block for block in blocks_of(path) if block.language == "python"]


DOCUMENTED = {snippets[0].document: snippets for path in DOCUMENTS if (snippets := python_of(path))}


@pytest.mark.parametrize(
    "document", [pytest.param(name, marks=pytest.mark.weights if name in NEED_WEIGHTS else ()) for name in DOCUMENTED]
)
def test_every_snippet_runs_as_printed(document, monkeypatch, tmp_path):
    assert document in SNIPPETS, f"{document} has a Python snippet that nothing runs: add it to tests/test_documented_python.py"
    give, smaller, check = SNIPPETS[document]
    texts = [block.text for block in DOCUMENTED[document]]
    for printed in smaller:
        assert any(printed in text for text in texts), f"{document} does not print {printed!r} any more"
    names = give(monkeypatch, tmp_path)
    for block, text in zip(DOCUMENTED[document], texts, strict=True):
        for printed, less in smaller.items():
            text = text.replace(printed, less)
        try:
            exec(compile(text, f"{document}, line {block.line}", "exec"), names)
        except Exception as error:
            error.add_note(f"in the snippet of {document} that begins in line {block.line}")
            raise
    check(names)


def test_no_snippet_is_left_over():
    assert set(SNIPPETS) == set(DOCUMENTED)
