"""The commands that refusals print: each is run, where torch is installed, and keeps the vectors as they were."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import minisbert
from tests.conftest import DATA, FEW
from tests.support import pipelines
from tests.support.environment import PATIENCE

torch = pytest.importorskip(
    "torch", reason="torch is not installed: python tools/dev.py test --parity installs it"
)

Copy = Callable[[str], Path]


def pickled(place: Path, count: int = 1) -> None:
    """Put pickles in the place of the weights, as a machine with CUDA saves them; their tensors are not contiguous."""
    tensors: dict[str, Any] = {}
    for path in place.glob("*.safetensors"):
        tensors |= {name: torch.tensor(array).t().clone().t() if array.ndim == 2 else torch.tensor(array)
                    for name, array in load_file(path).items()}  # fmt: skip
        path.unlink()
    (place / "model.safetensors.index.json").unlink(missing_ok=True)
    for part in range(count):
        name = "pytorch_model.bin" if count == 1 else f"pytorch_model-{part + 1:05d}-of-{count:05d}.bin"
        torch.save(dict(list(tensors.items())[part::count]), place / name)
    if count > 1:
        (place / "pytorch_model.bin.index.json").write_text("{}")


def follow(folder: Path) -> None:
    """Do what the refusal says."""
    load = minisbert.load_cross_encoder if folder.name.startswith("cross") else minisbert.load
    with pytest.raises(minisbert.UnsupportedCheckpointError) as info:
        load(folder)
    command = str(info.value).partition("python -c ")[2]
    subprocess.run(
        [sys.executable, "-c", command.removeprefix('"').removesuffix('"')],
        check=True,
        timeout=300 * PATIENCE,
    )


@pytest.fixture
def from_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save as on a machine with CUDA, which this one need not have."""
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")


@pytest.mark.usefixtures("from_cuda")
@pytest.mark.parametrize(
    ("name", "count"), [("tiny-bert", 1), ("tiny-xlm-roberta", 2), ("tiny-camembert", 1)]
)
def test_weights_in_place(copy_of: Copy, name: str, count: int) -> None:
    folder = copy_of(name)
    expected = minisbert.load(folder).encode(FEW)
    settings = {path: path.read_bytes() for path in folder.rglob("*config.json")}
    [config] = [
        path
        for path in settings
        if path.name == "config.json" and "model_type" in json.loads(path.read_bytes())
    ]
    pickled(config.parent, count)
    follow(folder)
    np.testing.assert_array_equal(minisbert.load(folder).encode(FEW), expected)
    assert {path: path.read_bytes() for path in settings} == settings


@pytest.mark.usefixtures("from_cuda")
def test_a_cross_encoder_in_place(copy_of: Copy) -> None:
    folder, pairs = copy_of("cross-labels"), [("a question", "an answer")]
    expected = minisbert.load_cross_encoder(folder).predict(pairs)
    pickled(folder)
    follow(folder)
    np.testing.assert_array_equal(minisbert.load_cross_encoder(folder).predict(pairs), expected)


@pytest.mark.usefixtures("from_cuda")
def test_a_dense_module_in_place(tmp_path: Path) -> None:
    stack = (pipelines.pooling("mean"), pipelines.dense(20))
    folder = pipelines.build(tmp_path / "model", DATA / "tiny-bert", stack)
    expected = minisbert.load(folder).encode(FEW)
    pickled(folder / "2_Dense")
    follow(folder)
    np.testing.assert_array_equal(minisbert.load(folder).encode(FEW), expected)
