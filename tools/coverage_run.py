"""Compare minisbert with sentence-transformers on every kind of checkpoint that it reads.

    python tools/dev.py coverage [--json FILE] [--readme]

Each row is a checkpoint, made in a temporary folder: `coverage_cases.py` says which. The reference runs in float64
on the same weights, each text alone. minisbert is compared with it in float64, and in float32 on both backends; and
its compiled kernels with themselves, in other batches. The exit code is 1 if a row misses a bound.

The file has not the command's name, because numba imports a module named ``coverage`` wherever there is one.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coverage_report as report
import numpy as np
import readme
import torch
import transformers
from coverage_build import ENCODER, build, cast, make_base
from coverage_cases import FULL_SIZE, TINY, Case, cases, sentences
from make_golden import VERSIONS, token_ids
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

import minisbert

FAMILIES = {**TINY, **{name: name for name in FULL_SIZE}}


# --- The reference ----------------------------------------------------------------------------------------


def reference(folder: Path) -> SentenceTransformer:
    """Load a checkpoint into the reference, all weights widened to float64 before anything is computed.

    Without `dtype` the transformer would take the one in config.json: float64 weights could be rounded there. The
    modules after it are made in float32 whatever their files hold, so theirs are read once more.
    """
    model = SentenceTransformer(
        str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float64}
    )
    model.double().eval()
    path = folder / "modules.json"
    if path.exists():
        entries = json.loads(path.read_text(encoding="utf-8"))
        for entry, module in zip(entries[1:], list(model)[1:], strict=True):
            weights = folder / entry["path"] / "model.safetensors"
            if weights.exists():
                module.load_state_dict(load_file(weights))
    return model


def check_weights(model: SentenceTransformer, base: Path, case: Case) -> None:
    """Stop unless the reference computes with the weights of the base: it makes up those that it does not find."""
    found = model[0].auto_model.state_dict()
    for name, tensor in cast(load_file(base / "model.safetensors"), case.dtype).items():
        if name.startswith(ENCODER) and not torch.equal(found[name], tensor.double()):
            sys.exit(f"coverage: {case}: the reference has other values in {name} than the checkpoint")


# --- A row ------------------------------------------------------------------------------------------------


def measure(case: Case, base: Path, folder: Path) -> dict[str, Any]:
    """Build a checkpoint, and compare."""
    build(case, base, folder)
    texts = sentences(case.family)
    theirs = reference(folder)
    check_weights(theirs, base, case)
    expected = theirs.encode(texts, batch_size=1)
    assert expected.dtype == np.float64
    fast = minisbert.load(folder, backend="numba", num_threads=2)
    others = {
        "float64": minisbert.load(folder, dtype="float64"),
        "reference": minisbert.load(folder, backend="reference"),
    }
    together = fast.encode(texts, truncation="silent")
    vectors = {name: encoder.encode(texts, truncation="silent") for name, encoder in others.items()}
    same_ids = zip(fast.tokenize(texts)["input_ids"], texts, strict=True)
    return {
        **vars(case),
        "unit": case.unit,
        "texts": len(texts),
        "ids_equal": sum(np.array_equal(ids, token_ids(theirs, text)) for ids, text in same_ids),
        "numba": error(together, expected, case.unit),
        **{name: error(found, expected, case.unit) for name, found in vectors.items()},
        "invariant": is_invariant(fast, texts, together),
    }


def error(found: np.ndarray, expected: np.ndarray, unit: bool) -> float:
    """Return the largest error of a component; of vectors of any length, as a part of their largest component."""
    wrong = np.abs(found - expected).max(axis=1)  # (S,)
    return float((wrong if unit else wrong / np.abs(expected).max(axis=1)).max())


def is_invariant(encoder: minisbert.SentenceEncoder, texts: list[str], together: np.ndarray) -> bool:
    """Whether vectors are the same bits alone, and in another order, batch size and number of threads."""
    alone = np.stack([encoder.encode(text, truncation="silent") for text in texts])
    encoder.num_threads = 1
    order = np.random.default_rng(0).permutation(len(texts))
    mixed = encoder.encode([texts[row] for row in order], batch_size=5, truncation="silent")
    return together.tobytes() == alone.tobytes() and together[order].tobytes() == mixed.tobytes()


# --- All of them ------------------------------------------------------------------------------------------


def measure_all(families: list[str]) -> Iterator[dict[str, Any]]:
    """Measure every row of some families, and print each."""
    for family in families:
        with tempfile.TemporaryDirectory(prefix="minisbert-coverage-") as scratch:
            base = Path(scratch) / "base"
            make_base(family, base)
            for case in cases(family):
                with tempfile.TemporaryDirectory(dir=scratch) as parent:
                    row = measure(case, base, Path(parent) / "model")
                row["title"] = FAMILIES[family]
                print(report.line(row), flush=True)
                yield row


def run(families: list[str]) -> dict[str, Any]:
    torch.set_num_threads(1)  # sums are then in one order
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    start = time.perf_counter()
    rows = list(measure_all(families))
    return {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "versions": {"minisbert": minisbert.__version__, "numpy": np.__version__, **VERSIONS},
        "seconds": round(time.perf_counter() - start),
        "rows": rows,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--only", nargs="+", choices=FAMILIES, metavar="FAMILY", help=f"some of {', '.join(FAMILIES)}")
    add("--from", dest="stored", type=Path, metavar="FILE", help="show a stored result instead")
    add("--json", type=Path, metavar="FILE", help="write every row")
    readme.add_option(parser)
    args = parser.parse_args()
    if args.readme and args.only:
        parser.error("--readme is for all families: leave out --only")
    readme.check(parser, args.readme, report.NAME)
    found = json.loads(args.stored.read_text()) if args.stored else run(args.only or list(FAMILIES))
    block = report.markdown(found)
    print(block)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    if args.readme:
        readme.rewrite(args.readme, report.NAME, block)
    missed = [miss for row in found["rows"] for miss in report.misses(row)]
    print(*missed, sep="\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
