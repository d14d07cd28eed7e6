"""`CrossEncoder`: scores against the reference's, ranking, activations, prompts, layouts, what is refused."""

from __future__ import annotations

import copy
import json
import pickle
import random
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import cross_checkpoints
import minisbert
from conftest import DATA, edit_json, largest, load_golden
from minisbert import batching, cross_config, scores
from minisbert.cross_config import read_cross_config

Copy = Callable[[str], Path]
CROSS = (*cross_checkpoints.TINY, *cross_checkpoints.FAMILIES)
PROMPT = "find this: "  # the golden files'
# float32: a few roundings of logits up to about 4, whose spacing is 4e-7; float64 is the oracle.
SCORE_TOLERANCE = {"float32": 2e-6, "float64": 1e-12}
WORDS = "How many people live in Berlin? [SEP] It is known for its 3 museums; caf\u00e9s can't [MASK] be."


def load(name: str, **options: Any) -> minisbert.CrossEncoder:
    return minisbert.load_cross_encoder(DATA / name, **options)


@pytest.fixture(scope="module")
def model() -> minisbert.CrossEncoder:
    """The cross-encoder with one label; tests that change it make their own."""
    return load("cross-bert")


@pytest.fixture(scope="module")
def pairs() -> list[tuple[str, str]]:
    bits = random.Random(5)

    def text() -> str:
        return " ".join(bits.choices(WORDS.split(), k=bits.randrange(20)))

    return [(text(), text()) for _ in range(100)]


# --- Scores ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "dtype"), [("auto", "float32"), ("reference", "float32"), ("auto", "float64")]
)
@pytest.mark.parametrize("name", CROSS)
def test_scores_are_the_reference_s(
    name: str, backend: str, dtype: str, cross_folder: Callable[[str], Path]
) -> None:
    golden = load_golden(name)
    pairs = json.loads(str(golden["pairs"]))
    model = minisbert.load_cross_encoder(cross_folder(name), backend=backend, dtype=dtype)
    predict = partial(model.predict, truncation="silent")
    found = {
        "logits": predict(pairs, activation_fn="Identity").reshape(golden["logits"].shape),
        "scores": predict(pairs),
        "prompted": predict(pairs, prompt=PROMPT),
        "softmax": predict(pairs, apply_softmax=True),
    }
    for kind, values in found.items():
        assert (values.shape, values.dtype) == (golden[kind].shape, dtype)
        error = largest(values - golden[kind])
        assert error <= SCORE_TOLERANCE[dtype], f"{name}, {dtype}: {kind} is off by {error:.1e}"


@pytest.mark.parametrize("name", CROSS)
def test_the_golden_scores_differ(name: str) -> None:
    """Tests of scores that are all alike would show nothing."""
    golden = load_golden(name)
    assert (golden["logits"].max(axis=0) - golden["logits"].min(axis=0)).min() > 0.2
    assert largest(golden["prompted"] - golden["scores"]) > 0.01


@pytest.mark.parametrize("name", CROSS)
def test_a_score_is_the_same_in_any_company(
    name: str, pairs: list[tuple[str, str]], cross_folder: Callable[[str], Path]
) -> None:
    pytest.importorskip("numba", reason="the promise is the Numba backend's")
    expected = minisbert.load_cross_encoder(cross_folder(name), num_threads=1).predict(
        pairs, truncation="silent"
    )
    model = minisbert.load_cross_encoder(cross_folder(name), num_threads=2)
    for batch_size in (1, 3, 32):
        found = model.predict(pairs, batch_size=batch_size, truncation="silent")
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(model.predict(pairs[::-1], truncation="silent")[::-1], expected)
    alone = [model.predict(pair, truncation="silent") for pair in pairs]
    np.testing.assert_array_equal(alone, expected)


