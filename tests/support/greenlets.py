"""Patching threads and locks as gevent and eventlet do, for `greenlet_checks`; it imports nothing that would mind."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple


class Greenlets(NamedTuple):
    """How a library starts one and waits for it, lets others run, and calls something in a thread of the system."""

    spawn: Callable[..., Any]
    wait: Callable[[Any], Any]
    sleep: Callable[[float], None]
    in_a_thread: Callable[[Callable[[], Any]], Any]


def gevent() -> Greenlets:
    from gevent import get_hub, monkey, sleep, spawn

    monkey.patch_all()
    return Greenlets(spawn, lambda one: one.get(), sleep, get_hub().threadpool.apply)


def eventlet() -> Greenlets:
    with warnings.catch_warnings():  # it advises against itself
        warnings.simplefilter("ignore", DeprecationWarning)
        import eventlet
        from eventlet import tpool
    eventlet.monkey_patch()
    return Greenlets(eventlet.spawn, lambda one: one.wait(), eventlet.sleep, tpool.execute)
