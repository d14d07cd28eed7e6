"""Retrieval: how far up among all documents those are that are relevant to a query."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minisbert.engine.arguments import check_choice
from minisbert.errors import EncodeTypeError, EncodeValueError
from minisbert.evaluation import metrics
from minisbert.evaluation.inputs import read_vectors
from minisbert.search import semantic_search
from minisbert.search.nearest import ScoreFunction, at_least_1
from minisbert.vectors import PRECISIONS, SCALED, quantize

if TYPE_CHECKING:
    from minisbert.encoder import SentenceEncoder

__all__ = ["evaluate_retrieval", "judged_queries", "retrieval_metrics"]

Relevant = Mapping[str, Set[str]]  # the ids of documents by the ids of queries


def evaluate_retrieval(
    encoder: SentenceEncoder,
    queries: Mapping[str, str],
    corpus: Mapping[str, str],
    relevant_docs: Relevant,
    *,
    precision: str = "float32",
    truncate_dim: int | None = None,
    batch_size: int = 32,
    show_progress_bar: bool | Callable[[int], object] | None = False,
    **at_k: Sequence[int],
) -> dict[str, float]:
    """Rank all documents for each query, as ``InformationRetrievalEvaluator`` does, and say how good that is.

    Parameters
    ----------
    encoder : SentenceEncoder
        What encodes queries and documents, with its prompts for them.
    queries, corpus : mapping of str to str
        Texts by their ids.
    relevant_docs : mapping of str to set of str
        For the id of a query, the ids of the documents that are relevant. Queries without any are left out; documents
        that are not in the corpus count as not found.
    precision, truncate_dim, at_k
        As in `retrieval_metrics`.
    batch_size, show_progress_bar
        As in `SentenceEncoder.encode`.

    Returns
    -------
    dict of str to float
        ``"ndcg@10"`` and so on.
    """
    asked = judged_queries(queries, relevant_docs)
    documents = sorted(corpus)
    options: dict[str, Any] = {"batch_size": batch_size, "show_progress_bar": show_progress_bar}
    return retrieval_metrics(
        encoder.encode_query([queries[name] for name in asked], **options),
        encoder.encode_document([corpus[name] for name in documents], **options),
        asked,
        documents,
        relevant_docs,
        score_function=encoder.similarity_fn_name,
        precision=precision,
        truncate_dim=truncate_dim,
        **at_k,
    )


def judged_queries(queries: Mapping[str, str], relevant_docs: Relevant) -> list[str]:
    """Return the ids of queries to which something is relevant.

    Raises
    ------
    EncodeTypeError
        If a string is in the place of a set of them: its characters would be taken for ids.
    EncodeValueError
        If there are none.
    """
    for name, documents in relevant_docs.items():
        if isinstance(documents, str):
            raise EncodeTypeError(
                f"relevant_docs of {name!r} is {documents!r}; expected a set: {{{documents!r}}}"
            )
    if asked := [name for name in queries if relevant_docs.get(name)]:
        return asked
    raise EncodeValueError(
        f"none of the {len(queries):,} queries has a relevant document, though {len(relevant_docs):,} ids of queries "
        "have; expected the same ids in both"
    )


def retrieval_metrics(
    query_embeddings: ArrayLike,
    corpus_embeddings: ArrayLike,
    query_ids: Sequence[str],
    corpus_ids: Sequence[str],
    relevant_docs: Relevant,
    *,
    score_function: str | ScoreFunction = "cosine",
    precision: str = "float32",
    truncate_dim: int | None = None,
    accuracy_at_k: Sequence[int] = (1, 3, 5, 10),
    precision_recall_at_k: Sequence[int] = (1, 3, 5, 10),
    mrr_at_k: Sequence[int] = (10,),
    ndcg_at_k: Sequence[int] = (10,),
    map_at_k: Sequence[int] = (100,),
) -> dict[str, float]:
    """Rank all documents for each query by their vectors, and say how good that is.

    Parameters
    ----------
    query_embeddings, corpus_embeddings : array_like of float, shapes (Q, D) and (N, D)
        Vectors of queries, and of documents.
    query_ids, corpus_ids : sequence of str
        Whose they are; those of the corpus in ascending order, as of equal scores the lowest id counts as the first.
    relevant_docs : mapping of str to set of str
        For each of these queries the ids of the documents that are relevant, at least one.
    score_function : str or callable
        As in `semantic_search`.
    precision : {"float32", "int8", "uint8", "binary", "ubinary"}
        What documents are stored in: int8 and uint8 by the ranges of the corpus. Queries stay as they are, and what is
        found by bits is rescored by them.
    truncate_dim : int, optional
        Keep the first components only.
    accuracy_at_k, precision_recall_at_k, mrr_at_k, ndcg_at_k, map_at_k : sequence of int
        How many of the documents that are ranked first each metric looks at.

    Returns
    -------
    dict of str to float
        ``"accuracy@1"``, ``"precision@1"``, ``"recall@1"``, ..., ``"mrr@10"``, ``"ndcg@10"`` and ``"map@100"``: means
        over the queries.

    Raises
    ------
    EncodeTypeError, EncodeValueError
        If an argument is impossible.
    """
    at_k = accuracy_at_k, precision_recall_at_k, mrr_at_k, ndcg_at_k, map_at_k
    most = max((at_least_1("a metric's k", k) for k in chain(*at_k)), default=1)
    questions, documents = read_vectors(
        truncate_dim, query_embeddings=query_embeddings, corpus_embeddings=corpus_embeddings
    )
    _check_ids(corpus_ids, query_ids, documents, questions)
    relevance = np.zeros((len(query_ids), most), bool)
    ranked = _search(questions, documents, most, score_function, precision)
    for row, query, hits in zip(relevance, query_ids, ranked, strict=True):
        row[: len(hits)] = [corpus_ids[hit["corpus_id"]] in relevant_docs[query] for hit in hits]
    relevant = np.array([len(relevant_docs[query]) for query in query_ids])
    wanted: list[tuple[str, Sequence[int], Callable[..., float]]] = [
        ("accuracy", accuracy_at_k, metrics.accuracy_at),
        ("precision", precision_recall_at_k, metrics.precision_at),
        ("recall", precision_recall_at_k, metrics.recall_at),
        ("ndcg", ndcg_at_k, metrics.ndcg_at),
        ("mrr", mrr_at_k, metrics.reciprocal_rank_at),
        ("map", map_at_k, metrics.average_precision_at),
    ]
    return {f"{name}@{k}": metric(k, relevance, relevant) for name, ks, metric in wanted for k in ks}


def _check_ids(corpus_ids: Sequence[str], query_ids: Sequence[str], *embeddings: NDArray[Any]) -> None:
    found = [len(corpus_ids), len(query_ids)], [len(vectors) for vectors in embeddings]
    if found[0] != found[1]:
        raise EncodeValueError(
            f"there are {found[0]} ids of documents and queries, and {found[1]} vectors of them"
        )
    if any(before >= after for before, after in pairwise(corpus_ids)):
        raise EncodeValueError(
            "corpus_ids are not in ascending order, or one is there twice; sort them with the vectors"
        )


def _search(
    queries: NDArray[Any],
    documents: NDArray[Any],
    most: int,
    score_function: str | ScoreFunction,
    precision: str,
) -> list[list[dict[str, Any]]]:
    """Find the best documents, as they are stored in a precision."""
    check_choice("precision", precision, tuple(PRECISIONS))
    ranges = None
    if precision in SCALED:
        ranges = np.stack([documents.min(axis=0), documents.max(axis=0)])
    stored = quantize(documents, precision, ranges)
    return semantic_search(
        queries, stored, top_k=most, score_function=score_function, corpus_precision=precision, ranges=ranges
    )
