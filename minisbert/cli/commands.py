"""The ``minisbert`` command: what its commands do. `minisbert.cli.options` has their options.

Results go to standard output, all else to standard error. Exit status: 0 done, 1 done and a check failed, 2 an error
(one line, no traceback unless ``--debug``). A signal that ends the process is what the process ends by: shells say
128 + n. An exception that nobody foresaw is a bug and shows its traceback.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import minisbert
from minisbert.cli import process, report, textio, writers
from minisbert.cli.options import UsageError, build_parser
from minisbert.cli.report import Ranked, print_json, print_lines, tell
from minisbert.cli.textio import Reading, Record, Source
from minisbert.engine.base import TextModel
from minisbert.errors import MinisbertError, TruncationError, TruncationWarning
from minisbert.kernels.levels import CHOSEN

__all__ = ["main"]

# A method of a model, with all its options but the texts and the progress: mostly it gives vectors.
Encode = Callable[..., Any]


# --- the commands --------------------------------------------------------------------------------------------


def encode(arguments: argparse.Namespace) -> None:
    """Write the vector of every text of a file."""
    is_bits, may_miss = arguments.precision != "float32", arguments.on_bad_lines == "null"
    writers.check_output(arguments.output, arguments.input, is_bits and may_miss)
    with _open(arguments) as source:
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
        with writers.open_output(arguments.output, empty) as append:
            for records, _, vectors in _encode_source(encoder, run, source, arguments.quiet):
                append([record.text for record in records], vectors)
                rows += len(records)
    if arguments.output != "-" and not arguments.quiet:
        tell(f"{arguments.output}: {rows:,} x {empty.shape[1]:,} {empty.dtype}")


def similarity(arguments: argparse.Namespace) -> None:
    """Print how similar each text is to each other one."""
    texts = arguments.texts
    if len(texts) < 2:
        raise UsageError("two or more texts are needed, found one (see minisbert similarity --help)")
    encoder = _load(arguments)
    records = [Record(number, text) for number, text in enumerate(texts, 1)]
    [(*_, vectors)] = _encode_chunks(encoder, encoder.encode, [records], "text {}".format)
    scores = encoder.similarity(vectors, vectors).tolist()
    if arguments.json:
        name = encoder.similarity_fn_name
        print_json([{"texts": texts, "similarity_fn_name": name, "similarities": scores}], indent=2)
    else:
        print_lines(report.similarity_table(texts, scores))


def search(arguments: argparse.Namespace) -> None:
    """Print the texts of a file that are most similar to a query."""
    best: Ranked = []
    with _open(arguments) as source:
        encoder = _load(arguments)
        options = {"batch_size": arguments.batch_size, "truncation": arguments.truncation}
        run = partial(encoder.encode_query, **options)
        record = Record(1, arguments.query)
        [(*_, query)] = _encode_chunks(encoder, run, [[record]], lambda line: "the query")
        run = partial(encoder.encode_document, **options)
        for _, records, vectors in _encode_source(encoder, run, source, arguments.quiet):
            scores = encoder.similarity(query, vectors)[0].tolist()
            best = _merge(best, zip(scores, records, strict=True), arguments.k)
    _print_ranked(best, arguments.json, source.name)


def rerank(arguments: argparse.Namespace) -> None:
    """Print the texts of a file that a cross-encoder finds most relevant to a query."""
    best: Ranked = []
    with _open(arguments) as source:
        model = _load(arguments, minisbert.load_cross_encoder)
        run = partial(
            model.rank, arguments.query, batch_size=arguments.batch_size, truncation=arguments.truncation
        )
        for _, records, results in _encode_source(model, run, source, arguments.quiet):
            found = ((result["score"], records[result["corpus_id"]]) for result in results)
            best = _merge(best, found, arguments.k)
    _print_ranked(best, arguments.json, source.name)


def info(arguments: argparse.Namespace) -> None:
    """Print what the model is and how it is run."""
    facts = {"model": arguments.model} | _facts(_load(arguments))
    if arguments.json:
        print_json([facts], indent=2)
        return
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        heading = f"{name.replace('_', ' '):<{width}}"
        print_lines([heading + f"\n{'':<{width}}".join(_shown(value) or ["none"])])


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


def train(arguments: argparse.Namespace) -> None:
    """Fine-tune a model on rows of texts."""
    from minisbert.cli.train import train  # not needed by every command

    train(arguments)


COMMANDS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "encode": encode,
    "similarity": similarity,
    "search": search,
    "rerank": rerank,
    "info": info,
    "check": check,
    "train": train,
}


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
        "modules": ["Transformer", *map(str, config.modules)],
        "dimension": encoder.get_embedding_dimension(),
        "max_seq_length": encoder.max_seq_length,
        "max_positions": transformer.max_tokens,
        "similarity": encoder.similarity_fn_name,
        "prompts": encoder.prompts,
        "default_prompt": encoder.default_prompt_name,
        "backend": encoder.backend,
        "threads": encoder.num_threads,
        "dtype": encoder.dtype,
        "arithmetic": encoder.arithmetic,
        "cache": _cache(),
        "kernels": CHOSEN if encoder.backend in ("native", "jit") else None,  # the level of the processor
        "versions": _versions(),
    }


def _cache() -> str | None:
    """Return where checkpoints that are fetched by name are kept; None where they can't be fetched."""
    if find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub.constants import HF_HUB_CACHE  # not needed by every command

    return HF_HUB_CACHE


