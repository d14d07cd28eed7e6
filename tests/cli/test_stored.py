"""``minisbert search`` over vectors that are stored: Parquet, JSONL, .npy and texts, and bad ones."""

from __future__ import annotations

import datetime
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minisbert
from minisbert.cli import stored
from tests.conftest import BATCH_TOLERANCE, DATA
from tests.support.commandline import (
    Calls,
    Encoder,
    Run,
    check_error,
    process,
    small_chunks,
    write_input,
    write_rows,
)
from tests.support.rows import BRANDS, KINDS, ROWS, TEXTS, found, store

pytestmark = pytest.mark.usefixtures("place")


# --- search --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 100])
@pytest.mark.parametrize("output", KINDS)
@pytest.mark.parametrize(
    "options",
    [[], ["--precision", "ubinary"], ["--precision", "binary"], ["--truncate-dim", "40", "--normalize"]],
)
@small_chunks
def test_what_is_stored_is_searched(
    run: Run, calls: Calls, monkeypatch: pytest.MonkeyPatch, output: str, options: list[str], k: int
) -> None:
    monkeypatch.setattr(stored, "BLOCK", 4)
    monkeypatch.setattr("minisbert.cli.fit.ALIKE", 0.7)  # of 75 bits one can be another in another batch
    argv = store(run, output, *options)
    texts = [text for text in TEXTS if text.strip()]
    settings = {"truncate_dim": 40, "normalize_embeddings": True} if "40" in options else {}
    precision = options[1] if "--precision" in options else "float32"
    encoder = minisbert.load(DATA / "tiny-bert")
    encoder.truncate_dim = settings.pop("truncate_dim", 75)
    vectors = encoder.encode(texts, precision=precision, **settings)
    scores = encoder.similarity(encoder.encode_query("shoes", precision=precision, **settings), vectors)[0]
    expected = {TEXTS.index(text): score for text, score in zip(texts, scores.tolist(), strict=True)}
    calls.clear()
    rows = found(run("search", "shoes", *argv, "-k", str(k), "--json"))
    assert [row["rank"] for row in rows] == list(range(1, min(k, len(texts)) + 1))
    assert [row["score"] for row in rows] == sorted([row["score"] for row in rows], reverse=True)
    assert [row["score"] for row in rows] == pytest.approx(
        sorted(expected.values(), reverse=True)[:k], abs=BATCH_TOLERANCE
    )
    for row in rows:
        assert row["line"] == row["id"] + 1
        assert row["score"] == pytest.approx(expected[row["id"]], abs=BATCH_TOLERANCE)
        assert {name: row[name] for name in ROWS[0]} == ROWS[row["id"]]
        assert "embedding" not in row
    encoded = [text for call in calls for text in call]
    assert encoded == ["shoes"] if output == "out.parquet" else set(encoded) <= {"shoes", *texts}


WHERE = [
    ("brand=Acme", {0, 3, 6}),
    ("brand=Ünï=1", {2, 5, 8}),
    ("brand=acme", set()),
    ("price=3", {6}),
    ("price=3.0", {6}),
    ("price=x", set()),
    ("new=true", {0, 2, 6, 8}),
    ("text=red shoes", {0}),
    ("id=7", {7}),
]


@pytest.mark.parametrize(("where", "ids"), WHERE)
@pytest.mark.parametrize("source", ["rows.jsonl", *KINDS])
@small_chunks
def test_rows_are_filtered(run: Run, source: str, where: str, ids: set[int]) -> None:
    argv = [write_rows("jsonl", ROWS)] if source == "rows.jsonl" else store(run, source)
    ran = run("search", "x", *argv, "-k", "100", "--json", "--where", where)
    assert {row["id"] for row in found(ran)} == ids
    ran = run("search", "x", *argv, "-k", "100", "--json", "--where", where, "--where", "new=false")
    assert {row["id"] for row in found(ran)} == {row for row in ids if row % 2}
    ran = run("search", "x", *argv, "--where", where, "--where", "nothing=1")
    check_error(ran, f"{argv[0]}: there is no column 'nothing'; found ")


