"""A hub that refuses, lies, falls silent or is not there: an error of ours each time, and never for long."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import minisbert
from tests.conftest import DATA
from tests.support import pipelines
from tests.support.fetching import NAME, check_vectors, files_of, refused
from tests.support.hubserver import COMMIT, Hub, Repository


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


SAVED = "python -c \"from sentence_transformers import {} as M; M('org/tiny'{}).save_pretrained('tiny')\""


@pytest.mark.parametrize("lost", ["model.safetensors", "2_Dense/model.safetensors"])
def test_pickles_are_refused_and_not_fetched(server: Hub, cache: Path, tmp_path: Path, lost: str) -> None:
    """Not a weight is fetched, and the command saves modules and limits too."""
    stack = (pipelines.pooling("mean"), pipelines.dense(20))
    files = files_of(pipelines.build(tmp_path / "model", DATA / "tiny-bert", stack))
    del files[lost]
    pickle = lost.replace("model.safetensors", "pytorch_model.bin")
    server.repositories[NAME] = Repository({COMMIT: {**files, pickle: b"a pickle"}})
    message = refused(cache, f"org/tiny/{pickle}: ", "pickle", kind=minisbert.UnsupportedCheckpointError)
    assert message.endswith(SAVED.format("SentenceTransformer", ""))
    assert not {path for _, path in server.requests if path.endswith((".bin", ".safetensors"))}
    server.repositories[NAME].branches["v1"] = COMMIT
    with pytest.raises(minisbert.UnsupportedCheckpointError) as info:
        minisbert.load(NAME, cache_folder=cache, revision="v1")
    assert str(info.value).endswith(SAVED.format("SentenceTransformer", ", revision='v1'"))


@pytest.mark.parametrize("name", ["cross-bert", "cross-labels"])
def test_pickles_of_a_cross_encoder(server: Hub, cache: Path, name: str) -> None:
    files = files_of(DATA / name)
    del files["model.safetensors"]
    server.repositories[NAME] = Repository({COMMIT: files})
    with pytest.raises(minisbert.UnsupportedCheckpointError) as info:
        minisbert.load_cross_encoder(NAME, cache_folder=cache)
    assert str(info.value).endswith(SAVED.format("CrossEncoder", ""))


def test_a_vocabulary_that_is_not_read_is_refused_before_the_weights(server: Hub, cache: Path) -> None:
    files = dict(server.repositories[NAME].commits[COMMIT])
    del files["tokenizer.json"]
    server.repositories[NAME] = Repository({COMMIT: {**files, "sentencepiece.bpe.model": b"pieces"}})
    message = refused(
        cache,
        "org/tiny/sentencepiece.bpe.model: ",
        "tokenizer.json",
        kind=minisbert.UnsupportedCheckpointError,
    )
    assert message.endswith(SAVED.format("SentenceTransformer", ""))
    assert "model.safetensors" not in server.fetched()


def test_a_repository_without_any_vocabulary(server: Hub, cache: Path) -> None:
    """No command would make one: what sentence-transformers saves then is blind to its text."""
    files = dict(server.repositories[NAME].commits[COMMIT])
    del files["tokenizer.json"]
    server.repositories[NAME] = Repository({COMMIT: files})
    with pytest.raises(minisbert.CheckpointNotFoundError, match=r"no vocab\.txt either") as info:
        minisbert.load(NAME, cache_folder=cache)
    assert "python -c" not in str(info.value)


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
    server.faults["model.safetensors"] = "cut once"  # each time that it is asked for from its start
    with suppress(minisbert.CheckpointNotFoundError):  # before 1.0 huggingface_hub waits for the next load
        minisbert.load(NAME, cache_folder=cache)
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


def test_a_cache_that_can_t_be_written(server: Hub, cache: Path) -> None:
    cache.write_text("a file where a folder should be")
    refused(cache, repr(NAME), str(cache))
