"""What the options of several commands have in common."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any, NoReturn

from minisbert.cli.streams import MARK
from minisbert.errors import MinisbertError
from minisbert.kernels import BACKENDS, DTYPES

__all__ = [
    "DEFAULT_CROSS_ENCODER",
    "DEFAULT_MODEL",
    "INPUT",
    "Parser",
    "UsageError",
    "add_choice",
    "add_command",
    "add_dtype",
    "add_encoding",
    "add_number",
    "add_parser",
    "add_reading",
    "read_encoding",
    "read_positive",
    "read_separator",
]

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
DEFAULT_CROSS_ENCODER = "cross-encoder/ms-marco-MiniLM-L6-v2"
INPUT = "Text, JSONL, CSV or TSV, also compressed by gzip."


class UsageError(MinisbertError, ValueError):
    """The command line itself is wrong."""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises its errors, so that they are reported in one line like any other."""

    def __init__(self, **options: Any) -> None:
        layout = argparse.RawDescriptionHelpFormatter  # leaves the lines of the examples alone
        super().__init__(formatter_class=layout, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError`."""
        raise UsageError(f"{message} (see {self.prog} --help)")


def add_parser(commands: Any, name: str, operands: str, what: str, examples: str) -> Any:
    """Add a command that needs no model."""
    usage = " ".join(f"minisbert {name} {operands} [options]".split())
    parser = commands.add_parser(
        name, usage=usage, help=what, description=f"{what.capitalize()}.", epilog=examples
    )
    # Suppressed, because a default here would undo a --debug that stands before the command.
    debug = "show the traceback of an error"
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=debug)
    return parser


def add_command(
    commands: Any,
    name: str,
    operands: str,
    what: str,
    examples: str,
    default: tuple[str, str] = ("MINISBERT_MODEL", DEFAULT_MODEL),
) -> Any:
    """Add a command that loads a model: by default the one that a variable names, or else the one of that name."""
    parser = add_parser(commands, name, operands, what, examples)
    group = parser.add_argument_group("model")
    model = os.environ.get(default[0]) or default[1]
    which = f"folder or Hugging Face name (default: ${default[0]}, else {default[1].split('/')[1]})"
    group.add_argument("--model", metavar="NAME", default=model, help=which)
    add_choice(group, "--backend", ["auto", *BACKENDS], "who computes")
    add_dtype(group, DTYPES, "what weights are held in: fewer bits are faster, and less exact")
    add_number(group, "--threads", "workers (default: a thread for each CPU allowed)")
    add_number(group, "--max-seq-length", "tokens to read of a text (default: the model's)")
    return parser


def add_reading(parser: Any) -> None:
    """Add how the input is read."""
    group = parser.add_argument_group("input", INPUT)
    formats = "text is one text a line (default: what the suffix says, else the first line)"
    group.add_argument("--format", choices=["text", "jsonl", "csv"], help=formats)
    group.add_argument("--field", metavar="NAME", help="JSONL key or CSV column of the text (default: text)")
    separator = "what separates the columns of CSV, such as ';' or tab (default: found in the header)"
    group.add_argument("--separator", metavar="CHAR", type=read_separator, help=separator)
    encoding = "such as cp1252 or utf-16-le (default: what the byte order mark says, else utf-8)"
    group.add_argument("--encoding", metavar="NAME", type=read_encoding, help=encoding)
    bad = "stop at a line that can't be read, or go on and have nothing for it"
    add_choice(group, "--on-bad-lines", ["error", "null"], bad)
    group.add_argument("--quiet", action="store_true", help="say nothing but warnings and errors")


def add_encoding(parser: Any) -> Any:
    """Add how texts are encoded."""
    group = parser.add_argument_group("encoding")
    add_number(group, "--batch-size", "most texts in one batch (default: 32)", default=32)
    add_choice(group, "--truncation", ["warn", "silent", "error"], "what to do about texts that are too long")
    return group


def add_number(group: Any, name: str, what: str, default: int | None = None) -> None:
    """Add an option that takes a positive integer."""
    group.add_argument(name, metavar="N", type=read_positive, default=default, help=what)


def add_choice(group: Any, name: str, choices: Sequence[str], what: str) -> None:
    """Add an option with choices, of which the first is the default."""
    group.add_argument(name, choices=choices, default=choices[0], help=f"{what} (default: {choices[0]})")


def add_dtype(group: Any, choices: Sequence[str], what: str) -> None:
    """Add ``--dtype``, whose default depends on the checkpoint."""
    default = f"{choices[0]}, or int8 for a checkpoint in int8"
    group.add_argument("--dtype", choices=choices, help=f"{what} (default: {default})")


def read_positive(text: str) -> int:
    """Read a positive integer."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, found {text!r}")
    return int(text)


def read_encoding(name: str) -> str:
    """Check the name of an encoding of texts."""
    try:
        b"\xff".decode(name, MARK)
    except (LookupError, UnicodeError):
        known = "expected a name that Python knows, such as utf-8, utf-16, cp1252 or shift_jis"
        raise argparse.ArgumentTypeError(f"{known}, found {name!r}") from None
    return name


def read_separator(text: str) -> str:
    """Read what separates the columns of CSV."""
    character = {"tab": "\t", r"\t": "\t"}.get(text, text)
    if len(character) != 1 or character in '"\r\n':
        raise argparse.ArgumentTypeError(f"expected one character, or tab, found {text!r}")
    return character
