"""What is imported is declared; the lowest versions, and the Pythons, that are declared are those that are tested."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # which pytest brings along there

import minisbert
from tools import venvs

PROJECT = tomllib.loads(venvs.PYPROJECT.read_text(encoding="utf-8"))
RUNTIME = PROJECT["project"]["dependencies"]
EXTRAS = [line for lines in PROJECT["project"]["optional-dependencies"].values() for line in lines]
# `check --parity` compares with the reference where that is installed, and does nothing elsewhere.
REFERENCE = {"sentence_transformers", "torch", "transformers"}
# What is not imported by the name that it is installed by.
IMPORTED_AS = {"haystack_ai": "haystack", "llama_index_core": "llama_index", "scikit_learn": "sklearn"}
# What every framework that needs it here brings along.
BROUGHT_ALONG = {"pydantic"}
# What only type checkers import, which bring it along.
FOR_CHECKERS = {"typing_extensions"}


def imported(source: str) -> Iterator[str]:
    """Yield the top-level packages that a module imports anywhere, in a function or by name, too."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name.partition(".")[0] for alias in names)
            case ast.ImportFrom(module=str(name), level=0):
                yield name.partition(".")[0]
            case ast.Call(
                func=ast.Name(id="import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name.partition(".")[0]


def test_imports_are_found_wherever_they_are() -> None:
    source = """
import a.b as c, d
from e.f import g
from .h import i
def work():
    import j
    importlib.import_module("k.l")
    import_module("m", package=None)
"""
    assert sorted(imported(source)) == ["a", "d", "e", "j", "k", "m"]


def test_what_is_imported_is_declared_and_nothing_else() -> None:
    files = Path(minisbert.__file__).parent.rglob("*.py")
    names = {name for file in files for name in imported(file.read_text(encoding="utf-8"))}
    installed = [line.partition(">=")[0].replace("-", "_") for line in RUNTIME + EXTRAS]
    declared = {IMPORTED_AS.get(name, name) for name in installed} | BROUGHT_ALONG
    assert names - sys.stdlib_module_names - {"minisbert"} == declared | REFERENCE | FOR_CHECKERS


def test_every_lower_bound_is_what_the_lowest_environment_gets(tmp_path: Path) -> None:
    pins = venvs.write_lowest(tmp_path).read_text(encoding="utf-8").splitlines()
    assert all(">=" in line for line in RUNTIME + EXTRAS)
    bounded = [line for line in RUNTIME + EXTRAS + PROJECT["dependency-groups"]["dev"] if ">=" in line]
    assert {line.replace(">=", "==") for line in bounded} <= set(pins)


def test_the_lowest_python_is_one_that_is_tested() -> None:
    assert PROJECT["project"]["requires-python"] == f">={venvs.supported()[0]}"


@pytest.mark.skipif(os.name != "posix", reason="the interpreters are shell scripts")
def test_a_python_that_is_only_promised_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for version, status in (("3.98", 0), ("3.99", 127)):
        shim = tmp_path / f"python{version}"
        shim.write_text(f"#!/bin/sh\necho of pyenv $PYENV_VERSION\nexit {status}\n")
        shim.chmod(0o755)
    assert venvs.find_python("3.98") == "of pyenv 3.98"
    assert venvs.find_python("3.99") == ""
    assert venvs.find_python("3.97") == ""
