"""Fetching from a hub that works, on the loopback, and what the environment of a process has to say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minisbert
from minisbert.checkpoint import hub
from tests.support.fetching import LIMIT, NAME, check_vectors, refused
from tests.support.hubserver import COMMIT, Hub, Repository

NEEDED = {
    "config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "1_Pooling/config.json",
    "2_Normalize/config.json",
    "model.safetensors",
}


def test_a_cold_fetch_and_then_no_request_at_all(
    server: Hub, cache: Path, bert: minisbert.SentenceEncoder
) -> None:
    check_vectors(minisbert.load(NAME, cache_folder=cache), bert)
    assert server.fetched() == NEEDED
    server.requests.clear()
    encoder = minisbert.load(NAME, cache_folder=cache)
    assert server.requests == []
    check_vectors(encoder, bert)
    assert encoder.path == cache / "models--org--tiny" / "snapshots" / COMMIT


def test_a_repository_without_modules_is_known_to_have_none(server: Hub, cache: Path) -> None:
    files = dict(server.repositories[NAME].commits[COMMIT])
    del files["modules.json"]
    server.repositories[NAME] = Repository({COMMIT: files})
    first = minisbert.load(NAME, cache_folder=cache)
    assert "1_Pooling/config.json" not in server.fetched()
    server.requests.clear()
    second = minisbert.load(NAME, cache_folder=cache)
    assert server.requests == []
    assert [str(module) for module in first.config.modules] == ["Pooling (mean)"]
    np.testing.assert_array_equal(first.encode("a text"), second.encode("a text"))


def test_modules_that_were_not_fetched_are_not_taken_for_absent(
    server: Hub, cache: Path, bert: minisbert.SentenceEncoder
) -> None:
    from huggingface_hub import hf_hub_download

    for name in ("config.json", "tokenizer.json", "model.safetensors"):  # as transformers fetches a model
        hf_hub_download(NAME, name, cache_dir=cache)
    with pytest.raises(minisbert.CheckpointNotFoundError, match=rf"incomplete.*{COMMIT} lacks modules\.json"):
        minisbert.load(NAME, cache_folder=cache, local_files_only=True)
    server.requests.clear()
    check_vectors(minisbert.load(NAME, cache_folder=cache), bert)
    assert not {"tokenizer.json", "model.safetensors"} & server.fetched()


@pytest.mark.parametrize("lost", sorted(NEEDED - {"2_Normalize/config.json"}))
def test_an_incomplete_snapshot_is_completed(
    server: Hub, cache: Path, bert: minisbert.SentenceEncoder, lost: str
) -> None:
    optional = {"sentence_bert_config.json", "config_sentence_transformers.json", "tokenizer_config.json"}
    path = minisbert.load(NAME, cache_folder=cache).path / lost
    path.resolve().unlink()
    path.unlink()
    server.requests.clear()
    if (
        lost in optional
    ):  # what nothing names can't be missed; an interrupted fetch has them before the weights
        minisbert.load(NAME, cache_folder=cache)
        assert server.requests == []
        return
    check_vectors(minisbert.load(NAME, cache_folder=cache), bert)
    assert server.fetched() == {lost}


def test_settings_come_before_weights(server: Hub, cache: Path) -> None:
    minisbert.load(NAME, cache_folder=cache)
    order = [path for method, path in server.requests if method == "GET" and path]
    assert set(order) == NEEDED
    assert order[-1] == "model.safetensors"


def test_another_revision(server: Hub, cache: Path) -> None:
    other = "d" * 40
    repository = server.repositories[NAME]
    changed = {**repository.commits[COMMIT], "sentence_bert_config.json": b'{"max_seq_length": 7}'}
    repository.commits[other] = changed
    repository.branches |= {"v1": other, "refs/pr/1": other}
    for revision in ("v1", other, "refs/pr/1"):
        for _ in range(2):
            encoder = minisbert.load(NAME, cache_folder=cache, revision=revision)
            assert encoder.max_seq_length == 7
            assert encoder.path.name == other
        server.requests.clear()
    assert minisbert.load(NAME, cache_folder=cache).max_seq_length == 32
    assert server.fetched() == {"sentence_bert_config.json"}  # the others are the same blobs


def test_a_branch_that_moved_is_read_as_it_was(server: Hub, cache: Path) -> None:
    minisbert.load(NAME, cache_folder=cache)
    repository = server.repositories[NAME]
    repository.commits["d" * 40] = {}
    repository.branches["main"] = "d" * 40
    assert minisbert.load(NAME, cache_folder=cache).path.name == COMMIT


def test_shards_are_fetched_by_their_index(server: Hub, cache: Path) -> None:
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = json.dumps({"weight_map": {"a": shards[0], "b": shards[1], "c": shards[0]}}).encode()
    files = dict(server.repositories[NAME].commits[COMMIT])
    del files["model.safetensors"]
    decoys = {"model-00001-of-00009.safetensors": b"another", "pytorch_model-00001-of-00002.bin": b"pickle"}
    files |= {"model.safetensors.index.json": index, shards[0]: b"first", shards[1]: b"second", **decoys}
    server.repositories[NAME] = Repository({COMMIT: files})
    folder = resolve(cache)
    assert server.fetched() == (NEEDED - {"model.safetensors"}) | {"model.safetensors.index.json", *shards}
    server.requests.clear()
    assert resolve(cache) == folder
    assert server.requests == []
    (folder / shards[1]).unlink()
    assert resolve(cache) == folder
    assert {path for _, path in server.requests} >= {shards[1]}


def test_a_single_file_goes_before_shards(server: Hub, cache: Path) -> None:
    files = {
        **server.repositories[NAME].commits[COMMIT],
        "model.safetensors.index.json": b"{}",
        "x.safetensors": b"",
    }
    server.repositories[NAME] = Repository({COMMIT: files})
    resolve(cache)
    assert server.fetched() == NEEDED


def test_an_index_that_names_what_is_not_there(server: Hub, cache: Path) -> None:
    files = dict(server.repositories[NAME].commits[COMMIT])
    del files["model.safetensors"]
    files["model.safetensors.index.json"] = b'{"weight_map": {"a": "lost.safetensors"}}'
    server.repositories[NAME] = Repository({COMMIT: files})
    refused(cache, "model.safetensors.index.json", "lost.safetensors", kind=minisbert.CheckpointError)


def test_modules_in_folders_of_their_own(server: Hub, cache: Path) -> None:
    files = server.repositories[NAME].commits[COMMIT]
    inside = NEEDED - {"modules.json", "config_sentence_transformers.json", "1_Pooling/config.json"}
    inside -= {"2_Normalize/config.json"}
    kinds = {
        "0_Transformer": "Transformer",
        "1_Pooling": "Pooling",
        "2_Dense": "Dense",
        "3_Normalize": "Normalize",
    }
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": path} for path, kind in kinds.items()]
    moved = {
        (f"0_Transformer/{path}" if path in inside else path): content for path, content in files.items()
    }
    dense = ("2_Dense/config.json", "2_Dense/model.safetensors", "2_Dense/pytorch_model.bin")
    moved |= {path: path.encode() for path in dense}
    moved["modules.json"] = json.dumps(modules).encode()
    server.repositories[NAME] = Repository({COMMIT: moved})
    folder = resolve(cache)
    in_root = {"modules.json", "config_sentence_transformers.json", "1_Pooling/config.json", *dense[:2]}
    assert server.fetched() == in_root | {f"0_Transformer/{path}" for path in inside}
    (folder / "2_Dense" / "model.safetensors").unlink()
    server.requests.clear()
    resolve(cache)
    assert ("HEAD", "2_Dense/model.safetensors") in server.requests


def resolve(cache: Path) -> Path:
    return hub.resolve(NAME, revision=None, token=None, cache_folder=cache, local_files_only=False)


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_a_private_repository_with_its_token(
    server: Hub, cache: Path, bert: minisbert.SentenceEncoder, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repositories[NAME].token = "hf_secret"
    if how == "environment":
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
    encoder = minisbert.load(NAME, cache_folder=cache, token="hf_secret" if how == "argument" else None)
    check_vectors(encoder, bert)
    assert set(server.tokens_seen_by_the_store) == {""}  # the store is another host


def test_the_cache_works_without_links(
    server: Hub, cache: Path, bert: minisbert.SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.are_symlinks_supported", lambda cache_dir=None: False)
    for _ in range(2):
        encoder = minisbert.load(NAME, cache_folder=cache)
        check_vectors(encoder, bert)
    assert not (encoder.path / "model.safetensors").is_symlink()


# --- In a process of its own --------------------------------------------------------------------------

PROGRAM = """\
import sys
import minisbert
limit = int(sys.argv[2])
if limit:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    print(minisbert.load(sys.argv[1], backend="reference").path)
except minisbert.MinisbertError as error:
    print(type(error).__name__, error)
