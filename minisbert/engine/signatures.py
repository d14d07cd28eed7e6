"""What callers may pass, and what they get: for type checkers, and for the checks of what sentence-transformers takes.

For some arguments of sentence-transformers minisbert has no use. Those that are annotated with values are accepted with
these, which change nothing here, so that code written for it runs; any other value is refused, with what to do instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeAlias, TypedDict, cast, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from typing_extensions import Unpack  # which Python's own typing has from 3.11 on

__all__ = ["EncodeOptions", "LoadOptions", "PredictOptions", "RankOptions", "Vector", "Vectors", "encoding"]

Vector: TypeAlias = "np.ndarray[tuple[int], np.dtype[Any]]"  # (D,)
Vectors: TypeAlias = "np.ndarray[tuple[int, int], np.dtype[Any]]"  # (S, D), or (T, D)
# Collections of texts; not Iterable[str], which a single string is too.
Texts: TypeAlias = "list[str] | tuple[str, ...] | Iterator[str] | NDArray[Any]"
Sentence: TypeAlias = Literal["sentence_embedding"]
Tokens: TypeAlias = Literal["token_embeddings"]

_ARRAYS = "results are NumPy arrays; make tensors of them with torch.from_numpy(...)"
_FILES = "this is read from the checkpoint's files"
_AFTERWARDS = "set the attribute of what load returns"


class _Unused(TypedDict, total=False):
    """What every computation of sentence-transformers takes, and has no use here."""

    convert_to_numpy: Annotated[bool, (True,), _ARRAYS]
    convert_to_tensor: Annotated[bool | None, (False, None), _ARRAYS]
    device: Annotated[object, (None, "cpu"), "minisbert computes on the CPU, on num_threads threads"]
    pool: Annotated[object, (None,), "one process uses all processors: see num_threads"]
    chunk_size: int | None
    processing_kwargs: Annotated[object, (None, {}), "set max_seq_length"]


class _Options(_Unused, total=False):
    prompt_name: str | None
    prompt: str | None
    batch_size: int
    show_progress_bar: bool | Callable[[int], object] | None
    truncation: Literal["warn", "silent", "error"]


class EncodeOptions(_Options, total=False):
    """The arguments of `SentenceEncoder.encode` by name, but for `output_value`."""

    precision: Literal["float32", "int8", "uint8", "binary", "ubinary"] | None
    normalize_embeddings: bool | None
    truncate_dim: int | None
    out: NDArray[Any] | None
    ranges: ArrayLike | None
    task: str | None


class RankOptions(_Unused, total=False):
    """What `CrossEncoder.rank` takes and has no use for."""

    num_workers: int
    apply_softmax: bool | None  # one label's score is not changed by it
    activation_fct: Annotated[object, (None,), "it is called activation_fn"]


class PredictOptions(_Options, total=False):
    """The arguments of `CrossEncoder.predict` by name."""

    activation_fn: Any
    apply_softmax: bool | None
    num_workers: int
    activation_fct: Annotated[object, (None,), "it is called activation_fn"]


class LoadOptions(TypedDict, total=False):
    """What the classes of sentence-transformers take to load a checkpoint, and has no use here."""

    device: Annotated[object, (None, "cpu"), "minisbert computes on the CPU, on num_threads threads"]
    trust_remote_code: Annotated[bool, (False,), "no code of a checkpoint is ever run"]
    model_card_data: object
    classifier_dropout: float | None  # for training
    keep_in_fp32_modules: Annotated[object, (None, []), "see dtype"]
    model_kwargs: Annotated[object, (None, {}), _FILES]
    automodel_args: Annotated[object, (None, {}), _FILES]
    processor_kwargs: Annotated[object, (None, {}), _FILES]
    tokenizer_kwargs: Annotated[object, (None, {}), _FILES]
    tokenizer_args: Annotated[object, (None, {}), _FILES]
    config_kwargs: Annotated[object, (None, {}), _FILES]
    config_args: Annotated[object, (None, {}), _FILES]
    modules: Annotated[object, (None,), _FILES]
    num_labels: Annotated[object, (None,), _FILES]
    max_length: Annotated[object, (None,), "set max_seq_length of what load returns"]
    prompts: Annotated[object, (None,), _AFTERWARDS]
    default_prompt_name: Annotated[object, (None,), _AFTERWARDS]
    similarity_fn_name: Annotated[object, (None,), _AFTERWARDS]
    truncate_dim: Annotated[object, (None,), _AFTERWARDS]
    activation_fn: Annotated[object, (None,), _AFTERWARDS]
    default_activation_function: Annotated[object, (None,), "set activation_fn of what load returns"]
    cache_dir: Annotated[object, (None,), "it is called cache_folder"]
    use_auth_token: Annotated[object, (None,), "it is called token"]


class Encode(Protocol):
    """How to call `encode`, and what comes back.

    All but the first argument go by name here: their order is another one in each version of sentence-transformers.
    """

    @overload
    def __call__(
        self, sentences: str, *, output_value: Sentence = ..., **options: Unpack[EncodeOptions]
    ) -> Vector: ...
    @overload
    def __call__(
        self, sentences: Texts, *, output_value: Sentence = ..., **options: Unpack[EncodeOptions]
    ) -> Vectors: ...
    @overload
    def __call__(
        self, sentences: Iterable[str], *, output_value: Sentence = ..., **options: Unpack[EncodeOptions]
    ) -> NDArray[Any]: ...
    @overload
    def __call__(
        self, sentences: str, *, output_value: Tokens, **options: Unpack[EncodeOptions]
    ) -> Vectors: ...
    @overload
    def __call__(
        self, sentences: Texts, *, output_value: Tokens, **options: Unpack[EncodeOptions]
    ) -> list[Vectors]: ...
    @overload
    def __call__(
        self, sentences: Iterable[str], *, output_value: str, **options: Unpack[EncodeOptions]
    ) -> Any: ...


class _Method(Protocol):
    def __get__(self, instance: object, owner: Any = ...) -> Encode: ...


def encoding(method: Callable[..., Any]) -> _Method:
    """Tell type checkers that a method is called as `Encode` says; it stays as it is."""
    return cast(_Method, method)
