"""A checkpoint's files while it is in use: what is mapped, what is noticed, what is given back."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minisbert
from tests.conftest import DATA, FEW, TINY
from tests.support import pipelines
from tests.support.environment import IS_EMULATED, PATIENCE

Copy = Callable[[str], Path]
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="maps are read from /proc")
pytestmark = pytest.mark.skipif(
    os.name != "posix", reason="this system lets nobody write to a file that is mapped"
)


@pytest.fixture(params=["native", "reference"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# --- Files that are written to -----------------------------------------------------------------------------------


def overwrite(path: Path) -> None:
    """Write other weights into a file of weights, as `cp` does: it stays the same file, of the same size."""
    other = path.with_name("other")
    save_file({name: tensor + tensor.dtype.type(1) for name, tensor in load_file(path).items()}, other)
    shutil.copyfile(other, path)


def in_use(path: Path) -> Any:
    """What is said of a file that an encoder reads its weights from."""
    return pytest.raises(
        minisbert.CheckpointError,
        match=rf"{path.name}: was written to .* load the checkpoint again.* renaming",
    )


def test_a_checkpoint_that_was_overwritten_is_noticed(copy_of: Copy, backend: str) -> None:
    folder = copy_of("tiny-bert")
    path = folder / "model.safetensors"
    encoder = minisbert.load(folder, backend=backend)
    before = encoder.encode(FEW)
    overwrite(path)
    for _ in range(2):
        with in_use(path):
            encoder.encode(FEW)
        with in_use(path):
            encoder.encode("text", output_value="token_embeddings")
    assert encoder.token_counts(["text"]) > 0  # which takes no weights
    assert not np.allclose(minisbert.load(folder, backend=backend).encode(FEW), before)


def test_a_cross_encoder_that_was_overwritten_is_noticed(copy_of: Copy, backend: str) -> None:
    folder = copy_of("cross-bert")
    model = minisbert.load_cross_encoder(folder, backend=backend)
    overwrite(folder / "model.safetensors")
    with in_use(folder / "model.safetensors"):
        model.predict([("one", "two")])
    with in_use(folder / "model.safetensors"):
        model.rank("one", ["two"])


@pytest.mark.parametrize("size", [0, 1000])
def test_a_file_that_was_cut_does_not_end_the_process(copy_of: Copy, backend: str, size: int) -> None:
    folder = copy_of("tiny-bert")
    code = f"""
import os
import minisbert
encoder = minisbert.load({str(folder)!r}, backend={backend!r})
os.truncate({str(folder / "model.safetensors")!r}, {size})
try:
    encoder.encode("text")
except minisbert.CheckpointError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120 * PATIENCE
    )
    assert "model.safetensors: was written to" in done.stdout, done.stderr


def test_a_file_that_is_no_longer_needed_may_be_written_to(copy_of: Copy, backend: str) -> None:
    """Compiled kernels read nothing but the table of words from the files; NumPy all matrices."""
    folder = copy_of("tiny-xlm-roberta")
    encoder = minisbert.load(folder, backend=backend)
    expected = encoder.encode(FEW)
    with_words, other = sorted(
        folder.glob("*.safetensors"), key=lambda path: not any("word_emb" in name for name in load_file(path))
    )
    overwrite(other)
    if backend == "native":
        np.testing.assert_array_equal(encoder.encode(FEW), expected)
    else:
        with in_use(other):
            encoder.encode(FEW)
    overwrite(with_words)
    with pytest.raises(minisbert.CheckpointError, match="was written to"):
        encoder.encode(FEW)


def test_weights_of_a_module_that_were_overwritten(tmp_path: Path) -> None:
    stack = (pipelines.pooling("mean"), pipelines.dense(20))
    folder = pipelines.build(tmp_path / "model", DATA / "tiny-bert", stack)
    encoder = minisbert.load(folder, backend="reference")
    overwrite(folder / "2_Dense" / "model.safetensors")
    with pytest.raises(minisbert.CheckpointError, match=r"2_Dense.*was written to"):
        encoder.encode("text")


@pytest.mark.parametrize("change", ["another in its place", "moved", "removed"])
def test_a_file_that_lost_its_name_is_still_read(copy_of: Copy, backend: str, change: str) -> None:
    folder = copy_of("tiny-bert")
    path = folder / "model.safetensors"
    encoder = minisbert.load(folder, backend=backend)
    expected = encoder.encode(FEW)
    if change == "another in its place":
        shutil.copyfile(path, other := folder / "other")
        os.truncate(other, 100)
        other.replace(path)
    elif change == "moved":
        folder.rename(folder.with_name("elsewhere"))
    else:
        shutil.rmtree(folder)
    np.testing.assert_array_equal(encoder.encode(FEW), expected)


# --- Descriptors and memory ----------------------------------------------------------------------------------------


def descriptors() -> list[str]:
    """What the descriptors of this process stand for."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:  # that of the listing itself
            continue
    return found


@linux
def test_a_file_of_weights_takes_one_descriptor_while_it_is_in_use(copy_of: Copy, backend: str) -> None:
    folder = copy_of("tiny-xlm-roberta")
    encoder = minisbert.load(folder, backend=backend)
    copies = [minisbert.load(folder, backend=backend) for _ in range(5)]
    taken = [path for path in descriptors() if path.startswith(f"{folder}{os.sep}")]
    assert len(taken) == len(set(taken)) == {"native": 1, "reference": 2}[backend]
    del encoder, copies
    assert not [path for path in descriptors() if path.startswith(f"{folder}{os.sep}")]


def test_many_models_under_a_limit_and_what_is_said_at_its_end(copy_of: Copy, backend: str) -> None:
    """As on macOS, where a process may have 256 descriptors unless it asks for more."""
    folder = copy_of("tiny-bert")  # on the same device as the links to its files
    code = f"""
import os
import resource
import shutil
import minisbert
models = [minisbert.load({str(folder)!r}, backend={backend!r})]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
try:
    for number in range(100):
        folder = f"{folder.parent}/{{number}}"
        shutil.copytree(models[0].path, folder, copy_function=os.link)
        models.append(minisbert.load(folder, backend={backend!r}))
except minisbert.CheckpointError as error:
    print(len(models), error)
assert models[-1].encode("text").shape == (75,)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300 * PATIENCE
    )
    count, _, message = done.stdout.partition(" ")
    assert 40 <= int(count) < 64, done.stderr
    assert "model.safetensors: can't be mapped into memory (Too many open files)" in message
    assert "ulimit -n" in message


@linux
@pytest.mark.skipif(IS_EMULATED, reason="qemu gives no memory back")
@pytest.mark.parametrize("name", TINY)
def test_what_was_packed_is_given_back(copy_of: Copy, name: str) -> None:
    folder = copy_of(name)
    encoder = minisbert.load(folder, backend="native")
    assert resident(folder) == 0
    vectors = encoder.encode(FEW)
    assert resident(folder) > 0  # rows of the table of words
    np.testing.assert_array_equal(minisbert.load(DATA / name).encode(FEW), vectors)


def resident(folder: Path) -> int:
    """How many bytes of a folder's files this process has in memory."""
    size, counts = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:  # the addresses of a map, and at the end of the line its file
            counts = line.partition("/")[2].startswith(f"{folder}{os.sep}"[1:])
        elif counts and line.startswith("Rss:"):
            size += int(line.split()[1]) * 1024
    return size
