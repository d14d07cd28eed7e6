"""Live parity with the reference implementation, stage by stage, where torch is installed.

`python tools/dev.py test --parity` installs it. The comparison is of the same texts through both, today, and
not with stored results: so it also covers texts and checkpoints that the golden files do not.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minisbert
from minisbert import model
from minisbert.checkpoint.config import read_config
from minisbert.cli import commands
from minisbert.weights import position_bias
from tests.conftest import DATA, FP32_MARGIN, STAGE_TOLERANCE, TINY, VECTOR_TOLERANCE, edit_json, largest
from tests.support import texts
from tests.support.recording import stages

pytest.importorskip("torch", reason="torch is not installed: python tools/dev.py test --parity installs it")
pytest.importorskip(
    "sentence_transformers", reason="sentence-transformers is not installed: see test_parity.py"
)

CHECKPOINTS = (*TINY, "minilm", "roberta")


@pytest.fixture(scope="module")
def reference() -> Any:
    """`tools/golden/make.py`, which runs the reference implementation."""
    from tools.golden import make as make_golden

    return make_golden


@pytest.fixture(scope="module", params=CHECKPOINTS)
def folder(request: pytest.FixtureRequest) -> Path:
    if request.param.startswith("tiny"):
        return DATA / request.param
    found: Path = request.getfixturevalue(request.param)
    return found


def test_every_stage(reference: Any, folder: Path) -> None:
    """float64 within 1e-12; float32 within 1e-6, or three times torch float32's own error where stages are large."""
    from tools.golden.stages import stages as recorded  # beside `reference`

    sentences = texts.all_texts()[::25]
    expected = recorded(reference.load(folder).double(), sentences)
    theirs = recorded(reference.load(folder), sentences)
    ids = minisbert.load(folder).tokenize(sentences)["input_ids"]
    for dtype in ("float32", "float64"):
        encoder = minisbert.load(folder, dtype=dtype)
        found = stages(encoder, np.concatenate(ids), np.cumsum([0, *map(len, ids)]))
        for stage in [stage for stage in found if stage in expected]:
            error, torch_error = (largest(x[stage] - expected[stage]) for x in (found, theirs))
            print(f"{folder.name:12} {dtype} {stage:20} {error:.1e} (torch float32 {torch_error:.1e})")
            allowed = STAGE_TOLERANCE[dtype]
            if dtype == "float32":
                allowed = max(allowed, 3 * torch_error)
            assert error <= allowed, f"{folder.name}, {dtype}: {stage} is off by {error:.1e}"


