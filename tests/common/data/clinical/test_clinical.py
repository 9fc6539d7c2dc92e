"""Grid, normaliser, readers and cache of clinical series: against loops, on made-up files, and on bad input."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data.clinical import Normaliser, fill_forward, hours_since_observed, last_in_each_hour
from common.data.clinical.feature_cache import cached_arrays, content_key
from common.data.clinical.generated import write_benchmark, write_physionet2012
from common.data.clinical.mimic3_benchmark import CHANNELS, COLUMNS, CONTINUOUS, TASKS, load_samples, read_list, read_stay
from common.data.clinical.physionet2012 import SERIES, read_stays
from common.errors import DataError, InputError


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 240), st.integers(0, 1), st.integers(0, 99)), max_size=30))
def test_the_last_of_an_hour_wins_and_gaps_are_filled_forward(events):
    columns = np.array(events, dtype=np.int64).reshape(-1, 4)
    grid = last_in_each_hour(*columns.T, stays=3, hours=4, names=("x", "y"))
    filled = fill_forward(grid.values, np.array([-1.0, -2.0]))
    since = hours_since_observed(grid.observed)
    for stay in range(3):
        for variable in range(2):
            carried, gap = -1.0 - variable, 0
            for hour in range(4):
                inside = [e for e in events if e[0] == stay and e[2] == variable and min(e[1] // 60, 3) == hour]
                assert since[stay, hour, variable] == gap
                if inside:
                    latest = max(minute for _, minute, _, _ in inside)
                    carried = [value for _, minute, _, value in inside if minute == latest][-1]
                    assert grid.values[stay, hour, variable] == carried
                else:
                    assert not grid.observed[stay, hour, variable]
                assert filled[stay, hour, variable] == carried
                gap = 1 if inside else gap + 1


def test_bad_measurements_are_refused():
    good = np.array([0]), np.array([0]), np.array([0]), np.array([1.0])
    with pytest.raises(InputError, match=r"variable lies in 2\.\.2"):
        last_in_each_hour(good[0], good[1], np.array([2]), good[3], stays=1, hours=1, names=("x",))
    with pytest.raises(InputError, match="minute is -5"):
        last_in_each_hour(good[0], np.array([-5]), good[2], good[3], stays=1, hours=1, names=("x",))
    with pytest.raises(InputError, match="differ in length"):
        last_in_each_hour(good[0], good[1], good[2], np.ones(2), stays=1, hours=1, names=("x",))
    with pytest.raises(InputError, match="before has shape"):
        fill_forward(np.zeros((1, 2, 3)), np.zeros(2))


def test_the_normaliser_clips_scales_and_keeps_what_is_missing():
    rng = np.random.default_rng(0)
    values = rng.normal(5, 2, (50, 4, 4))
    values[0, 0, 0] = 1e6
    values[:, :, 1] = 3.3  # constant
    values[:, :, 2] = np.nan  # never observed
    values[1, 1, 3] = np.nan
    normaliser = Normaliser.fit(values)
    found = normaliser.apply(values)
    for column in (0, 3):
        known = values[:, :, column][~np.isnan(values[:, :, column])]
        low, high = np.percentile(known, [1, 99])
        clipped = known.clip(low, high)
        expected = (values[:, :, column].clip(low, high) - clipped.mean()) / clipped.std()
        np.testing.assert_allclose(found[:, :, column], expected, rtol=1e-4, atol=1e-6)
        assert normaliser.median[column] == pytest.approx(np.median(clipped))
    assert (np.abs(found[:, :, 1]) < 1e-6).all()
    assert np.isnan(found[:, :, 2]).all()
    assert np.isnan(found[1, 1, 3])
    assert normaliser.median[2] == 0
    with pytest.raises(InputError, match="has 3 columns"):
        normaliser.apply(values[..., :3])
    with pytest.raises(InputError, match="percentiles"):
        Normaliser.fit(values, (99, 1))


@pytest.fixture
def challenge(tmp_path):
    write_physionet2012(tmp_path, stays=8, seed=1)
    return tmp_path


def test_stays_are_read_as_they_were_written(challenge):
    stays, events = pd.read_csv(challenge / "stays.csv"), pd.read_parquet(challenge / "events_b.parquet")
    found = read_stays(challenge / "stays.csv", challenge / "events_b.parquet", "b")
    table = stays[stays["set"] == "b"].reset_index(drop=True)
    assert found.grid.values.shape == (8, 48, 37)
    for place, values in enumerate(table.to_numpy().tolist()):
        row = dict(zip(table.columns, values, strict=True))
        assert found.died[place] == row["In_hospital_death"]
        assert math.isnan(found.days[place]) == (row["Length_of_stay"] == -1)
        assert math.isnan(found.descriptors[place, 2]) == (row["Height"] == -1)
        assert found.descriptors[place, 4:].tolist() == [float(row["ICUType"] == kind) for kind in (1, 2, 3, 4)]
        for variable, name in enumerate(SERIES[:5]):
            rows = events[(events["record_id"] == row["record_id"]) & (events["parameter"] == name)]
            observed = {min(minute // 60, 47) for minute in rows["minute"]}
            assert set(np.flatnonzero(found.grid.observed[place, :, variable])) == observed
            if len(rows):
                last = np.asarray(rows["value"])[np.argsort(np.asarray(rows["minute"]), kind="stable")[-1]]
                assert found.grid.values[place, max(observed), variable] == last


def test_wrong_tables_are_refused(challenge):
    stays, a, b = challenge / "stays.csv", challenge / "events_a.parquet", challenge / "events_b.parquet"
    with pytest.raises(DataError, match="does not list in set a"):
        read_stays(stays, b, "a")
    with pytest.raises(DataError, match="no stays of set 'c'"):
        read_stays(stays, a, "c")
    with pytest.raises(DataError, match="cannot be read"):
        read_stays(challenge / "absent.csv", a, "a")
    events = pd.read_parquet(a)
    events["parameter"] = "Heart"
    events.to_parquet(a)
    with pytest.raises(DataError, match="unknown variables: Heart"):
        read_stays(stays, a, "a")
    events.drop(columns="minute").to_parquet(a)
    with pytest.raises(DataError, match="lacks the columns minute"):
        read_stays(stays, a, "a")


def test_the_benchmark_has_59_columns_of_17_channels():
    assert (len(CHANNELS), len(COLUMNS), CONTINUOUS.sum()) == (17, 59, 12)
    assert CHANNELS[0] == "Capillary refill rate"
    assert CHANNELS[-1] == "pH"


def test_a_stay_is_put_on_the_grid_one_hot_with_normal_values_before_the_first_observation(tmp_path):
    table = pd.DataFrame("", index=range(3), columns=pd.Index(["Hours", *CHANNELS]))
    table["Hours"] = ["0.5", "2.0", "2.5"]
    table.loc[1, "Heart Rate"] = "100"  # at a full hour: belongs to the hour that ends there
    table.loc[2, "Glascow coma scale total"] = "9.0"
    table.to_csv(tmp_path / "stay.csv", index=False)
    values, observed = read_stay(tmp_path / "stay.csv", 4)
    heart, normal, nine = (
        COLUMNS.index(f"{name}") for name in ("Heart Rate", "Glascow coma scale total=15", "Glascow coma scale total=9")
    )
    assert values[:, heart].tolist() == [86, 100, 100, 100]
    assert values[:, normal].tolist() == [1, 1, 0, 0]
    assert values[:, nine].tolist() == [0, 0, 1, 1]
    assert np.argwhere(observed).tolist() == [
        [1, CHANNELS.index("Heart Rate")],
        [2, CHANNELS.index("Glascow coma scale total")],
    ]
    table.loc[0, "Glascow coma scale total"] = "16"
    table.to_csv(tmp_path / "stay.csv", index=False)
    with pytest.raises(DataError, match="Glascow coma scale total is '16'"):
        read_stay(tmp_path / "stay.csv", 4)


@pytest.mark.parametrize("task", TASKS)
def test_samples_of_every_task_end_with_their_last_known_hour(tmp_path, task):
    write_benchmark(tmp_path, task, stays=8, seed=0)
    listed = read_list(tmp_path / task / "test_listfile.csv", task)
    found = load_samples(tmp_path, task, "test", hours=20, limit=0, seed=0)
    assert found.values.shape == (len(listed), 20, 59)
    for index, sample in enumerate(listed):
        known = 48 if sample.hours is None else math.ceil(sample.hours) if task == "phenotyping" else int(sample.hours)
        assert found.present[index].tolist() == [hour >= 20 - known for hour in range(20)]
        assert (found.values[index][~found.present[index]] == 0).all()
        whole, _ = read_stay(tmp_path / task / "test" / sample.stay, known)
        np.testing.assert_array_equal(found.values[index, -1], whole[-1])
        assert found.labels[index].tolist() == pytest.approx(list(sample.labels))
    few = load_samples(tmp_path, task, "train", hours=20, limit=2, seed=0)
    assert len(few.values) == 2


def test_wrong_lists_are_refused(tmp_path):
    with pytest.raises(DataError, match="create_"):
        load_samples(tmp_path, "phenotyping", "train", hours=20, limit=0, seed=0)
    (tmp_path / "list.csv").write_text("stay,period_length,y_true\na.csv,5.0\n")
    with pytest.raises(DataError, match="line 2: 2 columns"):
        read_list(tmp_path / "list.csv", "decompensation")
    with pytest.raises(InputError, match="task is 'death'"):
        load_samples(tmp_path, "death", "train", hours=20, limit=0, seed=0)  # type: ignore[arg-type]


def test_features_are_made_once_for_the_same_content(tmp_path, monkeypatch):
    monkeypatch.setenv("REATTEND_CACHE", str(tmp_path))
    made = []

    def make():
        made.append(1)
        return {"x": np.arange(3.0)}

    key = content_key({"a": "1"}, {"hours": 48}, "code")
    for _ in range(2):
        np.testing.assert_array_equal(cached_arrays("test", key, make)["x"], [0, 1, 2])
    assert len(made) == 1
    keys = {key, content_key({"a": "2"}, {"hours": 48}, "code"), content_key({"a": "1"}, {"hours": 47}, "code")}
    assert len({*keys, content_key({"a": "1"}, {"hours": 48}, "other")}) == 4
    (path,) = (tmp_path / "features").glob("*.npz")
    path.write_bytes(b"damaged")
    with pytest.raises(DataError, match="Delete it"):
        cached_arrays("test", key, make)
