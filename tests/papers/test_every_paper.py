"""What holds for every paper's folder: its configuration, claims and reported numbers are valid and fit each other."""

import importlib
import re

import pytest

from common.claims import Select, check_claims, read_claims
from common.configuration import check_parameters, read_paper_config
from common.provenance import REPOSITORY
from common.reported import read_reported
from common.workflow import PaperPlan, papers

FOLDER = REPOSITORY / "papers"


@pytest.fixture(params=papers())
def paper(request):
    return request.param


def test_the_configuration_and_all_parameters_are_valid(paper):
    path = FOLDER / paper / "config.yaml"
    check_parameters(read_paper_config(path), path)


def test_claims_and_reported_numbers_are_valid_and_name_known_experiments(paper):
    config = read_paper_config(FOLDER / paper / "config.yaml")
    check_claims(FOLDER / paper, list(config.experiments))


def test_claims_select_only_settings_that_some_parameter_or_axis_or_row_knows(paper):
    folder = FOLDER / paper
    code = "\n".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    words = {word for entry in read_paper_config(folder / "config.yaml").experiments.values() for word in entry.cells}
    for claim in read_claims(folder / "claims.yaml", read_reported(folder / "reported.csv")):
        for part in claim.parts:
            keys = {key for _, value in part if isinstance(value, Select) for key in value.setting}
            keys |= {*part.for_each, *getattr(part, "paired_by", [])}
            for key in keys - words:
                assert re.search(rf"\b{key}\b", code), f"claim {claim.id}: no experiment of {paper} mentions {key!r}"


def test_every_metric_that_claims_name_is_measured(paper):
    folder = FOLDER / paper
    for claim in read_claims(folder / "claims.yaml", read_reported(folder / "reported.csv")):
        for part in claim.parts:
            for _, value in part:
                if isinstance(value, Select):
                    code = (folder / f"{value.experiment}.py").read_text(encoding="utf-8")
                    assert re.search(rf"\b{value.metric}\b", code), (
                        f"claim {claim.id}: {value.experiment}.py has no {value.metric}"
                    )


def test_every_figure_is_a_function(paper):
    config = read_paper_config(FOLDER / paper / "config.yaml")
    module = importlib.import_module(f"papers.{paper}.figures")
    for name in config.figures:
        assert callable(getattr(module, name, None)), f"papers/{paper}/figures.py has no function {name}"


def test_every_table_of_its_own_is_a_function(paper):
    config = read_paper_config(FOLDER / paper / "config.yaml")
    for name in config.tables:
        module = importlib.import_module(f"papers.{paper}.tables")
        assert callable(getattr(module, name, None)), f"papers/{paper}/tables.py has no function {name}"


def test_it_has_a_reference_to_cite(paper):
    assert re.search(r"^@\w+\{[\w:.-]+,", (FOLDER / paper / "references.bib").read_text(encoding="utf-8"), flags=re.MULTILINE)


@pytest.mark.parametrize("scale", ["smoke", "standard", "paper"])
def test_its_jobs_can_be_planned_at_every_scale(paper, scale):
    plan = PaperPlan(paper, scale)
    batches = plan.batches()
    assert batches
    assert len(set(batches)) == len(batches)
    for experiment, batch in batches:
        assert plan.settings(experiment, batch)
        assert plan.gpus(experiment) in ((0,) if scale == "smoke" else (0, 1))
        assert plan.minutes(experiment) > 0
        assert len(plan.sources(experiment)) == 64


def test_papers_import_from_common_and_never_from_each_other(paper):
    for path in (FOLDER / paper).rglob("*.py"):
        for other in set(papers()) - {paper}:
            assert f"papers.{other}" not in path.read_text(encoding="utf-8"), f"{path} imports from {other}"
