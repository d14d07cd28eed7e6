"""With numpy, safetensors and tokenizers alone: folders work, and names say what is to be installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minisbert
from tests.support.commandline import MODEL

# Whose import then fails, as where they were never installed.
WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(["huggingface_hub", "tqdm", "numba", "llvmlite", "pyarrow"]))
"""
COMMAND = WITHOUT + "from minisbert.cli import main\nsys.exit(main())\n"


def run(*arguments: str, code: str = COMMAND, cwd: Path) -> tuple[int, str, str]:
    """Run a command, or other code, without the packages; return the status, the output and what was said."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(minisbert.__file__).parents[1]),
            "MINISBERT_MODEL": str(MODEL),
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("command", ["similarity one two", "search one texts.txt", "info", "check"])
def test_the_commands_work_with_a_folder(tmp_path: Path, command: str) -> None:
    (tmp_path / "texts.txt").write_text("one\ntwo\n")
    arguments = [*command.split(), *([str(MODEL)] if command == "check" else [])]
    status, out, err = run(*arguments, cwd=tmp_path)
    assert (status, err) == (0, "")
    assert out


def test_the_vectors_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("one\ntwo\n")
    assert run("encode", "texts.txt", "-o", "out.npy", cwd=tmp_path)[0] == 0
    expected = minisbert.load(MODEL).encode(["one", "two"])
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)


def test_a_name_says_what_is_to_be_installed(tmp_path: Path) -> None:
    status, out, err = run("similarity", "a", "b", "--model", "a/b", cwd=tmp_path)
    assert (status, out) == (2, "")
    assert err.startswith("minisbert: error: 'a/b' is not a folder, and ")
    assert "pip install huggingface_hub" in err
    assert err.count("\n") == 1


def test_a_bar_that_is_asked_for_is_missed_in_one_warning(tmp_path: Path) -> None:
    code = WITHOUT + (
        "import minisbert\n"
        f"encoder = minisbert.load({str(MODEL)!r})\n"
        "print(encoder.encode(['a', 'b', 'c'] * 300, batch_size=1, show_progress_bar=True).shape)\n"
    )
    status, out, err = run(code=code, cwd=tmp_path)
    assert (status, out) == (0, "(900, 75)\n")
    assert err.count("Warning: no progress bar: ") == 1
    assert "pip install tqdm" in err


def test_nobody_misses_a_bar_that_was_not_asked_for(tmp_path: Path) -> None:
    code = WITHOUT + (
        "import minisbert\n"
        "from minisbert.engine import collect\n"
        "collect.PROGRESS_DELAY, sys.stderr.isatty = 0, lambda: True\n"
        f"minisbert.load({str(MODEL)!r}).encode(['a', 'b', 'c'])\n"
    )
    assert run(code=code, cwd=tmp_path) == (0, "", "")


def test_on_a_terminal_the_command_says_how_far_it_is_in_lines(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("one\ntwo\n")
    code = WITHOUT + (
        "from minisbert.cli import main, report\n"
        "report.LINE_SECONDS, sys.stderr.isatty = 0, lambda: True\n"
        "sys.exit(main())\n"
    )
    status, _, err = run("encode", "texts.txt", "-o", "out.npy", code=code, cwd=tmp_path)
    assert status == 0
    assert "minisbert: Encoding: 2 of 2 texts" in err


def test_info_where_nothing_says_what_is_installed(tmp_path: Path) -> None:
    hide = "from importlib import metadata\nmetadata.MetadataPathFinder.find_distributions = lambda *a, **k: iter(())\n"
    status, out, err = run("info", code=hide + COMMAND, cwd=tmp_path)
    assert (status, err) == (0, "")
    assert "numpy: unknown" in out
