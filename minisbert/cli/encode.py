"""``minisbert encode``: write the vector of every text of a file, anew or after those that are there."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from minisbert.cli import writers
from minisbert.cli.append import after, keys_of, new_rows
from minisbert.cli.columns import TEXT, Columns
from minisbert.cli.journal import Run, open_journal
from minisbert.cli.models import Encode, encode_source, load_model, open_input, read_through
from minisbert.cli.parquetfile import open_parquet
from minisbert.cli.parser import UsageError
from minisbert.cli.report import tell
from minisbert.cli.settings import KEY, settings_of
from minisbert.cli.textio import Source
from minisbert.cli.writers import Layout
from minisbert.encoder import SentenceEncoder

__all__ = ["encode"]


def encode(arguments: argparse.Namespace) -> None:
    """Write the vector of every text of a file."""
    _check(arguments)
    with ExitStack() as stack:
        source = stack.enter_context(open_input(arguments))
        _check_pipe(arguments, source)
        columns = Columns(source, _names(arguments))
        read_through(source, arguments.quiet, columns.look)
        types = columns.types()
        encoder = load_model(arguments)
        run = _run(encoder, arguments)
        layout = Layout(run([]), columns, types)  # of no text: the first complaint about the arguments
        known: set[Any] = set()
        if arguments.output != "-":
            settings = settings_of(encoder, arguments)
            layout = layout._replace(metadata={KEY: settings.to_json()})
            journal = Run(settings, encoder.backend, encoder.arithmetic, source.size, layout.empty)
            run = stack.enter_context(open_journal(arguments.output, journal, arguments.resume))(run)
        if arguments.append and os.path.exists(arguments.output):
            old = stack.enter_context(open_parquet(arguments.output))
            layout = after(old, arguments.output, layout, settings)
            known = keys_of(old, arguments.output, arguments.key)
        rows = _write(arguments, encoder, run, layout, known)
    if arguments.output != "-" and not arguments.quiet:
        shape = f"{rows:,} x {layout.empty.shape[1]:,} {layout.empty.dtype}"
        tell(f"{arguments.output}: {shape}{' added' if layout.old is not None else ''}")


def _write(
    arguments: argparse.Namespace, encoder: SentenceEncoder, run: Encode, layout: Layout, known: set[Any]
) -> int:
    """Write all rows, or those that are new, and return how many these are; if none is, no file changes."""
    source = layout.columns.source
    records = None
    if arguments.append:
        records = new_rows(source.wanted(), arguments.key, layout, known)
        first = next(records, None)
        if first is None and layout.old is not None:
            return 0
        records = chain([first] if first else [], records)
    rows = 0
    with writers.open_output(arguments.output, layout) as append:
        for chunk, _, vectors in encode_source(encoder, run, source, arguments.quiet, records):
            append(chunk, vectors)
            rows += len(chunk)
        layout.columns.types()  # of a pipe, only now all rows were looked at
    return rows


def _run(encoder: SentenceEncoder, arguments: argparse.Namespace) -> Encode:
    """Return `encode` with all its options but the texts and the progress."""
    return partial(
        encoder.encode,
        batch_size=arguments.batch_size,
        truncation=arguments.truncation,
        prompt=arguments.prompt,
        prompt_name=arguments.prompt_name,
        normalize_embeddings=arguments.normalize,
        truncate_dim=arguments.truncate_dim,
        precision=arguments.precision,
    )


def _names(arguments: argparse.Namespace) -> Sequence[str] | None:
    """Return which columns are kept, by their names; None for all of them."""
    keep: Sequence[str] | None = arguments.keep
    if keep is None or arguments.key in (None, TEXT, *keep):
        return keep
    return [arguments.key, *keep]


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what can't be, before any work is done."""
    if arguments.key == arguments.field:  # which has another name in the output
        arguments.key = arguments.key and TEXT
    output, keep, may_miss = arguments.output, arguments.keep, arguments.on_bad_lines == "null"
    suffix = Path(output).suffix.lower()
    for is_wrong, said in (
        (
            bool(arguments.append) != (arguments.key is not None),
            "--append needs --key, and --key --append: rows that are new are told by their key",
        ),
        (
            arguments.append and suffix != ".parquet",
            f"{output}: --append needs .parquet, which says how its vectors were made",
        ),
        (arguments.append and may_miss, "--append goes without --on-bad-lines null: a bad line has no key"),
        (arguments.resume and output == "-", "--resume needs a file for the output"),
        (
            keep != () and suffix == ".npy",
            f"{output}: --keep needs .parquet or .jsonl; .npy has vectors only",
        ),
        (
            arguments.input == "-" and keep and os.path.isfile(keep[0]),
            f"--keep {keep and keep[0]}: is a file; name columns, or put --keep behind the input",
        ),
    ):
        if is_wrong:
            raise UsageError(said)
    writers.check_output(output, arguments.input, arguments.precision != "float32" and may_miss)


def _check_pipe(arguments: argparse.Namespace, source: Source) -> None:
    """Refuse what needs an input that can be read twice."""
    if source.start is not None:
        return
    if arguments.resume:
        raise UsageError(f"{source.name}: --resume needs a file, as a pipe can't be read once more")
    is_new = not (arguments.append and os.path.exists(arguments.output))
    if is_new and _names(arguments) != () and arguments.output.lower().endswith(".parquet"):
        what = "--keep needs a file, which is read through to find the types of its columns"
        raise UsageError(f"{source.name}: {what}, or .jsonl as the output")
