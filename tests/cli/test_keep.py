"""``minisbert encode --keep``: columns beside the texts, their types, and what Parquet says of how it was encoded."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.commandline import MODEL, Calls, Encoder, Run, check_error, read_output, write_rows

pytestmark = pytest.mark.usefixtures("place")
ROWS = [
    {"id": "1", "brand": "Acme", "text": "red shoes"},
    {"id": "2", "brand": "Ünï", "text": "blue\nshoes"},
    {"id": "3", "brand": "", "text": ""},
]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read all columns but the vectors."""
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    else:
        rows = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
    return [{name: value for name, value in row.items() if name != "embedding"} for row in rows]


@pytest.fixture(params=["out.jsonl", "out.parquet"])
def kept(request: pytest.FixtureRequest) -> Path:
    if request.param == "out.parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow, which is optional")
    return Path(request.param)


@pytest.mark.parametrize(
    ("keep", "names"),
    [
        (["--keep"], ["id", "brand"]),
        (["--keep", "brand"], ["brand"]),
        (["--keep", "text,id"], ["id"]),
        ([], []),
    ],
)
def test_columns_are_kept(run: Run, bert: Encoder, kept: Path, keep: list[str], names: list[str]) -> None:
    assert run("encode", write_rows("csv", ROWS), "-o", kept, *keep).status == 0
    assert read_rows(kept) == [{name: row[name] for name in ["text", *names]} for row in ROWS]
    texts = [row["text"] for row in ROWS]
    np.testing.assert_array_equal(read_output(kept)[1], bert.encode(texts), strict=kept.suffix != ".jsonl")


TYPES = [  # values of a column of JSONL, its type, and how they are read again
    ([1, None, -(1 << 63)], "int64", [1, None, -(1 << 63)]),
    ([1, 2.5, None], "double", [1.0, 2.5, None]),
    ([True, None, False], "bool", [True, None, False]),
    (["a", None, "猫"], "string", ["a", None, "猫"]),
    ([None, None, None], "string", [None, None, None]),
    ([1, "a", True], "string", ["1", "a", "true"]),
    ([(1 << 53) + 1, 2.5, None], "string", ["9007199254740993", "2.5", None]),
    ([1 << 63, 1, 2], "string", ["9223372036854775808", "1", "2"]),
    ([["x", 1], {"é": None}, "y"], "string", ['["x", 1]', '{"é": null}', "y"]),
]


@pytest.mark.parametrize(("values", "type", "found"), TYPES)
def test_types_of_jsonl(run: Run, values: list[Any], type: str, found: list[Any]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"text": "x", "column": value} for value in values]
    assert run("encode", write_rows("jsonl", rows), "-o", "out.parquet", "--keep").status == 0
    column = parquet.read_table("out.parquet").column("column")
    assert (str(column.type), column.to_pylist()) == (type, found)
    assert run("encode", "rows.jsonl", "-o", "out.jsonl", "--keep").status == 0
    assert [row["column"] for row in read_rows(Path("out.jsonl"))] == values


def test_rows_that_lack_a_column_have_nothing_there(run: Run) -> None:
    rows = [{"text": "a"}, {"text": "b", "id": 7}]
    pytest.importorskip("pyarrow")
    for names in (["--keep"], ["--keep", "id"]):
        assert run("encode", write_rows("jsonl", rows), "-o", "out.parquet", *names).status == 0
        assert read_rows(Path("out.parquet")) == [{"text": "a", "id": None}, {"text": "b", "id": 7}]


def test_a_bad_line_keeps_its_place(run: Run, kept: Path) -> None:
    Path("rows.csv").write_text("id,text\n1,a\n2\n3,c\n")
    assert run("encode", "rows.csv", "-o", kept, "--keep", "--on-bad-lines", "null").status == 0
    assert [row["text"] for row in read_rows(kept)] == ["a", None, "c"]
    assert [row.get("id") for row in read_rows(kept)] == ["1", None, "3"]


