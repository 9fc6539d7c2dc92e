"""Pretrained and randomly initialised language models, and what is measured on them."""

from common.language_models.evaluation import negative_log_likelihoods, perplexity_windows
from common.language_models.load import LanguageModel, load_language_model, random_llama
from common.language_models.passkey import PasskeyPrompt, PasskeyScores, passkey_prompts, passkey_scores

__all__ = [
    "LanguageModel",
    "PasskeyPrompt",
    "PasskeyScores",
    "load_language_model",
    "negative_log_likelihoods",
    "passkey_prompts",
    "passkey_scores",
    "perplexity_windows",
    "random_llama",
]
