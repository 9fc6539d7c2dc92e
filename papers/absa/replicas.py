"""Networks with a leading replica dimension: seeds and variants side by side in one set of tensors.

R = copies x seeds replicas, the seeds of the first copy first. The copies of a seed start from the same parameters, see the
same batches and drop the same units, so that variants differ in nothing but what makes them variants.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.errors import InputError
from common.training import derived_seed
from papers.absa.sentences import Batch


@dataclass(frozen=True)
class Attended:
    """Attention and logits.

    Attributes:
        attention: α, float32 [R, B, n]; a row sums to 1, or is 0 where nothing is left to look at.
        logits: [R, B, classes].
    """

    attention: Tensor
    logits: Tensor


@dataclass(frozen=True)
class Represented:
    """A sentence before attention.

    Attributes:
        X: the last hidden states, [R, B, n, d].
        query: what the network knows of the target besides, [R, B, d]; None where it is made of X.
    """

    X: Tensor
    query: Tensor | None


class AspectNetwork(nn.Module, ABC):
    """Base of the three networks.

    Args:
        seeds: of the initial parameters, at least one.
        copies: replicas of each seed.

    Raises:
        InputError: there are no seeds or copies.
    """

    def __init__(self, seeds: Sequence[int], copies: int):
        super().__init__()
        if not seeds or copies < 1:
            raise InputError(f"seeds are {list(seeds)} and copies {copies}; at least one of each is needed.")
        self.seeds, self.copies = tuple(seeds), copies
        self._generators = [torch.Generator().manual_seed(derived_seed(seed, "parameters")) for seed in seeds]

    @property
    def replicas(self) -> int:
        """R."""
        return self.copies * len(self.seeds)

    def drawn(self, draw: Callable[[torch.Generator], Tensor]) -> nn.Parameter:
        """A parameter [R, ...] from what `draw` gives for each seed, [...]."""
        values = torch.stack([draw(generator) for generator in self._generators])
        return nn.Parameter(values.repeat(self.copies, *[1] * (values.ndim - 1)))

    def uniform(self, bound: float, *shape: int) -> nn.Parameter:
        """A parameter [R, *shape], uniform in [-bound, bound]."""
        return self.drawn(lambda generator: torch.empty(*shape).uniform_(-bound, bound, generator=generator))

    def same(self, value: Tensor) -> nn.Parameter:
        """A parameter [R, ...] that starts from one value for all seeds."""
        return self.drawn(lambda _: value.clone())

    def keep_mask(self, x: Tensor, share: float) -> Tensor:
        """Which units dropout keeps: bool of x's shape [R, ...], the same for all copies of a seed."""
        some = torch.rand(1, len(self.seeds), *x.shape[1:], device=x.device) >= share
        return some.expand(self.copies, *some.shape[1:]).reshape(x.shape)

    @abstractmethod
    def represent(self, batch: Batch) -> Represented:
        """Hidden states of a batch."""

    @abstractmethod
    def attend(self, represented: Represented, batch: Batch) -> Attended:
        """Attention over hidden states, and the classification."""

    def forward(self, batch: Batch) -> Attended:
        """Attention and logits of a batch."""
        return self.attend(self.represent(batch), batch)


def affine(x: Tensor, W: Tensor, b: Tensor | None = None) -> Tensor:
    """X W + b for each replica: [R, ..., out] from [R, ..., in], [R, in, out] and [R, out]."""
    flat = x.flatten(1, -2)
    out = torch.bmm(flat, W) if b is None else torch.baddbmm(b[:, None], flat, W)
    return out.view(*x.shape[:-1], W.shape[-1])
