"""What should a network read: the question, the answer, or both as one string?"""

from common.experiment import Context, Measurement, main
from papers.sentence_attention.emoji_ground import TextMode
from papers.sentence_attention.learning import LearningSettings, learn
from papers.sentence_attention.training import Backbone


class Settings(LearningSettings):
    """Axes and parameters of `config.yaml`.

    Attributes:
        text: question (which `grounding` has), answer, both.
        variant: of `variants`.
        backbone: of all.
    """

    text: TextMode
    variant: str
    backbone: Backbone


def run(settings: Settings, context: Context) -> Measurement:
    """Train and test: rows and arrays of `learning.learn`, among them `iou_mean`."""
    return learn(settings, context, variant=settings.variant, backbone=settings.backbone, mode=settings.text)


if __name__ == "__main__":
    main(run, Settings)
