"""How many threads to use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from minisbert.errors import EncodeTypeError, EncodeValueError, shown

__all__ = ["processors", "resolve_num_threads"]

NO_QUOTA = 1 << 20


def resolve_num_threads(num_threads: int | None) -> int:
    """Return how many worker threads to use.

    Parameters
    ----------
    num_threads : int or None
        None stands for ``MINISBERT_NUM_THREADS``, else ``OMP_NUM_THREADS``, else for the processors that this
        process may use.

    Raises
    ------
    EncodeTypeError, EncodeValueError
        If it is not a positive integer.
    """
    if num_threads is None:
        stated = os.environ.get("MINISBERT_NUM_THREADS", "").strip()
        if not stated:
            return _openmp_threads() or processors()
        if not stated.isdecimal() or len(stated) > 9 or int(stated) < 1:
            raise EncodeValueError(f"MINISBERT_NUM_THREADS is {shown(stated)}; expected a positive integer")
        return int(stated)
    if not isinstance(num_threads, int | np.integer) or isinstance(num_threads, bool):
        raise EncodeTypeError(f"num_threads is {shown(num_threads)}; expected a positive integer or None")
    if num_threads < 1:
        raise EncodeValueError(f"num_threads is {shown(num_threads)}; expected a positive integer or None")
    return int(num_threads)


def _openmp_threads() -> int:
    """Return what ``OMP_NUM_THREADS`` says: 0 for nothing, or for what others may complain of, as it isn't ours.

    It may be a list, of which the first number is meant for the outermost parallel loop.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and len(first) <= 9 else 0


def processors() -> int:
    """Return how many processors this process may use: those in its affinity mask, and no more than its CPU quota."""
    return max(1, min(_affinity(), _quota()))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quota(proc: Path = Path("/proc/self")) -> int:
    """Return the smallest CPU quota of this process's control groups, rounded up; a large number where none is."""
    return min(map(_quota_of, _control_groups(proc)), default=NO_QUOTA)


def _quota_of(group: Path) -> int:
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):  # of version 2 and 1
        try:
            quota, period = " ".join((group / name).read_text() for name in names).split()
        except (OSError, ValueError):
            continue
        if quota.isdecimal() and period.isdecimal() and int(period):  # and not "max" or -1: no limit
            return math.ceil(int(quota) / int(period))
    return NO_QUOTA


def _control_groups(proc: Path) -> Iterator[Path]:
    """Yield the folders of the control groups that limit this process's time: its own, and all that these are in.

    ``cgroup`` has a line for each hierarchy, as ``0::/path`` for the one of version 2 and ``4:cpu,cpuacct:/path`` for
    one of version 1; ``mountinfo`` says from which path on it is mounted, and where. A container may see its own group
    mounted as if it were the root, with or without a path that says so.
    """
    try:
        groups, mounts = (
            (proc / name).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
            for name in ("cgroup", "mountinfo")
        )
        paths = {
            name: path for _, names, path in (g.split(":", 2) for g in groups) for name in names.split(",")
        }
        for fields in map(str.split, mounts):
            kind, *_, options = fields[fields.index("-") + 1 :]
            name = {"cgroup2": "", "cgroup": "cpu"}.get(kind)
            if name in paths and (kind == "cgroup2" or "cpu" in options.split(",")):
                yield from _downwards(Path(fields[4]), PurePosixPath(fields[3]), PurePosixPath(paths[name]))
    except (OSError, ValueError):  # no Linux, or one that only pretends to be
        return


def _downwards(mount: Path, root: PurePosixPath, path: PurePosixPath) -> Iterator[Path]:
    """Yield the folder where the group `root` is mounted, and those of the groups on the way from there to `path`."""
    yield mount
    if path.is_relative_to(root) and ".." not in path.parts:
        for part in path.relative_to(root).parts:
            mount /= part
            yield mount
