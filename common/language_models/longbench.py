"""LongBench's English tasks, for weights and data that the user brings: prompts, cut in the middle, and scores.

Bai et al., "LongBench: A Bilingual, Multitask Benchmark for Long Context Understanding", arXiv 2308.14508. The texts cannot be
passed on here: download `data.zip` of THUDM/LongBench on the Hugging Face hub and unpack it; `load_longbench` takes the folder
with the files `<task>.jsonl`.

    task = longbench_task("hotpotqa")
    examples = load_longbench("LongBench/data", "hotpotqa")
    prompt = longbench_prompt(task, examples[0], tokenizer, length=31_500)
    answer = tokenizer.decode(greedy_continuation(model, prompt, task.new_tokens), skip_special_tokens=True)
    100 * longbench_score(task, answer, examples[0])

Scores are those of the official evaluation, read for facts, but for the labels of `trec`: where an output names several
classes, every class that is part of the right one's name is left out; the official loop skips some.
"""

import json
import re
import string
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import yaml
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from common.errors import DataError, InputError
from common.files import write_text

ScoreKind = Literal["f1", "rouge_l", "classification", "number", "code"]


@dataclass(frozen=True)
class LongBenchTask:
    """How a task is asked and scored.

    Attributes:
        name: as LongBench has it.
        prompt: with places for `context` and `input`.
        new_tokens: how many the model may generate.
        score: how an output is scored.
        chat: whether a chat model gets the prompt as a turn of its user.
        first_line: whether only the first line of an output counts.
    """

    name: str
    prompt: str
    new_tokens: int
    score: ScoreKind
    chat: bool = True
    first_line: bool = False


@dataclass(frozen=True)
class LongBenchExample:
    """One line of a task's file.

    Attributes:
        context: the long text.
        input: the question, or what else follows it.
        answers: each is right.
        classes: of a classification; else empty.
    """

    context: str
    input: str
    answers: tuple[str, ...]
    classes: tuple[str, ...] = ()


@cache
def _tasks() -> dict[str, LongBenchTask]:
    entries = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    return {str(name): LongBenchTask(str(name), **entry) for name, entry in entries.items()}


def longbench_tasks() -> tuple[str, ...]:
    """Names of all tasks."""
    return tuple(_tasks())


def longbench_task(name: str) -> LongBenchTask:
    """A task by its name. Raises InputError for an unknown one."""
    if name not in _tasks():
        raise InputError(f"task {name!r} is not among LongBench's English tasks: {', '.join(_tasks())}.")
    return _tasks()[name]


def longbench_file(name: str, *, even: bool = False) -> str:
    """Name of a task's file: `<task>.jsonl`, of LongBench-E, whose lengths are spread evenly, `<task>_e.jsonl`."""
    return f"{longbench_task(name).name}{'_e' if even else ''}.jsonl"


def load_longbench(folder: str | Path, name: str, *, even: bool = False) -> list[LongBenchExample]:
    """The examples of a task.

    Args:
        folder: with LongBench's files `<task>.jsonl`.
        name: of the task.
        even: those of LongBench-E, from `<task>_e.jsonl`.

    Raises:
        InputError: there is no such task.
        DataError: the file is missing, with where to get it; or a line is not an example of LongBench, with its number.
    """
    task = longbench_task(name)
    path = Path(folder) / longbench_file(name, even=even)
    if not path.is_file():
        raise DataError(
            f"{path} is missing. Download data.zip of THUDM/LongBench on the Hugging Face hub, unpack it, and give the folder "
            "that holds the .jsonl files."
        )
    examples = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                examples.append(_example(line, f"{path}, line {number}", task))
    if not examples:
        raise DataError(f"{path} holds no examples. Download it again.")
    return examples


def write_longbench(folder: str | Path, name: str, examples: Iterable[LongBenchExample]) -> Path:
    """Write examples of one's own in LongBench's format, to `<task>.jsonl`; its path.

    Args:
        folder: that exists.
        name: of the task.
        examples: in this order.
    """
    lines = [
        json.dumps(
            {
                "input": example.input,
                "context": example.context,
                "answers": list(example.answers),
                "length": len(example.context.split()),
                "dataset": name,
                "language": "en",
                "all_classes": list(example.classes) or None,
                "_id": f"{name}-{number}",
            },
            ensure_ascii=False,
        )
        for number, example in enumerate(examples)
    ]
    path = Path(folder) / longbench_file(name)
    write_text(path, "\n".join(lines) + "\n")
    return path


