"""RULER's tasks: what the prompts hold, how long they are, and how outputs are scored."""

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from common.errors import InputError
from common.language_models import (
    CommonWords,
    NeedleTask,
    RulerPrompt,
    VariableTracking,
    random_llama,
    ruler_prompts,
    ruler_scores,
    ruler_task,
    string_match_all,
    string_match_part,
)
from common.language_models.ruler import DEPTHS, NOISE, TASKS

VOCABULARY = ["".join(letters) for letters in np.random.default_rng(0).choice(list("abcdefghijklmnop"), (3000, 7)).tolist()]
# Sentences of 5 to 9 words.
FILLER = " ".join(
    f"{' '.join(VOCABULARY[first : first + 3 + first // 7 % 5]).capitalize()} since {1000 + first}."
    for first in range(0, 3000, 7)
)
SMALL = {
    "vt": VariableTracking(example_length=0),
    "cwe": CommonWords(common=4, common_repeats=6, other_repeats=2, example_words=0),
}
LINES = re.compile(r"One of the special magic (\w+) for (\S+) is: (\S+)\.")
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


@pytest.fixture(scope="module")
def words_as_tokens() -> PreTrainedTokenizerFast:
    """A token for each word, all of them the same one: for lengths only."""
    backend = Tokenizer(models.WordLevel({"[word]": 0}, unk_token="[word]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[word]")


def make(task, tokenizer, filler=FILLER, length=1500, trials=2, seed=0, **more) -> list[RulerPrompt]:
    return ruler_prompts(SMALL.get(task, task), tokenizer, filler, length=length, trials=trials, seed=seed, **more)


def context_of(prompt: RulerPrompt) -> str:
    """What is between the instruction and the last question, the example left out."""
    body = prompt.text.rpartition("\nQuestion:" if "\nQuestion:" in prompt.text else "\nWhat ")[0]
    for lead in ("hidden in the following text.\n\n", "Memorize the ones that appear most often.\n", "afterwards.\n"):
        if lead in body:
            return body.rpartition(lead)[2]
    raise AssertionError(prompt.text)


def piece_of(task: str, tokenizer) -> int:
    """At most so many tokens does one more piece of the haystack take."""
    if task in ("niah_single_1", "vt"):
        return len(tokenizer("\n" + NOISE)["input_ids"])
    if task == "niah_multikey_2":
        return len(tokenizer("\nOne of the special magic numbers for abcdefg-abcdefg is: 1234567.")["input_ids"])
    if task == "niah_multikey_3":
        key = "00000000-0000-4000-8000-000000000000"
        return len(tokenizer(f"\nOne of the special magic uuids for {key} is: {key}.")["input_ids"])
    repeats = 2 if task == "cwe" else 1
    return repeats * len(tokenizer(" 1000. abcdefg" if task == "cwe" else " abcdefg")["input_ids"])


# Lengths


@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=8, deadline=None)
@given(st.integers(1000, 9000), st.integers(0, 2**40))
def test_length_is_nearly_reached_and_never_exceeded(tokenizer, task, length, seed):
    for prompt in make(task, tokenizer, length=length, seed=seed):
        assert len(prompt.tokens) == len(tokenizer(prompt.text)["input_ids"])
        assert length - piece_of(task, tokenizer) < len(prompt.tokens) <= length


@pytest.mark.parametrize("task", TASKS)
def test_length_in_words(words_as_tokens, task):
    for length in (400, 1777):
        for prompt in make(task, words_as_tokens, length=length):
            assert length - piece_of(task, words_as_tokens) < len(prompt.tokens) <= length
            assert len(prompt.text.split()) == len(prompt.tokens)


@pytest.mark.parametrize("task", TASKS)
def test_tokens_are_those_of_the_text(tokenizer, task):
    for prompt in make(task, tokenizer):
        assert prompt.tokens.dtype == torch.int64
        assert tokenizer.decode(prompt.tokens) == prompt.text
        assert prompt.new_tokens == TASKS[task].new_tokens


def test_the_first_token_counts(tokenizer):
    backend = tokenizer.backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", tokenizer.bos_token_id)]
    )
    try:
        prompts = [make("niah_single_2", tokenizer, length=length, trials=1)[0] for length in range(900, 910)]
    finally:
        backend.post_processor = processors.Sequence([])
    for length, prompt in zip(range(900, 910), prompts, strict=True):
        assert prompt.tokens[0] == tokenizer.bos_token_id
        assert (prompt.tokens == tokenizer.bos_token_id).sum() == 1
        assert tokenizer.decode(prompt.tokens[1:]) == prompt.text
        assert length - 10 < len(prompt.tokens) <= length


