import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.configuration import (
    SCALES,
    PaperConfig,
    SuiteConfig,
    batches_of,
    cells_of,
    check_parameters,
    read_paper_config,
    read_yaml,
    validate,
    write_schema,
)
from common.errors import ConfigError, ReattendError
from common.records import Scale

TEMPLATE = Path("papers/_template/config.yaml")


def template() -> dict:
    return yaml.safe_load(TEMPLATE.read_text())


def written(tmp_path: Path, content: object) -> Path:
    folder = tmp_path / "_template"
    folder.mkdir(exist_ok=True)
    (folder / "softmax_gradient.py").touch()
    path = folder / "config.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_the_template_is_valid_and_its_cells_are_the_product_of_its_axes():
    config = read_paper_config(TEMPLATE)
    check_parameters(config, TEMPLATE)
    assert [cell.name for cell in cells_of(config, "softmax_gradient", "standard")] == [f"seed={seed}" for seed in range(5)]


def test_all_errors_are_listed_at_once_with_file_key_value_and_nearest_key(tmp_path):
    content = template()
    entry = content["experiments"]["softmax_gradient"]
    entry["questoin"] = entry.pop("question")
    entry["minutes"] = "many"
    entry["parameters"]["keys"]["origin"] = "somewhere"
    path = written(tmp_path, content)
    with pytest.raises(ConfigError) as caught:
        read_paper_config(path)
    message = str(caught.value)
    assert "question: this key is missing" in message
    assert "questoin: unknown key; did you mean 'question'?" in message
    assert "minutes = 'many'" in message
    assert "an origin begins with one of" in message
    assert all(line.startswith(str(path)) for line in message.splitlines())


def test_a_wrong_parameter_is_found_at_every_scale(tmp_path):
    content = template()
    content["experiments"]["softmax_gradient"]["parameters"]["d_k"]["smoke"] = ["four"]
    content["experiments"]["softmax_gradient"]["parameters"]["quereis"] = {"value": 3, "origin": "ours"}
    path = written(tmp_path, content)
    with pytest.raises(ConfigError) as caught:
        check_parameters(read_paper_config(path), path)
    assert "at scale smoke: d_k.0 = 'four'" in str(caught.value)
    assert "quereis: unknown key; did you mean 'queries'?" in str(caught.value)
    assert "at scale paper: quereis" in str(caught.value)


def test_a_value_is_given_for_all_scales_or_for_each(tmp_path):
    content = template()
    del content["experiments"]["softmax_gradient"]["parameters"]["d_k"]["paper"]
    with pytest.raises(ConfigError, match="give either `value` or each of smoke, standard, paper"):
        read_paper_config(written(tmp_path, content))


@pytest.mark.parametrize(
    ("name", "experiment", "words"),
    [
        ("norms", "softmax_gradients", "table 'norms' needs the experiment 'softmax_gradients', which is not defined"),
        ("claims", "softmax_gradient", "every paper has a table 'claims'; choose another name"),
    ],
)
def test_a_table_of_the_papers_own_that_cannot_be_made_is_an_error(tmp_path, name, experiment, words):
    content = template() | {"tables": {name: {"title": "a title", "experiments": [experiment]}}}
    with pytest.raises(ConfigError, match=words):
        read_paper_config(written(tmp_path, content))


def test_a_duplicate_key_is_an_error_with_its_line(tmp_path):
    with pytest.raises(ConfigError, match="line 1: the key 'paper' is given twice"):
        read_yaml(written(tmp_path, "paper: a\npaper: b\n"))


def test_jobs_follow_one_job_per():
    content = template()
    content["experiments"]["softmax_gradient"]["one_job_per"] = ["seed"]
    config = PaperConfig.model_validate(content)
    assert list(batches_of(config, "softmax_gradient", "smoke")) == [f"seed={seed}" for seed in range(5)]
    assert list(batches_of(read_paper_config(TEMPLATE), "softmax_gradient", "smoke")) == ["all"]


def test_an_experiment_has_no_cells_at_a_scale_that_it_is_not_run_at(tmp_path):
    content = template() | {"figures": {}}
    entry = content["experiments"]["softmax_gradient"]
    entry |= {"scales": ["smoke", "paper"], "one_job_per": ["seed"]}
    entry["cells"]["seed"] = {"smoke": [0], "standard": [], "paper": [0, 1], "origin": "ours"}
    path = written(tmp_path, content)
    config = read_paper_config(path)
    check_parameters(config, path)
    assert [cell.name for cell in cells_of(config, "softmax_gradient", "paper")] == ["seed=0", "seed=1"]
    assert batches_of(config, "softmax_gradient", "standard") == {}
    entry["scales"] = ["standard"]
    with pytest.raises(ConfigError, match=r"cells\.seed at scale standard must be a list"):
        read_paper_config(written(tmp_path, content))
    for wrong in ([], ["big"]):
        entry["scales"] = wrong
        with pytest.raises(ConfigError, match=r"softmax_gradient\.scales"):
            read_paper_config(written(tmp_path, content))


