"""Links in a checkpoint folder: what they may lead to."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import minisbert
from tests.conftest import DATA
from tests.support import pipelines

FILES = (
    "config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "model.safetensors",
    "1_Pooling/config.json",
)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def _links(tmp_path: Path) -> None:
    try:
        (tmp_path / "probe").symlink_to(tmp_path)
    except OSError:
        pytest.skip("this system lets only an administrator make links")


def load(folder: Path) -> minisbert.SentenceEncoder:
    return minisbert.load(folder, backend="reference")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("absolute", [True, False])
def test_a_file_from_elsewhere_is_refused(
    copy_of: Callable[[str], Path], tmp_path: Path, name: str, absolute: bool
) -> None:
    path = copy_of("tiny-bert") / name
    path.rename(tmp_path / "secret")
    up = Path(*[".."] * (1 + name.count("/")))
    path.symlink_to(tmp_path / "secret" if absolute else up / "secret")
    with pytest.raises(
        minisbert.CheckpointError, match=rf"{name}: is a link that leads out.*secret.*put a copy"
    ):
        load(path.parents[name.count("/")])


def test_a_folder_from_elsewhere_is_refused(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copy_of("tiny-bert")
    (folder / "1_Pooling").rename(tmp_path / "secret")
    (folder / "1_Pooling").symlink_to(tmp_path / "secret")
    with pytest.raises(minisbert.CheckpointError, match="1_Pooling: is a link that leads out"):
        load(folder)
    (folder / "modules.json").unlink()  # then nothing leads there
    load(folder)


def test_weights_of_a_module_from_elsewhere_are_refused(tmp_path: Path) -> None:
    stack = (pipelines.pooling("mean"), pipelines.dense())
    folder = pipelines.build(tmp_path / "model", DATA / "tiny-bert", stack)
    path = folder / "2_Dense" / "model.safetensors"
    path.symlink_to(path.rename(tmp_path / "secret"))
    with pytest.raises(minisbert.CheckpointError, match=r"2_Dense.*is a link that leads out.*secret"):
        minisbert.load(folder)


def test_a_link_to_nothing_elsewhere_is_refused(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copy_of("tiny-bert")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(tmp_path / "nothing")
    with pytest.raises(minisbert.CheckpointError, match="leads out"):
        load(folder)


def test_a_folder_named_like_the_cache_is_not_the_cache(
    copy_of: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = copy_of("tiny-bert")
    (tmp_path / "blobs").mkdir()
    path = (folder / "config.json").rename(tmp_path / "blobs" / "blob")
    (folder / "config.json").symlink_to(path)
    with pytest.raises(minisbert.CheckpointError, match="leads out"):
        load(folder)


def test_the_folder_itself_may_be_a_link(bert: minisbert.SentenceEncoder, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(DATA / "tiny-bert")
    np.testing.assert_allclose(load(tmp_path / "link").encode("a"), bert.encode("a"), atol=1e-6)


def test_links_inside_the_folder_are_followed(
    copy_of: Callable[[str], Path], bert: minisbert.SentenceEncoder
) -> None:
    folder = copy_of("tiny-bert")
    (folder / "..data").mkdir()  # as Kubernetes lays out a volume
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).rename(folder / "..data" / name)
        (folder / name).symlink_to(Path("..data", name))
    (folder / "1_Pooling").rename(folder / "..data" / "1_Pooling")
    (folder / "1_Pooling").symlink_to(Path("..data", "1_Pooling"))
    np.testing.assert_allclose(load(folder).encode("a"), bert.encode("a"), atol=1e-6)


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """The tiny BERT as the Hugging Face cache keeps it: every file a link to a blob of the repository's."""
    repository = tmp_path / "hub" / "models--org--model"
    snapshot = repository / "snapshots" / COMMIT
    shutil.copytree(DATA / "tiny-bert", snapshot)
    (repository / "blobs").mkdir()
    for number, path in enumerate(sorted(path for path in snapshot.rglob("*") if path.is_file())):
        path.rename(repository / "blobs" / str(number))
        up = Path(*[".."] * (1 + len(path.relative_to(snapshot).parts)))
        path.symlink_to(up / "blobs" / str(number))
    return snapshot


def test_links_of_the_cache_are_followed(
    snapshot: Path, tmp_path: Path, bert: minisbert.SentenceEncoder
) -> None:
    expected = bert.encode("a")
    np.testing.assert_allclose(load(snapshot).encode("a"), expected, atol=1e-6)
    (tmp_path / "link").symlink_to(snapshot)
    np.testing.assert_allclose(load(tmp_path / "link").encode("a"), expected, atol=1e-6)
    blob = (snapshot / "model.safetensors").resolve()  # newer caches share blobs between repositories
    shared = tmp_path / "hub" / "blobs" / "ab"
    shared.mkdir(parents=True)
    blob.rename(shared / "abc")
    blob.symlink_to(Path("..", "..", "blobs", "ab", "abc"))
    np.testing.assert_allclose(load(snapshot).encode("a"), expected, atol=1e-6)


def test_links_out_of_the_cache_are_refused(snapshot: Path, tmp_path: Path) -> None:
    other = tmp_path / "hub" / "models--org--other" / "blobs"
    other.mkdir(parents=True)
    for place in (tmp_path, other):
        (place / "secret").write_text("{}")
        (snapshot / "config.json").unlink()
        (snapshot / "config.json").symlink_to(place / "secret")
        with pytest.raises(minisbert.CheckpointError, match=r"config\.json: is a link that leads out"):
            load(snapshot)
