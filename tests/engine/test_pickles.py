"""Pickles of encoders: which checkpoint they stand for, and what is said where it is another by now."""

from __future__ import annotations

import copyreg
import hashlib
import io
import multiprocessing
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minisbert
from minisbert.kernels.reference import ops as reference
from tests.conftest import DATA, FEW, TINY, edit_json
from tests.support.commandline import posix
from tests.support.environment import PATIENCE

Copy = Callable[[str], Path]
Encoder = minisbert.SentenceEncoder
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def replaced() -> Any:
    """What is said where the checkpoint of a pickle is another one by now."""
    return pytest.raises(
        minisbert.CheckpointError, match=r"is not the checkpoint that this SentenceEncoder was .* anew"
    )


def renew(path: Path, content: bytes) -> None:
    """Put another file into the place of one."""
    other = path.with_name("new")
    other.write_bytes(content)
    other.replace(path)


def other_weights(path: Path) -> bytes:
    """The content of a file of weights, but for one number."""
    tensors = load_file(path)
    next(iter(tensors.values())).flat[0] += 1
    save_file(tensors, other := path.with_name("other"))
    content = other.read_bytes()
    other.unlink()
    return content


# --- Another checkpoint in its place -------------------------------------------------------------------------


@posix
def test_weights_that_were_replaced_are_noticed(copy_of: Copy) -> None:
    folder = copy_of("tiny-bert")
    encoder = minisbert.load(folder)
    content = pickle.dumps(encoder)
    renew(folder / "model.safetensors", other_weights(folder / "model.safetensors"))
    for _ in range(2):
        with replaced():
            pickle.loads(content)
    assert pickle.dumps(encoder) == content  # it computes with what it was loaded with
    del encoder
    with replaced():
        pickle.loads(content)
    assert pickle.dumps(minisbert.load(folder)) != content


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("config.json", {"layer_norm_eps": 1e-5}),
        ("config_sentence_transformers.json", {"prompts": {"query": "another: "}}),
        ("sentence_bert_config.json", {"max_seq_length": 16}),
        ("special_tokens_map.json", {"mask_token": "[MASK]"}),  # was not there before
        ("1_Pooling/config.json", {"pooling_mode": "cls"}),
    ],
)
def test_settings_that_were_replaced_are_noticed(copy_of: Copy, name: str, changes: dict[str, Any]) -> None:
    folder = copy_of("tiny-bert")
    content = pickle.dumps(minisbert.load(folder))
    edit_json(folder / name, **changes)
    with replaced():
        pickle.loads(content)


@posix
def test_equal_files_are_the_same_checkpoint(copy_of: Copy) -> None:
    folder = copy_of("tiny-bert")
    encoder = minisbert.load(folder)
    content, expected = pickle.dumps(encoder), encoder.encode(FEW)
    shutil.rmtree(folder)
    copy_of("tiny-bert")
    (folder / "README.md").write_text("of no consequence")
    np.testing.assert_array_equal(pickle.loads(content).encode(FEW), expected)
    assert pickle.dumps(minisbert.load(folder)) == content


@posix
def test_an_encoder_whose_files_changed_before_it_was_pickled(copy_of: Copy) -> None:
    """Nothing can be said of what it was loaded from, and of what is there now it would be wrong."""
    folder = copy_of("tiny-bert")
    encoder = minisbert.load(folder)
    renew(folder / "tokenizer.json", (folder / "tokenizer.json").read_bytes() + b"\n")
    with pytest.raises(minisbert.CheckpointError, match=r"tokenizer\.json: was changed .* load .* again"):
        pickle.dumps(encoder)
    shutil.rmtree(folder)
    with pytest.raises(minisbert.CheckpointError, match=r"was changed or removed"):
        pickle.dumps(encoder)


