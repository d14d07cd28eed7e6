"""``minisbert evaluate``: metrics of models, dtypes, precisions and truncated vectors, side by side.

Each text is encoded once for a model and dtype. Its vectors are cut and stored in all the ways that are asked for.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import product
from typing import Any

import minisbert
from minisbert.arrays import Floats
from minisbert.checkpoint.config import read_config
from minisbert.checkpoint.hub import resolve
from minisbert.cli import plots
from minisbert.cli.judgements import Collection, Pairs, read_collection, read_pairs
from minisbert.cli.report import print_json, print_lines, progress, tell
from minisbert.engine.arguments import check_dimension
from minisbert.errors import TruncationWarning
from minisbert.evaluation import retrieval_metrics, sts_metrics
from minisbert.evaluation.retrieval import judged_queries
from minisbert.vectors import output_width

__all__ = ["evaluate"]

FACTS = ("similarity", "precision", "dim", "bytes", "dtype", "texts", "model")
Result = dict[str, Any]  # of one way: what it is, what it costs, and "metrics"


def evaluate(arguments: argparse.Namespace) -> None:
    """Print the metrics of all ways that are asked for, one below the other."""
    if arguments.plot:
        plots.check_plot(arguments.plot)
    task = {"sts": _sts, "retrieval": _retrieval}[arguments.task]
    results = []
    for result in task(arguments):
        results.append(result)
        if arguments.json:  # at once: the next model may take long
            print_json([_without_nan(result)])
    if any(math.isnan(value) for result in results for value in result["metrics"].values()):
        tell("warning: a correlation is undefined where all scores, or all similarities, are equal")
    if not arguments.json:
        print_lines(_table(_rows(results) if arguments.task == "sts" else _ranking_rows(results)))
    if arguments.plot:
        plots.plot(arguments.plot, results)


def _sts(arguments: argparse.Namespace) -> Iterator[Result]:
    pairs: Pairs = read_pairs(arguments.input, arguments.columns, arguments.encoding)
    for encoder, about in _encoders(arguments):
        texts = list(
            dict.fromkeys([*pairs.sentences1, *pairs.sentences2])
        )  # each once: some are in many pairs
        vectors, seconds = _encode(encoder, encoder.encode, texts, arguments)
        place = {text: row for row, text in enumerate(texts)}
        first, second = (
            vectors[[place[text] for text in side]] for side in (pairs.sentences1, pairs.sentences2)
        )
        names = arguments.similarity or [encoder.similarity_fn_name]
        for precision, dimension in _ways(encoder, arguments):
            start = time.perf_counter()
            metrics = sts_metrics(first, second, pairs.scores, names, precision, dimension)
            yield (
                about
                | _cost(vectors, precision, dimension, len(texts), seconds, start)
                | {"metrics": metrics}
            )


def _retrieval(arguments: argparse.Namespace) -> Iterator[Result]:
    found: Collection = read_collection(
        arguments.queries, arguments.corpus, arguments.qrels, arguments.encoding
    )
    asked, documents = judged_queries(found.queries, found.relevant), sorted(found.corpus)
    for encoder, about in _encoders(arguments):
        texts = [found.queries[name] for name in asked]
        queries, _ = _encode(encoder, encoder.encode_query, texts, arguments)
        texts = [found.corpus[name] for name in documents]
        corpus, seconds = _encode(encoder, encoder.encode_document, texts, arguments)
        for precision, dimension in _ways(encoder, arguments):
            start = time.perf_counter()
            metrics = retrieval_metrics(
                queries,
                corpus,
                asked,
                documents,
                found.relevant,
                score_function=encoder.similarity_fn_name,
                precision=precision or "float32",
                truncate_dim=dimension,
            )
            yield (
                about | _cost(corpus, precision, dimension, len(texts), seconds, start) | {"metrics": metrics}
            )


# --- The ways --------------------------------------------------------------------------------------------------


def _encoders(arguments: argparse.Namespace) -> Iterator[tuple[minisbert.SentenceEncoder, Result]]:
    """Load each model in each dtype; one that is refused is told before anything is computed."""
    for name in arguments.model:
        read_config(resolve(name))
    for name, dtype in product(arguments.model, arguments.dtype):
        encoder = minisbert.load(name, backend=arguments.backend, dtype=dtype, num_threads=arguments.threads)
        if arguments.max_seq_length is not None:
            encoder.max_seq_length = arguments.max_seq_length
        yield encoder, {"model": name, "dtype": encoder.dtype}


def _ways(
    encoder: minisbert.SentenceEncoder, arguments: argparse.Namespace
) -> Iterator[tuple[str | None, int]]:
    """Yield each precision with each number of components."""
    most = encoder.get_embedding_dimension()
    dimensions = [check_dimension(number, most) for number in arguments.truncate_dim or [None]]
    yield from product(arguments.precision or [None], dimensions)


def _encode(
    encoder: minisbert.SentenceEncoder,
    encode: Callable[..., Any],
    texts: list[str],
    arguments: argparse.Namespace,
) -> tuple[Floats, float]:
    """Encode texts, and say how many were cut; return vectors, and the seconds that it took."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with progress("Encoding", len(texts), arguments.quiet) as update:
            start = time.perf_counter()
            vectors = encode(texts, batch_size=arguments.batch_size, show_progress_bar=update)
            seconds = time.perf_counter() - start
    for warning in caught:
        message = warning.message
        if isinstance(message, TruncationWarning):
            message = (
                f"{len(message.rows):,} of {len(texts):,} texts were cut to {encoder.max_seq_length:,} tokens"
            )
        tell(f"warning: {message}")
    return vectors, seconds


