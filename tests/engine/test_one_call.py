"""What one call of `encode` goes through: few files, in one direction, so that a reader can follow it."""

from __future__ import annotations

import os
import sys
from itertools import pairwise
from typing import Any

import minisbert
from tests.conftest import DATA

# How often the file changes from one function that is called to the next, of those of ours.
MOST = 35


def called_files(encoder: minisbert.SentenceEncoder) -> list[str]:
    """Return the file of each function of ours that a call of `encode` enters, or enters again, in order."""
    root, files = os.path.dirname(minisbert.__file__) + os.sep, []

    def note(frame: Any, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(root):
            files.append(frame.f_code.co_filename.removeprefix(root).replace(os.sep, "/"))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        encoder.encode(["a"])
    finally:
        sys.setprofile(before)
    return files


def test_one_call_goes_through_few_files() -> None:
    encoder = minisbert.load(DATA / "tiny-bert", backend="native", num_threads=2)
    encoder.encode(["a"])  # records what is replayed from now on
    changes = [after for before, after in pairwise(called_files(encoder)) if before != after]
    assert len(changes) <= MOST, changes
