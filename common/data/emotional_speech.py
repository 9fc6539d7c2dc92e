"""nEMO (Christop, 2024): acted emotional speech in Polish, four emotions, in five folds of whole actors."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from common.data.fetch import fetch
from common.errors import DataError

EMOTIONS = ("anger", "happiness", "neutral", "sadness")
RATE = 16_000


@dataclass(frozen=True)
class Recordings:
    """Compressed recordings with what is known about them.

    Attributes:
        audio: files in any format that libsndfile reads, mono.
        labels: int64 [recordings]; for nEMO numbers in `EMOTIONS`.
        folds: int64 [recordings]; a speaker is in one fold alone.
        speakers: a name each.
    """

    audio: tuple[bytes, ...]
    labels: np.ndarray
    folds: np.ndarray
    speakers: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.audio)

    def waves(self, rate: int = RATE) -> Iterator[np.ndarray]:
        """Each recording in turn as float32 [samples] in -1..1.

        Raises:
            DataError: soundfile is not installed, or a recording is damaged, has several channels or another rate.
        """
        for number, content in enumerate(self.audio):
            yield decode(content, rate, f"recording {number}")


def decode(content: bytes, rate: int, name: str) -> np.ndarray:
    """A mono recording as float32 [samples]. Raises DataError as `Recordings.waves` does; `name` is what the message blames."""
    try:
        import soundfile  # pyright: ignore[reportMissingImports]  (optional: only machines that decode recordings need it)
    except ImportError:
        raise DataError(
            "Recordings are decoded with soundfile, which is not installed: run `python -m pip install soundfile`, or bring "
            "the features from a machine that has it (see the paper's README)."
        ) from None
    try:
        wave, found = soundfile.read(io.BytesIO(content), dtype="float32")
    except RuntimeError as error:  # soundfile.LibsndfileError is one
        raise DataError(f"{name} cannot be decoded ({error}); bring the file again.") from error
    if found != rate or wave.ndim != 1:
        raise DataError(f"{name} has a rate of {found} and shape {wave.shape}; make it mono at {rate} Hz.")
    return wave


def load_nemo() -> Recordings:
    """The 1,419 clips. Raises DataError when the file cannot be had."""
    table = pd.read_parquet(fetch("nemo-ser"))
    return Recordings(
        audio=tuple(table["audio"]),
        labels=np.array([EMOTIONS.index(emotion) for emotion in table["emotion"]], dtype=np.int64),
        folds=table["fold"].to_numpy(np.int64),
        speakers=tuple(table["speaker_id"]),
    )
