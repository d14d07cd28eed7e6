"""Keeping the threads of NumPy's BLAS out of the way of ours."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np

from minisbert.kernels.runtime import native

__all__ = ["one_blas_thread"]


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


_lock = native.lock()
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
    _lock = native.lock()
    blas = _blas() if _holders else None
    _holders = 0
    if blas is not None:
        blas[1](_restore)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)
