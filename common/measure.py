"""Several experiments of a paper in one process.

`python -m common.measure <paper> <experiment>/<batch> ... --scale SCALE [--config FILE] [--out FOLDER]`

Does what `python -m papers.<paper>.<experiment> --batch <batch>` does for each of them, one after the other. Where cells take
seconds, the imports of a process take longer than the measurement.
"""

import argparse
import importlib
from pathlib import Path

from common.configuration import batches_of, check_parameters, read_paper_config
from common.errors import ConfigError, ReattendError
from common.experiment import run_job, stop_with_message


def main() -> None:
    """Command line: see the module's text. Exits with 2 and one clear message when the user has something to mend."""
    parser = argparse.ArgumentParser(prog="python -m common.measure", description="Several experiments in one process.")
    parser.add_argument("paper")
    parser.add_argument("jobs", nargs="+", metavar="experiment/batch", help="in this order")
    parser.add_argument("--scale", required=True, choices=["smoke", "standard", "paper"])
    parser.add_argument("--config", type=Path, help="default: papers/<paper>/config.yaml")
    parser.add_argument("--out", type=Path, help="folder of records; default: results/<paper>/<scale>/records")
    arguments = parser.parse_args()
    path = arguments.config or Path("papers") / arguments.paper / "config.yaml"
    out = arguments.out or Path("results") / arguments.paper / arguments.scale / "records"
    try:
        config = read_paper_config(path)
        if config.paper != arguments.paper:
            raise ConfigError(f"{path} does not describe papers/{arguments.paper}: give that paper's config.yaml.")
        known = [f"{name}/{batch}" for name in config.experiments for batch in batches_of(config, name, arguments.scale)]
        if unknown := [job for job in arguments.jobs if job not in known]:
            raise ConfigError(
                f"{arguments.paper} has no job {unknown[0]} at scale {arguments.scale}; its jobs are {', '.join(known)}."
            )
        check_parameters(config, path)
        for job in arguments.jobs:
            experiment, batch = job.split("/", 1)
            module = importlib.import_module(f"papers.{arguments.paper}.{experiment}")
            run_job(module.run, module.Settings, config, experiment, batch, arguments.scale, out)
    except ReattendError as error:
        stop_with_message(error)


if __name__ == "__main__":
    main()
