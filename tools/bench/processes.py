"""Measuring whole processes: the time to the first vector, memory, and everything held to AVX2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from minisbert.kernels.tuning import LANES

__all__ = ["avx2", "memory", "start"]

# Each library has a switch of its own.
AVX2 = {
    "MINISBERT_LEVEL": "x86-64-v3",
    "OPENBLAS_CORETYPE": "Haswell",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "DNNL_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}

_FIRST = """
import sys
import minisbert
minisbert.load(sys.argv[1], num_threads=int(sys.argv[2])).encode("A first sentence.")
print("ready", flush=True)
"""

_MEMORY = """
import json
import re
import sys
import minisbert

def peak():
    return int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) / 1024

encoder = minisbert.load(sys.argv[1], num_threads=int(sys.argv[2]), dtype=sys.argv[5])
encoder.encode("A first sentence.")
loaded = peak()
texts, count = json.load(open(sys.argv[3])), int(sys.argv[4])
vectors = encoder.encode((texts[i % len(texts)] for i in range(count)), truncation="silent")
print(json.dumps({"loaded": loaded, "peak": peak(), "vectors": vectors.nbytes / 2**20}))
"""


def python(source: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", source, *map(str, arguments)]
    return subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True)


# --- The first vector -------------------------------------------------------------------------------------


def start(folder: Path, threads: int, repeats: int) -> dict[str, list[float]]:
    """Time new processes, from their start to their first vector."""
    return {"warm": [first_vector(folder, threads) for _ in range(2 * repeats)]}


def first_vector(folder: Path, threads: int) -> float:
    begin = time.perf_counter()
    with python(_FIRST, folder, threads) as child:
        assert child.stdout is not None
        line = child.stdout.readline()
        taken = time.perf_counter() - begin
    if line != "ready\n":
        sys.exit("bench: a new process gave no vector; what it said is above")
    return taken


# --- Memory -----------------------------------------------------------------------------------------------


def memory(
    folder: Path, threads: int, texts: list[str], counts: tuple[int, ...], dtype: str = "float32"
) -> dict[str, dict[str, float]]:
    """Encode so many texts, out of a generator that repeats `texts`, in a new process for each count.

    Returns MiB by count: the peak once a first sentence was encoded, the peak in the end, and the array of vectors. The
    peak is VmHWM of Linux; `ru_maxrss` counts the parent process in.
    """
    found = {}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(texts, file)
        file.flush()
        for count in counts:
            with python(_MEMORY, folder, threads, file.name, count, dtype) as child:
                said, _ = child.communicate()
            if child.returncode:
                sys.exit("bench: the process whose memory was measured failed; what it said is above")
            found[str(count)] = json.loads(said)
    return found


# --- AVX2 -------------------------------------------------------------------------------------------------


def avx2(folder: Path, threads: int, rounds: int, quick: bool) -> dict[str, Any]:
    """Time minisbert and torch on mixed texts in a process in which all arithmetic is held to AVX2."""
    if LANES < 16:
        return {}  # there is nothing to hold back
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch, "result.json")
        command = [
            sys.executable, "-m", "tools.bench.run", "--model", str(folder),
            "--engines", "torch", "--parts", "throughput", "--tasks", "mixed",
            "--threads", str(threads), "--rounds", str(rounds), "--json", str(result),
        ]  # fmt: skip
        command += ["--quick"] * quick
        child = subprocess.run(command, env={**os.environ, **AVX2}, capture_output=True, text=True)
        if child.returncode:
            sys.exit(f"bench: the process held to AVX2 failed:\n{child.stderr}")
        found = json.loads(result.read_text())
    if found["machine"]["float32 a vector"] != 8 or found["machine"]["torch's kernels"] != "AVX2":
        sys.exit(f"bench: could not hold everything to AVX2: {found['machine']}")
    (model,) = found["models"].values()
    mixed: dict[str, Any] = model["throughput"]["mixed"]
    return mixed
