"""`fit` from end to end: the losses of its steps, interruptions, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minisbert
from minisbert import unfinished
from minisbert.convert import convert_checkpoint
from minisbert.training import Record, fit, loop, output
from tests.conftest import DATA, edit_json
from tests.support import pipelines
from tests.support.training import RANKING, scored_rows, some_rows

pytestmark = pytest.mark.filterwarnings("ignore::minisbert.TruncationWarning")
ROWS = some_rows(48, 2)


def train(folder: Path, base: str | Path = "tiny-bert", rows: Any = ROWS, **more: Any) -> Record:
    arguments = {"batch_size": 8, "lr": 1e-3, "num_threads": 1, **more}
    return fit(DATA / base, rows, folder / "out", **arguments)


def fingerprint(folder: Path) -> str:
    return sha256((folder / "out" / "model.safetensors").read_bytes()).hexdigest()


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Of a loop of torch in float64 with the reference's parameter groups: `test_training_parity.torch_steps`.
GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-mpnet"])
@pytest.mark.parametrize("loss", [RANKING, "CosineSimilarityLoss"])
def test_golden_losses_of_twenty_steps(tmp_path: Path, name: str, loss: str) -> None:
    rows = ROWS if loss == RANKING else scored_rows(48)
    record = train(
        tmp_path, name, rows, batch_size=16, loss=loss, warmup_steps=10, steps_per_epoch=20, dropout=0,
        dtype="float64", shuffle=False,
    )  # fmt: skip
    np.testing.assert_allclose(record.losses, GOLDEN[f"{name} {loss}"], rtol=1e-9)


def test_it_learns(tmp_path: Path) -> None:
    record = train(tmp_path, "tiny-distilbert", epochs=6, lr=3e-3, dropout=0)
    assert np.mean(record.losses[-6:]) < 0.7 * np.mean(record.losses[:6])


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tmp_path: Path) -> None:
    found = []
    for name, seed, threads in (("a", 1, 1), ("b", 1, 1), ("c", 2, 1), ("d", 1, 2), ("e", 1, 2)):
        (tmp_path / name).mkdir()
        train(tmp_path / name, seed=seed, num_threads=threads)
        found.append(fingerprint(tmp_path / name))
    assert found[0] == found[1] != found[2]
    assert found[3] == found[4]


def test_dropout_is_what_the_settings_say_unless_it_is_given(
    tmp_path: Path, copy_of: Callable[[str], Path]
) -> None:
    losses = []
    for name, rates, more in (
        ("a", (0.1, 0.1), {}),
        ("b", (0.5, 0.5), {"dropout": 0.1}),
        ("c", (0.1, 0.5), {}),
    ):
        base = copy_of("tiny-bert").rename(tmp_path / f"base-{name}")
        keys = ("hidden_dropout_prob", "attention_probs_dropout_prob")
        edit_json(base / "config.json", **dict(zip(keys, rates, strict=True)))
        (tmp_path / name).mkdir()
        losses.append(train(tmp_path / name, base, **more).losses)
    assert losses[0] == losses[1] != losses[2]


def test_a_base_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, revision = tmp_path / "models--org--model", "0" * 40
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(revision)
    shutil.copytree(DATA / "tiny-bert", model / "snapshots" / revision)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    fit("org/model", ROWS, tmp_path / "out", batch_size=8, num_threads=1, steps_per_epoch=1)
    assert "fine-tuned from org/model by" in (tmp_path / "out" / "README.md").read_text()


def test_numbers_of_numpy_are_arguments_too(tmp_path: Path) -> None:
    record = train(
        tmp_path,
        batch_size=np.int64(8),
        seed=np.int32(1),
        lr=np.float32(1e-3),
        shuffle=np.True_,
        evaluation=np.int8(8),
    )
    assert len(record.losses) == 5


def test_evaluation_by_all_of_several_data_sets(tmp_path: Path) -> None:
    (tmp_path / "both").mkdir()
    (tmp_path / "joined").mkdir()
    both = train(tmp_path / "both", evaluation={"a": some_rows(8, 3)[:5], "b": some_rows(8, 2)[5:]})
    assert len(both.evaluations) == 2
    rows = [*(row[:2] for row in some_rows(8, 3)[:5]), *some_rows(8, 2)[5:]]
    assert train(tmp_path / "joined", evaluation=rows).evaluations == both.evaluations


# --- interruptions --------------------------------------------------------------------------------------------

EVALUATED = {"evaluation": 8, "evaluation_steps": 2, "epochs": 2, "lr": 3e-3}


def test_a_run_that_is_interrupted_at_any_step_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "whole").mkdir()
    whole = train(tmp_path / "whole", **EVALUATED)
    (tmp_path / "parts").mkdir()

    def stop(steps: int, entry: dict[str, Any]) -> None:
        if entry["step"] == last:
            raise KeyboardInterrupt

    for last in (1, 4, 6, 7, 10):
        monkeypatch.setattr(loop, "SAVE_SECONDS", 0 if last != 7 else 60)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "parts", **EVALUATED, resume=last > 1, show_progress_bar=stop)
    record = train(tmp_path / "parts", **EVALUATED, resume=True)
    assert (record.losses, record.evaluations) == (whole.losses, whole.evaluations)
    assert fingerprint(tmp_path / "parts") == fingerprint(tmp_path / "whole")
    assert left_over(tmp_path / "parts") == ["out"]


KILLED = """
import sys
from pathlib import Path
from minisbert.training import loop
from tests.training.test_fit import train
loop.SAVE_SECONDS = 0
def say(steps, entry):
    print(entry["step"], flush=True)
