"""From names to folders, without a network."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, AnyStr, Generic

import pytest

import minisbert
from minisbert.checkpoint import hub
from tests.conftest import DATA

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A Hugging Face cache in which two models lie, as huggingface_hub lays them out."""
    for name in ("org--model", "sentence-transformers--plain"):
        model = tmp_path / f"models--{name}"
        (model / "refs").mkdir(parents=True)
        (model / "refs" / "main").write_text(REVISION)
        shutil.copytree(DATA / "tiny-bert", model / "snapshots" / REVISION)
    return tmp_path


def test_a_folder_goes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert hub.resolve("org/model") == Path("org/model")
    assert hub.resolve(tmp_path / "org") == tmp_path / "org"


class Folder(Generic[AnyStr]):
    """A path of another library, such as py.path or a configuration's."""

    def __init__(self, path: AnyStr) -> None:
        self.path: AnyStr = path

    def __fspath__(self) -> AnyStr:
        return self.path


def test_any_path_of_characters_will_do(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = cache / "models--org--model" / "snapshots" / REVISION
    assert hub.resolve(Folder(str(model))) == model
    assert minisbert.load(Folder(str(model))).path == model
    found = minisbert.load("org/model", cache_folder=Folder(str(cache)), local_files_only=True)
    assert found.path == model
    monkeypatch.chdir(model.parent)
    assert minisbert.load(Folder(REVISION)).path.absolute() == model
    with pytest.raises(minisbert.CheckpointNotFoundError, match="there is no such folder"):  # and no name
        minisbert.load(Folder("org/model"), cache_folder=cache)


@pytest.mark.parametrize("name", ["name_or_path", "cache_folder"])
def test_a_path_of_bytes_is_refused(name: str) -> None:
    arguments: dict[str, Any] = {"name_or_path": "org/model", name: Folder(b"model")}
    with pytest.raises(minisbert.EncodeTypeError, match=rf"{name} is <.*Folder.*; expected str or PathLike"):
        minisbert.load(**arguments)


def test_a_name_and_a_commit_from_a_folder_of_the_cache(cache: Path) -> None:
    snapshots = cache / "models--org--model" / "snapshots"
    assert hub.name_and_commit(snapshots / REVISION) == ("org/model", REVISION)
    assert hub.name_and_commit(cache / "models--gpt2" / "snapshots" / REVISION) == ("gpt2", REVISION)
    for folder in (snapshots, cache, Path("/"), cache / "datasets--a" / "snapshots" / REVISION):
        assert hub.name_and_commit(folder) is None


def test_the_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert hub.resolve("~/model") == tmp_path / "model"


@pytest.mark.parametrize(
    "path", ["a/b/c", "./model", "../model", "/nowhere/model", "C:\\model", "C:/model", "a//b"]
)
def test_what_can_only_be_a_path_is_never_asked_of_the_hub(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*arguments: Any, **options: Any) -> Path:
        raise AssertionError("asked the hub")

    monkeypatch.setattr(hub, "_snapshot", download)
    with pytest.raises(minisbert.CheckpointNotFoundError, match="there is no such folder"):
        minisbert.load(path)
    with pytest.raises(minisbert.CheckpointNotFoundError, match="there is no such folder"):
        minisbert.load(Path("org") / "model")


@pytest.mark.parametrize(
    ("name", "stored"), [("org/model", "org--model"), ("plain", "sentence-transformers--plain")]
)
def test_a_name_in_the_cache_is_loaded_without_a_network(cache: Path, name: str, stored: str) -> None:
    encoder = minisbert.load(name, cache_folder=cache)
    assert encoder.path == cache / f"models--{stored}" / "snapshots" / REVISION
    assert encoder.encode("text").shape == (75,)


def test_a_cross_encoder_s_name_is_of_another_organisation(cache: Path) -> None:
    model = cache / "models--cross-encoder--plain"
    shutil.copytree(cache / "models--sentence-transformers--plain" / "refs", model / "refs")
    shutil.copytree(DATA / "cross-bert", model / "snapshots" / REVISION)
    found = minisbert.load_cross_encoder("plain", cache_folder=cache, local_files_only=True)
    assert found.path == model / "snapshots" / REVISION


def test_a_name_that_is_not_in_the_cache_when_offline(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        minisbert.CheckpointNotFoundError, match=r"'org/other'.*not in the local cache.*local_files_only"
    ):
        minisbert.load("org/other", cache_folder=cache, local_files_only=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(minisbert.CheckpointNotFoundError, match="HF_HUB_OFFLINE"):
        minisbert.load("org/other", cache_folder=cache)


@pytest.mark.parametrize(
    "path", ["a" * 5000, "/" + "a" * 300, "~nobody-of-this-name", "~\ud800", "/a\0b", "\udcff"]
)
def test_a_name_that_no_file_can_have(path: str, cache: Path) -> None:
    with pytest.raises(minisbert.CheckpointNotFoundError):
        minisbert.load(path, cache_folder=cache, local_files_only=True)
    with pytest.raises(minisbert.CheckpointNotFoundError):
        minisbert.load(Path(path))


@pytest.mark.parametrize("arguments", [{"revision": "\0"}, {"revision": "r" * 300}, {"cache_folder": "\0"}])
def test_what_can_t_be_part_of_a_path(cache: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(minisbert.CheckpointNotFoundError):
        minisbert.load("org/model", **{"cache_folder": cache, "local_files_only": True, **arguments})


@pytest.mark.parametrize(
    ("name", "value", "kinds"),
    [
        ("revision", 5, "str or None"),
        ("token", 5, "str or bool or None"),
        ("cache_folder", 5, "str or PathLike or None"),
        ("local_files_only", "yes", "bool"),
    ],
)
def test_arguments_of_the_wrong_type(name: str, value: Any, kinds: str) -> None:
    with pytest.raises(minisbert.EncodeTypeError, match=rf"{name} is {value!r}; expected .*{kinds}"):
        minisbert.load("org/model", **{name: value})


def test_half_a_download_does_not_count(cache: Path) -> None:
    (cache / "models--org--model" / "snapshots" / REVISION / "model.safetensors").unlink()
    with pytest.raises(minisbert.CheckpointNotFoundError, match=r"incomplete .* lacks model\.safetensors"):
        minisbert.load("org/model", cache_folder=cache, local_files_only=True)


@pytest.mark.parametrize("name", ["bad name!/model", "org/model?x"])
def test_a_name_that_can_be_nothing(cache: Path, name: str) -> None:
    with pytest.raises(minisbert.CheckpointNotFoundError, match="neither a folder nor a model's name"):
        minisbert.load(name, cache_folder=cache)


class NetworkError(Exception):
    """The network library's own, which depends on the version of huggingface_hub."""


@pytest.mark.parametrize("kind", [OSError, ValueError, NetworkError])
def test_a_hub_that_does_not_answer(
    cache: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    def model_info(*arguments: Any, **options: Any) -> None:
        raise kind("the line is cut\nand more")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", model_info)
    with pytest.raises(
        minisbert.CheckpointNotFoundError, match=r"can't be fetched from .*: the line is cut\. Check"
    ) as info:
        minisbert.load("org/other", cache_folder=cache)
    assert "\n" not in str(info.value)
