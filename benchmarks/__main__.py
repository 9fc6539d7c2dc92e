"""`python -m benchmarks block_sparse_attention --lengths 8192 32768 --out record.json`."""

import argparse
import json
import sys
from pathlib import Path

from tabulate import tabulate

import benchmarks.additive_attention
import benchmarks.attention_block_max
import benchmarks.block_selection
import benchmarks.block_sparse_attention
import benchmarks.hierarchical_search
import benchmarks.kernel_profile
import benchmarks.key_list_attention
import benchmarks.lightning_attention
import benchmarks.pointer_network_training
import benchmarks.segment_sort
import benchmarks.sorted_prefill  # noqa: F401  (registers)
from benchmarks.registry import BENCHMARKS, Row
from benchmarks.timing import machine, require_cuda
from common.errors import ReattendError
from common.files import write_text


def write_record(path: Path, name: str, arguments: dict[str, object], rows: list[Row]) -> None:
    """Write rows with the machine they were timed on as JSON, whole or not at all. Raises DataError."""
    write_text(
        path, json.dumps({"benchmark": name, "arguments": arguments, "machine": machine(), "rows": rows}, indent=1) + "\n"
    )


def main(argv: list[str] | None = None) -> int:
    """Run one benchmark; 0 if every kernel was correct, 1 if one was left out, 2 for a mistake of the caller."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Time the kernels beside their peers.")
    commands = parser.add_subparsers(dest="name", required=True)
    for entry in BENCHMARKS.values():
        command = commands.add_parser(entry.name, help=entry.summary)
        entry.add_arguments(command)
        command.add_argument("--out", type=Path, help="write the rows to this JSON file")
    arguments = vars(parser.parse_args(argv))
    name, out = arguments.pop("name"), arguments.pop("out")
    try:
        require_cuda()
        rows = BENCHMARKS[name].run(argparse.Namespace(**arguments))
        if out:
            write_record(out, name, arguments, rows)
    except ReattendError as error:
        print(error, file=sys.stderr)
        return 2
    print(", ".join(f"{key} {value}" for key, value in machine().items()))
    timed = [{key: value for key, value in row.items() if key != "failed"} for row in rows if row["failed"] is None]
    print(tabulate(timed, headers="keys", floatfmt=".4g", tablefmt="github"))
    failed = [row for row in rows if row["failed"] is not None]
    for row in failed:
        print(
            "not reported:", ", ".join(f"{key} {value}" for key, value in row.items() if value is not None and key != "error")
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
