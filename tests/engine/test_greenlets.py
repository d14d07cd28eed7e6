"""Where gevent or eventlet has patched threads and locks: the same vectors, on as many threads, and nobody hangs."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import minisbert
from tests.conftest import DATA
from tests.support.environment import PATIENCE
from tests.support.greenlet_checks import TEXTS

PATCH, IMPORT = (
    "from tests.support import greenlets; green = greenlets.{library}()",
    "from tests.support import greenlet_checks",
)
CODE = {"patched first": [PATCH, IMPORT], "imported first": [IMPORT, PATCH]}


@pytest.mark.parametrize("order", CODE)
@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_encoding_in_greenlets(library: str, order: str, tmp_path: Path) -> None:
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed: it is in the group dev of pyproject.toml")
    file = tmp_path / "expected.npy"
    np.save(file, minisbert.load(DATA / "tiny-bert", num_threads=1).encode(TEXTS))
    code = "\n".join([*CODE[order], "greenlet_checks.run(green, {file!r})", "print('all is well')"])
    done = subprocess.run(
        [sys.executable, "-c", code.format(library=library, file=str(file))],
        env={**os.environ, "PYTHONPATH": str(Path(minisbert.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=240 * PATIENCE,
    )
    assert (done.returncode, done.stdout) == (0, "all is well\n"), done.stderr