@pytest.mark.parametrize("name", [*TINY, "cross-bert"])
def test_all_files_that_are_read_are_noted(name: str) -> None:
    """Whatever Python opens of the folder; the library of the weights opens what was opened before."""
    load = "load_cross_encoder" if name.startswith("cross") else "load"
    code = f"""
import os
import sys
import minisbert
opened, start = set(), {str(DATA / name)!r} + os.sep
sys.addaudithook(lambda event, args: event == "open" and opened.add(str(args[0])))
files = minisbert.{load}({str(DATA / name)!r}, backend="reference")._files
opened = {{path for path in opened if path.startswith(start)}}
noted = {{str(path) for path, mark in files._marks.items() if mark}}
assert opened == noted, (opened - noted, noted - opened)
assert any(path.endswith(".safetensors") for path in opened) and any("tokenizer" in path for path in opened)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120 * PATIENCE)


# --- Caches ------------------------------------------------------------------------------------------------------


def encode(encoder: Encoder, texts: list[str]) -> Any:
    return encoder.encode(texts)


def test_caches_of_joblib_notice_other_weights(copy_of: Copy, tmp_path: Path) -> None:
    folder = copy_of("tiny-bert")
    cached = joblib.Memory(tmp_path / "cache", verbose=0).cache(encode)
    first, second = minisbert.load(folder), minisbert.load(folder)
    assert joblib.hash(first) == joblib.hash(second)
    expected = cached(first, FEW)
    assert cached.check_call_in_cache(second, FEW)
    second.max_seq_length = 16
    assert joblib.hash(first) != joblib.hash(second)
    before = joblib.hash(first)
    del first, second
    renew(folder / "model.safetensors", (folder / "model.safetensors").read_bytes())
    assert joblib.hash(minisbert.load(folder)) == before
    renew(folder / "model.safetensors", other_weights(folder / "model.safetensors"))
    encoder = minisbert.load(folder)
    assert joblib.hash(encoder) != before
    assert not cached.check_call_in_cache(encoder, FEW)
    assert not np.array_equal(cached(encoder, FEW), expected)


# --- What the other machine decides ----------------------------------------------------------------------------


def test_threads_that_were_not_set_are_the_other_machine_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINISBERT_NUM_THREADS", "2")
    default, chosen, reset = (minisbert.load(DATA / "tiny-bert", num_threads=n) for n in (None, 4, 4))
    reset.num_threads = None
    assert [encoder.num_threads for encoder in (default, chosen, reset)] == [2, 4, 2]
    contents = [pickle.dumps(encoder) for encoder in (default, chosen, reset)]
    monkeypatch.setenv("MINISBERT_NUM_THREADS", "3")
    assert [pickle.loads(content).num_threads for content in contents] == [3, 4, 3]
    assert default.num_threads == 2  # what was found when it was loaded


def test_a_backend_that_was_not_chosen_is_the_other_machine_s(monkeypatch: pytest.MonkeyPatch) -> None:
    content = pickle.dumps(minisbert.load(DATA / "tiny-bert"))
    monkeypatch.setattr("minisbert.engine.base.select", lambda *_: reference)
    assert pickle.loads(content).backend == "reference"


class OlderPickler(pickle.Pickler):
    """Pickles encoders as minisbert 0.1.0 did: a folder, what it was loaded with, and settings."""

    def reducer_override(self, item: Any) -> Any:
        if not isinstance(item, Encoder):
            return NotImplemented
        state = {
            "folder": item.path,
            "arguments": (item.backend, item.dtype, item.num_threads),
            "settings": {name: getattr(item, name) for name in Encoder.SETTINGS},
        }
        return copyreg.__newobj__, (type(item),), state  # type: ignore[attr-defined]


def test_a_pickle_of_an_older_version() -> None:
    encoder = minisbert.load(DATA / "tiny-bert", num_threads=2)
    encoder.max_seq_length, encoder.prompts["q"] = 30, "q: "
    OlderPickler(file := io.BytesIO()).dump(encoder)
    assert b"fingerprint" not in file.getvalue()
    other = pickle.loads(file.getvalue())
    assert (other.max_seq_length, other.num_threads, other.prompts) == (30, 2, encoder.prompts)
    np.testing.assert_array_equal(other.encode(FEW, prompt="q: "), encoder.encode(FEW, prompt="q: "))


def encode_in_child(encoder: Encoder, queue: Any) -> None:
    queue.put((encoder.encode(FEW), encoder.max_seq_length))


def test_a_spawned_process() -> None:
    encoder = minisbert.load(DATA / "tiny-bert", num_threads=2)
    encoder.max_seq_length = 30
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=encode_in_child, args=(encoder, queue))
    child.start()
    found, limit = queue.get(timeout=120 * PATIENCE)
    child.join(timeout=60 * PATIENCE)
    assert child.exitcode == 0
    assert limit == 30
    np.testing.assert_array_equal(found, encoder.encode(FEW))


# --- The Hugging Face cache --------------------------------------------------------------------------------------


def add_model(cache: Path, name: str = "tiny-bert", blob_name: str = "") -> Path:
    """Put a checkpoint into a cache as org/model, its weights as a link to what is named by their hash."""
    repository = cache / "models--org--model"
    snapshot = Path(shutil.copytree(DATA / name, repository / "snapshots" / COMMIT))
    (repository / "blobs").mkdir()
    path = snapshot / "model.safetensors"
    blob = repository / "blobs" / (blob_name or hashlib.sha256(path.read_bytes()).hexdigest())
    path.rename(blob)
    path.symlink_to(Path("..", "..", "blobs", blob.name))
    return snapshot


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of this machine, with nothing in it, and no network."""
    try:
        (tmp_path / "probe").symlink_to(tmp_path)
    except OSError:
        pytest.skip("this system lets only an administrator make links")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "home"


