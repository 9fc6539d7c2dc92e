"""What the experiments are run on and with: the pretrained subject, its texts, and the methods by name."""

from common.errors import InputError
from common.selector_comparison import subjects
from common.selector_comparison.subjects import load_subject, token_windows
from common.sparse_attention import MeanPooling, Selector
from papers.pbs_attn.pbs_attn import PBSAttention

__all__ = ["DENSE", "METHODS", "SubjectSettings", "load_subject", "selector_named", "token_windows"]

DENSE = "dense"
METHODS = (DENSE, "mean_pooling", "pbs_attn", "pbs_attn_shared")


class SubjectSettings(subjects.SubjectSettings):
    """Parameters of every experiment on a pretrained model, beyond those of the subject.

    Attributes:
        block_size: B.
        segment_size: S.
        tau: selection threshold.
    """

    block_size: int
    segment_size: int
    tau: float


def selector_named(name: str, settings: SubjectSettings) -> Selector:
    """The selector of a method in `METHODS` other than dense.

    Raises:
        InputError: there is no such method.
    """
    if name == "mean_pooling":
        return MeanPooling(block_size=settings.block_size, tau=settings.tau)
    if name in ("pbs_attn", "pbs_attn_shared"):
        gqa = "shared" if name == "pbs_attn_shared" else "replicated"
        return PBSAttention(block_size=settings.block_size, segment_size=settings.segment_size, tau=settings.tau, gqa=gqa)
    raise InputError(f"method {name!r} is not known; there are: {', '.join(METHODS)}.")
