"""A database of MLflow to copy: making one takes seconds."""

import shutil

import pytest

from common import tracking


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """The file of an MLflow database without experiments. Not to be changed: copy it."""
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{file}")
        tracking.connect()
    return file


@pytest.fixture
def missing_database(tmp_path, monkeypatch):
    """The address of a database that is not there yet; tracking is on."""
    uri = f"sqlite:///{tmp_path / 'tracking' / 'mlflow.db'}"
    monkeypatch.setenv("REATTEND_TRACKING", "on")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv(tracking.PARENT_RUNS, "")  # outside a call of the workflow; whatever a test sets is undone
    return uri


@pytest.fixture
def database(missing_database, empty_database, tmp_path):
    """The address of an empty database; tracking is on."""
    (tmp_path / "tracking").mkdir()
    shutil.copyfile(empty_database, tmp_path / "tracking" / "mlflow.db")
    return missing_database