def test_another_machine_finds_the_commit_by_its_name(home: Path, tmp_path: Path) -> None:
    snapshot = add_model(tmp_path / "cache")
    encoder = minisbert.load("org/model", revision=COMMIT, cache_folder=tmp_path / "cache")
    expected, content = encoder.encode(FEW), pickle.dumps(encoder)
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(minisbert.CheckpointNotFoundError, match=r"'org/model' is not .* local cache"):
        pickle.loads(content)
    here = add_model(home)
    other = pickle.loads(content)
    assert (encoder.path, other.path) == (snapshot, here)
    np.testing.assert_array_equal(other.encode(FEW), expected)
    assert pickle.loads(pickle.dumps(other)).path == here


def test_a_part_of_a_snapshot_is_not_what_was_pickled(home: Path, tmp_path: Path) -> None:
    """Another program may have fetched some of its files to the same place."""
    snapshot = add_model(tmp_path / "cache")
    content = pickle.dumps(minisbert.load(snapshot))
    (snapshot / "model.safetensors").unlink()
    here = add_model(home)
    assert pickle.loads(content).path == here


def test_a_commit_with_other_content_is_refused(home: Path, tmp_path: Path) -> None:
    content = pickle.dumps(minisbert.load(add_model(tmp_path / "cache")))
    shutil.rmtree(tmp_path / "cache")
    add_model(home, "tiny-distilbert")
    with replaced():
        pickle.loads(content)


def test_a_folder_named_like_the_model_is_not_taken_for_it(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = pickle.dumps(minisbert.load(add_model(tmp_path / "cache")))
    shutil.rmtree(tmp_path / "cache")
    here = add_model(home)
    shutil.copytree(DATA / "tiny-distilbert", tmp_path / "org" / "model")
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(content).path == here


def fingerprint(folder: Path) -> str:
    return str(minisbert.load(folder).__getstate__()["fingerprint"])


def test_a_fingerprint_is_the_same_in_the_cache_and_elsewhere(home: Path, copy_of: Copy) -> None:
    plain, snapshot = fingerprint(copy_of("tiny-bert")), add_model(home)
    assert fingerprint(snapshot) == plain
    blob = (snapshot / "model.safetensors").resolve()
    # Newer caches share blobs between repositories, under names that are another hash.
    shared = home / "blobs" / "ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    renew(shared, blob.read_bytes())
    blob.unlink()
    blob.symlink_to(Path("..", "..", "blobs", "ab", shared.name))
    assert fingerprint(snapshot) == plain


def test_weights_in_the_cache_are_not_read_for_a_fingerprint(home: Path, copy_of: Copy) -> None:
    snapshot = add_model(home, blob_name="ab" * 32)
    assert fingerprint(snapshot) != fingerprint(copy_of("tiny-bert"))
