"""RULER: generated tasks of retrieval, tracing and aggregation, whose length and difficulty can be set.

Hsieh et al., "RULER", 2024 (arXiv 2404.06654): tasks in Section 3, their settings in Appendix B, the wording of the prompts in
Appendix D and in the official repository (NVIDIA/RULER, Apache-2.0), read for facts. Ten of the thirteen tasks are here; those
missing are frequent words extraction and the two made of question-answering data sets.

    prompts = ruler_prompts("niah_multikey_1", tokenizer, book, length=4096, trials=25, seed=0)
    scores = ruler_scores(model, tokenizer, prompts)
    100 * scores.recall.mean()  # RULER's score, in percent

What differs from RULER:

- The essays are the caller's text, from a random sentence on; the beginning follows the end, and nothing is repeated.
- Words come from the same text, or from the caller's list; RULER takes those of the package `wonderwords`.
- Keys, values and names of a prompt differ and do not occur in its essay, and no common word is part of another word of its
  list: no string counts for another.
- All needles lie at RULER's 40 depths, which RULER uses in essays only. Trials share them out among themselves; the depths of
  one trial alone are distributed as in RULER.
- Lengths count the prompt; RULER's count the tokens to generate as well.
- The haystack has exactly the size that fits; no space ends the prompt of variable tracking; and with a chat template, the
  solved example is part of the user's turn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from common.errors import InputError
from common.language_models.generation import greedy_continuation
from common.language_models.haystacks import Filler, Haystack, RandomStrings
from common.language_models.prompts import first_tokens, largest_fitting

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
DEPTHS = tuple(float(depth) for depth in np.round(np.linspace(0, 100, 40)) / 100)
"""0 (start of the haystack) to 1 (end)."""
SHORT_LENGTH = 4096
"""Tokens of prompt and answer below which RULER makes common words extraction smaller."""

HaystackKind = Literal["noise", "essay", "needle"]
StringKind = Literal["words", "numbers", "uuids"]


@dataclass(frozen=True)
class RulerPrompt:
    """A prompt with what is wanted.

    Attributes:
        tokens: int64 [N], the tokens of `text`, with a beginning-of-text token where the tokenizer puts one by default.
        text: the prompt, up to the beginning of the answer.
        answers: all strings wanted.
        depths: for each answer, the depth of its needle: the part of the haystack before it, 0 to 1. Empty for common words.
        new_tokens: how many the model may generate.
    """

    tokens: Tensor
    text: str
    answers: tuple[str, ...]
    depths: tuple[float, ...]
    new_tokens: int


@dataclass(frozen=True)
class RulerScores:
    """Scores of P prompts.

    Attributes:
        outputs: what the model said.
        recall: float64 [P], the share of the answers that it holds (`string_match_all`), 0 to 1.
    """

    outputs: tuple[str, ...]
    recall: Tensor


def _check_choices(settings: object, **choices: Sequence[str]) -> None:
    for name, known in choices.items():
        if getattr(settings, name) not in known:
            raise InputError(f"{name} = {getattr(settings, name)!r} is not known; there are: {', '.join(known)}.")


def _check_positive(settings: object, *names: str) -> None:
    for name in names:
        if getattr(settings, name) < 1:
            raise InputError(f"{name} = {getattr(settings, name)}: at least one is needed.")


def _check_needles(needles: int, product: str) -> None:
    if needles > len(DEPTHS):
        raise InputError(f"{product} = {needles}: there are {len(DEPTHS)} depths for needles, no more. Take fewer.")


@dataclass(frozen=True)
class NeedleTask:
    """Needles in a haystack (Section 3.1): sentences that give a key its value; the values of some keys are asked for.

    Attributes:
        haystack: `noise`: the same line again and again; `essay`: a text; `needle`: needles with other keys.
        keys_are: adjective-noun-like pairs of words, numbers of 7 digits, or UUIDs.
        values_are: the same choice.
        keys: how many, those not asked for included.
        values: of each key.
        queries: keys asked for.
        new_tokens: how many the model may generate.

    Raises:
        InputError: an unknown choice, a number below 1, more queries than keys, or more needles than depths (40).
    """

    haystack: HaystackKind = "essay"
    keys_are: StringKind = "words"
    values_are: StringKind = "numbers"
    keys: int = 1
    values: int = 1
    queries: int = 1
    new_tokens: int = 128

    def __post_init__(self):
        _check_choices(self, haystack=get_args(HaystackKind), keys_are=get_args(StringKind), values_are=get_args(StringKind))
        _check_positive(self, "keys", "values", "queries", "new_tokens")
        if self.queries > self.keys:
            raise InputError(f"queries = {self.queries}, but there are {self.keys} keys to ask for; set keys at least as high.")
        _check_needles(self.needles, "keys x values")

    @property
    def needles(self) -> int:
        """Sentences with a key and a value, without those of which a haystack is made."""
        return self.keys * self.values

    def draft(self, source: "_Source", generator: np.random.Generator, depths: Sequence[float]) -> "_Draft":
        """Draw everything random of one prompt."""
        strings = RandomStrings(generator, source.filler.vocabulary, source.filler.text if self.haystack == "essay" else "")
        draw = {"words": strings.pair_of_words, "numbers": lambda: strings.number(7), "uuids": strings.uuid}
        draw_key, draw_value = draw[self.keys_are], draw[self.values_are]

        def needle(key: str, value: str) -> str:
            return f"One of the special magic {self.values_are} for {key} is: {value}."

        keys = [draw_key() for _ in range(self.keys)]
        pairs = [(key, draw_value()) for key in keys for _ in range(self.values)]
        pairs = [pairs[place] for place in generator.permutation(len(pairs))]
        asked = [keys[place] for place in generator.permutation(len(keys))[: self.queries]]
        found = [(value, depth) for query in asked for (key, value), depth in zip(pairs, depths, strict=True) if key == query]

        single = len(found) == 1
        kind = self.values_are[:-1] if single else self.values_are
        query = asked[0] if self.queries == 1 else f"{', '.join(asked[:-1])}, and {asked[-1]}"
        subject = f"special magic {kind} for {query} mentioned in the provided text"
        haystack = source.haystack(self.haystack, generator, lambda: needle(draw_key(), draw_value()))
        return _Draft(
            lead=f"{'A' if single else 'Some'} special magic {kind} {'is' if single else 'are'} hidden within the following "
            f"text. Make sure to memorize it. I will quiz you about the {kind} afterwards.\n",
            context=lambda size: haystack.with_needles(size, [needle(*pair) for pair in pairs], depths),
            question=f"\nWhat {'is' if single else 'are all'} the {subject}?",
            answer_prefix=f" The {subject} {'is' if single else 'are'}",
            answers=tuple(value for value, _ in found),
            depths=tuple(depth for _, depth in found),
            available=haystack.available,
        )


@dataclass(frozen=True)
class VariableTracking:
    """Variable tracking (Section 3.2): assignments in chains; all variables that have the first chain's value are asked for.

    Attributes:
        haystack: `noise` or `essay` (`NeedleTask`).
        chains: the first is asked for, the others distract.
        hops: assignments from variable to variable in each chain, which so has hops + 1 variables.
        example_length: at most so many tokens for a solved example (at most 10 hops, names of 3 letters) before the task; 0: no
            example.
        new_tokens: how many the model may generate.

    Raises:
        InputError: an unknown choice, a number too low, or more assignments than depths (40).
    """

    haystack: Literal["noise", "essay"] = "noise"
    chains: int = 1
    hops: int = 4
    example_length: int = 500
    new_tokens: int = 30

    def __post_init__(self):
        _check_choices(self, haystack=("noise", "essay"))
        _check_positive(self, "chains", "hops", "new_tokens")
        if self.example_length < 0:
            raise InputError(f"example_length = {self.example_length}: it must be positive, or 0 for no example.")
        _check_needles(self.needles, "chains x (hops + 1)")

    @property
    def needles(self) -> int:
        """Assignments."""
        return self.chains * (self.hops + 1)

    def draft(self, source: "_Source", generator: np.random.Generator, depths: Sequence[float]) -> "_Draft":
        """Draw everything random of one prompt."""
        taken = "VAR " + (source.filler.text if self.haystack == "essay" else "")
        strings = RandomStrings(generator, source.filler.vocabulary, taken)
        task = self._one(source, generator, strings, depths, letters=5)
        if not self.example_length:
            return task
        example = replace(self, hops=min(10, self.hops))
        places = sorted(generator.permutation(DEPTHS)[: example.needles].tolist())
        solved = example._one(source, generator, strings, places, letters=3)
        size = _fitted_size(
            solved,
            lambda size: len(source.encode(solved.text(size))),
            self.example_length,
            f"example_length = {self.example_length}",
        )
        return replace(task, lead=f"{solved.text(size)} {' '.join(solved.answers)}\n\n{task.lead}")

    def _one(
        self,
        source: "_Source",
        generator: np.random.Generator,
        strings: RandomStrings,
        depths: Sequence[float],
        letters: int,
    ) -> "_Draft":
        chains = [[strings.capitals(letters) for _ in range(self.hops + 1)] for _ in range(self.chains)]
        values = [strings.number(5) for _ in chains]
        # The order within a chain stays; the chains are mixed.
        owners = generator.permutation(np.repeat(np.arange(self.chains), self.hops + 1)).tolist()
        hops = [owners[:place].count(owner) for place, owner in enumerate(owners)]
        statements = [
            f"VAR {chains[owner][hop]} = " + (f"VAR {chains[owner][hop - 1]}" if hop else values[owner])
            for owner, hop in zip(owners, hops, strict=True)
        ]
        if self.haystack == "essay":
            statements = [f"{statement}." for statement in statements]
        haystack = source.haystack(self.haystack, generator)
        return _Draft(
            lead="Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n",
            context=lambda size: haystack.with_needles(size, statements, depths),
            question=f"\nQuestion: Find all variables that are assigned the value {values[0]} in the text above.",
            answer_prefix=" Answer: According to the chain(s) of variable assignment in the text above, "
            f"{self.hops + 1} variables are assigned the value {values[0]}, they are:",
            answers=tuple(chains[0]),
            depths=tuple(depth for depth, owner in zip(depths, owners, strict=True) if owner == 0),
            available=haystack.available,
        )


@dataclass(frozen=True)
class CommonWords:
    """Common words extraction (Section 3.3): a numbered list of words in random order, some of them more often than others.

    The common words are fixed in number and the others fill the prompt. The defaults are RULER's from 4,096 tokens on.

    Attributes:
        common: words to find.
        common_repeats: how often each of them is in the list.
        other_repeats: how often each other word is.
        example_words: different words, common ones included, of the list in a solved example before the task; 0: no example.
        example_common_repeats: `common_repeats` in the example.
        example_other_repeats: `other_repeats` in the example.
        new_tokens: how many the model may generate.

    Raises:
        InputError: a number below 1, common words that are not more frequent than others, or an example without other words.
    """

    common: int = 10
    common_repeats: int = 30
    other_repeats: int = 3
    example_words: int = 40
    example_common_repeats: int = 10
    example_other_repeats: int = 3
    new_tokens: int = 120

    def __post_init__(self):
        _check_positive(
            self, "common", "common_repeats", "other_repeats", "example_common_repeats", "example_other_repeats", "new_tokens"
        )
        for name in ("", "example_"):
            often, rarely = getattr(self, f"{name}common_repeats"), getattr(self, f"{name}other_repeats")
            if often <= rarely:
                raise InputError(f"{name}common_repeats = {often}: it must be above {name}other_repeats = {rarely}.")
        if self.example_words and self.example_words <= self.common:
            raise InputError(
                f"example_words = {self.example_words}: it must be above common = {self.common}, or 0 for no example."
            )

    @property
    def needles(self) -> int:
        """None: the words are everywhere."""
        return 0

    def draft(self, source: "_Source", generator: np.random.Generator, depths: Sequence[float]) -> "_Draft":
        """Draw everything random of one prompt."""
        del depths  # there are none
        task = self._one(source, generator, self.common_repeats, self.other_repeats)
        if not self.example_words:
            return task
        solved = self._one(source, generator, self.example_common_repeats, self.example_other_repeats)
        others = self.example_words - self.common
        if others > solved.available:
            raise InputError(
                f"example_words = {self.example_words}: filler has {len(source.filler.vocabulary)} different words. Bring more."
            )
        return replace(task, lead=f"{solved.text(others)} {_numbered(solved.answers)}\n{task.lead}")

    def _one(self, source: "_Source", generator: np.random.Generator, common_repeats: int, other_repeats: int) -> "_Draft":
        words = [source.filler.vocabulary[place] for place in generator.permutation(len(source.filler.vocabulary))]
        common: list[str] = []
        for word in words:
            if len(common) < self.common and not any(word in other or other in word for other in common):
                common.append(word)
        others = [word for word in words if not any(other in word for other in common)]
        if len(common) < self.common or not others:
            raise InputError(
                f"filler: its {len(words)} different words of 5 to 10 small letters are too few for common = {self.common}. "
                "Bring more filler, or give words."
            )
        # An item's place in the list does not depend on how many there are: a longer list holds the shorter ones.
        places = [generator.random((len(common), common_repeats)), generator.random((len(others), other_repeats))]

        def context(size: int) -> str:
            items = np.repeat(common, common_repeats).tolist() + np.repeat(others[:size], other_repeats).tolist()
            order = np.argsort(np.concatenate([places[0].ravel(), places[1][:size].ravel()]))
            return _numbered([items[place] for place in order])

        return _Draft(
            lead="Below is a numbered list of words. In these words, some appear more often than others. "
            "Memorize the ones that appear most often.\n",
            context=context,
            question=f"\nQuestion: What are the {self.common} most common words in the above list?",
            answer_prefix=f" Answer: The top {self.common} words that appear most often in the list are:",
            answers=tuple(common),
            depths=(),
            available=len(others),
        )


RulerTask = NeedleTask | VariableTracking | CommonWords

TASKS: dict[str, RulerTask] = {
    "niah_single_1": NeedleTask(haystack="noise"),
    "niah_single_2": NeedleTask(),
    "niah_single_3": NeedleTask(values_are="uuids"),
    "niah_multikey_1": NeedleTask(keys=4),
    "niah_multikey_2": NeedleTask(haystack="needle"),
    "niah_multikey_3": NeedleTask(haystack="needle", keys_are="uuids", values_are="uuids"),
    "niah_multivalue": NeedleTask(values=4),
    "niah_multiquery": NeedleTask(keys=4, queries=4),
    "vt": VariableTracking(),
    "cwe": CommonWords(),
}
"""RULER's names and settings (Appendix B, `scripts/synthetic.yaml`)."""


