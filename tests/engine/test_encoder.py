"""`SentenceEncoder` as its users meet it: prompts, limits, loading, errors, pickles."""

from __future__ import annotations

import copy
import pickle
import re
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minisbert
from tests.conftest import DATA, FEW, edit_json, largest

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
        minisbert.TruncationWarning, match=r"some sentences were cut to max_seq_length, 32 tokens"
    ) as seen:
        bert.encode(["a", LONG, "b", LONG])
    assert len(seen) == 1
    with pytest.raises(
        minisbert.TruncationError, match="sentence 1 has 802 tokens, and max_seq_length is 32"
    ) as raised:
        bert.encode(["a", LONG, LONG], truncation="error")
    for found, rows in ((seen[0].message, (1, 3)), (raised.value, (1,))):
        unpickled = pickle.loads(pickle.dumps(found))
        assert (unpickled.rows, unpickled.longest, str(unpickled)) == (rows, found.longest, str(found))
    assert 32 < seen[0].message.longest < raised.value.longest == 802  # of a text that is cut not all is read
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bert.encode(["a", LONG], truncation="silent")


def test_a_warning_names_the_place_that_called_minisbert(bert: Encoder) -> None:
    for call in (bert.encode, bert.encode_query, bert.encode_document, partial(_through, bert.encode)):
        with pytest.warns(minisbert.TruncationWarning) as seen:
            call(LONG)
        assert [warning.filename for warning in seen] == [__file__]


def _through(call: Callable[[str], Any], text: str) -> None:
    with ThreadPoolExecutor(1) as pool:
        list(pool.map(lambda text: call(text), [text]))


def test_python_keeps_one_warning_however_many_texts_are_cut(bert: Encoder) -> None:
    """Python remembers each text that was shown, so that one that is always new takes memory with every call."""
    namespace = {"encode": bert.encode, "LONG": LONG, "__name__": "a program"}
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        exec("for i in range(1, 40): encode(['a'] * i + [LONG * i] * (i % 3 + 1))", namespace)
    registry = namespace["__warningregistry__"]
    assert isinstance(registry, dict)
    assert len(registry.keys() - {"version"}) == len(seen) == 1


def test_what_is_wrong_with_a_text_is_found_as_far_as_it_is_read(bert: Encoder) -> None:
    text = "word " * 2_000
    found = bert.encode(text + "\ud800", truncation="silent")
    np.testing.assert_array_equal(found, bert.encode(text, truncation="silent"))
    for call in (bert.token_counts, partial(bert.encode, truncation="error")):
        with pytest.raises(minisbert.EncodeValueError, match=r"sentence 1 .*surrogate.*character 10000"):
            call(["a", text + "\ud800"])


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


def test_num_threads_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINISBERT_NUM_THREADS", "3")
    encoder = minisbert.load(DATA / "tiny-bert", num_threads=2)
    for value, expected in ((5, 5), (np.int64(4), 4), (None, 3)):
        encoder.num_threads = value  # type: ignore[assignment]
        assert encoder.num_threads == expected
    with pytest.raises(minisbert.EncodeValueError, match="num_threads is 0"):
        encoder.num_threads = 0
    with pytest.raises(minisbert.EncodeTypeError, match="num_threads is 'x'"):
        encoder.num_threads = "x"  # type: ignore[assignment]
    assert encoder.num_threads == 3


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
        ({"dtype": "float128"}, minisbert.EncodeValueError, "dtype is float128"),
        ({"backend": np.zeros(2)}, minisbert.EncodeValueError, "backend is array"),
        ({"dtype": "real"}, minisbert.EncodeTypeError, "dtype is 'real'"),
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


# --- Copies ----------------------------------------------------------------------------------------------


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
        assert (other.max_seq_length, other.num_threads, other.dtype) == (40, 1, "float64")
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
