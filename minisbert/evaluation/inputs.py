"""What is compared: the vectors of two sides, which have to go together."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minisbert.engine.arguments import check_dimension
from minisbert.errors import EncodeValueError
from minisbert.search.stored import as_vectors

__all__ = ["read_vectors"]


def read_vectors(truncate_dim: int | None, **embeddings: ArrayLike) -> list[NDArray[Any]]:
    """Return the first components of all vectors of each side.

    Raises
    ------
    EncodeTypeError, EncodeValueError
        If they are no vectors, of different widths, or one has NaN or infinity in it: metrics would pass over that.
    """
    found = {name: as_vectors(name, vectors) for name, vectors in embeddings.items()}
    widths = {name: vectors.shape[1] for name, vectors in found.items() if vectors.size}
    if len({*widths.values()}) > 1:
        raise EncodeValueError(
            f"the widths of vectors are {widths}; expected the same, of one model's vectors"
        )
    for name, vectors in found.items():
        with np.errstate(invalid="ignore"):
            is_finite = np.isfinite(vectors.sum(axis=1, dtype=np.float64))
        if not is_finite.all():
            row = int(np.argmin(is_finite))
            raise EncodeValueError(
                f"{name}: vector {row} has NaN or infinity in it; leave it out, with its text"
            )
    width = check_dimension(truncate_dim, max(widths.values(), default=0))
    return [vectors[:, :width] for vectors in found.values()]
