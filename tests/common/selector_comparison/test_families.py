"""Families of selectors: the oracle beside them, unknown names refused, baselines that read more with a larger threshold."""

import pytest
import torch

from common.errors import InputError
from common.selector_comparison import ORACLE, baseline_families, with_oracle
from common.selector_comparison.families import check_known
from common.sparse_attention import selection_density


def test_the_oracle_is_added_and_reads_the_density_asked_for():
    families = with_oracle(baseline_families(16), 16)
    q, k = (torch.randn(1, heads, 320, 64, generator=torch.Generator().manual_seed(0)) for heads in (4, 2))
    shares = selection_density(families[ORACLE](0.5).select(q, k))
    assert shares.tolist() == [[pytest.approx(sum(-(-i // 2) for i in range(1, 21)) / 210)] * 4]
    with pytest.raises(InputError, match="'oracle', which is built in"):
        with_oracle(families, 16)


def test_unknown_selectors_are_named():
    with pytest.raises(InputError, match=r"thresholds names \['best', 'worst'\]; known selectors are good"):
        check_known(["worst", "good", "best"], ["good"], "thresholds")