def test_csv_has_strings_to_filter_by(run: Run) -> None:
    rows = write_rows("csv", ROWS)
    argv = ["x", rows, "--where", "price=1.5", "--json"]
    assert [row["id"] for row in found(run("search", *argv))] == ["3"]
    assert [row["id"] for row in found(run("rerank", *argv))] == ["3"]
    said = "minisbert: warning: rows.csv: there is no text to search, where price is '1.50'\n"
    assert run("search", "x", rows, "--where", "price=1.50").err == said
    check_error(run("search", "x", rows, "--where", "price"), "--where: expected NAME=VALUE, found 'price'")
    check_error(
        run("search", "x", write_input("txt", ["a"]), "--where", "a=b"), "--where a=b needs --format jsonl"
    )


def test_columns_are_shown(run: Run) -> None:
    argv = store(run, "out.parquet")
    heading, *lines = run("search", "umbrella", *argv, "-k", "1").out.splitlines()
    assert heading.split() == ["rank", "score", "line", "id", "brand", "price", "new", "text"]
    assert lines[0].split()[2:] == ["4", "3", "Acme", "1.5", "false", "an", "umbrella"]
    heading, *lines = run("search", "x", *argv, "--show", "brand", "-k", "100").out.splitlines()
    assert heading == "rank   score  line  brand  text"
    starts = {line[: line.index(BRANDS[int(line.split()[2]) % 3 - 1])] for line in lines}
    assert {len(start) for start in starts} == {heading.index("brand")}
    assert run("search", "x", "rows.jsonl").out.splitlines()[0] == "rank   score  line  text"


def test_long_cells_leave_room_for_the_text(run: Run) -> None:
    rows = write_rows("jsonl", [{"id": "猫" * 40, "tags": ["a"], "no": None, "text": "x" * 100}])
    argv = ["search", "x", rows, "--truncation", "silent", "--show"]
    heading, line = run(*argv, "id,tags,no").out.splitlines()
    assert heading == f"rank   score  line  id{' ' * 19}tags   no  text"
    assert line.startswith(f'   1  {line[6:12]}     1  {"猫" * 9}…  ["a"]      xxxxxxx')
    said = "rows.jsonl: there is no column 'other'; found 'id', 'tags', 'no', 'text'"
    check_error(run(*argv, "id,other"), said)


@small_chunks
def test_the_best_are_reranked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minisbert.cli.search.RERANKED", 4)
    argv = store(run, "out.parquet")
    best = found(run("search", "shoes", *argv, "-k", "4", "--json"))
    model = minisbert.load_cross_encoder(DATA / "cross-bert")
    expected = [best[result["corpus_id"]] for result in model.rank("shoes", [row["text"] for row in best])]
    rows = found(run("search", "shoes", *argv, "-k", "2", "--json", "--rerank", str(DATA / "cross-bert")))
    assert [row["id"] for row in rows] == [row["id"] for row in expected[:2]]
    assert [row["previous_rank"] for row in rows] == [row["rank"] for row in expected[:2]]
    assert [row["previous_score"] for row in rows] == pytest.approx([row["score"] for row in expected[:2]])
    more = found(run("search", "shoes", *argv, "-k", "6", "--json", "--rerank", str(DATA / "cross-bert")))
    assert len(more) == 6
    check_error(run("search", "x", *argv, "--rerank", DATA / "tiny-bert"), "load it with minisbert.load")


# --- vectors that do not fit ---------------------------------------------------------------------------------


@pytest.mark.parametrize("output", KINDS)
def test_vectors_of_another_checkpoint_are_refused(run: Run, copy_of: Any, output: str) -> None:
    """Of one that is as wide: only Parquet can say so, and of the others the texts are looked at."""
    argv = store(run, output)
    other = copy_of("tiny-bert")
    path = other / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-40_000:] = np.random.default_rng(0).normal(size=10_000).astype(np.float32).tobytes()
    path.write_bytes(content)
    ran = run("search", "x", *argv, "--model", other)
    said = (
        "made by another checkpoint than"
        if output == "out.parquet"
        else f"are not what {other} makes of the texts"
    )
    check_error(ran, said)
    check_error(run("search", "x", *argv, "--model", DATA / "tiny-electra"), str(argv[0]))