def ruler_task(name: str, length: int) -> RulerTask:
    """The settings of a task as RULER has them, to be changed with `dataclasses.replace`.

    Args:
        name: a name in `TASKS`.
        length: tokens of the prompt. If these and the tokens to generate are fewer than 4,096, RULER's lists of common words
            repeat common words 6 times and others once (3 times and once in the example of 20 words).

    Raises:
        InputError: there is no such task.
    """
    if name not in TASKS:
        raise InputError(f"task = {name!r} is not known; there are: {', '.join(TASKS)}.")
    task = TASKS[name]
    if isinstance(task, CommonWords) and length + task.new_tokens < SHORT_LENGTH:
        repeats = {"common_repeats": 6, "other_repeats": 1, "example_common_repeats": 3, "example_other_repeats": 1}
        return replace(task, example_words=20, **repeats)
    return task


def ruler_prompts(
    task: str | RulerTask,
    tokenizer: PreTrainedTokenizerBase,
    filler: str,
    *,
    length: int,
    trials: int,
    seed: int,
    words: Sequence[str] | None = None,
    chat: bool = False,
) -> list[RulerPrompt]:
    """Prompts of at most `length` tokens, and no shorter than the haystack's pieces make necessary.

    The pieces are a word of an essay, a line of noise, a needle, or a word of a list with its repeats. The first prompts of a
    longer list of trials are those of a shorter one.

    Args:
        task: a name in `TASKS`, or settings.
        tokenizer: of the model.
        filler: a text; essays are made of it, and words taken from it.
        length: tokens of a prompt. RULER's lengths count the tokens to generate as well: give `length - task.new_tokens` for
            those.
        trials: prompts.
        seed: the same seed gives the same prompts.
        words: for keys, values and lists; default: the filler's different words of 5 to 10 small letters.
        chat: put the task in the user's turn of the tokenizer's chat template, and begin the model's turn with the answer.

    Raises:
        InputError: unknown task, no trials, a negative seed, a length too short for the task, a filler too short or without
            sentences or with too few words, or `chat` without a chat template.
    """
    if isinstance(task, str):
        task = ruler_task(task, length)
    if trials < 1:
        raise InputError(f"trials = {trials}: at least one is needed.")
    if seed < 0:
        raise InputError(f"seed = {seed}: it must not be negative.")
    if chat and not tokenizer.chat_template:
        raise InputError("chat = True, but the tokenizer has no chat template; use chat = False.")
    source = _Source(tokenizer, Filler(filler, words))
    begin = [] if chat else first_tokens(tokenizer)
    seeds = np.random.SeedSequence(seed).spawn(trials + 1)  # the first for the depths, which the trials share out
    dealt = _deal_depths(np.random.default_rng(seeds[0]), trials, task.needles)
    prompts = []
    for depths, own_seed in zip(dealt, seeds[1:], strict=True):
        draft = task.draft(source, np.random.default_rng(own_seed), depths)
        shape = _in_chat(tokenizer, draft) if chat else draft.text

        def encode(size: int, shape: Callable[[int], str] = shape) -> list[int]:
            return begin + source.encode(shape(size))

        size = _fitted_size(draft, lambda size, encode=encode: len(encode(size)), length, f"length = {length}")
        tokens = torch.tensor(encode(size), dtype=torch.int64)
        if size == draft.available and len(tokens) < length:
            raise InputError(
                f"filler: all of it makes a prompt of {len(tokens)} tokens, but length = {length}. Bring more filler, or words."
            )
        prompts.append(RulerPrompt(tokens, shape(size), draft.answers, draft.depths, task.new_tokens))
    return prompts


