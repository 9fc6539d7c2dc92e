"""What a user mistypes is named with the remedy: a non-zero exit and no traceback."""

import pytest

pytestmark = pytest.mark.workflow

CONFIG = "papers/_template/config.yaml"


@pytest.fixture(scope="module")
def checkout(make_checkout):
    return make_checkout("mistakes", tracking="off")


def refused(status, output):
    assert status != 0
    assert "Traceback" not in output
    return output


def test_a_misspelt_paper_gets_the_nearest_names(checkout):
    output = refused(*checkout.snakemake("papers/tmplate/all", "--config", "scale=smoke"))
    assert "There is no paper 'tmplate'. Did you mean papers/_template/all" in output


def test_unknown_settings_of_the_suite_are_named(checkout):
    output = refused(*checkout.snakemake("papers/_template/all", "--config", "scle=huge", "results=3"))
    assert "scle: unknown key; did you mean 'scale'?" in output
    assert "results = 3" in output


MISTAKES = {
    "many at once": (
        [
            ("    question:", "    questoin:"),
            ("minutes: 2", "minutes: many"),
            ("smoke: cpu", "smoke: tpu"),
            ("figures:", "figurs:"),
        ],
        [
            "question: this key is missing",
            "questoin: unknown key; did you mean 'question'?",
            "minutes = 'many'",
            "figurs: unknown key",
        ],
    ),
    "not YAML": ([("experiments:", "experiments: [")], ["is not valid YAML"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_in_a_papers_configuration_are_listed_at_once(checkout, name):
    edits, messages = MISTAKES[name]
    for old, new in edits:
        checkout.edit(CONFIG, old, new)
    try:
        through_snakemake = refused(*checkout.snakemake("papers/_template/all", "--config", "scale=smoke"))
        status, alone = checkout.python("-m", "papers._template.softmax_gradient", "--scale", "smoke")
        assert status == 2
        refused(status, alone)
    finally:
        for old, new in edits[::-1]:
            checkout.edit(CONFIG, new, old)
    for message in messages:
        assert message in through_snakemake
        assert message in alone
        assert CONFIG in alone


def test_a_wrong_parameter_stops_before_anything_is_measured_and_is_said_by_the_job(checkout):
    edit = (CONFIG, "keys: {value: 64", "kyes: {value: 64")
    checkout.edit(*edit)
    output = refused(*checkout.snakemake("papers/_template/all", "--config", "scale=smoke"))
    checkout.edit(edit[0], edit[2], edit[1])
    assert "kyes: unknown key; did you mean 'keys'?" in output
    assert "Error in rule papers/_template/inputs" in output
    assert not list(checkout.folder.rglob("record.json"))