def test_another_prompt_than_the_documents_is_told(run: Run, prompted: Path) -> None:
    pytest.importorskip("pyarrow")
    rows = write_rows("jsonl", ROWS)
    model = ["--model", prompted]
    assert run("encode", rows, "-o", "out.parquet", *model, "--prompt", "").status == 0
    assert run("search", "x", "out.parquet", *model).err == (
        "minisbert: warning: out.parquet: was encoded with the prompt ''; the model's for documents is 'this is '\n"
    )
    assert run("encode", rows, "-o", "out.parquet", *model, "--prompt-name", "document").status == 0
    assert run("search", "x", "out.parquet", *model).err == ""


BAD_VECTORS = [
    (
        np.zeros((9, 75), np.int8),
        "rows.jsonl: its vectors are int8, 75 wide",
    ),
    (np.zeros((9, 75), np.int64), "its vectors are int64, 75 wide"),
    (
        np.zeros((9, 76), np.float32),
        "its vectors are float32, 76 wide; expected this model's: float32, 75 wide at",
    ),
    (np.zeros(9, np.float32), "v.npy: has float32 (9,); expected numbers of shape (S, D)"),
    (np.zeros((9, 75), "U1"), "v.npy: has <U1 (9, 75); expected numbers"),
    (np.full((9, 75), np.nan, np.float32), "v.npy, row 1: its vector has NaN or infinity"),
    (
        np.zeros((8, 75), np.float32),
        "v.npy: has 8 vectors, and rows.jsonl 9 texts; name the file of the texts",
    ),
    (np.zeros((10, 75), np.float32), "v.npy: has 10 vectors, and rows.jsonl 9 texts"),
]


@pytest.mark.parametrize(("vectors", "said"), BAD_VECTORS)
def test_bad_arrays_are_named(run: Run, monkeypatch: pytest.MonkeyPatch, vectors: Any, said: str) -> None:
    np.save("v.npy", vectors)
    monkeypatch.setattr("minisbert.cli.fit.ALIKE", -2)
    check_error(run("search", "x", write_rows("jsonl", ROWS), "--vectors", "v.npy"), said)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"nothing", b"PK\x03\x04"])
def test_what_is_no_array_is_named(run: Run, content: bytes) -> None:
    Path("v.npy").write_bytes(content)
    check_error(
        run("search", "x", write_rows("jsonl", ROWS), "--vectors", "v.npy"), "v.npy: is no array of NumPy ("
    )
    check_error(run("search", "x", "rows.jsonl", "--vectors", "no.npy"), "no.npy: No such file")


BAD_ROWS = [
    (
        "null",
        "rows.jsonl, line 2: field 'embedding' is no vector; expected 75 numbers, float32 as in the first",
    ),
    ("[1.5]", "line 2: field 'embedding' is no vector"),
    ('["a"]', "line 2: field 'embedding' is no vector"),
    (f"[{', '.join(['1e999'] * 75)}]", "rows.jsonl, line 2: its vector has NaN or infinity"),
    (f"[{', '.join(['1e300'] * 75)}]", "rows.jsonl, line 2: its vector has NaN or infinity"),
]


@pytest.mark.parametrize(("vector", "said"), BAD_ROWS)
def test_bad_rows_of_jsonl_are_named(run: Run, bert: Encoder, vector: str, said: str) -> None:
    good = json.dumps(bert.encode("a").tolist())
    Path("rows.jsonl").write_text(
        f'{{"text": "a", "embedding": {good}}}\n{{"text": "b", "embedding": {vector}}}\n'
    )
    check_error(run("search", "x", "rows.jsonl"), said)
    Path("rows.jsonl").write_text(
        f'{{"text": "a", "embedding": {good}}}\n{{"text": null, "embedding": null}}\n'
    )
    assert len(found(run("search", "x", "rows.jsonl", "--json", "--on-bad-lines", "null"))) == 1


