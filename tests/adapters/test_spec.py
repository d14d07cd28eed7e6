"""What all adapters hold: it is small, and each process loads what it names once, with settings that are its own."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import pickle
import sys
import threading
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minisbert
from minisbert.adapters import spec
from minisbert.adapters.spec import CrossEncoderSpec, EncoderSpec
from minisbert.engine import base
from tests.conftest import DATA, FEW, TINY, edit_json, in_threads

TINY_BERT = str(DATA / "tiny-bert")
SETTINGS: dict[str, Any] = {
    "model": TINY_BERT,
    "dtype": "float64",
    "num_threads": 1,
    "max_seq_length": 9,
    "prompts": {"query": "find: ", "other": "x: "},
    "default_prompt_name": "other",
    "truncate_dim": 7,
    "normalize_embeddings": True,
}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that are read, while nothing is in memory at first."""
    found: list[Path] = []
    read = minisbert.SentenceEncoder._read

    def noted(self: Any, folder: Path, num_threads: int) -> int:
        found.append(folder)
        return read(self, folder, num_threads)

    monkeypatch.setattr(minisbert.SentenceEncoder, "_read", noted)
    monkeypatch.setattr(spec, "_kept", type(spec._kept)())
    monkeypatch.setattr(base, "_loaded", type(base._loaded)())
    return found


def test_its_vectors_are_the_encoders(bert: minisbert.SentenceEncoder) -> None:
    encoder = minisbert.load(TINY_BERT, dtype="float64")
    encoder.max_seq_length, encoder.truncate_dim = 9, 7
    encoder.prompts = {**encoder.prompts, **SETTINGS["prompts"]}
    encoder.default_prompt_name = "other"
    made = EncoderSpec(**SETTINGS)
    for mine, theirs in (
        (made.encode, encoder.encode),
        (made.encode_query, encoder.encode_query),
        (made.encode_document, encoder.encode_document),
    ):
        expected = theirs(FEW, normalize_embeddings=True, truncation="silent")
        with pytest.warns(minisbert.TruncationWarning):
            np.testing.assert_array_equal(mine(FEW), expected)
    np.testing.assert_array_equal(EncoderSpec(TINY_BERT).encode("one"), bert.encode("one"))


def test_it_goes_through_json_and_pickle_small() -> None:
    for made in (EncoderSpec(**SETTINGS), CrossEncoderSpec(TINY_BERT, activation_fn="Identity")):
        again = type(made).from_dict(json.loads(json.dumps(made.to_dict())))
        assert again == made
        assert hash(again) == hash(made)
        assert pickle.loads(pickle.dumps(made)) == made == copy.deepcopy(made)
        assert replace(made, dtype="float16") != made
    made = EncoderSpec(TINY_BERT)
    made.encode("now it has an encoder")
    assert len(pickle.dumps(made)) < 150 + len(TINY_BERT)
    assert made.to_dict() == {"model": TINY_BERT}


def test_it_has_json_types_only_and_does_not_change() -> None:
    prompts = {"query": "q: "}
    made = EncoderSpec(
        DATA / "tiny-bert",
        dtype=np.float64,
        truncate_dim=np.int64(7),
        normalize_embeddings=np.True_,
        prompts=prompts,
    )
    prompts["query"] = "changed: "
    found = [getattr(made, field.name) for field in fields(made)]
    assert {type(value) for value in found} == {str, int, bool, dict, type(None)}
    made.to_dict()["prompts"]["query"] = "changed: "
    assert made.prompts == {"query": "q: "}
    with pytest.raises(FrozenInstanceError):
        made.model = "another"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "the EncoderSpec names no model; its settings are model, revision"),
        ({"model": "a", "devise": "cuda"}, "the EncoderSpec has no setting 'devise'; its settings are model"),
        ({"model": "a", "prompts": {"query": 3}}, "prompts is {'query': 3}; expected what JSON can hold"),
        ({"model": "a", "revision": b"main"}, "revision is b'main'; expected what JSON can hold"),
        ({"model": "a", "dtype": "int4"}, "dtype is 'int4'; expected one of float32"),
    ],
)
def test_what_is_no_spec_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(minisbert.EncodeTypeError) as caught:
        EncoderSpec.from_dict(values)
    assert str(caught.value).startswith(message)


def test_what_a_process_names_often_is_read_once(reads: list[Path]) -> None:
    for _ in range(3):
        EncoderSpec(TINY_BERT).encode(FEW)
        EncoderSpec(TINY_BERT, truncate_dim=5).encode(FEW)
        pickle.loads(pickle.dumps(EncoderSpec(TINY_BERT))).encode(FEW)
    assert reads == [DATA / "tiny-bert"]


