"""The public names: what they are, where they say that they are from, and what pickles of today refer to."""

from __future__ import annotations

import pickle
import pickletools
from importlib.metadata import entry_points

import minisbert
import minisbert.encoder
import minisbert.errors
import minisbert.vectors
from tests.conftest import DATA

MODULES = {
    "minisbert.encoder": {"SentenceEncoder", "load"},
    "minisbert.cross_encoder": {"CrossEncoder", "load_cross_encoder"},
    "minisbert.adapters.sentence_transformers": {"as_sentence_transformers"},
    "minisbert.errors": {
        "BackendWarning",
        "CalibrationWarning",
        "CheckpointError",
        "CheckpointNotFoundError",
        "EncodeTypeError",
        "EncodeValueError",
        "MinisbertError",
        "MissingPackageError",
        "TruncationError",
        "TruncationWarning",
        "UnsupportedCheckpointError",
    },
}


def test_the_public_names() -> None:
    names = set().union(*MODULES.values()) | {"__version__"}
    assert set(minisbert.__all__) == names
    assert {name for name in names if not hasattr(minisbert, name)} == set()


def test_they_say_where_they_are_from() -> None:
    found = {name: getattr(minisbert, name).__module__ for names in MODULES.values() for name in names}
    assert found == {name: module for module, names in MODULES.items() for name in names}


def test_a_pickle_names_the_public_class_and_nothing_else_of_ours() -> None:
    """Any other name in it would be one that no later version could move."""
    for load, name in ((minisbert.load, "tiny-bert"), (minisbert.load_cross_encoder, "cross-bert")):
        model = load(DATA / name, backend="reference")
        strings = [arg for _, arg, _ in pickletools.genops(pickle.dumps(model)) if isinstance(arg, str)]
        assert [s for s in strings if s.startswith("minisbert")] == [type(model).__module__]


def test_what_the_documentation_names_is_there() -> None:
    assert callable(minisbert.vectors.quantize)
    [command] = [entry for entry in entry_points(group="console_scripts") if entry.name == "minisbert"]
    assert command.value == "minisbert.cli:main"
    assert callable(command.load())
