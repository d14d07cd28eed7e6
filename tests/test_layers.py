"""Imports run downwards only: who wants to know what a module may use, and what may use it, reads the table."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import minisbert

# From the roof to the ground; those on one line know nothing of each other.
STOREYS = [
    ("__main__",),
    ("cli",),
    ("__init__",),
    ("adapters",),
    ("encoder", "cross_encoder"),
    ("engine",),
    ("model", "text"),
    ("weights",),
    ("kernels.__init__",),
    ("kernels.compiled",),
    ("kernels.reference",),
    ("kernels.source",),
    ("kernels.runtime",),
    ("kernels.layout",),
    ("kernels.operations", "kernels.tuning", "kernels.cpus"),
    ("vectors",),
    ("checkpoint", "kernels.levels"),
    ("arrays", "errors"),
]
PACKAGE = Path(minisbert.__file__).parent
FLOOR = {name: len(STOREYS) - i for i, names in enumerate(STOREYS) for name in names}
MODULES = [
    path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".") for path in PACKAGE.rglob("*.py")
]


def room(module: str) -> str:
    """Return the entry of the table that a module, or a package as a whole, is in."""
    names = f"{module}.__init__", module, module.rpartition(".")[0], module.partition(".")[0]
    return next((name for name in names if name in FLOOR), "nowhere")


def imported(module: str) -> Iterator[str]:
    """Yield the modules of ours that a module imports anywhere, in a function too."""
    path = PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "minisbert":
            within = node.module.split(".")[1:]
            for alias in node.names:
                name = ".".join([*within, alias.name])
                is_module = name in MODULES or f"{name}.__init__" in MODULES
                yield name if is_module else ".".join(within) or "__init__"


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_downwards(module: str) -> None:
    here = room(module)
    others = {room(name) for name in imported(module)} - {here}
    assert {name for name in others if FLOOR[name] >= FLOOR[here]} == set()


def test_every_module_has_a_storey() -> None:
    assert {room(module) for module in MODULES} == set(FLOOR)
