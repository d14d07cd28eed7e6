"""`SentenceEncoder` as its users meet it: prompts, limits, loading, errors, threads, pickles."""

from __future__ import annotations

import copy
import io
import pickle
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minisbert
from conftest import BATCH_TOLERANCE, DATA, FEW, edit_json, largest
from minisbert import batching

Encoder = minisbert.SentenceEncoder


# --- Prompts and limits ----------------------------------------------------------------------------------


def test_prompts(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("tiny-bert")
    edit_json(
        folder / "config_sentence_transformers.json", prompts={"query": "q: ", "passage": "p: ", "x": "x: "}
    )
    encoder = minisbert.load(folder)
    plain = {prefix: encoder.encode(f"{prefix}text") for prefix in ("", "q: ", "p: ", "x: ")}
    np.testing.assert_array_equal(encoder.encode("text"), plain[""])
    np.testing.assert_array_equal(encoder.encode("text", prompt_name="x"), plain["x: "])
    np.testing.assert_array_equal(encoder.encode("text", "x"), plain["x: "])
    np.testing.assert_array_equal(encoder.encode("text", prompt="q: "), plain["q: "])
    np.testing.assert_array_equal(encoder.encode("text", prompt_name="x", prompt="q: "), plain["q: "])
    np.testing.assert_array_equal(encoder.encode_query("text"), plain["q: "])
    np.testing.assert_array_equal(encoder.encode_query("text", prompt_name="x"), plain["x: "])
    np.testing.assert_array_equal(
        encoder.encode_document("text"), plain[""]
    )  # "document" is there, and empty
    del encoder.prompts["document"]
    np.testing.assert_array_equal(encoder.encode_document(["text"])[0], plain["p: "])
    encoder.default_prompt_name = "x"
    np.testing.assert_array_equal(encoder.encode("text"), plain["x: "])
    np.testing.assert_array_equal(encoder.encode("text", prompt=""), plain[""])
    with pytest.raises(minisbert.EncodeValueError, match=r"no prompt named 'no'.*'passage', 'query', 'x'"):
        encoder.encode("text", prompt_name="no")
    with pytest.raises(minisbert.EncodeTypeError, match="prompt is 3"):
        encoder.encode("text", prompt=3)


LONG = "word " * 200


def test_truncation_is_said_once(bert: Encoder) -> None:
    with pytest.warns(
        minisbert.TruncationWarning, match=r"2 of 4 .* 32 tokens: 1, 3 \(the longest has 802\)"
    ) as seen:
        bert.encode(["a", LONG, "b", LONG])
    assert len(seen) == 1
    assert seen[0].filename == __file__
    with pytest.raises(
        minisbert.TruncationError, match="sentence 1 has 802 tokens, and max_seq_length is 32"
    ) as raised:
        bert.encode(["a", LONG, LONG], truncation="error")
    for found, rows in ((seen[0].message, (1, 3)), (raised.value, (1,))):
        unpickled = pickle.loads(pickle.dumps(found))
        assert (unpickled.rows, unpickled.longest, str(unpickled)) == (rows, 802, str(found))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bert.encode(["a", LONG], truncation="silent")


def test_max_seq_length_can_be_set() -> None:
    encoder = minisbert.load(DATA / "tiny-bert")
    encoder.max_seq_length = 8
    assert len(encoder.tokenize(LONG)["input_ids"][0]) == 8
    assert len(encoder.encode(LONG, output_value="token_embeddings", truncation="silent")) == 8
    encoder.max_seq_length = np.int64(64)
    assert encoder.max_seq_length == 64
    encoder.max_seq_length = 2  # nothing but the special tokens
    assert largest(encoder.encode(LONG, truncation="silent") - encoder.encode("")) == 0
    for value in (1, 0, -3, 65):
        with pytest.raises(minisbert.EncodeValueError, match=f"max_seq_length is {value}; expected 2 to 64"):
            encoder.max_seq_length = value
    with pytest.raises(minisbert.EncodeTypeError, match=r"max_seq_length is 2\.5; expected an integer"):
        encoder.max_seq_length = 2.5  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"precision": "float16"}, "precision is 'float16'; expected one of float32, int8"),
        ({"precision": np.zeros(2)}, "precision is array"),
        ({"output_value": None}, "output_value is None"),
        ({"output_value": "tokens"}, "output_value is 'tokens'"),
        ({"truncation": True}, "truncation is True"),
        ({"truncate_dim": 0}, "truncate_dim is 0; expected 1 to 75"),
        ({"truncate_dim": 76}, "truncate_dim is 76"),
        ({"output_value": "token_embeddings", "precision": "int8"}, "ragged"),
        ({"output_value": "token_embeddings", "out": np.empty((1, 75))}, "ragged"),
    ],
)
def test_impossible_arguments(bert: Encoder, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(minisbert.EncodeValueError, match=re.escape(message)):
        bert.encode("text", **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 1.0}, "batch_size is 1.0"),
        ({"batch_size": True}, "batch_size is True"),
        ({"truncate_dim": "3"}, "truncate_dim is '3'"),
        ({"prompt_name": ["query"]}, "prompt_name is ['query']"),
        ({"prompt_name": 5}, "prompt_name is 5"),
        ({"prompt": b"query"}, "prompt is b'query'"),
    ],
)
def test_arguments_of_the_wrong_type(bert: Encoder, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(minisbert.EncodeTypeError, match=re.escape(message)):
        bert.encode("text", **arguments)


@pytest.mark.parametrize(
    ("name", "value", "kind", "message"),
    [
        ("num_threads", 0, minisbert.EncodeValueError, "num_threads is 0"),
        ("num_threads", "x", minisbert.EncodeTypeError, "num_threads is 'x'"),
        ("truncate_dim", -3, minisbert.EncodeValueError, "truncate_dim is -3"),
        ("truncate_dim", "x", minisbert.EncodeTypeError, "truncate_dim is 'x'"),
        ("default_prompt_name", 5, minisbert.EncodeTypeError, "prompt_name is 5"),
        ("default_prompt_name", "no", minisbert.EncodeValueError, "no prompt named 'no'"),
        ("prompts", {"query": 5}, minisbert.EncodeTypeError, "prompt is 5"),
        ("prompts", None, minisbert.EncodeValueError, "no prompt named 'query'"),
        ("similarity_fn_name", ["dot"], minisbert.EncodeValueError, "similarity .* is not known"),
    ],
)
def test_impossible_attributes(name: str, value: Any, kind: type[Exception], message: str) -> None:
    encoder = minisbert.load(DATA / "tiny-bert")
    setattr(encoder, name, value)
    with pytest.raises(kind, match=message):
        encoder.similarity(encoder.encode("a"), encoder.encode("a", prompt_name="query"))
    if name == "truncate_dim":
        with pytest.raises(kind):
            encoder.get_embedding_dimension()


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def nested(depth: int) -> list[Any]:
    items: list[Any] = []
    for _ in range(depth):
        items = [items]
    return items


@pytest.mark.parametrize(
    "item", [Unshowable(), nested(100_000), b"x" * 10_000_000, list(range(10**6)), 10**5000], ids=type
)
def test_a_message_shows_little_of_what_was_found(bert: Encoder, item: Any) -> None:
    for value in ([item], item):
        with pytest.raises(minisbert.EncodeTypeError) as info:
            bert.encode(value)
        assert str(info.value).isprintable()
        assert len(str(info.value)) < 300
    with pytest.raises(minisbert.MinisbertError):
        bert.encode("text", truncate_dim=item)


def test_the_first_item_is_looked_at_before_memory_is_taken(bert: Encoder) -> None:
    with pytest.raises(minisbert.EncodeTypeError, match="sentence 0 is int 0"):
        bert.encode(range(10**13))


@pytest.mark.parametrize("backend", minisbert.kernels.BACKENDS)
def test_weights_that_overflow_give_no_vectors(copy_of: Callable[[str], Path], backend: str) -> None:
    folder = copy_of("tiny-bert")
    tensors = load_file(folder / "model.safetensors")
    (word,) = minisbert.load(folder).tokenize("x")["input_ids"]
    tensors["embeddings.word_embeddings.weight"][word[1]] = 3e38
    save_file(tensors, folder / "model.safetensors")
    try:
        encoder = minisbert.load(folder, backend=backend)
    except minisbert.EncodeValueError:
        pytest.skip("numba is not installed")
    for output_value in ("sentence_embedding", "token_embeddings"):
        with pytest.raises(minisbert.CheckpointError, match=r"model\.safetensors: .* for sentence 1;"):
            encoder.encode(["a", "b x", "x"], output_value=output_value)


# --- Loading ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"backend": "cuda"}, minisbert.EncodeValueError, "backend is 'cuda'"),
        ({"dtype": "float16"}, minisbert.EncodeValueError, "dtype is float16"),
        ({"backend": np.zeros(2)}, minisbert.EncodeValueError, "backend is array"),
        ({"dtype": "real"}, minisbert.EncodeTypeError, "dtype is 'real'"),
        ({"dtype": None}, minisbert.EncodeTypeError, "dtype is None"),
        ({"dtype": ","}, minisbert.EncodeTypeError, "dtype is ','"),
        ({"dtype": "("}, minisbert.EncodeTypeError, "dtype is"),
        ({"dtype": "\ud800"}, minisbert.EncodeTypeError, "dtype is"),
        ({"dtype": {"names": 5}}, minisbert.EncodeTypeError, "dtype is"),
        ({"num_threads": 0}, minisbert.EncodeValueError, "num_threads is 0"),
    ],
)
def test_impossible_load_arguments(arguments: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        minisbert.load(DATA / "tiny-bert", **arguments)


@pytest.mark.parametrize("value", [None, 3, b"tiny-bert"])
def test_a_name_that_is_no_path(value: Any) -> None:
    with pytest.raises(minisbert.EncodeTypeError, match=r"name_or_path is .*; expected str or Path"):
        minisbert.load(value)


def test_what_an_encoder_says_of_itself(bert: Encoder) -> None:
    assert bert.get_embedding_dimension() == bert.get_sentence_embedding_dimension() == 75
    assert bert.path == DATA / "tiny-bert"
    assert bert.backend in minisbert.kernels.BACKENDS
    assert repr(bert).startswith("SentenceEncoder(")
    assert "width 75, max_seq_length 32, float32" in repr(bert)
    assert bert.num_parameters == bert.num_parameters // 1 > 75 * 64


def test_a_truncate_dim_in_the_checkpoint(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("tiny-bert")
    edit_json(folder / "config_sentence_transformers.json", truncate_dim=9)
    encoder = minisbert.load(folder)
    assert encoder.get_embedding_dimension() == 9
    assert encoder.encode("text").shape == (9,)
    assert encoder.encode("text", truncate_dim=12).shape == (12,)


def test_similarity_uses_the_function_of_the_checkpoint() -> None:
    encoder = minisbert.load(DATA / "tiny-bert")
    a, b = 2 * encoder.encode(["one", "two"]), encoder.encode(["three", "four"])
    np.testing.assert_allclose(encoder.similarity(a, b), a @ b.T / 2, rtol=1e-5)
    encoder.similarity_fn_name = "dot"
    np.testing.assert_allclose(encoder.similarity(a, b), a @ b.T, rtol=1e-6)
    np.testing.assert_allclose(encoder.similarity_pairwise(a, b), (a * b).sum(axis=1), rtol=1e-6)
    encoder.similarity_fn_name = "other"
    with pytest.raises(minisbert.EncodeValueError, match="'other' is not known"):
        encoder.similarity(a, b)


# --- Copies, threads, progress ---------------------------------------------------------------------------


def test_a_pickle_is_small_and_keeps_what_was_set() -> None:
    encoder = minisbert.load(DATA / "tiny-bert", dtype="float64", num_threads=1)
    encoder.max_seq_length = 40
    encoder.prompts["extra"] = "extra: "
    encoder.default_prompt_name = "extra"
    encoder.truncate_dim = 8
    encoder.similarity_fn_name = "dot"
    content = pickle.dumps(encoder)
    assert len(content) < 2000
    for other in (pickle.loads(content), copy.deepcopy(encoder)):
        assert (other.max_seq_length, other.num_threads, other.dtype) == (40, 1, np.float64)
        assert (other.truncate_dim, other.similarity_fn_name) == (8, "dot")
        np.testing.assert_array_equal(other.encode(FEW), encoder.encode(FEW))


def test_a_relative_path_survives_pickling(
    copy_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_of("tiny-bert")
    monkeypatch.chdir(folder.parent)
    content = pickle.dumps(minisbert.load(folder.name))
    monkeypatch.chdir("/")
    assert pickle.loads(content).encode("text").shape == (75,)


def test_many_threads_use_one_encoder(bert: Encoder) -> None:
    texts = [f"{'word ' * (i % 7)}{i}" for i in range(40)]
    expected = bert.encode(texts)
    wrong: list[float] = []

    def work() -> None:
        for _ in range(5):
            error = largest(bert.encode(texts, batch_size=3) - expected)
            if error > BATCH_TOLERANCE:
                wrong.append(error)

    workers = [threading.Thread(target=work) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    assert not any(worker.is_alive() for worker in workers)
    assert wrong == []


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_any_number_of_threads(num_threads: int, bert: Encoder) -> None:
    texts = FEW * 20
    found = minisbert.load(DATA / "tiny-bert", num_threads=num_threads).encode(texts, batch_size=4)
    assert largest(found - bert.encode(texts)) <= BATCH_TOLERANCE
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("minisbert_")]


def test_an_error_in_the_middle_leaves_no_thread(bert: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "CHUNK", 8)

    def texts() -> Iterator[str]:
        for i in range(30):
            yield f"text {i}"
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        bert.encode(texts(), batch_size=2)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("minisbert_")]


@pytest.mark.parametrize("output_value", ["sentence_embedding", "token_embeddings"])
def test_it_goes_on_with_the_threads_that_could_be_started(
    output_value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool has taken a job by the time that it can't start a thread: that job is then done twice."""
    encoder, texts = (
        minisbert.load(DATA / "tiny-bert", num_threads=4),
        [f"{i} of 400 texts" for i in range(400)],
    )
    expected, start, started = encoder.encode(texts, output_value=output_value), threading.Thread.start, []

    def fail_later(thread: threading.Thread) -> None:
        if thread.name.startswith("minisbert_"):
            started.append(thread)
            if len(started) > 1:
                raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fail_later)
    found = encoder.encode(texts, output_value=output_value)
    assert len(started) > 1
    for one, other in zip(found, expected, strict=True):
        assert largest(one - other) <= BATCH_TOLERANCE


def test_a_progress_bar_shows_when_it_is_asked_for(bert: Encoder, capsys: pytest.CaptureFixture[str]) -> None:
    bert.encode(FEW, show_progress_bar=True)
    assert "6/6" in capsys.readouterr().err
    bert.encode(iter(FEW), show_progress_bar=True)
    assert "6 sentences" in capsys.readouterr().err
    bert.encode(FEW, show_progress_bar=False)
    bert.encode(FEW)  # not a terminal
    assert capsys.readouterr().err == ""


def test_a_second_interrupt_leaves_no_bar_open(bert: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []

    def interrupted(pool: ThreadPoolExecutor, **how: Any) -> None:
        shutdown(pool, **how)
        raise KeyboardInterrupt

    shutdown = ThreadPoolExecutor.shutdown
    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", interrupted)
    monkeypatch.setattr(batching.Progress, "close", lambda progress: closed.append(progress))
    with pytest.raises(KeyboardInterrupt):
        bert.encode(FEW * 40)
    assert len(closed) == 1


def test_without_a_standard_error_there_is_no_bar(bert: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed):
        monkeypatch.setattr("sys.stderr", stream)
        assert bert.encode(FEW, show_progress_bar=True).shape == (6, 75)
        assert bert.encode(FEW).shape == (6, 75)


def test_a_progress_bar_appears_on_a_terminal_after_a_while(
    bert: Encoder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    bert.encode(FEW)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(batching, "PROGRESS_DELAY", 0)
    bert.encode(FEW)
    assert "6/6" in capsys.readouterr().err


@pytest.mark.parametrize("texts", [["one"], FEW * 40])
def test_encode_while_the_interpreter_shuts_down(texts: list[str]) -> None:
    """Threads can't be started any more then; the vectors come all the same."""
    code = (
        f"import atexit, minisbert; e = minisbert.load({str(DATA / 'tiny-bert')!r}, num_threads=2); "
        f"atexit.register(lambda: print(e.encode({texts!r}).shape))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == f"({len(texts)}, 75)", done.stderr
