"""A hub that refuses, lies, falls silent or is not there: an error of ours each time, and never for long."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import minisbert
from fetching import NAME, check_vectors, refused
from hubserver import COMMIT, Hub, Repository


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
