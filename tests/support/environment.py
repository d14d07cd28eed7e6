"""The environment variables that the tests run with, whoever starts them where: `conftest` sets these and no others.

The libraries read dozens of variables, many of them when they are imported: for an endpoint, a token, a proxy, the
number of threads, colours, the width of a terminal. So only those are kept that a process can't do without, and
those that are set for a run of the tests on purpose.
"""

from __future__ import annotations

import os

from tests.support.hubserver import HUB

SYSTEM = {"PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV"}
WINDOWS = {"SYSTEMROOT", "COMSPEC", "PATHEXT", "TEMP", "TMP", "USERPROFILE", "APPDATA", "LOCALAPPDATA"}
# A longer search for odd checkpoints, the kernels of another processor, and time for an emulated one.
ON_PURPOSE = {"MINISBERT_EXAMPLES", "MINISBERT_LEVEL", "MINISBERT_TEST_BACKEND", "MINISBERT_TEST_PATIENCE"}
EMULATED = {"QEMU_CPU", "PYTHONPYCACHEPREFIX"}  # the processor, and where compiled modules are kept
PREFIXES = ("PYTEST_", "COV_", "COVERAGE_")

KEPT = {
    name: value
    for name, value in os.environ.items()
    if name.startswith(PREFIXES) or name in SYSTEM | WINDOWS | ON_PURPOSE | EMULATED
}
KEPT |= {
    "HF_ENDPOINT": HUB.url,  # huggingface_hub reads it but once, when it is imported
    "HF_TOKEN_PATH": os.devnull,  # whoever is logged in
    "NO_PROXY": "127.0.0.1,localhost",  # a proxy may stand in the settings of the system, too
}

IS_EMULATED = "QEMU_CPU" in KEPT
# A test is taken to hang after so many times what would do on a usual machine.
PATIENCE = int(KEPT.get("MINISBERT_TEST_PATIENCE", 1))
