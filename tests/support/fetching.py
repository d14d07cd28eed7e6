"""What the tests that fetch share: a hub with a model in it, an empty cache, and an end to all waiting."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants

import minisbert
from tests.conftest import DATA
from tests.support.environment import PATIENCE
from tests.support.hubserver import COMMIT, HUB, Hub, Repository

IMPATIENCE = 0.2  # seconds that the client waits for an answer that is not going to come
LIMIT = 60 * PATIENCE  # seconds after which a test is taken to hang
NAME = "org/tiny"
DECOYS = (
    "pytorch_model.bin",
    "tf_model.h5",
    "model.fp16.safetensors",
    "onnx/model.onnx",
    "onnx/config.json",
    "openvino/openvino_model.xml",
    "checkpoint-5/model.safetensors",
    "README.md",
)


def files_of(folder: Path) -> dict[str, bytes]:
    """The files of a checkpoint by their paths, and others that repositories have beside them."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    return files | dict.fromkeys(DECOYS, b"not to be fetched")


@pytest.fixture
def no_hanging() -> Iterator[None]:
    """Fail, instead of waiting for ever."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def fail(*arguments: Any) -> None:
        raise AssertionError(f"still not done after {LIMIT} s")

    signal.signal(signal.SIGALRM, fail)
    signal.alarm(LIMIT)
    yield
    signal.alarm(0)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, no_hanging: None) -> Iterator[Hub]:
    """A hub with the tiny BERT in it, which this process takes for the real one."""
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)  # 10 MB, of which none is kept after a cut
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between the library's attempts
    with HUB.serving():
        HUB.repositories[NAME] = Repository({COMMIT: files_of(DATA / "tiny-bert")})
        yield HUB


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """An empty cache folder."""
    return tmp_path / "cache"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for an answer but shortly."""
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        monkeypatch.setattr(constants, name, IMPATIENCE)
    monkeypatch.setattr("huggingface_hub.file_download._ETAG_RETRY_TIMEOUT", IMPATIENCE, raising=False)


def check_vectors(encoder: minisbert.SentenceEncoder, bert: minisbert.SentenceEncoder) -> None:
    np.testing.assert_array_equal(encoder.encode("a text"), bert.encode("a text"))


def refused(
    cache: Path, *parts: str, kind: type[Exception] = minisbert.CheckpointNotFoundError, **options: Any
) -> str:
    """Load in vain; the message names the repository and what else it should; nothing half-made stays."""
    with pytest.raises(kind) as info:
        minisbert.load(options.pop("name", NAME), cache_folder=cache, **options)
    assert type(info.value) is kind
    for part in parts:
        assert part in str(info.value)
    with pytest.raises(minisbert.CheckpointNotFoundError):
        minisbert.load(NAME, cache_folder=cache, local_files_only=True)
    return str(info.value)
