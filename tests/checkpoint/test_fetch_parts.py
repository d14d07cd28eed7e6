"""What of a repository is fetched, and what of a snapshot counts, where there is no tokenizer.json or modules.json."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants, hf_hub_download

import minisbert
from tests.conftest import DATA, use_vocabulary
from tests.support.fetching import NAME, files_of
from tests.support.hubserver import COMMIT, Hub, Repository

Copy = Callable[[str], Path]
NOWHERE = "http://127.0.0.1:9"  # the port of the discard service, where nobody listens


@pytest.fixture
def fetched_whole(server: Hub, cache: Path) -> Callable[[dict[str, bytes]], None]:
    """Fetch all of a repository, as other programs do."""

    def fetch(files: dict[str, bytes]) -> None:
        server.repositories[NAME] = Repository({COMMIT: files})
        for name in files:
            hf_hub_download(NAME, name, cache_dir=cache)
        server.requests.clear()

    return fetch


def vocabulary_of(folder: Path) -> dict[str, bytes]:
    use_vocabulary(folder)
    return files_of(folder)


@pytest.mark.parametrize(
    ("name", "files"), [("tiny-mpnet", ["vocab.txt"]), ("tiny-roberta", ["vocab.json", "merges.txt"])]
)
def test_a_vocabulary_is_fetched_in_the_place_of_tokenizer_json(
    server: Hub, cache: Path, copy_of: Copy, name: str, files: list[str]
) -> None:
    folder = copy_of(name)
    server.repositories[NAME] = Repository({COMMIT: vocabulary_of(folder)})
    expected = minisbert.load(folder).encode("a text")
    np.testing.assert_array_equal(minisbert.load(NAME, cache_folder=cache).encode("a text"), expected)
    assert set(files) <= server.fetched()
    server.requests.clear()
    encoder = minisbert.load(NAME, cache_folder=cache)
    assert server.requests == []
    np.testing.assert_array_equal(encoder.encode("a text"), expected)
    (encoder.path / files[-1]).unlink()
    minisbert.load(NAME, cache_folder=cache)
    assert {path for _, path in server.requests} >= {files[-1]}


def test_beside_tokenizer_json_a_vocabulary_is_not_fetched(server: Hub, cache: Path) -> None:
    files = {
        **server.repositories[NAME].commits[COMMIT],
        "vocab.txt": b"not to be fetched",
        "merges.txt": b"",
    }
    server.repositories[NAME] = Repository({COMMIT: files})
    minisbert.load(NAME, cache_folder=cache)
    assert not {"vocab.txt", "merges.txt"} & server.fetched()


def test_a_tokenizer_json_that_was_not_fetched_yet(server: Hub, cache: Path, copy_of: Copy) -> None:
    """The hub is asked for it; where it can't be, the vocabulary is enough."""
    files = files_of(DATA / "tiny-bert")
    server.repositories[NAME] = Repository({COMMIT: {**files, **vocabulary_of(copy_of("tiny-bert"))}})
    path = minisbert.load(NAME, cache_folder=cache).path / "tokenizer.json"
    hf_hub_download(NAME, "vocab.txt", cache_dir=cache)
    for place in (path.resolve(), path):
        place.unlink()
    offline = minisbert.load(NAME, cache_folder=cache, local_files_only=True)
    assert not path.exists()
    server.requests.clear()
    online = minisbert.load(NAME, cache_folder=cache)
    assert path.exists()
    assert "tokenizer.json" in server.fetched()
    np.testing.assert_array_equal(offline.encode("a text"), online.encode("a text"))


# --- without modules.json ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["argument", "environment", "no network"])
@pytest.mark.parametrize("sign", ["README.md", ".gitattributes"])
def test_all_of_a_repository_without_modules(
    fetched_whole: Callable[..., None], cache: Path, monkeypatch: pytest.MonkeyPatch, how: str, sign: str
) -> None:
    """It is known to have none where somebody fetched all of it."""
    files = files_of(DATA / "cross-labels")
    del files["README.md"]
    fetched_whole({**files, sign: b"a sign"})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", how == "environment")
    if how == "no network":
        monkeypatch.setattr(constants, "ENDPOINT", NOWHERE)
    model = minisbert.load_cross_encoder(NAME, cache_folder=cache, local_files_only=how == "argument")
    assert model.path.name == COMMIT
    expected = minisbert.load_cross_encoder(DATA / "cross-labels").predict([("a", "b")])
    np.testing.assert_array_equal(model.predict([("a", "b")]), expected)


@pytest.mark.parametrize("lost", ["README.md", "model.safetensors"])
def test_a_part_of_a_repository_without_modules(
    fetched_whole: Callable[..., None], cache: Path, lost: str
) -> None:
    files = files_of(DATA / "cross-labels")
    del files[lost]
    fetched_whole(files)
    with pytest.raises(minisbert.CheckpointNotFoundError, match=r"incomplete.* lacks mod"):
        minisbert.load_cross_encoder(NAME, cache_folder=cache, local_files_only=True)


def test_a_hub_that_can_be_asked_is_asked(
    server: Hub, fetched_whole: Callable[..., None], cache: Path, bert: minisbert.SentenceEncoder
) -> None:
    """As an older program may have fetched README.md alone, and not modules.json."""
    files: dict[str, Any] = files_of(DATA / "tiny-bert")
    modules = files.pop("modules.json")
    fetched_whole(files)
    server.repositories[NAME] = Repository({COMMIT: {**files, "modules.json": modules}})
    encoder = minisbert.load(NAME, cache_folder=cache)
    np.testing.assert_array_equal(encoder.encode("a text"), bert.encode("a text"))
    assert "modules.json" in server.fetched()


@pytest.mark.parametrize("refusal", ["gated", "gone"])
def test_a_hub_that_says_no_is_believed(
    server: Hub, fetched_whole: Callable[..., None], cache: Path, refusal: str
) -> None:
    fetched_whole(files_of(DATA / "cross-labels"))
    if refusal == "gone":
        del server.repositories[NAME]
    else:
        server.faults[""] = 403
    with pytest.raises(minisbert.CheckpointNotFoundError, match="can't be fetched"):
        minisbert.load_cross_encoder(NAME, cache_folder=cache)
