"""How many threads to use, and keeping NumPy's own threads out of the way of ours."""

from __future__ import annotations

import ctypes
import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

from minisbert.errors import EncodeTypeError, EncodeValueError, shown

__all__ = ["one_blas_thread", "resolve_num_threads"]


def resolve_num_threads(num_threads: int | None) -> int:
    """Return how many worker threads to use.

    Parameters
    ----------
    num_threads : int or None
        None stands for ``MINISBERT_NUM_THREADS``, else for the processors that this process may use: those
        in its affinity mask, and no more than the CPU quota of its container.

    Raises
    ------
    EncodeTypeError, EncodeValueError
        If it is not a positive integer.
    """
    if num_threads is None:
        stated = os.environ.get("MINISBERT_NUM_THREADS", "").strip()
        if not stated:
            return max(1, min(_affinity(), _quota()))
        if not stated.isdecimal() or len(stated) > 9 or int(stated) < 1:
            raise EncodeValueError(f"MINISBERT_NUM_THREADS is {shown(stated)}; expected a positive integer")
        return int(stated)
    if not isinstance(num_threads, int | np.integer) or isinstance(num_threads, bool):
        raise EncodeTypeError(f"num_threads is {shown(num_threads)}; expected a positive integer or None")
    if num_threads < 1:
        raise EncodeValueError(f"num_threads is {shown(num_threads)}; expected a positive integer or None")
    return int(num_threads)


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quota(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the CPU quota of the control group, version 2 or 1, rounded up; a large number where none is."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return 1 << 20
    if not quota.isdecimal() or not period.isdecimal() or not int(period):  # "max" or -1: no limit
        return 1 << 20
    return math.ceil(int(quota) / int(period))


@cache
def _blas() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """Find the functions that read and set the thread count of the OpenBLAS in NumPy's wheels.

    A look-up through NumPy's own extension module sees the library that it is linked with. Where NumPy was
    built on another BLAS (MKL, Accelerate) there is nothing to find, and its threads stay as they are.
    """
    module = getattr(np, "_core", None) or np.core  # NumPy 2 and 1
    try:
        library = ctypes.CDLL(module._multiarray_umath.__file__)
    except OSError:
        return None
    for prefix, suffix in (("scipy_", "64_"), ("scipy_", ""), ("", "64_"), ("", "")):
        get = getattr(library, f"{prefix}openblas_get_num_threads{suffix}", None)
        if get is not None:
            return get, getattr(library, f"{prefix}openblas_set_num_threads{suffix}")
    return None


_lock = threading.Lock()
_holders = 0
_restore = 1


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let every BLAS call in the process run on the thread that makes it, while anyone is in this context.

    Our workers each multiply their own micro-batch; a BLAS that starts threads of its own for each of them
    would put more threads on the processors than there are.
    """
    global _holders, _restore
    blas = _blas()
    if blas is None:
        yield
        return
    get, set_ = blas
    with _lock:
        if _holders == 0:
            _restore = get()
            set_(1)
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders = max(0, _holders - 1)
            if _holders == 0:
                set_(_restore)


def _after_fork() -> None:
    """Forget the threads of the parent process: a fork copies what they hold, and none of them to let go of it."""
    global _holders, _lock
    _lock = threading.Lock()
    blas = _blas() if _holders else None
    _holders = 0
    if blas is not None:
        blas[1](_restore)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)
