"""Scaled dot-product attention (Vaswani et al., 2017, Section 3.2.1).

    Attention(Q, K, V) = softmax(Q K^T / sqrt(d_k)) V                                                     eq. (1)

This file is the method alone: it can be lifted out of the suite and used as it is.
"""

import math

import torch
from torch import Tensor

from common.errors import InputError


def attention_weights(Q: Tensor, K: Tensor, *, scaled: bool = True) -> Tensor:
    """The softmax of eq. (1).

    Args:
        Q: queries [..., n, d_k], floating point.
        K: keys [..., m, d_k], same dtype and device as Q.
        scaled: divide by sqrt(d_k); False is the paper's plain dot-product attention.

    Returns:
        Weights [..., n, m] in Q's dtype; rows sum to 1.

    Raises:
        InputError: the last dimensions of Q and K differ.
    """
    d_k = Q.shape[-1]
    if K.shape[-1] != d_k:
        raise InputError(f"Q has d_k = {d_k} and K has {K.shape[-1]}: give both the same last dimension.")
    scale = 1 / math.sqrt(d_k) if scaled else 1.0
    return torch.softmax(Q @ K.transpose(-1, -2) * scale, dim=-1)
