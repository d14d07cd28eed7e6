"""`minisbert.as_sentence_transformers`: what was written for sentence-transformers runs on minisbert, without torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial, wraps
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minisbert import vectors
from minisbert.cross_encoder import CrossEncoder as _CrossEncoder
from minisbert.cross_encoder import load_cross_encoder
from minisbert.encoder import SentenceEncoder, load
from minisbert.engine.arguments import check_choice
from minisbert.engine.base import TextModel
from minisbert.errors import EncodeValueError, MinisbertError

__all__ = [
    "CrossEncoder",
    "SentenceTransformer",
    "StandInError",
    "as_sentence_transformers",
    "quantize_embeddings",
]

NAME = "sentence_transformers"
VERSION = "6.2.0"  # which vectors are compared with: what asks for a version gets this


class StandInError(MinisbertError, RuntimeError):
    """minisbert can't stand in for sentence-transformers here."""


class AbsentError(StandInError, AttributeError):
    """The stand-in does not have this, so that `hasattr` says so."""


def as_sentence_transformers() -> None:
    """Have ``import sentence_transformers`` give a small stand-in, in this process and from now on.

    It has ``SentenceTransformer``, ``CrossEncoder``, ``SimilarityFunction``, ``quantize_embeddings``, and of
    ``sentence_transformers.util`` the similarities. They compute with minisbert, on the CPU, and return NumPy arrays.
    So frameworks that are written for sentence-transformers run, and open what names it: collections, tables,
    pipelines. Whatever else they ask for is refused by name: training, GPUs, tensors, pools of processes.

    Raises
    ------
    StandInError
        If the real sentence-transformers has been imported.

    Examples
    --------
    >>> minisbert.as_sentence_transformers()
    >>> from sentence_transformers import SentenceTransformer
    >>> SentenceTransformer("all-MiniLM-L6-v2").encode("The weather is lovely today.").shape
    (384,)
    """
    found = sys.modules.get(NAME)
    if isinstance(found, _Module):
        return
    if found is not None:
        raise StandInError(
            f"sentence_transformers has been imported, from {getattr(found, '__file__', None)}; call "
            "minisbert.as_sentence_transformers() in a fresh process, before anything imports it"
        )
    sys.modules.update(_modules())


def _modules() -> dict[str, ModuleType]:
    """Return the stand-in's modules by name."""
    classes = {kind.__name__: kind for kind in (SentenceTransformer, CrossEncoder, SimilarityFunction)}
    parts: dict[str, dict[str, Any]] = {
        "cross_encoder": {"CrossEncoder": CrossEncoder},
        "models": {},
        "quantization": {"quantize_embeddings": quantize_embeddings},
        "similarity_functions": {"SimilarityFunction": SimilarityFunction},
        "util": {
            **_SIMILARITIES,
            "SimilarityFunction": SimilarityFunction,
            "quantize_embeddings": quantize_embeddings,
        },
    }
    modules = {name: _Module(f"{NAME}.{name}", names) for name, names in parts.items()}
    package = _Module(NAME, {**classes, **modules, "quantize_embeddings": quantize_embeddings})
    package.__path__ = []  # nothing of the real one is to be found
    return {package.__name__: package, **{module.__name__: module for module in modules.values()}}


class _Module(ModuleType):
    """A module of the stand-in: it refuses by name what it does not have."""

    def __init__(self, name: str, names: Mapping[str, Any]) -> None:
        super().__init__(name, "minisbert stands in for this: see minisbert.as_sentence_transformers.")
        self.__file__ = __file__
        self.__spec__ = ModuleSpec(name, None, origin=__file__, is_package=name == NAME)
        self.__version__ = VERSION
        vars(self).update(names)

    def __getattr__(self, name: str) -> Any:
        """Give a class that can't be used for a class that is imported, as frameworks import more than they use."""
        if name[:1].isupper():
            return type(name, (_Refusing,), {"__module__": self.__name__})
        raise _absent(f"{self.__name__}.{name}")


class _Refusing:
    """A class of sentence-transformers that nothing is made of."""

    def __init__(self, *arguments: Any, **others: Any) -> None:
        raise _absent(f"{type(self).__module__}.{type(self).__name__}")


def _absent(name: str) -> AbsentError:
    return AbsentError(
        f"minisbert stands in for sentence-transformers, and has no {name}; for that, install sentence-transformers, "
        "and don't call minisbert.as_sentence_transformers()"
    )


# --- The two models -------------------------------------------------------------------------------------------


def _both_names(method: Callable[..., Any], name: str, other: str) -> Callable[..., Any]:
    """Take the first argument by the names that it has in different versions."""

    @wraps(method)
    def renamed(*arguments: Any, **named: Any) -> Any:
        if other in named:
            named[name] = named.pop(other)
        return method(*arguments, **named)

    return renamed


