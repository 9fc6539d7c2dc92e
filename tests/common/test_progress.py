import pytest

from common import progress
from common.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def tick(seconds):
        now[0] += seconds

    return tick


def test_elapsed_and_remaining_time_follow_the_steps(clock, capsys):
    counter = Progress("reading", 4, interval=0)
    clock(30)
    counter.step("one")
    clock(30)
    counter.step("two", steps=2)
    assert capsys.readouterr().err.splitlines() == [
        "[reading] 1/4 one  elapsed 0:30  remaining about 1:30",
        "[reading] 3/4 two  elapsed 1:00  remaining about 0:20",
    ]


def test_lines_are_no_more_often_than_the_interval_but_the_last_always_shows(clock, capsys):
    counter = Progress("reading", 100, interval=5)
    for i in range(100):
        clock(1)
        counter.step(f"part {i}")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 20
    assert lines[0].startswith("[reading] 5/100 part 4 ")
    assert lines[-1] == "[reading] 100/100 part 99  elapsed 1:40  remaining about 0:00"


@pytest.mark.parametrize(("seconds", "shown"), [(0.4, "0:00"), (59.6, "1:00"), (3599, "59:59"), (36000, "10:00:00")])
def test_times_are_written_as_a_clock(clock, capsys, seconds, shown):
    counter = Progress("x", 1)
    clock(seconds)
    counter.step()
    assert f"elapsed {shown} " in capsys.readouterr().err


def test_lines_go_to_stderr_so_that_stdout_stays_clean(capsys):
    Progress("x", 1).step()
    assert capsys.readouterr().out == ""