def _example(line: str, place: str, task: LongBenchTask) -> LongBenchExample:
    try:
        entry: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{place} is no JSON ({error}). Download the file again.") from None
    if not isinstance(entry, dict):
        raise DataError(f"{place} is no object. Download the file again.")
    for field in ("context", "input"):
        if not isinstance(entry.get(field), str):
            raise DataError(f"{place}: {field} is {entry.get(field)!r}; a text is expected.")
    answers, classes = entry.get("answers"), entry.get("all_classes") or []
    if not isinstance(answers, list) or not answers or not all(isinstance(answer, str) for answer in answers):
        raise DataError(f"{place}: answers is {answers!r}; a list of at least one text is expected.")
    if task.score == "classification" and not classes:
        raise DataError(f"{place}: all_classes is {classes!r}; {task.name} needs the names of its classes.")
    return LongBenchExample(entry["context"], entry["input"], tuple(answers), tuple(map(str, classes)))


def longbench_prompt(
    task: LongBenchTask, example: LongBenchExample, tokenizer: PreTrainedTokenizerBase, *, length: int
) -> Tensor:
    """The tokens of a prompt; of one that is too long, the middle is left out, as LongBench does.

    Args:
        task: of the example.
        example: what is asked.
        tokenizer: of the model; its chat template, where it has one, is put around after cutting, and not counted.
        length: tokens that are kept at most: half from the beginning, half from the end.

    Returns:
        int64 [N].

    Raises:
        InputError: length is below 2.
    """
    if length < 2:
        raise InputError(f"length is {length}; at least 2 tokens are needed.")
    text = task.prompt.format(context=example.context, input=example.input)
    tokens = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    if len(tokens) > length:
        half = length // 2
        text = str(tokenizer.decode(tokens[:half])) + str(tokenizer.decode(tokens[-half:]))
    if task.chat and tokenizer.chat_template:
        turns = [{"role": "user", "content": text}]
        text = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        return torch.tensor(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    return torch.tensor(tokenizer(text, verbose=False)["input_ids"])


def longbench_score(task: LongBenchTask, output: str, example: LongBenchExample) -> float:
    """The score of an output, 0 to 1: the best over the right answers.

    Raises:
        InputError: the task is scored by ROUGE and the package `rouge` is not installed, or its answer has no number.
    """
    if task.first_line:
        output = output.lstrip("\n").split("\n")[0]
    return max(_score(task.score, output, answer, example.classes) for answer in example.answers)


def _score(kind: ScoreKind, output: str, answer: str, classes: tuple[str, ...]) -> float:
    if kind == "f1":
        return token_f1(output, answer)
    if kind == "rouge_l":
        return rouge_l(output, answer)
    if kind == "classification":
        return class_score(output, answer, classes)
    if kind == "number":
        return number_score(output, answer)
    assert kind == "code", get_args(ScoreKind)
    return code_similarity(output, answer)


def _words(text: str) -> list[str]:
    """Lower case, without punctuation and articles."""
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def token_f1(output: str, answer: str) -> float:
    """Harmonic mean of precision and recall of the words, each counted as often as it occurs."""
    given, wanted = _words(output), _words(answer)
    shared = (Counter(given) & Counter(wanted)).total()
    return 2 * shared / (len(given) + len(wanted)) if shared else 0.0


def rouge_l(output: str, answer: str) -> float:
    """F of ROUGE-L as the package `rouge` counts it; 0 for an output without words."""
    try:
        from rouge import Rouge  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(
            "this task is scored by ROUGE-L as the package `rouge` counts it; install it: pip install rouge==1.0.1"
        ) from None
    if not output.replace(".", " ").split() or not answer.replace(".", " ").split():
        return 0.0
    return float(Rouge().get_scores([output], [answer])[0]["rouge-l"]["f"])


def class_score(output: str, answer: str, classes: tuple[str, ...]) -> float:
    """1 over the number of classes that the output names, if the right one is among them."""
    named = [name for name in classes if name in output and not (name != answer and name in answer)]
    return 1 / len(named) if answer in named else 0.0


def number_score(output: str, answer: str) -> float:
    """The share of right ones among the numbers in the output."""
    wanted = re.search(r"\d+", answer)
    if wanted is None:
        raise InputError(f"answer {answer!r} has no number.")
    given = re.findall(r"\d+", output)
    return given.count(wanted.group()) / len(given) if given else 0.0


def code_similarity(output: str, answer: str) -> float:
    """How alike the answer and the output's first line without a comment or code fence are, in steps of a hundredth."""
    lines = output.lstrip("\n").split("\n")
    line = next((line for line in lines if not any(mark in line for mark in ("`", "#", "//"))), "")
    if not line or not answer:
        return 0.0
    return round(100 * SequenceMatcher(None, line, answer).ratio()) / 100
