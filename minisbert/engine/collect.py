"""Results on their way out: one array of them, how far they are, and which inputs were cut."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minisbert.arrays import Floats
from minisbert.errors import (
    CalibrationWarning,
    EncodeValueError,
    TruncationError,
    TruncationWarning,
    level_of_caller,
)
from minisbert.vectors import PRECISIONS, SCALED, check_ranges, output_width, quantize

__all__ = ["Collector", "OverlongTexts", "Progress"]

# Bytes in which vectors are gathered where nobody knows how many will come. What isn't filled is never touched, and
# given back in the end. Linux's allocator keeps so large an array outside of its heap, where it grows without a copy.
ROOM = 48 << 20
CALIBRATED = (
    "int8 and uint8 were scaled by the ranges of the vectors of this call, and can't be compared with those of "
    "another. Pass ranges=np.stack([typical.min(axis=0), typical.max(axis=0)]) of float32 vectors of many typical texts"
)
# A progress bar appears by itself on a terminal once the work has taken this many seconds.
PROGRESS_DELAY = 2.0


class Collector:
    """Gathers finished vectors into one array (S, D), or into the caller's; `rows` counts them.

    Quantising to ``int8`` or ``uint8`` without ranges takes them over all vectors, so it waits for the last ones;
    everything else is written as it comes.
    """

    def __init__(
        self,
        out: NDArray[Any] | None,
        count: int | None,
        dimension: int,
        precision: str,
        dtype: np.dtype[Any],
        ranges: ArrayLike | None = None,
    ) -> None:
        self._precision = precision
        self._ranges = None if ranges is None else check_ranges(ranges, precision, dimension)
        self._width = output_width(precision, dimension)
        self._dtype = dtype if precision == "float32" else np.dtype(PRECISIONS[precision])
        self._waits = precision in SCALED and ranges is None
        self._gathered: NDArray[Any] | None = None
        self._count = count
        self.rows = 0
        if out is not None:
            self._check(out, count)
        self._out = out

    def _check(self, out: NDArray[Any], count: int | None) -> None:
        rows = len(out) if count is None and getattr(out, "ndim", 0) == 2 else count
        if not isinstance(out, np.ndarray) or out.shape != (rows, self._width) or out.dtype != self._dtype:
            found = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
            raise EncodeValueError(
                f"out is {found}; expected a {self._dtype} array of shape ({'S' if rows is None else rows}, "
                f"{self._width})"
            )
        if not out.flags.writeable:
            raise EncodeValueError("out is read-only; expected an array that can be filled")

    def add(self, vectors: Floats) -> None:
        """Take the next vectors (S, D)."""
        stays = self._waits or self._precision == "float32"
        ready = vectors if stays else quantize(vectors, self._precision, self._ranges)
        if (
            self._out is None and self._count is not None and not self._waits
        ):  # allocated only now, at the first result
            self._out = np.empty((self._count, self._width), self._dtype)
        start, self.rows = self.rows, self.rows + len(ready)
        if self._out is None or self._waits:
            self._gather(ready)
        elif (most := len(self._out)) < self.rows:
            raise EncodeValueError(f"there are more sentences than the {most} rows that were expected")
        else:
            self._out[start : self.rows] = ready

    def result(self) -> NDArray[Any]:
        """Return the array of all vectors."""
        expected = self._count if self._out is None else len(self._out)
        if expected not in (None, self.rows):
            raise EncodeValueError(f"there were {self.rows} sentences; expected {expected}")
        if self._gathered is None:
            return np.empty((0, self._width), self._dtype) if self._out is None else self._out
        self._resize(self._gathered, self.rows)
        ready = self._gathered
        if self._waits:
            ready = quantize(ready, self._precision)
            warnings.warn(CalibrationWarning(CALIBRATED), stacklevel=level_of_caller())
        if self._out is None:
            return ready
        self._out[:] = ready
        return self._out

    def _gather(self, vectors: NDArray[Any]) -> None:
        """Append vectors (S, D), in place: to join them all in the end would take the memory of the result twice."""
        if self._gathered is None:
            count = ROOM // vectors[0].nbytes if self._count is None else self._count
            self._gathered = np.empty((count, vectors.shape[1]), vectors.dtype)
        if self.rows > len(self._gathered):
            # By an eighth: all of it may be copied each time, and what is new is filled with zeros.
            self._resize(self._gathered, max(self.rows, len(self._gathered) * 9 // 8))
        self._gathered[self.rows - len(vectors) : self.rows] = vectors

    def _resize(self, gathered: NDArray[Any], rows: int) -> None:
        gathered.resize((rows, gathered.shape[1]), refcheck=False)  # nobody else has seen it yet


class OverlongTexts:
    """Notes which inputs are longer than `max_tokens`, to say so once at the end or to stop at the first.

    ``count_all(inputs, first)`` counts the tokens of inputs that are not cut; `first` is the index of the first one.
    """

    def __init__(
        self, max_tokens: int, mode: str, item: str, count_all: Callable[[Sequence[Any], int], list[int]]
    ) -> None:
        self.max_tokens = max_tokens
        self._mode = mode
        self._item = item
        self._count_all = count_all
        self._rows: list[int] = []
        self._longest = 0

    def add(self, lengths: Sequence[int], inputs: Sequence[Any], first: int) -> None:
        """Look at how many tokens the inputs that start at index `first` are known to have."""
        rows = [row for row, length in enumerate(lengths) if length > self.max_tokens]
        if rows and self._mode == "error":
            row = first + rows[0]
            [length] = self._count_all([inputs[rows[0]]], row)
            raise TruncationError(
                f"{self._item} {row} has {length:,} tokens, and max_seq_length is {self.max_tokens}; split it, "
                "or pass truncation='warn' to have it cut",
                (row,),
                length,
            )
        if self._mode == "warn":
            self._rows += [first + row for row in rows]
        self._longest = max(self._longest, *lengths)

    def report(self) -> None:
        """Warn once about all inputs that were cut, in words that don't depend on them: Python keeps each text."""
        if self._rows:
            message = (
                f"some {self._item}s were cut to max_seq_length, {self.max_tokens} tokens: the warning's rows are "
                "their indices. Split them, or pass truncation='silent'"
            )
            warning = TruncationWarning(message, tuple(self._rows), self._longest)
            warnings.warn(warning, stacklevel=level_of_caller())


