"""The command line of ``minisbert``: its commands, and the options of those that encode texts."""

from __future__ import annotations

import argparse
from typing import Any

import minisbert
from minisbert.cli import examples
from minisbert.cli.model_options import add_check, add_compare, add_convert, add_evaluate, add_info, add_train
from minisbert.cli.parser import (
    DEFAULT_CROSS_ENCODER,
    Parser,
    add_choice,
    add_command,
    add_encoding,
    add_number,
    add_reading,
)

__all__ = ["build_parser"]


def build_parser() -> Parser:
    """Describe the whole command line; ``command`` is the name of the command that was chosen."""
    parser = Parser(
        prog="minisbert",
        usage="minisbert COMMAND [options]",
        description="Turn sentences into vectors with Sentence-BERT models.",
        epilog=examples.MAIN,
    )
    version = f"minisbert {minisbert.__version__}"
    parser.add_argument("-V", "--version", action="version", version=version, help="show the version")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(
        title="commands", prog="minisbert", dest="command", metavar="COMMAND", required=True
    )
    for add in (
        _add_encode,
        _add_similarity,
        _add_search,
        _add_similar,
        _add_rerank,
        add_evaluate,
        add_info,
        add_check,
        add_convert,
        add_compare,
        add_train,
    ):
        add(commands)
    return parser


def _add_encode(commands: Any) -> None:
    what = "turn the texts of a file into vectors"
    parser = add_command(commands, "encode", "[INPUT] -o OUTPUT", what, examples.ENCODE)
    source = "file, or - for standard input (default)"
    parser.add_argument("input", metavar="INPUT", nargs="?", default="-", help=source)
    output = "file.npy, .jsonl or .parquet, or - for JSONL on standard output"
    parser.add_argument("-o", "--output", metavar="OUTPUT", required=True, help=output)
    _add_output(parser)
    add_reading(parser)
    group = add_encoding(parser)
    prompts = group.add_mutually_exclusive_group()
    prompts.add_argument("--prompt", metavar="TEXT", help="put this before each text")
    named = "put this one of the model's prompts before each text"
    prompts.add_argument("--prompt-name", metavar="NAME", help=named)
    group.add_argument("--normalize", action="store_true", help="scale each vector to length 1")
    add_number(group, "--truncate-dim", "keep the first N components of each vector")
    add_choice(group, "--precision", ["float32", "binary", "ubinary"], "components of a vector")


def _add_output(parser: Any) -> None:
    group = parser.add_argument_group("output")
    keep = "keep these columns too, such as id,brand, or all (Parquet and JSONL)"
    group.add_argument("--keep", metavar="NAMES", nargs="?", type=_names, default=(), help=keep)
    append = "add the rows that are new to a file of Parquet"
    group.add_argument("--append", action="store_true", help=append)
    group.add_argument("--key", metavar="NAME", help="the column, or text, by which a row is known")
    resume = "go on from where a run was cut short, by what is in OUTPUT.partial"
    group.add_argument("--resume", action="store_true", help=resume)


def _add_similarity(commands: Any) -> None:
    what = "compare texts with one another"
    parser = add_command(commands, "similarity", "TEXT TEXT [TEXT ...]", what, examples.SIMILARITY)
    parser.add_argument("texts", metavar="TEXT", nargs="+", help="two or more texts")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_search(commands: Any) -> None:
    what = "find the texts of a file that are closest to a query"
    parser = add_command(commands, "search", "QUERY FILE", what, examples.SEARCH)
    _add_ranking(parser)
    _add_vectors(parser)
    rerank = "cross-encoder that sorts the best 100, or -k, once more"
    parser.add_argument("--rerank", metavar="NAME", help=rerank)


def _add_similar(commands: Any) -> None:
    what = "find pairs of texts of a file that are nearly the same"
    parser = add_command(commands, "similar", "FILE", what, examples.SIMILAR)
    parser.add_argument("input", metavar="FILE", help="where to look")
    threshold = "least cosine of a pair (default: 0.9)"
    parser.add_argument("--threshold", metavar="X", type=_cosine, default=0.9, help=threshold)
    add_number(parser, "--max-pairs", "most pairs to show (default: 10000)", default=10_000)
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    add_reading(parser)
    _add_where(parser)
    _add_vectors(parser)
    add_encoding(parser)


def _add_rerank(commands: Any) -> None:
    what = "find the texts of a file that a cross-encoder finds most relevant to a query"
    model = ("MINISBERT_CROSS_ENCODER", DEFAULT_CROSS_ENCODER)
    parser = add_command(commands, "rerank", "QUERY FILE", what, examples.RERANK, model)
    _add_ranking(parser)


def _add_ranking(parser: Any) -> None:
    parser.add_argument("query", metavar="QUERY", help="what to look for")
    parser.add_argument("input", metavar="FILE", help="where to look, or - for standard input")
    add_number(parser, "-k", "how many texts to show (default: 5)", default=5)
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    show = "columns to show, such as id,brand (default: those kept beside vectors)"
    parser.add_argument("--show", metavar="NAMES", type=_names, help=show)
    add_reading(parser)
    _add_where(parser)
    add_encoding(parser)


def _add_where(parser: Any) -> None:
    where = "only rows with that value in that column; can be repeated"
    parser.add_argument(
        "--where", metavar="NAME=VALUE", type=_condition, action="append", default=[], help=where
    )


def _add_vectors(parser: Any) -> None:
    vectors = "file.npy with the vector of each text of FILE"
    parser.add_argument("--vectors", metavar="NPY", help=vectors)


def _cosine(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 2
    if not -1 <= number <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from -1 to 1, found {text!r}")
    return number


def _names(text: str) -> list[str]:
    names = text.split(",")
    if len({*names, ""}) <= len(names):
        raise argparse.ArgumentTypeError(
            f"expected names, each once, with commas between them, found {text!r}"
        )
    return names


def _condition(text: str) -> tuple[str, str]:
    name, is_there, value = text.partition("=")
    if not (name and is_there):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, found {text!r}")
    return name, value
