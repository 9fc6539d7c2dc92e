"""Does the weight of CSSL decide whether a sentence labeller learns at all? (Yu et al., 2023; the question is ours)."""

from common.experiment import main
from papers.topic_segmentation.coherence import Settings, run

if __name__ == "__main__":
    main(run, Settings)
