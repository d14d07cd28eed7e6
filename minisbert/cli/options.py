"""The command line of ``minisbert``: its commands, options and help."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any, NoReturn

import minisbert
from minisbert.checkpoint.config import SIMILARITIES
from minisbert.cli import examples
from minisbert.cli.streams import MARK
from minisbert.errors import MinisbertError
from minisbert.kernels import BACKENDS, DTYPES
from minisbert.vectors import PRECISIONS

__all__ = ["UsageError", "build_parser"]

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
        _add_evaluate,
        _add_info,
        _add_check,
        _add_convert,
        _add_compare,
        _add_train,
    ):
        add(commands)
    return parser


def _add_encode(commands: Any) -> None:
    what = "turn the texts of a file into vectors"
    parser = _add_command(commands, "encode", "[INPUT] -o OUTPUT", what, examples.ENCODE)
    source = "file, or - for standard input (default)"
    parser.add_argument("input", metavar="INPUT", nargs="?", default="-", help=source)
    output = "file.npy, .jsonl or .parquet, or - for JSONL on standard output"
    parser.add_argument("-o", "--output", metavar="OUTPUT", required=True, help=output)
    _add_output(parser)
    _add_reading(parser)
    group = _add_encoding(parser)
    prompts = group.add_mutually_exclusive_group()
    prompts.add_argument("--prompt", metavar="TEXT", help="put this before each text")
    named = "put this one of the model's prompts before each text"
    prompts.add_argument("--prompt-name", metavar="NAME", help=named)
    group.add_argument("--normalize", action="store_true", help="scale each vector to length 1")
    _add_number(group, "--truncate-dim", "keep the first N components of each vector")
    _add_choice(group, "--precision", ["float32", "binary", "ubinary"], "components of a vector")


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
    parser = _add_command(commands, "similarity", "TEXT TEXT [TEXT ...]", what, examples.SIMILARITY)
    parser.add_argument("texts", metavar="TEXT", nargs="+", help="two or more texts")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_search(commands: Any) -> None:
    what = "find the texts of a file that are closest to a query"
    parser = _add_command(commands, "search", "QUERY FILE", what, examples.SEARCH)
    _add_ranking(parser)
    _add_vectors(parser)
    rerank = "cross-encoder that sorts the best 100, or -k, once more"
    parser.add_argument("--rerank", metavar="NAME", help=rerank)


def _add_similar(commands: Any) -> None:
    what = "find pairs of texts of a file that are nearly the same"
    parser = _add_command(commands, "similar", "FILE", what, examples.SIMILAR)
    parser.add_argument("input", metavar="FILE", help="where to look")
    threshold = "least cosine of a pair (default: 0.9)"
    parser.add_argument("--threshold", metavar="X", type=_cosine, default=0.9, help=threshold)
    _add_number(parser, "--max-pairs", "most pairs to show (default: 10000)", default=10_000)
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    _add_reading(parser)
    _add_where(parser)
    _add_vectors(parser)
    _add_encoding(parser)


def _add_rerank(commands: Any) -> None:
    what = "find the texts of a file that a cross-encoder finds most relevant to a query"
    model = ("MINISBERT_CROSS_ENCODER", DEFAULT_CROSS_ENCODER)
    parser = _add_command(commands, "rerank", "QUERY FILE", what, examples.RERANK, model)
    _add_ranking(parser)


def _add_ranking(parser: Any) -> None:
    parser.add_argument("query", metavar="QUERY", help="what to look for")
    parser.add_argument("input", metavar="FILE", help="where to look, or - for standard input")
    _add_number(parser, "-k", "how many texts to show (default: 5)", default=5)
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    show = "columns to show, such as id,brand (default: those kept beside vectors)"
    parser.add_argument("--show", metavar="NAMES", type=_names, help=show)
    _add_reading(parser)
    _add_where(parser)
    _add_encoding(parser)


def _add_evaluate(commands: Any) -> None:
    what = "tell how good models are on texts that people judged"
    parser = _add_parser(commands, "evaluate", "TASK", what, examples.EVALUATE)
    tasks = parser.add_subparsers(
        title="tasks", prog="minisbert evaluate", dest="task", metavar="TASK", required=True
    )
    what = "correlate the similarity of pairs of sentences with scores"
    sts = _add_task(tasks, "sts", "FILE", what, examples.STS)
    sts.add_argument("input", metavar="FILE", help="pairs of sentences, and scores")
    sts.add_argument("--columns", nargs=3, metavar="NAME", help="the columns of both sentences and the score")
    similarity = "what compares vectors (default: what the model asks for)"
    sts.add_argument("--similarity", nargs="+", choices=SIMILARITIES, metavar="NAME", help=similarity)
    what = "rank documents for queries, and compare with those that are relevant"
    retrieval = _add_task(tasks, "retrieval", "--queries Q --corpus C --qrels R", what, examples.RETRIEVAL)
    files = {"queries": "queries", "corpus": "documents", "qrels": "which documents are relevant to a query"}
    for name, meaning in files.items():
        retrieval.add_argument(f"--{name}", metavar="FILE", required=True, help=meaning)


def _add_task(tasks: Any, name: str, operands: str, what: str, examples: str) -> Any:
    """Add a task of evaluate: all combinations of what is listed are evaluated."""
    parser = _add_parser(tasks, name, operands, what, examples)
    parser.usage = f"minisbert evaluate {name} {operands} [options]"
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    parser.add_argument(
        "--plot", metavar="FILE", help="draw quality by bytes and by speed: .png, .svg or .pdf"
    )
    encoding = "of the files, such as cp1252 (default: what the byte order mark says, else utf-8)"
    parser.add_argument("--encoding", metavar="NAME", type=_encoding, help=encoding)
    parser.add_argument("--quiet", action="store_true", help="say nothing but warnings and errors")
    group = parser.add_argument_group(
        "what is compared", "One or more of each: all combinations are evaluated."
    )
    models = f"folders or Hugging Face names (default: $MINISBERT_MODEL, else {DEFAULT_MODEL.split('/')[1]})"
    default = [os.environ.get("MINISBERT_MODEL") or DEFAULT_MODEL]
    group.add_argument("--model", nargs="+", metavar="NAME", default=default, help=models)
    dtypes, precisions = ", ".join(DTYPES), ", ".join(PRECISIONS)
    what = f"what weights are held in: {dtypes} (default: float32, or int8 for a checkpoint of that)"
    group.add_argument("--dtype", nargs="+", choices=DTYPES, default=[None], metavar="DTYPE", help=what)
    what = f"what vectors are stored in: {precisions} (default: as they are)"
    group.add_argument("--precision", nargs="+", choices=[*PRECISIONS], metavar="NAME", help=what)
    what = "keep the first N components of each vector (default: all)"
    group.add_argument("--truncate-dim", nargs="+", type=_positive, metavar="N", help=what)
    group = parser.add_argument_group("encoding")
    _add_number(group, "--batch-size", "most texts in one batch (default: 32)", default=32)
    _add_choice(group, "--backend", ["auto", *BACKENDS], "who computes")
    _add_number(group, "--threads", "workers (default: a thread for each CPU allowed)")
    _add_number(group, "--max-seq-length", "tokens to read of a text (default: the model's)")
    return parser


def _add_where(parser: Any) -> None:
    where = "only rows with that value in that column; can be repeated"
    parser.add_argument(
        "--where", metavar="NAME=VALUE", type=_condition, action="append", default=[], help=where
    )


def _add_vectors(parser: Any) -> None:
    vectors = "file.npy with the vector of each text of FILE"
    parser.add_argument("--vectors", metavar="NPY", help=vectors)


def _add_info(commands: Any) -> None:
    parser = _add_command(commands, "info", "", "describe the model and how it is run", examples.INFO)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_check(commands: Any) -> None:
    what = "tell what of a checkpoint is understood, ignored and refused"
    parser = _add_parser(commands, "check", "PATH", what, examples.CHECK)
    parser.add_argument("path", metavar="PATH", help="folder or Hugging Face name")
    parser.add_argument("--json", action="store_true", help="print JSON")
    torch = "compare every stage with sentence-transformers, which has to be installed"
    parser.add_argument("--against-torch", action="store_true", help=torch)
    _add_choice(parser, "--backend", ["auto", *BACKENDS], "who computes")
    _add_dtype(parser, ["float32", "float64"], "what to compute in")


def _add_convert(commands: Any) -> None:
    what = "write a checkpoint in fewer bits"
    parser = _add_parser(commands, "convert", "PATH -o FOLDER", what, examples.CONVERT)
    parser.add_argument("path", metavar="PATH", help="folder or Hugging Face name")
    output = "a folder that is not there yet"
    parser.add_argument("-o", "--output", metavar="FOLDER", required=True, help=output)
    _add_choice(parser, "--dtype", ["float16", "bfloat16", "int8"], "what weights become")
    parser.add_argument("--quiet", action="store_true", help="say nothing but warnings and errors")


def _add_compare(commands: Any) -> None:
    what = "tell what fewer bits cost, and gain, on texts of your own"
    parser = _add_parser(commands, "compare", "PATH [INPUT]", what, examples.COMPARE)
    parser.add_argument("path", metavar="PATH", help="folder or Hugging Face name")
    source = "file, or - for standard input (default)"
    parser.add_argument("input", metavar="INPUT", nargs="?", default="-", help=source)
    _add_choice(parser, "--dtype", ["int8", "bfloat16", "float16", "float32"], "what is compared")
    _add_choice(parser, "--to", ["float32", "float64", "float16", "bfloat16", "int8"], "what counts as right")
    against = "the folder or name of what counts as right (default: PATH)"
    parser.add_argument("--against", metavar="PATH", help=against)
    _add_number(parser, "--sample", "how many texts, chosen at random (default: 1000)", default=1000)
    parser.add_argument("--json", action="store_true", help="print JSON")
    _add_choice(parser, "--backend", ["auto", *BACKENDS], "who computes")
    _add_number(parser, "--threads", "workers (default: a thread for each CPU allowed)")
    _add_number(parser, "--batch-size", "most texts in one batch (default: 32)", default=32)
    _add_reading(parser)


def _add_train(commands: Any) -> None:
    what = "fine-tune a model on pairs of texts"
    parser = _add_parser(commands, "train", "DATA [DATA ...] -o FOLDER", what, examples.TRAIN)
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
    _add_dtype(group, DTYPES, "what weights are held in: fewer bits are faster, and less exact")
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


def _add_dtype(group: Any, choices: Sequence[str], what: str) -> None:
    default = f"{choices[0]}, or int8 for a checkpoint in int8"
    group.add_argument("--dtype", choices=choices, help=f"{what} (default: {default})")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, found {text!r}")
    return int(text)


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
