"""``minisbert convert`` and ``minisbert compare``."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import minisbert
from minisbert.checkpoint.repository import INT8_WEIGHTS
from minisbert.cli import compare
from minisbert.cli.textio import Record
from tests.conftest import DATA
from tests.support import texts
from tests.support.commandline import MODEL, Run, check_error, posix, python, write_input

pytestmark = pytest.mark.usefixtures("place")


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from minisbert.convert import convert_checkpoint

    return convert_checkpoint(MODEL, tmp_path_factory.mktemp("converted") / "int8", dtype="int8")


# --- convert ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8"])
def test_convert(run: Run, dtype: str) -> None:
    ran = run("convert", MODEL, "-o", "out", "--dtype", dtype)
    size = sum(path.stat().st_size for path in Path("out").glob("*.safetensors"))
    assert ran == (0, "", f"minisbert: out: {size / 1e6:.1f} MB of weights in {dtype}\n")
    facts = json.loads(run("info", "--model", "out", "--json").out)
    assert facts["dtype"] == ("int8" if dtype == "int8" else "float32")
    check_error(
        run("convert", MODEL, "-o", "out"), "out: there is such a file or folder; name one that is not there"
    )


def test_convert_quietly_a_cross_encoder(run: Run) -> None:
    assert run("convert", DATA / "cross-bert", "-o", "out", "--dtype", "int8", "--quiet") == (0, "", "")
    write_input("txt", ["one", "two"])
    ran = run("rerank", "one", "texts.txt", "--model", "out")
    assert ran.status == 0
    assert len(ran.out.splitlines()) == 3


CONVERT_ERRORS = [
    ("convert ./missing -o out", "missing: there is no such folder; expected a checkpoint folder"),
    ("convert . -o out", "config.json: there is no such file"),
    ("convert {model} -o no/out", "no/out: there is no folder no; make it first"),
    ("convert {model} -o {model}", "there is such a file or folder"),
    ("convert {model} -o out --dtype int4", "invalid choice: 'int4'"),
    ("convert {model}", "arguments are required: -o/--output (see minisbert convert --help)"),
    (
        "convert {int8} -o out --dtype int8",
        f"{INT8_WEIGHTS}: the weights are int8 already; convert the original",
    ),
    ("info --model {int8} --dtype float16", "dtype is float16, and the weights in"),
    ("compare {int8} texts.txt", "dtype is float32, and the weights in"),
    ("compare {model} texts.txt --against {other}", "has vectors of 69 components, not 75"),
    ("compare {model} two.txt", "two.txt: 2 texts that are not blank; at least 3 are needed"),
    ("compare {cross} texts.txt", "load it with minisbert.load_cross_encoder"),
    ("compare {model} texts.txt --sample 0", "expected a whole number of at least 1"),
    ("compare {model} none.txt", "none.txt: No such file or directory"),
]


@pytest.mark.parametrize(("argv", "message"), CONVERT_ERRORS)
def test_errors(run: Run, int8: Path, argv: str, message: str) -> None:
    Path("texts.txt").write_text("one\ntwo\nthree\n")
    Path("two.txt").write_text("one\n \n\ntwo\n")
    places = {"other": DATA / "tiny-roberta", "cross": DATA / "cross-bert", "model": MODEL, "int8": int8}
    check_error(run(*argv.format(**places).split()), message)
    assert not Path("out").exists()
    assert not [name for name in os.listdir() if name.startswith(".minisbert")]


STRUCK = """
import os, signal, sys
from minisbert.cli import commands, report
report._line_by_line = lambda *arguments: lambda count: os.kill(os.getpid(), signal.SIGTERM)
sys.argv = ["minisbert", "convert", {model!r}, "-o", "out", "--dtype", "int8"]
commands.main()
"""


@posix
def test_a_signal_leaves_nothing_behind() -> None:
    with python("-c", STRUCK.format(model=str(MODEL))) as running:
        out, err = running.communicate()
    assert (running.returncode, out, err) == (-signal.SIGTERM, b"", b"")
    assert os.listdir() == []


# --- check ------------------------------------------------------------------------------------------------------


def test_check_understands_int8(run: Run, int8: Path) -> None:
    ran = run("check", int8)
    assert ran.status == 0
    assert f"tensors of {INT8_WEIGHTS}\n" in ran.out
    assert re.search(r"understood  embeddings \(1\), layers \(18\): int8", ran.out)
    assert re.search(r"understood  .*minisbert_quantization|minisbert_quantization\n", ran.out)
    assert ran.out.splitlines()[-1].startswith("loads: SentenceEncoder(")
    assert "int8" in ran.out.splitlines()[-1]
    assert "ignored" not in re.findall(rf".*{INT8_WEIGHTS}.*", ran.out)[0]


def test_check_tells_what_is_damaged(run: Run, int8: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.numpy import load_file, save_file

    folder = shutil.copytree(int8, tmp_path / "copy")
    tensors = load_file(folder / INT8_WEIGHTS)
    name = "encoder.layer.0.output.dense.weight_scale"
    tensors[name][0] = np.nan
    save_file(tensors, folder / INT8_WEIGHTS)
    ran = run("check", folder)
    assert (ran.status, ran.out.splitlines()[-4:][0]) == (1, "refused, for 1 reason")
    assert name in ran.out


# --- compare ----------------------------------------------------------------------------------------------------


def test_compare(run: Run) -> None:
    some = [" ".join(text.split())[:100] for text in texts.all_texts()[::7]]
    path = write_input("txt", some)
    ran = run("compare", MODEL, path, "--dtype", "int8", "--json")
    assert (ran.status, ran.err) == (0, "")
    found = json.loads(ran.out)
    kept = {line: text for line, text in enumerate(some, 1) if text}
    exact, rounded = (
        minisbert.load(MODEL, dtype=dtype).encode(list(kept.values()), truncation="silent").astype(float)
        for dtype in ("float32", "int8")
    )
    errors = 1 - (exact * rounded).sum(axis=1)  # this model normalises
    assert found["models"] == [str(MODEL)] * 2
    assert found["dtypes"] == ["int8", "float32"]
    assert (found["texts"], found["of"]) == (len(kept), len(kept))
    assert found["mean"] == pytest.approx(errors.mean(), rel=1e-3)
    assert found["worst"] == pytest.approx(errors.max(), rel=1e-3)
    scores = [vectors @ vectors.T - 9 * np.eye(len(kept)) for vectors in (exact, rounded)]
    nearest = [[set(row) for row in np.argsort(-every)[:, :10]] for every in scores]
    shared = [len(a & b) / 10 for a, b in zip(*nearest, strict=True)]
    assert found["nearest_kept"] == pytest.approx(np.mean(shared), abs=2 / len(kept))
    pairs = np.triu_indices(len(kept), 1)
    ranks = [every[pairs].argsort().argsort() for every in scores]
    assert found["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-4)
    assert 0.9 < found["spearman"] < 1
    assert found["memory_bytes"][0] < found["memory_bytes"][1]
    assert found["disk_bytes"] == [(MODEL / "model.safetensors").stat().st_size] * 2
    assert found["speed_up"] > 0
    assert found["speed_up_alone"] > 0
    worst = np.argsort(-errors)[:5]
    assert [row["line"] for row in found["worst_texts"]] == [list(kept)[i] for i in worst]
    assert [row["text"] for row in found["worst_texts"]] == [list(kept.values())[i] for i in worst]


def test_compare_for_people(run: Run, int8: Path) -> None:
    path = write_input("csv", ["one text", "two texts", "", "x" * 100, "four"])
    ran = run("compare", int8, path, "--against", MODEL, "--sample", "3")
    assert (ran.status, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == "int8 instead of float32: 3 of 4 texts"
    sizes = [(int8 / INT8_WEIGHTS).stat().st_size, (MODEL / "model.safetensors").stat().st_size]
    assert f"  on disk       {sizes[0] / 1e6:.1f} MB instead of {sizes[1] / 1e6:.1f} MB" in lines
    assert [line.split()[:2] for line in lines[1:5]] == [
        ["1", "-"],
        ["10", "nearest"],
        ["similarities", "rank"],
        ["speed", lines[4].split()[1]],
    ]
    assert len(lines) == 14
    assert max(map(len, lines)) <= 80


def test_compare_with_itself_finds_nothing(run: Run) -> None:
    path = write_input("txt", ["one", "two", "three", "one", "one"])
    found = json.loads(run("compare", MODEL, path, "--dtype", "float32", "--json").out)
    assert (found["mean"], found["worst"], found["nearest_kept"]) == (0, 0, 1)
    assert found["spearman"] == pytest.approx(1)
    same = write_input("txt", ["one"] * 4)
    found = json.loads(run("compare", MODEL, same, "--json").out)
    assert (found["nearest_kept"], found["spearman"]) == (1, 1)


def test_a_sample_is_fair_ordered_and_always_the_same() -> None:
    records = [
        Record(line, None if line % 5 == 0 else "" if line % 7 == 0 else "text") for line in range(1, 1001)
    ]
    there = [record for record in records if record.text]
    assert compare._sample(iter(records), 2000) == (there, len(there))
    chosen, count = compare._sample(iter(records), 100)
    assert (len(chosen), count) == (100, len(there))
    assert chosen == sorted(chosen, key=lambda record: record.line)
    assert (chosen, count) == compare._sample(iter(records), 100)
    assert 400 < np.mean([record.line for record in chosen]) < 600


def test_vectors_of_any_length_have_an_error() -> None:
    a = np.array([[3.0, 4], [0, 0], [1e-30, 0], [1, 0]], np.float32)
    b = np.array([[4.0, 3], [0, 0], [0, 1e-30], [-1, 0]], np.float32)
    np.testing.assert_allclose(compare._errors(a, b), [1 - 24 / 25, 0, 1, 2], atol=1e-7)


def test_pairs_that_are_all_alike_have_the_same_ranks() -> None:
    alike, others = np.ones((3, 4), np.float32), np.eye(3, 4, dtype=np.float32)
    others[1] = [1, 1, 0, 0]
    encoders: Any = (SimpleNamespace(similarity=lambda a, b: a @ b.T),) * 2
    assert compare._spearman(encoders, (alike, 2 * alike)) == 1
    assert compare._spearman(encoders, (alike, others)) == 0
    assert compare._spearman(encoders, (others, 3 * others)) == pytest.approx(1)
