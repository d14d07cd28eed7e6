"""What minisbert and its peers take on disk: each stack installed by pip into an environment of its own.

    python tools/dev.py bench-size [--only NAME ...]

The environments are made in a temporary folder, with the Python that runs this and whatever index pip is set to, and
deleted again. What counts is every file below site-packages, `.pyc` too, but for pip and setuptools; a MB is a million
bytes. The result goes to `tools/results/sizes.json`, which `bench --from tools/results/*.json --readme` draws.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tools.venvs import ROOT, clean_environment, make_venv, python_of, quietly, site_packages

__all__ = ["FILE", "STACKS", "installed", "measure"]

FILE = ROOT / "tools" / "results" / "sizes.json"
PEERS = ["tokenizers", "huggingface_hub"]
STACKS = {
    "minisbert": [str(ROOT)],
    "ONNX Runtime + tokenizers": ["onnxruntime", *PEERS],
    "OpenVINO + tokenizers": ["openvino", *PEERS],
    "sentence-transformers + torch for CPU": ["sentence-transformers", "torch==2.13.0"],
}
OF_THE_ENVIRONMENT = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence")


def installed(folder: Path) -> int:
    """Return how many bytes the files below a site-packages folder take that pip did not bring itself."""
    entries = [entry for entry in folder.iterdir() if not is_of_the_environment(entry.name)]
    files = [file for entry in entries for file in ([entry] if entry.is_file() else entry.rglob("*"))]
    return sum(file.stat().st_size for file in files if file.is_file() and not file.is_symlink())


def is_of_the_environment(name: str) -> bool:
    stem = name.removesuffix(".pth").removesuffix(".dist-info").rsplit("-", 1)
    return name in OF_THE_ENVIRONMENT or stem[0] in OF_THE_ENVIRONMENT or "distutils-precedence" in name


def measure(install: list[str]) -> dict[str, Any]:
    """Install a stack into a new environment; return its size and the version of every package."""
    os.environ["MINISBERT_LEVELS"] = "all"  # as in the wheel of a release
    with tempfile.TemporaryDirectory(prefix="minisbert-size-") as scratch:
        env = Path(scratch)
        make_venv(env)
        pip = [str(python_of(env)), "-m", "pip", "--disable-pip-version-check"]
        quietly([*pip, "install", "--quiet", *install], f"This failed: pip install {' '.join(install)}")
        command = [*pip, "list", "--format", "json"]
        listed = subprocess.run(command, env=clean_environment(), check=True, capture_output=True).stdout
        versions = {found["name"]: found["version"] for found in json.loads(listed)}
        return {
            "bytes": installed(site_packages(env)),
            "versions": {name: versions[name] for name in versions if name not in OF_THE_ENVIRONMENT},
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--only", nargs="+", choices=STACKS, metavar="NAME", help=f"some of {[*STACKS]}")
    args = parser.parse_args()
    stacks: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))["stacks"] if args.only else {}
    for name in args.only or STACKS:
        print(f"{name} ... ", end="", file=sys.stderr, flush=True)
        stacks[name] = measure(STACKS[name])
        print(f"{stacks[name]['bytes'] / 1e6:,.0f} MB", file=sys.stderr, flush=True)
    found = {
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "stacks": stacks,
    }
    FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
