"""What callers written for sentence-transformers pass, and the types that callers of ours see."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest

import minisbert
from minisbert.engine import signatures
from tests.conftest import DATA, FEW

HARMLESS = {
    "convert_to_numpy": True,
    "convert_to_tensor": False,
    "device": "cpu",
    "pool": None,
    "chunk_size": 100,
    "processing_kwargs": None,
}
TORCH_CPU = type("device", (), {"__module__": "torch", "__str__": lambda _: "cpu"})()
TORCH_CUDA = type("device", (), {"__module__": "torch", "__str__": lambda _: "cuda:0"})()
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"convert_to_numpy": False}, r"convert_to_numpy is False; expected True: .*torch.from_numpy"),
    ({"convert_to_tensor": True}, r"convert_to_tensor is True; expected False or None: .*torch.from_numpy"),
    ({"convert_to_numpy": 1}, "convert_to_numpy is 1"),
    ({"convert_to_numpy": np.ones(3)}, r"convert_to_numpy is array"),
    ({"device": "cuda"}, "device is 'cuda'; expected None or 'cpu': minisbert computes on the CPU"),
    ({"device": TORCH_CUDA}, "device is 'cuda:0'"),
    ({"device": ["cpu", "cpu"]}, "device is .*num_threads"),
    ({"pool": {"processes": []}}, "pool is .*num_threads"),
    ({"processing_kwargs": {"text": {"max_length": 3}}}, "processing_kwargs is .*max_seq_length"),
]


@pytest.fixture(scope="module")
def cross() -> minisbert.CrossEncoder:
    return minisbert.load_cross_encoder(DATA / "cross-bert")


def test_values_that_change_nothing_are_accepted(bert: minisbert.SentenceEncoder, cross: Any) -> None:
    expected = bert.encode(FEW)
    np.testing.assert_array_equal(bert.encode(FEW, **HARMLESS, precision=None, task="query"), expected)
    np.testing.assert_array_equal(bert.encode(FEW, device=TORCH_CPU, normalize_embeddings=None), expected)
    np.testing.assert_array_equal(bert.encode_document(FEW, **HARMLESS), bert.encode_document(FEW))
    pairs = [("one", "two"), ("three", "four")]
    old = {"num_workers": 2, "activation_fct": None}
    np.testing.assert_array_equal(cross.predict(pairs, **HARMLESS, **old), cross.predict(pairs))
    expected = cross.rank("one", ["two", "three"])
    assert cross.rank("one", ["two", "three"], **HARMLESS, **old, apply_softmax=False) == expected


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_values_that_would_change_something_are_refused(
    bert: minisbert.SentenceEncoder, cross: Any, arguments: dict[str, Any], message: str
) -> None:
    for call in (
        lambda: bert.encode(FEW, **arguments),
        lambda: bert.encode_query("one", **arguments),
        lambda: cross.predict([("one", "two")], **arguments),
        lambda: cross.rank("one", ["two"], **arguments),
    ):
        with pytest.raises(minisbert.EncodeValueError, match=message):
            call()


def test_what_nobody_knows_is_a_type_error(bert: Any, cross: Any) -> None:
    for name, call in (
        ("encode", lambda: bert.encode(FEW, normalise=True)),
        ("predict", lambda: cross.predict([("one", "two")], normalise=True)),
        ("rank", lambda: cross.rank("one", ["two"], normalise=True)),
        ("load", lambda: minisbert.load(DATA / "tiny-bert", normalise=True)),  # type: ignore[call-arg]
        ("load_cross_encoder", lambda: minisbert.load_cross_encoder("x", normalise=1)),  # type: ignore[call-arg]
    ):
        with pytest.raises(minisbert.EncodeTypeError, match=rf"^{name}\(\) got .* argument 'normalise'"):
            call()


@pytest.mark.parametrize("name", ["normalize_embeddings", "apply_softmax", "return_documents"])
@pytest.mark.parametrize("value", ["no", 1, 0.0])
def test_flags_are_true_or_false(bert: Any, cross: Any, name: str, value: Any) -> None:
    calls = {
        "normalize_embeddings": lambda: bert.encode(FEW, normalize_embeddings=value),
        "apply_softmax": lambda: cross.predict([("a", "b")], apply_softmax=value),
        "return_documents": lambda: cross.rank("a", ["b"], return_documents=value),
    }
    with pytest.raises(minisbert.EncodeTypeError, match=f"{name} is {re.escape(repr(value))}; expected True"):
        calls[name]()


def test_what_an_earlier_version_had_in_eighth_place_is_not_taken_for_another(bert: Any) -> None:
    with pytest.raises(TypeError, match="positional"):
        bert.encode(FEW, None, None, 32, False, "sentence_embedding", "float32", True)


@pytest.mark.parametrize(
    ("load", "name"), [(minisbert.load, "tiny-bert"), (minisbert.load_cross_encoder, "cross-bert")]
)
def test_loading(load: Any, name: str) -> None:
    hints = get_type_hints(signatures.LoadOptions, include_extras=True)
    nothing = {key: hint.__metadata__[0][0] for key, hint in hints.items() if hasattr(hint, "__metadata__")}
    assert len(nothing) > 15
    assert load(DATA / name, **nothing).path == DATA / name
    assert load(DATA / name, device="cpu", model_kwargs={}, trust_remote_code=False).path == DATA / name
    for arguments, message in (
        ({"device": "cuda"}, "device is 'cuda'.*CPU"),
        ({"model_kwargs": {"dtype": "bfloat16"}}, "model_kwargs is .*checkpoint's files"),
        ({"truncate_dim": 8}, "truncate_dim is 8.*set the attribute"),
        ({"max_length": 512}, "max_length is 512.*max_seq_length"),
        ({"use_auth_token": "x"}, "use_auth_token is 'x'.*called token"),
    ):
        with pytest.raises(minisbert.EncodeValueError, match=message):
            load(DATA / name, **arguments)


@pytest.mark.parametrize(
    ("function", "options", "besides"),
    [
        (minisbert.SentenceEncoder.encode, signatures.EncodeOptions, {"sentences", "output_value"}),
        (minisbert.CrossEncoder.predict, signatures.PredictOptions, {"inputs"}),
    ],
)
def test_type_checkers_are_told_of_every_argument(function: Any, options: Any, besides: set[str]) -> None:
    parameters = set(inspect.signature(function).parameters) - {"self", "unused"} - besides
    unused = options.__annotations__.keys() - parameters
    assert parameters <= options.__annotations__.keys()
    assert unused >= HARMLESS.keys()


CALLS = """
from collections.abc import Iterable, Iterator, Sequence