def _cost(
    vectors: Floats, precision: str | None, dimension: int, texts: int, seconds: float, start: float
) -> Result:
    """Say what a way is, and what it takes: bytes of a vector, and the time until now."""
    stored = precision or "float32"
    size = vectors.itemsize if stored == "float32" else 1
    return {
        "precision": stored,
        "dimension": dimension,
        "bytes": output_width(stored, dimension) * size,
        "texts": texts,
        "encode_seconds": seconds,
        "score_seconds": time.perf_counter() - start,
    }


# --- What is printed -------------------------------------------------------------------------------------------


def _without_nan(result: Result) -> Result:
    """Return what JSON can say: it has no NaN."""
    metrics = {name: None if math.isnan(value) else value for name, value in result["metrics"].items()}
    return result | {"metrics": metrics}


def _rows(results: list[Result]) -> Iterator[dict[str, str]]:
    """Yield a row for each way and each similarity."""
    for result in results:
        metrics = result["metrics"]
        for name in (key.removeprefix("spearman_") for key in metrics if key.startswith("spearman_")):
            values = {metric: _number(metrics[f"{metric}_{name}"]) for metric in ("spearman", "pearson")}
            yield values | {"similarity": name} | _facts(result)


def _ranking_rows(results: list[Result]) -> Iterator[dict[str, str]]:
    """Yield a row for each way, with the metrics that say most."""
    for result in results:
        shown = ("ndcg@10", "mrr@10", "map@100", "recall@10", "accuracy@1")
        yield {name: _number(result["metrics"][name]) for name in shown} | _facts(result)


def _number(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.4f}"


def _facts(result: Result) -> dict[str, str]:
    seconds = {f"{what} s": f"{result[f'{what}_seconds']:.2f}" for what in ("encode", "score")}
    stored = {name: str(result[key]) for name, key in (("precision", "precision"), ("dim", "dimension"))}
    others = {name: str(result[name]) for name in ("bytes", "dtype", "texts")}
    return stored | others | seconds | {"model": result["model"]}


def _table(found: Iterator[dict[str, str]]) -> Iterator[str]:
    """Yield lines: first what is the same in all rows, then the columns that differ, text to the left."""
    rows = list(found)
    same = {name for name in rows[0] if name in FACTS and len({row[name] for row in rows}) == 1}
    for name in (name for name in rows[0] if name in same):
        yield f"{name:<11}{rows[0][name]}"
    yield ""
    columns = [name for name in rows[0] if name not in same]
    cells = [columns, *([row[name] for name in columns] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    numbers = [all(_is_number(row[name]) for row in rows) for name in columns]
    for row in cells:
        aligned = (f"{c:>{w}}" if n else f"{c:<{w}}" for c, w, n in zip(row, widths, numbers, strict=True))
        yield "  ".join(aligned).rstrip()


def _is_number(text: str) -> bool:
    with suppress(ValueError):
        return math.isfinite(float(text))
    return text == "undefined"
