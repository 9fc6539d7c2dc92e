"""Block-sparse selectors on equal terms: the same model, texts and measures for every paper that has one."""

from common.selector_comparison.coverage import CoverageSettings, compare_coverage
from common.selector_comparison.families import DENSE, ORACLE, Family, baseline_families, value_at_density, with_oracle
from common.selector_comparison.perplexity import PerplexitySettings, compare_perplexity, sparse_prefill
from common.selector_comparison.prefill_time import PrefillSettings, compare_prefill
from common.selector_comparison.retrieval import RetrievalSettings, compare_retrieval
from common.selector_comparison.selection_time import SelectionTimeSettings, compare_selection_time
from common.selector_comparison.subjects import SubjectSettings, load_subject, token_windows

__all__ = [
    "DENSE",
    "ORACLE",
    "CoverageSettings",
    "Family",
    "PerplexitySettings",
    "PrefillSettings",
    "RetrievalSettings",
    "SelectionTimeSettings",
    "SubjectSettings",
    "baseline_families",
    "compare_coverage",
    "compare_perplexity",
    "compare_prefill",
    "compare_retrieval",
    "compare_selection_time",
    "load_subject",
    "sparse_prefill",
    "token_windows",
    "value_at_density",
    "with_oracle",
]
