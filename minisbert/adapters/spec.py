"""What an encoder is, in JSON types: what frameworks copy, store and send, and what each process loads once."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from minisbert.encoder import SentenceEncoder, load
from minisbert.engine.arguments import check_dtype
from minisbert.engine.base import TextModel
from minisbert.errors import CheckpointError, EncodeTypeError, shown

if TYPE_CHECKING:
    from minisbert.cross_encoder import CrossEncoder

__all__ = ["CrossEncoderSpec", "EncoderSpec", "Spec"]

T = TypeVar("T", bound="Spec")
M = TypeVar("M", bound=TextModel)
KEPT = 4  # so many checkpoints stay in memory for the next spec that names them: a grid search alternates
_kept: OrderedDict[tuple[object, ...], TextModel] = OrderedDict()
_loading = threading.RLock()


def _after_fork() -> None:
    """Let a child load: whoever held the lock is not in it."""
    global _loading
    _loading = threading.RLock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)


@dataclass(frozen=True)
class Spec(ABC):
    """What the specs of both kinds of models have in common.

    Parameters
    ----------
    model : str or os.PathLike
        A checkpoint folder, or the name of one on the Hugging Face hub.
    revision, cache_folder, local_files_only
        As in `minisbert.load`. A token is not among them, as it is not to be stored: set ``HF_TOKEN``.
    dtype : str, optional
        What the weights are held in and multiplied, as in `minisbert.load`.
    num_threads : int, optional
        Worker threads; None leaves their number to the process that computes.
    max_seq_length : int, optional
        How many tokens of a text are read; by default what the checkpoint says.
    prompts : dict of str to str, optional
        Texts to put before others, besides the checkpoint's: "query" goes before queries, "document" before documents.
    default_prompt_name : str, optional
        Which of them goes before texts that are neither.
    fingerprint : str, optional
        The hash of the checkpoint's files, which `pinned` notes: a checkpoint of another one is refused.

    Raises
    ------
    EncodeTypeError
        If a value is of no type that JSON has.
    """

    model: str
    _: KW_ONLY
    revision: str | None = None
    cache_folder: str | None = None
    local_files_only: bool = False
    dtype: str | None = None
    num_threads: int | None = None
    max_seq_length: int | None = None
    prompts: dict[str, str] | None = field(default=None, hash=False)
    default_prompt_name: str | None = None
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        """Turn paths, dtypes and NumPy's numbers into what JSON has, and copy what can be changed in place."""
        vars(self)["dtype"] = None if self.dtype is None else check_dtype(self.dtype)
        for name, value in vars(self).items():
            vars(self)[name] = _in_json_types(name, value)

    def to_dict(self) -> dict[str, Any]:
        """Return what differs from the defaults: JSON can hold it, and `from_dict` takes it."""
        found = {setting.name: getattr(self, setting.name) for setting in fields(self)}
        changed = [setting.name for setting in fields(self) if found[setting.name] != setting.default]
        return {name: _in_json_types(name, found[name]) for name in changed}

    @classmethod
    def from_dict(cls: type[T], values: Mapping[str, Any]) -> T:
        """Return the spec that `to_dict` was called on.

        Raises
        ------
        EncodeTypeError
            If the model is missing, or a setting has another name or a type that JSON has not.
        """
        known = [setting.name for setting in fields(cls)]
        unknown = [name for name in values if name not in known]
        if unknown or "model" not in values:
            found = f"has no setting {shown(unknown[0])}" if unknown else "names no model"
            raise EncodeTypeError(f"the {cls.__name__} {found}; its settings are {', '.join(known)}")
        return cls(**values)

    def pinned(self: T) -> T:
        """Return this spec with the fingerprint of the checkpoint, so that what is stored with it is never mixed up."""
        return replace(self, fingerprint=_fingerprint(self.resolve()))

    def __getstate__(self) -> dict[str, Any]:
        return self.to_dict()

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(vars(self.from_dict(state)))

    @abstractmethod
    def resolve(self) -> TextModel:
        """Return the model in this process; it shares the weights with all others of its checkpoint."""

    def _resolve(self, load: Callable[..., M]) -> M:
        """Return the model in this process, which nobody but this spec sets anything of.

        A child that was forked takes it anew, with a number of threads of its own; the weights stay shared.
        """
        names = ("revision", "cache_folder", "local_files_only", "dtype", "num_threads")
        kept: tuple[int, M] | None = vars(self).get("_resolved")
        if kept and kept[0] == os.getpid():
            return kept[1]
        with _loading:
            model = load(self.model, **{name: getattr(self, name) for name in names})
            _keep(model)
        self._check(model)
        self._configure(model)
        vars(self)["_resolved"] = os.getpid(), model
        return model

    def _check(self, model: TextModel) -> None:
        """Refuse a checkpoint that is not the one that was noted."""
        if self.fingerprint not in (None, _fingerprint(model)):
            raise CheckpointError(
                f"{model.path}: is not the checkpoint that was meant, whose fingerprint is {shown(self.fingerprint)}: "
                "its weights or settings were replaced since. Put those back, or make anew what was made with them"
            )

    def _configure(self, model: TextModel) -> None:
        """Set what is to differ from the checkpoint."""
        model.prompts |= self.prompts or {}
        for name in {setting.name for setting in fields(self)} & set(model.SETTINGS) - {"prompts"}:
            if (value := getattr(self, name)) is not None:
                setattr(model, name, value)


