"""What the Snakefiles ask: which papers there are, which jobs a paper has at a scale, what each job needs."""

import difflib
import os
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from common.configuration import (
    TABLES_OF_EVERY_PAPER,
    PaperConfig,
    SuiteConfig,
    batches_of,
    read_paper_config,
    validate,
)
from common.errors import ConfigError
from common.provenance import REPOSITORY, source_digest
from common.records import Scale
from common.scale import Choice, choose_scale
from common.tracking import switched_off, tracking_uri


def papers() -> list[str]:
    """Names of all folders below `papers/` with a Snakefile, the template (`_template`) among them."""
    return sorted(path.parent.name for path in (REPOSITORY / "papers").glob("*/Snakefile"))


def suite_settings(config: Mapping[str, Any]) -> tuple[SuiteConfig, Choice]:
    """Validate the suite's configuration and choose the scale. Raises ConfigError with every problem."""
    settings = validate(SuiteConfig, config, "config/config.yaml and --config")
    return settings, choose_scale(settings.scale)


def run_jobs_elsewhere(scale: str) -> None:
    """Before jobs are sent to a cluster: the scale is said, and `inputs` does not look here for the GPUs that jobs find there.

    Args:
        scale: as it was asked for.

    Raises:
        ConfigError: the scale is left to this machine, which has not the devices of those that run the jobs.
    """
    if scale == "auto":
        raise ConfigError(
            "Jobs run on other machines than this one, so it cannot choose the scale by what it has: "
            "add `--config scale=standard` (or smoke, paper)."
        )
    os.environ["REATTEND_JOBS"] = "elsewhere"


def misspelt_target(targets: Collection[str]) -> str | None:
    """A hint when a target looks like a paper's but no such paper exists; None otherwise."""
    known = papers()
    for target in targets:
        parts = target.split("/")
        if len(parts) in (2, 3) and parts[0] == "papers" and parts[1] not in known and not Path(target).exists():
            near = difflib.get_close_matches(parts[1], known, n=3, cutoff=0.4)
            meant = " or ".join("/".join(["papers", name, *parts[2:]]) for name in near) or "one of " + ", ".join(known)
            return f"There is no paper {parts[1]!r}. Did you mean {meant}?"
    return None


class PaperPlan:
    """The jobs of one paper at one scale."""

    def __init__(self, paper: str, scale: Scale):
        self.paper = paper
        self.scale: Scale = scale
        self.folder = Path("papers") / paper
        self.config: PaperConfig = read_paper_config(REPOSITORY / self.folder / "config.yaml")

    def batches(self) -> list[tuple[str, str]]:
        """(experiment, batch) of every measuring job."""
        return [(name, batch) for name in self.config.experiments for batch in batches_of(self.config, name, self.scale)]

    def index(self, experiment: str, batch: str) -> str:
        """The file that says that a job's records are there, below the pathvar of the results."""
        return f"<results>/records/{experiment}/{batch}.index.json"

    @property
    def one_process(self) -> bool:
        """Whether experiments share a process: at scale smoke a cell takes less time than the imports of a process."""
        return self.scale == "smoke"

    def stages(self) -> list[list[tuple[str, str]]]:
        """(experiment, batch) of every measuring job, in groups: a group starts from results of groups before it alone."""
        level: dict[str, int] = {}
        while len(level) < len(self.config.experiments):  # `after` names no circles: the configuration is checked
            for name, entry in self.config.experiments.items():
                if name not in level and all(earlier in level for earlier in entry.after):
                    level[name] = 1 + max((level[earlier] for earlier in entry.after), default=-1)
        stages = [[job for job in self.batches() if level[job[0]] == number] for number in range(max(level.values()) + 1)]
        return [stage for stage in stages if stage]  # an experiment may have no jobs at this scale

    def drawn(self) -> set[str]:
        """The experiments that figures show."""
        return {experiment for figure in self.config.figures.values() for experiment in figure.experiments}

    def tables(self) -> list[str]:
        """Names of the tables: those that every paper has, and its own."""
        return [*TABLES_OF_EVERY_PAPER, *self.config.tables]

    def earlier_batches(self, experiment: str) -> list[tuple[str, str]]:
        """(experiment, batch) of every job whose results this experiment starts from."""
        earlier = self.config.experiments[experiment].after
        return [(name, batch) for name, batch in self.batches() if name in earlier]

    def settings(self, experiment: str, batch: str) -> list[dict]:
        """Axes and parameters of a job's cells: a change of any of them runs the job again."""
        cells = batches_of(self.config, experiment, self.scale)[batch]
        return [{**cell.axes, **cell.parameters} for cell in cells]

    def data(self) -> dict[str, list[str]]:
        """Registry names of the data and weights that each experiment needs."""
        return {name: entry.data.at(self.scale) for name, entry in self.config.experiments.items()}

    def gpus(self, experiment: str) -> int:
        """1 for an experiment on a GPU at this scale, else 0."""
        return int(self.device(experiment) == "cuda")

    def device(self, experiment: str) -> str:
        """`cpu` or `cuda`: a change runs the experiment again."""
        return self.config.experiments[experiment].device.at(self.scale)

    def python(self, experiments: Collection[str]) -> str:
        """How a job of these experiments starts Python: on a GPU of its own where one of them needs a GPU."""
        count = max(self.gpus(experiment) for experiment in experiments)
        return f"python -m common.gpus {count} python" if count else "python"

    def words(self) -> dict:
        """The words of the report that stand in `config.yaml`: a change writes the report again."""
        return {
            "title": self.config.title,
            "questions": {name: entry.question for name, entry in self.config.experiments.items()},
            "captions": {name: entry.caption for name, entry in self.config.figures.items()},
            "titles": {name: entry.title for name, entry in self.config.tables.items()},
        }

    def minutes(self, experiment: str) -> int:
        """Expected wall time at most, in minutes."""
        return self.config.experiments[experiment].minutes

    def memory_megabytes(self, experiment: str) -> int:
        """Main memory to ask a scheduler for."""
        return self.config.experiments[experiment].memory_gigabytes * 1024

    def sources(self, module: str) -> str:
        """Digest of the code a rule runs: a change runs the rule again. `module` is relative to the paper or dotted."""
        return source_digest(module if "." in module else f"papers.{self.paper}.{module}")


def closing_words(results: str, scale: str, targets: Collection[str]) -> str:
    """Where to look after a successful run of `targets`; without targets Snakemake made all papers."""
    everything = not targets or "all" in targets
    finished = [name for name in papers() if f"papers/{name}/all" in targets or (everything and not name.startswith("_"))]
    lines = []
    for name in finished:
        folder = Path(results) / name / scale
        if (folder / "report.html").exists():
            lines += [
                f"{name} at scale {scale}:",
                f"  table    {folder}/tables/claims.md   (also .csv, .tex; beside it the evidence and the reported numbers)",
                f"  figures  {folder}/figures/           (.svg and .png)",
                f"  report   {folder}/report.html",
                f"  records  {folder}/records/",
            ]
    if lines and not switched_off():
        uri = tracking_uri()
        served = (
            f"open {uri}" if uri.startswith("http") else f"`mlflow ui --backend-store-uri {uri}`, open http://127.0.0.1:5000"
        )
        lines.append(f"MLflow: {served}, choose Model training")
    return "\n".join(lines)


def main_process() -> bool:
    """False inside the processes that Snakemake starts for its own jobs."""
    return "--mode" not in sys.argv
