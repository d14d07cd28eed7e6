"""Files that are there and can't be read: of another user, or pointers that Git LFS leaves in their place."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minisbert
from tests.conftest import DATA, use_vocabulary
from tests.support.users import NOBODY, can_be_nobody

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:53aa51172d142c89d9012cce15ae4d6c\nsize 90868376\n"
FILES = ("config.json", "modules.json", "tokenizer.json", "model.safetensors", "1_Pooling/config.json")

Copy = Callable[[str], Path]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A checkpoint that everybody can get to, which folders of pytest's are not."""
    if not can_be_nobody():
        pytest.skip("all files can be read here")
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)
        yield Path(shutil.copytree(DATA / "tiny-bert", Path(parent) / "model"))


@contextmanager
def without_rights(path: Path) -> Iterator[None]:
    """Take the right to read a path away from whoever runs the tests; root, who has it always, becomes nobody."""
    mode = path.stat().st_mode
    path.chmod(0)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        path.chmod(mode)


def refused(folder: Path, *parts: str) -> None:
    with pytest.raises(minisbert.CheckpointError) as info:
        minisbert.load(folder, backend="reference")
    assert type(info.value) is minisbert.CheckpointError
    for part in parts:
        assert part in str(info.value)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_this_user_may_not_read(folder: Path, name: str) -> None:
    path = folder / name
    owner = path.owner()
    with without_rights(path):
        refused(folder, f"{path}: can't be read", f"{path} belongs to {owner} and has the mode 0000", "chmod")
    assert minisbert.load(folder, backend="reference").encode("text").shape == (75,)


def test_a_vocabulary_that_this_user_may_not_read(folder: Path) -> None:
    use_vocabulary(folder)
    with without_rights(folder / "vocab.txt"):
        refused(folder, f"{folder / 'vocab.txt'}: can't be read", "has the mode 0000")


@pytest.mark.parametrize("barred", [".", "1_Pooling", ".."])
def test_a_folder_that_this_user_may_not_enter(folder: Path, barred: str) -> None:
    """All in it would be taken for absent."""
    place = Path(os.path.normpath(folder / barred))
    with without_rights(place):
        refused(folder, "can't be read", f": {place} belongs to ", "has the mode 0000")


@pytest.mark.parametrize("name", [*FILES, "vocab.txt", "pytorch_model.bin"])
def test_a_pointer_of_git_lfs(copy_of: Copy, name: str) -> None:
    folder = copy_of("tiny-bert")
    if name == "vocab.txt":
        use_vocabulary(folder)
    if name == "pytorch_model.bin":
        (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(POINTER)
    refused(folder, f"{folder / name}: ", "pointer", "`git lfs pull`")


def test_a_time_limit_is_not_taken_for_an_absent_file(copy_of: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A TimeoutError is an OSError, and a checkpoint without its modules.json would give other vectors."""
    folder, stat, open_ = copy_of("tiny-bert"), os.stat, Path.open

    def strike(path: Any, *arguments: Any, **options: Any) -> Any:
        if Path(path).name == "modules.json":
            raise TimeoutError("time is up")
        return stat(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", strike)
        with pytest.raises(TimeoutError, match=r"^time is up$"):
            minisbert.load(folder)

    def strike_again(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == "config.json":
            raise TimeoutError("time is up")
        return open_(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", strike_again)
        with pytest.raises(TimeoutError, match=r"^time is up$"):
            minisbert.load(folder)
    expected = minisbert.load(DATA / "tiny-bert").encode("a text")
    np.testing.assert_array_equal(minisbert.load(folder).encode("a text"), expected)
