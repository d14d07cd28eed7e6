"""The end of a process: whatever computes by then, its status is 0; and what is asked for at the end still comes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import minisbert
from tests.conftest import DATA
from tests.support import checkpoints
from tests.support.environment import PATIENCE

# Of what may go wrong by chance, and takes minutes where it is emulated.
RUNS, LAYERS = (3, 6) if PATIENCE == 1 else (1, 1)
TINY_BERT = str(DATA / "tiny-bert")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of MiniLM's size: one that is tiny is hardly ever in a kernel when the process ends."""
    folder = tmp_path_factory.mktemp("checkpoints") / "wide"
    tokenizer = json.loads((DATA / "tiny-bert" / "tokenizer.json").read_text(encoding="utf-8"))
    size = {
        "hidden_size": 384,
        "intermediate_size": 1536,
        "num_attention_heads": 12,
        "num_hidden_layers": LAYERS,
    }
    config = {**checkpoints.TINY_BERT_CONFIG, **size, "vocab_size": 544}
    weights = checkpoints.seeded_weights(config, 0, checkpoints.TINY_BIAS)
    checkpoints.write_checkpoint(folder, config, weights, tokenizer, max_seq_length=64)
    return folder


def run(code: str) -> tuple[int, str]:
    """Run a program; return its status, and what it says on both outputs."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(minisbert.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=240 * PATIENCE,
    )
    return done.returncode, done.stdout + done.stderr


DAEMONS = """
import threading
import time
import minisbert
encoder = minisbert.load({folder!r}, num_threads=2)
texts = ["word " * (i % 35) for i in range({count})]
seen = threading.Semaphore(0)
def work():
    while True:
        encoder.encode(texts, truncation="silent")
        seen.release()
for _ in range(5):
    threading.Thread(target=work, daemon=True).start()
for _ in range(5):
    seen.acquire()
"""


@pytest.mark.skipif(
    tuple(map(int, version("tokenizers").split(".")[:3])) < (0, 23, 3),
    reason="before 0.23.3 tokenizers itself aborts, where the interpreter ends while a daemon thread is in its code",
)
@pytest.mark.parametrize("count", [1, 70])
def test_daemon_threads_that_encode(count: int, wide: Path) -> None:
    for _ in range(RUNS):
        assert run(DAEMONS.format(folder=str(wide), count=count)) == (0, "")


LATE = """
import threading
def late():
    threading.main_thread().join()
    work()
if {where!r} == "a thread":
    threading.Thread(target=late).start()
else:
    import atexit
    atexit.register(lambda: work())
import minisbert
texts = [f"text {{i}}" for i in range(300)]
def work():
    encoder = minisbert.load({folder!r}, num_threads=2)
    print(encoder.encode(texts).shape, encoder.encode("a text").shape)
"""


@pytest.mark.parametrize("where", ["a thread", "an exit handler"])
def test_load_and_encode_after_the_end_of_the_program(where: str) -> None:
    assert run(LATE.format(where=where, folder=TINY_BERT)) == (0, "(300, 75) (75,)\n")


WAITED_FOR = """
import atexit
import threading
atexit.register(lambda: thread.join())
import minisbert
encoder = minisbert.load({folder!r}, num_threads=2)
texts = [f"text {{i}}" for i in range(300)]
def work():
    threading.main_thread().join()
    for _ in range(20):
        shape = encoder.encode(texts).shape
    print(shape)
thread = threading.Thread(target=work, daemon=True)
thread.start()
"""


def test_an_exit_handler_waits_for_a_daemon_thread_that_encodes() -> None:
    assert run(WAITED_FOR.format(folder=TINY_BERT)) == (0, "(300, 75)\n")


COLLECTED = """
import minisbert
class Last:
    def __init__(self):
        self.encoder = minisbert.load({folder!r}, num_threads=2)
        self.texts = [f"text {{i}}" for i in range(300)]
        self.encoder.encode(self.texts)
    def __del__(self, print=print):
        print(self.encoder.encode(self.texts).shape, self.encoder.encode("a text").shape)
import builtins
builtins.last = Last()  # goes when threads could be started, but would never run
"""


def test_encode_while_modules_are_torn_down() -> None:
    assert run(COLLECTED.format(folder=TINY_BERT)) == (0, "(300, 75) (75,)\n")
