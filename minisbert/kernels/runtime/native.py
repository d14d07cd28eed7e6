"""Threads of the operating system and locks between them, also where a library has put others in their place.

gevent and eventlet patch `_thread` and `threading`: what is started as a thread is then a greenlet. It shares a thread
of the system with all others, and runs when they let it. Who waits in a kernel does not let it, and so waits for ever;
and the locks that they put in belong to greenlets too. So ours come from a second `_thread`, which the interpreter
makes of what is built into it, and which nobody has patched.

Who waits for one of these locks stops all greenlets of the thread. So none is waited for that another one of them may
have: what is done under a lock here gives no greenlet a turn, but for what is done with the helpers, whose lock is only
tried.
"""

from __future__ import annotations

import sys
import threading
from _queue import Empty, SimpleQueue
from collections.abc import Callable
from importlib.machinery import BuiltinImporter
from importlib.util import module_from_spec
from typing import Any

__all__ = ["Empty", "SimpleQueue", "ident", "lock", "start"]

# `_queue` is what gevent leaves of `queue`: a queue in C, on locks of the system.
_spec = BuiltinImporter.find_spec("_thread")
assert _spec is not None
_thread: Any = module_from_spec(_spec)
BuiltinImporter.exec_module(_thread)

ident: Callable[[], int] = _thread.get_ident


def lock() -> threading.Lock:
    """Return a new lock, which is free."""
    return _thread.allocate_lock()


def start(function: Callable[..., None], *arguments: Any) -> bool:
    """Run a function in a new thread, which the end of the process does not wait for; return whether there is one.

    It runs by then: an interpreter that ends while a thread is about to begin, crashes (CPython up to 3.11).
    """
    if sys.is_finalizing():  # it might be started, but would never run
        return False
    begun = lock()
    begun.acquire()

    def run() -> None:
        begun.release()
        function(*arguments)

    try:
        _thread.start_new_thread(run, ())
    except RuntimeError:  # there are too many, or the interpreter is about to end
        return False
    begun.acquire()
    return True
