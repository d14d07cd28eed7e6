"""What is done to finished sentence vectors: quantise them, compare them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minisbert.arrays import Floats
from minisbert.checkpoint.config import SIMILARITIES
from minisbert.errors import EncodeValueError, shown

__all__ = [
    "PRECISIONS",
    "SCALED",
    "check_ranges",
    "output_width",
    "quantize",
    "similarity",
    "similarity_pairwise",
]

PRECISIONS = {
    "float32": np.float32,
    "int8": np.int8,
    "uint8": np.uint8,
    "binary": np.int8,
    "ubinary": np.uint8,
}
SCALED = ("int8", "uint8")  # which need the range of each component


def output_width(precision: str, dimension: int) -> int:
    """Return how many elements a vector of that many components has: binary ones hold eight in a byte."""
    return -(-dimension // 8) if precision in ("binary", "ubinary") else dimension


def quantize(vectors: Floats, precision: str, ranges: ArrayLike | None = None) -> NDArray[Any]:
    """Store vectors in fewer bits, as sentence-transformers does.

    Parameters
    ----------
    vectors : ndarray of float, shape (S, D)
        Sentence vectors; with `ranges`, or in binary precisions, also a single one (D,).
    precision : {"float32", "int8", "uint8", "binary", "ubinary"}
        ``int8`` and ``uint8`` cut the range of each component into 256 steps; ``binary`` and ``ubinary`` keep the
        sign of each component, eight to a byte.
    ranges : array_like, shape (2, D), optional
        The lowest and the highest value of each component, for ``int8`` and ``uint8``: what is beyond them gets the
        first step or the last one. By default they are taken from these vectors. Only vectors that were quantised
        with the same ranges can be compared; take those of many typical vectors
        (``np.stack([typical.min(axis=0), typical.max(axis=0)])``), and keep them.

    Returns
    -------
    ndarray, shape (S, D) or (S, ceil(D / 8))
        The vectors unchanged for ``"float32"``.

    Raises
    ------
    EncodeValueError
        If the ranges are impossible, or go with another precision; or if there are none, and a single vector, whose
        range says nothing.
    """
    if ranges is not None:
        ranges = check_ranges(ranges, precision, vectors.shape[-1])
    if precision == "float32":
        return vectors
    if precision in ("binary", "ubinary"):
        bits = np.packbits(vectors > 0, axis=-1)
        return bits if precision == "ubinary" else (bits ^ 0x80).view(np.int8)
    if ranges is None:
        ranges = _ranges_of(vectors, precision)
    lowest, highest = np.asarray(
        ranges, np.float32
    )  # in this dtype in sentence-transformers, whatever the vectors have
    step = (highest - lowest) / 255
    steps = np.clip(np.floor((vectors - lowest) / np.where(step == 0, 1, step)), 0, 255)
    steps -= 128 if precision == "int8" else 0
    return np.asarray(steps.astype(PRECISIONS[precision]))


def check_ranges(ranges: ArrayLike, precision: str, dimension: int) -> Floats:
    """Return the ranges of so many components as an array (2, D)."""
    if precision not in SCALED:
        raise EncodeValueError(f"ranges go with precision 'int8' or 'uint8', and it is {shown(precision)}")
    try:
        found = np.asarray(ranges)
        known = found.dtype.kind in "iuf" and found.shape == (2, dimension)
        with np.errstate(over="ignore"):
            found = np.asarray(found, np.float32) if known else found
    except ValueError as error:
        raise EncodeValueError(f"ranges is no array ({error}); expected shape (2, {dimension})") from error
    if not known:
        raise EncodeValueError(
            f"ranges is {found.dtype} {found.shape}; expected numbers of shape (2, {dimension}): the lowest and the "
            "highest value of each component"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        wrong = ~(np.isfinite(found[1] - found[0]) & (found[0] <= found[1]))  # nor may the width be infinite
    if wrong.any():
        column = int(wrong.argmax())
        raise EncodeValueError(
            f"ranges of component {column} is {found[0, column]} to {found[1, column]}; expected the lowest finite "
            "value, and then the highest"
        )
    return found


def _ranges_of(vectors: Floats, precision: str) -> Floats:
    if len(vectors) == 1 or vectors.ndim == 1:
        raise EncodeValueError(
            f"precision={precision!r} needs the range of each component over many vectors, and there is one "
            "sentence; encode all sentences in one call, or pass ranges"
        )
    return (
        np.stack([vectors.min(axis=0), vectors.max(axis=0)])
        if len(vectors)
        else np.zeros((2, vectors.shape[1]))
    )


def similarity(a: ArrayLike, b: ArrayLike, name: str, dimension: int | None = None) -> Floats:
    """Compare every vector of `a` (A, D) with every one of `b` (B, D): (A, B), larger meaning more alike.

    `name` is "cosine", "dot", "euclidean" or "manhattan"; the last two are negative distances. One vector
    (D,) counts as a list of one. Where the `dimension` D is given, vectors of ceil(D / 8) bytes are those of
    the precisions "binary" and "ubinary": they stand for vectors of signs, 1 and -1, and are compared as such.
    """
    sides = _arrays(a, b)
    if _are_packed(sides, dimension):
        x, y = np.atleast_2d(*map(_bits, sides))
        rows = [_of_signs(_COUNTS[row ^ y].sum(axis=-1), name, dimension or 0) for row in x]
        return np.asarray(rows, np.float32).reshape(len(x), len(y))
    u, v = np.atleast_2d(*_floats(sides, name))
    if name == "cosine":
        return _clipped(_unit(u) @ _unit(v).T)
    if name == "dot":
        return u @ v.T
    distances = [-np.linalg.norm(row - v, ord=_ORDER[name], axis=-1) for row in u]
    return np.asarray(distances, u.dtype).reshape(len(u), len(v))


def similarity_pairwise(a: ArrayLike, b: ArrayLike, name: str, dimension: int | None = None) -> Floats:
    """Compare each vector of `a` (A, D) with the one of `b` (A, D) in the same row, as `similarity` does: (A,)."""
    one, other = sides = _arrays(a, b)
    if one.shape != other.shape:
        raise EncodeValueError(
            f"pairs need as many vectors on either side; found shapes {one.shape} and {other.shape}"
        )
    if _are_packed(sides, dimension):
        return _of_signs(_COUNTS[_bits(one) ^ _bits(other)].sum(axis=-1), name, dimension or 0)
    x, y = _floats(sides, name)
    if name == "cosine":
        return _clipped(np.asarray((_unit(x) * _unit(y)).sum(axis=-1)))
    if name == "dot":
        return np.asarray((x * y).sum(axis=-1))
    return np.asarray(-np.linalg.norm(x - y, ord=_ORDER[name], axis=-1))


_ORDER = {"euclidean": 2, "manhattan": 1}


def _unit(x: Floats) -> Floats:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), x.dtype.type(1e-12)))


def _clipped(cosines: Floats) -> Floats:
    """Take back what rounding adds to the cosine of equal vectors: the arc cosine of more than 1 is none."""
    return np.asarray(np.clip(cosines, -1, 1))


# --- Packed bits ----------------------------------------------------------------------------------------------

# How many bits are set in each byte: NumPy counts them itself from 2.0 on.
_COUNTS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, np.newaxis], axis=1).sum(axis=1, dtype=np.int32)


def _are_packed(arrays: tuple[NDArray[Any], ...], dimension: int | None) -> bool:
    """Whether both sides are packed bits of vectors of so many components.

    Raises
    ------
    EncodeValueError
        If one side is and the other is not, or if bytes can be neither packed nor quantised vectors of that width.
    """
    sides = [array for array in arrays if array.dtype.kind in "iu" and array.ndim]
    if dimension is None or not sides:
        return False
    widths = {array.shape[-1] for array in sides}
    packed = -(-dimension // 8)
    are_bytes = all(array.dtype in (np.int8, np.uint8) for array in sides)
    if widths == {packed} and len(sides) == 2 and packed != dimension and are_bytes:
        return True
    if widths != {dimension} and (are_bytes or packed in widths):
        raise EncodeValueError(
            f"found vectors of integers, {' and '.join(map(str, sorted(widths)))} wide, on {len(sides)} of two sides; "
            f"for vectors of {dimension} components expected packed bits, {packed} wide, as int8 or uint8 on both "
            "sides, or quantised numbers; if they were made with truncate_dim, set it on the encoder too"
        )
    return False


def _bits(x: NDArray[Any]) -> NDArray[np.uint8]:
    """Return packed bits as they are for "ubinary": "binary" has 128 taken from each byte."""
    return x if x.dtype == np.uint8 else x.view(np.uint8) ^ np.uint8(0x80)


def _of_signs(different: NDArray[Any], name: str, dimension: int) -> Floats:
    """Compare vectors of signs that differ in so many components, which is their Hamming distance."""
    found = {
        "cosine": 1 - 2 * different / dimension,
        "dot": dimension - 2 * different,
        "euclidean": -2 * np.sqrt(different),
        "manhattan": -2 * different,
    }
    return np.asarray(found[_known(name)], np.float32)


def _known(name: str) -> str:
    if not isinstance(name, str) or name not in SIMILARITIES:
        raise EncodeValueError(f"the similarity {shown(name)} is not known; expected one of {SIMILARITIES}")
    return name


def _arrays(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return both sides as arrays of numbers, whatever numbers and widths."""
    try:
        x, y = np.asarray(a), np.asarray(b)
        if not {x.dtype.kind, y.dtype.kind} <= set("buifO"):
            raise TypeError(f"{x.dtype} and {y.dtype}")
    except (TypeError, ValueError, OverflowError) as error:
        raise _no_numbers(error) from error
    if not {x.ndim, y.ndim} <= {1, 2}:
        raise EncodeValueError(f"found shapes {x.shape} and {y.shape}; expected (A, D) and (B, D)")
    return x, y


def _floats(sides: tuple[NDArray[Any], NDArray[Any]], name: str) -> tuple[Floats, Floats]:
    """Return both sides as float arrays, checked to hold vectors of one width."""
    _known(name)
    wide = np.float64 in [side.dtype for side in sides]
    dtype: np.dtype[np.floating[Any]] = np.dtype(np.float64 if wide else np.float32)
    try:
        x, y = (side.astype(dtype, copy=False) for side in sides)
    except (TypeError, ValueError, OverflowError) as error:
        raise _no_numbers(error) from error
    if x.shape[-1] != y.shape[-1]:
        raise EncodeValueError(f"found shapes {x.shape} and {y.shape}; expected (A, D) and (B, D)")
    return x, y


def _no_numbers(error: Exception) -> EncodeValueError:
    return EncodeValueError(f"not an array of numbers ({error}); expected what encode returned")
