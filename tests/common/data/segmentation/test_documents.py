"""Documents and their formats: small files written here, so that nothing must be downloaded."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.data.segmentation import DATA_SETS, Document, first_sentences, load_documents, merge_equal_labels, split_sentences
from common.data.segmentation import wikipedia_sections as wikipedia
from common.data.segmentation.document import brought, by_number, document_of_sections, needed, read_json_lines
from common.data.segmentation.qmsum import segments_of_spans
from common.data.segmentation.wiki50 import document_of_headings
from common.data.segmentation.wiki727k import read_article
from common.data.segmentation.wikisection import read_wikisection
from common.errors import DataError, InputError


def test_sentences_by_hand():
    text = 'It rained. "Stay!" (He left.) In 1990 it was 3.5 m high. He asked why? 40 men knew. so they say'
    # A closing quote or bracket goes with the split, as in the data sets' own figures.
    assert split_sentences(text) == [
        "It rained.", '"Stay!', "(He left.", "In 1990 it was 3.5 m high.", "He asked why?", "40 men knew. so they say"
    ]  # fmt: skip
    assert split_sentences("   ") == []


@given(st.text(alphabet="Ab.? \"'", max_size=50))
def test_sentences_keep_every_letter(text):
    kept = "".join(split_sentences(text))
    assert [letter for letter in kept if letter in "Ab"] == [letter for letter in text if letter in "Ab"]


def test_sections_to_a_document():
    sections = [("a", "One. Two.\n\nThree."), ("b", "  \n"), (None, "Four.")]
    document = document_of_sections("d", sections, labelled=True)
    assert document is not None
    assert document.sentences == ("One.", "Two.", "Three.", "Four.")
    assert (document.segments, document.paragraphs, document.labels) == ((3, 1), (2, 1, 1), ("a", None))
    assert document.sentence_labels() == ["a", "a", "a", None]
    assert document_of_sections("d", [("a", " ")], labelled=True) is None


def test_a_boundary_only_where_the_label_changes():
    document = Document("d", tuple("abcdefg"), (1, 2, 1, 1, 2), ("x", "x", "y", None, None), (3, 4))
    merged = merge_equal_labels(document)
    assert (merged.segments, merged.labels) == ((3, 1, 1, 2), ("x", "y", None, None))
    assert (merged.sentences, merged.paragraphs) == (document.sentences, document.paragraphs)
    assert merge_equal_labels(merged) == merged


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "has no sentences"),
        ((("a",), (2,)), "1 sentences and segments of \\[2\\]"),
        ((("a", "b"), (0, 2)), "segments of \\[0, 2\\]"),
        ((("a", "b"), (2,), ("x", "y")), "1 segments and 2 labels"),
        ((("a", "b"), (2,), None, (1,)), "paragraphs of \\[1\\]"),
    ],
)
def test_documents_that_do_not_fit(arguments, message):
    with pytest.raises(InputError, match=message):
        Document("d", *(arguments or ((), ())))


def test_missing_labels():
    document = Document("d", ("a", "b"), (1, 1))
    for call in (document.sentence_labels, lambda: merge_equal_labels(document)):
        with pytest.raises(InputError, match="has no labels"):
            call()


def test_the_first_sentences():
    document = Document("d", tuple("abcdefg"), (3, 2, 2), ("x", None, "y"), (1, 2, 1, 3))
    short = first_sentences(document, 4)
    assert short == Document("d", tuple("abcd"), (3, 1), ("x", None), (1, 2, 1))
    assert first_sentences(document, 99) == document
    with pytest.raises(InputError, match="count is 0"):
        first_sentences(document, 0)


def wikisection_entry(**changes):
    text = "It is old. It grew.\nIt is high. The end."
    sections = [{"begin": 0, "length": 19, "sectionHeading": "History", "sectionLabel": "city.history"}]
    sections += [
        {"begin": 20, "length": 11, "sectionHeading": "Hills"},
        {"begin": 31, "length": 0, "sectionLabel": "city.other"},
    ]
    return {"id": "http://x", "type": "city", "title": "X", "abstract": "", "text": text, "annotations": sections, **changes}


def test_wikisection_as_distributed_and_line_by_line(tmp_path):
    entries = [wikisection_entry(), wikisection_entry(annotations=[])]
    (tmp_path / "a.json").write_text(json.dumps(entries), encoding="utf-8")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    for name in ("a.json", "a.jsonl"):
        (document,) = read_wikisection(tmp_path / name)  # the second has no section
        assert document.sentences == ("It is old.", "It grew.", "It is high.")
        assert (document.segments, document.labels) == ((2, 1), ("city.history", None))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("{}", "must hold a list"),
        (json.dumps([{"id": "a", "annotations": []}]), "document 0: the key 'text' is missing"),
        (json.dumps([wikisection_entry(text=3)]), "text = '3'; it must be of type str"),
        (json.dumps([wikisection_entry(annotations=[{"begin": 99, "length": 1}])]), "begins at 99"),
        (json.dumps([wikisection_entry(annotations=[{"begin": 0}])]), "'length' is missing"),
    ],
)
def test_wikisection_of_another_format(tmp_path, content, message):
    (tmp_path / "a.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_wikisection(tmp_path / "a.json")


def test_the_whole_of_wikisection_is_brought(tmp_path, monkeypatch):
    monkeypatch.setenv("REATTEND_DATA", str(tmp_path))
    with pytest.raises(
        DataError, match=r"wikisection_en_city_test\.json must be brought: get it from .*wikisection_dataset_json"
    ):
        load_documents("wikisection-en-city", "test")
    entry = wikisection_entry()
    entry["annotations"][1]["sectionLabel"] = "city.history"
    (tmp_path / "wikisection").mkdir()
    (tmp_path / "wikisection" / "wikisection_en_city_test.json").write_text(json.dumps([entry]), encoding="utf-8")
    assert load_documents("wikisection-en-city", "test")[0].segments == (2, 1)
    assert load_documents("wikisection-en-city-label-changes", "test")[0].segments == (3,)


ARTICLE = """========,1,preface.
It is a city.
========,2,History.
It is old.
***LIST***
========,3,Modern.
It grew.
========,2,Empty.
========,2,Lists.
***LIST***.
========,2,Hills.
It is high.
"""


def test_wiki_727k_in_both_readings(tmp_path, monkeypatch):
    path = tmp_path / "wiki_727" / "test" / "00" / "1234"
    path.parent.mkdir(parents=True)
    path.write_text(ARTICLE, encoding="utf-8")
    top, every = (read_article(path, every_heading=every) for every in (False, True))
    assert top is not None
    assert every is not None
    assert top.sentences == every.sentences == ("It is old.", "It grew.", "It is high.")
    assert (top.segments, every.segments) == ((2, 1), (1, 1, 1))
    monkeypatch.setenv("REATTEND_DATA", str(tmp_path))
    assert load_documents("wiki727k", "test") == [top]
    with pytest.raises(DataError, match=r"wiki_727/dev must be brought"):
        load_documents("wiki727k", "validation")


def test_articles_that_are_none(tmp_path):
    (tmp_path / "a").write_text("It is a city.\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"begins with 'It is a city\.'"):
        read_article(tmp_path / "a")
    (tmp_path / "b").write_text("========,1,preface.\nIt is a city.\n", encoding="utf-8")
    assert read_article(tmp_path / "b") is None
    (tmp_path / "c").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="cannot be read as text"):
        read_article(tmp_path / "c")


def test_a_deep_heading_after_the_preface_begins_a_segment():
    document = document_of_headings("d", [(1, ["p"]), (3, ["a"]), (3, ["b"]), (2, ["c"])], every_heading=False)
    assert document is not None
    assert document.segments == (2, 1)


def test_spans_of_meetings():
    # Turns 0-1 topic 0; 2 uncovered; 3-5 topic 1, of which 5-6 goes to topic 2, listed later; 7 uncovered.
    assert segments_of_spans(8, [[(0, 1)], [(3, 5)], [(5, 6)]], "here") == (2, 1, 2, 2, 1)
    assert segments_of_spans(3, [], "here") == (3,)
    with pytest.raises(DataError, match="here: a span from turn 1 to 3 in a meeting of 3 turns"):
        segments_of_spans(3, [[(1, 3)]], "here")


def test_json_lines(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n[1]\n', encoding="utf-8")
    lines = read_json_lines(tmp_path / "a.jsonl")
    place, content = next(lines)
    assert needed(content, "a", int, place) == 1
    with pytest.raises(DataError, match="line 2 is no JSON object"):
        next(lines)
    (tmp_path / "b.jsonl").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="line 1 is not JSON"):
        next(read_json_lines(tmp_path / "b.jsonl"))


def test_wikipedia_sections_come_with_gensim(monkeypatch):
    monkeypatch.delenv("REATTEND_DATA", raising=False)
    by_split = [load_documents("wikipedia-sections", split) for split in ("train", "validation", "test")]
    assert [len(documents) for documents in by_split] == [50, 10, 24]
    documents = [document for split in by_split for document in split]
    assert documents[0].name == "Anarchism"
    assert documents[0].sentences[0].startswith("The term anarchism is a compound word")
    assert len({document.name for document in documents}) == 84
    assert all(len(document.segments) >= 3 for document in documents)
    text = " ".join(sentence for document in documents for sentence in document.sentences)
    assert not any(mark in text for mark in ("''", "===", "\n"))


def test_plain_sections_by_hand():
    assert wikipedia.plain("== A ==\n''One'' b.\n* list\n| row\n:indented\nTwo.") == "One b.\nTwo."


def test_names_and_splits():
    with pytest.raises(DataError, match="did you mean 'wiki50'"):
        load_documents("wiki5", "test")
    for name in ("choi", "wiki50", "wiki50-every-heading", "choi-700"):
        with pytest.raises(DataError, match=f"'{name}' has no split 'train'"):
            load_documents(name, "train")
    with pytest.raises(DataError, match="no split 'test'"):
        load_documents("en-city-reduced", "test")
    assert len(DATA_SETS) == 20


def test_split_by_number():
    documents = [Document(str(number), ("a",), (1,)) for number in range(5)]
    parts = [by_number(documents, split, (2, 3)) for split in ("train", "validation", "test")]
    assert [[document.name for document in part] for part in parts] == [["0", "1"], ["2"], ["3", "4"]]


def test_brought_without_a_mirror(tmp_path, monkeypatch):
    monkeypatch.delenv("REATTEND_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"put it at \$REATTEND_DATA/a/b"):
        brought("a", "b", "there")
