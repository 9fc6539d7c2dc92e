"""Progress of long work as plain lines: readable on a terminal, in a log file and through a pipe."""

import sys
import time


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class Progress:
    """Counts finished steps and prints, at most every few seconds, how far the work is and when it will end.

    Args:
        label: what is being done.
        total: number of steps.
        interval: seconds between two lines.
    """

    def __init__(self, label: str, total: int, interval: float = 5.0):
        self.label, self.total, self.interval = label, total, interval
        self.done = 0
        self._start = self._last = time.monotonic()

    def step(self, what: str = "", steps: int = 1) -> None:
        """Count `steps` as finished; `what` names the last of them."""
        self.done += steps
        now = time.monotonic()
        if self.done < self.total and now - self._last < self.interval:
            return
        self._last = now
        elapsed = now - self._start
        remaining = elapsed / max(self.done, 1) * max(self.total - self.done, 0)
        print(
            f"[{self.label}] {self.done}/{self.total} {what}  elapsed {_clock(elapsed)}  remaining about {_clock(remaining)}",
            file=sys.stderr,
            flush=True,
        )
