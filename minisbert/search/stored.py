"""Vectors as they are stored, in one of the precisions of `encode`, and as the numbers that they stand for."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minisbert.arrays import Floats, Ints
from minisbert.engine.arguments import check_choice
from minisbert.errors import EncodeTypeError, EncodeValueError
from minisbert.vectors import PRECISIONS, SCALED, check_ranges, output_width

__all__ = ["PACKED", "Stored", "as_vectors", "read_stored"]

PACKED = ("binary", "ubinary")
_SIGNS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, np.newaxis], axis=1) * np.float32(2) - np.float32(1)


class Stored(NamedTuple):
    """Vectors (N, D), or (N, ceil(D / 8)) of packed bits; for int8 and uint8 with the ranges (2, D)."""

    codes: NDArray[Any]
    precision: str
    dimension: int
    ranges: Floats | None = None

    def floats(self, rows: slice | Ints = slice(None)) -> Floats:
        """Return what some of them stand for (B, D): bits for signs, 1 and -1, and steps for where these begin."""
        codes = self.codes[rows]
        if self.precision in PACKED:
            codes = codes.view(np.uint8) ^ np.uint8(0x80 if self.precision == "binary" else 0)
            return np.asarray(_SIGNS[codes].reshape(len(codes), 8 * codes.shape[1])[:, : self.dimension])
        if self.ranges is None:
            return np.asarray(codes, np.result_type(codes, np.float32))
        lowest, highest = self.ranges
        step = (highest - lowest) / 255
        step = np.where(step == 0, np.float32(1), step)
        numbers = codes * step
        numbers += lowest + (128 * step if self.precision == "int8" else 0)
        return np.asarray(numbers)


def read_stored(
    name: str, embeddings: ArrayLike, precision: str, ranges: ArrayLike | None, dimension: int | None = None
) -> Stored:
    """Check vectors that are stored in a precision; they stand for so many components, if that is known.

    Raises
    ------
    EncodeTypeError, EncodeValueError
        If they are no such vectors; `name` is what the message calls them.
    """
    check_choice("precision", precision, tuple(PRECISIONS))
    codes = as_vectors(name, embeddings)
    expected = np.dtype(PRECISIONS[precision])
    if precision != "float32" and codes.dtype != expected and codes.size:
        raise EncodeValueError(
            f"{name} is {codes.dtype}; expected {expected}, in the precision {precision!r}"
        )
    dimension = dimension or codes.shape[1] * (8 if precision in PACKED else 1)
    if codes.size and codes.shape[1] != (width := output_width(precision, dimension)):
        raise EncodeValueError(
            f"{name} is {codes.dtype} {codes.shape}; expected {width} columns for {dimension} components in the "
            f"precision {precision!r}; if it is stored in another one, say in which"
        )
    if precision in SCALED and ranges is None:
        raise EncodeValueError(f"{name} is {precision}; pass the ranges that it was quantised with")
    checked = None if ranges is None else check_ranges(ranges, precision, dimension)
    return Stored(codes, precision, dimension, checked)


def as_vectors(name: str, embeddings: ArrayLike) -> NDArray[Any]:
    """Return an array (N, D) of numbers; one vector (D,) is a list of one."""
    try:
        found = np.asarray(embeddings)
    except (TypeError, ValueError) as error:
        raise EncodeTypeError(f"{name} is no array ({error}); expected what encode returned") from error
    if found.ndim == 1:
        found = found.reshape(min(1, len(found)), len(found))
    if found.ndim != 2 or found.dtype.kind not in "fiub":
        raise EncodeTypeError(f"{name} is {found.dtype} {found.shape}; expected numbers of shape (N, D)")
    return found
