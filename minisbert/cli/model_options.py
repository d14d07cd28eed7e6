"""The options of the commands that make, judge and describe models."""

from __future__ import annotations

import os
from typing import Any

from minisbert.checkpoint.config import SIMILARITIES
from minisbert.cli import examples
from minisbert.cli.parser import (
    DEFAULT_MODEL,
    add_choice,
    add_command,
    add_dtype,
    add_number,
    add_parser,
    add_reading,
    read_encoding,
    read_positive,
)
from minisbert.kernels import BACKENDS, DTYPES
from minisbert.vectors import PRECISIONS

__all__ = ["add_check", "add_compare", "add_convert", "add_evaluate", "add_info", "add_train"]


def add_evaluate(commands: Any) -> None:
    """Add ``evaluate``, and its tasks."""
    what = "tell how good models are on texts that people judged"
    parser = add_parser(commands, "evaluate", "TASK", what, examples.EVALUATE)
    tasks = parser.add_subparsers(
        title="tasks", prog="minisbert evaluate", dest="task", metavar="TASK", required=True
    )
    what = "correlate the similarity of pairs of sentences with scores"
    sts = add_task(tasks, "sts", "FILE", what, examples.STS)
    sts.add_argument("input", metavar="FILE", help="pairs of sentences, and scores")
    sts.add_argument("--columns", nargs=3, metavar="NAME", help="the columns of both sentences and the score")
    similarity = "what compares vectors (default: what the model asks for)"
    sts.add_argument("--similarity", nargs="+", choices=SIMILARITIES, metavar="NAME", help=similarity)
    what = "rank documents for queries, and compare with those that are relevant"
    retrieval = add_task(tasks, "retrieval", "--queries Q --corpus C --qrels R", what, examples.RETRIEVAL)
    files = {"queries": "queries", "corpus": "documents", "qrels": "which documents are relevant to a query"}
    for name, meaning in files.items():
        retrieval.add_argument(f"--{name}", metavar="FILE", required=True, help=meaning)


def add_task(tasks: Any, name: str, operands: str, what: str, examples: str) -> Any:
    """Add a task of evaluate: all combinations of what is listed are evaluated."""
    parser = add_parser(tasks, name, operands, what, examples)
    parser.usage = f"minisbert evaluate {name} {operands} [options]"
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    parser.add_argument(
        "--plot", metavar="FILE", help="draw quality by bytes and by speed: .png, .svg or .pdf"
    )
    encoding = "of the files, such as cp1252 (default: what the byte order mark says, else utf-8)"
    parser.add_argument("--encoding", metavar="NAME", type=read_encoding, help=encoding)
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
    group.add_argument("--truncate-dim", nargs="+", type=read_positive, metavar="N", help=what)
    group = parser.add_argument_group("encoding")
    add_number(group, "--batch-size", "most texts in one batch (default: 32)", default=32)
    add_choice(group, "--backend", ["auto", *BACKENDS], "who computes")
    add_number(group, "--threads", "workers (default: a thread for each CPU allowed)")
    add_number(group, "--max-seq-length", "tokens to read of a text (default: the model's)")
    return parser


def add_info(commands: Any) -> None:
    """Add ``info``."""
    parser = add_command(commands, "info", "", "describe the model and how it is run", examples.INFO)
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_check(commands: Any) -> None:
    """Add ``check``."""
    what = "tell what of a checkpoint is understood, ignored and refused"
    parser = add_parser(commands, "check", "PATH", what, examples.CHECK)
    parser.add_argument("path", metavar="PATH", help="folder or Hugging Face name")
    parser.add_argument("--json", action="store_true", help="print JSON")
    torch = "compare every stage with sentence-transformers, which has to be installed"
    parser.add_argument("--against-torch", action="store_true", help=torch)
    add_choice(parser, "--backend", ["auto", *BACKENDS], "who computes")
    add_dtype(parser, ["float32", "float64"], "what to compute in")


def add_convert(commands: Any) -> None:
    """Add ``convert``."""
    what = "write a checkpoint in fewer bits"
    parser = add_parser(commands, "convert", "PATH -o FOLDER", what, examples.CONVERT)
    parser.add_argument("path", metavar="PATH", help="folder or Hugging Face name")
    output = "a folder that is not there yet"
    parser.add_argument("-o", "--output", metavar="FOLDER", required=True, help=output)
    add_choice(parser, "--dtype", ["float16", "bfloat16", "int8"], "what weights become")
    parser.add_argument("--quiet", action="store_true", help="say nothing but warnings and errors")