"""


def load_in_process(server: Hub, home: Path, limit: int = 0, **environment: str) -> tuple[str, str]:
    """What a process with its own environment printed, and what it wrote to stderr, where the progress bars go."""
    settings = {"HF_ENDPOINT": server.url, "HF_HOME": str(home), **environment}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, NAME, str(limit)],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    )
    return done.stdout.strip(), done.stderr


def test_no_server_at_all(server: Hub, tmp_path: Path) -> None:
    nobody = "http://127.0.0.1:9"  # the port of the discard service, where nobody listens
    printed, _ = load_in_process(server, tmp_path, HF_ENDPOINT=nobody)
    assert printed.startswith(f"CheckpointNotFoundError {NAME!r}")
    for part in (nobody, str(tmp_path), "Check the connection and HF_ENDPOINT"):
        assert part in printed
    assert server.requests == []


def test_the_environment_is_honoured(server: Hub, tmp_path: Path) -> None:
    server.repositories[NAME].token = "hf_secret"
    home, other = tmp_path / "home", tmp_path / "other"
    snapshot = Path("models--org--tiny", "snapshots", COMMIT)
    assert "HF_TOKEN" in load_in_process(server, home)[0]
    printed, bars = load_in_process(server, home, HF_TOKEN="hf_secret", TQDM_POSITION="-1")
    assert printed == str(home / "hub" / snapshot)
    assert "model.safetensors: 100%" in bars
    server.requests.clear()
    printed, bars = load_in_process(server, home, HF_HUB_OFFLINE="1")
    assert (printed, bars) == (str(home / "hub" / snapshot), "")
    printed, _ = load_in_process(server, home, HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(other))
    assert printed.startswith("CheckpointNotFoundError")
    assert str(other) in printed
    assert server.requests == []
    silent = {
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TQDM_POSITION": "-1",
        "HF_HUB_CACHE": str(other),
        "HF_TOKEN": "hf_secret",
    }
    assert load_in_process(server, home, **silent) == (str(other / snapshot), "")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit for the size of a file")
def test_a_full_disk(server: Hub, tmp_path: Path) -> None:
    printed, _ = load_in_process(server, tmp_path, limit=100_000)  # the weights are larger
    assert printed.startswith(f"CheckpointNotFoundError {NAME!r}")
    for part in (str(tmp_path), "can't be written to", "Free some space", "cache_folder="):
        assert part in printed
    assert load_in_process(server, tmp_path)[0].endswith(COMMIT)
