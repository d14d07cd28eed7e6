"""The ``minisbert`` command: what its commands do. `minisbert.options` has their options.

Results go to standard output, all else to standard error. Exit status: 0 done, 1 done and a check failed, 2 an error
(one line, no traceback unless ``--debug``), 128 + n ended by signal n. An exception that nobody foresaw is a bug and
shows its traceback.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from types import FrameType
from typing import Any, NoReturn

import minisbert
from minisbert import textio
from minisbert.base import TextModel
from minisbert.errors import MinisbertError, TruncationError, TruncationWarning
from minisbert.options import UsageError, build_parser
from minisbert.textio import Record

__all__ = ["main"]

Encode = Callable[
    ..., Any
]  # a method of a model, with all its options but the texts: mostly it gives vectors
Ranked = list[tuple[float, Record]]  # scores, best first, and what they are of


# --- the commands --------------------------------------------------------------------------------------------


def encode(arguments: argparse.Namespace) -> None:
    """Write the vector of every text of a file."""
    textio.check_output(arguments.output, arguments.input)
    with textio.open_source(arguments.input, arguments.format, arguments.field) as source:
        encoder = _load(arguments)
        run = partial(
            encoder.encode,
            batch_size=arguments.batch_size,
            truncation=arguments.truncation,
            prompt=arguments.prompt,
            prompt_name=arguments.prompt_name,
            normalize_embeddings=arguments.normalize,
            truncate_dim=arguments.truncate_dim,
            precision=arguments.precision,
        )
        rows, empty = 0, run([])  # the width and the dtype, and the first complaint about the arguments
        chunks = _read_chunks(source, arguments.quiet)
        with textio.open_output(arguments.output, empty) as append:
            for records, vectors in _encode_chunks(encoder, run, chunks, source.place):
                append([record.text for record in records], vectors)
                rows += len(records)
    if arguments.output != "-" and not arguments.quiet:
        _tell(f"{arguments.output}: {rows:,} x {empty.shape[1]:,} {empty.dtype}")


def similarity(arguments: argparse.Namespace) -> None:
    """Print how similar each text is to each other one."""
    texts = arguments.texts
    if len(texts) < 2:
        raise UsageError("two or more texts are needed, found one (see minisbert similarity --help)")
    encoder = _load(arguments)
    records = [Record(number, text) for number, text in enumerate(texts, 1)]
    [(_, vectors)] = _encode_chunks(encoder, encoder.encode, [records], "text {}".format)
    scores = encoder.similarity(vectors, vectors).tolist()
    if arguments.json:
        name = encoder.similarity_fn_name
        _print_json({"texts": texts, "similarity_fn_name": name, "similarities": scores})
    else:
        print(*textio.similarity_table(texts, scores), sep="\n")


def search(arguments: argparse.Namespace) -> None:
    """Print the texts of a file that are most similar to a query."""
    best: Ranked = []
    with textio.open_source(arguments.input, arguments.format, arguments.field) as source:
        encoder = _load(arguments)
        options = {"batch_size": arguments.batch_size, "truncation": arguments.truncation}
        run = partial(encoder.encode_query, **options)
        record = Record(1, arguments.query)
        [(_, query)] = _encode_chunks(encoder, run, [[record]], lambda line: "the query")
        run = partial(encoder.encode_document, **options)
        chunks = _read_chunks(source, arguments.quiet)
        for records, vectors in _encode_chunks(encoder, run, chunks, source.place):
            scores = encoder.similarity(query, vectors)[0].tolist()
            best = _merge(best, zip(scores, records, strict=True), arguments.k)
    _print_ranked(best, arguments.json, source.name)


def rerank(arguments: argparse.Namespace) -> None:
    """Print the texts of a file that a cross-encoder finds most relevant to a query."""
    best: Ranked = []
    with textio.open_source(arguments.input, arguments.format, arguments.field) as source:
        model = _load(arguments, minisbert.load_cross_encoder)
        run = partial(
            model.rank, arguments.query, batch_size=arguments.batch_size, truncation=arguments.truncation
        )
        chunks = _read_chunks(source, arguments.quiet)
        for records, results in _encode_chunks(model, run, chunks, source.place):
            found = ((result["score"], records[result["corpus_id"]]) for result in results)
            best = _merge(best, found, arguments.k)
    _print_ranked(best, arguments.json, source.name)


def info(arguments: argparse.Namespace) -> None:
    """Print what the model is and how it is run."""
    facts = {"model": arguments.model} | _facts(_load(arguments))
    if arguments.json:
        _print_json(facts)
        return
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        heading = f"{name.replace('_', ' '):<{width}}"
        print(heading + f"\n{'':<{width}}".join(_shown(value) or ["none"]))


def check(arguments: argparse.Namespace) -> int:
    """Print what of a checkpoint is understood, ignored and refused; return 1 if it is refused, or not exact."""
    from minisbert import parity  # neither is needed by every command
    from minisbert.check import check, lines

    if arguments.against_torch:
        parity.check_installed()
    report = check(arguments.path, backend=arguments.backend, dtype=arguments.dtype)
    stages = parity.compare(report.encoder) if report.encoder and arguments.against_torch else []
    if arguments.json:
        _print_json(report.as_json() | {"stages": [stage.as_json() for stage in stages]})
    else:
        print(*lines(report, min(100, shutil.get_terminal_size().columns)), sep="\n")
    if stages and not arguments.json:
        print("", *parity.table(stages), sep="\n")
    return int(report.encoder is None or not all(stage.ok for stage in stages))


def warmup(arguments: argparse.Namespace) -> None:
    """Compile the kernels, so that no later process has to."""
    if find_spec("numba") is None:
        raise minisbert.EncodeValueError(
            "numba is not installed, so there is nothing to compile: pip install numba"
        )
    start = time.perf_counter()
    from minisbert.kernels import jit

    jit.prepare()
    where = _kernel_folder() or "nowhere: no folder can be written to, so every process compiles anew"
    print(f"{time.perf_counter() - start:.1f} s; compiled kernels are kept in {where}")


COMMANDS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "encode": encode,
    "similarity": similarity,
    "search": search,
    "rerank": rerank,
    "info": info,
    "check": check,
    "warmup": warmup,
}


def _facts(encoder: minisbert.SentenceEncoder) -> dict[str, Any]:
    from huggingface_hub.constants import HF_HUB_CACHE  # not needed by every command

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
        "modules": ["Transformer", *map(str, config.modules)],
        "dimension": encoder.get_embedding_dimension(),
        "max_seq_length": encoder.max_seq_length,
        "max_positions": transformer.max_tokens,
        "similarity": encoder.similarity_fn_name,
        "prompts": encoder.prompts,
        "default_prompt": encoder.default_prompt_name,
        "backend": encoder.backend,
        "threads": encoder.num_threads,
        "dtype": str(encoder.dtype),
        "cache": HF_HUB_CACHE,  # where checkpoints that are fetched by name are kept
        "kernels": _kernel_folder() if encoder.backend == "numba" else None,
        "versions": _versions(),
    }


def _kernel_folder() -> str | None:
    from minisbert.kernels import machine

    return None if machine.file() is None else str(machine.file())


def _versions() -> dict[str, str]:
    names = ["numpy", "tokenizers", "safetensors", "numba"]
    installed = {name: metadata.version(name) for name in names if find_spec(name)}
    return {"minisbert": minisbert.__version__, "python": platform.python_version()} | installed


def _shown(value: Any) -> list[str]:
    """Write a fact for people, in one line or more."""
    if isinstance(value, dict):
        return [f"{key}: {item}" for key, item in value.items() if item]
    if isinstance(value, list):
        return [" -> ".join(value)]
    return [f"{value:,}" if isinstance(value, int) else str(value or "none")]


# --- what the commands share ---------------------------------------------------------------------------------


def _load(arguments: argparse.Namespace, load: Callable[..., Any] = minisbert.load) -> Any:
    """Load the model: a `SentenceEncoder`, or what another function of minisbert loads."""
    encoder = load(arguments.model, backend=arguments.backend, num_threads=arguments.threads)
    if arguments.max_seq_length is not None:
        encoder.max_seq_length = arguments.max_seq_length
    return encoder


def _merge(best: Ranked, found: Iterable[tuple[float, Record]], k: int) -> Ranked:
    """Keep the best k of what was found before and now, leaving out blank texts."""
    texts = [pair for pair in found if pair[1].text.strip()]
    # Sorting is stable: of equal scores, the one that comes first in the file stays first.
    return sorted(best + texts, key=lambda pair: -pair[0])[:k]


def _print_ranked(best: Ranked, as_json: bool, source: str) -> None:
    if as_json:
        ranked = enumerate(best, 1)
        _print_json([{"rank": i, "score": s, "line": r.line, "text": r.text} for i, (s, r) in ranked])
    elif best:
        print(*textio.search_table(best), sep="\n")
    else:
        _tell(f"warning: {source}: there is no text to search")


def _read_chunks(source: textio.Source, quiet: bool) -> Iterator[list[Record]]:
    """Read a file chunk by chunk, and show on a terminal how far that is."""
    from tqdm import tqdm  # not needed by every command

    total, unit = (source.end, "B") if source.end else (None, " texts")
    hidden = True if quiet else None  # None: hidden unless this is a terminal
    with tqdm(desc="Encoding", total=total, unit=unit, unit_scale=True, disable=hidden, leave=False) as bar:
        for records in textio.chunks(textio.read_records(source)):
            yield records
            bar.update(source.handle.tell() - bar.n if source.end else len(records))


def _encode_chunks(
    encoder: TextModel,
    run: Encode,
    chunks: Iterable[list[Record]],
    place: Callable[[int], str],
) -> Iterator[tuple[list[Record], Any]]:
    """Encode texts chunk by chunk, and say at the end how many were cut.

    ``place`` turns the line of a text into what people call the text.
    """
    limit, number_cut, first_cut = encoder.max_seq_length, 0, ""
    for records in chunks:
        try:
            vectors, cut = _encode_chunk(run, [record.text for record in records])
        except TruncationError as error:
            what = f"{error.longest:,} tokens, more than {limit:,}"
            advice = "split the text, or choose --truncation warn"
            raise TruncationError(f"{place(records[error.rows[0]].line)}: {what}; {advice}") from error
        if cut:
            number_cut += len(cut)
            first_cut = first_cut or place(records[cut[0]].line)
        yield records, vectors
    if number_cut:
        more = f", and {number_cut - 1:,} more" if number_cut > 1 else ""
        _tell(f"warning: too long, cut to {limit:,} tokens: {first_cut}{more}")


def _encode_chunk(run: Encode, texts: list[str]) -> tuple[Any, tuple[int, ...]]:
    """Encode texts; return their vectors, or whatever is made of them, and the indices of those that were cut."""
    cut: tuple[int, ...] = ()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TruncationWarning)
        vectors = run(texts, show_progress_bar=False)
    for warning in caught:
        if isinstance(warning.message, TruncationWarning):
            cut = warning.message.rows
        else:
            _tell(f"warning: {warning.message}")
    return vectors, cut


def _tell(message: str) -> None:
    """Say something in one line on standard error, over a progress bar if there is one."""
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""
    print(f"{clear}minisbert: {' '.join(message.splitlines())}", file=sys.stderr)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


# --- the process ---------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's own) and return the exit status."""
    _unwind_at_signals()
    _prepare_streams()
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
        _tell(f"error: {_reason(error)}")
        return 2


def _prepare_streams() -> None:
    """Make sure that printing works: where a stream was closed, as by 2>&-, and on a terminal without Unicode."""
    sys.stdout, sys.stderr = sys.stdout or io.StringIO(), sys.stderr or io.StringIO()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _unwind_at_signals() -> None:
    """Let SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that no temporary file is left behind."""

    def unwind(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number and signal.getsignal(number) is signal.SIG_DFL:  # nohup has it ignored
            signal.signal(number, unwind)


def _run(argv: Sequence[str] | None, arguments: argparse.Namespace) -> int:
    try:
        build_parser().parse_args(argv, arguments)
        return COMMANDS[arguments.command](arguments) or 0
    finally:
        _flush_stdout()


def _flush_stdout() -> None:
    """Flush standard output; where that fails, let nothing be left for the interpreter to fail at once more."""
    try:
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