def _versions() -> dict[str, str]:
    names = ["numpy", "tokenizers", "safetensors", "numba"]
    installed = {name: _version(name) for name in names if find_spec(name)}
    return {"minisbert": minisbert.__version__, "python": platform.python_version()} | installed


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:  # as where an image was made small by deleting what pip wrote down
        return "unknown"


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
    encoder = load(
        arguments.model, backend=arguments.backend, dtype=arguments.dtype, num_threads=arguments.threads
    )
    if arguments.max_seq_length is not None:
        encoder.max_seq_length = arguments.max_seq_length
    return encoder


@contextmanager
def _open(arguments: argparse.Namespace) -> Iterator[Source]:
    """Open the input; a file is read through at once, so that nothing is computed in vain if its last line is bad."""
    asked = Reading(*(getattr(arguments, name) for name in Reading._fields))
    with textio.open_source(arguments.input, asked) as source:
        if source.start is not None:
            with report.progress("Reading", None, arguments.quiet) as update:
                source.count(update)
        yield source


def _merge(best: Ranked, found: Iterable[tuple[float, Record]], k: int) -> Ranked:
    """Keep the best k of what was found before and now, leaving out blank texts."""
    texts = [(score, record) for score, record in found if record.text and record.text.strip()]
    # Sorting is stable: of equal scores, the one that comes first in the file stays first.
    return sorted([*best, *texts], key=lambda pair: -pair[0])[:k]


def _print_ranked(best: Ranked, as_json: bool, source: str) -> None:
    if not best:
        tell(f"warning: {source}: there is no text to search")
    elif as_json:
        print_json(report.ranked_objects(best))
    else:
        print_lines(report.ranked_table(best))


def _encode_source(
    encoder: TextModel, run: Encode, source: Source, quiet: bool
) -> Iterator[tuple[list[Record], list[Record], Any]]:
    """Encode the texts of a file as `_encode_chunks` does, show how far that is, and say which lines were bad."""
    with report.progress("Encoding", source.total, quiet) as update:
        yield from _encode_chunks(encoder, run, textio.chunks(source.records()), source.place, update)
    if source.bad_lines:
        tell(f"warning: {source.say_bad_lines()}")


def _encode_chunks(
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
        return COMMANDS[arguments.command](arguments) or 0
    finally:
        process.flush_stdout()


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "out of memory; a smaller --batch-size or fewer --threads need less"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
