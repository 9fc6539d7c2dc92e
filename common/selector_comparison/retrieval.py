"""Whether the model finds what is hidden in a long prompt when its prefill reads what a selector selects.

Tasks: `passkey`, and RULER's by their names. The prompt is read sparsely; decoding is dense.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.data.texts import load_text
from common.errors import InputError
from common.experiment import Context, Measurement
from common.language_models import (
    LanguageModel,
    RulerPrompt,
    passkey_prompts,
    passkey_scores,
    ruler_prompts,
    ruler_scores,
    ruler_task,
)
from common.language_models.passkey import PasskeyPrompt
from common.selector_comparison.families import DENSE, Family, check_known, with_oracle
from common.selector_comparison.perplexity import mean_density, sparse_prefill
from common.selector_comparison.subjects import SubjectSettings, load_subject

PASSKEY = "passkey"


class RetrievalSettings(SubjectSettings):
    """Axes and parameters of a comparison, beyond those of the subject.

    Attributes:
        task: `passkey`, or a task of RULER.
        length: tokens of a prompt and its answer (of RULER: and the tokens to generate, as RULER counts).
        seed: of the prompts; seed and trial are the items of the statistics.
        trials: prompts.
        new_tokens: how many the model may generate in answer to a task of RULER; 0 for as many as RULER allows.
        text: filler.
        filler_characters: how much of it is used, from its beginning.
        block_size: tokens per block.
        sweeps: selector -> values of its threshold; `oracle`, by density, is among the known selectors.
    """

    task: str
    length: int
    seed: int
    trials: int
    new_tokens: int
    text: str
    filler_characters: int
    block_size: int
    sweeps: dict[str, list[float]]


Score = Callable[[], tuple[Tensor, Tensor]]
"""Scores in percent and negative log-likelihoods of the right answers in nats a token: [trials] each."""


def answer_negative_log_likelihood(model: PreTrainedModel, prompt: Tensor, answer: Tensor) -> Tensor:
    """-log p of an answer, mean over its tokens, prompt and answer in one prefill.

    Args:
        model: a causal language model of transformers.
        prompt: int64 [N].
        answer: int64 [A].

    Returns:
        float32 scalar on the CPU.

    Raises:
        InputError: the answer is empty.
    """
    if len(answer) == 0:
        raise InputError("the answer has no tokens; there is nothing to predict.")
    tokens = torch.cat([prompt, answer[:-1]]).to(model.device)
    logits = model(tokens[None], use_cache=False, logits_to_keep=len(answer)).logits[0].float().cpu()
    return cross_entropy(logits, answer)


def score_passkey(model: PreTrainedModel, prompts: Sequence[PasskeyPrompt]) -> tuple[Tensor, Tensor]:
    """Share of the key's tokens that are the most probable given those before, in percent; and their mean loss."""
    scores = passkey_scores(model, prompts)
    return 100 * scores.correct.double().mean(1), scores.nll.double().mean(1)


def score_ruler(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[RulerPrompt]
) -> tuple[Tensor, Tensor]:
    """RULER's score of what the model generates, in percent; and the mean loss of the answers, joined by commas."""
    losses = []
    for prompt in prompts:
        answer = tokenizer(" " + ", ".join(prompt.answers), add_special_tokens=False)["input_ids"]
        losses.append(answer_negative_log_likelihood(model, prompt.tokens, torch.tensor(answer)))
    return 100 * ruler_scores(model, tokenizer, prompts).recall, torch.stack(losses)


def prompts_of(settings: RetrievalSettings, subject: LanguageModel) -> Score:
    """The prompts of a cell, with what scores the subject on them.

    Raises:
        InputError: the task is not known, or the filler is too short for the prompts.
    """
    filler = load_text(settings.text, unwrap=settings.text.startswith("long-texts")).text[: settings.filler_characters]
    model, tokenizer = subject.model, subject.tokenizer
    if settings.task == PASSKEY:
        depths = torch.linspace(0.05, 0.95, settings.trials).tolist()
        passkeys = passkey_prompts(tokenizer, filler, context_length=settings.length, depths=depths, seed=settings.seed)
        return lambda: score_passkey(model, passkeys)
    task = ruler_task(settings.task, length=settings.length)
    if settings.new_tokens:
        task = replace(task, new_tokens=settings.new_tokens)
    length = settings.length - task.new_tokens
    prompts = ruler_prompts(task, tokenizer, filler, length=length, trials=settings.trials, seed=settings.seed)
    return lambda: score_ruler(model, tokenizer, prompts)


@torch.inference_mode()
def compare_retrieval(settings: RetrievalSettings, families: Mapping[str, Family], context: Context) -> Measurement:
    """Answer the same prompts with every selector at every value of its sweep, and with dense attention.

    Rows, a `trial` each: `score` in percent by the task's own rule (passkey: share of the key's tokens predicted right given
    those before; RULER: share of the answers in the text generated), and `answer_negative_log_likelihood` of the right answer,
    which tells methods apart also where no answer is right; of `dense` and, by `threshold`, of every selector. `density`,
    executed, by `threshold`.

    Args:
        settings: see `RetrievalSettings`.
        families: every selector of the sweeps by its name; the oracle is added.
        context: of the cell.

    Raises:
        InputError: a sweep names an unknown selector, the task is not known, or the filler is too short.
    """
    families = with_oracle(families, settings.block_size)
    check_known(settings.sweeps, families)
    measurement = Measurement()
    subject = load_subject(settings, settings.length, context.device)
    scored = prompts_of(settings, subject)

    def add(method: str, result: tuple[Tensor, Tensor], **setting: Any) -> None:
        for trial, (score, loss) in enumerate(zip(*result, strict=True)):
            measurement.add("score", score, "%", method=method, trial=trial, **setting)
            measurement.add("answer_negative_log_likelihood", loss, "nat/token", method=method, trial=trial, **setting)

    progress = context.progress(1 + sum(map(len, settings.sweeps.values())))
    add(DENSE, scored())
    progress.step(DENSE)
    for name, values in settings.sweeps.items():
        for value in values:
            with sparse_prefill(subject.model, families[name](value)) as statistics:
                add(name, scored(), threshold=value)
            measurement.add("density", mean_density(statistics), method=name, threshold=value)
            progress.step(f"{name} at {value}")
    return measurement
