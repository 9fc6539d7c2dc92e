"""Queries, keys and values with the structure of long-context attention, for experiments without a model.

Unit-variance noise in all dimensions plus components along orthonormal directions, drawn anew for every key head, each of which
adds a set amount to the logit q · k / sqrt(D):

| component | which keys | which queries | logit |
|---|---|---|---|
| sink | token 0 | all | sink_logit |
| heavy hitters | 1 position in heavy_hitter_period, at random, own to each key head | all | heavy_hitter_logit |
| topics | all, by the topic of their chunk | same topic | topic_logits, from the first to the last key head in equal steps |
| locality | all | all | locality_logit * cos(2 pi (position difference) / locality_period) |

The noise also meets the components, which spreads the logits of each kind by a few tenths to one: keys differ in how well they
match what all queries look for, which is what a permutation can exploit.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from common.errors import InputError


class StructuredInputs(NamedTuple):
    """One prefill.

    Attributes:
        q: [1, heads, length, head_dim].
        k: [1, key_heads, length, head_dim].
        v: [1, key_heads, length, head_dim].
    """

    q: Tensor
    k: Tensor
    v: Tensor


def structured_inputs(
    length: int,
    *,
    heads: int = 32,
    key_heads: int = 8,
    head_dim: int = 128,
    sink_logit: float = 10.0,
    heavy_hitter_logit: float = 5.0,
    heavy_hitter_period: int = 64,
    topic_logits: tuple[float, float] = (3.0, 7.0),
    topics: int = 16,
    topic_chunk: int = 1024,
    locality_logit: float = 3.0,
    locality_period: int = 8192,
    seed: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> StructuredInputs:
    """Draw structured queries, keys and values. The same arguments give the same numbers on the same kind of device.

    Args:
        length: tokens, N.
        heads: query heads; query head h reads key head h // (heads / key_heads).
        key_heads: key heads; divides heads.
        head_dim: D; at least topics + 4.
        sink_logit: logit of token 0 for every query.
        heavy_hitter_logit: logit of a heavy hitter for every query.
        heavy_hitter_period: one key in this many is a heavy hitter, on average.
        topic_logits: logit between query and key of one topic in the first and in the last key head.
        topics: number of topics; each chunk is given one at random, the same in all heads.
        topic_chunk: tokens in a row that share a topic.
        locality_logit: amplitude of the locality term.
        locality_period: period of the locality term in tokens.
        seed: seed of everything random.
        device: where to draw; the peak memory is the result plus a few float32 tensors of one head.
        dtype: dtype of the result; everything is drawn in float32.

    Returns:
        q [1, heads, length, head_dim], k and v [1, key_heads, length, head_dim].

    Raises:
        InputError: a number is out of range.
    """
    counts = {
        "length": length,
        "heads": heads,
        "key_heads": key_heads,
        "head_dim": head_dim,
        "heavy_hitter_period": heavy_hitter_period,
        "topics": topics,
        "topic_chunk": topic_chunk,
        "locality_period": locality_period,
    }
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"{name} is {count}; it must be at least 1.")
    if heads % key_heads:
        raise InputError(f"key_heads {key_heads} does not divide heads {heads}.")
    directions = topics + 4
    if head_dim < directions:
        raise InputError(f"head_dim is {head_dim}; {topics} topics need at least {directions} dimensions.")
    logits = {"sink_logit": sink_logit, "heavy_hitter_logit": heavy_hitter_logit, "locality_logit": locality_logit}
    for name, logit in {**logits, "topic_logits": min(topic_logits)}.items():
        if logit < 0:
            raise InputError(f"{name} is {logit}; it must not be negative.")

    generator = torch.Generator(device).manual_seed(seed)
    positions = torch.arange(length, device=device)
    chunk_topics = torch.randint(topics, (math.ceil(length / topic_chunk),), generator=generator, device=device)
    topic = one_hot(chunk_topics[positions // topic_chunk], topics).float()
    angle = 2 * math.pi * (positions % locality_period).double() / locality_period
    locality = torch.stack([angle.cos(), angle.sin()], dim=1).float()
    sink = (positions == 0).float()[:, None]
    everyone = torch.ones(length, 1, device=device)

    def amplitude(logit: float) -> float:
        """Length of a component that gives this logit between two vectors which both carry it."""
        return math.sqrt(logit * math.sqrt(head_dim))

    def noise() -> Tensor:
        return torch.randn(length, head_dim, generator=generator, device=device)

    q = torch.empty(1, heads, length, head_dim, device=device, dtype=dtype)
    k, v = (torch.empty(1, key_heads, length, head_dim, device=device, dtype=dtype) for _ in range(2))
    group = heads // key_heads
    steps = torch.linspace(*topic_logits, key_heads).tolist()
    for key_head, topic_logit in enumerate(steps):
        heavy = (torch.rand(length, 1, generator=generator, device=device) < 1 / heavy_hitter_period).float()
        # Columns: sink, heavy hitters, topics, locality.
        sizes = torch.tensor(
            [amplitude(sink_logit), amplitude(heavy_hitter_logit)]
            + [amplitude(topic_logit)] * topics
            + [amplitude(locality_logit)] * 2,
            device=device,
        )
        basis, _ = torch.linalg.qr(torch.randn(head_dim, directions, generator=generator, device=device))
        component = sizes[:, None] * basis.mT
        key_component = torch.cat([sink, heavy, topic, locality], dim=1) @ component
        query_component = torch.cat([everyone, everyone, topic, locality], dim=1) @ component
        k[0, key_head] = key_component + noise()
        v[0, key_head] = noise()
        for head in range(key_head * group, (key_head + 1) * group):
            q[0, head] = query_component + noise()
    return StructuredInputs(q, k, v)