def string_match_all(outputs: Sequence[str], answers: Sequence[Sequence[str]]) -> Tensor:
    """The share of each prompt's answers that its output contains, whatever the case: RULER's score of all tasks here.

    "Recall-based accuracy" (Section 4); `string_match_all` in `scripts/eval/synthetic/constants.py`, which takes 100 times the
    mean and rounds it to 2 digits. Answers are looked for as parts of the output: order, repeats and other text do not count.

    Args:
        outputs: what the model said, P strings.
        answers: at least one for each output.

    Returns:
        float64 [P], 0 to 1.

    Raises:
        InputError: no outputs, another number of them than of answers, or an output without answers.
    """
    return _matches(outputs, answers, lambda found: sum(found) / len(found))


def string_match_part(outputs: Sequence[str], answers: Sequence[Sequence[str]]) -> Tensor:
    """1 for each output that contains at least one of its answers, else 0: RULER's score of question answering.

    `string_match_part` in `scripts/eval/synthetic/constants.py`. Arguments, result and errors as of `string_match_all`.
    """
    return _matches(outputs, answers, lambda found: float(any(found)))


def ruler_scores(model: Any, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[RulerPrompt]) -> RulerScores:
    """Let a model answer (greedily, Section 4), one prompt at a time on its device, and score it with `string_match_all`.

    Raises:
        InputError: no prompts.
    """
    continuations = [greedy_continuation(model, prompt.tokens, prompt.new_tokens) for prompt in prompts]
    outputs = tuple(str(tokenizer.decode(tokens, skip_special_tokens=True)) for tokens in continuations)
    return RulerScores(outputs, string_match_all(outputs, [prompt.answers for prompt in prompts]))


