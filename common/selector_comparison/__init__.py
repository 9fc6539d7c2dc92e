"""Block-sparse selectors on equal terms: the same model, texts and measures for every paper that has one."""

from common.selector_comparison.coverage import CoverageSettings, Family, baseline_families, compare_coverage, coverage_at
from common.selector_comparison.subjects import SubjectSettings, load_subject, token_windows

__all__ = [
    "CoverageSettings",
    "Family",
    "SubjectSettings",
    "baseline_families",
    "compare_coverage",
    "coverage_at",
    "load_subject",
    "token_windows",
]
