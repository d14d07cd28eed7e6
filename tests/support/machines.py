"""What is sent to the workers of a cluster to learn what they do: they count loads, and one of them dies."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minisbert.adapters.spec import EncoderSpec
from minisbert.encoder import SentenceEncoder

__all__ = ["DEADLY", "WatchedSpec"]

DEADLY = "whoever computes this text first is killed"
_read = SentenceEncoder._read


@dataclass(frozen=True)
class WatchedSpec(EncoderSpec):
    """An encoder whose loads, and threads, each process notes in a file of a `folder`."""

    folder: str = ""

    def loads(self) -> Counter[str]:
        """Return how many times each process has read the weights."""
        return Counter(path.name.split("-")[1] for path in Path(self.folder).glob("load-*"))

    def threads(self, all_but: int) -> set[str]:
        """Return the numbers of threads that all processes but one have computed with."""
        paths = set(Path(self.folder).glob("threads-*")) - set(Path(self.folder).glob(f"threads-{all_but}-*"))
        return {path.name.split("-")[2] for path in paths}

    def killed(self) -> set[str]:
        """Return which processes have killed themselves."""
        return {path.name.split("-")[1] for path in Path(self.folder).glob("killed-*")}

    def resolve(self) -> SentenceEncoder:
        def read(encoder: SentenceEncoder, *arguments: Any) -> int:
            count = len(list(Path(self.folder).glob(f"load-{os.getpid()}-*")))
            Path(self.folder, f"load-{os.getpid()}-{count}").touch()
            return _read(encoder, *arguments)

        SentenceEncoder._read = read
        encoder = super().resolve()
        Path(self.folder, f"threads-{os.getpid()}-{encoder.num_threads}").touch()
        return encoder

    def encode(self, texts: str | Iterable[str]) -> Any:
        """Compute, and then die, once, of a deadly text: as late as can be, with all of the batch done."""
        vectors = super().encode(texts)
        if DEADLY in texts and not self.killed():
            Path(self.folder, f"killed-{os.getpid()}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return vectors
