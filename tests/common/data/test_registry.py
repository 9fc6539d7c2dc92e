"""The registry file, and what a wrong one is told."""

import re

import pytest
import yaml

from common.data.registry import REGISTRY, load_registry
from common.errors import ConfigError, DataError

FILE = {"name": "a.txt", "sha256": "0" * 64, "bytes": 1}
DATASET = {
    "name": "a",
    "version": "1",
    "folder": "a",
    "title": "A",
    "licence": "CC0-1.0",
    "attribution": "nobody",
    "redistributable": True,
    "citation": "@misc{a, title = {A}}",
    "files": [FILE],
}

BROUGHT_BY_HAND = {
    "pointer-networks-fixtures", "choi", "wiki300", "wiki50", "wikisection-en-city-subset", "qmsum",
    "mil-classic", "fashion-mnist", "physionet2012", "amazon-book-covers", "ag-news", "nemo-ser", "cifar100-subset",
    "emoji-sprites", "vizwiz-vqa-grounding-val",
}  # fmt: skip


def problems(tmp_path, datasets) -> str:
    path = tmp_path / "registry.yaml"
    path.write_text(yaml.safe_dump({"datasets": datasets}))
    with pytest.raises(ConfigError) as caught:
        load_registry(path)
    return str(caught.value)


def test_the_suites_registry_is_complete():
    datasets = {dataset.name: dataset for dataset in load_registry().datasets}
    assert set(datasets) >= {"smollm2-135m-instruct", "wikipedia-articles", "wikitext-2", "long-texts"}
    books = datasets["long-texts"].files
    assert len(books) == 14
    assert [book.text for book in books if book.split == "test"] == ["dracula", "leviathan", "middlemarch", "moby_dick"]
    for dataset in datasets.values():
        assert dataset.citation.count("{") == dataset.citation.count("}")
        assert all(file.sources for file in dataset.files) or dataset.name in BROUGHT_BY_HAND


def test_commits_are_pinned():
    for url in re.findall(r"https://raw\S+", REGISTRY.read_text()):
        assert re.search(r"/[0-9a-f]{40}/", url), url


def test_all_problems_are_told_at_once(tmp_path):
    wrong = DATASET | {"licenze": "MIT", "folder": "../up", "files": [FILE | {"sha256": "xyz", "bytes": 0}]}
    said = problems(tmp_path, [wrong])
    for word in ("licenze", "did you mean 'licence'", "../up", "xyz", "bytes"):
        assert word in said


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"files": [FILE, FILE]}, "twice"),
        ({"files": []}, "files"),
        ({"files": [FILE | {"name": "../a"}]}, "../a"),
        ({"files": [FILE | {"sources": [{"kind": "ftp"}]}]}, "ftp"),
        ({"files": [FILE | {"sources": [{"kind": "url", "url": "file:///etc/passwd"}]}]}, "file:///etc/passwd"),
        ({"files": [FILE | {"sources": [{"kind": "url", "url": "https://a/b", "clean": {"lines": [[1, 2]]}}]}]}, "upstream"),
        ({"files": [FILE | {"sources": [{"kind": "package", "distribution": "a", "version": "1", "member": "/etc"}]}]}, "/etc"),
        ({"citation": "Nobody, 2000"}, "citation"),
    ],
)
def test_one_problem(tmp_path, change, word):
    assert word in problems(tmp_path, [DATASET | change])


def test_line_numbers_ascend(tmp_path):
    source = {
        "kind": "url",
        "url": "https://a/b",
        "upstream": {"sha256": "0" * 64, "bytes": 1},
        "clean": {"lines": [[5, 9], [7, 8]]},
    }
    assert "ascending" in problems(tmp_path, [DATASET | {"files": [FILE | {"sources": [source]}]}])


def test_two_data_sets_do_not_share_a_folder(tmp_path):
    assert "folder a" in problems(tmp_path, [DATASET, DATASET | {"name": "b"}])


def test_unknown_names_get_the_nearest():
    with pytest.raises(DataError, match="did you mean 'long-texts'"):
        load_registry().dataset("long-text")
    with pytest.raises(DataError, match=r"did you mean 'moby_dick\.txt'"):
        load_registry().dataset("long-texts").file("mobydick.txt")
    with pytest.raises(DataError, match="14 files"):
        load_registry().dataset("long-texts").file()