def add_compare(commands: Any) -> None:
    """Add ``compare``."""
    what = "tell what fewer bits cost, and gain, on texts of your own"
    parser = add_parser(commands, "compare", "PATH [INPUT]", what, examples.COMPARE)
    parser.add_argument("path", metavar="PATH", help="folder or Hugging Face name")
    source = "file, or - for standard input (default)"
    parser.add_argument("input", metavar="INPUT", nargs="?", default="-", help=source)
    add_choice(parser, "--dtype", ["int8", "bfloat16", "float16", "float32"], "what is compared")
    add_choice(parser, "--to", ["float32", "float64", "float16", "bfloat16", "int8"], "what counts as right")
    against = "the folder or name of what counts as right (default: PATH)"
    parser.add_argument("--against", metavar="PATH", help=against)
    add_number(parser, "--sample", "how many texts, chosen at random (default: 1000)", default=1000)
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_choice(parser, "--backend", ["auto", *BACKENDS], "who computes")
    add_number(parser, "--threads", "workers (default: a thread for each CPU allowed)")
    add_number(parser, "--batch-size", "most texts in one batch (default: 32)", default=32)
    add_reading(parser)


def add_train(commands: Any) -> None:
    """Add ``train``."""
    what = "fine-tune a model on pairs of texts"
    parser = add_parser(commands, "train", "DATA [DATA ...] -o FOLDER", what, examples.TRAIN)
    parser.add_argument("data", metavar="DATA", nargs="+", help="file.csv, .tsv or .jsonl of rows of texts")
    parser.add_argument("-o", "--output", metavar="FOLDER", required=True, help="the trained checkpoint")
    model = os.environ.get("MINISBERT_MODEL") or DEFAULT_MODEL
    which = f"what to begin with (default: $MINISBERT_MODEL, else {DEFAULT_MODEL.split('/')[1]})"
    parser.add_argument("--model", metavar="NAME", default=model, help=which)
    parser.add_argument("--resume", action="store_true", help="go on with a run that was interrupted")
    parser.add_argument("--quiet", action="store_true", help="say nothing but warnings and errors")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_number(parser, "--threads", "workers (default: a thread for each CPU allowed)")
    add_choice(parser, "--dtype", ["float32", "float64"], "what to compute in")
    add_evaluating(parser.add_argument_group("evaluation", "The weights that are best at it are kept."))
    add_steps(parser.add_argument_group("steps"))
    add_learning(parser.add_argument_group("learning"))


def add_evaluating(group: Any) -> None:
    rows = group.add_mutually_exclusive_group()
    rows.add_argument("--evaluation", metavar="FILE", help="rows to evaluate with")
    add_number(rows, "--hold-out", "hold so many rows of DATA out to evaluate with")
    add_number(group, "--evaluation-steps", "evaluate after every N steps (default: each epoch)", default=0)


def add_steps(group: Any) -> None:
    add_number(group, "--epochs", "how often to go through the rows (default: 1)", default=1)
    add_number(group, "--batch-size", "rows in a step (default: 32)", default=32)
    add_number(group, "--steps-per-epoch", "steps (default: as many as the rows give)")
    seed = "of the order of rows, and dropout (default: 0)"
    group.add_argument("--seed", metavar="N", type=int, default=0, help=seed)
    group.add_argument("--no-shuffle", action="store_true", help="take the rows as they come")
    group.add_argument("--allow-duplicates", action="store_true", help="let a text be in a batch twice")
    add_choice(group, "--sampling", ["proportional", "round_robin"], "how to draw several files")


def add_learning(group: Any) -> None:
    add_choice(group, "--loss", ["MultipleNegativesRankingLoss", "CosineSimilarityLoss"], "the loss")
    add_choice(group, "--similarity-fct", ["cos_sim", "dot_score"], "the similarity that is ranked by")
    schedulers = ["WarmupLinear", "warmupconstant", "constantlr", "warmupcosine"]
    add_choice(group, "--scheduler", schedulers, "how the learning rate goes on")
    warmup = "steps in which the learning rate grows (default: a tenth)"
    group.add_argument("--warmup-steps", metavar="N", type=int, help=warmup)
    numbers = {"scale": 20.0, "lr": 2e-5, "weight-decay": 0.01, "max-grad-norm": 1.0}
    for name, default in numbers.items():
        group.add_argument(
            f"--{name}", metavar="X", type=float, default=default, help=f"(default: {default})"
        )
    group.add_argument("--dropout", metavar="X", type=float, help="(default: what the model's settings say)")
