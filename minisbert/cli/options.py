"""The command line of ``minisbert``: its commands, options, help and examples."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any, NoReturn

import minisbert
from minisbert.cli.streams import MARK
from minisbert.errors import MinisbertError
from minisbert.kernels import BACKENDS, DTYPES

__all__ = ["UsageError", "build_parser"]

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
DEFAULT_CROSS_ENCODER = "cross-encoder/ms-marco-MiniLM-L6-v2"
INPUT = "Text, JSONL, CSV or TSV, also compressed by gzip."
MAIN_EXAMPLES = """\
examples:
  minisbert similarity "a cat on the mat" "a kitten on a rug"
  minisbert search "how do I reset my password" questions.txt
  minisbert encode titles.txt -o titles.npy

Each command has its own help: minisbert encode --help"""
ENCODE_EXAMPLES = """\
examples:
  minisbert encode titles.txt -o titles.npy
  minisbert encode reviews.csv --field body --normalize -o reviews.parquet
  minisbert encode export.csv.gz --field body --encoding cp1252 -o export.npy
  cat titles.txt | minisbert encode -o - | head -n 3

Row i of the output is text i of the input: with --on-bad-lines null, a line
that can't be read has a vector of NaN, or null in JSONL. The output appears, or
replaces an older file, only when all of it has been written. The precisions
int8 and uint8 need the range of the whole collection: use encode in Python for
them."""
SIMILARITY_EXAMPLES = """\
examples:
  minisbert similarity "a cat on the mat" "a kitten on a rug" "tax returns"
  minisbert similarity --json -- "-5 degrees" "freezing cold"

Long texts are shortened to fit the terminal; --json gives them whole."""
SEARCH_EXAMPLES = """\
examples:
  minisbert search "how do I reset my password" questions.txt
  minisbert search "waterproof boots" products.csv --field title -k 20 --json
  minisbert search "boots" faq.txt -k 100 --json | minisbert rerank "boots" -

Blank texts are left out. Long ones are shortened to fit the terminal; --json
gives them whole, with all fields of their rows, one JSON object a line: rerank
reads that."""
RERANK_EXAMPLES = """\
examples:
  minisbert rerank "how do I reset my password" questions.txt
  minisbert rerank "waterproof boots" products.csv --field title -k 20 --json
  minisbert search "boots" faq.txt -k 100 --json | minisbert rerank "boots" -

A cross-encoder reads the query together with each text, which is better than
what search does, and far slower: it is for some hundred texts, such as the best
that search finds. Their lines are then those of the file that was searched, and
with --json what search said of them becomes previous_rank and previous_score."""
INFO_EXAMPLES = """\
examples:
  minisbert info
  minisbert info --model ./my-model --json"""
CHECK_EXAMPLES = """\
examples:
  minisbert check ./my-model
  minisbert check ./my-model --json
  minisbert check ./my-model --against-torch

Exit status: 0 if minisbert loads it, 1 if something is refused or, with
--against-torch, differs from sentence-transformers by more than rounding."""

TRAIN_EXAMPLES = """\
examples:
  minisbert train pairs.csv -o my-model
  minisbert train pairs.csv -o my-model --batch-size 128 --hold-out 200
  minisbert train pairs.csv -o my-model --batch-size 128 --hold-out 200 --resume

