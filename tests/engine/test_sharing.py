"""Models in one process: the weights of a checkpoint are there once, and every encoder has settings of its own."""

from __future__ import annotations

import copy
import pickle
import shutil
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minisbert
from minisbert.engine.base import TextModel
from tests.conftest import DATA, FEW, edit_json, in_threads
from tests.support.commandline import posix
from tests.support.environment import PATIENCE

Copy = Callable[[str], Path]
Twin = Callable[[Any], Any]
PAIRS = list(pairwise(FEW))


@dataclass
class Step:
    """As a step of a scikit-learn pipeline, whose `clone` makes deep copies of what it was given."""

    encoder: Any


def again(encoder: Any) -> Any:
    load = minisbert.load if isinstance(encoder, minisbert.SentenceEncoder) else minisbert.load_cross_encoder
    return load(encoder.path)


TWINS: dict[str, Twin] = {
    "load": again,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "clone": lambda encoder: copy.deepcopy(Step(encoder)).encoder,
    "pickle": lambda encoder: pickle.loads(pickle.dumps(encoder)),
}
twins = pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that are read from now on."""
    folders, read = [], TextModel._open

    def noted(self: Any, folder: Path, *others: Any) -> None:
        folders.append(folder)
        read(self, folder, *others)

    monkeypatch.setattr(TextModel, "_open", noted)
    return folders


# --- Weights ---------------------------------------------------------------------------------------------


@twins
def test_a_twin_reads_nothing_and_gives_the_same_vectors(
    copy_of: Copy, loads: list[Path], twin: Twin
) -> None:
    encoder = minisbert.load(copy_of("tiny-bert"))
    loads.clear()
    other = twin(encoder)
    assert loads == []
    assert other is not encoder
    assert other._weights is encoder._weights
    np.testing.assert_array_equal(other.encode(FEW), encoder.encode(FEW))


@twins
def test_a_twin_of_a_cross_encoder(copy_of: Copy, loads: list[Path], twin: Twin) -> None:
    model = minisbert.load_cross_encoder(copy_of("cross-bert"))
    loads.clear()
    other = twin(model)
    assert loads == []
    assert other is not model
    np.testing.assert_array_equal(other.predict(PAIRS), model.predict(PAIRS))


@twins
def test_settings_are_a_twin_s_own(copy_of: Copy, twin: Twin) -> None:
    encoder = minisbert.load(copy_of("tiny-bert"))
    expected = encoder.encode(FEW)
    other = twin(encoder)
    other.max_seq_length, other.truncate_dim, other.similarity_fn_name = 8, 5, "dot"
    other.num_threads = encoder.num_threads + 1
    other.prompts["own"] = "a prompt: "
    other.default_prompt_name = "own"
    assert (encoder.max_seq_length, encoder.truncate_dim, encoder.similarity_fn_name) == (32, None, "cosine")
    assert "own" not in encoder.prompts
    assert "own" not in minisbert.load(encoder.path).prompts
    assert other.num_threads != encoder.num_threads
    np.testing.assert_array_equal(encoder.encode(FEW), expected)


@pytest.mark.parametrize("twin", [copy.copy, copy.deepcopy, TWINS["pickle"]])
def test_copies_keep_what_was_set(twin: Twin) -> None:
    model = minisbert.load_cross_encoder(DATA / "cross-bert", num_threads=3)
    model.max_seq_length, model.activation_fn, model.prompts["q"] = 20, "Tanh", "q: "
    other = twin(model)
    assert (other.max_seq_length, other.activation_fn, other.num_threads) == (20, "Tanh", 3)
    assert other.prompts == model.prompts


@pytest.mark.parametrize(
    "arguments",
    [{"dtype": "float64"}, {"backend": "reference"}, {"backend": "reference", "dtype": "float64"}],
)
def test_other_arguments_are_other_models(bert: Any, arguments: dict[str, str]) -> None:
    encoder = minisbert.load(bert.path, **arguments)
    if (encoder.backend, encoder.dtype) == (bert.backend, bert.dtype):
        pytest.skip("numba is not installed, so there is but one backend")
    assert encoder._weights is not bert._weights
    assert encoder.dtype == arguments.get("dtype", "float32")
    assert encoder.backend == "reference"


def test_a_class_of_one_s_own_is_loaded_for_itself(bert: Any) -> None:
    class Own(minisbert.SentenceEncoder):
        pass

    own = Own(bert.path)
    assert type(own) is Own
    assert type(copy.deepcopy(own)) is Own
    assert type(minisbert.load(bert.path)) is minisbert.SentenceEncoder


def test_a_plan_is_recorded_once_it_is_needed_and_for_all(copy_of: Copy) -> None:
    encoder = minisbert.load(copy_of("tiny-bert"))
    other = copy.deepcopy(encoder)  # before anything was recorded
    assert encoder._plans == {}
    other.encode(FEW)
    assert list(encoder._plans) == ["sentence_embedding"]
    plans = dict(encoder._plans)
    encoder.encode(FEW, output_value="token_embeddings")
    minisbert.load(encoder.path).encode(FEW)
    assert list(other._plans) == ["sentence_embedding", "token_embeddings"]
    assert other._plans["sentence_embedding"] is plans["sentence_embedding"]


def test_the_last_one_lets_go_of_the_weights(copy_of: Copy, loads: list[Path]) -> None:
    encoder = minisbert.load(copy_of("tiny-bert"))
    folder, weights, expected = (
        encoder.path,
        weakref.ref(encoder._weights.embeddings.position),
        encoder.encode(FEW),
    )
    other = copy.deepcopy(encoder)
    del encoder
    np.testing.assert_array_equal(other.encode(FEW), expected)
    assert weights() is not None
    del other
    assert weights() is None
    np.testing.assert_array_equal(minisbert.load(folder).encode(FEW), expected)
    assert loads == [folder, folder]


def test_a_load_that_fails_leaves_nothing_behind(copy_of: Copy) -> None:
    folder = copy_of("tiny-bert")
    tokenizer = folder / "tokenizer.json"
    content = tokenizer.read_bytes()
    tokenizer.write_bytes(b"{")
    for _ in range(2):
        with pytest.raises(minisbert.CheckpointError, match=r"tokenizer\.json"):
            minisbert.load(folder)
    tokenizer.write_bytes(content)
    assert minisbert.load(folder).encode("text").shape == (75,)


def test_a_load_in_the_midst_of_a_load(copy_of: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a signal's handler, or in another thread that is faster: nobody waits, and the first one's stay."""
    folder, read, inner = copy_of("tiny-bert"), minisbert.SentenceEncoder._read, []

    def interrupted(self: Any, place: Path, num_threads: int) -> int:
        monkeypatch.undo()
        inner.append(minisbert.load(folder))
        return read(self, place, num_threads)

    monkeypatch.setattr(minisbert.SentenceEncoder, "_read", interrupted)
    outer = minisbert.load(folder)
    assert outer._weights is inner[0]._weights
    np.testing.assert_array_equal(outer.encode(FEW), inner[0].encode(FEW))