def test_chat_template_is_within_the_length(tokenizer):
    plain = make("niah_single_2", tokenizer)
    tokenizer.chat_template = (
        "{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}[end]{% endfor %}[model]"
    )
    try:
        prompts = make("niah_single_2", tokenizer, chat=True)
    finally:
        tokenizer.chat_template = None
    for prompt, without in zip(prompts, plain, strict=True):
        assert 1490 < len(prompt.tokens) <= 1500
        assert prompt.text.startswith("[user]A special magic number is hidden")
        assert re.search(
            r"mentioned in the provided text\?\[end\]\[model\]The special magic number for \S+ .* is$", prompt.text
        )
        assert prompt.answers == without.answers


# Needles


@pytest.mark.parametrize("task", [name for name in TASKS if name.startswith("niah")])
@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**40))
def test_needles(tokenizer, task, seed):
    kind = TASKS[task]
    assert isinstance(kind, NeedleTask)
    for prompt in make(task, tokenizer, seed=seed):
        found = LINES.findall(context_of(prompt))
        assert {name for name, _, _ in found} == {kind.values_are}
        if kind.haystack != "needle":
            assert len(found) == kind.keys * kind.values
        pairs = [(key, value) for _, key, value in found]
        assert len({value for _, value in pairs}) == len(pairs)
        assert set(Counter(key for key, _ in pairs).values()) == {kind.values}
        shape = {"words": "[a-z]{5,10}-[a-z]{5,10}", "numbers": "[1-9][0-9]{6}", "uuids": UUID}
        assert all(
            re.fullmatch(shape[kind.keys_are], key) and re.fullmatch(shape[kind.values_are], value) for key, value in pairs
        )
        # The question names its keys, and the answers are exactly the values of these keys.
        (asked,) = re.findall(r"special magic \w+ for (.*) mentioned in the provided text\?", prompt.text)
        keys = re.split(r", and |, ", asked)
        assert len(keys) == len(set(keys)) == kind.queries
        assert [value for wanted in keys for key, value in pairs if key == wanted] == list(prompt.answers)
        assert all(prompt.text.count(answer) == 1 for answer in prompt.answers)


def test_wording(tokenizer):
    """Hand-copied from Appendix D: singular for one answer, plural for more."""
    (one,), (more,) = (make(task, tokenizer, trials=1) for task in ("niah_single_1", "niah_multiquery"))
    assert one.text.startswith(
        "A special magic number is hidden within the following text. Make sure to memorize it. "
        "I will quiz you about the number afterwards.\n"
    )
    assert re.search(r"\nWhat is the special magic number for (\S+) mentioned in the provided text\?", one.text)
    assert re.search(r"\? The special magic number for (\S+) mentioned in the provided text is$", one.text)
    assert more.text.startswith("Some special magic numbers are hidden within the following text. Make sure to memorize it. ")
    assert re.search(r"\nWhat are all the special magic numbers for \S+, \S+, \S+, and \S+ mentioned in", more.text)
    assert more.text.endswith("mentioned in the provided text are")


@pytest.mark.parametrize(
    "task", ["niah_multivalue", NeedleTask(keys=3, values=2, queries=2), NeedleTask(keys=9, haystack="noise")]
)
def test_without_its_needles_the_haystack_is_whole(tokenizer, task):
    for prompt in make(task, tokenizer, seed=5, length=2500):
        context = context_of(prompt)
        if isinstance(task, NeedleTask) and task.haystack == "noise":
            assert {line for line in context.split("\n") if not LINES.fullmatch(line)} == {NOISE}
            continue
        rest = " ".join(LINES.sub("", context).split())
        assert rest in f"{FILLER} {FILLER}"
        assert rest[0].isupper()  # a sentence begins
        # A needle stands between sentences.
        for match in LINES.finditer(context):
            assert match.start() == 0 or context[: match.start()].endswith(". ")