def test_threads_that_name_it_at_once_read_it_once(reads: list[Path]) -> None:
    made = EncoderSpec(TINY_BERT)
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        made.encode(FEW)
        EncoderSpec(TINY_BERT).encode(FEW)

    in_threads(8, work, timeout=60)
    assert len(reads) == 1


def test_few_checkpoints_are_kept(reads: list[Path]) -> None:
    names = TINY[: spec.KEPT + 1]
    for _ in range(2):
        for name in names[:-1]:
            EncoderSpec(DATA / name).encode(FEW)
    assert len(reads) == spec.KEPT
    EncoderSpec(DATA / names[-1]).encode(FEW)
    EncoderSpec(DATA / names[0]).encode(FEW)
    assert [path.name for path in reads] == [*names, names[0]]


def test_settings_stay_with_their_spec(bert: minisbert.SentenceEncoder) -> None:
    one, other = EncoderSpec(TINY_BERT, max_seq_length=5, prompts={"query": "q"}), EncoderSpec(TINY_BERT)
    one.resolve().truncate_dim = 3
    one.resolve().prompts["query"] = "changed"
    assert one.resolve().max_seq_length == 5
    assert other.resolve().max_seq_length == bert.max_seq_length
    assert other.resolve().truncate_dim is None
    assert (other.resolve().prompts, bert.prompts) == ({"query": "", "document": ""},) * 2
    assert one.resolve()._weights is other.resolve()._weights


def test_files_that_have_changed_are_read_by_the_next_spec(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("tiny-bert")
    old = EncoderSpec(folder)
    before = old.encode(FEW[0])
    edit_json(folder / "1_Pooling" / "config.json", pooling_mode="cls")
    assert not np.array_equal(EncoderSpec(folder).encode(FEW[0]), before)
    np.testing.assert_array_equal(old.encode(FEW[0]), before)


def test_a_fingerprint_refuses_another_checkpoint(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("tiny-bert")
    pinned = EncoderSpec(folder).pinned()
    assert pinned.pinned() == pinned
    assert pinned.fingerprint == EncoderSpec(TINY_BERT).pinned().fingerprint
    expected = pinned.encode(FEW)
    edit_json(folder / "1_Pooling" / "config.json", pooling_mode="cls")
    reopened = EncoderSpec.from_dict(pinned.to_dict())
    with pytest.raises(minisbert.CheckpointError, match="is not the checkpoint that was meant"):
        reopened.encode(FEW)
    np.testing.assert_array_equal(pinned.encode(FEW), expected)


def answer(made: EncoderSpec, queue: Any) -> None:
    os.environ["MINISBERT_NUM_THREADS"] = "1"
    queue.put((made.encode(FEW), made.resolve().num_threads))


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="no safe fork there")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_child_has_threads_of_its_own(reads: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that is forked while somebody holds the lock."""
    monkeypatch.setenv("MINISBERT_NUM_THREADS", "3")
    made = EncoderSpec(TINY_BERT)
    expected = made.encode(FEW)
    assert made.resolve().num_threads == 3
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    held = threading.Event()
    done = threading.Event()

    def hold() -> None:
        with spec._loading:
            held.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    child = context.Process(target=answer, args=(made, queue))
    child.start()
    child.join(60)
    done.set()
    thread.join()
    assert child.exitcode == 0
    vectors, num_threads = queue.get()
    np.testing.assert_array_equal(vectors, expected)
    assert num_threads == 1
    assert len(reads) == 1


def test_a_cross_encoder_too() -> None:
    made = CrossEncoderSpec(DATA / "cross-bert", activation_fn="Identity", max_seq_length=20)
    model = minisbert.load_cross_encoder(DATA / "cross-bert")
    expected = model.predict([("a", "b")], activation_fn="Identity")
    np.testing.assert_array_equal(made.resolve().predict([("a", "b")]), expected)
    assert made.resolve().max_seq_length == 20


@pytest.mark.parametrize(
    ("adapter", "extra", "package"),
    [
        ("arrow", "parquet", "pyarrow"),
        ("chroma", "chroma", "chromadb"),
        ("dask", "dask", "dask"),
        ("haystack", "haystack", "haystack"),
        ("lancedb", "lancedb", "lancedb"),
        ("langchain", "langchain", "langchain_core"),
        ("llama_index", "llama-index", "llama_index"),
        ("ray", "ray", "ray"),
        ("sklearn", "sklearn", "sklearn"),
        ("spark", "spark", "pyspark"),
    ],
)
def test_an_adapter_says_what_is_to_be_installed(
    adapter: str, extra: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, f"minisbert.adapters.{adapter}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(minisbert.MissingPackageError) as caught:
        __import__(f"minisbert.adapters.{adapter}")
    assert isinstance(caught.value, ImportError)
    assert str(caught.value).endswith(f'pip install "minisbert[{extra}]"')
