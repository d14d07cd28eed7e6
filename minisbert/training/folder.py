"""The folder of a run that is not finished: where it stands, what was best so far, and its log.

It is beside the output, and goes away with the end of the run. What is in it is replaced as a whole, or not at all: so
a run that is ended anywhere goes on from where it stood, and does what it has done since once more, bit for bit.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from minisbert import unfinished
from minisbert.errors import TrainingError, shown
from minisbert.unfinished import temporary_beside

__all__ = ["RunFolder"]

LOG = "train.jsonl"


class RunFolder:
    """A run's folder, new or to be resumed; `settings` say which run it is.

    Raises
    ------
    TrainingError
        If the output is there already, or an interrupted run and it is not resumed; or none, or another one, and it is.
    """

    def __init__(self, output: Path, settings: dict[str, Any], resume: bool) -> None:
        self.output, self.path = output, output.with_name(f".{output.name}.training")
        if os.path.lexists(output):
            raise TrainingError(f"{output}: is there already; name a folder that is not, or remove it first")
        if not output.parent.is_dir():
            raise TrainingError(f"{output}: there is no folder {output.parent}; make it first")
        known = self.path / "settings.json"
        if resume:
            self._check(known, settings)
        elif known.exists():
            raise TrainingError(
                f"{self.path}: is an interrupted run; go on with it (resume=True, --resume), or remove it"
            )
        else:
            with self._writing(self.path):
                self.path.mkdir(exist_ok=True)  # a run that was killed at once left no more than that
            with self._replacing(known) as file:
                file.write(json.dumps(settings, indent=2).encode())
        unfinished.kept.add(self.path)

    def _check(self, path: Path, settings: dict[str, Any]) -> None:
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise TrainingError(
                f"{path}: there is no interrupted run to go on with; start it without resume"
            ) from error
        for name, value in settings.items():
            if before.get(name) != value:
                raise TrainingError(
                    f"{path}: the interrupted run has {name} {shown(before.get(name))}, and now it is {shown(value)}; "
                    f"resume it with what it was started with, or remove {self.path} to start anew"
                )

    def close(self) -> None:
        """Leave the folder as it is."""
        unfinished.kept.discard(self.path)

    def remove(self) -> None:
        """Remove the folder, and all that is in it."""
        unfinished.remove(self.path)

    @contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TrainingError(
                f"{path}: can't be written ({error.strerror or error}); make room, or name another folder. What was "
                "saved before is as it was, and an interrupted run goes on from there with resume=True, or --resume"
            ) from error

    @contextmanager
    def _replacing(self, path: Path) -> Iterator[Any]:
        """Write a file that takes the place of the one before once it is whole."""
        with self._writing(path), temporary_beside(path, f"{path.name}.tmp") as temporary:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)

    def save(self, name: str, arrays: Sequence[Any]) -> None:
        """Write arrays, one after the other."""
        with self._replacing(self.path / name) as file:
            for array in arrays:
                header = np.lib.format.header_data_from_array_1_0(array)
                np.lib.format.write_array_header_1_0(file, header)
                file.write(array.data)  # unlike NumPy's `write_array`, this says why it fails

    def load(self, name: str, arrays: Sequence[Any]) -> None:
        """Read arrays back into their places."""
        path = self.path / name
        try:
            with path.open("rb") as file:
                for array in arrays:
                    array[...] = np.lib.format.read_array(file, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise TrainingError(
                f"{path}: can't be read ({error}); remove {self.path} and start anew"
            ) from error

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self.path / name).exists()

    def read_log(self, step: int) -> list[dict[str, Any]]:
        """Return the lines of the log up to a step; what came after it will be done once more."""
        path, kept = self.path / LOG, []
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            with suppress(ValueError):  # the last one may be half
                kept += [entry for entry in [json.loads(line)] if entry["step"] <= step]
        with self._replacing(path) as file:
            file.writelines(f"{json.dumps(entry)}\n".encode() for entry in kept)
        return kept

    def log(self, entry: dict[str, Any]) -> None:
        """Add a line to the log."""
        path = self.path / LOG
        with self._writing(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    @contextmanager
    def finishing(self) -> Iterator[Path]:
        """Write the output into a folder that takes its name once it is whole; then the run's folder is removed."""
        with self._writing(self.output), temporary_beside(self.path / "checkpoint") as folder:
            folder.mkdir()
            yield folder
            shutil.copyfile(self.path / LOG, folder / LOG)
            os.rename(folder, self.output)
        self.remove()
