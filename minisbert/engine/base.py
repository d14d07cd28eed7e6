"""What `SentenceEncoder` and `CrossEncoder` have in common: loading, limits, prompts, pickling."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import DTypeLike

from minisbert import model
from minisbert.arrays import Floats, Ints
from minisbert.checkpoint import hub
from minisbert.checkpoint.config import TextConfig
from minisbert.checkpoint.files import watch_files
from minisbert.checkpoint.modules import TOKENS
from minisbert.checkpoint.stored import weights_files
from minisbert.engine.arguments import check_choice, check_integer, resolve_dtype
from minisbert.engine.collect import Progress
from minisbert.engine.workers import Compute, compute_chunks
from minisbert.errors import CheckpointError, CheckpointNotFoundError, EncodeValueError, shown
from minisbert.kernels import BACKENDS, Kernels, Recorded, select
from minisbert.kernels.cpus import resolve_num_threads
from minisbert.text.base import TextTokenizer, TokenIds
from minisbert.weights import Weights

__all__ = ["TextModel"]


T = TypeVar("T", bound="TextModel")
# What was loaded, for as long as anybody computes with it: by class, folder, backend and dtype.
_loaded: WeakValueDictionary[tuple[Any, ...], Any] = WeakValueDictionary()


class TextModel(ABC):
    """A checkpoint, ready to compute; what it turns texts into is the subclass's affair.

    What is loaded never changes, and is in memory once: every encoder, also a copy or an unpickled one, is a shallow
    copy of one original, with the same weights and settings of its own.
    """

    # What one input is called in messages, and which attributes, set by whoever uses it, a pickle keeps.
    ITEM: ClassVar[str]
    SETTINGS: ClassVar[tuple[str, ...]]

    config: TextConfig
    prompts: dict[str, str]
    _tokenizer: TextTokenizer
    _weights: Weights

    def __init__(
        self,
        folder: Path,
        *,
        backend: str = "auto",
        dtype: DTypeLike | None = None,
        num_threads: int | None = None,
    ) -> None:
        self._share(Path(folder), backend, dtype, num_threads)

    def _share(self, folder: Path, backend: str, dtype: DTypeLike | None, num_threads: int | None) -> None:
        """Take the settings of a checkpoint, and its weights from wherever they are."""
        self._backend = backend
        self.num_threads = num_threads
        check_choice("backend", backend, ("auto", *BACKENDS))
        found = resolve_dtype(dtype, folder)
        # Absolute, as the working folder may change.
        self._original = _find(type(self), folder.absolute(), select(backend, found), found, self.num_threads)
        self._take(self._original)

    def _take(self, other: TextModel) -> None:
        """Share all that another one has, except `prompts`, the only setting that can be changed in place."""
        vars(self).update(vars(other))
        self.prompts = copy.copy(other.prompts)

    def _open(self, folder: Path, kernels: Kernels, dtype: str, num_threads: int) -> None:
        """Read a checkpoint, and be the original of all that use it."""
        self._kernels, self.dtype = kernels, dtype
        # What all but the weights, and what is multiplied by them, is in: results too.
        self._float: np.dtype[Any] = np.dtype(np.float64 if dtype == "float64" else np.float32)
        self._plans: dict[str, Recorded] = {}
        # With two threads the other one may be busy: see `workers.meanwhile`.
        with watch_files() as self._files, kernels.threads(num_threads - 1):
            self.num_parameters = self._read(folder, num_threads)
        self._files.give_back()
        self.max_seq_length = self.config.max_seq_length
        self.prompts = dict(self.config.prompts)
        self.default_prompt_name = self.config.default_prompt_name

    @abstractmethod
    def _read(self, folder: Path, num_threads: int) -> int:
        """Read the checkpoint's settings, weights and tokenizer; return how many weights there are."""

    @property
    def path(self) -> Path:
        """The checkpoint folder."""
        return self.config.folder

    @property
    def fingerprint(self) -> str:
        """A hash of the checkpoint's files, names and contents: equal for equal checkpoints, wherever they are.

        Raises
        ------
        CheckpointError
            If a file was changed or removed since, so that nothing can be said of the one that was read.
        """
        return self._files.fingerprint(self.path)

    @property
    def arithmetic(self) -> str:
        """What a layer's weights are multiplied as: "float32" where this processor has to widen them."""
        return self._kernels.arithmetic(self.dtype, self.config.transformer.hidden_size)

    @property
    def backend(self) -> str:
        """The name of the backend that computes."""
        return self._kernels.NAME

    @property
    def max_seq_length(self) -> int:
        """How many tokens of an input are read, special ones included; it can be set.

        Raises
        ------
        EncodeValueError
            If it is set to more than the checkpoint has positions for, or to less than the special tokens.
        """
        return self._max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        most = self.config.transformer.max_tokens
        least = max(1, self._tokenizer.num_special)
        if not least <= check_integer("max_seq_length", value) <= most:
            raise EncodeValueError(
                f"max_seq_length is {shown(value)}; expected {least} to {most} for this checkpoint"
            )
        self._max_seq_length = int(value)

    @property
    def num_threads(self) -> int:
        """How many worker threads there are; it can be set, and None stands for what `load` takes by default.

        Raises
        ------
        EncodeTypeError, EncodeValueError
            If it is set to anything but a positive integer or None.
        """
        return self._num_threads

    @num_threads.setter
    def num_threads(self, value: int | None) -> None:
        self._num_threads = resolve_num_threads(value)
        self._default_threads = value is None

    def __repr__(self) -> str:
        c = self.config.transformer
        return (
            f"{type(self).__name__}({str(self.path)!r}: {c.model_type}, {c.num_hidden_layers} layers, width "
            f"{c.hidden_size}, max_seq_length {self.max_seq_length}, {self.dtype}, {self.backend})"
        )

    def __copy__(self: T) -> T:
        twin = type(self).__new__(type(self))
        twin._take(self)
        return twin

    def __deepcopy__(self: T, memo: dict[int, Any]) -> T:
        twin = copy.copy(self)
        for name in self.SETTINGS:
            setattr(twin, name, copy.deepcopy(getattr(self, name), memo))
        return twin

    def __getstate__(self) -> dict[str, Any]:
        """Pickle where the checkpoint is, which it is and what was set, not the weights.

        The default number of threads is pickled as None, so that the machine that unpickles it chooses.
        """
        name, revision = hub.name_and_commit(self.path) or (None, None)
        num_threads = None if self._default_threads else self.num_threads
        return {
            "folder": str(self.path),
            "name": name,
            "revision": revision,
            "fingerprint": self.fingerprint,
            "arguments": (self._backend, self.dtype, num_threads),
            "settings": {name: getattr(self, name) for name in self.SETTINGS},
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        try:
            self._share(Path(state["folder"]), *state["arguments"])
        except CheckpointNotFoundError:  # on another machine, or where the cache was moved
            if state.get("name") is None:
                raise
            self._share(hub.at_commit(state["name"], state["revision"]), *state["arguments"])
        if "fingerprint" in state and state["fingerprint"] != self.fingerprint:
            raise CheckpointError(
                f"{self.path}: is not the checkpoint that this {type(self).__name__} was pickled with: its weights or "
                "settings were replaced since. Put those back, or load the checkpoint that is there now and make the "
                "pickle anew"
            )
        for name, value in state["settings"].items():
            setattr(self, name, value)

    def _results(
        self, chunks: Iterable[list[TokenIds]], compute: Compute, batch_size: int, progress: Progress
    ) -> Generator[list[Floats], None, None]:
        """Yield the results of each chunk of token ids, in order: to be closed, as `workers.compute_chunks` says."""
        width = max(3 * self.config.transformer.hidden_size, self.config.transformer.intermediate_size)
        return compute_chunks(chunks, compute, self._kernels, self.num_threads, batch_size, width, progress)

    def _states(self, ids: Ints, types: Ints, offsets: Ints) -> Floats:
        """Compute the states (N, D) that come out of the last layer."""
        plan = self._plans.get(TOKENS) or self._record(TOKENS, model.last_states)
        return plan(ids, types, offsets)

    def _record(self, feature: str, function: Callable[..., Floats], **others: Any) -> Recorded:
        """Record the plan of a function of `model`, once it is needed: for all copies too, which share all plans.

        Two threads may both record it at once; either plan is right.
        """
        given = {"weights": self._weights, "config": self.config.transformer, **others}
        plan = self._plans[feature] = self._kernels.record(partial(function, **given))
        return plan

    def _refuse_overflow(self, results: Iterable[Floats], first: int, other_reason: str = "") -> None:
        """Refuse results of which one is not finite; the first of them is of input `first`."""
        for index, result in enumerate(results, first):
            if not np.isfinite(result).all():
                path, _ = weights_files(self.config.transformer_folder, self.config.transformer.is_int8)
                raise CheckpointError(
                    f"{path}: gives NaN or infinity for {self.ITEM} "
                    f"{index}; the weights are too large for {self.dtype}{other_reason}"
                )


def _find(kind: type[T], folder: Path, kernels: Kernels, dtype: str, num_threads: int) -> T:
    """Return the loaded original of a folder if its files are unchanged, or load it.

    There is no lock, as one could deadlock in a signal's handler or after a fork: two threads that load one checkpoint
    at the same time both read it, and both get the one that was there first.
    """
    key = kind, folder, kernels.NAME, dtype

    def find() -> T | None:
        found: T | None = _loaded.get(key)
        return None if found is None or found._files.first_changed() else found

    original = find()
    if original is None:
        new = kind.__new__(kind)
        new._open(folder, kernels, dtype, num_threads)
        original = _loaded[key] = find() or new
    return original
