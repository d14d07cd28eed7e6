"""A place as small and as closed as a function's in a cloud: where nothing may be written and little is to be had."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import minisbert

# A mount namespace of its own, in which all is read-only; then a user who owns nothing, but may read what is there:
# the interpreter can be in root's own folder. No variable of the environment is left, HOME among them.
CLOSED = """
set -e
mount -o remount,bind,ro /
mount -t tmpfs -o ro none /dev/shm
exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all,+dac_read_search \\
    --ambient-caps=-all,+dac_read_search --bounding-set=-all,+dac_read_search env -i "$@"
"""
ENCODE = """
import os
import resource
import sys
import tempfile
import warnings

warnings.simplefilter("error")
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
resource.setrlimit(resource.RLIMIT_AS, (384_000_000, 384_000_000))
try:
    sys.exit(f"{tempfile.gettempdir()} can be written to")
except FileNotFoundError:
    pass
import minisbert

encoder = minisbert.load(sys.argv[1])
vectors = encoder.encode([f"sentence {i}, of some words" for i in range(200)] + ["a long one " * 80], batch_size=32)
print(os.getuid(), encoder.backend, vectors.shape)
print(encoder.encode("a text").tobytes().hex())
"""


def can_be_closed() -> bool:
    tools = all(map(shutil.which, ("unshare", "setpriv", "mount")))
    if not tools or os.geteuid() != 0:
        return False
    script = ["unshare", "-m", "sh", "-c", CLOSED, "sh", "true"]
    return subprocess.run(script, capture_output=True).returncode == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="namespaces are of Linux")
def test_one_processor_little_address_space_and_nothing_to_write(minilm: Path) -> None:
    if not can_be_closed():
        pytest.skip("this user may not make a mount namespace")
    package = f"PYTHONPATH={Path(minisbert.__file__).parents[1]}"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", CLOSED, "sh", package, sys.executable, "-c", ENCODE, str(minilm)],
        capture_output=True,
        cwd="/",
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    said, vector = done.stdout.splitlines()
    assert said == "65534 native (201, 384)"
    assert vector == minisbert.load(minilm).encode("a text").tobytes().hex()