class _StandIn(TextModel):
    """What both have in common: settings that minisbert sets after loading, and refusals."""

    device = "cpu"

    def _set(
        self, model: TextModel, backend: str, prompts: Mapping[str, str] | None, settings: dict[str, Any]
    ) -> None:
        """Become a copy of a model, with settings of its own where they are something."""
        check_choice("backend", backend, ("torch",))
        self._take(model)
        self.prompts |= prompts or {}
        for name, value in settings.items():
            if value is not None:
                setattr(self, name, value)

    def get_max_seq_length(self) -> int:
        """Return `max_seq_length`."""
        return self.max_seq_length

    def __getattr__(self, name: str) -> Any:
        raise _absent(f"{type(self).__name__}.{name}")


class SentenceTransformer(_StandIn, SentenceEncoder):
    """A `minisbert.SentenceEncoder` that is made as sentence-transformers has it.

    Parameters
    ----------
    model_name_or_path, prompts, default_prompt_name, similarity_fn_name, truncate_dim, cache_folder
        As in sentence-transformers.
    trust_remote_code
        Has no effect: no code of a checkpoint is ever run, and a checkpoint that needs it is refused.
    backend : {"torch"}
        It is minisbert that computes.
    **options
        Those of `minisbert.load`.
    """

    def __init__(
        self,
        model_name_or_path: str,
        *,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        similarity_fn_name: Any = None,
        truncate_dim: int | None = None,
        cache_folder: str | None = None,
        trust_remote_code: bool = False,
        backend: str = "torch",
        **options: Any,
    ) -> None:
        model = load(model_name_or_path, cache_folder=_cache(cache_folder), **options)
        settings = {
            "default_prompt_name": default_prompt_name,
            "similarity_fn_name": getattr(similarity_fn_name, "value", similarity_fn_name),
            "truncate_dim": truncate_dim,
        }
        self._set(model, backend, prompts, settings)

    encode = _both_names(SentenceEncoder.encode, "sentences", "inputs")
    encode_query = _both_names(SentenceEncoder.encode_query, "sentences", "inputs")
    encode_document = _both_names(SentenceEncoder.encode_document, "sentences", "inputs")


class CrossEncoder(_StandIn, _CrossEncoder):
    """A `minisbert.CrossEncoder` that is made as sentence-transformers has it.

    Parameters
    ----------
    model_name_or_path, max_length, activation_fn, prompts, default_prompt_name, cache_folder
        As in sentence-transformers.
    trust_remote_code, backend, **options
        As in `SentenceTransformer`.
    """

    def __init__(
        self,
        model_name_or_path: str,
        *,
        max_length: int | None = None,
        activation_fn: Any = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        cache_folder: str | None = None,
        trust_remote_code: bool = False,
        backend: str = "torch",
        **options: Any,
    ) -> None:
        model = load_cross_encoder(model_name_or_path, cache_folder=_cache(cache_folder), **options)
        settings = {
            "max_seq_length": max_length,
            "activation_fn": activation_fn,
            "default_prompt_name": default_prompt_name,
        }
        self._set(model, backend, prompts, settings)

    predict = _both_names(_CrossEncoder.predict, "inputs", "sentences")


def _cache(folder: str | None) -> str | None:
    """Return the folder of the cache, which sentence-transformers reads from the environment, too."""
    return folder or os.environ.get("SENTENCE_TRANSFORMERS_HOME")


# --- What goes with them --------------------------------------------------------------------------------------


class SimilarityFunction(Enum):
    """The names of similarities."""

    COSINE = "cosine"
    DOT_PRODUCT = "dot"
    EUCLIDEAN = "euclidean"
    MANHATTAN = "manhattan"


_SIMILARITIES = {
    "cos_sim": partial(vectors.similarity, name="cosine"),
    "pytorch_cos_sim": partial(vectors.similarity, name="cosine"),
    "dot_score": partial(vectors.similarity, name="dot"),
    "euclidean_sim": partial(vectors.similarity, name="euclidean"),
    "manhattan_sim": partial(vectors.similarity, name="manhattan"),
    "pairwise_cos_sim": partial(vectors.similarity_pairwise, name="cosine"),
    "pairwise_dot_score": partial(vectors.similarity_pairwise, name="dot"),
    "pairwise_euclidean_sim": partial(vectors.similarity_pairwise, name="euclidean"),
    "pairwise_manhattan_sim": partial(vectors.similarity_pairwise, name="manhattan"),
}


def quantize_embeddings(
    embeddings: ArrayLike,
    precision: str,
    ranges: ArrayLike | None = None,
    calibration_embeddings: ArrayLike | None = None,
) -> NDArray[Any]:
    """Store vectors in fewer bits: `minisbert.vectors.quantize` with the arguments of sentence-transformers.

    Raises
    ------
    EncodeValueError
        If the vectors have been quantised already, or as `minisbert.vectors.quantize` raises it.
    """
    found = np.asarray(embeddings)
    if found.dtype.kind != "f":
        raise EncodeValueError(f"embeddings are {found.dtype}; expected what encode returned in float32")
    check_choice("precision", precision, tuple(vectors.PRECISIONS))
    if precision not in vectors.SCALED:
        return vectors.quantize(found, precision)
    if ranges is None and calibration_embeddings is not None:
        typical = np.asarray(calibration_embeddings)
        ranges = np.stack([typical.min(axis=0), typical.max(axis=0)])
    return vectors.quantize(found, precision, ranges)
