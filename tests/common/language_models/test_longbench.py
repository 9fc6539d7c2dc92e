"""LongBench: files are checked, prompts cut in the middle, and outputs scored as worked out by hand."""

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DataError, InputError
from common.language_models.longbench import (
    LongBenchExample,
    class_score,
    code_similarity,
    load_longbench,
    longbench_prompt,
    longbench_score,
    longbench_task,
    longbench_tasks,
    number_score,
    token_f1,
    write_longbench,
)


class Characters:
    """A tokenizer whose tokens are characters, with or without a chat template."""

    def __init__(self, template):
        self.chat_template = template

    def __call__(self, text, add_special_tokens=True, verbose=True):
        return {"input_ids": [1] * add_special_tokens + [ord(character) for character in text]}

    def decode(self, tokens):
        return "".join(map(chr, tokens))

    def apply_chat_template(self, turns, tokenize, add_generation_prompt):
        assert not tokenize
        assert add_generation_prompt
        return f"<user>{turns[0]['content']}<model>"


def characters(template: str | None = None) -> Any:
    return Characters(template)


EXAMPLE = LongBenchExample("some long context", "Who?", ("Ada",))


def write(folder, *entries, name="hotpotqa"):
    folder.joinpath(f"{name}.jsonl").write_text("\n".join(json.dumps(entry) for entry in entries))


def test_sixteen_tasks_whose_prompts_take_the_context():
    assert len(longbench_tasks()) == 16
    for name in longbench_tasks():
        task = longbench_task(name)
        assert "CONTEXT" in task.prompt.format(context="CONTEXT", input="INPUT")
        assert task.new_tokens > 0


def test_an_unknown_task_is_named_with_those_there_are():
    with pytest.raises(InputError, match=r"'hotpot' is not among .* hotpotqa"):
        longbench_task("hotpot")


def test_examples_are_read(tmp_path):
    write(tmp_path, {"context": "c", "input": "i", "answers": ["x", "y"], "all_classes": None, "length": 3})
    assert load_longbench(tmp_path, "hotpotqa") == [LongBenchExample("c", "i", ("x", "y"))]


def test_a_missing_file_says_what_to_download(tmp_path):
    with pytest.raises(DataError, match=r"hotpotqa.jsonl is missing. Download data.zip of THUDM/LongBench"):
        load_longbench(tmp_path, "hotpotqa")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"input": "i", "answers": ["x"]}, "line 1: context is None"),
        ({"context": "c", "input": 3, "answers": ["x"]}, "line 1: input is 3"),
        ({"context": "c", "input": "i", "answers": []}, r"line 1: answers is \[\]"),
        (["c"], "line 1 is no object"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, entry, message):
    write(tmp_path, entry)
    with pytest.raises(DataError, match=message):
        load_longbench(tmp_path, "hotpotqa")


def test_a_line_that_is_no_json_an_empty_file_and_missing_classes(tmp_path):
    (tmp_path / "hotpotqa.jsonl").write_text("{")
    with pytest.raises(DataError, match="line 1 is no JSON"):
        load_longbench(tmp_path, "hotpotqa")
    (tmp_path / "hotpotqa.jsonl").write_text("\n")
    with pytest.raises(DataError, match="holds no examples"):
        load_longbench(tmp_path, "hotpotqa")
    write(tmp_path, {"context": "c", "input": "i", "answers": ["x"]}, name="trec")
    with pytest.raises(DataError, match="needs the names of its classes"):
        load_longbench(tmp_path, "trec")


def text_of(tokens):
    return "".join(map(chr, tokens.tolist()))


def test_a_prompt_that_fits_is_whole_and_a_long_one_loses_its_middle():
    task = longbench_task("hotpotqa")
    whole = task.prompt.format(context="some long context", input="Who?")
    assert text_of(longbench_prompt(task, EXAMPLE, characters(), length=10_000)) == "\1" + whole
    assert text_of(longbench_prompt(task, EXAMPLE, characters(), length=20)) == "\1" + whole[:10] + whole[-10:]
    with pytest.raises(InputError, match="length is 1"):
        longbench_prompt(task, EXAMPLE, characters(), length=1)


def test_a_chat_model_gets_a_turn_but_for_few_shot_prompts():
    chat = characters(template="a template")
    assert text_of(longbench_prompt(longbench_task("hotpotqa"), EXAMPLE, chat, length=20)).startswith("<user>Answer")
    assert text_of(longbench_prompt(longbench_task("trec"), EXAMPLE, chat, length=20)).startswith("\1Please")


def test_scores_worked_by_hand():
    assert token_f1("The cat, a cat sat!", "cat sat down") == pytest.approx(2 * 2 / (3 + 3))  # cat cat sat; cat sat down
    assert token_f1("nothing shared", "at all") == 0.0
    assert number_score("Paragraph 3, or 12? 3.", "Paragraph 3") == pytest.approx(2 / 3)
    assert number_score("none", "7") == 0.0
    assert class_score("city", "city", ("city", "state", "other city")) == 1.0
    assert class_score("a city or a state", "city", ("city", "state")) == 0.5
    assert class_score("an other city", "other city", ("city", "other city")) == 1.0  # "city" is part of the right name
    assert class_score("a state", "city", ("city", "state")) == 0.0
    assert code_similarity("# comment\nreturn x", "return x") == 1.0
    assert code_similarity("```\n", "return x") == 0.0
    assert code_similarity("abcd", "abxd") == 0.75
    with pytest.raises(InputError, match="has no number"):
        number_score("3", "three")


def test_the_best_answer_and_the_first_line_count():
    example = LongBenchExample("c", "i", ("red", "dark blue"))
    assert longbench_score(longbench_task("hotpotqa"), "dark blue", example) == 1.0
    assert longbench_score(longbench_task("triviaqa"), "\nred\nQuestion: and more", example) == 1.0
    assert longbench_score(longbench_task("hotpotqa"), "\nred\nQuestion: and more", example) < 1.0


def test_rouge_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rouge", None)
    with pytest.raises(InputError, match="pip install rouge"):
        longbench_score(longbench_task("gov_report"), "a summary", EXAMPLE)


@given(st.text(max_size=30), st.text(max_size=30))
def test_scores_lie_between_0_and_1(output, answer):
    for score in (token_f1, code_similarity):
        assert 0.0 <= score(output, answer) <= 1.0
    assert token_f1(output, answer) == token_f1(answer, output)


def test_what_is_written_is_read_again(tmp_path):
    examples = [LongBenchExample("c" * 10, "i", ("x", "ÿ")), LongBenchExample("d\n\u2028d", "", ("city",), ("city", "state"))]
    path = write_longbench(tmp_path, "trec", examples[1:])
    assert path == tmp_path / "trec.jsonl"
    assert load_longbench(tmp_path, "trec") == examples[1:]
    write_longbench(tmp_path, "hotpotqa", examples)
    assert load_longbench(tmp_path, "hotpotqa") == examples
    assert json.loads((tmp_path / "hotpotqa.jsonl").read_text().splitlines()[0])["all_classes"] is None


def test_longbench_e_has_files_of_its_own(tmp_path):
    write(tmp_path, {"context": "c", "input": "i", "answers": ["x"]}, name="hotpotqa_e")
    assert load_longbench(tmp_path, "hotpotqa", even=True) == [LongBenchExample("c", "i", ("x",))]
    with pytest.raises(DataError, match=r"hotpotqa.jsonl is missing"):
        load_longbench(tmp_path, "hotpotqa")
