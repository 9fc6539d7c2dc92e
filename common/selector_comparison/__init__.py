"""Block-sparse selectors on equal terms: the same model, texts and measures for every paper that has one.

A name loads its module when it is first used: figures of records need neither torch nor transformers, which take seconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from common.selector_comparison.coverage import CoverageSettings, compare_coverage
    from common.selector_comparison.families import DENSE, ORACLE, Family, baseline_families, value_at_density, with_oracle
    from common.selector_comparison.longbench import LongBenchSettings, compare_longbench
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
    "LongBenchSettings",
    "PerplexitySettings",
    "PrefillSettings",
    "RetrievalSettings",
    "SelectionTimeSettings",
    "SubjectSettings",
    "baseline_families",
    "compare_coverage",
    "compare_longbench",
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

_MODULES = {
    "CoverageSettings": "coverage",
    "DENSE": "families",
    "Family": "families",
    "LongBenchSettings": "longbench",
    "ORACLE": "families",
    "PerplexitySettings": "perplexity",
    "PrefillSettings": "prefill_time",
    "RetrievalSettings": "retrieval",
    "SelectionTimeSettings": "selection_time",
    "SubjectSettings": "subjects",
    "baseline_families": "families",
    "compare_coverage": "coverage",
    "compare_longbench": "longbench",
    "compare_perplexity": "perplexity",
    "compare_prefill": "prefill_time",
    "compare_retrieval": "retrieval",
    "compare_selection_time": "selection_time",
    "load_subject": "subjects",
    "sparse_prefill": "perplexity",
    "token_windows": "subjects",
    "value_at_density": "families",
    "with_oracle": "families",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