def test_bad_parquet_is_named(run: Run, bert: Encoder) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    vectors = bert.encode(["a", "b"]).tolist()

    def searched(**columns: Any) -> Any:
        parquet.write_table(pa.table(columns), "p.parquet")
        return run("search", "x", "p.parquet", "--json")

    assert (
        len(found(searched(text=["a", "b"], embedding=vectors))) == 2
    )  # lists of any length, and no settings
    assert len(found(searched(text=["a", None], embedding=[vectors[0], None]))) == 1
    check_error(
        searched(text=["a", "b"], embedding=[vectors[0], None]), "p.parquet, row 2: 'embedding' has 0 numbers"
    )
    check_error(
        searched(text=["a", "b"], embedding=[vectors[0], [1.5]]),
        "row 2: 'embedding' has 1 numbers; expected 75",
    )
    check_error(
        searched(text=["a"], embedding=[[None, *vectors[0][1:]]]),
        "row 1: 'embedding' has 74 numbers; expected 75",
    )
    check_error(searched(text=["a"], embedding=[["x"]]), "column 'embedding' is list<")
    check_error(
        searched(text=["a"], embedding=[1.5]), "column 'embedding' is double; expected lists of numbers"
    )
    for kind, dtype in ((pa.float64(), np.float64), (pa.float16(), np.float16)):
        numbers = pa.array([np.array(row, dtype) for row in vectors], pa.list_(kind))
        assert len(found(searched(text=["a", "b"], embedding=numbers))) == 2
    check_error(
        searched(text=["a"], embedding=["x"]), "column 'embedding' is string; expected lists of numbers"
    )
    check_error(searched(text=["a"]), "p.parquet: there is no column 'embedding'; found 'text'")
    check_error(
        searched(body=["a"], embedding=vectors[:1]), "p.parquet: there is no column 'text'; found 'body'"
    )
    assert len(found(run("search", "x", "p.parquet", "--field", "body", "--json"))) == 1
    check_error(
        run("search", "x", "p.parquet", "--separator", ";"), "p.parquet: --separator is not for Parquet"
    )
    Path("p.parquet").write_bytes(Path("p.parquet").read_bytes()[:-20])
    check_error(run("search", "x", "p.parquet"), "p.parquet: can't be read as Parquet (")
    schema = pa.schema(
        [("text", pa.string()), ("embedding", pa.list_(pa.float32(), 75))], {"minisbert": "{}"}
    )
    parquet.write_table(pa.table({"text": ["a"], "embedding": vectors[:1]}, schema=schema), "p.parquet")
    check_error(
        run("search", "x", "p.parquet"), "p.parquet: its metadata 'minisbert' are damaged, or of a later"
    )


def test_columns_of_any_type_are_shown(run: Run, bert: Encoder) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    day = datetime.date(2026, 11, 27)
    columns = {"day": [day], "tags": [["a"]], "text": ["a"], "embedding": bert.encode(["a"]).tolist()}
    parquet.write_table(pa.table(columns), "p.parquet")
    assert (
        found(run("search", "x", "p.parquet", "--json"))[0].items()
        >= {"day": str(day), "tags": ["a"]}.items()
    )
    assert run("search", "x", "p.parquet", "--where", f"day={day}").out.splitlines()[1].split()[3:] == [
        str(day),
        '["a"]',
        "a",
    ]


def test_a_pipe_has_no_stored_vectors(run: Run, bert: Encoder) -> None:
    rows = json.dumps({"text": "a", "embedding": [1.5]}).encode()
    np.save("v.npy", bert.encode(["a"]))
    for argv, status, said in (
        ([], 0, b""),
        (
            ["--vectors", "v.npy"],
            2,
            b"standard input: --vectors needs a file, as a pipe can't be read once more\n",
        ),
    ):
        with process("search", "x", "-", *argv, stdin=subprocess.PIPE) as running:
            _, err = running.communicate(rows)
        assert running.returncode == status
        assert err.endswith(said)
