"""Metrics of re-identification under the protocol of Market-1501 (Zheng et al., ICCV 2015).

For a query, gallery images of its identity at its camera are taken out, and so are bad detections (identity -1). Distractors
(identity 0) stay as wrong answers. A query that has no right answer left is not counted.

    AP   = (1 / n) Σ_k precision@k · rel_k       over the ranked gallery, n right answers      (mean: mAP)
    INP  = n / rank of the last right answer     (Ye et al., TPAMI 2021; mean: mINP)
    CMC@k: whether a right answer is among the first k
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from common.errors import InputError

JUNK = -1


class QueryScores(NamedTuple):
    """Scores of every query.

    Attributes:
        counted: bool [queries], whether a right answer is in the gallery.
        average_precision: float64 [queries]; 0 where not counted.
        inverse_negative_penalty: float64 [queries]; 0 where not counted.
        first: int64 [queries], rank of the first right answer, from 1; 0 where not counted.
    """

    counted: Tensor
    average_precision: Tensor
    inverse_negative_penalty: Tensor
    first: Tensor

    def mean(self, name: str) -> float:
        """Mean of `average_precision` (mAP) or `inverse_negative_penalty` (mINP) over counted queries."""
        return float(getattr(self, name)[self.counted].mean())

    def cmc(self, k: int) -> float:
        """Share of counted queries with a right answer among the first k."""
        return float((self.first[self.counted] <= k).double().mean())


def cosine_distances(query: Tensor, gallery: Tensor) -> Tensor:
    """1 - cosine of every pair: [queries, d] and [gallery, d] to [queries, gallery]."""
    return 1 - torch.nn.functional.normalize(query) @ torch.nn.functional.normalize(gallery).T


def market_scores(
    distances: Tensor,
    query_identities: Tensor,
    gallery_identities: Tensor,
    query_cameras: Tensor,
    gallery_cameras: Tensor,
) -> QueryScores:
    """Rank the gallery for each query and score the ranking. Of equal distances the earlier image comes first.

    Args:
        distances: floating point [queries, gallery], any device; small is similar.
        query_identities: int64 [queries], above 0.
        gallery_identities: int64 [gallery].
        query_cameras: int64 [queries].
        gallery_cameras: int64 [gallery].

    Raises:
        InputError: shapes do not fit, a distance is not finite, a query has no identity, or no query has a right answer.
    """
    shape = len(query_identities), len(gallery_identities)
    if tuple(distances.shape) != shape or len(query_cameras) != shape[0] or len(gallery_cameras) != shape[1]:
        raise InputError(
            f"distances is {list(distances.shape)} with {shape[0]} and {len(query_cameras)} identities and cameras of "
            f"queries, {shape[1]} and {len(gallery_cameras)} of the gallery; expected [queries, gallery] and one of each for "
            "every image."
        )
    if not torch.isfinite(distances).all():
        raise InputError("distances has values that are not finite; check the features.")
    if (query_identities <= 0).any():
        raise InputError(f"A query has the identity {int(query_identities.min())}; those of queries are above 0.")
    same = query_identities[:, None] == gallery_identities
    ignored = (same & (query_cameras[:, None] == gallery_cameras)) | (gallery_identities == JUNK)
    # What is ignored goes to the end of the ranking, where it moves nothing.
    order = distances.masked_fill(ignored, torch.inf).argsort(dim=1, stable=True)
    right = (same & ~ignored).gather(1, order).double()
    counts = right.sum(dim=1)
    counted = counts > 0
    if not counted.any():
        raise InputError("No query has a right answer at another camera; check identities and cameras.")
    ranks = torch.arange(1, shape[1] + 1, dtype=torch.float64, device=distances.device)
    n = counts.clamp(min=1)
    precision = right.cumsum(dim=1) / ranks
    last = (right * ranks).amax(dim=1)
    first = torch.where(counted, torch.where(right > 0, ranks, torch.inf).amin(dim=1), 0.0).long()
    return QueryScores(
        counted, (precision * right).sum(dim=1) / n, torch.where(counted, n / last.clamp(min=1), 0.0), first
    )  # fmt: skip


def by_part(scores: QueryScores, identities: Tensor, parts: int) -> list[float]:
    """MAP of the queries of each part of the identities, for intervals over them.

    Args:
        scores: of the queries.
        identities: int64 [queries].
        parts: how many; identities are dealt to them in turn, in their order.

    Raises:
        InputError: a part has no counted query.
    """
    _, number = identities.unique(return_inverse=True)
    found = []
    for part in range(parts):
        own = scores.counted & (number % parts == part)
        if not own.any():
            raise InputError(f"Part {part} of {parts} has no counted query; take fewer parts.")
        found.append(float(scores.average_precision[own].mean()))
    return found


def scores_in_short(scores: QueryScores, ranks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """`map`, `minp` and `rank_<k>` in percent."""
    found = {"map": scores.mean("average_precision"), "minp": scores.mean("inverse_negative_penalty")}
    return {name: 100 * value for name, value in {**found, **{f"rank_{k}": scores.cmc(k) for k in ranks}}.items()}