@dataclass(frozen=True)
class _Draft:
    """A prompt without its size. Everything random is drawn, so that a longer prompt is a shorter one with more haystack.

    Attributes:
        lead: what comes before the context.
        context: from a number of haystack pieces.
        question: what comes after it.
        answer_prefix: the beginning of the answer.
        answers: all strings wanted.
        depths: of the answers.
        available: haystack pieces that there are.
    """

    lead: str
    context: Callable[[int], str]
    question: str
    answer_prefix: str
    answers: tuple[str, ...]
    depths: tuple[float, ...]
    available: int

    def turn(self, size: int) -> str:
        """The task, without the beginning of the answer."""
        return self.lead + self.context(size) + self.question

    def text(self, size: int) -> str:
        """The prompt."""
        return self.turn(size) + self.answer_prefix


@dataclass(frozen=True)
class _Source:
    """What prompts are made of.

    Attributes:
        tokenizer: of the model.
        filler: the caller's text.
    """

    tokenizer: PreTrainedTokenizerBase
    filler: Filler

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, without special ones beyond those written in it."""
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def haystack(
        self, kind: HaystackKind, generator: np.random.Generator, draw_needle: Callable[[], str] | None = None
    ) -> Haystack:
        """A haystack; `draw_needle` is for one of needles."""
        if kind == "needle" and draw_needle is not None:
            return Haystack.drawn(draw_needle)
        return Haystack.repeated(NOISE) if kind == "noise" else self.filler.passage(generator)


def _deal_depths(generator: np.random.Generator, trials: int, needles: int) -> list[list[float]]:
    """For each trial, depths in increasing order and without repeats; no depth comes again before the others are used up."""
    dealt, deck = [], []
    for _ in range(trials):
        if len(deck) < needles:
            deck = generator.permutation(DEPTHS).tolist()
        dealt.append(sorted(deck[:needles]))
        deck = deck[needles:]
    return dealt


def _fitted_size(draft: _Draft, tokens: Callable[[int], int], length: int, limit: str) -> int:
    size = largest_fitting(tokens, draft.available, length)
    if size == 0:
        raise InputError(
            f"{limit}: the task takes {tokens(1)} tokens with the smallest haystack. Allow more, or make the task smaller (its "
            "needles, chains, repeats or example)."
        )
    return size


def _in_chat(tokenizer: PreTrainedTokenizerBase, draft: _Draft) -> Callable[[int], str]:
    def text(size: int) -> str:
        turns = [{"role": "user", "content": draft.turn(size)}]
        # A model's turn begins without the space that separates question and answer in one text.
        return (
            str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)) + draft.answer_prefix.lstrip()
        )

    return text


def _numbered(words: Sequence[str]) -> str:
    return " ".join(f"{number}. {word}" for number, word in enumerate(words, 1))


def _matches(outputs: Sequence[str], answers: Sequence[Sequence[str]], score: Callable[[list[bool]], float]) -> Tensor:
    if not outputs or len(outputs) != len(answers):
        raise InputError(f"{len(outputs)} outputs and {len(answers)} lists of answers: as many are needed, and at least one.")
    if not all(answers):
        raise InputError("answers: each output needs at least one.")
    found = [[answer.lower() in output.lower() for answer in wanted] for output, wanted in zip(outputs, answers, strict=True)]
    return torch.tensor([score(row) for row in found], dtype=torch.float64)