@pytest.mark.parametrize("task", ["niah_single_1", "niah_single_2", "niah_multikey_2", "niah_multivalue"])
def test_needles_are_at_their_depths(tokenizer, task):
    for prompt in make(task, tokenizer, length=6000, trials=6):
        context = context_of(prompt)
        others = NOISE if task == "niah_single_1" else None
        for answer, depth in zip(prompt.answers, prompt.depths, strict=True):
            before, after = context.split(f"{answer}.")
            if others:
                parts = [part.count(others) for part in (before, after)]
            elif task == "niah_multikey_2":
                parts = [len(LINES.findall(part)) for part in (before, after)]
            else:
                parts = [
                    len(re.findall(r"since \d+\.", part)) + (part is after and not after.endswith("."))
                    for part in (before, after)
                ]
            assert parts[0] == int(depth * sum(parts))


def test_depths_are_shared_out(tokenizer):
    """40 trials with one needle have RULER's 40 depths; 4 needles have no depth twice in 10 trials."""
    singles = make("niah_single_1", tokenizer, trials=40, length=700)
    assert sorted(depth for prompt in singles for depth in prompt.depths) == sorted(DEPTHS)
    assert DEPTHS[:4] == (0.0, 0.03, 0.05, 0.08)
    assert DEPTHS[-1] == 1.0
    several = [depth for prompt in make("niah_multivalue", tokenizer, trials=10) for depth in prompt.depths]
    assert sorted(several) == sorted(DEPTHS)


def test_values_do_not_occur_in_the_essay(tokenizer):
    """An essay that holds nine of ten numbers of five digits: the others are drawn."""
    filler = "Some words stand here. " + " ".join(f"It is {number}." for number in range(10**4, 10**5) if number % 10 != 7)
    task = VariableTracking(haystack="essay", hops=1, example_length=0)
    for prompt in make(task, tokenizer, filler=filler, trials=5):
        (value,) = re.findall(r"= (\d+)\.", context_of(prompt))
        assert value not in filler


# Variable tracking


def interpret(context: str) -> dict[str, str]:
    """Run the assignments from top to bottom: the value of each variable."""
    values: dict[str, str] = {}
    for name, source in re.findall(r"VAR ([A-Z]+) = (?:VAR )?([A-Z]+|\d+)", context):
        assert name not in values
        values[name] = source if source.isdigit() else values[source]
    return values


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 7), st.sampled_from(["noise", "essay"]), st.integers(0, 2**40))
def test_chains(tokenizer, chains, hops, haystack, seed):
    task = VariableTracking(haystack=haystack, chains=chains, hops=hops, example_length=0)
    for prompt in make(task, tokenizer, seed=seed, length=2500):
        values = interpret(context_of(prompt))
        assert len(values) == chains * (hops + 1)
        assert sorted(Counter(values.values()).values()) == [hops + 1] * chains
        (value,) = re.findall(r"that are assigned the value (\d{5}) in the text above", prompt.text)
        assert {name for name, found in values.items() if found == value} == set(prompt.answers)
        assert len(prompt.answers) == hops + 1
        assert all(re.fullmatch("[A-Z]{5}", name) for name in values)
        assert prompt.text.endswith(f" {hops + 1} variables are assigned the value {value}, they are:")
        # Once assigned, and once read if it is not the last of its chain.
        assert [prompt.text.count(answer) for answer in prompt.answers] == [2] * hops + [1]
        assert list(prompt.depths) == sorted(set(prompt.depths))


def test_chains_are_mixed(tokenizer):
    task = VariableTracking(chains=3, hops=3, example_length=0)
    (prompt,) = make(task, tokenizer, trials=1, length=2500)
    order = list(interpret(context_of(prompt)).values())
    assert order != sorted(order, key=order.index)


def test_solved_example_of_variable_tracking(tokenizer):
    task = VariableTracking(hops=2, example_length=900)
    prompts = make(task, tokenizer, length=3000, trials=3)
    for prompt in prompts:
        example, middle, rest = prompt.text.partition("\n\nMemorize and track")
        assert (
            900 - piece_of("vt", tokenizer)
            < len(tokenizer(re.sub(r" they are: .*", " they are:", example))["input_ids"])
            <= 900
        )
        solved, (value,) = interpret(example), re.findall(r"assigned the value (\d{5}) in", example)
        assert set(solved.values()) == {value}
        assert example.endswith(f"they are: {' '.join(solved)}")
        assert all(re.fullmatch("[A-Z]{3}", name) for name in solved)
        assert set(interpret(middle + rest)) == set(prompt.answers)
        assert value not in rest
    assert len({prompt.text[:500] for prompt in prompts}) == 3


