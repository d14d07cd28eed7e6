"""What of a checkpoint is understood, what is ignored and why that is safe, and what is refused.

Nothing is known here of settings and tensors: the functions that load a checkpoint are run one by one, each as far as
it gets, and are watched. What may be ignored stands in `checkpoint.ignored`, and for tensors in `checkpoint.families`.
"""

from __future__ import annotations

import os
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from minisbert.checkpoint import hub, repository
from minisbert.checkpoint.config import (
    TextConfig,
    TransformerConfig,
    check_folder,
    is_cross_encoder,
    read_sentence_config,
    read_sentence_settings,
    read_text_settings,
    read_transformer,
)
from minisbert.checkpoint.cross_config import read_cross_config
from minisbert.checkpoint.ignored import FILES, NOT_NEEDED, SETTINGS, tokenizer_keys
from minisbert.checkpoint.jsonfile import KeyLog, watch_keys
from minisbert.checkpoint.modules import Module
from minisbert.checkpoint.modules_json import Entry, read_entries, read_modules
from minisbert.checkpoint.tensors import (
    Rows,
    TensorUse,
    head_tensors,
    load_module_tensors,
    load_tensors,
    tensor_uses,
)
from minisbert.cross_encoder import CrossEncoder
from minisbert.encoder import SentenceEncoder
from minisbert.engine.base import TextModel
from minisbert.errors import CheckpointError, CheckpointNotFoundError
from minisbert.text.base import TextTokenizer
from minisbert.text.pairs import load_pair_tokenizer
from minisbert.text.steps import of_another_class
from minisbert.text.tokenizer import load_tokenizer, tokenizer_class

__all__ = ["Finding", "Report", "check", "lines"]

P = ParamSpec("P")
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

UNKNOWN_FILE = "the reference reads nothing of this name either"
UNKNOWN_KEY = "the reference has no such setting"
SKIPPED = "not looked at, because of what is refused"
COMMAND = ": python -c "  # what a message ends with, if something can be done by a command
STATUSES = ("understood", "ignored", "skipped", "refused")


@dataclass(frozen=True)
class Finding:
    """A file, a module, a group of tensors or a setting, and what became of it.

    Attributes
    ----------
    kind : {"file", "module", "tensors", "setting"}
    file : str
        The file, or the module's folder, relative to the checkpoint folder.
    name : str
        Of the module, the group or the setting; of several settings, if it takes them all to be refused.
    status : {"understood", "ignored", "skipped", "refused"}
        "skipped" is what was not reached, because something else is refused.
    detail : str
        Why; of tensors that are understood, their dtype.
    count : int
        How many tensors there are.
    """

    kind: str
    file: str
    name: str
    status: str
    detail: str = ""
    count: int = 1


