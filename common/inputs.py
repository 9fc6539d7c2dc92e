"""Everything a paper needs before it runs: `python -m common.inputs <paper> --scale … --out inputs.json`.

Checks the configuration and the claims, fetches and verifies data and weights, and lists all that is missing at once. With
`REATTEND_JOBS=elsewhere` (set by the Snakefile on a cluster) it does not ask this machine for the GPU that others have.
"""

import argparse
import json
import os
from pathlib import Path

from common.claims import check_claims
from common.configuration import check_parameters, read_paper_config
from common.data.needs import digests_of_needs, fetch_needs
from common.errors import DataError, MissingHardwareError, ReattendError
from common.experiment import stop_with_message
from common.files import write_text
from common.provenance import REPOSITORY
from common.scale import cuda_devices


def main() -> None:
    """Command line: see the module's text. Exits with 2 and the list of what is missing."""
    parser = argparse.ArgumentParser(prog="python -m common.inputs", description="Fetch and verify what a paper needs.")
    parser.add_argument("paper")
    parser.add_argument("--scale", required=True, choices=["smoke", "standard", "paper"])
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    path = REPOSITORY / "papers" / arguments.paper / "config.yaml"
    try:
        config = read_paper_config(path)
        check_parameters(config, path.relative_to(REPOSITORY))
        check_claims(path.parent, list(config.experiments))
        problems, found = [], {}
        gpu_here = cuda_devices() > 0 or os.environ.get("REATTEND_JOBS") == "elsewhere"
        for name, entry in config.experiments.items():
            if arguments.scale not in entry.scales:
                continue
            if entry.device.at(arguments.scale) == "cuda" and not gpu_here:
                problems.append(
                    f"{name}: needs a CUDA device, and this machine shows none (`--config scale=smoke` runs on a CPU)"
                )
            if arguments.scale == "paper":
                for thing in entry.bring:
                    print(f"{name}: bring {thing}", flush=True)
            for need in entry.data.at(arguments.scale):
                try:
                    fetch_needs(need)
                    found |= digests_of_needs([need])
                    print(f"{name}: {need} verified", flush=True)
                except DataError as error:
                    problems.append(f"{name}: {error}")
        if problems:
            kind = DataError if any("CUDA" not in problem for problem in problems) else MissingHardwareError
            raise kind("Something is missing:\n  " + "\n  ".join(dict.fromkeys(problems)))
        write_text(arguments.out, json.dumps(found, indent=1, sort_keys=True) + "\n")
    except ReattendError as error:
        stop_with_message(error)


if __name__ == "__main__":
    main()