# Common words


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 12), st.integers(2, 9), st.integers(1, 8), st.integers(0, 2**40))
def test_common_words_are_the_most_frequent(tokenizer, common, common_repeats, other_repeats, seed):
    if common_repeats <= other_repeats:
        with pytest.raises(InputError, match="common_repeats"):
            CommonWords(common_repeats=common_repeats, other_repeats=other_repeats)
        return
    task = CommonWords(common=common, common_repeats=common_repeats, other_repeats=other_repeats, example_words=0)
    for prompt in make(task, tokenizer, seed=seed, length=3000):
        items = re.findall(r"(\d+)\. (\w+)", context_of(prompt))
        assert [int(number) for number, _ in items] == list(range(1, len(items) + 1))
        counts = Counter(word for _, word in items)
        assert {word for word, _ in counts.most_common(common)} == set(prompt.answers)
        assert {counts[word] for word in prompt.answers} == {common_repeats}
        assert {count for word, count in counts.items() if word not in prompt.answers} == {other_repeats}
        assert prompt.text.endswith(f" Answer: The top {common} words that appear most often in the list are:")
        assert prompt.depths == ()


def test_items_are_in_random_order(tokenizer):
    (prompt,) = make("cwe", tokenizer, trials=1, length=6000)
    words = re.findall(r"\d+\. (\w+)", context_of(prompt))
    places = [place for place, word in enumerate(words) if word in prompt.answers]
    # 24 uniform places: their mean is within 5 standard errors of the middle.
    assert abs(np.mean(places) / len(words) - 0.5) < 5 / np.sqrt(12 * 24)
    assert any(places[step + 1] - places[step] > 1 for step in range(len(places) - 1))


def test_no_common_word_is_part_of_another(tokenizer):
    words = [word for stem in VOCABULARY[:150] for word in (stem, f"{stem}s", f"un{stem}")]
    task = CommonWords(common=30, common_repeats=2, other_repeats=1, example_words=0)
    for prompt in ruler_prompts(task, tokenizer, "", length=3500, trials=10, seed=0, words=words):
        listed = set(re.findall(r"\d+\. (\w+)", context_of(prompt)))
        assert len(listed) > 50
        assert listed <= set(words)
        for answer in prompt.answers:
            assert [word for word in listed if answer in word] == [answer]


def test_solved_example_of_common_words(tokenizer):
    task = CommonWords(
        common=3, common_repeats=5, other_repeats=2, example_words=8, example_common_repeats=4, example_other_repeats=2
    )
    for prompt in make(task, tokenizer, length=2500):
        example = prompt.text[: prompt.text.index("\nBelow is")]
        listing, _, solution = example.partition("\nQuestion:")
        counts = Counter(re.findall(r"\d+\. (\w+)", listing))
        common = re.findall(r"\d+\. (\w+)", solution)
        assert solution.endswith(f"are: 1. {common[0]} 2. {common[1]} 3. {common[2]}")
        assert sorted(counts.values()) == [2] * 5 + [4] * 3
        assert {word for word, count in counts.items() if count == 4} == set(common)


# Seeds


@pytest.mark.parametrize("task", TASKS)
def test_seeds(tokenizer, task):
    first, again, other = (make(task, tokenizer, seed=seed, trials=3) for seed in (3, 3, 4))
    assert [prompt.text for prompt in first] == [prompt.text for prompt in again]
    assert not {prompt.text for prompt in first} & {prompt.text for prompt in other}
    assert not {prompt.answers for prompt in first} & {prompt.answers for prompt in other}
    assert len({prompt.answers for prompt in first}) == 3
    # A shorter list of trials is the beginning of a longer one.
    assert [prompt.text for prompt in make(task, tokenizer, seed=3, trials=2)] == [prompt.text for prompt in first[:2]]


# Settings