DATA is CSV with a header, or JSONL: the columns are an anchor, its positive,
and hard negatives if there are any; for CosineSimilarityLoss two texts and a
score. With several files a batch is of one of them. The output is a checkpoint,
with train.jsonl, the loss of each step, and loss.png where matplotlib is
installed. It appears once it is complete. A run that is interrupted goes on
with --resume and its other options as they were, and ends with the same bits."""


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


def build_parser() -> Parser:
    """Describe the whole command line; ``command`` is the name of the command that was chosen."""
    parser = Parser(
        prog="minisbert",
        usage="minisbert COMMAND [options]",
        description="Turn sentences into vectors with Sentence-BERT models.",
        epilog=MAIN_EXAMPLES,
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
        _add_rerank,
        _add_info,
        _add_check,
        _add_train,
    ):
        add(commands)
    return parser


def _add_encode(commands: Any) -> None:
    what = "turn the texts of a file into vectors"
    parser = _add_command(commands, "encode", "[INPUT] -o OUTPUT", what, ENCODE_EXAMPLES)
    source = "file, or - for standard input (default)"
    parser.add_argument("input", metavar="INPUT", nargs="?", default="-", help=source)
    output = "file.npy, .jsonl or .parquet, or - for JSONL on standard output"
    parser.add_argument("-o", "--output", metavar="OUTPUT", required=True, help=output)
    _add_reading(parser)
    group = _add_encoding(parser)
    prompts = group.add_mutually_exclusive_group()
    prompts.add_argument("--prompt", metavar="TEXT", help="put this before each text")
    named = "put this one of the model's prompts before each text"
    prompts.add_argument("--prompt-name", metavar="NAME", help=named)
    group.add_argument("--normalize", action="store_true", help="scale each vector to length 1")
    _add_number(group, "--truncate-dim", "keep the first N components of each vector")
    _add_choice(group, "--precision", ["float32", "binary", "ubinary"], "components of a vector")


def _add_similarity(commands: Any) -> None:
    what = "compare texts with one another"
    parser = _add_command(commands, "similarity", "TEXT TEXT [TEXT ...]", what, SIMILARITY_EXAMPLES)
    parser.add_argument("texts", metavar="TEXT", nargs="+", help="two or more texts")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_search(commands: Any) -> None:
    what = "find the texts of a file that are closest to a query"
    parser = _add_command(commands, "search", "QUERY FILE", what, SEARCH_EXAMPLES)
    _add_ranking(parser)


def _add_rerank(commands: Any) -> None:
    what = "find the texts of a file that a cross-encoder finds most relevant to a query"
    model = ("MINISBERT_CROSS_ENCODER", DEFAULT_CROSS_ENCODER)
    parser = _add_command(commands, "rerank", "QUERY FILE", what, RERANK_EXAMPLES, model)
    _add_ranking(parser)


def _add_ranking(parser: Any) -> None:
    parser.add_argument("query", metavar="QUERY", help="what to look for")
    parser.add_argument("input", metavar="FILE", help="where to look, or - for standard input")
    _add_number(parser, "-k", "how many texts to show (default: 5)", default=5)
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    _add_reading(parser)
    _add_encoding(parser)


def _add_info(commands: Any) -> None:
    parser = _add_command(commands, "info", "", "describe the model and how it is run", INFO_EXAMPLES)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_check(commands: Any) -> None:
    what = "tell what of a checkpoint is understood, ignored and refused"
    parser = _add_parser(commands, "check", "PATH", what, CHECK_EXAMPLES)
    parser.add_argument("path", metavar="PATH", help="folder or Hugging Face name")
    parser.add_argument("--json", action="store_true", help="print JSON")
    torch = "compare every stage with sentence-transformers, which has to be installed"
    parser.add_argument("--against-torch", action="store_true", help=torch)
    _add_choice(parser, "--backend", ["auto", *BACKENDS], "who computes")
    _add_choice(parser, "--dtype", ["float32", "float64"], "what to compute in")


def _add_train(commands: Any) -> None:
    what = "fine-tune a model on pairs of texts"
    parser = _add_parser(commands, "train", "DATA [DATA ...] -o FOLDER", what, TRAIN_EXAMPLES)
    parser.add_argument("data", metavar="DATA", nargs="+", help="file.csv, .tsv or .jsonl of rows of texts")
    parser.add_argument("-o", "--output", metavar="FOLDER", required=True, help="the trained checkpoint")
    model = os.environ.get("MINISBERT_MODEL") or DEFAULT_MODEL
    which = f"what to begin with (default: $MINISBERT_MODEL, else {DEFAULT_MODEL.split('/')[1]})"
    parser.add_argument("--model", metavar="NAME", default=model, help=which)
    parser.add_argument("--resume", action="store_true", help="go on with a run that was interrupted")
    parser.add_argument("--quiet", action="store_true", help="say nothing but warnings and errors")
    parser.add_argument("--json", action="store_true", help="print JSON")
    _add_number(parser, "--threads", "workers (default: a thread for each CPU allowed)")
    _add_choice(parser, "--dtype", ["float32", "float64"], "what to compute in")
    _add_evaluating(parser.add_argument_group("evaluation", "The weights that are best at it are kept."))
    _add_steps(parser.add_argument_group("steps"))
    _add_learning(parser.add_argument_group("learning"))


def _add_evaluating(group: Any) -> None:
    rows = group.add_mutually_exclusive_group()
    rows.add_argument("--evaluation", metavar="FILE", help="rows to evaluate with")
    _add_number(rows, "--hold-out", "hold so many rows of DATA out to evaluate with")
    _add_number(group, "--evaluation-steps", "evaluate after every N steps (default: each epoch)", default=0)


def _add_steps(group: Any) -> None:
    _add_number(group, "--epochs", "how often to go through the rows (default: 1)", default=1)
    _add_number(group, "--batch-size", "rows in a step (default: 32)", default=32)
    _add_number(group, "--steps-per-epoch", "steps (default: as many as the rows give)")
    seed = "of the order of rows, and dropout (default: 0)"
    group.add_argument("--seed", metavar="N", type=int, default=0, help=seed)
    group.add_argument("--no-shuffle", action="store_true", help="take the rows as they come")
    group.add_argument("--allow-duplicates", action="store_true", help="let a text be in a batch twice")
    _add_choice(group, "--sampling", ["proportional", "round_robin"], "how to draw several files")


def _add_learning(group: Any) -> None:
    _add_choice(group, "--loss", ["MultipleNegativesRankingLoss", "CosineSimilarityLoss"], "the loss")
    _add_choice(group, "--similarity-fct", ["cos_sim", "dot_score"], "the similarity that is ranked by")
    schedulers = ["WarmupLinear", "warmupconstant", "constantlr", "warmupcosine"]
    _add_choice(group, "--scheduler", schedulers, "how the learning rate goes on")
    warmup = "steps in which the learning rate grows (default: a tenth)"
    group.add_argument("--warmup-steps", metavar="N", type=int, help=warmup)
    numbers = {"scale": 20.0, "lr": 2e-5, "weight-decay": 0.01, "max-grad-norm": 1.0}
    for name, default in numbers.items():
        group.add_argument(
            f"--{name}", metavar="X", type=float, default=default, help=f"(default: {default})"
        )
    group.add_argument("--dropout", metavar="X", type=float, help="(default: what the model's settings say)")


def _add_parser(commands: Any, name: str, operands: str, what: str, examples: str) -> Any:
    """Add a command that needs no model."""
    usage = " ".join(f"minisbert {name} {operands} [options]".split())
    parser = commands.add_parser(
        name, usage=usage, help=what, description=f"{what.capitalize()}.", epilog=examples
    )
    # Suppressed, because a default here would undo a --debug that stands before the command.
    debug = "show the traceback of an error"
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=debug)
    return parser


def _add_command(
    commands: Any,
    name: str,
    operands: str,
    what: str,
    examples: str,
    default: tuple[str, str] = ("MINISBERT_MODEL", DEFAULT_MODEL),
) -> Any:
    """Add a command that loads a model: by default the one that a variable names, or else the one of that name."""
    parser = _add_parser(commands, name, operands, what, examples)
    group = parser.add_argument_group("model")
    model = os.environ.get(default[0]) or default[1]
    which = f"folder or Hugging Face name (default: ${default[0]}, else {default[1].split('/')[1]})"
    group.add_argument("--model", metavar="NAME", default=model, help=which)
    _add_choice(group, "--backend", ["auto", *BACKENDS], "who computes")
    _add_choice(
        group, "--dtype", [*DTYPES], "what weights are held in: fewer bits are faster, and less exact"
    )
    _add_number(group, "--threads", "workers (default: a thread for each CPU allowed)")
    _add_number(group, "--max-seq-length", "tokens to read of a text (default: the model's)")
    return parser


def _add_reading(parser: Any) -> None:
    group = parser.add_argument_group("input", INPUT)
    formats = "text is one text a line (default: what the suffix says, else the first line)"
    group.add_argument("--format", choices=["text", "jsonl", "csv"], help=formats)
    group.add_argument("--field", metavar="NAME", help="JSONL key or CSV column of the text (default: text)")
    separator = "what separates the columns of CSV, such as ';' or tab (default: found in the header)"
    group.add_argument("--separator", metavar="CHAR", type=_separator, help=separator)
    encoding = "such as cp1252 or utf-16-le (default: what the byte order mark says, else utf-8)"
    group.add_argument("--encoding", metavar="NAME", type=_encoding, help=encoding)
    bad = "stop at a line that can't be read, or go on and have nothing for it"
    _add_choice(group, "--on-bad-lines", ["error", "null"], bad)
    group.add_argument("--quiet", action="store_true", help="say nothing but warnings and errors")


def _add_encoding(parser: Any) -> Any:
    group = parser.add_argument_group("encoding")
    _add_number(group, "--batch-size", "most texts in one batch (default: 32)", default=32)
    _add_choice(
        group, "--truncation", ["warn", "silent", "error"], "what to do about texts that are too long"
    )
    return group


def _add_number(group: Any, name: str, what: str, default: int | None = None) -> None:
    group.add_argument(name, metavar="N", type=_positive, default=default, help=what)


def _add_choice(group: Any, name: str, choices: Sequence[str], what: str) -> None:
    group.add_argument(name, choices=choices, default=choices[0], help=f"{what} (default: {choices[0]})")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, found {text!r}")
    return int(text)


def _separator(text: str) -> str:
    character = {"tab": "\t", r"\t": "\t"}.get(text, text)
    if len(character) != 1 or character in '"\r\n':
        raise argparse.ArgumentTypeError(f"expected one character, or tab, found {text!r}")
    return character


def _encoding(name: str) -> str:
    try:
        b"\xff".decode(name, MARK)
    except (LookupError, UnicodeError):
        known = "expected a name that Python knows, such as utf-8, utf-16, cp1252 or shift_jis"
        raise argparse.ArgumentTypeError(f"{known}, found {name!r}") from None
    return name
