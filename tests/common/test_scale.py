import ctypes
from types import SimpleNamespace

import pytest

from common import scale
from common.errors import ConfigError
from common.scale import choose_scale, cuda_devices


@pytest.mark.parametrize("asked", ["smoke", "standard", "paper"])
@pytest.mark.parametrize("devices", [0, 2])
def test_an_explicit_scale_is_kept(monkeypatch, asked, devices):
    monkeypatch.setattr(scale, "cuda_devices", lambda: devices)
    assert choose_scale(asked) == (asked, "asked for")


@pytest.mark.parametrize(
    ("devices", "chosen", "reason"),
    [(0, "smoke", "no CUDA device found"), (1, "standard", "1 CUDA device found"), (3, "standard", "3 CUDA devices found")],
)
def test_auto_follows_the_machine_and_says_why(monkeypatch, devices, chosen, reason):
    monkeypatch.setattr(scale, "cuda_devices", lambda: devices)
    choice = choose_scale("auto")
    assert choice.scale == chosen
    assert choice.reason.startswith(reason)


@pytest.mark.parametrize("asked", ["", "Smoke", "big"])
def test_another_word_is_refused(asked):
    with pytest.raises(ConfigError, match="one of auto, smoke, standard, paper"):
        choose_scale(asked)


def driver(status=0, count=0):
    def get_count(pointer):
        pointer._obj.value = count
        return 0

    return SimpleNamespace(cuInit=lambda flags: status, cuDeviceGetCount=get_count)


@pytest.mark.parametrize(("loaded", "found"), [(driver(0, 2), 2), (driver(100, 2), 0), (driver(0, 0), 0)])
def test_devices_are_counted_by_the_driver(monkeypatch, loaded, found):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: loaded)
    assert cuda_devices() == found


def test_without_a_driver_there_are_no_devices(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert cuda_devices() == 0
