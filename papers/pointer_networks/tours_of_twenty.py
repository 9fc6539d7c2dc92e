"""Travelling salesman: a pointer network that learned tours of 20 cities alone, beside the one of 5 to 20 (`tours`).

Rows are those of `tours`, among them `length` and `length_ratio`.
"""

from common.experiment import main
from papers.pointer_networks.tours import Settings, run

if __name__ == "__main__":
    main(run, Settings)
