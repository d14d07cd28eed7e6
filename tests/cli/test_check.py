"""``minisbert check``: everything in a checkpoint has its finding, and a refused one all the reasons."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, load_file, save_file

import minisbert
from minisbert.cli import check, commands, parity
from tests.conftest import DATA, TINY, edit_json
from tests.support import cross_checkpoints, mutations, pipelines

CHECKPOINTS = (*TINY, *cross_checkpoints.TINY)
FIELDS = {"kind", "file", "name", "status", "detail", "count"}

Findings = list[dict[str, Any]]
Copy = Callable[[str], Path]


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str]]:
    """Run the command in this process, in a terminal of 80 columns: its exit status and what it prints."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*argv: str | Path) -> tuple[int, str]:
        status = commands.main(["check", "--backend", "reference", *map(str, argv)])
        return status, "".join(capsys.readouterr())

    return run


def findings(folder: Path, **wanted: str) -> list[check.Finding]:
    """The findings with these values."""
    found = check.check(folder, backend="reference").findings
    return [finding for finding in found if wanted.items() <= vars(finding).items()]


def files_of(folder: Path) -> dict[str, bytes]:
    """The content of every file, by its path in the folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def refusals(folder: Path) -> list[tuple[str, str, str]]:
    """Kind, file and name of all that is refused; nothing may be refused of what loads, and something of the rest."""
    report = check.check(folder, backend="reference")
    refused = [finding for finding in report.findings if finding.status == "refused"]
    assert (report.encoder is None) == bool(refused)
    return [(finding.kind, finding.file, finding.name) for finding in refused]


# --- checkpoints that load -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_everything_in_a_checkpoint_has_one_finding(name: str) -> None:
    report = check.check(DATA / name, backend="reference")
    assert report.encoder is not None
    assert {finding.status for finding in report.findings} <= {"understood", "ignored"}
    assert all(finding.detail for finding in report.findings if finding.status == "ignored")
    files = files_of(DATA / name)
    assert Counter(finding.file for finding in report.findings if finding.kind == "file") == Counter([*files])
    tensors = sum(finding.count for finding in report.findings if finding.kind == "tensors")
    assert tensors == sum(len(load(files[file])) for file in files if file.endswith(".safetensors"))
    keys = Counter((f.file, f.name) for f in report.findings if f.kind == "setting")
    assert set(keys.values()) == {1}
    for file in (file for file in files if file.endswith(".json")):
        values = json.loads(files[file])
        for key in values if isinstance(values, dict) else {key for line in values for key in line}:
            assert (file, key) in keys


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_text_fits_a_terminal(run: Callable[..., tuple[int, str]], name: str) -> None:
    status, out = run(DATA / name)
    *lines, last = out.splitlines()
    assert status == 0
    assert last.startswith("loads: CrossEncoder(" if name.startswith("cross") else "loads: SentenceEncoder(")
    assert max(map(len, lines)) <= 80
    assert lines[0] == "files"


def test_the_modules_are_in_order(run: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    stack = (pipelines.pooling("mean", "cls"), pipelines.dense(20, width=150), pipelines.DROPOUT)
    folder = pipelines.build(tmp_path / "model", DATA / "tiny-bert", stack)
    out = run(folder)[1]
    modules = " -> ".join(
        ["Transformer", *map(str, minisbert.load(folder, backend="reference").config.modules)]
    )
    assert f"modules understood {modules} tensors of" in " ".join(out.split())
    [dense] = findings(folder, file="2_Dense/model.safetensors", kind="tensors")
    assert (dense.name, dense.status, dense.count) == ("Dense", "understood", 2)
    [dropout] = findings(folder, file="3_Dropout/config.json", kind="setting")
    assert (dropout.name, dropout.status, dropout.detail) == ("dropout", "ignored", "used in training only")


def test_without_modules_json(copy_of: Copy) -> None:
    folder = copy_of("tiny-bert")
    (folder / "modules.json").unlink()
    assert [finding.name for finding in findings(folder, kind="module")] == ["Transformer", "Pooling (mean)"]
    [pooling] = findings(folder, file="1_Pooling/")
    assert pooling.status == "ignored"


FILES = {
    "pytorch_model.bin": "a pickle",
    "training_args.bin": "left over from training",
    "onnx/model.onnx": "other programs",
    "openvino/openvino_model.bin": "other programs",
    "model.onnx": "other programs",
    "README.md": "documentation",
    "LICENSE.txt": "documentation",
    ".gitattributes": "bookkeeping",
    ".cache/huggingface/x.lock": "bookkeeping",
    "vocab.txt": "tokenizer.json has the vocabulary",
    "modeling.py": "never run",
    "model.safetensors.index.json": "comes before it",
    "other.safetensors": "comes before it",
    "notes.xyz": "the reference reads nothing of this name either",
}


@pytest.mark.parametrize(("file", "reason"), FILES.items())
def test_files_that_are_not_read(copy_of: Copy, file: str, reason: str) -> None:
    folder = copy_of("tiny-bert")
    before = check.check(folder, backend="reference")
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_bytes(b"never read")
    after = check.check(folder, backend="reference")
    [new] = set(after.findings) - set(before.findings)
    parts = file.split("/")
    expected = file if len(parts) == 1 else f"{parts[0]}/"  # of a folder, only its name
    assert (new.kind, new.file, new.status) == ("file", expected, "ignored")
    assert reason in new.detail
    assert after.encoder is not None


@pytest.mark.parametrize(
    ("name", "group", "count", "reason"),
    [
        ("tiny-bert", "pooler.", 2, "only heads use it"),
        ("tiny-electra", "discriminator_predictions.", 1, "the head of the pretraining"),
        ("tiny-mpnet", "embeddings.position_ids", 1, "numbers that are counted here"),
    ],
)
def test_tensors_that_are_not_used(name: str, group: str, count: int, reason: str) -> None:
    [finding] = findings(DATA / name, kind="tensors", status="ignored", name=group)
    assert (finding.count, finding.detail) == (count, reason)


def test_a_pooler_that_is_a_head_is_used() -> None:
    assert findings(DATA / "cross-bert", kind="tensors", status="ignored") == []
    [head] = findings(DATA / "cross-bert", kind="tensors", name="head")
    assert (head.status, head.count) == ("understood", 4)


def test_copies_and_dtypes(copy_of: Copy) -> None:
    folder = copy_of("tiny-bert")
    tensors = load_file(folder / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    halves = {
        name: tensor.astype(np.float16) for name, tensor in tensors.items() if name.startswith("encoder.")
    }
    save_file({**tensors, **halves, f"bert.{name}": tensors[name].copy()}, folder / "model.safetensors")
    found = {finding.name: finding for finding in findings(folder, kind="tensors")}
    assert (found["embeddings"].detail, found["layers"].detail) == ("float32", "float16")
    assert found[name].status == "ignored"
    assert found[name].detail == f"a copy of bert.{name}"


def test_settings_that_nobody_reads(copy_of: Copy) -> None:
    folder = copy_of("tiny-bert")
    edit_json(folder / "config.json", made_up=1)
    [made_up] = findings(folder, name="made_up")
    assert (made_up.file, made_up.status) == ("config.json", "ignored")
    assert made_up.detail == "the reference has no such setting"


# --- checkpoints that are refused ----------------------------------------------------------------------------


def test_an_unknown_setting_of_a_module(copy_of: Copy, run: Callable[..., tuple[int, str]]) -> None:
    folder = copy_of("tiny-bert")
    edit_json(folder / "1_Pooling" / "config.json", made_up=1)
    assert refusals(folder) == [("setting", "1_Pooling/config.json", "made_up")]
    status, out = run(folder)
    assert status == 1
    assert "\nrefused, for 1 reason\n  - 1_Pooling/config.json: made_up is 1, which minisbert does not" in out
    assert max(map(len, out.splitlines())) <= 80


def test_every_setting_of_a_file_that_is_refused_is_named(copy_of: Copy) -> None:
    folder = copy_of("tiny-bert")
    edit_json(folder / "config.json", position_embedding_type="relative_key", is_decoder=True)
    [(kind, file, names)] = refusals(folder)
    assert (kind, file) == ("setting", "config.json")
    assert set(names.split(", ")) == {"position_embedding_type", "is_decoder"}
    assert (
        findings(folder, file="model.safetensors")[0].status == "skipped"
    )  # nothing says what it should hold


def test_tensors_that_do_not_fit(copy_of: Copy) -> None:
    folder = copy_of("tiny-bert")
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layer.1.attention.self.key.bias"]
    save_file({**tensors, "made_up": np.zeros(3, np.float32)}, folder / "model.safetensors")
    [refused] = findings(folder, status="refused")
    assert (refused.kind, refused.file) == ("tensors", "model.safetensors")
    assert "missing: encoder.layer.1.attention.self.key.bias. unknown: made_up" in refused.detail
    [layers] = findings(folder, kind="tensors", name="layers")
    assert layers.count == sum(name.startswith("encoder.") for name in tensors)


def test_all_that_is_wrong_is_reported_at_once(copy_of: Copy) -> None:
    folder = copy_of("tiny-bert")
    edit_json(folder / "1_Pooling" / "config.json", made_up=1)
    edit_json(folder / "sentence_bert_config.json", query_length=3)
    edit_json(folder / "config_sentence_transformers.json", similarity_fn_name="made up")
    (folder / "model.safetensors").write_bytes(b"damaged")
    assert sorted(refusals(folder)) == [
        ("setting", "1_Pooling/config.json", "made_up"),
        ("setting", "config_sentence_transformers.json", "similarity_fn_name"),
        ("setting", "sentence_bert_config.json", "query_length"),
        ("tensors", "model.safetensors", ""),
    ]
    assert {finding.status for finding in findings(folder, kind="module")} == {"understood", "skipped"}


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-camembert", "cross-bert"])
@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_missing_files(copy_of: Copy, name: str, file: str) -> None:
    folder = copy_of(name)
    [path] = {
        path
        for path in folder.rglob(file)
        if path.parent.name != "1_Pooling" and path.parent.name != "2_Normalize"
    }
    path.unlink()
    refused = refusals(folder)
    assert path.relative_to(folder).as_posix() in {found for _, found, _ in refused}


def test_damaged_modules(copy_of: Copy) -> None:
    folder = copy_of("tiny-bert")
    (folder / "modules.json").write_text("[")
    assert refusals(folder) == [("file", "modules.json", "")]
    (folder / "modules.json").write_text('[{"type": "sentence_transformers.models.Made_up", "path": ""}]')
    [(_, file, _), *_] = refusals(folder)
    assert file == "modules.json"


def test_pickles_alone_are_refused_with_the_command_in_one_line(
    copy_of: Copy, run: Callable[..., tuple[int, str]]
) -> None:
    folder = copy_of("tiny-bert")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert refusals(folder) == [("file", "pytorch_model.bin", "")]
    with pytest.raises(minisbert.UnsupportedCheckpointError) as refusal:
        minisbert.load(folder, backend="reference")
    command = str(refusal.value)[str(refusal.value).index("python -c") :]
    assert f"\n    {command}\n" in run(folder)[1]


def test_what_is_checked_is_what_loads(tmp_path: Path) -> None:
    """Of damaged checkpoints those are refused that `load` refuses, for its reason among others."""
    checkpoints = {name: files_of(DATA / name) for name in TINY}
    outcomes = set()
    for seed in range(60):
        folder = tmp_path / str(seed)
        for file, content in mutations.mutate(seed, checkpoints)[2].items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content)
        report = check.check(folder, backend="reference")
        outcomes.add(report.encoder is None)
        if report.encoder is not None:
            minisbert.load(folder, backend="reference")
            continue
        with pytest.raises((minisbert.CheckpointError, minisbert.CheckpointNotFoundError)) as refusal:
            minisbert.load(folder, backend="reference")
        reasons = [finding.detail for finding in report.findings if finding.status == "refused"]
        message = str(refusal.value).split(" (")[
            0
        ]  # in brackets, safetensors names any of the tensors to blame
        assert any(message.endswith(reason.split(" (")[0]) for reason in reasons)
    assert outcomes == {True, False}


# --- the command ---------------------------------------------------------------------------------------------


def test_a_checkpoint_that_is_in_use(copy_of: Copy) -> None:
    """It is not read again for the encoder, and all the same everything that is read is reported."""
    folder = copy_of("tiny-bert")
    before = check.check(folder).as_json()
    encoder = minisbert.load(folder)
    report = check.check(folder)
    assert report.as_json() == before
    assert report.encoder is not None
    assert report.encoder._weights is encoder._weights


def test_json(run: Callable[..., tuple[int, str]], copy_of: Copy) -> None:
    status, out = run(DATA / "tiny-bert", "--json")
    report = json.loads(out)
    assert status == 0
    assert {key: report[key] for key in report if key != "findings"} == {
        "folder": str(DATA / "tiny-bert"),
        "loads": True,
        "class": "SentenceEncoder",
        "stages": [],
    }
    assert all(set(finding) == FIELDS for finding in report["findings"])
    assert {finding["kind"] for finding in report["findings"]} == {"file", "module", "tensors", "setting"}
    folder = copy_of("tiny-bert")
    (folder / "tokenizer.json").unlink()
    status, out = run(folder, "--json")
    report = json.loads(out)
    assert (status, report["loads"], report["class"]) == (1, False, None)
    [refused] = [finding for finding in report["findings"] if finding["status"] == "refused"]
    assert refused["file"] == "tokenizer.json"


def test_a_folder_that_is_not_there(run: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    status, out = run(tmp_path / "nowhere")
    assert status == 2
    assert "there is no such folder" in out


def test_names(run: Callable[..., tuple[int, str]], cached: Path) -> None:
    status, out = run("org/model", "--json")
    assert (status, json.loads(out)["folder"]) == (0, str(cached))
    status, out = run("org/other")
    assert status == 2
    assert "'org/other' is not a folder, and not in the local cache" in out


def test_a_name_that_the_hub_has_as_pickles_only(
    run: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> Path:
        raise minisbert.UnsupportedCheckpointError("org/model/pytorch_model.bin: the weights are pickles")

    monkeypatch.setattr(check.hub, "resolve", refuse)
    assert run("org/model") == (
        1,
        "refused, for 1 reason\n  - org/model/pytorch_model.bin: the weights are pickles\n",
    )


def test_without_torch(run: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "find_spec", lambda name: None)
    status, out = run(DATA / "tiny-bert", "--against-torch")
    assert status == 2
    assert "--against-torch needs torch and sentence-transformers" in out
    assert len(out.splitlines()) == 1


def test_names_that_would_steer_a_terminal(run: Callable[..., tuple[int, str]], copy_of: Copy) -> None:
    if os.name == "nt":
        pytest.skip("Windows has no such file names")
    folder = copy_of("tiny-bert")
    (folder / "a\x1b[31m\nb").touch()
    edit_json(folder / "config.json", **{"\x1b[2J": 1})
    out = run(folder)[1]
    assert "a\\x1b[31m\\nb" in out
    assert "\x1b" not in out
