"""Claims on the search, with scores of known locality: how many of the top keys does the tree find?

Every dimension of the keys is a Gaussian process over the positions: white noise smoothed by a Gaussian of a set width, its
correlation length. The queries of a block look in one direction, each a little beside it. So every query's scores are a
Gaussian process of that length, too, with a set deviation after the division by sqrt(d).

Rows are those of `compare_lists`: recall, recall_lost, attention_mass and center_best.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import conv1d, normalize

from common.experiment import Context, Measurement, main
from papers.hip_attention.comparisons import SearchSettings, compare_lists
from papers.hip_attention.hip_attention import HierarchicalPruning


class Settings(SearchSettings):
    """Axes and parameters of `config.yaml`, beyond those of the comparison.

    Attributes:
        correlation_length: width of the smoothing in tokens; 0 leaves white noise.
        length: keys, T.
        seed: of everything random.
        queries: last queries that are looked at, N.
        heads: number of heads, each with keys of its own.
        head_dim: d.
        deviation: standard deviation of q · k / sqrt(d).
        spread: length of a query's own part beside the direction that its block shares.
    """

    correlation_length: int
    length: int
    seed: int
    queries: int
    heads: int
    head_dim: int
    deviation: float
    spread: float


def gaussian_process(shape: tuple[int, int, int], correlation_length: int, generator: torch.Generator) -> Tensor:
    """Smoothed white noise of unit variance: float32 [heads, length, dimensions], independent but along the length."""
    if correlation_length == 0:
        return torch.randn(shape, generator=generator, device=generator.device)
    heads, length, dimensions = shape
    reach = 4 * correlation_length
    places = torch.arange(-reach, reach + 1, device=generator.device)
    weights = torch.exp(-0.5 * (places / correlation_length) ** 2)
    weights = weights / weights.square().sum().sqrt()
    noise = torch.randn(heads * dimensions, 1, length + 2 * reach, generator=generator, device=generator.device)
    return conv1d(noise, weights[None, None]).view(heads, dimensions, length).mT.contiguous()


def local_inputs(s: Settings, block_q: int, device: str) -> tuple[Tensor, Tensor]:
    """Queries [1, H, N, d] and keys [1, H, T, d]."""
    g = torch.Generator(device).manual_seed(s.seed)
    k = gaussian_process((s.heads, s.length, s.head_dim), s.correlation_length, g)
    shared = torch.randn(s.heads, math.ceil(s.queries / block_q), s.head_dim, generator=g, device=device)
    shared = normalize(shared, dim=-1).repeat_interleave(block_q, dim=1)[:, : s.queries]
    own = normalize(torch.randn(s.heads, s.queries, s.head_dim, generator=g, device=device), dim=-1)
    q = normalize(shared + s.spread * own, dim=-1) * s.deviation * math.sqrt(s.head_dim)
    return q[None], k[None]


@torch.inference_mode()
def run(settings: Settings, context: Context) -> Measurement:
    """Compare lists at the paper's settings, for other representatives, and over sizes of blocks and k."""
    measurement = Measurement()

    def inputs(hip: HierarchicalPruning) -> tuple[Tensor, Tensor]:
        return local_inputs(settings, hip.block_q, context.device)

    compare_lists(settings, [inputs], measurement, settings.seed)
    return measurement


if __name__ == "__main__":
    main(run, Settings)
