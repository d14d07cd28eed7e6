"""What hatchling runs when it makes a wheel or an editable install: builds the kernels into the package.

For the processor at hand, as a rule; ``MINISBERT_LEVELS`` has the names of others, or is ``all``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Kernels(BuildHookInterface[Any]):
    """Has `minisbert.kernels.runtime.build` make a file for each level, and puts these into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build; `version` is "standard" or "editable"."""
        folder = Path(self.root, "minisbert", "kernels", "built")
        command = [sys.executable, "-m", "minisbert.kernels.runtime.build", str(folder)]
        command += os.environ.get("MINISBERT_LEVELS", "").split()
        subprocess.run(command, cwd=self.root, check=True)  # in whose folder Python finds minisbert
        build_data["artifacts"].append("/minisbert/kernels/built/*.bin")
