"""`SentenceEncoder.encode`: what comes out."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from collections import UserList
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minisbert
from minisbert.engine import batching, collect, inputs
from tests.conftest import BATCH_TOLERANCE, DATA, FEW, largest

Encoder = minisbert.SentenceEncoder
SOURCES = str(Path(minisbert.__file__).parents[1])


def test_order_is_kept_over_chunks_and_batches(bert: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{'word ' * (i % 7)}{i}" for i in range(50)]
    alone = np.stack([bert.encode(text) for text in texts])
    monkeypatch.setattr(inputs, "CHUNK", 7)
    monkeypatch.setattr(batching, "TOKENS_PER_BATCH", 30)
    monkeypatch.setattr(batching, "SHARED_TOKENS", 0)
    assert largest(bert.encode(texts) - alone) <= BATCH_TOLERANCE


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=40), max_size=9), st.integers(1, 5))
def test_any_text_alone_or_in_a_batch_has_a_unit_vector(texts: list[str], batch_size: int) -> None:
    encoder = _bert()
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]
    found = encoder.encode(texts, batch_size=batch_size, truncation="silent")
    assert found.shape == (len(texts), 75)
    assert largest(np.linalg.norm(found, axis=1) - 1) <= 1e-6
    for text, vector in zip(texts, found, strict=True):
        assert largest(encoder.encode(text, truncation="silent") - vector) <= BATCH_TOLERANCE


_cache: list[Encoder] = []


def _bert() -> Encoder:  # hypothesis wants no function-scoped fixtures
    if not _cache:
        _cache.append(minisbert.load(DATA / "tiny-bert"))
    return _cache[0]


def test_micro_batches_hold_every_row_once() -> None:
    lengths = [3, 900, 1, 0, 512, 511, 2, 7]
    batches = batching.micro_batches(lengths, 3, 2, 224)
    assert sorted(row for batch in batches for row in batch) == list(range(8))
    assert all(len(batch) <= 3 for batch in batches)
    assert batches[0] == [1]  # longer than the budget: alone, and first
    assert all(len(batch) == 1 or sum(lengths[r] for r in batch) <= 224 for batch in batches)
    assert batching.micro_batches([], 3, 2, 224) == []


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("length", [1, 13, 100])
@pytest.mark.parametrize("most", [112, 224])
def test_the_last_micro_batches_shrink(threads: int, length: int, most: int) -> None:
    lengths = [length] * (10_000 // length)
    batches = batching.micro_batches(lengths, len(lengths), threads, most)
    sizes = [len(batch) * length for batch in batches]
    assert sizes[:-1] == sorted(sizes[:-1], reverse=True)
    assert most - length < max(sizes) <= most  # and so do not, while there is enough
    assert threads == 1 or sizes[-1] <= max(batching.FEWEST_TOKENS, length)  # no text is cut
    few = lengths[: batching.SHARED_TOKENS // length]
    assert len(batching.micro_batches(few, len(few), threads, most)) == 1  # for all threads at once


def test_of_a_wide_model_micro_batches_have_fewer_tokens() -> None:
    found = [batching.tokens_per_batch(width) for width in (256, 1536, 3072, 4096, 1 << 30)]
    assert found == [224, 224, 112, 84, 0]  # 0: a batch for each text
    assert batching.micro_batches([600, 5, 4], 32, 2, 0) == [[0], [1], [2]]


def test_token_embeddings_are_a_ragged_list(bert: Encoder) -> None:
    states = bert.encode(FEW, output_value="token_embeddings")
    assert [len(state) for state in states] == bert.token_counts(FEW).tolist()
    pooled = np.stack([state.mean(axis=0) for state in states])
    expected = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    assert largest(expected - bert.encode(FEW)) <= BATCH_TOLERANCE
    assert largest(bert.encode("third", output_value="token_embeddings") - states[3]) <= 10 * BATCH_TOLERANCE


def test_truncate_dim_then_normalise(bert: Encoder) -> None:
    whole = bert.encode(FEW)
    cut = bert.encode(FEW, truncate_dim=10)
    np.testing.assert_array_equal(cut, whole[:, :10])
    assert cut.flags.c_contiguous
    unit = bert.encode(FEW, truncate_dim=10, normalize_embeddings=True)
    assert largest(unit - cut / np.linalg.norm(cut, axis=1, keepdims=True)) <= 1e-6
    assert largest(bert.encode("third", truncate_dim=10) - cut[3]) <= BATCH_TOLERANCE


@pytest.mark.filterwarnings("ignore::minisbert.CalibrationWarning")
@pytest.mark.parametrize(
    ("precision", "dtype", "width"),
    [("int8", np.int8, 75), ("uint8", np.uint8, 75), ("binary", np.int8, 10), ("ubinary", np.uint8, 10)],
)
def test_precisions(
    bert: Encoder, precision: str, dtype: Any, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = minisbert.vectors.quantize(bert.encode(FEW), precision)
    monkeypatch.setattr(inputs, "CHUNK", 2)  # ranges are over all sentences, not over a chunk
    for collection in (FEW, iter(FEW)):
        found = bert.encode(collection, precision=precision)
        assert found.dtype == dtype
        assert found.shape == (6, width)
        assert np.abs(found.astype(int) - whole.astype(int)).max() <= (1 if "int8" in precision else 0)


def test_a_range_needs_more_than_one_sentence(bert: Encoder) -> None:
    with pytest.raises(minisbert.EncodeValueError, match=r"precision='int8'.*one sentence"):
        bert.encode("one", precision="int8")


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_with_ranges_calls_can_be_compared(bert: Encoder, precision: str) -> None:
    found = bert.encode([*FEW, "more", "texts"])
    ranges = np.stack([found.min(axis=0), found.max(axis=0)])
    whole = minisbert.vectors.quantize(bert.encode(FEW), precision, ranges)
    for collection in (FEW, iter(FEW)):
        np.testing.assert_array_equal(bert.encode(collection, precision=precision, ranges=ranges), whole)
    alone = [bert.encode(text, precision=precision, ranges=ranges) for text in FEW]
    assert {(vector.dtype, vector.shape) for vector in alone} == {(np.dtype(precision), (75,))}
    assert np.abs(np.array(alone, int) - whole).max() <= 1  # BLAS, where it computes, moves last bits
    cut = bert.encode(FEW, precision=precision, ranges=ranges[:, :10], truncate_dim=10)
    np.testing.assert_array_equal(cut, whole[:, :10])


def test_with_ranges_nothing_waits_for_the_last_text(bert: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "CHUNK", 4)
    out = np.zeros((20, 75), np.uint8)
    ahead = []

    def texts() -> Iterator[str]:
        for i in range(20):
            ahead.append(i - int(out.any(axis=1).sum()))
            yield f"text {i}"

    bert.encode(texts(), precision="uint8", ranges=[[-1.0] * 75, [1.0] * 75], out=out)
    assert max(ahead) <= 3 * 4


@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document"])
def test_without_ranges_it_is_said_that_calls_can_t_be_compared(bert: Encoder, method: str) -> None:
    for texts in (FEW, FEW[:3]):
        with pytest.warns(minisbert.CalibrationWarning, match=r"can't be compared.*ranges=np.stack") as seen:
            getattr(bert, method)(texts, precision="int8")
        assert [warning.filename for warning in seen] == [__file__]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precision": "int8", "ranges": np.zeros((2, 74))}, r"\(2, 74\); expected .*\(2, 75\)"),
        ({"precision": "int8", "ranges": np.zeros((2, 75)), "truncate_dim": 10}, r"\(2, 10\)"),
        ({"ranges": np.zeros((2, 75))}, "ranges go with precision 'int8'"),
        ({"ranges": np.zeros((2, 75)), "output_value": "token_embeddings"}, "ragged"),
    ],
)
def test_impossible_ranges(bert: Encoder, arguments: dict[str, Any], message: str) -> None:
    def texts() -> Iterator[str]:
        raise AssertionError("it should be seen before anything is read")
        yield ""

    with pytest.raises(minisbert.EncodeValueError, match=message):
        bert.encode(texts(), **arguments)


@pytest.mark.filterwarnings("ignore::minisbert.CalibrationWarning")
@pytest.mark.parametrize("precision", ["float32", "int8", "ubinary"])
def test_out_is_filled_in_place(bert: Encoder, precision: str, tmp_path: Path) -> None:
    expected = bert.encode(FEW, precision=precision)
    path = tmp_path / "vectors.npy"
    out = np.lib.format.open_memmap(path, "w+", expected.dtype, expected.shape)
    for collection in (FEW, iter(FEW)):
        out[:] = 0
        assert bert.encode(collection, precision=precision, out=out) is out
        np.testing.assert_array_equal(out, expected)
    out.flush()
    np.testing.assert_array_equal(np.load(path), expected)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.empty((5, 75), np.float32), r"float32 \(5, 75\); expected a float32 array of shape \(6, 75\)"),
        (np.empty((6, 74), np.float32), r"\(6, 74\)"),
        (np.empty((6, 75), np.float64), "float64"),
        (np.empty(6, np.float32), r"\(6,\)"),
        ([[0.0] * 75] * 6, "list"),
    ],
)
def test_an_out_that_does_not_fit(bert: Encoder, out: Any, message: str) -> None:
    with pytest.raises(minisbert.EncodeValueError, match=message):
        bert.encode(FEW, out=out)


def test_a_read_only_out(bert: Encoder) -> None:
    out = np.empty((6, 75), np.float32)
    out.flags.writeable = False
    with pytest.raises(minisbert.EncodeValueError, match="read-only"):
        bert.encode(FEW, out=out)


@pytest.mark.parametrize(
    ("rows", "message"), [(5, "more sentences than the 5"), (7, "were 6 sentences; expected 7")]
)
def test_a_generator_that_does_not_fit_out(bert: Encoder, rows: int, message: str) -> None:
    with pytest.raises(minisbert.EncodeValueError, match=message):
        bert.encode(iter(FEW), out=np.empty((rows, 75), np.float32))


def test_a_generator_is_read_as_it_is_encoded(bert: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "CHUNK", 4)
    out = np.zeros((20, 75), np.float32)
    ahead = []

    def texts() -> Iterator[str]:
        for i in range(20):
            ahead.append(i - int((out != 0).any(axis=1).sum()))
            yield f"text {i}"

    bert.encode(texts(), out=out)
    assert max(ahead) <= 3 * 4


GATHERING = r"""
import re
import sys
from pathlib import Path
import numpy as np
from minisbert.engine import collect

