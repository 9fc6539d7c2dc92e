"""Extract the features of texts and recordings on the CPU: `python -m papers.gaam.prepare`.

For a machine that decodes recordings (soundfile) or fetches packages, where the one with the GPU does not: that one needs the
folder that is printed, as `features` in its own cache folder, beside the data.
"""

import argparse
from pathlib import Path

from common.configuration import read_paper_config
from common.data.fetch import cache_folder
from common.errors import ReattendError
from common.experiment import Context, stop_with_message
from papers.gaam.subjects import Subject, features_of


def main() -> None:
    """Command line. Exits with 2 and one clear message when something is missing."""
    parser = argparse.ArgumentParser(prog="python -m papers.gaam.prepare", description="Extract features of text and speech.")
    parser.add_argument("--config", type=Path, default=Path(__file__).with_name("config.yaml"), help="default: %(default)s")
    arguments = parser.parse_args()
    try:
        subjects = read_paper_config(arguments.config).experiments["comparison"].parameters["subjects"].at("standard")
        for name, given in subjects.items():
            subject = Subject.model_validate(given)
            if subject.modality != "images":  # those need the network that `pretraining` makes
                features = features_of(name, subject, Context("cpu", name))
                print(f"{name}: {tuple(features.X.shape)}", flush=True)
        print(f"kept in {cache_folder() / 'features'}", flush=True)
    except ReattendError as error:
        stop_with_message(error)


if __name__ == "__main__":
    main()
