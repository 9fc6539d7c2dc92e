import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DataError
from common.records import RecordSet, Row, read_record, results_digest, write_record
from tests.example_records import make_record


def test_a_written_record_is_read_back_unchanged(tmp_path):
    arrays = {"map": np.arange(6, dtype=np.float32).reshape(2, 3)}
    rows = [Row(metric="error", value=1 / 3, unit="1", method="ours", setting={"length": 8, "dtype": "float32"})]
    write_record(tmp_path / "measure" / "seed=0", make_record(rows, arrays), arrays)
    record = read_record(tmp_path / "measure" / "seed=0" / "record.json")
    assert record.rows == tuple(rows)
    found = RecordSet(tmp_path)
    np.testing.assert_array_equal(found.arrays(found.records[0])["map"], arrays["map"])


def test_a_number_changed_by_hand_is_refused(tmp_path):
    path = tmp_path / "record.json"
    write_record(tmp_path, make_record([Row(metric="error", value=0.5, unit="1")]), {})
    path.write_text(path.read_text().replace("0.5", "0.4"))
    with pytest.raises(DataError, match="changed after it was written"):
        read_record(path)


def test_changed_arrays_are_refused(tmp_path):
    arrays = {"map": np.zeros(3)}
    write_record(tmp_path, make_record([Row(metric="error", value=0.5, unit="1")], arrays), arrays)
    np.savez_compressed(tmp_path / "arrays.npz", map=np.ones(3))
    with pytest.raises(DataError, match=r"arrays\.npz is missing or differs"):
        read_record(tmp_path / "record.json")


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"paper": 3}', "not json"])
def test_a_damaged_record_gives_one_sentence(tmp_path, content):
    path = tmp_path / "record.json"
    path.write_text(content)
    with pytest.raises(DataError, match="not a valid record"):
        read_record(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_only_finite_numbers_are_recorded(value):
    with pytest.raises(ValueError, match="finite"):
        Row(metric="error", value=value, unit="1")


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_the_digest_follows_results_and_ignores_timings(result, time):
    rows = [Row(metric="error", value=result, unit="1"), Row(metric="time", value=time, unit="ms", timing=True)]
    slower = [rows[0], rows[1].model_copy(update={"value": time + 1})]
    other = [rows[0].model_copy(update={"value": result + 1 if abs(result) < 1e15 else 0.5}), rows[1]]
    assert results_digest(rows, {}) == results_digest(slower, {})
    assert results_digest(rows, {}) != results_digest(other, {})


def test_the_table_has_a_column_for_each_setting(tmp_path):
    rows = [Row(metric="error", value=1, unit="1", method="a", setting={"length": 8}), Row(metric="gain", value=2, unit="1")]
    write_record(tmp_path / "measure" / "seed=0", make_record(rows), {})
    table = RecordSet(tmp_path).table()
    assert list(table["length"].fillna(-1)) == [8, -1]
    assert set(table["record"]) == {"example/measure/seed=0"}
    assert list(table["seed"]) == [0, 0]


@pytest.mark.parametrize("content", [b"\xff\xfe", None], ids=["not UTF-8", "a folder"])
def test_an_unreadable_record_gives_one_sentence(tmp_path, content):
    path = tmp_path / "record.json"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        read_record(path)


def test_a_seed_among_the_settings_is_the_rows_seed(tmp_path):
    rows = [Row(metric="error", value=1, unit="1", setting={"seed": 7}), Row(metric="error", value=2, unit="1", seed=8)]
    write_record(tmp_path / "measure" / "all", make_record(rows, cell="all", axes={}), {})
    assert list(RecordSet(tmp_path).table()["seed"]) == [7, 8]


def test_records_are_one_row_a_line(tmp_path):
    rows = [Row(metric="error", value=i, unit="1") for i in range(3)]
    write_record(tmp_path, make_record(rows), {})
    text = (tmp_path / "record.json").read_text()
    assert json.loads(text)["rows"][2]["value"] == 2
    assert sum('"metric"' in line for line in text.splitlines()) == 3
