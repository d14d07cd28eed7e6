"""The tests see nothing of the environment that they are started in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.environment import PATIENCE

HOSTILE = {
    "COLUMNS": "7",
    "FORCE_COLOR": "1",
    "HF_ENDPOINT": "http://elsewhere.invalid",
    "HF_HUB_OFFLINE": "1",
    "HF_TOKEN": "hf_secret",
    "LANG": "C",
    "MINISBERT_NUM_THREADS": "no number",
    "NO_PROXY": "",
    "OMP_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "TQDM_DISABLE": "1",
    "TZ": "Asia/Kathmandu",
    "http_proxy": "http://127.0.0.1:9",
}
CODE = """
from tests import conftest
import os
from huggingface_hub import constants
print(constants.ENDPOINT, constants.HF_HUB_OFFLINE, *(f"{key}={value}" for key, value in os.environ.items()))
"""


def test_nothing_of_a_hostile_environment_is_left() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=Path(__file__).parents[1],
        env=os.environ | HOSTILE,
        capture_output=True,
        text=True,
        check=True,
        timeout=120 * PATIENCE,
    )
    endpoint, offline, *variables = done.stdout.split()
    assert endpoint.startswith("http://127.0.0.1:")
    assert offline == "False"
    assert not {f"{key}={value}" for key, value in HOSTILE.items()} & set(variables)