def test_threads_that_load_one_checkpoint_at_once(copy_of: Copy) -> None:
    folder, start, found = copy_of("tiny-bert"), threading.Barrier(4), []

    def work() -> None:
        start.wait()
        found.append(minisbert.load(folder).encode(FEW))

    in_threads(4, work, timeout=120 * PATIENCE)
    expected = minisbert.load(folder).encode(FEW)
    assert len(found) == 4
    for vectors in found:
        np.testing.assert_array_equal(vectors, expected)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_ten_deep_copies_take_no_memory(minilm: Path) -> None:
    """In a process of its own, whose memory nobody else changes."""
    code = f"""
import copy
import minisbert
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
encoder = minisbert.load({str(minilm)!r}, num_threads=1)
encoder.encode("a text")
before = resident()
copies = [copy.deepcopy(encoder) for _ in range(10)]
for other in copies:
    other.encode("a text")
print(resident() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300 * PATIENCE
    )
    assert int(done.stdout) < 2 << 20


# --- A folder that becomes another ----------------------------------------------------------------------------


def replace(folder: Path, name: str) -> None:
    """Put another checkpoint into the place of one by renaming, as is right while it is in use."""
    shutil.copytree(DATA / name, folder.with_name("new"))
    folder.rename(folder.with_name("old"))
    folder.with_name("new").rename(folder)


@posix  # elsewhere a folder with a file that is mapped can't be renamed
def test_a_checkpoint_that_was_replaced_is_read_anew(copy_of: Copy) -> None:
    folder = copy_of("tiny-bert")
    old = minisbert.load(folder)
    before = old.encode(FEW)
    replace(folder, "tiny-distilbert")
    new = minisbert.load(folder)
    assert (old.config.transformer.model_type, new.config.transformer.model_type) == ("bert", "distilbert")
    for encoder in (old, copy.copy(old), copy.deepcopy(old)):  # on the weights that it was loaded with
        np.testing.assert_array_equal(encoder.encode(FEW), before)
    assert minisbert.load(folder)._weights is new._weights


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("config_sentence_transformers.json", {"prompts": {"query": "another: "}}),
        ("sentence_bert_config.json", {"max_seq_length": 16}),
        ("tokenizer_config.json", {"do_lower_case": False}),
        ("special_tokens_map.json", {"mask_token": "[MASK]"}),  # was not there before
        ("1_Pooling/config.json", {"pooling_mode": "cls"}),
    ],
)
def test_settings_that_were_changed_are_read_anew(
    copy_of: Copy, loads: list[Path], name: str, changes: dict[str, Any]
) -> None:
    folder = copy_of("tiny-bert")
    encoder = minisbert.load(folder)
    edit_json(folder / name, **changes)
    other = minisbert.load(folder)
    assert loads == [folder, folder]
    assert (encoder.max_seq_length, other.max_seq_length) == (32, changes.get("max_seq_length", 32))


def test_a_relative_path_stays_what_it_was(
    copy_of: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_of("tiny-bert")
    shutil.copytree(DATA / "tiny-distilbert", tmp_path / "elsewhere" / folder.name)
    monkeypatch.chdir(folder.parent)
    encoder = minisbert.load(folder.name)
    assert encoder.path == folder
    expected, content = encoder.encode(FEW), pickle.dumps(encoder)
    monkeypatch.chdir("elsewhere")
    for other in (copy.copy(encoder), copy.deepcopy(encoder), pickle.loads(content)):
        assert other.path == folder
        np.testing.assert_array_equal(other.encode(FEW), expected)
    assert minisbert.load(folder.name).config.transformer.model_type == "distilbert"
