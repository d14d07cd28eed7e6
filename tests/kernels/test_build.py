"""Building the kernels: the same bytes each time, for any level, and the same vectors from all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minisbert
from minisbert.kernels.levels import CHOSEN, HOST, LEVELS, host_levels
from minisbert.kernels.runtime import load
from minisbert.kernels.runtime.link import LinkError, link
from tests.conftest import DATA, TINY
from tests.support import texts
from tests.support.environment import PATIENCE

pytest.importorskip("numba", reason="kernels are built by Numba, which is not installed")

from minisbert.kernels.runtime.build import build_all

ENCODE = """
import sys
import numpy as np
import minisbert
from pathlib import Path
from minisbert.kernels.runtime import load
from tests.support import texts
load.FOLDER = Path(sys.argv[1])
for folder in sys.argv[3:]:
    encoder = minisbert.load(folder, backend="native")
    np.save(Path(sys.argv[2], Path(folder).name), encoder.encode(texts.all_texts()[::7], truncation="silent"))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All levels, built here."""
    folder = tmp_path_factory.mktemp("built")
    build_all(folder, [*LEVELS])
    return folder


def test_twice_the_same_bytes(built: Path) -> None:
    """The one in the package was built by another process, in another environment maybe."""
    level = str(CHOSEN)
    again = build_all(built / "again", [level])
    assert [path.read_bytes() for path in again] == [(built / load.file_name(level)).read_bytes()]


def test_all_levels_together_are_small(built: Path) -> None:
    sizes = {path.stem: path.stat().st_size for path in built.glob("*.bin")}
    assert set(sizes) == set(LEVELS)
    assert max(sizes.values()) < 100_000


@pytest.mark.parametrize("level", host_levels()[1:])
def test_every_level_gives_the_same_bits(built: Path, tmp_path: Path, level: str) -> None:
    encode_all(built, tmp_path, level, ENCODE)


def encode_all(built: Path, tmp_path: Path, level: str, code: str) -> None:
    """Encode texts by a level, in a process of its own, and compare with what this process's level gives."""
    folders = [DATA / name for name in TINY]
    subprocess.run(
        [sys.executable, "-c", code, str(built), str(tmp_path), *map(str, folders)],
        env=os.environ | {"MINISBERT_LEVEL": level, "PYTHONPATH": str(Path(minisbert.__file__).parents[1])},
        check=True,
        timeout=300 * PATIENCE,
    )
    for folder in folders:
        found = np.load(tmp_path / f"{folder.name}.npy")
        expected = minisbert.load(folder, backend="native").encode(
            texts.all_texts()[::7], truncation="silent"
        )
        if LEVELS[level].fuses:
            np.testing.assert_array_equal(found, expected)
        else:
            np.testing.assert_allclose(found, expected, atol=3e-6)


@pytest.mark.skipif(HOST != "x86_64", reason="only on x86-64 does Windows call functions in another way")
@pytest.mark.parametrize("level", host_levels())
def test_entries_for_windows_give_the_same_bits(built: Path, tmp_path: Path, level: str) -> None:
    windows = "from tests.support import windows; windows.use_entries_for_windows()"
    encode_all(built, tmp_path, level, ENCODE.replace("load.FOLDER", f"{windows}; load.FOLDER"))


def test_what_is_no_object_file_is_refused() -> None:
    for content in (b"", b"\x7fELF\x01\x01", b"MZ" + bytes(100)):
        with pytest.raises(LinkError, match="not a 64-bit little-endian ELF file"):
            link(content, [])
