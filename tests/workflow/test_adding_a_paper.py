"""A paper is added by copying the template as its README says; nothing outside the new folder changes."""

import shutil

import pytest

from common.files import sha256_of
from tests.workflow.conftest import PARTS, jobs

pytestmark = pytest.mark.workflow


def files_outside(checkout):
    return {
        path.relative_to(checkout.folder): sha256_of(path)
        for part in PARTS
        for path in [checkout.folder / part, *(checkout.folder / part).rglob("*")]
        if path.is_file() and "__pycache__" not in path.parts and "my_paper" not in path.parts
    }


def test_a_copy_of_the_template_is_a_paper_of_its_own(make_checkout):
    checkout = make_checkout("adding", tracking="off")
    before = files_outside(checkout)
    folder = checkout.folder / "papers" / "my_paper"
    shutil.copytree(checkout.folder / "papers" / "_template", folder)
    checkout.edit("papers/my_paper/config.yaml", "paper: _template", "paper: my_paper")
    for path in folder.glob("*.py"):
        path.write_text(path.read_text().replace("papers._template", "papers.my_paper"))

    status, output = checkout.snakemake("papers/my_paper/all", "--config", "scale=smoke")
    assert status == 0, output
    assert jobs(output) == ["all", "cells", "figures", "inputs", "mlflow", "report", "tables", "verdicts"]
    assert "my_paper at scale smoke:" in output
    results = checkout.folder / "results" / "my_paper" / "smoke"
    assert "my_paper: claims and verdicts" in (results / "tables" / "claims.md").read_text()
    assert len(list(results.glob("records/softmax_gradient/*/record.json"))) == 5
    assert not (checkout.folder / "results" / "_template").exists()
    assert files_outside(checkout) == before
