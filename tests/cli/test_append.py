"""``minisbert encode --append``: rows that are new by their key, once each, after those that are there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import BATCH_TOLERANCE, DATA, largest
from tests.support.commandline import Calls, Encoder, Run, check_error, read_output, small_chunks, write_rows

pytestmark = pytest.mark.usefixtures("place")
parquet = pytest.importorskip("pyarrow.parquet", reason="only Parquet is appended to")
pa = pytest.importorskip("pyarrow")
APPEND = ["-o", "out.parquet", "--append", "--key", "id"]


def rows(*ids: Any, **others: Any) -> list[dict[str, Any]]:
    return [{"id": id, "text": f"text {id}"} | others for id in ids]


def ids() -> list[Any]:
    found: list[Any] = parquet.read_table("out.parquet").column("id").to_pylist()
    return found


@small_chunks
def test_rows_that_are_new_are_added_once(run: Run, bert: Encoder, calls: Calls) -> None:
    first = write_rows("csv", rows("1", "2", "猫", brand="Acme"), "first")
    assert run("encode", first, *APPEND, "--keep").err == "minisbert: out.parquet: 3 x 75 float32\n"
    old = parquet.read_table("out.parquet")
    more = write_rows("csv", rows("猫", "3", "2", "4", "3", "5", brand="Zeta"), "more")
    calls.clear()
    assert run("encode", more, *APPEND).err == "minisbert: out.parquet: 3 x 75 float32 added\n"
    assert calls == [[], ["text 3", "text 4"], ["text 5"]]
    assert ids() == ["1", "2", "猫", "3", "4", "5"]
    table = parquet.read_table("out.parquet")
    assert table.slice(0, 3).equals(old)
    assert table.schema.equals(old.schema, check_metadata=True)
    assert table.column("brand").to_pylist() == ["Acme"] * 3 + ["Zeta"] * 3
    texts, vectors = read_output(Path("out.parquet"))
    assert largest(vectors - bert.encode(texts)) <= BATCH_TOLERANCE
    before = Path("out.parquet").read_bytes()
    calls.clear()
    assert run("encode", more, *APPEND, "--keep").err == "minisbert: out.parquet: 0 x 75 float32 added\n"
    assert Path("out.parquet").read_bytes() == before
    assert calls == [[]]


def test_keys_of_each_type(run: Run) -> None:
    for keys, more in (
        ([1, 2, 2], [2.0, 3]),
        ([True], [False, True]),
        (["1", 1], [1, "2"]),
        ([0.5], [1, 0.5]),
    ):
        Path("out.parquet").unlink(missing_ok=True)
        assert run("encode", write_rows("jsonl", rows(*keys)), *APPEND).status == 0
        assert run("encode", write_rows("jsonl", rows(*more)), *APPEND).status == 0
        kind = type(ids()[0])
        assert ids() == [kind(key) for key in dict.fromkeys(map(kind, [*keys, *more]))]


@pytest.mark.parametrize("field", [[], ["--field", "body"]])
def test_a_text_can_be_its_own_key(run: Run, field: list[str]) -> None:
    name = field[1] if field else "text"
    source = write_rows("jsonl", [{name: text} for text in ("a", "b", "a")])
    for key in {"text", name}:
        assert run("encode", source, "-o", "out.parquet", "--append", "--key", key, *field).status == 0
        assert read_output(Path("out.parquet"))[0] == ["a", "b"]
    Path("texts.txt").write_text("b\nc\nc\n")
    assert run("encode", "texts.txt", "-o", "out.parquet", "--append", "--key", "text").status == 0
    assert read_output(Path("out.parquet"))[0] == ["a", "b", "c"]


OTHER_SETTINGS = [
    (["--normalize"], "was encoded with normalize False, now True; use the same, or write another file"),
    (["--prompt", "a"], "was encoded with prompt '', now 'a'"),
    (["--truncate-dim", "8"], "was encoded with truncate_dim 75, now 8"),
    (["--precision", "binary"], "was encoded with precision 'float32', now 'binary'"),
    (["--max-seq-length", "20"], "was encoded with max_seq_length 32, now 20"),
    (["--dtype", "float16"], "was encoded with dtype 'float32', now 'float16'"),
    (["--model", str(DATA / "tiny-roberta")], "was encoded with another checkpoint; "),
]


@pytest.mark.parametrize(("argv", "said"), OTHER_SETTINGS)
def test_other_settings_are_refused(run: Run, argv: list[str], said: str) -> None:
    assert run("encode", write_rows("csv", rows("1")), *APPEND).status == 0
    before = Path("out.parquet").read_bytes()
    check_error(run("encode", write_rows("csv", rows("2")), *APPEND, *argv), f"out.parquet: {said}")
    assert Path("out.parquet").read_bytes() == before
    assert sorted(os.listdir()) == ["out.parquet", "rows.csv"]


REFUSED = [
    (
        [{"id": "", "text": "a"}],
        [],
        "rows.jsonl, line 1: there is nothing in 'id', by which --append tells rows apart",
    ),
    ([{"id": None, "text": "a"}], [], "rows.jsonl, line 1: there is nothing in 'id'"),
    ([{"id": 3, "text": "a"}, {"text": "b"}], [], "rows.jsonl, line 2: there is nothing in 'id'"),
    (
        [{"id": "x", "text": "a"}],
        [],
        "rows.jsonl, line 1: column 'id' is 'x'; expected int64, which it is in the out",
    ),
    ([{"id": 1.5, "text": "a"}], [], "rows.jsonl, line 1: column 'id' is 1.5; expected int64"),
    ([{"id": 1 << 70, "text": "a"}], [], f"rows.jsonl, line 1: column 'id' is {1 << 70}; expected int64"),
    ([{"id": 3, "text": "a", "new": 1}], ["--keep"], "out.parquet: there is no column 'new'; found 'id'"),
    ([{"key": 3, "text": "a"}], [], "rows.jsonl: there is no column 'id'; found 'key', 'text'"),
    (rows(3), ["--key", "nothing"], "rows.jsonl: there is no column 'nothing'; found 'id', 'text'"),
    (rows(3), ["--on-bad-lines", "null"], "--append goes without --on-bad-lines null: a bad line has no key"),
    (
        rows(3),
        ["-o", "out.jsonl"],
        "out.jsonl: --append needs .parquet, which says how its vectors were made",
    ),
]


@pytest.mark.parametrize(("more", "argv", "said"), REFUSED)
def test_what_can_not_be_added_is_named(
    run: Run, more: list[dict[str, Any]], argv: list[str], said: str
) -> None:
    assert run("encode", write_rows("jsonl", rows(1, 2)), *APPEND).status == 0
    before = Path("out.parquet").read_bytes()
    check_error(run("encode", write_rows("jsonl", more), *APPEND, *argv), said)
    assert Path("out.parquet").read_bytes() == before
    assert sorted(os.listdir()) == ["out.parquet", "rows.jsonl"]


def test_a_key_and_append_go_together(run: Run) -> None:
    source = write_rows("csv", rows("1"))
    for argv in (["--append"], ["--key", "id"]):
        check_error(
            run("encode", source, "-o", "out.parquet", *argv), "--append needs --key, and --key --append"
        )


def test_files_of_others_are_refused(run: Run, bert: Encoder) -> None:
    source = write_rows("csv", rows("1"))
    plain = pa.table({"id": ["0"], "text": ["a"], "embedding": bert.encode(["a"]).tolist()})
    parquet.write_table(plain, "out.parquet")
    check_error(
        run("encode", source, *APPEND), "out.parquet: doesn't say how it was encoded; write another file"
    )
    Path("out.parquet").unlink()
    assert run("encode", source, *APPEND).status == 0
    table = parquet.read_table("out.parquet")
    changed = table.set_column(2, "embedding", plain.column("embedding"))
    parquet.write_table(changed.replace_schema_metadata(table.schema.metadata), "out.parquet")
    check_error(run("encode", source, *APPEND), "out.parquet: its columns were changed since it was encoded")
    Path("out.parquet").write_bytes(b"nothing")
    check_error(run("encode", source, *APPEND), "out.parquet: can't be read as Parquet (")


def test_columns_of_other_programs_keep_their_types(run: Run) -> None:
    assert run("encode", write_rows("jsonl", rows(1, n=1)), *APPEND, "--keep").status == 0
    table = parquet.read_table("out.parquet")
    narrow = table.set_column(2, "n", pa.array([1], pa.int16())).replace_schema_metadata(
        table.schema.metadata
    )
    parquet.write_table(narrow, "out.parquet")
    assert run("encode", write_rows("jsonl", rows(2, n=2)), *APPEND).status == 0
    assert (
        parquet.read_table("out.parquet").column("n").equals(pa.chunked_array([pa.array([1, 2], pa.int16())]))
    )
    check_error(
        run("encode", write_rows("jsonl", rows(3, n=1 << 20)), *APPEND),
        "column 'n' is 1048576; expected int16",
    )


def test_an_empty_file_can_be_begun_and_added_to(run: Run) -> None:
    Path("empty.csv").write_text("id,text\n")
    for source in ("empty.csv", "empty.csv", write_rows("csv", rows("1")), "empty.csv"):
        assert run("encode", source, *APPEND).status == 0
    assert ids() == ["1"]
    np.testing.assert_equal(read_output(Path("out.parquet"))[1].shape, (1, 75))
