"""``minisbert search`` and ``rerank``: the texts of a file that are closest to a query."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

import minisbert
from minisbert.cli import report
from minisbert.cli.fit import fit
from minisbert.cli.models import Encode, encode_chunks, encode_source, load_model, open_input, read_through
from minisbert.cli.report import Ranked, print_json, print_lines, tell
from minisbert.cli.stored import Block, Corpus, block_of, open_corpus
from minisbert.cli.textio import Record
from minisbert.cli.where import no_column
from minisbert.encoder import SentenceEncoder

__all__ = ["blocks_of", "rerank", "search"]

RERANKED = 100  # texts that a cross-encoder reads, if no more are to be shown


def search(arguments: argparse.Namespace) -> None:
    """Print the texts of a file that are most similar to a query."""
    k = max(arguments.k, RERANKED) if arguments.rerank else arguments.k
    options = {"batch_size": arguments.batch_size, "truncation": arguments.truncation}
    best: Ranked = []
    with open_corpus(arguments) as corpus:
        if corpus.texts is not None:
            read_through(corpus.texts, arguments.quiet)
        encoder = load_model(arguments)
        fitting = {} if corpus.texts else fit(encoder, corpus)
        query = _encode_query(encoder, arguments.query, options | fitting)
        run = partial(encoder.encode_document, **options)
        for block in blocks_of(corpus, encoder, run, arguments.quiet):
            best = _merge(best, _closest(encoder.similarity(query, block.vectors)[0], block, best, k), k)
    if arguments.rerank:
        best = _rerank(arguments, best)
    show = corpus.columns if arguments.show is None else arguments.show
    _print_ranked(best, arguments, corpus.name, show)


def rerank(arguments: argparse.Namespace) -> None:
    """Print the texts of a file that a cross-encoder finds most relevant to a query."""
    best: Ranked = []
    with open_input(arguments) as source:
        read_through(source, arguments.quiet)
        model = load_model(arguments, minisbert.load_cross_encoder)
        run = partial(
            model.rank, arguments.query, batch_size=arguments.batch_size, truncation=arguments.truncation
        )
        for _, records, results in encode_source(model, run, source, arguments.quiet):
            found = ((result["score"], records[result["corpus_id"]]) for result in results)
            best = _merge(best, found, arguments.k)
    _print_ranked(best, arguments, source.name, arguments.show or ())


def blocks_of(corpus: Corpus, encoder: SentenceEncoder, run: Encode, quiet: bool) -> Iterator[Block]:
    """Read the vectors that are stored, or else make them of the texts."""
    if corpus.texts is None:
        yield from corpus.blocks()
        return
    for _, records, vectors in encode_source(encoder, run, corpus.texts, quiet):
        yield block_of(records, vectors)


def _encode_query(encoder: SentenceEncoder, query: str, options: dict[str, Any]) -> Any:
    run = partial(encoder.encode_query, **options)
    [(*_, vectors)] = encode_chunks(encoder, run, [[Record(1, query)]], lambda line: "the query")
    return vectors


def _closest(scores: Any, block: Block, best: Ranked, k: int) -> Iterator[tuple[float, Record]]:
    """Yield what of a block can be among the best k, best first; of equal scores, the first in the file."""
    order = np.argsort(-scores, kind="stable")[:k]
    for index, score in zip(order, scores[order].tolist(), strict=True):
        if len(best) < k or score > best[-1][0]:
            yield score, block.record(index)


def _merge(best: Ranked, found: Iterable[tuple[float, Record]], k: int) -> Ranked:
    """Keep the best k of what was found before and now, leaving out blank texts."""
    texts = [(score, record) for score, record in found if record.text and record.text.strip()]
    # Sorting is stable: of equal scores, the one that comes first in the file stays first.
    return sorted([*best, *texts], key=lambda pair: -pair[0])[:k]


def _rerank(arguments: argparse.Namespace, best: Ranked) -> Ranked:
    """Sort what was found once more, by a cross-encoder; what search said becomes the previous rank and score."""
    model = load_model(arguments, minisbert.load_cross_encoder, arguments.rerank)
    records = [
        record._replace(fields={**record.fields, "rank": rank, "score": score})
        for rank, (score, record) in enumerate(best, 1)
    ]
    run = partial(
        model.rank, arguments.query, batch_size=arguments.batch_size, truncation=arguments.truncation
    )
    [(*_, results)] = encode_chunks(model, run, [records], lambda line: f"line {line}")
    return _merge([], ((result["score"], records[result["corpus_id"]]) for result in results), arguments.k)


def _print_ranked(best: Ranked, arguments: argparse.Namespace, source: str, show: Iterable[str]) -> None:
    if not best:
        where = "".join(f", where {name} is {value!r}" for name, value in arguments.where)
        tell(f"warning: {source}: there is no text to search{where}")
    elif arguments.json:
        print_json(report.ranked_objects(best))
    else:
        there = dict.fromkeys(name for _, record in best for name in record.fields)
        for name in show:
            if name not in there:
                raise no_column(source, name, there)
        print_lines(report.ranked_table(best, show))
