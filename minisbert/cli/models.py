"""A model, and the texts of a file through it, chunk by chunk: what the commands share."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import minisbert
from minisbert.cli import report, textio
from minisbert.cli.report import tell
from minisbert.cli.textio import Reading, Record, Source
from minisbert.engine.base import TextModel
from minisbert.errors import TruncationError, TruncationWarning

__all__ = ["Encode", "encode_chunks", "encode_source", "load_model", "open_input", "read_through"]

# A method of a model, with all its options but the texts and the progress: mostly it gives vectors.
Encode = Callable[..., Any]


def load_model(
    arguments: argparse.Namespace, load: Callable[..., Any] = minisbert.load, name: str | None = None
) -> Any:
    """Load the model: a `SentenceEncoder`, or what another function of minisbert loads."""
    options = {"backend": arguments.backend, "dtype": arguments.dtype, "num_threads": arguments.threads}
    if name is not None:
        return load(name, **options)
    encoder = load(arguments.model, **options)
    if arguments.max_seq_length is not None:
        encoder.max_seq_length = arguments.max_seq_length
    return encoder


def open_input(arguments: argparse.Namespace) -> AbstractContextManager[Source]:
    """Open the input, to be read as people ask for it."""
    asked = {name: getattr(arguments, name) for name in Reading._fields if hasattr(arguments, name)}
    return textio.open_source(arguments.input, Reading(**asked))


def read_through(source: Source, quiet: bool, look: Callable[[Record], object] | None = None) -> None:
    """Read a file through, so that nothing is computed in vain if its last line is bad; `look` at each record."""
    if source.start is not None:
        with report.progress("Reading", None, quiet) as update:
            source.count(update, look)


def encode_source(
    encoder: TextModel, run: Encode, source: Source, quiet: bool, records: Iterable[Record] | None = None
) -> Iterator[tuple[list[Record], list[Record], Any]]:
    """Encode the texts of a file as `encode_chunks` does, show how far that is, and say which lines were bad.

    They are those that are wanted, or else the given ones of its records.
    """
    total = source.total if records is None else None
    with report.progress("Encoding", total, quiet) as update:
        chunks = textio.chunks(source.wanted() if records is None else records)
        yield from encode_chunks(encoder, run, chunks, source.place, update)
    if source.bad_lines:
        tell(f"warning: {source.say_bad_lines()}")


def encode_chunks(
    encoder: TextModel,
    run: Encode,
    chunks: Iterable[list[Record]],
    place: Callable[[int], str],
    update: Callable[[int], object] = lambda texts: None,
) -> Iterator[tuple[list[Record], list[Record], Any]]:
    """Encode texts chunk by chunk, and say at the end how many were cut.

    Yield the records of a chunk, those of them that have a text, and the vectors of these. ``place`` turns the line of
    a text into what people call the text, and ``update`` is told how many records are done, time and again.
    """
    limit, number_cut, first_cut = encoder.max_seq_length, 0, ""
    for records in chunks:
        there = [record for record in records if record.text is not None]
        try:
            vectors, cut = _encode_chunk(run, [record.text or "" for record in there], update)
        except TruncationError as error:
            what = f"{error.longest:,} tokens, more than {limit:,}"
            advice = "split the text, or choose --truncation warn"
            raise TruncationError(f"{place(there[error.rows[0]].line)}: {what}; {advice}") from error
        if len(there) < len(records):
            update(len(records) - len(there))
        if cut:
            number_cut += len(cut)
            first_cut = first_cut or place(there[cut[0]].line)
        yield records, there, vectors
    if number_cut:
        more = f", and {number_cut - 1:,} more" if number_cut > 1 else ""
        tell(f"warning: too long, cut to {limit:,} tokens: {first_cut}{more}")


def _encode_chunk(
    run: Encode, texts: list[str], update: Callable[[int], object]
) -> tuple[Any, tuple[int, ...]]:
    """Encode texts; return their vectors, or whatever is made of them, and the indices of those that were cut."""
    cut: tuple[int, ...] = ()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TruncationWarning)
        vectors = run(texts, show_progress_bar=update)
    for warning in caught:
        if isinstance(warning.message, TruncationWarning):
            cut = warning.message.rows
        else:
            tell(f"warning: {warning.message}")
    return vectors, cut
