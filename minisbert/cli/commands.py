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
from collections.abc import Callable, Sequence
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import minisbert
from minisbert.cli import process, report
from minisbert.cli.encode import encode
from minisbert.cli.models import encode_chunks, load_model
from minisbert.cli.options import UsageError, build_parser
from minisbert.cli.report import print_json, print_lines, tell
from minisbert.cli.search import rerank, search
from minisbert.cli.textio import Record
from minisbert.errors import MinisbertError
from minisbert.kernels.levels import CHOSEN

__all__ = ["main"]


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


def similar(arguments: argparse.Namespace) -> None:
    """Print the pairs of texts of a file whose vectors have at least some cosine."""
    from minisbert.cli.similar import similar  # with `minisbert.search`, which no other command needs

    similar(arguments)


def info(arguments: argparse.Namespace) -> None:
    """Print what the model is and how it is run."""
    facts = {"model": arguments.model} | _facts(load_model(arguments))
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


COMMANDS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "encode": encode,
    "similarity": similarity,
    "search": search,
    "similar": similar,
    "rerank": rerank,
    "info": info,
    "check": check,
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
