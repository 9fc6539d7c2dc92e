"""The list of benchmarks. One is a module that decorates a function with `benchmark`."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

Row = dict[str, str | int | float | None]


@dataclass(frozen=True)
class Benchmark:
    """A benchmark of one operation.

    Attributes:
        name: the operation.
        summary: one line for `--help`.
        add_arguments: adds its options to the command line.
        run: takes them and returns tidy rows: what was timed (kernel, sizes), ms, error, and a `failed` reason or None.
    """

    name: str
    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], list[Row]]


BENCHMARKS: dict[str, Benchmark] = {}


def benchmark(name: str, add_arguments: Callable[[argparse.ArgumentParser], None]):
    """Register the decorated function (its docstring's first line is the summary) under `name`."""

    def register(run: Callable[[argparse.Namespace], list[Row]]):
        BENCHMARKS[name] = Benchmark(name, (run.__doc__ or "").strip().splitlines()[0], add_arguments, run)
        return run

    return register
