"""``minisbert train``: files in, a checkpoint out, and what it says."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import minisbert
from minisbert.cli import train
from tests.conftest import DATA
from tests.support.commandline import Run, not_ignored, posix
from tests.support.training import scored_rows, some_rows

pytestmark = [
    pytest.mark.usefixtures("place"),
    pytest.mark.filterwarnings("ignore::minisbert.TruncationWarning"),
]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.csv"
    path.write_text("anchor,positive\n" + "".join(f"{a},{b}\n" for a, b in some_rows(24, 2)))
    return path


def test_a_checkpoint_comes_out(run: Run, pairs: Path) -> None:
    ran = run("train", pairs, "-o", "out", "--batch-size", 8, "--threads", 1)
    assert ran.status == 0
    assert "out: 3 steps, loss " in ran.out
    assert minisbert.load("out").encode("a cat").shape == (75,)


def test_the_base_has_a_name(run: Run, pairs: Path, cached: Path) -> None:
    for out, base in (("one", cached), ("other", "org/model")):
        ran = run("train", pairs, "-o", out, "--batch-size", 8, "--threads", 1, "--model", base)
        assert ran.status == 0
    one, other = (Path(out, "model.safetensors").read_bytes() for out in ("one", "other"))
    assert one == other


def test_evaluations_are_said_and_json_is_printed(run: Run, pairs: Path) -> None:
    ran = run("train", pairs, "-o", "out", "--batch-size", 8, "--threads", 1, "--hold-out", 8, "--json")
    assert ran.status == 0
    found = json.loads(ran.out)
    assert (found["steps"], found["metric"]) == (2, "mrr@10")
    assert [step for step, _ in found["evaluations"]] == [0, 2]
    assert ran.err.startswith("minisbert: step 0 of 2: mrr@10 0.")


def test_the_loss_is_said_with_evaluations(run: Run, pairs: Path) -> None:
    ran = run("train", pairs, "-o", "out", "--batch-size", 8, "--threads", 1, "--hold-out", 8)
    assert re.search(r"step 2 of 2: loss \d\.\d{4}, mrr@10 \d\.\d{4}, 0:00:00 left\n", ran.err)


@posix
def test_ctrl_c_says_how_to_go_on(pairs: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "minisbert", "train", str(pairs), "-o", "out", "--threads", "1"]
    options = ["--batch-size", "2", "--epochs", "999", "--evaluation", str(pairs), "--evaluation-steps", "1"]
    environment = os.environ | {"PYTHONPATH": str(DATA.parents[1])}
    with not_ignored(signal.SIGINT):
        child = subprocess.Popen(
            command + options, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
        )
    with child:
        assert child.stderr is not None
        for line in child.stderr:
            if "step 2 of" in line:
                break
        child.send_signal(signal.SIGINT)
        assert ".out.training: keeps what is done; go on from there with --resume\n" in child.stderr.read()
    assert child.returncode == -signal.SIGINT
    assert not [path.name for path in (tmp_path / ".out.training").iterdir() if path.suffix == ".tmp"]


def test_several_files_and_all_options(run: Run, pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some_rows(8, 2)))
    ran = run(
        "train", pairs, "more.jsonl", "-o", "out", "--batch-size", 4, "--epochs", 2, "--steps-per-epoch", 2,
        "--scheduler", "warmupcosine", "--warmup-steps", 0, "--lr", "1e-4", "--scale", 10, "--similarity-fct",
        "dot_score", "--dropout", 0, "--seed", 0, "--dtype", "float64", "--no-shuffle", "--allow-duplicates",
        "--sampling", "round_robin", "--weight-decay", 0, "--max-grad-norm", 2, "--threads", 1, "--quiet",
        "--evaluation", pairs, "--evaluation-steps", 3,
    )  # fmt: skip
    assert ran.status == 0
    card = (tmp_path / "out" / "README.md").read_text()
    for line in (
        '"scale": 10.0',
        '"steps_per_epoch": 2',
        '"similarity_fct": "dot_score"',
        "- more.jsonl: 8 rows",
    ):
        assert line in card


def test_scored_pairs(run: Run, tmp_path: Path) -> None:
    lines = (f"{a},{b},{score}\n" for a, b, score in scored_rows(12))
    (tmp_path / "scored.csv").write_text("a,b,score\n" + "".join(lines))
    options = ("--loss", "CosineSimilarityLoss", "--batch-size", 4, "--hold-out", 4, "--threads", 1)
    ran = run("train", "scored.csv", "-o", "out", *options)
    assert ran.status == 0
    assert "spearman " in ran.out


def test_a_run_is_interrupted_and_resumed(run: Run, pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> object:
        def update(steps: int, entry: object) -> None:
            raise KeyboardInterrupt

        return update

    with monkeypatch.context() as patch:
        patch.setattr(train, "_line_by_line", stop)
        assert run("train", pairs, "-o", "out", "--batch-size", 8, "--threads", 1).status == 130
    ran = run("train", pairs, "-o", "out", "--batch-size", 8, "--threads", 1)
    assert (ran.status, ran.out) == (2, "")
    assert "--resume" in ran.err
    assert run("train", pairs, "-o", "out", "--batch-size", 8, "--threads", 1, "--resume").status == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("nowhere.csv", "-o", "out"), "error: nowhere.csv: can't be read (No such file or directory)"),
        (("pairs.csv", "pairs.csv", "-o", "out"), "error: a file of DATA is named twice"),
        (("pairs.csv",), "error: the following arguments are required: -o/--output"),
        (
            ("pairs.csv", "-o", "out", "--batch-size", "100"),
            "error: batch_size is 100, and there are 24 rows",
        ),
        (("pairs.csv", "-o", "out", "--lr", "-1"), "error: lr is -1.0; expected a number above 0"),
        (("pairs.csv", "-o", "pairs.csv", "--batch-size", "8"), "pairs.csv: is there already"),
        (
            ("pairs.csv", "-o", "out", "--batch-size", "8", "--resume"),
            "there is no interrupted run to go on with",
        ),
    ],
)
def test_errors_are_one_line(run: Run, pairs: Path, options: tuple[str, ...], message: str) -> None:
    ran = run("train", *options)
    assert (ran.status, ran.out) == (2, "")
    assert message in ran.err
    assert ran.err.count("\n") == 1
    assert not Path("out").exists()
