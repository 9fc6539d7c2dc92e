"""Benchmarks: a wrong result is never timed, and every benchmark runs (the latter on a GPU)."""

import argparse
import json

import pytest
import torch

import benchmarks.__main__ as command_line
from benchmarks import additive_attention, attention_block_max, hierarchical_search, key_list_attention, timing
from benchmarks.registry import BENCHMARKS, Benchmark
from benchmarks.sorted_prefill import Pipeline, compare
from benchmarks.timing import check_and_time
from common.kernels.block_sparse_attention import BlockLists
from common.sparse_attention import structured_inputs


@pytest.fixture
def clock(monkeypatch):
    """Times every call as 2 ms and counts the calls that were timed."""
    timed = []
    monkeypatch.setattr(timing, "milliseconds", lambda run: timed.append(run()) or 2.0)
    return timed


def test_a_right_result_is_timed(clock):
    assert check_and_time(lambda: lambda: 3.0, lambda out: out - 3.0, 0.1) == (2.0, 0.0, None)
    assert clock == [3.0]


@pytest.mark.parametrize("error", [0.2, float("nan"), float("inf")])
def test_a_wrong_result_is_not_timed(clock, error):
    result = check_and_time(lambda: lambda: 0, lambda out: error, 0.1)
    assert result.ms is None
    assert result.failed is not None
    assert "wrong result" in result.failed
    assert not clock


@pytest.mark.parametrize("where", ["prepare", "run"])
def test_a_kernel_that_raises_is_left_out_with_its_reason(clock, where):
    def fail():
        raise ValueError("no kernel for these inputs\nand more")

    result = check_and_time(fail if where == "prepare" else lambda: fail, lambda out: 0.0, 0.1)
    assert result == (None, None, "ValueError: no kernel for these inputs")
    assert not clock


def fake(rows):
    """A list of benchmarks with one that gives these rows."""

    def add_arguments(parser):
        parser.add_argument("--length", type=int, default=4)

    return {"sums": Benchmark("sums", "adds", add_arguments, lambda _: rows)}


@pytest.mark.parametrize(("failed", "status"), [(None, 0), ("wrong result", 1)])
def test_the_command_prints_writes_and_says_what_failed(monkeypatch, capsys, tmp_path, failed, status):
    rows = [
        {"kernel": "ours", "ms": 1.5, "error": 1e-3, "failed": None},
        {"kernel": "peer", "ms": None if failed else 2.0, "error": 0.5, "failed": failed},
    ]
    monkeypatch.setattr(command_line, "BENCHMARKS", fake(rows))
    monkeypatch.setattr(command_line, "require_cuda", lambda: None)
    monkeypatch.setattr(command_line, "machine", lambda: {"device": "a GPU"})
    assert command_line.main(["sums", "--length", "8", "--out", str(tmp_path / "sums.json")]) == status
    said = capsys.readouterr().out
    assert "1.5" in said
    assert ("not reported: kernel peer" in said) == (failed is not None)
    written = json.loads((tmp_path / "sums.json").read_text())
    assert written == {"benchmark": "sums", "arguments": {"length": 8}, "machine": {"device": "a GPU"}, "rows": rows}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_command_says_so(capsys):
    assert command_line.main(["segment_sort"]) == 2
    assert "none is visible" in capsys.readouterr().err


SMALL = {
    "block_sparse_attention": ["--lengths", "1024", "--densities", "0.5", "--heads", "4", "--key-heads", "2"],
    "block_selection": ["--lengths", "1024", "--heads", "4", "--key-heads", "2"],
    "segment_sort": ["--lengths", "1024", "--heads", "4", "--key-heads", "2"],
    "sorted_prefill": ["--lengths", "1024", "--heads", "4", "--key-heads", "2"],
    "lightning_attention": ["--lengths", "512", "--tokens", "1024", "--heads", "2"],
    "attention_block_max": ["--lengths", "1000", "--block-sizes", "16", "64", "--heads", "4", "--key-heads", "2"],
    "hierarchical_search": ["--lengths", "1000", "--top-k", "64", "--heads", "4", "--key-heads", "2"],
    "key_list_attention": ["--lengths", "1000", "--top-k", "64", "--heads", "4", "--key-heads", "2"],
    "additive_attention": ["--batch", "4", "--queries", "1", "7", "--keys", "9", "--hidden-size", "32"],
    "pointer_network_training": ["--points", "5", "--replicas", "2", "--steps", "200"],
}


def test_every_benchmark_has_a_small_run():
    assert set(SMALL) == set(BENCHMARKS) - {"kernel_profile"}  # which needs ncu, see its own tests


def test_the_sorted_prefill_is_checked_as_a_whole_and_timed_by_stage(clock):
    inputs = structured_inputs(768, heads=2, key_heads=1, head_dim=64)
    rows = compare(Pipeline(*inputs))
    assert [row["stage"] for row in rows] == ["whole", "sort", "gather", "select", "attend"]
    assert rows[0]["error"] == pytest.approx(0.0, abs=1e-5)
    assert all(row["ms"] == 2.0 and row["share"] == 1.0 for row in rows)

    class Wrong(Pipeline):
        def attend(self):
            return super().attend() + 1

        def whole(self):
            return self.attend()

    rows = compare(Wrong(*inputs))
    assert [row["stage"] for row in rows] == ["whole"]
    assert "wrong result" in str(rows[0]["failed"])


