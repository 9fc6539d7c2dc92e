"""How well the model answers LongBench's questions when its prefill reads what a selector selects.

The prompt is read sparsely; decoding is greedy and dense. LongBench's texts cannot be passed on: the user brings them.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from common.data.segmentation.document import brought
from common.data.texts import load_text
from common.errors import InputError
from common.experiment import Context, Measurement
from common.language_models import LanguageModel, greedy_continuation
from common.language_models.longbench import (
    LongBenchExample,
    LongBenchTask,
    load_longbench,
    longbench_file,
    longbench_prompt,
    longbench_score,
    longbench_task,
    write_longbench,
)
from common.selector_comparison.families import DENSE, Family, check_known, with_oracle
from common.selector_comparison.perplexity import mean_density, sparse_prefill
from common.selector_comparison.subjects import SubjectSettings, load_subject

FOLDER = "longbench"
WHERE_FROM = "data.zip of THUDM/LongBench on the Hugging Face hub"
CONTEXT, ANSWER = 4000, 200  # characters of a generated example


class LongBenchSettings(SubjectSettings):
    """Axes and parameters of a comparison, beyond those of the subject.

    Attributes:
        task: of LongBench.
        source: `longbench` or `longbench_e` (LongBench-E, the 13 tasks with even lengths), which are brought as
            `$REATTEND_DATA/longbench/<task>.jsonl` and `<task>_e.jsonl`; or `generated`, examples made of `text`, whose scores
            mean nothing.
        text: that generated examples are made of; otherwise not used.
        examples: how many, from the beginning of the file; 0 for all.
        prompt_tokens: of a longer prompt the middle is left out. Without the chat template, which is not counted.
        new_tokens: how many the model may generate; 0 for as many as LongBench allows.
        block_size: tokens per block.
        sweeps: selector -> values of its threshold; `oracle`, by density, is among the known selectors.
    """

    task: str
    source: Literal["longbench", "longbench_e", "generated"]
    text: str
    examples: int
    prompt_tokens: int
    new_tokens: int
    block_size: int
    sweeps: dict[str, list[float]]

    @property
    def asked(self) -> LongBenchTask:
        """The task, with as many new tokens as the settings allow. Raises InputError for an unknown one."""
        task = longbench_task(self.task)
        return replace(task, new_tokens=self.new_tokens) if self.new_tokens else task

    @property
    def context_tokens(self) -> int:
        """Tokens of a prompt and its answer at most."""
        return self.prompt_tokens + self.asked.new_tokens


def generated_examples(text: str, count: int) -> list[LongBenchExample]:
    """Examples from pieces of a text: what follows the context is asked for.

    Raises:
        InputError: `count` is below 1, or the text is too short.
    """
    size = CONTEXT + ANSWER
    if count < 1:
        raise InputError(f"examples is {count}; of generated ones at least 1 is needed.")
    if len(text) < count * size:
        raise InputError(f"the text has {len(text)} characters; {count} generated examples need {count * size}.")
    pieces = [text[number * size : (number + 1) * size] for number in range(count)]
    return [LongBenchExample(piece[:CONTEXT], "What comes next?", (piece[CONTEXT:],)) for piece in pieces]


def examples_of(settings: LongBenchSettings) -> list[LongBenchExample]:
    """The examples of a cell, read from a file in LongBench's format.

    Raises:
        InputError: there is no such task, its scorer is missing or cannot score an example, or nothing can be generated.
        DataError: the file is missing, with what to bring and whence; or damaged.
    """
    task, even = settings.asked, settings.source == "longbench_e"
    if settings.source == "generated":
        text = load_text(settings.text, unwrap=settings.text.startswith("long-texts")).text
        made = generated_examples(text, settings.examples)
        with tempfile.TemporaryDirectory() as folder:
            write_longbench(folder, task.name, made)
            examples = load_longbench(folder, task.name)
    else:
        path = brought(FOLDER, longbench_file(task.name, even=even), WHERE_FROM)
        examples = load_longbench(path.parent, task.name, even=even)
    examples = examples[: settings.examples or None]
    for example in examples:  # before hours of a GPU: a missing scorer, an answer that cannot be scored
        longbench_score(task, example.answers[0], example)
    return examples


def answer_of(subject: LanguageModel, prompt: Tensor, task: LongBenchTask) -> str:
    """What the model says, greedily.

    Args:
        subject: model and tokenizer.
        prompt: int64 [N].
        task: says how many tokens at most.
    """
    return str(subject.tokenizer.decode(greedy_continuation(subject.model, prompt, task.new_tokens), skip_special_tokens=True))


@torch.inference_mode()
def compare_longbench(settings: LongBenchSettings, families: Mapping[str, Family], context: Context) -> Measurement:
    """Answer the same prompts with every selector at every value of its sweep, and with dense attention.

    Rows, an `example` each: `prompt_tokens`; `score` in percent as LongBench scores, of `dense` and, by `threshold`, of every
    selector; `density`, executed, of every selector. And by `threshold` `relative_score`: the mean score in percent of dense
    attention's, where that is not 0.

    Args:
        settings: see `LongBenchSettings`.
        families: every selector of the sweeps by its name; the oracle is added.
        context: of the cell.

    Raises:
        InputError: a sweep names an unknown selector, or as `examples_of`.
        DataError: as `examples_of`.
    """
    families = with_oracle(families, settings.block_size)
    check_known(settings.sweeps, families)
    task, examples = settings.asked, examples_of(settings)
    subject = load_subject(settings, settings.context_tokens, context.device)
    prompts = [longbench_prompt(task, example, subject.tokenizer, length=settings.prompt_tokens) for example in examples]
    measurement = Measurement()
    for number, prompt in enumerate(prompts):
        measurement.add("prompt_tokens", len(prompt), "tokens", example=number)
    progress = context.progress((1 + sum(map(len, settings.sweeps.values()))) * len(prompts))

    def add_score(number: int, method: str, **setting: Any) -> float:
        score = 100 * longbench_score(task, answer_of(subject, prompts[number], task), examples[number])
        measurement.add("score", score, "%", method=method, example=number, **setting)
        progress.step(method)
        return score

    dense = _mean([add_score(number, DENSE) for number in range(len(prompts))])
    for name, values in settings.sweeps.items():
        for value in values:
            scores = []
            with sparse_prefill(subject.model, families[name](value)) as statistics:
                for number in range(len(prompts)):
                    statistics.reset()
                    scores.append(add_score(number, name, threshold=value))
                    measurement.add("density", mean_density(statistics), method=name, example=number, threshold=value)
            if dense:
                measurement.add("relative_score", 100 * _mean(scores) / dense, "%", method=name, threshold=value)
    return measurement


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
