"""Which gate grounds questions best on one backbone: the paper's block, its ablations, controls without text, other fusion?"""

from common.experiment import Context, Measurement, main
from papers.sentence_attention.learning import LearningSettings, learn
from papers.sentence_attention.rendering import mask_of
from papers.sentence_attention.subjects import painting_of
from papers.sentence_attention.training import Backbone


class Settings(LearningSettings):
    """Axes and parameters of `config.yaml`.

    Attributes:
        variant: of `variants`.
        backbone: of all variants.
    """

    variant: str
    backbone: Backbone


def run(settings: Settings, context: Context) -> Measurement:
    """Train and test: rows of `learning.learn`, among them `iou_mean`, `iou_of_part`, `gate_spearman` and `gate_cosine`.

    The cell of `sab` also keeps the pictured scenes: `images` and their `true` masks.
    """
    measurement = learn(settings, context, variant=settings.variant, backbone=settings.backbone)
    if settings.variant == "sab":
        painting = painting_of(settings.data, "iid", settings.canvas, context.device)
        shown = len(measurement.arrays["predicted"])
        measurement.arrays["images"] = painting.images[:shown].cpu().numpy()
        measurement.arrays["true"] = mask_of(painting.slots[:shown], painting.targets[:shown, 0]).cpu().numpy()
    return measurement


if __name__ == "__main__":
    main(run, Settings)
