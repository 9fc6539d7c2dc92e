"""How the paper trains, and how one would today (arXiv 1506.03134, Section 4.1).

| item | paper | `FAITHFUL` | `MODERN` |
|---|---|---|---|
| optimiser | stochastic gradient descent | the same | Adam |
| learning rate | 1.0, no schedule stated | 1.0, constant | 2e-3, 100 steps up, then half a cosine down to 1% |
| batch | 128 | 128 | 128 |
| clipping | L2 norm 2.0 | 2.0 | 2.0 |
| initial values | uniform in [-0.08, 0.08] | the same | the same (the networks draw them) |
| loss | "maximise the sum of log-probabilities" | mean over the tokens of a batch | the same |

The paper does not say whether the loss is summed or averaged over the output positions, which changes what a rate of 1.0 and a
norm of 2.0 mean: `FAITHFUL_SUM` is the other reading, summed over positions and averaged over examples. The rate of `MODERN` is
the better of 1e-3 and 2e-3 on validation points, in a trial that is not recorded.
"""

from typing import Literal

from common.training import Recipe

LossName = Literal["token", "sequence"]


class SequenceRecipe(Recipe):
    """A recipe for output sequences.

    Attributes:
        loss: "token" is the mean over all output positions of a batch, "sequence" the mean over its examples of the sum over
            positions; padding counts in neither.
    """

    loss: LossName = "token"


FAITHFUL = SequenceRecipe(optimiser="sgd", learning_rate=1.0, batch_size=128, clip_norm=2.0)
FAITHFUL_SUM = FAITHFUL.model_copy(update={"loss": "sequence"})
MODERN = SequenceRecipe(
    optimiser="adam", learning_rate=2e-3, batch_size=128, clip_norm=2.0, schedule="cosine", warmup_steps=100, final_factor=0.01
)

RECIPES = {"faithful": FAITHFUL, "faithful_sum": FAITHFUL_SUM, "modern": MODERN}