def test_defaults_of_ruler():
    """`scripts/synthetic.yaml` and `scripts/data/synthetic/constants.py`, by hand."""
    needles = {
        name: (task.haystack, task.keys_are, task.values_are, task.keys, task.values, task.queries, task.new_tokens)
        for name, task in TASKS.items()
        if isinstance(task, NeedleTask)
    }
    assert needles == {
        "niah_single_1": ("noise", "words", "numbers", 1, 1, 1, 128),
        "niah_single_2": ("essay", "words", "numbers", 1, 1, 1, 128),
        "niah_single_3": ("essay", "words", "uuids", 1, 1, 1, 128),
        "niah_multikey_1": ("essay", "words", "numbers", 4, 1, 1, 128),
        "niah_multikey_2": ("needle", "words", "numbers", 1, 1, 1, 128),
        "niah_multikey_3": ("needle", "uuids", "uuids", 1, 1, 1, 128),
        "niah_multivalue": ("essay", "words", "numbers", 1, 4, 1, 128),
        "niah_multiquery": ("essay", "words", "numbers", 4, 1, 4, 128),
    }
    assert TASKS["vt"] == VariableTracking(haystack="noise", chains=1, hops=4, example_length=500, new_tokens=30)
    assert ruler_task("cwe", 4096 - 120) == CommonWords(10, 30, 3, 40, 10, 3, 120)
    assert ruler_task("cwe", 4096 - 121) == CommonWords(10, 6, 1, 20, 3, 1, 120)
    assert ruler_task("vt", 100) == TASKS["vt"]


def test_a_name_means_its_settings(tokenizer):
    by_name = ruler_prompts("cwe", tokenizer, FILLER, length=3000, trials=1, seed=0)
    by_settings = ruler_prompts(ruler_task("cwe", 3000), tokenizer, FILLER, length=3000, trials=1, seed=0)
    assert by_name[0].text == by_settings[0].text
    counts = Counter(re.findall(r"\d+\. (\w+)", context_of(by_name[0])))
    assert sorted(counts.values())[-11:] == [1] + [6] * 10


@pytest.mark.parametrize(
    ("kind", "change", "word"),
    [
        (NeedleTask, {"haystack": "hay"}, "haystack = 'hay'.*noise, essay, needle"),
        (NeedleTask, {"keys_are": "emoji"}, "keys_are = 'emoji'"),
        (NeedleTask, {"values_are": "number"}, "values_are = 'number'.*numbers"),
        (NeedleTask, {"keys": 0}, "keys = 0"),
        (NeedleTask, {"values": 0}, "values = 0"),
        (NeedleTask, {"queries": 2}, "queries = 2.*1 keys"),
        (NeedleTask, {"new_tokens": 0}, "new_tokens = 0"),
        (NeedleTask, {"keys": 7, "values": 6}, "keys x values = 42.*40"),
        (VariableTracking, {"haystack": "needle"}, "haystack = 'needle'"),
        (VariableTracking, {"chains": 0}, "chains = 0"),
        (VariableTracking, {"hops": 0}, "hops = 0"),
        (VariableTracking, {"hops": 40}, r"chains x \(hops \+ 1\) = 41"),
        (VariableTracking, {"example_length": -1}, "example_length = -1"),
        (CommonWords, {"common": 0}, "common = 0"),
        (CommonWords, {"common_repeats": 3}, "common_repeats = 3.*other_repeats = 3"),
        (CommonWords, {"example_common_repeats": 2}, "example_common_repeats = 2.*example_other_repeats = 3"),
        (CommonWords, {"example_words": 10}, "example_words = 10.*common = 10"),
    ],
)
def test_bad_settings(kind, change, word):
    with pytest.raises(InputError, match=word):
        kind(**change)


@pytest.mark.parametrize(
    ("task", "change", "word"),
    [
        ("niah_single_4", {}, "niah_single_4.*niah_single_1, .*cwe"),
        ("niah_single_2", {"trials": 0}, "trials = 0"),
        ("niah_single_2", {"seed": -1}, "seed = -1"),
        ("niah_single_2", {"chat": True}, "chat template"),
        ("niah_single_2", {"length": 200}, "length = 200: the task takes [0-9]+ tokens"),
        ("niah_single_2", {"length": 10**6}, r"filler: all of it makes a prompt of [0-9]+ tokens, but length = 1000000"),
        ("niah_single_2", {"filler": ""}, "no sentence|no words"),
        ("niah_single_2", {"filler": "no sentence ends here " * 100}, "no sentence ends"),
        ("niah_single_1", {"filler": "Oh, I am."}, "no words of 5 to 10"),
        ("niah_single_1", {"words": []}, "no words of 5 to 10"),
        ("niah_multikey_2", {"words": ["lonely"]}, "no unused string"),
        (VariableTracking(example_length=400), {}, "example_length = 400: the task takes [0-9]+ tokens"),
        (VariableTracking(example_length=0), {"length": 300}, "length = 300"),
        ("cwe", {"length": 500}, "length = 500: the task takes [0-9]+ tokens"),
        ("cwe", {"length": 10**6}, "filler: all of it makes"),
        ("cwe", {"words": ["alpha", "bravo", "delta", "gamma"]}, "4 different words .* common = 4"),
        (CommonWords(example_words=2000), {"words": VOCABULARY[:1000]}, "example_words = 2000.*1000 different words"),
    ],
)
def test_bad_input(tokenizer, task, change, word):
    with pytest.raises(InputError, match=word):
        make(task, tokenizer, **change)


