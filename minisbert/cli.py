"""The ``minisbert`` command: encode, similarity, search, info.

Results go to standard output, all else to standard error. Exit status: 0 done, 2 an error (one line, no traceback
unless ``--debug``), 128 + n ended by signal n. An exception that nobody foresaw is a bug and shows its traceback.
"""

from __future__ import annotations

import argparse
import heapq
import io
import json
import os
import platform
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from types import FrameType
from typing import Any, NoReturn

import minisbert
from minisbert import textio
from minisbert.errors import MinisbertError, TruncationError, TruncationWarning
from minisbert.kernels import BACKENDS

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
CLEAR_LINE = "\r\x1b[K"
MAIN_EXAMPLES = """\
examples:
  minisbert similarity "a cat on the mat" "a kitten on a rug"
  minisbert search "how do I reset my password" questions.txt
  minisbert encode titles.txt -o titles.npy

Each command has its own help: minisbert encode --help"""
EXAMPLES = {
    "encode": """\
examples:
  minisbert encode titles.txt -o titles.npy
  minisbert encode reviews.csv --field body --normalize -o reviews.parquet
  cat titles.txt | minisbert encode -o - | head -n 3

Row i of the output is text i of the input. The output appears, or replaces an
older file, only when all of it has been written. The precisions int8 and uint8
need the range of the whole collection: use encode in Python for them.""",
    "similarity": """\
examples:
  minisbert similarity "a cat on the mat" "a kitten on a rug" "tax returns"
  minisbert similarity --json -- "-5 degrees" "freezing cold\"""",
    "search": """\
examples:
  minisbert search "how do I reset my password" questions.txt
  minisbert search "waterproof boots" products.csv --field title -k 20 --json

Blank texts are left out. Long ones are shortened to fit the terminal; --json
gives them whole.""",
    "info": """\
examples:
  minisbert info
  minisbert info --model ./my-model --json""",
}


# --- the command line ----------------------------------------------------------------------------------------


class UsageError(MinisbertError, ValueError):
    """The command line itself is wrong."""


