"""An experiment that starts from another's results waits for it in Snakemake, and says what is missing without."""

import pytest
import yaml

from common.records import RecordSet

pytestmark = pytest.mark.workflow

TRAINING, TEST = "softmax_gradient", "measured_later"


def test_snakemake_and_the_command_line_keep_the_order(make_checkout):
    checkout = make_checkout("after", tracking="off")
    folder = checkout.folder / "papers/_template"
    (folder / f"{TEST}.py").write_text(
        '"""Counts the rows of the experiment before."""\n'
        "from common.experiment import Measurement, main\n"
        "from papers._template.softmax_gradient import Settings\n\n\n"
        "def run(settings, context):\n"
        "    measurement = Measurement()\n"
        f"    measurement.add('rows', len(context.results_of('{TRAINING}').table()))\n"
        "    return measurement\n\n\n"
        "if __name__ == '__main__':\n"
        "    main(run, Settings)\n"
    )
    config = yaml.safe_load((folder / "config.yaml").read_text())
    training = config["experiments"][TRAINING]
    # The order of the file is not that of the jobs.
    config |= {"experiments": {TEST: {**training, "after": [TRAINING]}, TRAINING: training}, "figures": {}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (folder / "claims.yaml").write_text("claims: []\n")
    status, output = checkout.python("-m", f"papers._template.{TEST}", "--scale", "smoke")
    assert status == 2
    assert "Make them first: python -m papers._template.softmax_gradient --scale smoke --out" in output
    index = f"results/_template/smoke/records/{TEST}/all.index.json"
    status, output = checkout.snakemake(index, "--config", "scale=smoke", "--cores", "2")
    assert status == 0, output
    records = RecordSet(checkout.folder / "results/_template/smoke/records", TEST).records
    assert len(records) == 5
    for record in records:
        assert record.rows[0].value > 0
        assert list(record.provenance.after) == [f"{TRAINING}/seed={seed}" for seed in range(5)]