@dataclass(frozen=True)
class Report:
    """All findings on a checkpoint, and the encoder if nothing was refused."""

    folder: str
    findings: tuple[Finding, ...]
    encoder: TextModel | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what `minisbert check --json` prints; ``class`` is null where the checkpoint is refused."""
        return {
            "folder": self.folder,
            "loads": self.encoder is not None,
            "class": None if self.encoder is None else type(self.encoder).__name__,
            "findings": [asdict(finding) for finding in self.findings],
        }


def check(name_or_path: str | Path, **options: Any) -> Report:
    """Load a checkpoint, and report on all that is in it.

    Parameters
    ----------
    name_or_path : str or pathlib.Path
        A folder, or a name on the Hugging Face hub.
    **options
        ``backend`` and ``dtype`` of `minisbert.load`.

    Raises
    ------
    CheckpointNotFoundError
        If there is no such folder or name.
    """
    try:
        folder = hub.resolve(name_or_path)
    except CheckpointError as error:  # refused for what the hub has, before it is fetched
        return Report(str(name_or_path), (Finding("file", "", "", "refused", str(error)),))
    check_folder(folder)
    with watch_keys() as log:
        parts = _Parts(folder)
        kind = parts.read_all()
        encoder = None if parts.problems else parts.attempt(kind, folder, **options)
        if parts.tokenizer is not None:
            log |= tokenizer_keys(parts.tokenizer)
    return Report(str(folder), tuple(_findings(parts, log)), encoder)


class _Parts:
    """What can be read of a checkpoint, whatever else in it is refused."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.problems: list[str] = []
        self.entries: tuple[Entry, ...] = ()
        self.modules: tuple[Module, ...] = ()
        self.tensors: list[TensorUse] = []
        self.tokenizer: Path | None = None
        self.model = ""  # what is odd about the tokenizer's

    def attempt(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Call a function, and note what it refuses."""
        try:
            return function(*args, **kwargs)
        except (CheckpointError, CheckpointNotFoundError) as error:
            if str(error) not in self.problems:
                self.problems.append(str(error))
            return None

    def read_all(self) -> type[TextModel]:
        """Read the settings, the modules, the tensors and the tokenizer, each by itself; return what loads them."""
        if self.attempt(is_cross_encoder, self.folder):
            self._read_cross_encoder()
            return CrossEncoder
        self.entries = self.attempt(read_entries, self.folder) or ()
        folder = self.entries[0].folder if self.entries else self.folder
        if self.entries or os.path.isfile(folder / "config.json"):  # modules.json may have it elsewhere
            transformer = self.attempt(read_transformer, folder / "config.json")
            if transformer is not None:
                self._read_modules(transformer)
                self._read_tensors(folder, transformer)
                self._read_tokenizer(folder, transformer)
        return SentenceEncoder

    def _read_cross_encoder(self) -> None:
        config = self.attempt(read_cross_config, self.folder)
        if config is not None:
            head = tuple(head_tensors(config.transformer, config.num_labels))
            kind = f"Transformer with {config.num_labels} label{'s' * (config.num_labels > 1)}, {config.activation_fn}"
            self.entries = (Entry(kind, config.transformer_folder),)
            self._read_tensors(config.transformer_folder, config.transformer, head)
            self._note_tokenizer(config, self.attempt(load_pair_tokenizer, config))

    def _read_modules(self, transformer: TransformerConfig) -> None:
        sizes = transformer.hidden_size, transformer.num_hidden_layers
        found = self.attempt(read_modules, self.folder, self.entries, *sizes) if self.entries else None
        self.modules, width = found or ((), transformer.hidden_size)
        self.attempt(read_sentence_settings, self.folder / "config_sentence_transformers.json", width)

    def _read_tensors(self, folder: Path, transformer: TransformerConfig, head: Rows = ()) -> None:
        found = self.attempt(list, tensor_uses(folder, transformer, head))
        if found is not None:
            self.tensors = found
            self.attempt(load_tensors, folder, transformer, head)
        for module in self.modules:
            for name in self.attempt(load_module_tensors, module) or ():
                path, role = module.folder / repository.WEIGHTS, f"{type(module).__name__}.{name}"
                self.tensors.append(TensorUse(path, name, "", role))

    def _read_tokenizer(self, folder: Path, transformer: TransformerConfig) -> None:
        settings = self.attempt(read_sentence_config, folder)
        limits = settings and self.attempt(read_text_settings, settings, transformer, "feature-extraction")
        if limits:
            config = TextConfig(
                folder=self.folder,
                transformer_folder=folder,
                transformer=transformer,
                max_seq_length=limits[0],
                do_lower_case=limits[1],
            )
            self._note_tokenizer(config, self.attempt(load_tokenizer, config))

    def _note_tokenizer(self, config: TextConfig, tokenizer: TextTokenizer | None) -> None:
        if tokenizer is not None:
            self.tokenizer = tokenizer.path
            self.model = of_another_class(tokenizer.library, tokenizer_class(config))


# --- findings ------------------------------------------------------------------------------------------------


def _findings(parts: _Parts, log: KeyLog) -> Iterator[Finding]:
    refused = [_refusal(parts.folder, problem, log) for problem in parts.problems]
    yield from _files(parts, log, {finding.file for finding in refused})
    yield from _modules(parts)
    yield from _tensors(parts)
    yield from _settings(parts, log, refused)
    yield from refused


def _refusal(folder: Path, problem: str, log: KeyLog) -> Finding:
    """Find out what a message is about: it begins with the file, and calls keys by their names."""
    start = f"{folder}{os.sep}"
    if not problem.startswith(start):
        return Finding("file", "", "", "refused", problem)
    file, _, what = problem.removeprefix(start).partition(": ")
    keys = [key for key in log.get(folder / file, ()) if re.search(rf"\b{re.escape(key)}\b", what)]
    kind = "setting" if keys else "tensors" if file.endswith((".safetensors", repository.INDEX)) else "file"
    return Finding(kind, Path(file).as_posix(), ", ".join(keys), "refused", what)


def _files(parts: _Parts, log: KeyLog, refused: set[str]) -> Iterator[Finding]:
    """Yield the files of the folder and of its modules' folders; of other folders the names."""
    read = {*log, *(use.path for use in parts.tensors)}
    modules = [entry.folder for entry in parts.entries if os.path.isdir(entry.folder)]
    places = {parts.folder, *modules, *(place for module in modules for place in module.parents)}
    for place in sorted(place for place in places if place.is_relative_to(parts.folder)):
        for item in sorted(os.scandir(place), key=lambda item: item.name):
            path = Path(item.path)
            file = _relative(path, parts.folder)
            if path in read:
                yield Finding("file", file, "", "understood")
            elif path not in places and file not in refused:
                yield _unread_file(f"{file}/" if item.is_dir() else file, bool(parts.problems))


def _unread_file(file: str, problems: bool) -> Finding:
    name = Path(file).name.lower()
    fitting = (why for why, names in FILES.items() if any(fnmatchcase(name, n) for n in names))
    why = next(fitting, UNKNOWN_FILE)
    if problems and why is NOT_NEEDED:
        return Finding("file", file, "", "skipped", SKIPPED)
    return Finding("file", file, "", "ignored", why)


def _modules(parts: _Parts) -> Iterator[Finding]:
    for entry in parts.entries[:1]:
        yield Finding("module", _relative(entry.folder, parts.folder), entry.kind, "understood")
    for module in parts.modules:
        yield Finding("module", _relative(module.folder, parts.folder), str(module), "understood")
    for entry in parts.entries[1:] if not parts.modules else ():
        yield Finding("module", _relative(entry.folder, parts.folder), entry.kind, "skipped", SKIPPED)


def _tensors(parts: _Parts) -> Iterator[Finding]:
    found: Counter[tuple[str, str, str, str]] = Counter()
    for use in parts.tensors:
        file = _relative(use.path, parts.folder)
        if use.role is not None:
            found[file, use.role.partition(".")[0], "understood", use.dtype] += 1
        elif use.ignored is not None:
            found[file, use.start, "ignored", use.ignored] += 1
    for key, count in found.items():
        yield Finding("tensors", *key, count)


def _settings(parts: _Parts, log: KeyLog, refused: Iterable[Finding]) -> Iterator[Finding]:
    for path, keys in log.items():
        file = _relative(path, parts.folder)
        named = {name for finding in refused if finding.file == file for name in finding.name.split(", ")}
        for key, asked in keys.items():
            if not asked and (key in SETTINGS or not parts.problems):
                yield Finding("setting", file, key, "ignored", SETTINGS.get(key, UNKNOWN_KEY))
            elif not asked:
                yield Finding("setting", file, key, "skipped", SKIPPED)
            elif key not in named:
                odd = parts.model if (path, key) == (parts.tokenizer, "model") else ""
                yield Finding("setting", file, key, "understood", odd)


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


# --- text ----------------------------------------------------------------------------------------------------


def lines(report: Report, columns: int) -> Iterator[str]:
    """Yield the lines of a report for people: what is refused comes last, where the eye is."""
    by_status = sorted(report.findings, key=lambda finding: STATUSES.index(finding.status))
    refused = [finding for finding in by_status if finding.status == "refused"]
    for heading, findings in _grouped(by_status[: len(by_status) - len(refused)], _heading):
        yield heading
        for (status, detail), group in _grouped(findings, lambda finding: (finding.status, finding.detail)):
            names = (" -> " if heading == "modules" else ", ").join(map(_label, group))
            yield from _wrap(f"{names}: {detail}" if detail else names, columns, f"  {status:<12}")
    if report.encoder is not None:
        yield f"loads: {report.encoder!r}"
    else:
        yield f"refused, for {len(refused)} reason{'s' * (len(refused) > 1)}"
    for finding in refused:
        text, found, command = ": ".join(filter(None, (finding.file, finding.detail))).partition(COMMAND)
        yield from _wrap(text + found[:1], columns, "  - ")
        yield from [f"    {found[2:]}{command}"] if found else ()  # in one line, to be copied


def _grouped(items: Iterable[T], key: Callable[[T], K]) -> Iterator[tuple[K, list[T]]]:
    """Put items of one key together, in the order in which the keys come first."""
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return iter(groups.items())


def _heading(finding: Finding) -> str:
    if finding.kind in ("file", "module"):
        return f"{finding.kind}s"
    return f"{finding.kind.removesuffix('s')}s of {finding.file}"


def _label(finding: Finding) -> str:
    name = finding.name or finding.file
    return f"{name} ({finding.count})" if finding.kind == "tensors" else name


def _wrap(text: str, columns: int, start: str) -> list[str]:
    printable = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return textwrap.wrap(
        printable, columns, initial_indent=start, subsequent_indent=" " * len(start),
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
