"""What a dtype costs, and gains, on people's own texts: a sample of a file, encoded in two ways in turns.

Of the two models one is compared, and the other one counts as right; each result is a pair in this order.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

import minisbert
from minisbert.arrays import Floats
from minisbert.checkpoint.stored import weights_files
from minisbert.cli.models import open_input
from minisbert.cli.report import print_json, print_lines, progress, shorten
from minisbert.cli.streams import TextFileError
from minisbert.cli.textio import Record, Source
from minisbert.evaluation.metrics import spearman
from minisbert.weights import size_in_bytes

__all__ = ["Comparison", "compare", "lines"]

Encoders = tuple[minisbert.SentenceEncoder, minisbert.SentenceEncoder]

TURN = 64  # texts that one encodes until it is the other one's turn
TURNS = 9  # at least: of so many times a median is taken
NEAREST = 10
BLOCK = 256  # texts whose similarities to all others are in memory at a time
PAIRED = 1000  # texts whose similarities to each other are ranked, all together
WORST = 5


@dataclass(frozen=True)
class Comparison:
    """What was found; of pairs, the second is of what counts as right.

    Attributes
    ----------
    models, dtypes, arithmetics : tuple of str
        The two folders, what their weights are held in, and what these are multiplied as.
    texts, of : int
        How many texts were compared, of how many.
    mean, worst : float
        1 - cosine of the two vectors of a text.
    nearest_kept : float
        Of the ten texts (or all) that are nearest to a text, the share that still is.
    spearman : float
        The rank correlation of the similarities of all pairs of texts, of a thousand at most.
    speed_up, speed_up_alone : float
        How many times as fast the first is: for many texts at once, and for one. Medians.
    memory_bytes, disk_bytes : tuple of int
        What the weights take in memory, the word table that is mapped included, and in their files.
    worst_texts : tuple of dict
        Line, 1 - cosine and text of those that lose most.
    """

    models: tuple[str, str]
    dtypes: tuple[str, str]
    arithmetics: tuple[str, str]
    texts: int
    of: int
    mean: float
    worst: float
    nearest_kept: float
    spearman: float
    speed_up: float
    speed_up_alone: float
    memory_bytes: tuple[int, int]
    disk_bytes: tuple[int, int]
    worst_texts: tuple[dict[str, Any], ...]

    def as_json(self) -> dict[str, Any]:
        """Return what `minisbert compare --json` prints."""
        return asdict(self)


def compare(arguments: argparse.Namespace) -> None:
    """Print what a dtype costs and gains on the texts of a file."""
    with open_input(arguments) as source:
        found = comparison(arguments, source)
    if arguments.json:
        print_json([found.as_json()], indent=2)
    else:
        print_lines(lines(found))


def comparison(arguments: argparse.Namespace, source: Source) -> Comparison:
    """Encode a sample of a file in two dtypes, or by two checkpoints, and compare the vectors."""
    records, count = _sample(source.records(), arguments.sample)
    if len(records) < 3:
        raise TextFileError(f"{source.name}: {len(records)} texts that are not blank; at least 3 are needed")
    options = {"backend": arguments.backend, "num_threads": arguments.threads}
    encoders = (
        minisbert.load(arguments.path, dtype=arguments.dtype, **options),
        minisbert.load(arguments.against or arguments.path, dtype=arguments.to, **options),
    )
    widths = [encoder.get_embedding_dimension() for encoder in encoders]
    if widths[0] != widths[1]:
        raise TextFileError(f"{arguments.against}: has vectors of {widths[1]} components, not {widths[0]}")
    texts = [record.text or "" for record in records]
    with progress("Comparing", len(texts), arguments.quiet) as update:
        vectors, speed_up = _in_turns(encoders, texts, TURN, arguments.batch_size, update)
        alone = texts[:: -(-len(texts) // TURNS)]
        _, speed_up_alone = _in_turns(encoders, alone, 1, arguments.batch_size)
    errors = _errors(*vectors)
    return Comparison(
        models=_both(str(encoder.path) for encoder in encoders),
        dtypes=_both(encoder.dtype for encoder in encoders),
        arithmetics=_both(encoder.arithmetic for encoder in encoders),
        texts=len(texts),
        of=count,
        mean=float(errors.mean()),
        worst=float(errors.max()),
        nearest_kept=_nearest_kept(encoders, vectors),
        spearman=_spearman(encoders, vectors),
        speed_up=speed_up,
        speed_up_alone=speed_up_alone,
        memory_bytes=_both(size_in_bytes((encoder._weights, encoder._steps)) for encoder in encoders),
        disk_bytes=_both(map(_bytes_on_disk, encoders)),
        worst_texts=tuple(_worst(records, errors)),
    )


def _both(values: Iterable[Any]) -> tuple[Any, Any]:
    first, second = values
    return first, second


def _sample(records: Iterable[Record], size: int) -> tuple[list[Record], int]:
    """Choose so many texts at random, the same ones each time [1]_; return them in order, and how many there are.

    Blank texts do not count.

    References
    ----------
    .. [1] Vitter, Random sampling with a reservoir, 1985, algorithm R.
    """
    chosen: list[Record] = []
    count, numbers = 0, random.Random(0)
    for record in records:
        if record.text is None or not record.text.strip():
            continue
        count += 1
        if len(chosen) < size:
            chosen.append(record)
        elif (place := numbers.randrange(count)) < size:
            chosen[place] = record
    return sorted(chosen, key=lambda record: record.line), count


def _in_turns(
    encoders: Encoders,
    texts: list[str],
    size: int,
    batch_size: int,
    update: Callable[[int], object] = lambda texts: None,
) -> tuple[tuple[Floats, Floats], float]:
    """Encode all texts by both, so many at a time; return the vectors, and how many times as fast the first is."""
    parts = [texts[start : start + size] for start in range(0, len(texts), size)]
    vectors: tuple[list[Floats], list[Floats]] = [], []
    ratios = []
    for encoder in encoders:  # warm up: what is done once is not counted
        encoder.encode(parts[0], batch_size=batch_size, truncation="silent", show_progress_bar=False)
    for turn, part in enumerate(islice(cycle(parts), max(len(parts), TURNS))):
        seconds = [0.0, 0.0]
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            start = perf_counter()
            found = encoders[which].encode(
                part, batch_size=batch_size, truncation="silent", show_progress_bar=False
            )
            seconds[which] = perf_counter() - start
            if turn < len(parts):
                vectors[which].append(found)
        ratios.append(seconds[1] / seconds[0])
        update(len(part) if turn < len(parts) else 0)
    return _both(map(np.concatenate, vectors)), median(ratios)


# --- what vectors lose ------------------------------------------------------------------------------------------


def _errors(found: Floats, right: Floats) -> Floats:
    """Return 1 - cosine by row, as half the squared distance of unit vectors, which does not cancel: (S,)."""
    a, b = (_unit(vectors.astype(np.float64)) for vectors in (found, right))
    errors: Floats = np.square(a - b).sum(axis=1) / 2
    return errors


def _unit(vectors: Floats) -> Floats:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-300))


def _nearest_kept(encoders: Encoders, vectors: tuple[Floats, Floats]) -> float:
    """Return which share of the texts that are nearest to each text is the same, in blocks of texts."""
    S, kept = len(vectors[0]), 0
    count = min(NEAREST, S - 1)
    for start in range(0, S, BLOCK):
        nearest = [_nearest(*pair, start, count) for pair in zip(encoders, vectors, strict=True)]
        kept += int((nearest[0] & nearest[1]).sum())
    return kept / (S * count)


def _nearest(
    encoder: minisbert.SentenceEncoder, vectors: Floats, start: int, count: int
) -> NDArray[np.bool_]:
    """Return whether texts are among those nearest to each of a block: (BLOCK, S). None is near to itself."""
    scores = encoder.similarity(vectors[start : start + BLOCK], vectors)
    np.fill_diagonal(scores[:, start:], -np.inf)
    found = np.zeros(scores.shape, np.bool_)
    np.put_along_axis(found, np.argpartition(-scores, count - 1, axis=1)[:, :count], True, axis=1)
    return found


def _spearman(encoders: Encoders, vectors: tuple[Floats, Floats]) -> float:
    """Return the correlation of the ranks of all pairs' similarities."""
    sides = []
    for encoder, every in zip(encoders, vectors, strict=True):
        some = every[:: -(-len(every) // PAIRED)]
        sides.append(encoder.similarity(some, some)[np.triu_indices(len(some), 1)])
    found = spearman(*sides)
    return float(np.ptp(sides[0]) == np.ptp(sides[1])) if np.isnan(found) else found  # if all pairs are alike


def _worst(records: Sequence[Record], errors: Floats) -> Iterator[dict[str, Any]]:
    for row in np.argsort(-errors, kind="stable")[:WORST]:
        yield {"line": records[row].line, "error": float(errors[row]), "text": records[row].text}


def _bytes_on_disk(encoder: minisbert.SentenceEncoder) -> int:
    config = encoder.config
    _, files = weights_files(config.transformer_folder, config.transformer.is_int8)
    return sum(file.stat().st_size for file in files)


# --- text -------------------------------------------------------------------------------------------------------


def lines(found: Comparison) -> Iterator[str]:
    """Yield the lines of a report for people."""
    yield f"{_instead(found.dtypes)}: {found.texts:,} of {found.of:,} texts"
    rows = {
        "1 - cosine": f"{found.mean:.1e} in the mean, {found.worst:.1e} at worst",
        f"{NEAREST} nearest": f"{found.nearest_kept:.1%} are the same",
        "similarities": f"rank correlation {found.spearman:.6f} (Spearman)",
        "speed": f"{found.speed_up:.2f} times, for one text {found.speed_up_alone:.2f} times (medians)",
        "in memory": _instead(map(_megabytes, found.memory_bytes)),
        "on disk": _instead(map(_megabytes, found.disk_bytes)),
        "computed as": _instead(found.arithmetics),
    }
    if found.models[0] == found.models[1]:
        rows["on disk"] = f"{_megabytes(found.disk_bytes[0])}; minisbert convert makes that smaller, too"
    for name, value in rows.items():
        yield f"  {name:<14}{value}"
    yield from ("", "texts that lose most", "  1 - cosine    line  text")
    for text in found.worst_texts:
        start = f"  {text['error']:<10.1e}{text['line']:>8}  "
        yield start + shorten(text["text"], len(start))


def _instead(values: Iterable[str]) -> str:
    return " instead of ".join(values)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
