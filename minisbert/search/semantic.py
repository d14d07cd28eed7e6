"""`semantic_search`: the vectors of a corpus that are nearest to queries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from minisbert.arrays import Floats, Ints
from minisbert.engine.arguments import check_flag
from minisbert.errors import EncodeValueError
from minisbert.search.nearest import (
    BLOCK,
    ROWS,
    ScoreFunction,
    at_least_1,
    at_most,
    check_score_function,
    nearest,
)
from minisbert.search.stored import PACKED, Stored, as_vectors, read_stored
from minisbert.vectors import SCALED

__all__ = ["semantic_search"]

Hits = list[dict[str, Any]]


def semantic_search(
    query_embeddings: ArrayLike,
    corpus_embeddings: ArrayLike,
    query_chunk_size: int | None = None,
    corpus_chunk_size: int | None = None,
    top_k: int = 10,
    score_function: str | ScoreFunction = "cosine",
    *,
    corpus_precision: str = "float32",
    ranges: ArrayLike | None = None,
    rescore: bool = True,
    rescore_multiplier: int = 2,
    rescore_embeddings: ArrayLike | None = None,
) -> list[Hits]:
    """Find the vectors of a corpus that are nearest to each query: all are compared, none is missed.

    The corpus is read block by block, so it can be a memory map; besides it 200 MB are enough, however large it is.

    Parameters
    ----------
    query_embeddings : array_like, shape (Q, D) or (D,)
        Vectors of queries; or what they are stored as, if it is in `corpus_precision` too.
    corpus_embeddings : array_like, shape (N, D) or (N, ceil(D / 8))
        Vectors of the corpus, as they are stored.
    query_chunk_size, corpus_chunk_size : int, optional
        The most queries, and vectors of the corpus, that are compared at a time: fewer take less memory.
    top_k : int
        How many vectors to find for each query.
    score_function : {"cosine", "dot", "euclidean", "manhattan"} or callable
        What compares vectors, larger meaning more alike: a name, or a function of arrays (A, D) and (B, D) that
        returns scores (A, B), such as `SentenceEncoder.similarity`.
    corpus_precision : {"float32", "int8", "uint8", "binary", "ubinary"}
        What `encode` was told as ``precision``. Integers are compared as the numbers that they stand for, and bits as
        signs. "float32" stands for any array of numbers.
    ranges : array_like, shape (2, D), optional
        Those that int8 and uint8 were quantised with.
    rescore : bool
        For packed bits, and queries that are none: find ``top_k * rescore_multiplier`` by the Hamming distance, and
        then the best of these by the queries as they are, as sentence-transformers does.
    rescore_multiplier : int
        How many times `top_k` are rescored.
    rescore_embeddings : array_like, shape (N, D), optional
        Better vectors of the same corpus to rescore with, whatever the precision: floats, or int8 or uint8 of
        `ranges`. Only those that are rescored are read.

    Returns
    -------
    list of list of dict
        For each query ``{"corpus_id": int, "score": float}``, best first; of equal scores the lowest id is first. A
        vector with NaN in it, as that of a line that could not be read, is never found.

    Raises
    ------
    EncodeTypeError, EncodeValueError
        If an argument is impossible, or widths do not fit together.

    Examples
    --------
    >>> corpus = encoder.encode_document(texts, precision="ubinary")
    >>> minisbert.semantic_search(encoder.encode_query(["a question"]), corpus, corpus_precision="ubinary")
    """
    check_score_function(score_function)
    k, times = at_least_1("top_k", top_k), at_least_1("rescore_multiplier", rescore_multiplier)
    rows = at_most(ROWS, "query_chunk_size", query_chunk_size)
    block = at_most(BLOCK, "corpus_chunk_size", corpus_chunk_size)
    queries = _read_queries(query_embeddings, corpus_precision, ranges)
    corpus = _read_corpus(corpus_embeddings, corpus_precision, ranges, rescore_embeddings, queries)
    numbers = queries.floats()
    is_packed = corpus_precision in PACKED
    compared = np.where(numbers > 0, 1, -1).astype(numbers.dtype) if is_packed else numbers
    finer = corpus if is_packed and queries.precision == "float32" else None
    if rescore_embeddings is not None:
        finer = _read_finer(rescore_embeddings, ranges, corpus)
    if not len(corpus.codes):
        return [[] for _ in numbers]
    if finer is None or not check_flag("rescore", rescore):
        found = nearest(compared, corpus, k, score_function, rows, block)
        return [hits for _, scores, ids in found for hits in _hits(scores, ids, score_function)]
    found = nearest(compared, corpus, k * times, score_function, rows, block)
    again = (_rescored(numbers[first:], ids, finer, score_function) for first, _, ids in found)
    return [hits[:k] for few in again for hits in few]


def _read_queries(embeddings: ArrayLike, precision: str, ranges: ArrayLike | None) -> Stored:
    """Check queries: integers are in the precision of the corpus, and floats are what they are."""
    queries = as_vectors("query_embeddings", embeddings)
    is_stored = precision != "float32" and queries.dtype.kind in "iu"
    return read_stored(
        "query_embeddings", queries, *((precision, ranges) if is_stored else ("float32", None))
    )


def _read_corpus(
    embeddings: ArrayLike, precision: str, ranges: ArrayLike | None, finer: ArrayLike | None, queries: Stored
) -> Stored:
    """Check the corpus; ranges can be those of the vectors to rescore with alone."""
    own = None if finer is not None and precision not in SCALED else ranges
    return read_stored("corpus_embeddings", embeddings, precision, own, queries.dimension)


def _read_finer(embeddings: ArrayLike, ranges: ArrayLike | None, corpus: Stored) -> Stored:
    """Check the vectors to rescore with."""
    finer = as_vectors("rescore_embeddings", embeddings)
    if len(finer) != len(corpus.codes):
        raise EncodeValueError(
            f"rescore_embeddings has {len(finer):,} vectors, and corpus_embeddings {len(corpus.codes):,}; expected "
            "one for each"
        )
    precision = finer.dtype.name if finer.dtype.name in SCALED else "float32"
    own = ranges if precision in SCALED else None
    return read_stored("rescore_embeddings", finer, precision, own, corpus.dimension)


def _hits(scores: Floats, ids: Ints, score_function: str | ScoreFunction) -> Iterator[Hits]:
    """Yield what is returned for each query."""
    if score_function == "cosine":  # rounding makes more than 1 of it
        scores = np.clip(scores, -1, 1)
    for row, numbers in zip(scores.tolist(), ids.tolist(), strict=True):
        yield [{"corpus_id": i, "score": score} for score, i in zip(row, numbers, strict=True) if i >= 0]


def _rescored(
    queries: Floats, ids: Ints, finer: Stored, score_function: str | ScoreFunction
) -> Iterator[Hits]:
    """Compare each query (Q, D) with the vectors of its row of ids (Q, k), and yield what is found, best first."""
    for query, candidates in zip(queries, ids, strict=False):
        rows = np.sort(candidates[candidates >= 0])  # in their order a memory map is read fastest
        few = Stored(finer.floats(rows), "float32", finer.dimension)
        for _, scores, places in nearest(query[np.newaxis], few, len(rows), score_function):
            yield from _hits(scores, np.where(places < 0, -1, rows[places]), score_function)