class Parser(argparse.ArgumentParser):
    """An argument parser for help of our layout, whose errors `main` reports in one line like any other."""

    def __init__(self, **options: Any) -> None:
        layout = partial(argparse.RawDescriptionHelpFormatter, max_help_position=26)
        super().__init__(formatter_class=layout, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError`."""
        raise UsageError(f"{message} (see {self.prog} --help)")


def build_parser() -> Parser:
    """Describe the whole command line."""
    what = "Turn sentences into vectors with Sentence-BERT models."
    parser = Parser(
        prog="minisbert", usage="minisbert COMMAND [options]", description=what, epilog=MAIN_EXAMPLES
    )
    version = f"minisbert {minisbert.__version__}"
    parser.add_argument("-V", "--version", action="version", version=version, help="show the version")
    _add_flag(parser, "--debug", "show the traceback of an error")
    commands = parser.add_subparsers(title="commands", prog="minisbert", metavar="COMMAND", required=True)
    for add in (_add_encode, _add_similarity, _add_search, _add_info):
        add(commands)
    return parser


def _add_encode(commands: Any) -> None:
    parser = _add_command(commands, encode, "[INPUT] -o OUTPUT", "turn the texts of a file into vectors")
    source = "file, or - for standard input (default)"
    parser.add_argument("input", metavar="INPUT", nargs="?", default="-", help=source)
    output = "file.npy, .jsonl or .parquet, or - for JSONL on standard output"
    parser.add_argument("-o", "--output", metavar="OUTPUT", required=True, help=output)
    _add_reading(parser)
    group = _add_encoding(parser)
    prompts = group.add_mutually_exclusive_group()
    prompts.add_argument("--prompt", metavar="TEXT", help="put this before each text")
    prompts.add_argument(
        "--prompt-name", metavar="NAME", help="put this one of the model's prompts before each text"
    )
    _add_flag(group, "--normalize", "scale each vector to length 1")
    _add_number(group, "--truncate-dim", "keep the first N components of each vector")
    _add_choice(group, "--precision", ["float32", "binary", "ubinary"], "components of a vector")


def _add_similarity(commands: Any) -> None:
    parser = _add_command(commands, similarity, "TEXT TEXT [TEXT ...]", "compare texts with one another")
    parser.add_argument("texts", metavar="TEXT", nargs="+", help="two or more texts")
    _add_flag(parser, "--json", "print JSON")


def _add_search(commands: Any) -> None:
    parser = _add_command(
        commands, search, "QUERY FILE", "find the texts of a file that are closest to a query"
    )
    parser.add_argument("query", metavar="QUERY", help="what to look for")
    parser.add_argument("input", metavar="FILE", help="where to look, or - for standard input")
    _add_number(parser, "-k", "how many texts to show (default: 5)", default=5)
    _add_flag(parser, "--json", "print JSON")
    _add_reading(parser)
    _add_encoding(parser)


def _add_info(commands: Any) -> None:
    parser = _add_command(commands, info, "", "describe the model and how it is run")
    _add_flag(parser, "--json", "print JSON")


def _add_command(commands: Any, run: Callable[[argparse.Namespace], None], usage: str, what: str) -> Any:
    name = run.__name__
    about = {"help": what, "description": f"{what.capitalize()}.", "epilog": EXAMPLES[name]}
    parser = commands.add_parser(
        name, usage=f"minisbert {name} {usage} [options]".replace("  ", " "), **about
    )
    parser.set_defaults(run=run)
    # Suppressed, because a default here would undo a --debug that stands before the command.
    _add_flag(parser, "--debug", "show the traceback of an error", default=argparse.SUPPRESS)
    group = parser.add_argument_group("model")
    model = os.environ.get("MINISBERT_MODEL") or DEFAULT_MODEL
    default = f"$MINISBERT_MODEL, else {DEFAULT_MODEL.split('/')[1]}"
    group.add_argument(
        "--model", metavar="NAME", default=model, help=f"folder or Hugging Face name (default: {default})"
    )
    _add_choice(group, "--backend", ["auto", *BACKENDS], "who computes")
    _add_number(group, "--threads", "workers (default: a thread for each CPU allowed)")
    return parser


def _add_reading(parser: Any) -> None:
    group = parser.add_argument_group("input")
    formats = "by default the suffix tells, else text: one a line"
    group.add_argument("--format", choices=["text", "jsonl", "csv"], help=formats)
    group.add_argument("--field", metavar="NAME", help="JSONL key or CSV column of the text (default: text)")
    _add_flag(group, "--quiet", "say nothing but warnings and errors")


def _add_encoding(parser: Any) -> Any:
    group = parser.add_argument_group("encoding")
    _add_number(group, "--batch-size", "most texts in one batch (default: 32)", default=32)
    _add_number(group, "--max-seq-length", "tokens to read of a text (default: the model's)")
    _add_choice(group, "--truncation", ["warn", "silent", "error"], "what to do about longer texts")
    return group


def _add_flag(group: Any, name: str, what: str, **options: Any) -> None:
    group.add_argument(name, action="store_true", help=what, **options)


def _add_number(group: Any, name: str, what: str, **options: Any) -> None:
    group.add_argument(name, metavar="N", type=_positive, help=what, **options)


def _add_choice(group: Any, name: str, choices: Sequence[str], what: str) -> None:
    group.add_argument(name, choices=choices, default=choices[0], help=f"{what} (default: {choices[0]})")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, found {text!r}")
    return int(text)


# --- the commands --------------------------------------------------------------------------------------------


def encode(arguments: argparse.Namespace) -> None:
    """Write the vector of every text of a file."""
    textio.check_output(arguments.output, arguments.input)
    with textio.open_source(arguments.input, arguments.format, arguments.field) as source:
        encoder = _load(arguments)
        run = partial(
            encoder.encode,
            prompt=arguments.prompt,
            prompt_name=arguments.prompt_name,
            normalize_embeddings=arguments.normalize,
            truncate_dim=arguments.truncate_dim,
            precision=arguments.precision,
        )
        rows, empty = 0, run([])  # the shape and the dtype, and the first complaint about the arguments
        prompt = arguments.prompt
        if prompt is None:
            prompt = encoder.prompts.get(arguments.prompt_name or encoder.default_prompt_name or "", "")
        with textio.open_output(arguments.output, empty) as append, _progress(source, arguments) as advance:
            for records, vectors in _encode_records(encoder, run, prompt, source, arguments):
                append([record.text for record in records], vectors)
                advance(len(records))
                rows += len(records)
    if arguments.output != "-" and not arguments.quiet:
        _tell(f"{arguments.output}: {rows:,} x {empty.shape[1]:,} {empty.dtype}")


def similarity(arguments: argparse.Namespace) -> None:
    """Print how similar each text is to each other one."""
    if len(arguments.texts) < 2:
        raise UsageError("two or more texts are needed, found one (see minisbert similarity --help)")
    encoder = _load(arguments)
    vectors = encoder.encode(arguments.texts)
    scores = encoder.similarity(vectors, vectors).tolist()
    if arguments.json:
        name = encoder.similarity_fn_name
        _print_json({"texts": arguments.texts, "similarity_fn_name": name, "similarities": scores})
    else:
        print(*textio.similarity_table(arguments.texts, scores), sep="\n")


def search(arguments: argparse.Namespace) -> None:
    """Print the texts of a file that are most similar to a query."""
    best: list[tuple[float, textio.Record]] = []
    with textio.open_source(arguments.input, arguments.format, arguments.field) as source:
        encoder = _load(arguments)
        query = encoder.encode_query([arguments.query], truncation=arguments.truncation)
        run, prompt = encoder.encode_document, encoder.prompts.get("document", "")
        with _progress(source, arguments) as advance:
            for records, vectors in _encode_records(encoder, run, prompt, source, arguments):
                scores = encoder.similarity(query, vectors)[0].tolist()
                found = [pair for pair in zip(scores, records, strict=True) if pair[1].text.strip()]
                best = heapq.nsmallest(arguments.k, best + found, key=lambda pair: (-pair[0], pair[1].line))
                advance(len(records))
    if arguments.json:
        ranked = enumerate(best, 1)
        _print_json([{"rank": i, "score": s, "line": r.line, "text": r.text} for i, (s, r) in ranked])
    elif best:
        print(*textio.search_table(best), sep="\n")
    else:
        _tell(f"warning: {source.name}: there is no text to search")


def info(arguments: argparse.Namespace) -> None:
    """Print what the model is and how it is run."""
    encoder = _load(arguments)
    facts = {"model": arguments.model} | _facts(encoder)
    if arguments.json:
        _print_json(facts)
        return
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        heading = f"{name.replace('_', ' '):<{width}}"
        print(heading + f"\n{'':<{width}}".join(_shown(value) or ["none"]))


def _facts(encoder: minisbert.SentenceEncoder) -> dict[str, Any]:
    config, transformer = encoder.config, encoder.config.transformer
    return {
        "folder": str(encoder.path.absolute()),
        "architecture": transformer.model_type,
        "layers": transformer.num_hidden_layers,
        "width": transformer.hidden_size,
        "heads": transformer.num_attention_heads,
        "feed_forward": transformer.intermediate_size,
        "activation": transformer.hidden_act,
        "parameters": encoder.num_parameters,
        "vocabulary": transformer.vocab_size,
        "pooling": config.pooling_mode,
        "normalize": config.normalize,
        "dimension": encoder.get_embedding_dimension(),
        "max_seq_length": encoder.max_seq_length,
        "max_positions": transformer.max_tokens,
        "similarity": encoder.similarity_fn_name,
        "prompts": encoder.prompts,
        "default_prompt": encoder.default_prompt_name,
        "backend": encoder.backend,
        "threads": encoder.num_threads,
        "dtype": str(encoder.dtype),
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    names = ["numpy", "tokenizers", "safetensors", "numba"]
    installed = {name: metadata.version(name) for name in names if find_spec(name)}
    return {"minisbert": minisbert.__version__, "python": platform.python_version()} | installed


def _shown(value: Any) -> list[str]:
    """Write a fact for people, in one line or more."""
    if isinstance(value, dict):
        return [f"{key}: {item}" for key, item in value.items() if item]
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    return [f"{value:,}" if isinstance(value, int) else str(value or "none")]


# --- what the commands share ---------------------------------------------------------------------------------


def _load(arguments: argparse.Namespace) -> minisbert.SentenceEncoder:
    encoder = minisbert.load(arguments.model, backend=arguments.backend, num_threads=arguments.threads)
    length = getattr(arguments, "max_seq_length", None)  # not every command has the option
    if length is not None:
        encoder.max_seq_length = length
    return encoder


def _encode_records(
    encoder: minisbert.SentenceEncoder,
    run: Callable[..., textio.Vectors],
    prompt: str,
    source: textio.Source,
    arguments: argparse.Namespace,
) -> Iterator[tuple[list[textio.Record], textio.Vectors]]:
    """Encode a source chunk by chunk with ``run``, which puts ``prompt`` before each text.

    The encoder names a text that is too long by its place in the chunk, and people want its line. So the tokens
    of a chunk that has such texts are counted once more.
    """
    limit = encoder.max_seq_length
    options = {"batch_size": arguments.batch_size, "truncation": arguments.truncation}
    number_cut, first_cut = 0, 0
    for records in textio.chunks(textio.read_records(source)):
        try:
            with warnings.catch_warnings(record=True) as caught:
                vectors = run([record.text for record in records], show_progress_bar=False, **options)
        except TruncationError as error:
            line, tokens = _too_long(encoder, prompt, records)[0]
            what = f"{tokens:,} tokens, more than {limit:,}; split the text, or choose --truncation warn"
            raise textio.TextFileError(f"{source.name}, line {line}: {what}") from error
        for warning in caught:
            if warning.category is TruncationWarning:
                cut = _too_long(encoder, prompt, records)
                number_cut, first_cut = number_cut + len(cut), first_cut or cut[0][0]
            else:
                _tell(f"warning: {warning.message}")
        yield records, vectors
    if number_cut:
        what = f"texts cut to {limit:,} tokens: {number_cut:,}, the first on line {first_cut}"
        _tell(f"warning: {source.name}: {what}")


def _too_long(
    encoder: minisbert.SentenceEncoder, prompt: str, records: Sequence[textio.Record]
) -> list[tuple[int, int]]:
    """Return the line and the number of tokens of each text that is longer than the encoder reads."""
    counts = encoder.token_counts([prompt + record.text for record in records]).tolist()
    pairs = zip(records, counts, strict=True)
    return [(record.line, count) for record, count in pairs if count > encoder.max_seq_length]


@contextmanager
def _progress(source: textio.Source, arguments: argparse.Namespace) -> Iterator[Callable[[int], None]]:
    """Show on a terminal how many texts are done, how fast, and how much of the file that is."""
    show = sys.stderr is not None and sys.stderr.isatty() and not arguments.quiet
    start, done = time.monotonic(), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if show:
            rate = done / max(time.monotonic() - start, 1e-9)
            share = f", {source.handle.tell() / source.end:.0%} of the file" if source.end else ""
            sys.stderr.write(f"{CLEAR_LINE}{done:,} texts, {rate:,.0f} a second{share}")
            sys.stderr.flush()

    try:
        advance(0)
        yield advance
    finally:
        if show:
            sys.stderr.write(CLEAR_LINE)


def _tell(message: str) -> None:
    """Say something on standard error, over a progress line if there is one."""
    if sys.stderr is not None:
        clear = CLEAR_LINE if sys.stderr.isatty() else ""
        print(f"{clear}minisbert: {' '.join(message.splitlines())}", file=sys.stderr)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


# --- the process ---------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's own) and return the exit status."""
    arguments = argparse.Namespace(debug=False)
    with _tidy_warnings(), _unwinding_signals():
        try:
            _run(argv, arguments)
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:  # the reader of standard output has seen enough, as head does
            return 141
        except (MinisbertError, OSError, MemoryError) as error:
            if arguments.debug:
                traceback.print_exc()
            _tell(f"error: {_reason(error)}")
            return 2
    return 0


def _run(argv: Sequence[str] | None, arguments: argparse.Namespace) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without Unicode is no reason to fail
    try:
        build_parser().parse_args(argv, arguments)
        arguments.run(arguments)
    finally:
        _flush_stdout()


def _flush_stdout() -> None:
    """Flush standard output; where that fails, let nothing be left for the interpreter to fail at once more."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "out of memory; a smaller --batch-size or fewer --threads need less"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


@contextmanager
def _tidy_warnings() -> Iterator[None]:
    """Show a warning as one line, and that of a text that was cut every time."""

    def show(message: Warning | str, *rest: Any, **more: Any) -> None:
        _tell(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", TruncationWarning)
        warnings.showwarning = show
        yield


@contextmanager
def _unwinding_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that no temporary file is left behind."""

    def unwind(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    main_thread = threading.current_thread() is threading.main_thread()  # others may not handle signals
    numbers = [getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")]  # Windows has no SIGHUP
    ours = [n for n in numbers if main_thread and n and signal.getsignal(n) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, unwind)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
