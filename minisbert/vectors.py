"""What is done to finished sentence vectors: quantise them, compare them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minisbert.config import SIMILARITIES
from minisbert.errors import EncodeValueError, shown
from minisbert.kernels import Floats

__all__ = ["PRECISIONS", "output_width", "quantize", "similarity", "similarity_pairwise"]

PRECISIONS = {
    "float32": np.float32,
    "int8": np.int8,
    "uint8": np.uint8,
    "binary": np.int8,
    "ubinary": np.uint8,
}


def output_width(precision: str, dimension: int) -> int:
    """Return how many elements a vector of that many components has: binary ones hold eight in a byte."""
    return -(-dimension // 8) if precision in ("binary", "ubinary") else dimension


def quantize(vectors: Floats, precision: str) -> NDArray[Any]:
    """Store vectors (S, D) in fewer bits, as sentence-transformers does.

    Parameters
    ----------
    vectors : ndarray of float, shape (S, D)
        Sentence vectors.
    precision : {"float32", "int8", "uint8", "binary", "ubinary"}
        ``int8`` and ``uint8`` cut the range of each component over these vectors into 256 equal steps;
        ``binary`` and ``ubinary`` keep the sign of each component, eight to a byte.

    Returns
    -------
    ndarray, shape (S, D) or (S, ceil(D / 8))
        The vectors unchanged for ``"float32"``.

    Raises
    ------
    EncodeValueError
        If ``int8`` or ``uint8`` is asked of a single vector, whose range says nothing.
    """
    if precision == "float32":
        return vectors
    if precision in ("binary", "ubinary"):
        bits = np.packbits(vectors > 0, axis=-1)
        return bits if precision == "ubinary" else (bits ^ 0x80).view(np.int8)
    if len(vectors) == 1:
        raise EncodeValueError(
            f"precision={precision!r} needs the range of each component over many vectors, and there is one "
            "sentence; encode all sentences in one call"
        )
    if len(vectors) == 0:
        return np.zeros(vectors.shape, PRECISIONS[precision])
    lowest = vectors.min(axis=0)
    step = (vectors.max(axis=0) - lowest) / 255
    steps = np.clip(np.floor((vectors - lowest) / np.where(step == 0, 1, step)), 0, 255)
    steps -= 128 if precision == "int8" else 0
    return np.asarray(steps.astype(PRECISIONS[precision]))


def similarity(a: ArrayLike, b: ArrayLike, name: str) -> Floats:
    """Compare every vector of `a` (A, D) with every one of `b` (B, D): (A, B), larger meaning more alike.

    `name` is "cosine", "dot", "euclidean" or "manhattan"; the last two are negative distances. One vector
    (D,) counts as a list of one.
    """
    x, y = np.atleast_2d(*_floats(a, b, name))
    if name == "cosine":
        return _unit(x) @ _unit(y).T
    if name == "dot":
        return x @ y.T
    rows = [-np.linalg.norm(row - y, ord=_ORDER[name], axis=-1) for row in x]
    return np.asarray(rows, x.dtype).reshape(len(x), len(y))


def similarity_pairwise(a: ArrayLike, b: ArrayLike, name: str) -> Floats:
    """Compare each vector of `a` (A, D) with the one of `b` (A, D) in the same row: (A,)."""
    x, y = _floats(a, b, name)
    if x.shape != y.shape:
        raise EncodeValueError(
            f"pairs need as many vectors on either side; found shapes {x.shape} and {y.shape}"
        )
    if name == "cosine":
        x, y = _unit(x), _unit(y)
    if name in ("cosine", "dot"):
        return np.asarray((x * y).sum(axis=-1))
    return np.asarray(-np.linalg.norm(x - y, ord=_ORDER[name], axis=-1))


_ORDER = {"euclidean": 2, "manhattan": 1}


def _unit(x: Floats) -> Floats:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), x.dtype.type(1e-12)))


def _floats(a: ArrayLike, b: ArrayLike, name: str) -> tuple[Floats, Floats]:
    """Return both sides as float arrays, checked to hold vectors of one width."""
    if not isinstance(name, str) or name not in SIMILARITIES:
        raise EncodeValueError(f"the similarity {shown(name)} is not known; expected one of {SIMILARITIES}")
    try:
        x, y = np.asarray(a), np.asarray(b)
        if not {x.dtype.kind, y.dtype.kind} <= set("buifO"):
            raise TypeError(f"{x.dtype} and {y.dtype}")
        dtype = np.float64 if np.float64 in (x.dtype, y.dtype) else np.float32
        x, y = x.astype(dtype, copy=False), y.astype(dtype, copy=False)
    except (TypeError, ValueError, OverflowError) as error:
        raise EncodeValueError(f"not an array of numbers ({error}); expected what encode returned") from error
    if not {x.ndim, y.ndim} <= {1, 2} or x.shape[-1] != y.shape[-1]:
        raise EncodeValueError(f"found shapes {x.shape} and {y.shape}; expected (A, D) and (B, D)")
    return x, y