class Progress:
    """A tqdm bar, made only when it is to be seen: importing tqdm takes longer than a small encode.

    `show` may be a function instead, which is told how many rows are finished each time that some are.
    """

    def __init__(
        self,
        total: int | None,
        show: bool | Callable[[int], object] | None,
        item: str,
        what: str = "Encoding",
    ) -> None:
        self.total = total
        self._what = what
        self._unit = f" {item}s"
        self._show = show
        self._due = time.monotonic() + (0 if show else PROGRESS_DELAY)
        self._done = 0
        self._bar: Any = None

    def update(self, rows: int) -> None:
        """Count finished rows."""
        if callable(self._show):
            self._show(rows)
            return
        self._done += rows
        if time.monotonic() < self._due or not self._is_wanted():
            return
        if self._bar is None:
            self._bar = self._new_bar()
        if self._bar is not None:
            self._bar.update(self._done - self._bar.n)

    def _new_bar(self) -> Any:
        """Return a bar; None where there is no tqdm, as in an install without the dependencies."""
        try:
            from tqdm.auto import tqdm
        except ImportError as error:
            if self._show:
                warnings.warn(
                    f"no progress bar: {error}; pip install tqdm", UserWarning, stacklevel=level_of_caller()
                )
            self._show = False
            return None
        return tqdm(desc=self._what, total=self.total, unit=self._unit)

    def _is_wanted(self) -> bool:
        can_show = not getattr(sys.stderr, "closed", True)  # it is None where there is no console
        return can_show and self._show is not False and (self._show is True or sys.stderr.isatty())

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