def test_order_is_kept_over_chunks(
    model: minisbert.CrossEncoder, pairs: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = model.predict(pairs, truncation="silent")
    monkeypatch.setattr(batching, "CHUNK", 7)
    np.testing.assert_allclose(model.predict(pairs, truncation="silent"), expected, atol=1e-6)
    assert model.token_counts(pairs).tolist() == [model.token_counts([pair])[0] for pair in pairs]
    with pytest.raises(minisbert.EncodeTypeError, match="pair 100 is int 3"):
        model.predict([*pairs, 3], truncation="silent")


def test_a_generator_is_read_as_it_is_scored(
    model: minisbert.CrossEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "CHUNK", 4)
    read = 0

    def generator() -> Iterator[tuple[str, str]]:
        nonlocal read
        for read in range(1, 101):
            yield ("text", "x" if read < 20 else 3)  # type: ignore[misc]

    with pytest.raises(minisbert.EncodeTypeError, match="text 1 of pair 19"):
        model.predict(generator())
    assert read == 20


# --- Activations -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", cross_config.ACTIVATIONS)
def test_activations_by_name(model: minisbert.CrossEncoder, name: str) -> None:
    x = np.array([[-90.0, -3.0, -0.5, 0.0, 2.0, 90.0]], np.float32)
    wide = x.astype(np.float64)
    expected = {
        "Identity": wide,
        "Sigmoid": 1 / (1 + np.exp(-wide)),
        "Tanh": np.tanh(wide),
        "ReLU": np.maximum(wide, 0),
        "SiLU": wide / (1 + np.exp(-wide)),
    }[name]
    for spelling in (name, f"torch.nn.{name}"):
        np.testing.assert_allclose(scores.resolve_activation(spelling)(x), expected, rtol=1e-6, atol=1e-30)


def test_small_scores_are_told_apart() -> None:
    small = scores.resolve_activation("Sigmoid")(np.array([[-40.0, -41.0, -1000.0]], np.float32))[0]
    assert small[0] > small[1] > small[2] == 0


def test_an_activation_can_be_a_function(model: minisbert.CrossEncoder) -> None:
    pairs = [("one", "two"), ("three", "four")]
    logits = model.predict(pairs, activation_fn="Identity")
    np.testing.assert_array_equal(model.predict(pairs, activation_fn=lambda x: 2 * x), 2 * logits)
    changed = load("cross-bert")
    changed.activation_fn = "Identity"
    np.testing.assert_allclose(changed.predict(pairs), logits, atol=1e-6)


def test_an_activation_can_be_one_of_torch(model: minisbert.CrossEncoder) -> None:
    """Objects of torch's classes are known by their class: here one of the same name stands for it."""
    kind = type("Identity", (), {"__module__": "torch.nn.modules.linear"})
    pairs = [("one", "two")]
    expected = model.predict(pairs, activation_fn="Identity")
    np.testing.assert_array_equal(model.predict(pairs, activation_fn=kind()), expected)
    other = type("Softmax2d", (), {"__module__": "torch.nn.modules.activation"})
    with pytest.raises(minisbert.EncodeValueError, match=r"activation_fn is <.*Softmax2d.*expected"):
        model.predict(pairs, activation_fn=other())


@pytest.mark.parametrize(
    ("activation", "kind", "message"),
    [
        ("Softmax", minisbert.EncodeValueError, "activation_fn is 'Softmax'; expected"),
        ("my.Sigmoid", minisbert.EncodeValueError, "activation_fn is 'my.Sigmoid'"),
        (3, minisbert.EncodeTypeError, "activation_fn is 3"),
        (lambda x: x[0], minisbert.EncodeValueError, r"of shape \(1, 1\) into \(1,\)"),
    ],
)
def test_impossible_activations(
    model: minisbert.CrossEncoder, activation: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        model.predict([("one", "two")], activation_fn=activation)


def test_softmax_is_for_several_labels(model: minisbert.CrossEncoder) -> None:
    pairs = [("one", "two"), ("three", "")]
    np.testing.assert_array_equal(model.predict(pairs, apply_softmax=True), model.predict(pairs))
    several = load("cross-labels").predict(pairs, apply_softmax=True)
    np.testing.assert_allclose(several.sum(axis=1), 1, rtol=1e-6)


# --- rank ------------------------------------------------------------------------------------------------


def test_rank_sorts_by_score(model: minisbert.CrossEncoder) -> None:
    documents = ["one", "two, longer", "three", "one", ""]
    expected = model.predict([("query", text) for text in documents])
    results = model.rank("query", documents, return_documents=True)
    assert [result["corpus_id"] for result in results] == np.argsort(-expected, kind="stable").tolist()
    for result in results:
        assert list(result) == ["corpus_id", "score", "text"]
        assert type(result["score"]) is float
        np.testing.assert_allclose(result["score"], expected[result["corpus_id"]], atol=1e-6)
        assert result["text"] == documents[result["corpus_id"]]
    short = model.rank("query", iter(documents), top_k=2)
    assert short == [{name: result[name] for name in ("corpus_id", "score")} for result in results[:2]]
    assert model.rank("query", documents, top_k=0) == model.rank("query", []) == []


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"documents": "text"}, minisbert.EncodeTypeError, "documents is the string 'text'"),
        ({"query": None}, minisbert.EncodeTypeError, "text 0 of pair 0 is NoneType"),
        ({"documents": ["a", 3]}, minisbert.EncodeTypeError, "text 1 of pair 1 is int 3"),
        ({"top_k": -1}, minisbert.EncodeValueError, "top_k is -1"),
        ({"top_k": 1.5}, minisbert.EncodeTypeError, "top_k is 1.5"),
        ({"batch_size": 0}, minisbert.EncodeValueError, "batch_size is 0"),
        ({"truncation": "no"}, minisbert.EncodeValueError, "truncation is 'no'"),
        (
            {"prompt_name": "no"},
            minisbert.EncodeValueError,
            r"no prompt named 'no'; expected one of \['query'\]",
        ),
        ({"prompt": 3}, minisbert.EncodeTypeError, "prompt is 3"),
    ],
)
def test_impossible_arguments(
    model: minisbert.CrossEncoder, arguments: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        model.rank(**({"query": "query", "documents": ["a", "b"]} | arguments))


def test_rank_needs_one_label() -> None:
    with pytest.raises(minisbert.EncodeValueError, match="one label, and this one has 3; use predict"):
        load("cross-labels").rank("query", ["a"])


# --- Prompts, limits, what a model says of itself --------------------------------------------------------


def test_prompts(copy_of: Copy) -> None:
    pair, prompted = ("Berlin", "a city"), (f"{PROMPT}Berlin", "a city")
    model = load("cross-bert")
    assert model.prompts == {"query": PROMPT}
    expected = model.predict(prompted)
    assert model.predict(pair, prompt_name="query") == model.predict(pair, prompt=PROMPT) == expected
    assert model.predict(pair) != expected
    assert model.rank("Berlin", ["a city"], prompt_name="query")[0]["score"] == expected
    folder = copy_of("cross-bert")
    edit_json(folder / "config_sentence_transformers.json", default_prompt_name="query")
    by_default = minisbert.load_cross_encoder(folder)
    assert by_default.predict(pair) == by_default.rank(*pair[:1], ["a city"])[0]["score"] == expected
    assert by_default.predict(pair, prompt="") == model.predict(pair)


def test_truncation_is_said_once(model: minisbert.CrossEncoder) -> None:
    pairs = [("one", "two"), ("word " * 40, "x"), ("y", "word " * 50)]
    message = r"2 of 3 pairs were cut to max_seq_length, 32 tokens: 1, 2 \(the longest has 204\)"
    for call in (lambda: model.predict(pairs), lambda: model.rank("y", ["word " * 40, "z", "word " * 50])):
        with pytest.warns(minisbert.TruncationWarning, match="2 of 3 pairs") as caught:
            call()
        assert [Path(warning.filename).name for warning in caught] == ["test_cross_encoder.py"]
    with pytest.warns(minisbert.TruncationWarning, match=message):
        model.predict(pairs)
    with pytest.raises(
        minisbert.TruncationError, match="pair 1 has 164 tokens, and max_seq_length is 32"
    ) as info:
        model.predict(pairs, truncation="error")
    assert info.value.rows == (1,)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(pairs, truncation="silent")


def test_max_seq_length_can_be_set() -> None:
    model = load("cross-bert")
    model.max_seq_length = 10
    assert [len(ids) for ids in model.tokenize([("word " * 9, "word " * 9)])["input_ids"]] == [10]
    model.max_seq_length = 34
    for value in (2, 65):
        with pytest.raises(minisbert.EncodeValueError, match="expected 3 to 64"):
            model.max_seq_length = value


def test_a_progress_bar_shows_when_it_is_asked_for(
    model: minisbert.CrossEncoder, capsys: pytest.CaptureFixture[str]
) -> None:
    model.predict([("a", "b")] * 3, show_progress_bar=True)
    assert "3/3" in (shown := capsys.readouterr().err)
    assert "pairs" in shown


def test_what_a_model_says_of_itself() -> None:
    model = load("cross-labels")
    assert (model.num_labels, model.activation_fn, model.max_seq_length) == (3, "Tanh", 32)
    assert repr(model).startswith("CrossEncoder(")
    assert "width 27" in repr(model)
    weights = load_file(DATA / "cross-labels" / "model.safetensors")
    assert model.num_parameters == sum(tensor.size for tensor in weights.values())


def test_a_pickle_is_small_and_keeps_what_was_set() -> None:
    model = load("cross-bert", num_threads=1)
    model.max_seq_length, model.activation_fn = 20, "Tanh"
    content = pickle.dumps(model)
    assert len(content) < 2_000
    for twin in (pickle.loads(content), copy.deepcopy(model)):
        assert (twin.max_seq_length, twin.activation_fn, twin.num_threads) == (20, "Tanh", 1)
        assert twin.predict(("one", "two")) == model.predict(("one", "two"))


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_weights_that_overflow_give_no_scores(copy_of: Copy, backend: str) -> None:
    folder = copy_of("cross-bert")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["bert.pooler.dense.bias"] += 1e6  # a tanh of 1
    tensors["classifier.weight"] = np.full_like(tensors["classifier.weight"], 3e38)
    save_file(tensors, path)
    with pytest.raises(minisbert.CheckpointError, match="gives NaN or infinity for pair 0"):
        minisbert.load_cross_encoder(folder, backend=backend).predict([("one", "two")])


# --- Layouts ---------------------------------------------------------------------------------------------


def test_each_is_loaded_by_its_own_function(copy_of: Copy) -> None:
    for name in cross_checkpoints.TINY:
        with pytest.raises(
            minisbert.UnsupportedCheckpointError, match=r"json: .*minisbert\.load_cross_encoder"
        ):
            minisbert.load(DATA / name)
    for name in ("tiny-bert", "tiny-roberta"):
        with pytest.raises(
            minisbert.UnsupportedCheckpointError, match=r"model_type is .*with minisbert\.load$"
        ):
            load(name)
    plain = copy_of("tiny-bert")
    (plain / "modules.json").unlink()
    with pytest.raises(
        minisbert.UnsupportedCheckpointError, match=r"architectures is \['BertModel'\].*with minisbert\.load$"
    ):
        minisbert.load_cross_encoder(plain)


def test_a_missing_folder_or_config(tmp_path: Path) -> None:
    for folder, message in (
        (tmp_path / "no", "no such folder"),
        (tmp_path, r"config\.json: there is no such file"),
    ):
        with pytest.raises(minisbert.CheckpointNotFoundError, match=message):
            minisbert.load_cross_encoder(folder)


@pytest.mark.parametrize(
    ("name", "config", "saved", "expected"),
    [
        ("cross-bert", {}, {}, "Sigmoid"),
        ("cross-bert", {}, {"activation_fn": "torch.nn.modules.linear.Identity"}, "Identity"),
        ("cross-bert", {}, {"activation_fn": None}, "Sigmoid"),
        # The newest place goes before the others.
        (
            "cross-bert",
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"}},
            {"activation_fn": "torch.nn.modules.linear.Identity"},
            "Identity",
        ),
        (
            "cross-bert",
            {"sentence_transformers": {"activation_fn": "torch.nn.Tanh"}},
            {"activation_fn": ...},
            "Tanh",
        ),
        ("cross-roberta", {}, None, "Identity"),
        ("cross-roberta", {"sbert_ce_default_activation_function": None}, None, "Sigmoid"),
        ("cross-roberta", {"sentence_transformers": {"version": "4.0"}}, None, "Identity"),
        ("cross-roberta", {"sentence_transformers": {"activation_fn": None}}, None, "Sigmoid"),
        ("cross-roberta", {"sentence_transformers": {"activation_fn": "torch.nn.ReLU"}}, None, "ReLU"),
        # Without modules these files are not read.
        ("cross-roberta", {}, {"activation_fn": "torch.nn.Tanh", "prompts": {"query": "q"}}, "Identity"),
        ("cross-labels", {"sentence_transformers": ...}, None, "Identity"),
    ],
)
def test_where_the_activation_is_looked_up(
    copy_of: Copy, name: str, config: dict[str, Any], saved: dict[str, Any] | None, expected: str
) -> None:
    folder = copy_of(name)
    edit_json(folder / "config.json", **config)
    if saved is not None:
        edit_json(folder / "config_sentence_transformers.json", **saved)
    found = read_cross_config(folder)
    assert found.activation_fn == expected
    assert found.prompts == ({"query": PROMPT} if name == "cross-bert" else {})


@pytest.mark.parametrize(
    ("name", "file", "changes", "message"),
    [
        (
            "cross-bert",
            "config_sentence_transformers.json",
            {"activation_fn": "my_code.Activation"},
            "activation_fn is 'my_code.Activation'",
        ),
        (
            "cross-bert",
            "config_sentence_transformers.json",
            {"activation_fn": "torch.nn.modules.activation.Softmax"},
            r"supported: torch\.nn\.Identity",
        ),
        (
            "cross-labels",
            "config.json",
            {"sentence_transformers": {"activation_fn": "evil"}},
            "activation_fn is",
        ),
        (
            "cross-roberta",
            "config.json",
            {"sbert_ce_default_activation_function": "os.system"},
            "sbert_ce_default_activation_function is 'os.system'",
        ),
        ("cross-bert", "config.json", {"model_type": "t5"}, "model_type is 't5'"),
        (
            "cross-bert",
            "sentence_bert_config.json",
            {"transformer_task": "text-generation"},
            "transformer_task",
        ),
        ("cross-bert", "sentence_bert_config.json", {"module_output_name": "x"}, "module_output_name is 'x'"),
        ("cross-bert", "sentence_bert_config.json", {"modality_config": {}}, "modality_config is"),
        ("cross-bert", "tokenizer_config.json", {"truncation_side": "left"}, "truncation_side is 'left'"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(
    copy_of: Copy, name: str, file: str, changes: dict[str, Any], message: str
) -> None:
    folder = copy_of(name)
    edit_json(folder / file, **changes)
    with pytest.raises(minisbert.UnsupportedCheckpointError, match=f"{file}.*{message}"):
        minisbert.load_cross_encoder(folder)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"num_labels": 2}, "num_labels is 2, and id2label has 1 names"),
        ("config.json", {"id2label": ["a"]}, "id2label is"),
        ("config.json", {"id2label": {}}, "num_labels is 0"),
        ("config.json", {"id2label": ..., "num_labels": 10**9}, "num_labels is 1000000000"),
        (
            "config.json",
            {"id2label": ...},
            r"misshapen: classifier\.weight has shape \(1, 27\), expected \(2, 27\)",
        ),
        ("config.json", {"sentence_transformers": 3}, "sentence_transformers is 3"),
        ("sentence_bert_config.json", {"transformer_task": ...}, "'transformer_task' is missing"),
        ("config_sentence_transformers.json", {"activation_fn": 3}, "activation_fn is 3"),
        ("config_sentence_transformers.json", {"prompts": {"query": 3}}, "'query' is 3"),
    ],
)
def test_settings_that_make_no_sense(copy_of: Copy, file: str, changes: dict[str, Any], message: str) -> None:
    folder = copy_of("cross-bert")
    edit_json(folder / file, **changes)
    with pytest.raises(minisbert.CheckpointError, match=message):
        minisbert.load_cross_encoder(folder)


