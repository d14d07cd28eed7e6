"""`CrossEncoder`: from pairs of texts to scores, on all cores; the same encoder, with a classifier on top."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

from minisbert import model
from minisbert.arrays import Floats, Ints
from minisbert.checkpoint import hub
from minisbert.checkpoint.cross_config import CrossEncoderConfig, read_cross_config
from minisbert.checkpoint.tensors import head_tensors, load_tensors
from minisbert.engine.arguments import check_computation, check_flag, check_integer, check_unused
from minisbert.engine.base import TextModel
from minisbert.engine.collect import OverlongTexts, Progress
from minisbert.engine.inputs import (
    as_pairs,
    check_collection,
    check_pairs,
    is_pair,
    plain,
    read_chunks,
    token_chunks,
)
from minisbert.engine.prompts import resolve_prompt
from minisbert.engine.scores import Activation, resolve_activation, softmax
from minisbert.engine.signatures import LoadOptions, PredictOptions, RankOptions
from minisbert.engine.workers import meanwhile
from minisbert.errors import EncodeValueError, shown
from minisbert.text.base import TokenIds
from minisbert.text.pairs import PairTokenizer, load_pair_tokenizer
from minisbert.weights import build_head, build_weights

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["CrossEncoder", "load_cross_encoder"]


def load_cross_encoder(
    name_or_path: str | os.PathLike[str],
    *,
    backend: str = "auto",
    dtype: DTypeLike | None = None,
    num_threads: int | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_folder: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    **unused: Unpack[LoadOptions],
) -> CrossEncoder:
    """Load a cross-encoder, which scores pairs of texts.

    As with `minisbert.load`, all that are loaded from one checkpoint share the weights.

    Parameters
    ----------
    name_or_path : str or os.PathLike
        A checkpoint folder, or the name of one on the Hugging Face hub; a name without an organisation is one of
        ``cross-encoder``.
    backend, dtype, num_threads, revision, token, cache_folder, local_files_only
        As in `minisbert.load`.
    **unused
        What ``CrossEncoder`` of sentence-transformers takes besides, with values that change nothing here.

    Returns
    -------
    CrossEncoder

    Raises
    ------
    CheckpointNotFoundError
        If there is no such checkpoint, or a file that it needs is missing.
    CheckpointError
        If a file is damaged or contradicts another one.
    UnsupportedCheckpointError
        If it is no cross-encoder, or asks for something that minisbert does not compute.

    Examples
    --------
    >>> model = minisbert.load_cross_encoder("cross-encoder/ms-marco-MiniLM-L6-v2")
    >>> model.predict([("How many people live in Berlin?", "Berlin has 3.5 million inhabitants.")]).shape
    (1,)
    """
    check_unused("load_cross_encoder", unused, LoadOptions)
    folder = hub.resolve(
        name_or_path,
        organisation="cross-encoder",
        revision=revision,
        token=token,
        cache_folder=cache_folder,
        local_files_only=local_files_only,
    )
    return CrossEncoder(folder, backend=backend, dtype=dtype, num_threads=num_threads)


class CrossEncoder(TextModel):
    """Pairs of texts in, scores out: made by `minisbert.load_cross_encoder`.

    As with `minisbert.SentenceEncoder`, the word embeddings stay in the file, copies share the weights, and a
    pickle has a hash of them.

    Parameters
    ----------
    folder : pathlib.Path
        A checkpoint folder.
    backend, dtype, num_threads
        As in `minisbert.load`.

    Attributes
    ----------
    config : CrossEncoderConfig
        The checkpoint's settings.
    activation_fn : str or callable
        What turns logits into scores where `predict` is not told: see there.
    prompts : dict of str to str
        Texts that ``prompt_name`` can put before the first text of each pair.
    default_prompt_name : str or None
        The prompt used where none is named.
    dtype : str
        What is computed in, and what the scores have.
    num_threads : int
        Worker threads.
    num_parameters : int
        Weights in use, counted one by one.
    """

    ITEM = "pair"
    SETTINGS = ("max_seq_length", "prompts", "default_prompt_name", "activation_fn")
    config: CrossEncoderConfig
    _tokenizer: PairTokenizer
    activation_fn: str | Activation

    def _read(self, folder: Path, num_threads: int) -> int:
        self.config = read_cross_config(folder)
        config = self.config.transformer
        head = head_tensors(config, self.num_labels)
        with meanwhile(num_threads, load_pair_tokenizer, self.config) as tokenizer:
            tensors = load_tensors(self.config.transformer_folder, config, head)
            self._weights = build_weights(tensors, config, self._kernels, self.dtype)
            self._head = build_head(tensors, config.family.head.activation, self._kernels, self._float)
            self._tokenizer = tokenizer()
        self.activation_fn = self.config.activation_fn
        return tensors.size

    @property
    def num_labels(self) -> int:
        """How many logits a pair has."""
        return self.config.num_labels

    @overload
    def predict(self, inputs: tuple[str, str] | list[str], **options: Unpack[PredictOptions]) -> Any: ...
    @overload
    def predict(self, inputs: Iterable[Sequence[str]], **options: Unpack[PredictOptions]) -> NDArray[Any]: ...
    def predict(
        self,
        inputs: Sequence[str] | Iterable[Sequence[str]],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | Callable[[int], object] | None = None,
        activation_fn: str | Activation | None = None,
        apply_softmax: bool | None = False,
        *,
        truncation: str = "warn",
        **unused: Any,
    ) -> Any:
        """Score pairs of texts.

        Parameters
        ----------
        inputs : pair of str, or iterable of such pairs
            One pair, or a list, tuple, array or generator of pairs. A generator is read as it is scored.
        prompt_name : str, optional
            Which of `prompts` to put before the first text of each pair; by default `default_prompt_name`.
        prompt : str, optional
            The text of a prompt; it takes precedence over `prompt_name`.
        batch_size : int
            The most pairs in one micro-batch.
        show_progress_bar : bool or callable, optional
            By default a bar appears on a terminal once the work has taken two seconds. A function is called, as
            pairs are finished, with how many these are.
        activation_fn : str or callable, optional
            What turns logits into scores: "Identity", "Sigmoid", "Tanh", "ReLU" or "SiLU", an object of such a
            class of torch.nn, or a function of an array of shape (1, C), which it is given for each pair. By
            default `self.activation_fn`, which is what the checkpoint says; where that is nothing, the sigmoid
            for one label and the logits themselves for several.
        apply_softmax : bool, optional
            Have the scores of each pair sum to 1, if there are several labels.
        truncation : {"warn", "silent", "error"}
            What to do about pairs longer than `max_seq_length`, which are cut: tokens are taken from the end of
            the longer text until both are as long, then from both. Only "error" reads a long text to its end.
        **unused
            What sentence-transformers takes besides, with values that change nothing here, as in
            `SentenceEncoder.encode`.

        Returns
        -------
        ndarray of `dtype`, shape (S,) or (S, C)
            The first for one label, the second for C of them; without S for a single pair.

        Raises
        ------
        EncodeTypeError
            If something is not a pair of strings: the message says which.
        EncodeValueError
            If an argument is impossible, or a text can't be written as UTF-8, as far as it is read.
        TruncationError
            If a pair is too long and `truncation` is "error".
        """
        check_unused("predict", unused, PredictOptions)
        softmaxed = check_flag("apply_softmax", apply_softmax)
        check_computation(batch_size, truncation)
        self._files.refuse_overwritten()
        activate = resolve_activation(self.activation_fn if activation_fn is None else activation_fn)
        prompt = resolve_prompt(self.prompts or {}, self.default_prompt_name, prompt_name, prompt)
        pairs, count = as_pairs(inputs)
        overlong = OverlongTexts(self.max_seq_length, truncation, self.ITEM, self._tokenizer.count_all)
        progress = Progress(count, show_progress_bar, self.ITEM)
        chunks = token_chunks(read_chunks(pairs, check_pairs, prompt), self._tokenizer, overlong)
        results = self._results(chunks, self._compute, batch_size, progress)
        scores: list[Floats] = []
        with closing(progress), closing(results):
            for logits in results:
                self._refuse_overflow(logits, len(scores))
                scores += [self._score(row[None], activate, softmaxed) for row in logits]
        overlong.report()
        found = np.concatenate([np.empty((0, self.num_labels), self._float), *scores])  # (S, C)
        found = found[:, 0] if self.num_labels == 1 else found
        return found[0] if is_pair(inputs) else found

    def rank(
        self,
        query: str,
        documents: Iterable[str],
        top_k: int | None = None,
        return_documents: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | Callable[[int], object] | None = None,
        activation_fn: str | Activation | None = None,
        *,
        truncation: str = "warn",
        **unused: Unpack[RankOptions],
    ) -> list[dict[str, Any]]:
        """Sort documents by their scores with a query, best first.

        Parameters
        ----------
        query : str
            The first text of each pair.
        documents : iterable of str
            The second texts.
        top_k : int, optional
            How many results to return; by default all.
        return_documents : bool
            Have the documents in the results.
        prompt_name, prompt, batch_size, show_progress_bar, activation_fn, truncation, **unused
            As in `predict`.

        Returns
        -------
        list of dict
            For each document ``{"corpus_id": its index, "score": float}``, and ``"text"`` if asked for. Of equal
            scores, the document that comes first stays first.

        Raises
        ------
        EncodeTypeError, EncodeValueError, TruncationError
            As `predict`; and if the model has several labels.
        """
        check_unused("rank", unused, RankOptions)
        return_documents = check_flag("return_documents", return_documents)
        if self.num_labels != 1:
            raise EncodeValueError(
                f"rank needs a cross-encoder with one label, and this one has {self.num_labels}; use predict"
            )
        check_collection("documents", documents, "a list of strings")
        if top_k is not None and check_integer("top_k", top_k) < 0:
            raise EncodeValueError(f"top_k is {shown(top_k)}; expected at least 0")
        texts = list(map(plain, documents))
        pairs = [(query, text) for text in texts]
        predict: Any = self.predict  # to whose overloads a str is no choice
        scores = predict(
            pairs, prompt_name, prompt, batch_size, show_progress_bar, activation_fn, truncation=truncation
        )
        results = [{"corpus_id": i, "score": score} for i, score in enumerate(scores.tolist())]
        if return_documents:
            results = [result | {"text": text} for result, text in zip(results, texts, strict=True)]
        return sorted(results, key=lambda result: -result["score"])[:top_k]

    def tokenize(self, inputs: Sequence[str] | Iterable[Sequence[str]]) -> dict[str, list[TokenIds]]:
        """Return the token ids and token types of each pair, cut to `max_seq_length`.

        Returns
        -------
        dict
            ``"input_ids"`` and ``"token_type_ids"``: a list of int32 arrays each, one a pair, not padded.
        """
        chunks = read_chunks(as_pairs(inputs)[0], check_pairs)
        rows = [
            row for first, chunk in chunks for row in self._tokenizer(chunk, first, self.max_seq_length)[0]
        ]
        columns = [np.ascontiguousarray(row.T) for row in rows]  # (2, T) each
        return {"input_ids": [ids for ids, _ in columns], "token_type_ids": [types for _, types in columns]}

    def token_counts(self, inputs: Sequence[str] | Iterable[Sequence[str]]) -> NDArray[np.int64]:
        """Return how many tokens each pair has before it is cut, special ones included: (S,)."""
        chunks = read_chunks(as_pairs(inputs)[0], check_pairs)
        counts = (count for first, chunk in chunks for count in self._tokenizer.count_all(chunk, first))
        return np.fromiter(counts, np.int64)

    def _compute(self, rows: list[TokenIds]) -> Sequence[Floats]:
        """Compute a micro-batch: the ids and types (T, 2) of S pairs to the logits (C,) of each."""
        ids, types = np.ascontiguousarray(np.concatenate(rows).T)  # (N,) each
        offsets: Ints = np.array([0, *accumulate(map(len, rows))])  # (S + 1,)
        # What overflows becomes infinity or NaN, and an error of ours once the logits are looked at.
        with np.errstate(over="ignore", invalid="ignore"):
            states = self._states(ids, types, offsets)
            return list(model.logits(states, offsets, self._head, self._kernels))

    def _score(self, logits: Floats, activate: Activation, apply_softmax: bool) -> Floats:
        """Turn the logits of one pair into its scores, by itself, so that it does not depend on others: (1, C)."""
        scores = np.asarray(activate(logits), self._float)
        if scores.shape != logits.shape:
            raise EncodeValueError(
                f"activation_fn turns an array of shape {logits.shape} into {scores.shape}; expected the same shape"
            )
        return softmax(scores) if apply_softmax and self.num_labels > 1 else scores
