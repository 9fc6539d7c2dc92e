"""Pretrained and randomly initialised language models, and what is measured on them."""

from common.language_models.evaluation import negative_log_likelihoods, perplexity_windows
from common.language_models.generation import greedy_continuation
from common.language_models.load import LanguageModel, load_language_model, random_llama
from common.language_models.passkey import PasskeyPrompt, PasskeyScores, passkey_prompts, passkey_scores
from common.language_models.ruler import (
    CommonWords,
    NeedleTask,
    RulerPrompt,
    RulerScores,
    VariableTracking,
    ruler_prompts,
    ruler_scores,
    ruler_task,
    string_match_all,
    string_match_part,
)

__all__ = [
    "CommonWords",
    "LanguageModel",
    "NeedleTask",
    "PasskeyPrompt",
    "PasskeyScores",
    "RulerPrompt",
    "RulerScores",
    "VariableTracking",
    "greedy_continuation",
    "load_language_model",
    "negative_log_likelihoods",
    "passkey_prompts",
    "passkey_scores",
    "perplexity_windows",
    "random_llama",
    "ruler_prompts",
    "ruler_scores",
    "ruler_task",
    "string_match_all",
    "string_match_part",
]