def test_the_field_can_be_kept_under_its_own_name(run: Run, kept: Path) -> None:
    rows = write_rows("csv", [{"id": "1", "body": "a"}])
    argv = ["encode", rows, "--field", "body", "-o", kept]
    assert run(*argv, "--keep").status == 0
    assert read_rows(kept) == [{"text": "a", "id": "1"}]
    assert run(*argv, "--keep", "body").status == 0
    assert read_rows(kept) == [{"text": "a", "body": "a"}]


REFUSED = [
    (
        "text,embedding\na,b\n",
        "--keep",
        "rows.csv, line 2: a column 'embedding' can't be kept, as the output has",
    ),
    ("body,text\na,b\n", "--field body --keep", "rows.csv, line 2: a column 'text' can't be kept"),
    ("text,id,id\na,b,c\n", "--keep", "rows.csv, line 1: more than one column 'id', which is to be kept"),
    ("a line\n", "--format text --keep id", "rows.csv: there is no column 'id'; found none"),
    ("text,id\na,b\n", "--keep nothing", "rows.csv: there is no column 'nothing'; found 'text', 'id'"),
    (
        "text,id\na,b\n",
        "--keep id,id",
        "--keep: expected names, each once, with commas between them, found 'id,id'",
    ),
    ("text,id\na,b\n", "--keep id,", "--keep: expected names, each once"),
    (
        '{"text": "a", "id": "\\ud800"}\n',
        "--format jsonl --keep",
        "rows.csv, line 1: a column to keep holds half",
    ),
]


@pytest.mark.parametrize(("content", "argv", "said"), REFUSED)
def test_what_can_not_be_kept_is_named(
    run: Run, calls: Calls, kept: Path, content: str, argv: str, said: str
) -> None:
    Path("rows.csv").write_text(content)
    check_error(run("encode", "rows.csv", "-o", kept, *argv.split()), said)
    assert calls == []
    assert not kept.exists()


def test_a_name_that_is_the_input_is_noticed(run: Run) -> None:
    write_rows("csv", ROWS)
    check_error(
        run("encode", "-o", "out.jsonl", "--keep", "rows.csv"), "--keep rows.csv: is a file; name columns"
    )


def test_vectors_alone_keep_nothing(run: Run) -> None:
    said = "out.npy: --keep needs .parquet or .jsonl; .npy has vectors only"
    check_error(run("encode", write_rows("csv", ROWS), "-o", "out.npy", "--keep"), said)


def test_a_pipe_can_not_be_read_for_its_types(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    content = b'{"text": "a", "id": 1}\n{"text": "b", "id": "x"}\n'
    for output in ("out.parquet", "out.jsonl"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        ran = run("encode", "-o", output, "--keep", "id")
        if output == "out.parquet":
            check_error(ran, "standard input: --keep needs a file, which is read through to find the types")
    assert read_rows(Path("out.jsonl")) == [{"text": "a", "id": 1}, {"text": "b", "id": "x"}]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    said = "standard input: there is no column 'nothing'; found 'text', 'id'"
    check_error(run("encode", "-o", "other.jsonl", "--keep", "nothing"), said)
    assert not Path("other.jsonl").exists()


@pytest.mark.parametrize(
    ("argv", "changed"),
    [
        ("", {}),
        ("--prompt-name query", {"prompt": ""}),
        (
            "--prompt p: --normalize --truncate-dim 16 --precision ubinary --max-seq-length 20 --dtype int8",
            {
                "prompt": "p:",
                "normalize": True,
                "truncate_dim": 16,
                "precision": "ubinary",
                "max_seq_length": 20,
                "dtype": "int8",
            },
        ),
    ],
)
def test_parquet_says_how_it_was_encoded(run: Run, bert: Encoder, argv: str, changed: dict[str, Any]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert run("encode", write_rows("csv", ROWS), "-o", "out.parquet", *argv.split()).status == 0
    found = json.loads(parquet.read_schema("out.parquet").metadata[b"minisbert"])
    assert (
        found
        == {
            "checkpoint": bert.fingerprint,
            "dtype": "float32",
            "max_seq_length": 32,
            "prompt": "",
            "truncate_dim": 75,
            "normalize": False,
            "precision": "float32",
        }
        | changed
    )
    assert str(MODEL.parent) not in str(parquet.read_schema("out.parquet").metadata)
