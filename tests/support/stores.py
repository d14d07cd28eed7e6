"""For tests of frameworks: texts to store, processes to open stores in, and the exact search to compare with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import minisbert
from tests.support.texts import real_texts

QUERIES = ["How do I open a file?", "numbers that are not integers", "Wie spät ist es?"]
TOP = 10


def corpus() -> list[str]:
    """A few hundred real texts, no two alike, none of which is cut."""
    return [text for text in dict.fromkeys(real_texts()) if 20 < len(text) < 400]


def exact_search(model: str, queries: list[str] = QUERIES) -> list[list[int]]:
    """The indices of the best texts for each query, by NumPy."""
    encoder = minisbert.load(model)
    scores = encoder.encode_query(queries) @ encoder.encode_document(corpus()).T
    return np.argsort(-scores, axis=1)[:, :TOP].tolist()


def in_new_process(function: Callable[..., Any], *arguments: Any, before: str = "") -> Any:
    """Call a function of a test module in a new process, with arguments and a result that JSON has."""
    code = (
        f"import json, sys\n{before}\n"
        f"from {function.__module__} import {function.__name__} as function\n"
        "print(json.dumps(function(*json.loads(sys.argv[1]))))"
    )
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([root, os.environ["PYTHONPATH"]]) if "PYTHONPATH" in os.environ else root
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(arguments)],
        env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
