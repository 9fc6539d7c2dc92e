"""Checkpoints: the state of unfinished work, in files that belong to one set of parameters and sources."""

import pickle
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import DataError
from common.files import whole_or_absent


@dataclass(frozen=True)
class Checkpoints:
    """Checkpoints of one cell, below a folder that appears with the first of them.

    Attributes:
        folder: where they are; one file a name.
        key: digest of everything that the work depends on. A checkpoint with another key is never used.
    """

    folder: Path
    key: str

    def path(self, name: str) -> Path:
        """The file of the checkpoint called `name`."""
        return self.folder / f"{name}.pt"

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Replace the checkpoint called `name` in one step: a killed process leaves the old one or the new one.

        Args:
            name: usable as a file name.
            state: tensors, numbers, strings, and lists, tuples and dictionaries of them.

        Raises:
            DataError: the folder cannot be written.
        """
        import torch

        with whole_or_absent(self.path(name)) as temporary:
            torch.save({"key": self.key, "state": state}, temporary)

    def load(self, name: str) -> dict[str, Any] | None:
        """The state that was saved last under this name, tensors on the CPU; None, and a printed line, if it cannot be used.

        None without a line where there is none.

        Raises:
            DataError: the file exists and cannot be read.
        """
        import torch

        path = self.path(name)
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
        except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            return self._unused(path, f"it is damaged ({reason})")
        except OSError as error:
            raise DataError(f"Cannot read {path}: {error.strerror}. Make it readable or delete it, then run again.") from error
        if not isinstance(content, dict) or content.get("key") != self.key:
            return self._unused(path, "other parameters, sources, data or another kind of device made it")
        return content["state"]

    @staticmethod
    def _unused(path: Path, reason: str) -> None:
        print(f"The checkpoint {path} is not used: {reason}. Starting from the beginning.", file=sys.stderr, flush=True)

    def remove(self) -> None:
        """Delete all checkpoints of the folder, whatever their key, and the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
