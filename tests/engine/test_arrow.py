"""Arrow's arrays of strings as inputs: their items are scalars, not strings."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minisbert
from tests.conftest import DATA, FEW
from tests.support.environment import PATIENCE

pa = pytest.importorskip("pyarrow", reason="pyarrow is optional")


@pytest.mark.parametrize(
    "make",
    [
        pa.array,
        lambda texts: pa.array(texts, pa.large_string()),
        lambda texts: pa.array(texts).dictionary_encode(),
        lambda texts: pa.chunked_array([texts[:2], [], texts[2:]]),
        lambda texts: pa.table({"text": texts})["text"],
        lambda texts: iter(pa.array(texts)),
        lambda texts: list(pa.array(texts)),
    ],
    ids=["array", "large strings", "dictionary", "chunks", "column", "iterator", "list of scalars"],
)
def test_arrays_of_strings(bert: minisbert.SentenceEncoder, make: Callable[[list[str]], Any]) -> None:
    texts = [*FEW, *map(str, range(2000))]  # more than are read at once
    np.testing.assert_array_equal(bert.encode(make(texts)), bert.encode(texts))
    assert bert.token_counts(make(FEW)).tolist() == bert.token_counts(FEW).tolist()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", None, "b"], "sentence 1 is NoneType None"),
        ([b"a"], r"sentence 0 is bytes b'a'.*decode"),
        ([1, 2], "sentence 0 is int 1"),
        ([["a", "b"]], r"sentence 0 is list \['a', 'b'\]"),
    ],
)
def test_what_is_no_string_is_named(bert: minisbert.SentenceEncoder, values: list[Any], message: str) -> None:
    with pytest.raises(minisbert.EncodeTypeError, match=message):
        bert.encode(pa.array(values))


def test_a_table_is_no_column(bert: minisbert.SentenceEncoder) -> None:
    with pytest.raises(minisbert.EncodeTypeError, match="sentences is Table"):
        bert.encode(pa.table({"text": ["a", "b"]}))


def test_pairs_and_documents() -> None:
    model = minisbert.load_cross_encoder(DATA / "cross-bert")
    pairs = [("one", "two"), ("three", "four"), ("", "x")]
    expected = model.predict(pairs)
    columns = [pa.array(column) for column in zip(*pairs, strict=True)]
    np.testing.assert_array_equal(model.predict(pa.array(map(list, pairs))), expected)
    np.testing.assert_array_equal(model.predict(zip(*columns, strict=True)), expected)
    assert model.predict([columns[0][0], columns[1][0]]) == expected[0]
    documents = ["four", "two"]
    found = model.rank(columns[0][0], pa.array(documents), return_documents=True)
    assert found == model.rank("one", documents, return_documents=True)
    with pytest.raises(minisbert.EncodeTypeError, match="text 1 of pair 1 is NoneType"):
        model.predict(zip(pa.array(["a", "b"]), pa.array(["c", None]), strict=True))
    with pytest.raises(minisbert.EncodeTypeError, match="pair 0 is str 'one'"):
        model.predict(columns[0])


def test_other_inputs_import_no_arrow() -> None:
    code = (
        "import sys, minisbert; "
        f"minisbert.load({str(DATA / 'tiny-bert')!r}, backend='reference').encode(['a']); "
        "assert 'pyarrow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120 * PATIENCE)
