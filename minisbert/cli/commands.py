"""The ``minisbert`` command: what its commands do. `minisbert.cli.options` has their options.

Results go to standard output, all else to standard error. Exit status: 0 done, 1 done and a check failed, 2 an error
(one line, no traceback unless ``--debug``). A signal that ends the process is what the process ends by: shells say
128 + n. An exception that nobody foresaw is a bug and shows its traceback.
"""

from __future__ import annotations

import argparse
import shutil
import traceback
from collections.abc import Sequence
from importlib import import_module

from minisbert.cli import process, report
from minisbert.cli.models import encode_chunks, load_model
from minisbert.cli.options import build_parser
from minisbert.cli.parser import UsageError
from minisbert.cli.report import print_json, print_lines, tell
from minisbert.cli.textio import Record
from minisbert.errors import MinisbertError

__all__ = ["check", "main", "similarity"]


# --- the commands --------------------------------------------------------------------------------------------


def similarity(arguments: argparse.Namespace) -> None:
    """Print how similar each text is to each other one."""
    texts = arguments.texts
    if len(texts) < 2:
        raise UsageError("two or more texts are needed, found one (see minisbert similarity --help)")
    encoder = load_model(arguments)
    records = [Record(number, text) for number, text in enumerate(texts, 1)]
    [(*_, vectors)] = encode_chunks(encoder, encoder.encode, [records], "text {}".format)
    scores = encoder.similarity(vectors, vectors).tolist()
    if arguments.json:
        name = encoder.similarity_fn_name
        print_json([{"texts": texts, "similarity_fn_name": name, "similarities": scores}], indent=2)
    else:
        print_lines(report.similarity_table(texts, scores))


def check(arguments: argparse.Namespace) -> int:
    """Print what of a checkpoint is understood, ignored and refused; return 1 if it is refused, or not exact."""
    from minisbert.cli import parity  # neither is needed by every command
    from minisbert.cli.check import check, lines

    if arguments.against_torch:
        parity.check_installed()
    found = check(arguments.path, backend=arguments.backend, dtype=arguments.dtype)
    stages = parity.compare(found.encoder) if found.encoder and arguments.against_torch else []
    if arguments.json:
        print_json([found.as_json() | {"stages": [stage.as_json() for stage in stages]}], indent=2)
    else:
        print_lines(lines(found, min(100, shutil.get_terminal_size().columns)))
    if stages and not arguments.json:
        print_lines(["", *parity.table(stages)])
    return int(found.encoder is None or not all(stage.ok for stage in stages))


# Where the function of a command is; it is imported when it is called, as none needs what all the others do.
COMMANDS = {
    "encode": "encode",
    "similarity": "commands",
    "search": "search",
    "similar": "similar",
    "rerank": "search",
    "evaluate": "evaluate",
    "info": "info",
    "check": "commands",
    "convert": "convert",
    "compare": "compare",
    "train": "train",
}


# --- the process ---------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's own) and return the exit status."""
    if argv is None:
        process.end_at_signals()
    process.prepare_streams()
    arguments = argparse.Namespace(debug=False)  # for errors in the command line itself
    try:
        return _run(argv, arguments)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of standard output has seen enough, as head does
        return 141
    except (MinisbertError, OSError, MemoryError) as error:
        if arguments.debug:
            traceback.print_exc()
        tell(f"error: {_reason(error)}")
        return 2


def _run(argv: Sequence[str] | None, arguments: argparse.Namespace) -> int:
    try:
        build_parser().parse_args(argv, arguments)
        module = import_module(f"minisbert.cli.{COMMANDS[arguments.command]}")
        return getattr(module, arguments.command)(arguments) or 0
    finally:
        process.flush_stdout()


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "out of memory; a smaller --batch-size or fewer --threads need less"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