def test_additive_attention_is_checked_before_it_is_timed(clock, monkeypatch):
    g = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=g) for shape in ((2, 3, 8), (2, 5, 8), (8,))]
    du = torch.randn(2, 3, 5, generator=g)
    monkeypatch.setattr(torch, "compile", lambda scores: lambda *inputs: scores(*inputs) + 1)
    for part in additive_attention.PASSES:
        rows = {row["kernel"]: row for row in additive_attention.compare(part, inputs, du)}
        assert rows["ours"]["ms"] == rows["PyTorch"]["ms"] == 2.0
    forward = {row["kernel"]: row for row in additive_attention.compare("forward", inputs, du)}
    assert "wrong result" in str(forward["PyTorch, compiled"]["failed"])


def test_block_maxima_are_checked_before_they_are_timed(clock, monkeypatch):
    problem = attention_block_max.Problem.draw(1100, 64, heads=2, key_heads=1, head_dim=64, seed=0, device="cpu")
    maxima, o = attention_block_max.plain(problem)
    assert maxima is not None
    assert o is not None
    kernels = {name: attention_block_max.KERNELS[name] for name in ("ours", "ours, maxima only", "PyTorch")}
    kernels |= {"wrong maxima": lambda _: (maxima + 0.1, o), "wrong output": lambda _: (maxima, o + 0.1)}
    monkeypatch.setattr(attention_block_max, "KERNELS", kernels)
    rows = {row["kernel"]: row for row in attention_block_max.compare(problem, lambda call: 1.0)}
    for name in ("ours", "ours, maxima only", "PyTorch"):
        assert (rows[name]["ms"], rows[name]["mib"], rows[name]["failed"]) == (2.0, 1.0, None)
    for name in ("wrong maxima", "wrong output"):
        assert "wrong result" in str(rows[name]["failed"])
        assert rows[name]["mib"] is None


def test_searched_lists_are_checked_before_they_are_timed(clock, monkeypatch):
    problem = hierarchical_search.Problem.draw(1100, 32, 16, 2, heads=2, key_heads=1, head_dim=64, seed=0, device="cpu")
    right = hierarchical_search.plain(problem)
    kernels = {name: hierarchical_search.KERNELS[name] for name in ("ours", "PyTorch")}
    kernels |= {
        "other blocks": lambda _: BlockLists(right.counts, torch.arange(32).int().expand_as(right.indices)),
        "in another order": lambda _: BlockLists(right.counts, right.indices.flip(3)),
    }
    monkeypatch.setattr(hierarchical_search, "KERNELS", kernels)
    rows = {row["kernel"]: row for row in hierarchical_search.compare(problem)}
    for name in ("ours", "PyTorch"):
        assert (rows[name]["ms"], rows[name]["failed"]) == (2.0, None)
    for name in ("other blocks", "in another order"):
        assert "wrong result" in str(rows[name]["failed"])


@pytest.mark.parametrize("queries", [1, 1100])
def test_attention_over_lists_is_checked_before_it_is_timed(clock, monkeypatch, queries):
    block_q = 1 if queries == 1 else 64
    problem = key_list_attention.Problem.draw(
        queries, 1100, 128, block_q, 2, heads=2, key_heads=1, head_dim=64, seed=0, device="cpu"
    )
    right = key_list_attention.ours(problem)
    kernels = {name: key_list_attention.KERNELS[name] for name in ("ours", "PyTorch")}
    kernels["wrong"] = lambda _: right + 0.1
    monkeypatch.setattr(key_list_attention, "KERNELS", kernels)
    rows = {row["kernel"]: row for row in key_list_attention.compare(problem, "prefill", 128)}
    for name in ("ours", "PyTorch"):
        assert (rows[name]["ms"], rows[name]["failed"]) == (2.0, None)
    assert "wrong result" in str(rows["wrong"]["failed"])


@pytest.mark.gpu
@pytest.mark.parametrize("name", SMALL)
def test_benchmarks_on_gpu(name):
    parser = argparse.ArgumentParser()
    BENCHMARKS[name].add_arguments(parser)
    rows = BENCHMARKS[name].run(parser.parse_args(SMALL[name]))
    ours = [row for row in rows if row["kernel"] in ("ours", "pointer")]
    assert ours
    assert all(row["failed"] is None for row in ours)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("block_sparse_attention", ["--lengths", "100"], "not positive multiples of 128"),
        ("block_sparse_attention", ["--densities", "0"], r"do not lie in \(0, 1\]"),
        ("block_selection", ["--lengths", "100"], "not positive multiples of 256"),
        ("segment_sort", ["--lengths", "100"], "not positive multiples of 256"),
        ("attention_block_max", ["--lengths", "0"], r"--lengths \[0\] are not positive"),
        ("attention_block_max", ["--block-sizes", "48"], r"--block-sizes \[48\] are not among 16, 32, 64, 128"),
        ("hierarchical_search", ["--lengths", "0"], r"--lengths \[0\] are not positive"),
        ("hierarchical_search", ["--top-k", "3", "4096"], r"--top-k \[3, 4096\] are not multiples of --block-k 2"),
        ("key_list_attention", ["--lengths", "1"], r"--lengths \[1\] are not"),
        ("key_list_attention", ["--top-k", "3"], r"--top-k \[3\] are not positive multiples"),
        ("sorted_prefill", ["--lengths", "256"], "not multiples of 256 from 512 on"),
        ("lightning_attention", ["--lengths", "3000"], "do not divide --tokens"),
        ("pointer_network_training", ["--replicas", "0"], r"--replicas \[0\]"),
    ],
)
def test_bad_sizes_are_named(name, arguments, message):
    parser = argparse.ArgumentParser()
    BENCHMARKS[name].add_arguments(parser)
    with pytest.raises(ValueError, match=message):
        BENCHMARKS[name].run(parser.parse_args(arguments))