def peak():
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])

block, count = np.ones((1000, 64), np.float32), eval(sys.argv[1])
before = peak()
collector = collect.Collector(None, count, 64, "float32", np.dtype(np.float32))
for _ in range(512):
    collector.add(block)
result = collector.result()
assert result.shape == (512_000, 64) and result.all()
assert result.nbytes > 2 * collect.ROOM  # so it had to grow
print((peak() - before) / result.nbytes)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
@pytest.mark.parametrize("count", ["None", "512_000"])
def test_the_vectors_of_a_generator_are_not_in_memory_twice(count: str) -> None:
    """In a process of its own: memory that was reserved and never touched costs nothing, and counts in no peak."""
    command = [sys.executable, "-c", GATHERING, count]
    ran = subprocess.run(command, env=os.environ | {"PYTHONPATH": SOURCES}, capture_output=True, check=True)
    assert 0.9 < float(ran.stdout) < 1.15


def test_memory_grows_in_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    resize = collect.Collector._resize
    monkeypatch.setattr(collect.Collector, "_resize", lambda *given: (steps.append(given[2]), resize(*given)))
    monkeypatch.setattr(collect, "ROOM", 1000)
    collector = collect.Collector(None, None, 1, "float32", np.dtype(np.float32))
    rows = np.arange(20_000, dtype=np.float32)[:, np.newaxis]
    for row in rows:
        collector.add(row[np.newaxis])
    np.testing.assert_array_equal(collector.result(), rows)
    assert len(steps) < 50  # of 20,000 rows, in room for 250


def test_what_was_not_filled_is_given_back() -> None:
    collector = collect.Collector(None, None, 64, "float32", np.dtype(np.float32))
    tracemalloc.start()
    collector.add(np.ones((3, 64), np.float32))
    result = collector.result()
    current, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert result.shape == (3, 64)
    assert result.base is None
    assert current < collect.ROOM / 100


@pytest.mark.parametrize("precision", ["float32", "int8", "ubinary"])
@pytest.mark.parametrize("there", [0, 40, 60])
def test_a_length_that_is_not_true_is_noticed(bert: Encoder, precision: str, there: int) -> None:
    class Texts(UserList[str]):
        def __len__(self) -> int:
            return 50

        def __iter__(self) -> Iterator[str]:
            return iter([f"text {i}" for i in range(there)])

    with pytest.raises(minisbert.EncodeValueError, match="sentences"):
        bert.encode(Texts(), precision=precision)
