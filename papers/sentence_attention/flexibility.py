"""Do Sentence Attention Blocks work on other pretrained backbones without redesign, and on one that was not pretrained?"""

from common.errors import ConfigError
from common.experiment import Context, Measurement, main
from papers.sentence_attention.learning import LearningSettings, learn
from papers.sentence_attention.training import Backbone


class Settings(LearningSettings):
    """Axes and parameters of `config.yaml`.

    Attributes:
        backbone: a key of `backbones`.
        variant: of `variants`.
        backbones: name -> which.
    """

    backbone: str
    variant: str
    backbones: dict[str, Backbone]


def run(settings: Settings, context: Context) -> Measurement:
    """Train and test: rows and arrays of `learning.learn`, among them `iou_of_part`.

    Raises:
        ConfigError: `backbones` lacks the cell's.
    """
    if settings.backbone not in settings.backbones:
        raise ConfigError(f"backbone = {settings.backbone!r} is not among backbones: {', '.join(settings.backbones)}.")
    return learn(settings, context, variant=settings.variant, backbone=settings.backbones[settings.backbone])


if __name__ == "__main__":
    main(run, Settings)
