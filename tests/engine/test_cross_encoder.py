"""`CrossEncoder`: scores against the reference's, ranking, activations, prompts, limits."""

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

import minisbert
from minisbert.checkpoint import cross_config
from minisbert.engine import inputs, scores
from tests.conftest import DATA, edit_json, largest, load_golden
from tests.support import cross_checkpoints

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
    monkeypatch.setattr(inputs, "CHUNK", 7)
    np.testing.assert_allclose(model.predict(pairs, truncation="silent"), expected, atol=1e-6)
    assert model.token_counts(pairs).tolist() == [model.token_counts([pair])[0] for pair in pairs]
    with pytest.raises(minisbert.EncodeTypeError, match="pair 100 is int 3"):
        model.predict([*pairs, 3], truncation="silent")


def test_a_generator_is_read_as_it_is_scored(
    model: minisbert.CrossEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "CHUNK", 4)
    read = 0

    def generator() -> Iterator[tuple[str, str]]:
        nonlocal read
        for read in range(1, 101):
            yield ("text", "x" if read < 20 else 3)  # type: ignore[misc]

    with pytest.raises(minisbert.EncodeTypeError, match="text 1 of pair 19"):
        model.predict(generator())
    assert read == 20


# --- Activations -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", cross_config.SCORE_ACTIVATIONS)
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


def test_an_activation_can_be_a_function_of_torch_s(model: minisbert.CrossEncoder) -> None:
    """It would not take an array, so the one of its name is meant."""
    pairs = [("one", "two"), ("a", "b c d")]
    for name, module in (("sigmoid", "torch"), ("tanh", "torch"), ("relu", "torch.nn.functional")):
        function = type("builtin", (), {"__module__": module, "__name__": name})()
        expected = model.predict(pairs, activation_fn={"relu": "ReLU"}.get(name, name.capitalize()))
        np.testing.assert_array_equal(model.predict(pairs, activation_fn=function), expected)
    other = type("builtin", (), {"__module__": "torch", "__name__": "erf"})()
    with pytest.raises(
        minisbert.EncodeValueError, match=r"activation_fn is .*expected a function of an array, or"
    ):
        model.predict(pairs, activation_fn=other)


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
        ({"documents": "text"}, minisbert.EncodeTypeError, "documents is str 'text'; expected a list"),
        ({"documents": {"a": "b"}}, minisbert.EncodeTypeError, "documents is dict"),
        ({"documents": {"a"}}, minisbert.EncodeTypeError, "documents is set {'a'}.*sort it"),
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
    documents = ["word " * 40, "z", "word " * 50]
    for call, rows in ((lambda: model.predict(pairs), (1, 2)), (lambda: model.rank("y", documents), (0, 2))):
        with pytest.warns(minisbert.TruncationWarning, match="some pairs were cut .* 32 tokens") as caught:
            call()
        [warning] = caught
        assert (warning.filename, warning.message.rows) == (__file__, rows)
        assert 32 < warning.message.longest <= 204
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