# Scores


def test_string_match_by_hand():
    outputs = ["It is 123 and 456.", "abc DEF", "", "17", "xyz 99x"]
    answers = [["123", "456"], ["ABC", "def", "ghi", "bc d"], ["1"], ["1", "7", "71"], ["99"]]
    assert string_match_all(outputs, answers).tolist() == pytest.approx([1.0, 3 / 4, 0.0, 2 / 3, 1.0])
    assert string_match_part(outputs, answers).tolist() == [1.0, 1.0, 0.0, 1.0, 1.0]
    assert string_match_all(["7 6"], [["5", "6", "7", "8"]]).dtype == torch.float64


@pytest.mark.parametrize("score", [string_match_all, string_match_part])
@pytest.mark.parametrize(("outputs", "answers"), [([], []), (["a"], []), (["a"], [["a"], ["b"]]), (["a", "b"], [["a"], []])])
def test_bad_scoring_input(score, outputs, answers):
    with pytest.raises(InputError, match="answers"):
        score(outputs, answers)


class Parrot:
    """A model that says what it was taught for a prompt of a given length, one token after the other, then its end token."""

    device = torch.device("cpu")

    def __init__(self, sayings: dict[int, list[int]], end: int):
        self.sayings = sayings
        self.end = end
        self.generation_config = type("Settings", (), {"eos_token_id": end})

    def __call__(self, tokens, past_key_values, use_cache, logits_to_keep):
        assert use_cache
        assert logits_to_keep == 1
        length, said = (tokens.shape[1], 0) if past_key_values is None else past_key_values
        logits = torch.zeros(1, 1, 300)
        logits[0, 0, [*self.sayings[length], self.end][said]] = 1
        return type("Output", (), {"logits": logits, "past_key_values": (length, said + 1)})


def test_scores(tokenizer):
    task = NeedleTask(keys=4, queries=4)
    prompts = [make(task, tokenizer, length=length, trials=1, seed=length)[0] for length in (1000, 1200, 1400, 1600)]
    said = [
        " " + ", ".join(prompts[0].answers),
        f"{prompts[1].answers[2]} and {prompts[2].answers[0]}",
        "I do not know.",
        f"{prompts[3].answers[0]} " * 3 + f"{prompts[3].answers[1]}",
    ]
    sayings = {len(prompt.tokens): tokenizer(text)["input_ids"] for prompt, text in zip(prompts, said, strict=True)}
    scores = ruler_scores(Parrot(sayings, tokenizer.bos_token_id), tokenizer, prompts)
    assert scores.outputs == tuple(said)
    assert scores.recall.tolist() == [1.0, 0.25, 0.0, 0.5]
    # 20 tokens end within the third number.
    short = ruler_scores(Parrot(sayings, tokenizer.bos_token_id), tokenizer, [replace(prompts[0], new_tokens=20)])
    assert short.outputs == (said[0][:20],)
    assert short.recall.tolist() == [0.5]


def test_scores_of_a_model(tokenizer):
    model = random_llama("tiny", seed=0, dtype=torch.float32, device="cpu")
    prompts = [replace(prompt, new_tokens=5) for prompt in make("niah_single_2", tokenizer, length=500)]
    scores = ruler_scores(model, tokenizer, prompts)
    assert scores.recall.tolist() == [0.0, 0.0]
    assert len(scores.outputs) == 2


def test_no_prompts_to_score(tokenizer):
    with pytest.raises(InputError, match="at least one"):
        ruler_scores(None, tokenizer, [])
