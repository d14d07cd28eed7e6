"""Whether the tests can be somebody who may not read a file."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache

__all__ = ["NOBODY", "can_be_nobody"]

NOBODY = 65534


@cache
def can_be_nobody() -> bool:
    """Whether there are files that this user may not read: root may read all, unless it becomes somebody else."""
    if os.name != "posix" or os.geteuid():
        return os.name == "posix"
    code = f"import os; os.seteuid({NOBODY})"  # which a namespace of users may lack
    return subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL).returncode == 0
