"""A tiny Llama with random weights: 2 layers, 4 query and 2 key heads of 64 dimensions."""

import pytest
import torch

from common.language_models import random_llama


@pytest.fixture
def model():
    llama = random_llama("tiny", seed=0, dtype=torch.float32, device="cpu")
    for name, weight in llama.named_parameters():  # larger logits, so that attention is not uniform
        if "q_proj" in name or "k_proj" in name:
            weight.data *= 6
    return llama


@pytest.fixture
def tokens():
    return torch.randint(512, (2, 100), generator=torch.Generator().manual_seed(0))
