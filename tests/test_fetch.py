"""Fetching from a hub that stands on the loopback, works or fails, and never for long."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import close_session, constants

import minisbert
from conftest import DATA
from hubserver import COMMIT, Hub, Repository
from minisbert import hub

IMPATIENCE = 0.2  # seconds that the client waits for an answer that is not going to come
PATIENCE = 60  # seconds after which a test is taken to hang
NAME = "org/tiny"
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
DECOYS = (
    "pytorch_model.bin",
    "tf_model.h5",
    "model.fp16.safetensors",
    "onnx/model.onnx",
    "onnx/config.json",
    "openvino/openvino_model.xml",
    "checkpoint-5/model.safetensors",
    "README.md",
)


def files_of(folder: Path) -> dict[str, bytes]:
    """The files of a checkpoint by their paths, and others that repositories have beside them."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    return files | dict.fromkeys(DECOYS, b"not to be fetched")


@pytest.fixture(autouse=True)
def no_hanging() -> Iterator[None]:
    """Fail, instead of waiting for ever."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def fail(*arguments: Any) -> None:
        raise AssertionError(f"still not done after {PATIENCE} s")

    signal.signal(signal.SIGALRM, fail)
    signal.alarm(PATIENCE)
    yield
    signal.alarm(0)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with the tiny BERT in it, which this process takes for the real one."""
    with Hub() as server:
        thread = server.start()
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(
            constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16
        )  # 10 MB, of which none is kept after a cut
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between the library's attempts
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        server.repositories[NAME] = Repository({COMMIT: files_of(DATA / "tiny-bert")})
        close_session()  # it keeps what it found in the environment
        yield server
        close_session()
        server.close()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """An empty cache folder."""
    return tmp_path / "cache"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for an answer but shortly."""
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        monkeypatch.setattr(constants, name, IMPATIENCE)
    monkeypatch.setattr("huggingface_hub.file_download._ETAG_RETRY_TIMEOUT", IMPATIENCE, raising=False)


def check_vectors(encoder: minisbert.SentenceEncoder, bert: minisbert.SentenceEncoder) -> None:
    np.testing.assert_array_equal(encoder.encode("a text"), bert.encode("a text"))


def refused(
    cache: Path, *parts: str, kind: type[Exception] = minisbert.CheckpointNotFoundError, **options: Any
) -> str:
    """Load in vain; the message names the repository and what else it should; nothing half-made stays."""
    with pytest.raises(kind) as info:
        minisbert.load(options.pop("name", NAME), cache_folder=cache, **options)
    assert type(info.value) is kind
    for part in parts:
        assert part in str(info.value)
    with pytest.raises(minisbert.CheckpointNotFoundError):
        minisbert.load(NAME, cache_folder=cache, local_files_only=True)
    return str(info.value)


# --- What works ---------------------------------------------------------------------------------------


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


# --- What fails ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "gated"), [(None, False), ("hf_wrong", False), (None, True), ("hf_wrong", True)]
)
def test_a_repository_that_may_not_be_read(server: Hub, cache: Path, token: str | None, gated: bool) -> None:
    server.repositories[NAME].token = "hf_secret"
    server.repositories[NAME].gated = gated
    what = "it is gated" if gated else "no such model, or it is private"
    message = refused(cache, repr(NAME), server.url, what, "HF_TOKEN", "token=", token=token)
    assert "hf_" not in message
    assert "model.safetensors" not in server.fetched()


@pytest.mark.parametrize("name", ["org/other", "other"])
def test_a_repository_that_is_not_there(server: Hub, cache: Path, name: str) -> None:
    refused(cache, f"{name}'", server.url, str(cache), "no such model", "Check the name", name=name)


@pytest.mark.parametrize("revision", ["v9", "e" * 40, "no/such"])
def test_a_revision_that_is_not_there(server: Hub, cache: Path, revision: str) -> None:
    refused(cache, repr(NAME), server.url, f"no revision {revision!r}", "branch, tag", revision=revision)


def test_a_repository_without_a_checkpoint(server: Hub, cache: Path) -> None:
    server.repositories[NAME] = Repository({COMMIT: {"README.md": b"a data set"}})
    refused(cache, NAME, server.url, "neither config.json nor modules.json")


def test_an_adapter_is_not_overlooked(server: Hub, cache: Path) -> None:
    files = {**server.repositories[NAME].commits[COMMIT], "adapter_config.json": b"{}"}
    server.repositories[NAME] = Repository({COMMIT: files})
    for _ in range(2):
        with pytest.raises(minisbert.UnsupportedCheckpointError, match=r"adapter_config\.json"):
            minisbert.load(NAME, cache_folder=cache)


def test_pickles_are_refused_and_not_fetched(server: Hub, cache: Path, copy_of: Any) -> None:
    files = dict(server.repositories[NAME].commits[COMMIT])
    del files["model.safetensors"]
    server.repositories[NAME] = Repository({COMMIT: files})
    message = refused(
        cache, "org/tiny/pytorch_model.bin", "'org/tiny'", kind=minisbert.UnsupportedCheckpointError
    )
    assert "pytorch_model.bin" not in {path for _, path in server.requests}
    folder = copy_of("tiny-bert")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(minisbert.UnsupportedCheckpointError) as info:
        minisbert.load(folder)
    local = str(info.value).replace(f"'{folder}'", "'org/tiny'", 1).replace(f"'{folder}'", "'tiny'")
    assert local.replace(str(folder), "org/tiny") == message


FETCHED = ("config.json", "model.safetensors", "1_Pooling/config.json")


@pytest.mark.parametrize("path", FETCHED)
@pytest.mark.parametrize("fault", ["cut", "corrupt", "short", 500, 404])
def test_a_file_that_does_not_come_as_it_should(
    server: Hub, cache: Path, bert: minisbert.SentenceEncoder, path: str, fault: Any
) -> None:
    server.faults[path] = fault
    if fault == "corrupt":
        refused(cache, path, "hash", "load once more", kind=minisbert.CheckpointError)
    else:
        refused(cache, repr(NAME), server.url, str(cache), "can't be fetched", "try again")
    server.faults.clear()
    check_vectors(minisbert.load(NAME, cache_folder=cache), bert)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("path", ["", *FETCHED])
def test_a_server_that_falls_silent(server: Hub, cache: Path, path: str) -> None:
    server.faults[path] = "silent"
    refused(cache, repr(NAME), server.url, str(cache), "can't be fetched", "try again")


def test_a_cut_connection_is_taken_up_again(
    server: Hub, cache: Path, bert: minisbert.SentenceEncoder
) -> None:
    server.faults["model.safetensors"] = "cut once"
    check_vectors(minisbert.load(NAME, cache_folder=cache), bert)


@pytest.mark.parametrize("fault", [500, 503, 403, b"{", b"[]", b"null", b'{"sha": 5}', b"\xff", b""])
def test_a_listing_that_does_not_come_as_it_should(
    server: Hub, cache: Path, bert: minisbert.SentenceEncoder, fault: Any
) -> None:
    server.faults[""] = fault
    refused(cache, repr(NAME), server.url)
    server.faults.clear()
    check_vectors(minisbert.load(NAME, cache_folder=cache), bert)


@pytest.mark.parametrize("path", ["../../escaped", "/escaped", "1_Pooling/../../../escaped"])
def test_a_listing_that_leads_out_of_the_cache(server: Hub, cache: Path, path: str) -> None:
    files = server.repositories[NAME].commits[COMMIT]
    modules = [{"type": "sentence_transformers.models.Transformer", "path": path}]
    more = {"modules.json": json.dumps(modules).encode(), f"{path}/config.json": b"{}"}
    server.repositories[NAME] = Repository({COMMIT: {**files, **more}})
    with pytest.raises(minisbert.MinisbertError):
        minisbert.load(NAME, cache_folder=cache)
    assert not list(cache.parent.rglob("*escaped*"))


def test_no_server_at_all(server: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = "http://127.0.0.1:9"  # the port of the discard service, where nobody listens
    monkeypatch.setattr(constants, "ENDPOINT", nobody)
    refused(cache, repr(NAME), nobody, str(cache), "Check the connection and HF_ENDPOINT")


def test_a_cache_that_can_t_be_written(server: Hub, cache: Path) -> None:
    cache.write_text("a file where a folder should be")
    refused(cache, repr(NAME), str(cache))


# --- In a process of its own --------------------------------------------------------------------------

PROGRAM = """\
import sys, minisbert
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
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    settings = {"HF_ENDPOINT": server.url, "HF_HOME": str(home), "NO_PROXY": "*", **environment}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, NAME, str(limit)],
        env={**clean, **settings},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return done.stdout.strip(), done.stderr


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