def test_vectors_and_token_ids(reference: Any, folder: Path) -> None:
    sentences = texts.all_texts()
    if folder.name == "roberta":
        sentences = [sentences[row] for row in reference.roberta_rows()]  # the others would take minutes
    double, single = reference.load(folder).double(), reference.load(folder)
    expected = double.encode(sentences, batch_size=1)
    encoder = minisbert.load(folder)
    ids = encoder.tokenize(sentences)["input_ids"]
    expected_ids = [reference.token_ids(double, text).tolist() for text in sentences]
    assert [row for row, found in enumerate(ids) if found.tolist() != expected_ids[row]] == []
    ours = np.abs(encoder.encode(sentences, truncation="silent") - expected)
    theirs = np.abs(single.encode(sentences) - expected)
    print(f"{folder.name}, {len(sentences)} texts: ours {ours.max():.2e}, torch fp32 {theirs.max():.2e}; "
          f"means {ours.mean():.2e}, {theirs.mean():.2e}")  # fmt: skip
    assert ours.mean() <= FP32_MARGIN * theirs.mean()
    # Of the few numbers of a tiny model, one that is rounded badly makes the largest error.
    assert ours.max() <= (2 if folder.name in TINY else FP32_MARGIN) * theirs.max()
    oracle = minisbert.load(folder, dtype="float64").encode(sentences[:100], truncation="silent")
    assert largest(oracle - expected[:100]) <= VECTOR_TOLERANCE["float64"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_check_against_torch(
    folder: Path, dtype: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`minisbert check --against-torch` finds every stage in order."""
    assert commands.main(["check", str(folder), "--against-torch", "--json", "--dtype", dtype]) == 0
    found = json.loads(capsys.readouterr().out)["stages"]
    encoder = minisbert.load(folder)
    layers = [f"layer {i + 1}" for i in range(encoder.config.transformer.num_hidden_layers)]
    modules = [f"{i} {module}" for i, module in enumerate(encoder.config.modules, 1)]
    names = ["texts with other tokens", "embeddings", *layers, *modules, "encode"]
    assert [stage["name"] for stage in found] == names
    assert all(set(stage) == {"name", "error", "bound", "ok"} and stage["ok"] for stage in found)


def test_check_against_torch_names_the_first_wrong_stage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    attention = model.self_attention
    calls = []

    def wrong(x: Any, *arguments: Any) -> Any:
        if not isinstance(
            x, np.ndarray
        ):  # the layers are written down at load; the stages are computed one by one
            return attention(x, *arguments)
        calls.append(1)
        return attention(x, *arguments) + (1e-5 if len(calls) == 2 else 0)

    monkeypatch.setattr(model, "self_attention", wrong)
    assert commands.main(["check", str(DATA / "tiny-bert"), "--against-torch"]) == 1
    wrong_stages = [line for line in capsys.readouterr().out.splitlines() if line.endswith("NOT OK")]
    assert wrong_stages[0].startswith("layer 2 ")


def test_every_distance_has_the_reference_s_bias() -> None:
    import torch
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    buckets = MPNetEncoder.relative_position_bucket(torch.arange(-1999, 2000)).numpy()
    np.testing.assert_array_equal(position_bias(np.arange(32.0)[:, None], 2000)[0], buckets)


VARIANTS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "a cased tokenizer.json": ("tiny-bert", {}, {"normalizer": {"type": "NFC"}}),
    "do_lower_case": ("tiny-distilbert", {"do_lower_case": False}, {}),
    "strip_accents": ("tiny-electra", {"strip_accents": False, "do_lower_case": False}, {}),
    "Chinese": ("tiny-mpnet", {"tokenize_chinese_chars": False}, {"pre_tokenizer": {"type": "Whitespace"}}),
    "Metaspace alone": (
        "tiny-multilingual",
        {},
        {
            "normalizer": {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
            "pre_tokenizer": {
                "type": "Metaspace",
                "replacement": "\u2581",
                "prepend_scheme": "always",
                "split": True,
            },
        },
    ),
    "no space before": ("tiny-xlm-roberta", {"add_prefix_space": False}, {}),
    "a space before": ("tiny-roberta", {"add_prefix_space": True}, {"normalizer": {"type": "Lowercase"}}),
    "a generic class": (
        "tiny-bert",
        {"tokenizer_class": "PreTrainedTokenizerFast"},
        {"normalizer": {"type": "NFC"}},
    ),
}


@pytest.mark.parametrize(("name", "settings", "steps"), VARIANTS.values(), ids=VARIANTS)
def test_the_steps_before_the_vocabulary(
    reference: Any, copy_of: Any, name: str, settings: dict[str, Any], steps: dict[str, Any]
) -> None:
    folder = copy_of(name)
    edit_json(folder / "tokenizer_config.json", **settings)
    edit_json(folder / "tokenizer.json", **steps)
    sentences = texts.edge_texts() + texts.real_texts()[::10]
    theirs = reference.load(folder)
    expected = [reference.token_ids(theirs, text).tolist() for text in sentences]
    found = minisbert.load(folder).tokenize(sentences)["input_ids"]
    assert [row for row, ids in enumerate(found) if ids.tolist() != expected[row]] == []


SENTENCES = texts.edge_texts()[:15]
HEADS = ("PreTraining", "MaskedLM", "CausalLM", "NextSentencePrediction", "SequenceClassification",
         "TokenClassification", "QuestionAnswering", "MultipleChoice")  # fmt: skip


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("size", ["5GB", "30KB"])
def test_what_transformers_saves_with_a_head(copy_of: Any, name: str, size: str) -> None:
    """Every model class of the family, saved today in one file or in several, gives the vectors of the plain one."""
    import transformers

    folder = copy_of(name)
    expected = minisbert.load(folder).encode(SENTENCES)
    inner = read_config(folder).transformer_folder
    base = type(transformers.AutoModel.from_pretrained(inner)).__name__
    classes = [getattr(transformers, base.replace("Model", f"For{head}"), None) for head in HEADS]
    models = [
        kind.from_pretrained(inner, ignore_mismatched_sizes=True) for kind in classes if kind is not None
    ]
    assert len(models) >= 5
    for saved in models:
        for path in inner.glob("model*"):
            path.unlink()
        saved.save_pretrained(inner, max_shard_size=size)
        assert (inner / "model.safetensors.index.json").exists() == (size != "5GB")
        np.testing.assert_array_equal(minisbert.load(folder).encode(SENTENCES), expected)
