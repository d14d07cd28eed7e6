"""``minisbert similar``: pairs of texts of a file that are nearly the same.

All vectors are compared with one another, block by block, from a temporary file: they can be more than memory has room
for. Of the pairs that are found, the best ones are kept.
"""

from __future__ import annotations

import argparse
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np

from minisbert.arrays import Floats, Ints
from minisbert.cli import report
from minisbert.cli.models import load_model, read_through
from minisbert.cli.report import print_json, print_lines, tell
from minisbert.cli.search import blocks_of
from minisbert.cli.stored import Block, Corpus, open_corpus, without_vector
from minisbert.cli.streams import TextFileError, naming
from minisbert.cli.textio import Record
from minisbert.cli.writers import Vectors
from minisbert.search.nearest import ROWS, score_blocks
from minisbert.search.stored import Stored

__all__ = ["similar"]


def similar(arguments: argparse.Namespace) -> None:
    """Print the pairs of texts of a file whose vectors have at least that cosine."""
    with open_corpus(arguments) as corpus, _gathered(_blocks(corpus, arguments)) as (lines, vectors):
        best = _BestPairs(arguments.max_pairs)
        with report.progress("Comparing", len(lines), arguments.quiet) as update:
            for pairs in _pairs(_stored(corpus, vectors), arguments.threshold, update):
                best.add(*pairs)
        scores, first, second = best.result()
        records = _records(corpus, {*lines[first].tolist(), *lines[second].tolist()})
        found = [
            (score, records[one], records[other])
            for score, one, other in zip(scores, lines[first].tolist(), lines[second].tolist(), strict=True)
        ]
    if best.count > len(found):
        tell(
            f"warning: {corpus.name}: there are {best.count:,} pairs; --max-pairs leaves the best {len(found):,}"
        )
    if not found:
        tell(f"{corpus.name}: no two of {len(lines):,} texts are as similar as {arguments.threshold}")
    elif arguments.json:
        print_json(report.pair_objects(found))
    else:
        print_lines(report.pair_table(found))


def _blocks(corpus: Corpus, arguments: argparse.Namespace) -> Iterator[Block]:
    """Read the vectors that are stored, which takes no model, or make them of the texts."""
    if corpus.texts is None:
        if corpus.settings is None and corpus.empty.dtype.kind != "f":
            what = f"its vectors are {corpus.empty.dtype}, and it doesn't say whether they are packed bits"
            raise TextFileError(f"{corpus.name}: {what}; encode the texts to Parquet, or in float32")
        return corpus.blocks()
    if corpus.texts.start is None:
        twice = "is read twice, for the vectors and for what to show"
        raise TextFileError(f"{corpus.name}: {twice}; name a file")
    read_through(corpus.texts, arguments.quiet)
    encoder = load_model(arguments)
    run = partial(encoder.encode, batch_size=arguments.batch_size, truncation=arguments.truncation)
    return blocks_of(corpus, encoder, run, arguments.quiet)


@contextmanager
def _gathered(blocks: Iterable[Block]) -> Iterator[tuple[Ints, Vectors]]:
    """Yield the lines of all blocks (N,), and their vectors (N, D), which are in a file and not in memory."""
    lines, shape, dtype = array("q"), (0, 0), np.dtype(np.float32)
    with tempfile.TemporaryFile(prefix="minisbert-") as file:
        for block in blocks:
            lines.extend(block.lines)
            shape, dtype = (len(lines), block.vectors.shape[1]), block.vectors.dtype
            with naming(f"temporary file in {tempfile.gettempdir()}"):
                file.write(block.vectors.tobytes())
                file.flush()
        vectors = np.memmap(file, dtype, "r", shape=shape) if lines else np.empty(shape, dtype)
        yield np.array(lines), vectors


def _stored(corpus: Corpus, vectors: Vectors) -> Stored:
    """Say what the numbers stand for, which for packed bits only the file can tell."""
    if corpus.settings is None:
        return Stored(vectors, "float32", vectors.shape[1])
    return Stored(vectors, corpus.settings.precision, corpus.settings.truncate_dim)


def _pairs(
    stored: Stored, threshold: float, update: Callable[[int], object]
) -> Iterator[tuple[Floats, Ints, Ints]]:
    """Yield the cosines (P,) that are high enough, and the two rows of each (P,), the lower one first."""
    for start in range(0, len(stored.codes), ROWS):
        queries = stored.floats(slice(start, start + ROWS))
        rest = stored._replace(codes=stored.codes[start:])
        for first, scores in score_blocks(queries, rest, "cosine"):
            is_pair = scores >= threshold
            if first < len(queries):  # where they meet themselves: each pair once
                is_pair = np.triu(is_pair, 1 - first)
            one, other = np.nonzero(is_pair)
            yield scores[one, other], start + one, start + first + other
        update(len(queries))


class _BestPairs:
    """The best of all pairs so far, and how many there were."""

    def __init__(self, most: int) -> None:
        self.count = 0
        self._most = most
        self._kept: list[tuple[Floats, Ints, Ints]] = []

    def add(self, scores: Floats, first: Ints, second: Ints) -> None:
        """Take some more."""
        self.count += len(scores)
        self._kept.append((scores, first, second))
        if sum(len(scores) for scores, *_ in self._kept) > 2 * self._most:
            self._kept = [self._best()]

    def result(self) -> tuple[list[float], Ints, Ints]:
        """Return their cosines, best first, and the two rows of each; of equal ones, the first in the file."""
        if not self._kept:
            return [], np.empty(0, int), np.empty(0, int)
        scores, first, second = self._best()
        return np.minimum(scores, 1).tolist(), first, second  # rounding makes more than 1 of a cosine

    def _best(self) -> tuple[Floats, Ints, Ints]:
        scores, first, second = map(np.concatenate, zip(*self._kept, strict=True))
        order = np.lexsort((second, first, -scores))[: self._most]
        return scores[order], first[order], second[order]


def _records(corpus: Corpus, lines: set[int]) -> dict[int, Record]:
    """Read the records that are on some lines."""
    if corpus.source is not None:
        records = (record for record in corpus.source.records() if record.line in lines)
        return {record.line: without_vector(record) for record in records}
    found = {}
    for block in corpus.blocks() if lines else ():
        for index in np.flatnonzero(np.isin(block.lines, list(lines))):
            record = block.record(int(index))
            found[record.line] = record
    return found