def test_what_is_not_run_at_a_scale_is_no_start_of_what_is(tmp_path):
    content = template()
    content["experiments"]["softmax_gradient"]["scales"] = ["smoke", "paper"]
    message = "figure 'gradient_against_dimension' needs the experiment 'softmax_gradient', which is not run at scale standard"
    with pytest.raises(ConfigError, match=message):
        read_paper_config(written(tmp_path, content))
    entry = content["experiments"]["softmax_gradient"]
    content |= {"figures": {}, "experiments": {"softmax_gradient": entry, "later": {**entry, "after": ["softmax_gradient"]}}}
    PaperConfig.model_validate(content)
    content["experiments"]["later"].pop("scales")
    with pytest.raises(ConfigError, match="'later' comes after 'softmax_gradient', which is not run at scale standard"):
        read_paper_config(written(tmp_path, content))


def test_a_changed_parameter_changes_the_digest_of_its_cells_only():
    config, content = read_paper_config(TEMPLATE), template()
    content["experiments"]["softmax_gradient"]["parameters"]["d_k"]["smoke"] = [4]
    changed = PaperConfig.model_validate(content)
    expected: dict[Scale, bool] = {"smoke": False, "standard": True}
    for scale, same in expected.items():
        before, after = (cells_of(c, "softmax_gradient", scale)[0].parameters_sha256 for c in (config, changed))
        assert (before == after) is same


def _mutate(content: object, seed: int) -> object:
    """Replace, delete or add one thing at a random place."""
    random_ = random.Random(seed)
    junk = [None, 3, -1.5, "x" * 5, [], {}, [[]], {"a": {"b": 1}}, True, "2026-01-01", "\u0000", float("inf")]
    places: list[tuple] = []

    def walk(node: object) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                places.append((node, key))
                walk(value)
        elif isinstance(node, list):
            for index, value in enumerate(node):
                places.append((node, index))
                walk(value)

    walk(content)
    node, key = random_.choice(places)
    action = random_.randrange(3)
    if action == 0:
        node[key] = random_.choice(junk)
    elif action == 1:
        del node[key]
    elif isinstance(node, dict):
        node[random_.choice(["valeu", "", "a b", "smoke", "é"])] = random_.choice(junk)
    return content


def _problem_of(path: Path) -> str | None:
    """What a user is told about a configuration; None when there is nothing to mend."""
    try:
        config = read_paper_config(path)
        check_parameters(config, path)
        for scale in SCALES:
            for name in config.experiments:
                batches_of(config, name, scale)
    except ReattendError as error:
        return str(error)
    return None


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seeds=st.lists(st.integers(0, 2**32), min_size=1, max_size=3))
def test_fuzzed_configurations_never_show_a_bare_traceback(tmp_path, seeds):
    content: object = template()
    for seed in seeds:
        content = _mutate(content, seed)
    path = written(tmp_path, content)
    problem = _problem_of(path)
    assert problem is None or str(path) in problem


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
def test_any_text_is_read_or_refused_as_a_configuration(tmp_path, text):
    path = written(tmp_path, "")
    path.write_text(text, encoding="utf-8", newline="")
    with pytest.raises(ConfigError, match=re.escape(str(path))):  # a handful of characters is never a whole configuration
        read_paper_config(path)


def test_the_suite_refuses_unknown_keys_and_scales():
    with pytest.raises(ConfigError, match="scle: unknown key; did you mean 'scale'"):
        validate(SuiteConfig, {"scle": "smoke"}, "here")
    with pytest.raises(ConfigError, match="scale = 'big'"):
        validate(SuiteConfig, {"scale": "big"}, "here")


def test_the_committed_schema_is_current(tmp_path):
    write_schema(tmp_path / "schema.json")
    assert json.loads((tmp_path / "schema.json").read_text()) == json.loads(Path("config/schema.json").read_text())


def test_the_documented_command_writes_the_schema(tmp_path):
    command = "python -m common.configuration --schema config/schema.json"
    assert command in Path("config/config.yaml").read_text()
    path = tmp_path / "schema.json"
    subprocess.run([sys.executable, *command.split()[1:-1], path], check=True)
    assert path.read_bytes() == Path("config/schema.json").read_bytes()


def test_an_experiment_without_settings_is_named(tmp_path, monkeypatch):
    path = written(tmp_path, template())
    monkeypatch.delattr("papers._template.softmax_gradient.Settings")
    with pytest.raises(ConfigError, match=r"softmax_gradient\.py defines no class Settings"):
        check_parameters(read_paper_config(path), path)
