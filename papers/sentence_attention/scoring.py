"""Rows of a trained network's masks, and of its gates."""

import numpy as np
import torch
from scipy.stats import spearmanr

from common.experiment import Measurement
from common.metrics.masks import Overlap, cumulative_iou, iou_of_each, mean_iou
from papers.sentence_attention.emoji_ground import KINDS, Scenes
from papers.sentence_attention.other_gates import SentenceGates
from papers.sentence_attention.sentence_attention import SentenceAttentionBlock
from papers.sentence_attention.subjects import PROBES, Sentences


def add_scores(measurement: Measurement, counts: Overlap, scenes: Scenes, *, parts: int, **setting: str | int) -> np.ndarray:
    """Add `iou_mean` and `iou_cum` of a split, in `iid` and `style` also by kind of question, and `iou_of_part` of `iid`.

    Args:
        measurement: gets the rows.
        counts: of every scene's question.
        scenes: of the split.
        parts: groups of scenes, one after the other: items of paired comparisons.
        **setting: coordinates of the rows, `method` and `seed` among them.

    Returns:
        float64 [N], IoU of each scene.
    """
    split = scenes.split
    each = iou_of_each(counts)
    measurement.add("iou_mean", each.mean(), split=split, **setting)  # pyright: ignore[reportArgumentType]
    measurement.add("iou_cum", cumulative_iou(counts), split=split, **setting)  # pyright: ignore[reportArgumentType]
    if split in ("iid", "style"):
        kinds = np.array([asked[0].kind for asked in scenes.questions])
        for kind in KINDS:
            chosen = np.flatnonzero(kinds == kind)
            if len(chosen):
                rows = torch.from_numpy(chosen)
                value = mean_iou(Overlap(counts.intersection.cpu()[rows], counts.union.cpu()[rows]))
                measurement.add("iou_of_kind", value, split=split, kind=kind, **setting)  # pyright: ignore[reportArgumentType]
    if split == "iid":
        for part, values in enumerate(np.array_split(each, min(parts, len(each)))):
            measurement.add("iou_of_part", values.mean(), part=part, **setting)  # pyright: ignore[reportArgumentType]
    return each


def cosines(vectors: np.ndarray) -> np.ndarray:
    """Cosine of every pair of rows [n, d], the pairs i < j one after the other."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return (unit @ unit.T)[np.triu_indices(len(unit), 1)]


@torch.inference_mode()
def add_gate_likeness(
    measurement: Measurement,
    gates: SentenceGates,
    sentences: Sentences,
    scenes: Scenes,
    *,
    questions: int,
    **setting: str | int,
) -> np.ndarray:
    """How the gates of the last map of two questions agree with the sentences: claim of meaning.

    Rows: `gate_spearman`, the rank correlation over pairs of questions between the cosine of their gates and that of their
    sentences; `gate_cosine` of the probe "puppy" with "dog" and with "teapot".

    Args:
        measurement: gets the rows.
        gates: trained.
        sentences: encoded questions, the probes among them.
        scenes: whose questions by name are compared.
        questions: at most so many.
        **setting: coordinates of the rows.

    Returns:
        float32 [2, pairs]: cosine of the sentences and of the gates.
    """
    named = sorted({asked[0].text for asked in scenes.questions if asked[0].kind == "name"})[:questions]
    last = gates.blocks[-1]
    assert isinstance(last, SentenceAttentionBlock)
    rows = torch.tensor([sentences.rows[text] for text in [*named, *PROBES]], device=sentences.vectors.device)
    vectors = sentences.vectors[rows]
    found = [x.double().cpu().numpy() for x in (vectors, last.gate(vectors))]
    pairs = np.stack([cosines(x[: len(named)]) for x in found])
    measurement.add("gate_spearman", float(spearmanr(*pairs)[0]), **setting)  # pyright: ignore[reportArgumentType]
    dog, teapot, _ = cosines(found[1][len(named) :])
    for name, value in (("dog", dog), ("teapot", teapot)):
        measurement.add("gate_cosine", value, pair=f"puppy, {name}", **setting)  # pyright: ignore[reportArgumentType]
    return pairs.astype(np.float32)