train(Path(sys.argv[1]), epochs=2, resume=sys.argv[2] == "True", show_progress_bar=say)
"""


def test_killed_at_three_steps_and_resumed(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    train(tmp_path / "whole", epochs=2)
    (tmp_path / "killed").mkdir()
    for step in (2, 5, 9):
        command = [sys.executable, "-c", KILLED, str(tmp_path / "killed"), str(step > 2)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=DATA.parents[1]) as child:
            assert child.stdout is not None
            for line in child.stdout:
                if int(line) == step:
                    child.kill()
                    break
    record = train(tmp_path / "killed", epochs=2, resume=True)
    assert len(record.losses) == 12
    assert fingerprint(tmp_path / "killed") == fingerprint(tmp_path / "whole")


def test_a_run_that_was_killed_before_it_had_settings(tmp_path: Path) -> None:
    (tmp_path / ".out.training").mkdir()
    (tmp_path / ".out.training" / "settings.json.tmp").write_text("{")
    assert len(train(tmp_path).losses) == 6
    assert left_over(tmp_path) == ["out"]


def test_what_is_resumed_must_be_the_same_run(tmp_path: Path) -> None:
    def stop(steps: int, entry: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(minisbert.TrainingError, match="there is no interrupted run"):
        train(tmp_path, resume=True)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, show_progress_bar=stop)
    with pytest.raises(minisbert.TrainingError, match=r"an interrupted run; go on with it \(resume=True"):
        train(tmp_path)
    for name, change in {
        "lr": {"lr": 1e-4},
        "data '48 rows, fingerprint": {"rows": some_rows(47, 2)},
        "evaluation None": {"evaluation": some_rows(9, 2)},
        "base": {"base": "tiny-mpnet"},
    }.items():
        with pytest.raises(minisbert.TrainingError, match=f"the interrupted run has {name}"):
            train(tmp_path, resume=True, **change)
    train(tmp_path, resume=True)
    assert unfinished.kept == set()


# --- bad input ------------------------------------------------------------------------------------------------


def test_an_output_that_exists(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(minisbert.TrainingError, match="out: is there already; name a folder that is not"):
        train(tmp_path)
    with pytest.raises(minisbert.TrainingError, match=r"there is no folder .*nowhere; make it first"):
        train(tmp_path / "nowhere")
    assert left_over(tmp_path) == ["out"]


@pytest.mark.parametrize("lr", [1e30, 1e300])
def test_a_loss_that_is_no_number_stops_with_the_step(tmp_path: Path, lr: float) -> None:
    with pytest.raises(
        minisbert.TrainingError, match=r"step 2: .*(nan|inf).* a lower lr or more warmup_steps"
    ):
        train(tmp_path, lr=lr, scheduler="constantlr")
    state = tmp_path / ".out.training" / "state.npy"  # the last good one
    with state.open("rb") as file:
        assert np.load(file) == 0
        assert np.isfinite(np.load(file)).all()
    assert left_over(tmp_path) == [".out.training"]


def test_weights_that_give_no_finite_loss_at_all_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(minisbert.TrainingError, match="step 1: the loss is"):
        train(tmp_path, scale=1e308)
    assert left_over(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits")
def test_a_full_disk_while_the_state_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr(loop, "SAVE_SECONDS", 0)
    (tmp_path / "whole").mkdir()
    train(tmp_path / "whole")
    (tmp_path / "full").mkdir()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill(steps: int, entry: dict[str, Any]) -> None:
        if entry["step"] == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))

    try:
        with pytest.raises(
            minisbert.TrainingError, match=r"state.npy: can't be written .*goes on from there"
        ):
            train(tmp_path / "full", show_progress_bar=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert "state.npy.tmp" not in os.listdir(tmp_path / "full" / ".out.training")
    train(tmp_path / "full", resume=True)
    assert fingerprint(tmp_path / "full") == fingerprint(tmp_path / "whole")


def test_a_full_disk_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(output, "write_tensors", fail)
        with pytest.raises(
            minisbert.TrainingError, match=r"out: can't be written \(No space left on device\)"
        ):
            train(tmp_path)
    assert left_over(tmp_path) == [".out.training"]
    record = train(tmp_path, resume=True)
    assert len(record.losses) == 6
    assert left_over(tmp_path) == ["out"]


def test_checkpoints_that_can_not_be_trained(tmp_path: Path) -> None:
    convert_checkpoint(DATA / "tiny-bert", tmp_path / "int8", dtype="int8")
    pipelines.build(tmp_path / "rrelu", DATA / "tiny-bert", pipelines.CASES["dense RReLU"].modules)
    for name, message in (("int8", "the weights are int8"), ("rrelu", "the activation rrelu is random")):
        with pytest.raises(minisbert.UnsupportedCheckpointError, match=message):
            train(tmp_path, tmp_path / name)
    assert left_over(tmp_path) == ["int8", "rrelu"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 49}, "batch_size is 49, and there are 48 rows; expected at most as many"),
        ({"batch_size": 1}, "batch_size is 1; expected at least 2"),
        ({"batch_size": 2.0}, "batch_size is 2.0; expected an integer"),
        ({"epochs": 0}, "epochs is 0; expected at least 1"),
        ({"seed": -1}, "seed is -1; expected at least 0"),
        ({"steps_per_epoch": 0}, "steps_per_epoch is 0; expected at least 1"),
        (
            {"loss": "TripletLoss"},
            "loss is 'TripletLoss'; expected one of MultipleNegativesRankingLoss, Cosine",
        ),
        (
            {"scheduler": "linear"},
            "scheduler is 'linear'; expected one of constantlr, warmupconstant, warmuplinear",
        ),
        ({"similarity_fct": "cosine"}, "similarity_fct is 'cosine'; expected one of cos_sim, dot_score"),
        ({"dtype": "float16"}, "dtype is 'float16'; expected one of float32, float64"),
        ({"lr": float("nan")}, "lr is nan; expected a number above 0"),
        ({"lr": "high"}, "lr is 'high'; expected a number"),
        ({"dropout": 1}, "dropout is 1; expected a number at least 0 and below 1"),
        ({"weight_decay": -1}, "weight_decay is -1; expected a number at least 0"),
        ({"evaluation": True}, "evaluation is True; expected an integer"),
        ({"evaluation": [("a", "")]}, "evaluation, row 0: column 1 is an empty text"),
        ({"evaluation": 48}, "evaluation is 48 rows of the data; found 48 rows of data"),
        (
            {"rows": [("same", "text")] * 8, "batch_size": 8},
            "no two rows have no text in common; pass no_dup",
        ),
    ],
)
def test_impossible_arguments(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises((minisbert.EncodeValueError, minisbert.EncodeTypeError)) as caught:
        train(tmp_path, **change)
    assert message in str(caught.value)
    assert left_over(tmp_path) == []