@dataclass(frozen=True)
class EncoderSpec(Spec):
    """A `minisbert.SentenceEncoder` and how it is used, in JSON types.

    Parameters
    ----------
    model, revision, cache_folder, local_files_only, dtype, num_threads, max_seq_length, ...
        As in `Spec`.
    truncate_dim : int, optional
        Keep the first components of each vector only.
    normalize_embeddings : bool
        Divide each vector by its length.
    """

    truncate_dim: int | None = None
    normalize_embeddings: bool = False

    def resolve(self) -> SentenceEncoder:
        """Return the encoder in this process; it shares the weights with all others of its checkpoint."""
        return self._resolve(load)

    def encode(self, texts: str | Iterable[str]) -> NDArray[Any]:
        """Return the vectors (S, D) of texts, or that (D,) of a string, as `SentenceEncoder.encode` does."""
        return self.resolve().encode(texts, normalize_embeddings=self.normalize_embeddings)

    def encode_query(self, texts: str | Iterable[str]) -> NDArray[Any]:
        """Return the vectors of queries, as `SentenceEncoder.encode_query` does."""
        return self.resolve().encode_query(texts, normalize_embeddings=self.normalize_embeddings)

    def encode_document(self, texts: str | Iterable[str]) -> NDArray[Any]:
        """Return the vectors of documents, as `SentenceEncoder.encode_document` does."""
        return self.resolve().encode_document(texts, normalize_embeddings=self.normalize_embeddings)


@dataclass(frozen=True)
class CrossEncoderSpec(Spec):
    """A `minisbert.CrossEncoder`, in JSON types.

    Parameters
    ----------
    model, revision, cache_folder, local_files_only, dtype, num_threads, max_seq_length, ...
        As in `Spec`.
    activation_fn : str, optional
        The name of what turns logits into scores; by default what the checkpoint says.
    """

    activation_fn: str | None = None

    def resolve(self) -> CrossEncoder:
        """Return the cross-encoder in this process; it shares the weights with all others of its checkpoint."""
        from minisbert.cross_encoder import load_cross_encoder

        return self._resolve(load_cross_encoder)


def _keep(model: TextModel) -> None:
    """Keep the weights in memory also when nobody uses them any more, and let go of those used longest ago."""
    key = type(model), model.path, model.dtype
    _kept[key] = model
    _kept.move_to_end(key)
    while len(_kept) > KEPT:
        _kept.popitem(last=False)


def _fingerprint(model: TextModel) -> str:
    """Return the hash of a checkpoint's files that pickles of its model have."""
    return str(model.__getstate__()["fingerprint"])


def _in_json_types(name: str, value: Any) -> Any:
    """Return a value as JSON has it; of a dict, a copy."""
    if type(value) in (str, int, bool, type(None)):
        return value
    if isinstance(value, os.PathLike | np.generic):
        return _in_json_types(name, os.fspath(value) if isinstance(value, os.PathLike) else value.item())
    if isinstance(value, Mapping) and all(isinstance(x, str) for pair in value.items() for x in pair):
        return dict(value)
    raise EncodeTypeError(
        f"{name} is {shown(value)}; expected what JSON can hold: a string or a whole number, say"
    )