def test_two_labels_are_meant_where_no_number_is_given(copy_of: Copy) -> None:
    folder = copy_of("cross-bert")
    edit_json(folder / "config.json", id2label=...)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for kind in ("weight", "bias"):
        tensors[f"classifier.{kind}"] = np.repeat(tensors[f"classifier.{kind}"], 2, axis=0)
    save_file(tensors, path)
    assert minisbert.load_cross_encoder(folder).predict([("one", "two")]).shape == (1, 2)


def test_other_modules_are_refused(copy_of: Copy) -> None:
    folder = copy_of("cross-bert")
    modules = json.loads((folder / "modules.json").read_text())
    kind = "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"
    modules.append({"idx": 1, "name": "1", "path": "1_LogitScore", "type": kind})
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(minisbert.UnsupportedCheckpointError, match=r"Transformer -> LogitScore; supported"):
        minisbert.load_cross_encoder(folder)


def test_a_checkpoint_without_its_head(copy_of: Copy) -> None:
    folder = copy_of("cross-roberta")
    path = folder / "model.safetensors"
    save_file({name: tensor for name, tensor in load_file(path).items() if "out_proj" not in name}, path)
    with pytest.raises(minisbert.CheckpointError, match=r"missing: classifier\.out_proj\.weight"):
        minisbert.load_cross_encoder(folder)
