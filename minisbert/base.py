"""What `SentenceEncoder` and `CrossEncoder` have in common: loading, limits, prompts, pickling."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from minisbert import model
from minisbert.arguments import check_choice, check_dtype, check_integer
from minisbert.batching import Progress, tokens_per_batch
from minisbert.config import TextConfig
from minisbert.errors import CheckpointError, EncodeValueError, shown
from minisbert.kernels import BACKENDS, Floats, Ints, Kernels, Ready, select
from minisbert.threads import resolve_num_threads
from minisbert.tokenization import TextTokenizer, TokenIds
from minisbert.workers import Prepare, run

__all__ = ["TextModel"]


class TextModel(ABC):
    """A checkpoint, ready to compute; what it turns texts into is the subclass's affair."""

    # What one input is called in messages, and which attributes, set by whoever uses it, a pickle keeps.
    ITEM: ClassVar[str]
    SETTINGS: ClassVar[tuple[str, ...]]

    config: TextConfig
    _tokenizer: TextTokenizer
    _weights: model.Weights

    def __init__(
        self,
        folder: Path,
        *,
        backend: str = "auto",
        dtype: DTypeLike = np.float32,
        num_threads: int | None = None,
    ) -> None:
        self._open(folder, backend, dtype, num_threads)

    def _open(self, folder: Path, backend: str, dtype: DTypeLike, num_threads: int | None) -> None:
        self.dtype = check_dtype(dtype)
        check_choice("backend", backend, ("auto", *BACKENDS))
        self.num_threads = num_threads
        self._kernels: Kernels = select(backend, self.dtype)
        # The first time, getting the kernels takes longer than reading the files.
        with ThreadPoolExecutor(1, "minisbert") as pool:
            ready = pool.submit(self._kernels.prepare)
            self.num_parameters = self._read(Path(folder))
        ready.result()
        states = partial(model.last_states, weights=self._weights, config=self.config.transformer)
        self._states = self._kernels.program(states)
        self.max_seq_length = self.config.max_seq_length
        self.prompts = dict(self.config.prompts)
        self.default_prompt_name = self.config.default_prompt_name

    @abstractmethod
    def _read(self, folder: Path) -> int:
        """Read the checkpoint's settings, weights and tokenizer; return how many weights there are."""

    @property
    def path(self) -> Path:
        """The checkpoint folder."""
        return self.config.folder

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

    def __repr__(self) -> str:
        c = self.config.transformer
        return (
            f"{type(self).__name__}({str(self.path)!r}: {c.model_type}, {c.num_hidden_layers} layers, width "
            f"{c.hidden_size}, max_seq_length {self.max_seq_length}, {self.dtype}, {self.backend})"
        )

    def __getstate__(self) -> dict[str, Any]:
        """Pickle where the checkpoint is and what was set, not the weights: the copy reads them again."""
        return {
            "folder": self.path.absolute(),
            "arguments": (self.backend, self.dtype.name, self.num_threads),
            "settings": {name: getattr(self, name) for name in self.SETTINGS},
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._open(state["folder"], *state["arguments"])
        for name, value in state["settings"].items():
            setattr(self, name, value)

    def _run(
        self,
        chunks: Iterable[list[TokenIds]],
        program: Ready | None,
        prepare: Prepare,
        batch_size: int,
        progress: Progress,
        consume: Callable[[list[Floats]], None],
    ) -> None:
        """Compute all chunks of inputs, as `workers.run` does; a single input's helpers wake while it is tokenised."""

        def expect(rows: list[TokenIds]) -> None:
            if program is not None:
                with self._kernels.threads(self.num_threads):
                    program.expect(*self._tokens(rows))

        c = self.config.transformer
        most_tokens = tokens_per_batch(max(3 * c.hidden_size, c.intermediate_size))
        with self._kernels.threads(self.num_threads if progress.total == 1 else 1):
            run(chunks, expect, prepare, batch_size, self.num_threads, most_tokens, progress, consume)

    @abstractmethod
    def _tokens(self, rows: list[TokenIds]) -> tuple[Ints, Ints]:
        """Join the rows of a chunk or a micro-batch: the ids and types (N,) of all tokens."""

    def _check_batch(self, batch_size: int, truncation: str) -> None:
        """Check what every computation is told."""
        check_choice("truncation", truncation, ("warn", "silent", "error"))
        if check_integer("batch_size", batch_size) < 1:
            raise EncodeValueError(f"batch_size is {shown(batch_size)}; expected at least 1")

    def _check_finite(self, finite: ArrayLike, first: int, other_reason: str = "") -> None:
        """Refuse results if not all of them are finite; the first of them is of input `first`."""
        finite = np.asarray(finite)
        if not finite.all():
            raise CheckpointError(
                f"{self.config.transformer_folder / 'model.safetensors'}: gives NaN or infinity for {self.ITEM} "
                f"{first + finite.argmin()}; the weights are too large for {self.dtype}{other_reason}"
            )