import minisbert

def calls(
    encoder: minisbert.SentenceEncoder, model: minisbert.CrossEncoder, some: Sequence[str], either: str | list[str]
) -> None:
    reveal_type(encoder.encode("a"))
    reveal_type(encoder.encode(["a", "b"], normalize_embeddings=True, convert_to_numpy=True))
    reveal_type(encoder.encode(text for text in some))
    reveal_type(encoder.encode(some))
    reveal_type(encoder.encode(either))
    reveal_type(encoder.encode("a", output_value="token_embeddings"))
    reveal_type(encoder.encode(["a"], output_value="token_embeddings"))
    reveal_type(encoder.encode_query("a", show_progress_bar=print))
    reveal_type(encoder.encode_document(["a"], batch_size=8))
    reveal_type(model.predict([("a", "b")], convert_to_tensor=False))
    reveal_type(model.predict(("a", "b")))
    minisbert.load("a", device="cpu")
    encoder.encode("a", normalise=True)
    encoder.encode("a", precision="int4")
    minisbert.load("a", number_of_threads=3)
"""
VECTOR, VECTORS = (f"numpy.ndarray[tuple[{shape}], numpy.dtype[Any]]" for shape in ("int", "int, int"))
ANY_SHAPE = "numpy.ndarray[tuple[Any, ...], numpy.dtype[Any]]"
REVEALED = [
    VECTOR, VECTORS, VECTORS, ANY_SHAPE, ANY_SHAPE, VECTORS, f"list[{VECTORS}]", VECTOR, VECTORS,
    ANY_SHAPE, "Any",
]  # fmt: skip


def test_types_are_what_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mypy: Any = pytest.importorskip("mypy.api", reason="mypy is not installed")
    path = tmp_path / "calls.py"
    path.write_text(CALLS)
    monkeypatch.setenv("MYPYPATH", str(Path(minisbert.__file__).parents[1]))
    options = ["--strict", "--config-file=", "--follow-imports=silent", f"--cache-dir={tmp_path / 'cache'}"]
    report, problems, _ = mypy.run([*options, str(path)])
    assert problems == ""
    revealed = re.findall(r'Revealed type is "(.*)"', report)
    # Older versions write int and Any with their modules, and the shape that is not known as Any alone.
    found = [re.sub(r"builtins\.|typing\.", "", kind) for kind in revealed]
    assert [kind.replace("ndarray[Any,", "ndarray[tuple[Any, ...],") for kind in found] == REVEALED
    lines = {int(line.split(":")[1]) for line in report.splitlines() if "error: " in line}
    wrong = [line.strip() for number, line in enumerate(CALLS.splitlines(), 1) if number in lines]
    assert wrong == [line.strip() for line in CALLS.splitlines()[-3:]]
