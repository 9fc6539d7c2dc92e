"""What every training experiment does: train each seed, score every split, keep what figures need."""

import numpy as np

from common.configuration import Parameters
from common.experiment import Context, Measurement
from papers.sentence_attention.emoji_ground import TextMode
from papers.sentence_attention.other_gates import SentenceGates
from papers.sentence_attention.scoring import add_gate_likeness, add_scores
from papers.sentence_attention.subjects import Data, painting_of, read_sentences
from papers.sentence_attention.training import Backbone, Fitting, Plan, fit, predict

ENCODED = "encoded_sentences"
PICTURES = 6


class LearningSettings(Parameters):
    """What training experiments have in common.

    Attributes:
        data: scenes.
        canvas: side of an image in pixels.
        seeds: of initial parameters, order and dropout; the scenes stay.
        fitting: how.
        parts: see `scoring.add_scores`.
        gate_questions: whose gates are compared.
    """

    data: Data
    canvas: int
    seeds: list[int]
    fitting: Fitting
    parts: int
    gate_questions: int


def learn(
    settings: LearningSettings,
    context: Context,
    *,
    variant: str,
    backbone: Backbone,
    mode: TextMode = "q",
    setting: dict[str, str | int] | None = None,
) -> Measurement:
    """Train one network a seed and test it on every split.

    Rows: `iou_mean`, `iou_cum`, `iou_of_kind`, `iou_of_part` and, of Sentence Attention Blocks that read questions,
    `gate_spearman` and `gate_cosine`. Arrays: `iou_iid` [seeds, scenes]; of the first seed `predicted`, masks of the first test
    scenes, and `gate_pairs` [2, pairs].

    Args:
        settings: of the experiment.
        context: of the cell.
        variant: gates.
        backbone: which.
        mode: text.
        setting: coordinates of all rows beside `method` and `seed`.
    """
    measurement = Measurement()
    sentences = read_sentences(context.results_of(ENCODED), settings.data, mode, context.device)
    plan = Plan(variant, backbone, settings.fitting, settings.seeds)
    training = settings.data.scenes("train")
    numbers = sentences.numbers(training, mode)
    networks = fit(plan, painting_of(settings.data, "train", settings.canvas, context.device), numbers, sentences, context)
    iid = []
    for seed, network in zip(settings.seeds, networks, strict=True):
        place = {"method": variant, "seed": seed, **(setting or {})}
        for split in settings.data.test_scenes:
            scenes = settings.data.scenes(split)
            painting = painting_of(settings.data, split, settings.canvas, context.device)
            pictured = PICTURES if split == "iid" and seed == settings.seeds[0] else 0
            predicted = predict(network, painting, sentences.numbers(scenes, mode), sentences, plan, keep=pictured)
            each = add_scores(measurement, predicted.counts, scenes, parts=settings.parts, **place)
            if split == "iid":
                iid.append(each)
            if pictured:
                measurement.arrays["predicted"] = predicted.masks.cpu().numpy()
        if mode == "q" and isinstance(network.gates, SentenceGates):
            scenes = settings.data.scenes("iid")
            pairs = add_gate_likeness(measurement, network.gates, sentences, scenes, questions=settings.gate_questions, **place)
            measurement.arrays.setdefault("gate_pairs", pairs)
    measurement.arrays["iou_iid"] = np.stack(iid).astype(np.float32)
    return measurement
