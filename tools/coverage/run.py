"""Compare minisbert with sentence-transformers on every kind of checkpoint that it reads.

    python tools/dev.py coverage [--json FILE] [--readme]

Each row is a checkpoint, made in a temporary folder: `cases.py` says which. The reference runs in float64
on the same weights, each text alone. minisbert is compared with it in float64, and in float32 on both backends; and
its compiled kernels with themselves, in other batches. The exit code is 1 if a row misses a bound.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import minisbert
from tools.bench import readme
from tools.coverage import report as report
from tools.coverage.cases import TITLES
from tools.coverage.pairs import measure_pairs
from tools.coverage.vectors import measure_family
from tools.golden.make import VERSIONS

PAIRS = "pairs"  # of texts, for cross-encoders: measured beside the families


def measure(parts: list[str]) -> dict[str, Any]:
    """Measure every row of some families, and print each."""
    torch.set_num_threads(1)  # sums are then in one order
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    start = time.perf_counter()
    rows: dict[str, list[dict[str, Any]]] = {"vectors": [], "scores": []}
    for part in parts:
        with tempfile.TemporaryDirectory(prefix="minisbert-coverage-") as scratch:
            for row in measure_part(part, Path(scratch)):
                print(report.line(row), flush=True)
                rows["scores" if part == PAIRS else "vectors"].append(row)
                gc.collect()  # the reference's modules refer to each other, so a gigabyte a row would pile up
    return {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "versions": {"minisbert": minisbert.__version__, "numpy": np.__version__, **VERSIONS},
        "seconds": round(time.perf_counter() - start),
        **rows,
    }


def measure_part(part: str, scratch: Path) -> Iterator[dict[str, Any]]:
    return measure_pairs(scratch) if part == PAIRS else measure_family(part, scratch)


def main() -> int:
    parts = [*TITLES, PAIRS]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--only", nargs="+", choices=parts, metavar="PART", help=f"some of {', '.join(parts)}")
    add("--from", dest="stored", type=Path, metavar="FILE", help="show a stored result instead")
    add("--json", type=Path, metavar="FILE", help="write every row")
    readme.add_option(parser)
    args = parser.parse_args()
    if args.readme and args.only:
        parser.error("--readme is for all of it: leave out --only")
    readme.check(parser, args.readme, report.NAME)
    found = json.loads(args.stored.read_text()) if args.stored else measure(args.only or parts)
    tables = report.markdown(found)
    print(tables)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    if args.readme:
        readme.rewrite(args.readme, report.NAME, tables)
    missed = [miss for row in found["vectors"] + found["scores"] for miss in report.misses(row)]
    print("\n".join(missed) or "Every row is within its bounds.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
