"""What the tests of the ``minisbert`` command share: a folder, a model, a way to run it, files in and out."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import minisbert
from minisbert.cli import commands, textio
from tests.conftest import DATA, edit_json

Encoder = minisbert.SentenceEncoder
MODEL = DATA / "tiny-bert"
REVISION = "0123456789abcdef0123456789abcdef01234567"
# What other splitters take for the end of a line, what CSV quotes, and what JSON escapes.
TEXTS = ["One.", "", 'Commas, "quotes", \\', "a\u2028b\x0bc\x1cd\x85e\rf", "Ünïcödé 猫 🙂", "  x  "]
LONG = "word " * 40  # more than the 32 tokens that the tiny model reads
posix = pytest.mark.skipif(os.name != "posix", reason="the signals, links and pipes of POSIX")
small_chunks = pytest.mark.usefixtures("chunks_of_two")


class Ran(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Ran]
Calls = list[list[str]]
Patch = Callable[[Callable[[list[str]], None]], None]


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every test runs in a folder of its own, on the tiny model, in a terminal of 80 columns."""
    monkeypatch.setenv("MINISBERT_MODEL", str(MODEL))
    monkeypatch.setenv("MINISBERT_CROSS_ENCODER", str(DATA / "cross-bert"))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The snapshot of the tiny model in a cache that has it under the name "org/model", and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = tmp_path / "cache" / "models--org--model"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(REVISION)
    return shutil.copytree(MODEL, model / "snapshots" / REVISION)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process."""

    return lambda *argv: Ran(commands.main([str(argument) for argument in argv]), *capsys.readouterr())


@pytest.fixture
def chunks_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textio, "CHUNK_TEXTS", 2)


@pytest.fixture
def before_encoding(monkeypatch: pytest.MonkeyPatch) -> Patch:
    """Have a function called with the texts of each call of `encode`."""
    encode = Encoder.encode

    def patch(function: Callable[[list[str]], None]) -> None:
        def patched(self: Encoder, sentences: list[str], **options: Any) -> Any:
            function(sentences)
            return encode(self, sentences, **options)

        monkeypatch.setattr(Encoder, "encode", patched)

    return patch


@pytest.fixture
def calls(before_encoding: Patch) -> Calls:
    """The texts of each call of `encode`; the first call asks for the shape, with none."""
    made: Calls = []
    before_encoding(made.append)
    return made


@pytest.fixture
def prompted(copy_of: Callable[[str], Path]) -> Path:
    """The tiny model with prompts."""
    folder = copy_of("tiny-bert")
    prompts = {"query": "what is ", "document": "this is ", "long": LONG}
    edit_json(folder / "config_sentence_transformers.json", prompts=prompts, default_prompt_name="document")
    return folder


@pytest.fixture(params=["out.npy", "out.jsonl", "out.parquet"])
def output(request: pytest.FixtureRequest) -> Path:
    if request.param == "out.parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow, which is optional")
    return Path(request.param)


def process(*argv: str | Path, **options: Any) -> subprocess.Popen[bytes]:
    """Start the command as a process of its own."""
    quick = ["--backend", "reference"]  # to start, that is
    return python("-m", "minisbert", *map(str, argv), *quick, **options)


@contextmanager
def not_ignored(number: int) -> Iterator[None]:
    """Have a signal do what it does by default: one that is ignored here is ignored by children too."""
    before = signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(number, before)


def python(*argv: str, **options: Any) -> subprocess.Popen[bytes]:
    """Start a process of Python that finds minisbert wherever it runs."""
    ours = {"PYTHONPATH": str(Path(minisbert.__file__).parents[1]), "PYTHONUNBUFFERED": ""}
    environment = os.environ | ours | options.pop("env", {})
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen([sys.executable, *argv], env=environment, **pipes)


def write_input(kind: str, texts: Sequence[str]) -> Path:
    """Write texts in a format, beside something else where the format has room for it."""
    path = Path(f"texts.{kind}")
    with path.open("w", encoding="utf-8", newline="") as file:
        if kind == "csv":
            csv.writer(file).writerows([["id", "text"], *enumerate(texts)])
        elif kind == "jsonl":
            file.writelines(json.dumps({"text": text, "id": i}) + "\n" for i, text in enumerate(texts))
        else:
            file.writelines(f"{text}\n" for text in texts)
    return path


def write_rows(kind: str, rows: Sequence[dict[str, Any]], name: str = "rows") -> Path:
    """Write rows of several columns in a format."""
    path = Path(f"{name}.{kind}")
    with path.open("w", encoding="utf-8", newline="") as file:
        if kind == "csv":
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def read_output(path: Path) -> tuple[list[str | None] | None, np.ndarray]:
    """Read texts, if the format has them, and vectors; null, which is in JSONL alone, becomes NaN."""
    if path.suffix == ".npy":
        return None, np.load(path)
    if path.suffix == ".jsonl":
        return from_jsonl(path.read_bytes())
    from pyarrow import parquet

    table = parquet.read_table(path)
    width = table.schema.field("embedding").type.list_size
    flat = table.column("embedding").combine_chunks().flatten().to_numpy()
    return table.column("text").to_pylist(), flat.reshape(-1, width)


def from_jsonl(content: bytes) -> tuple[list[str | None], np.ndarray]:
    """Cut into lines as many do: at whatever `str.splitlines` takes for the end of one."""
    rows = [json.loads(line) for line in content.decode().splitlines()]
    vectors = [[np.nan] * 75 if row["embedding"] is None else row["embedding"] for row in rows]
    return [row["text"] for row in rows], np.array(vectors, np.float32)


def check_error(ran: Ran, message: str) -> None:
    assert ran[:2] == (2, "")
    assert ran.err.startswith("minisbert: error: ")
    assert message in ran.err
    assert ran.err.index("\n") == len(ran.err) - 1
