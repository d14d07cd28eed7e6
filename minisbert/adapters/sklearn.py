"""scikit-learn: `SentenceVectorizer`, which turns a column of texts into columns of numbers."""

from __future__ import annotations

import os
from typing import Any, TypeVar

from numpy.typing import NDArray

from minisbert.adapters import needing
from minisbert.adapters.spec import EncoderSpec
from minisbert.errors import EncodeTypeError, EncodeValueError, shown

with needing("sklearn"):
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

__all__ = ["SentenceVectorizer"]

T = TypeVar("T", bound="SentenceVectorizer")


class SentenceVectorizer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Texts in, vectors (S, D) out, as a step of a scikit-learn pipeline.

    It learns nothing: `fit` loads the model, and `transform` works without. Clones, and all others in a process that
    name the same checkpoint, share its weights. A pickle has a hash of the checkpoint's files, and refuses others.

    Parameters
    ----------
    model : str or os.PathLike
        A checkpoint folder, or the name of one on the Hugging Face hub.
    revision, cache_folder, local_files_only, dtype, num_threads, max_seq_length, prompts, default_prompt_name, \
truncate_dim, normalize_embeddings
        As in `minisbert.adapters.spec.EncoderSpec`; a search can try values of any of them.

    Examples
    --------
    >>> pipeline = make_pipeline(SentenceVectorizer("sentence-transformers/all-MiniLM-L6-v2"), LogisticRegression())
    >>> pipeline.fit(texts, labels).predict(["A text that nobody has labelled"])

    BERTopic takes such a pipeline: ``BERTopic(embedding_model=make_pipeline(SentenceVectorizer(...)))``.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        revision: str | None = None,
        cache_folder: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        dtype: str | None = None,
        num_threads: int | None = None,
        max_seq_length: int | None = None,
        prompts: dict[str, str] | None = None,
        default_prompt_name: str | None = None,
        truncate_dim: int | None = None,
        normalize_embeddings: bool = False,
    ) -> None:
        self.model = model
        self.revision = revision
        self.cache_folder = cache_folder
        self.local_files_only = local_files_only
        self.dtype = dtype
        self.num_threads = num_threads
        self.max_seq_length = max_seq_length
        self.prompts = prompts
        self.default_prompt_name = default_prompt_name
        self.truncate_dim = truncate_dim
        self.normalize_embeddings = normalize_embeddings

    def fit(self: T, X: Any, y: Any = None) -> T:
        """Load the model, anew if its files have changed; the texts are not looked at.

        Raises
        ------
        MinisbertError
            If it can't be loaded: see `minisbert.load`.
        """
        self._fingerprint: str | None = None
        self._last_spec: EncoderSpec | None = None
        self._spec().resolve()
        return self

    def transform(self, X: Any) -> NDArray[Any]:
        """Return the vectors of texts, as `minisbert.SentenceEncoder.encode` does.

        Parameters
        ----------
        X : iterable of str, or a table, or an array of shape (S, 1)
            The texts, or the one column that has them.

        Returns
        -------
        ndarray of `dtype`, shape (S, D)
            Or what `set_output` says.

        Raises
        ------
        EncodeTypeError, EncodeValueError
            If there are several columns, or something is no text: the message says which row.
        """
        return self._spec().encode(_column(X))

    @property
    def _n_features_out(self) -> int:
        """How many columns come out, which `get_feature_names_out` names."""
        return self._spec().resolve().get_embedding_dimension()

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False  # as scikit-learn's own vectorizers say
        tags.requires_fit = False
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """Return the parameters, and what the vectors depend on besides; caches that hash pickles need that, too."""
        state: dict[str, Any] = super().__getstate__()
        return state | {"_fingerprint": self._spec().pinned().fingerprint, "_last_spec": None}

    def _spec(self) -> EncoderSpec:
        """Return the spec of the parameters as they are now, and the same one for as long as they stay so."""
        fingerprint = getattr(self, "_fingerprint", None)
        spec = EncoderSpec(**self.get_params(deep=False), fingerprint=fingerprint)
        last: EncoderSpec | None = getattr(self, "_last_spec", None)
        if last == spec:
            return last
        self._last_spec = spec
        return spec


def _column(X: Any) -> Any:
    """Return the texts of a table, or array, with one column; anything else is left to `encode`."""
    if isinstance(X, str):
        raise EncodeTypeError(f"X is the string {shown(X)}; expected many texts, as in [{shown(X)}]")
    if hasattr(X, "tocsr"):
        raise EncodeTypeError(f"X is a sparse {type(X).__name__}; expected texts")
    shape: tuple[int, ...] = getattr(X, "shape", ())
    if len(shape) != 2:
        return X
    if shape[1] != 1:
        raise EncodeValueError(
            f"X has shape {shape}; expected one column of texts: choose it, in a ColumnTransformer, say"
        )
    if hasattr(X, "iloc"):  # pandas
        return X.iloc[:, 0]
    return X.column(0) if hasattr(X, "column") else X[:, 0]  # Arrow; Polars and NumPy
