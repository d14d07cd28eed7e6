"""`SentenceEncoder`: from any kind of text collection to an array of vectors, on all cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from minisbert import model, vectors
from minisbert.arrays import Floats, Ints
from minisbert.checkpoint import hub
from minisbert.checkpoint.config import CheckpointConfig, read_config
from minisbert.checkpoint.modules import SENTENCE, TOKENS, is_plain, needs_all_layers
from minisbert.checkpoint.tensors import load_module_tensors, load_tensors
from minisbert.engine.arguments import check_dimension, check_encode, check_unused
from minisbert.engine.base import TextModel
from minisbert.engine.collect import Collector, OverlongTexts, Progress
from minisbert.engine.inputs import as_texts, check_texts, read_chunks, token_chunks
from minisbert.engine.prompts import resolve_prompt, with_role
from minisbert.engine.signatures import LoadOptions, encoding
from minisbert.engine.workers import meanwhile
from minisbert.text.base import TokenIds
from minisbert.text.tokenizer import SentenceTokenizer, load_tokenizer
from minisbert.weights import build_step, build_weights

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["SentenceEncoder", "load"]


def load(
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
) -> SentenceEncoder:
    """Load a Sentence-BERT checkpoint.

    While an encoder on it is in use, loading it again takes neither time nor memory: they share the weights, and each
    has settings of its own. A checkpoint whose files have changed since is read anew.

    Parameters
    ----------
    name_or_path : str or os.PathLike
        A checkpoint folder, or the name of one on the Hugging Face hub. A name is looked up in the local
        cache first and fetched only if it is not there.
    backend : {"auto", "native", "jit", "reference"}
        Which implementation computes: ``"native"``, the kernels that come with minisbert; ``"jit"``, the same compiled
        by Numba; ``"reference"``, NumPy. ``"auto"`` takes the first of these that is to be had.
    dtype : {"float32", "float16", "bfloat16", "int8", "float64"}, optional
        What the transformer's weights are held in and multiplied: fewer bits are faster and take less memory, and cost
        digits. Vectors are float32. "float64", of which they are, too, is accurate to 15 digits, and slow. By default
        float32, or int8 for what `minisbert convert` wrote in int8, which computes in nothing else.
    num_threads : int, optional
        Worker threads; by default ``MINISBERT_NUM_THREADS``, else ``OMP_NUM_THREADS``, else the processors that this
        process may use.
    revision, token, cache_folder, local_files_only
        As in `huggingface_hub.snapshot_download`; for names only.
    **unused
        What ``SentenceTransformer`` takes besides, with values that change nothing here, such as ``device="cpu"``;
        others are refused.

    Returns
    -------
    SentenceEncoder

    Raises
    ------
    CheckpointNotFoundError
        If there is no such checkpoint, or a file that it needs is missing.
    CheckpointError
        If a file is damaged or contradicts another one.
    UnsupportedCheckpointError
        If the checkpoint asks for something that minisbert does not compute.

    Examples
    --------
    >>> encoder = minisbert.load("sentence-transformers/all-MiniLM-L6-v2")
    >>> encoder.encode("The weather is lovely today.").shape
    (384,)
    """
    check_unused("load", unused, LoadOptions)
    folder = hub.resolve(
        name_or_path,
        revision=revision,
        token=token,
        cache_folder=cache_folder,
        local_files_only=local_files_only,
    )
    return SentenceEncoder(folder, backend=backend, dtype=dtype, num_threads=num_threads)


class SentenceEncoder(TextModel):
    """Text in, vectors out: made by `minisbert.load`.

    The word embeddings stay in the file, which is mapped into memory for as long as the encoder lives. So
    replace a checkpoint by renaming a new one over it. After something has written into the file, `encode`
    raises `CheckpointError`; while `encode` runs, writing into the file can give wrong vectors or end the process.

    Copies share the weights. A pickle holds none, but the folder, on the hub also name and commit, what was
    set, and a hash of all files; where these are no longer the same, unpickling raises `CheckpointError`.

    Parameters
    ----------
    folder : pathlib.Path
        A checkpoint folder.
    backend, dtype, num_threads
        As in `minisbert.load`.

    Attributes
    ----------
    config : CheckpointConfig
        The checkpoint's settings.
    prompts : dict of str to str
        Texts that ``prompt_name`` can put before each sentence.
    default_prompt_name : str or None
        The prompt used where none is named.
    similarity_fn_name : str
        "cosine", "dot", "euclidean" or "manhattan".
    truncate_dim : int or None
        How many components of each vector are kept, where `encode` is not told.
    dtype : str
        What the weights are in; vectors are float64 for "float64", and else float32.
    num_threads : int
        Worker threads.
    num_parameters : int
        Weights in use, counted one by one.
    """

    ITEM = "sentence"
    SETTINGS = ("max_seq_length", "prompts", "default_prompt_name", "similarity_fn_name", "truncate_dim")
    config: CheckpointConfig
    _tokenizer: SentenceTokenizer

    def _read(self, folder: Path, num_threads: int) -> int:
        self.config = read_config(folder)
        with meanwhile(num_threads, load_tokenizer, self.config) as tokenizer:
            tensors = load_tensors(self.config.transformer_folder, self.config.transformer)
            self._weights = build_weights(tensors, self.config.transformer, self._kernels, self.dtype)
            others = [(module, load_module_tensors(module)) for module in self.config.modules]
            self._steps = [build_step(*other, self._kernels, self._float) for other in others]
            self._tokenizer = tokenizer()
        self._is_plain = all(map(is_plain, self.config.modules))
        self.similarity_fn_name = self.config.similarity_fn_name
        self.truncate_dim = self.config.truncate_dim
        return tensors.size + sum(group.size for _, group in others)

    def get_embedding_dimension(self) -> int:
        """Return how many components a vector has, after ``truncate_dim``."""
        return self._resolve_dimension(None)

    get_sentence_embedding_dimension = get_embedding_dimension  # the name before sentence-transformers 5

    @encoding
    def encode(
        self,
        sentences: str | Iterable[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | Callable[[int], object] | None = None,
        output_value: str = "sentence_embedding",
        precision: str | None = "float32",
        *,
        normalize_embeddings: bool | None = False,
        truncate_dim: int | None = None,
        truncation: str = "warn",
        out: NDArray[Any] | None = None,
        ranges: ArrayLike | None = None,
        **unused: Any,
    ) -> Any:
        """Turn sentences into vectors.

        Parameters
        ----------
        sentences : str or iterable of str
            One text, or a list, tuple, array, Series, column or generator of texts. A generator is read as
            it is encoded.
        prompt_name : str, optional
            Which of `prompts` to put before each sentence; by default `default_prompt_name`.
        prompt : str, optional
            The text of a prompt; it takes precedence over `prompt_name`.
        batch_size : int
            The most sentences in one micro-batch.
        show_progress_bar : bool or callable, optional
            By default a bar appears on a terminal once the work has taken two seconds. A function is called, as
            sentences are finished, with how many these are.
        output_value : {"sentence_embedding", "token_embeddings"}
            A vector for each sentence, or one for each of its tokens.
        precision : {"float32", "int8", "uint8", "binary", "ubinary"}
            How vectors are stored: see `minisbert.vectors.quantize`. "float32", and None, leave them in `dtype`.
        normalize_embeddings : bool
            Divide each vector by its length, after `truncate_dim`.
        truncate_dim : int, optional
            Keep the first components only; by default `self.truncate_dim`.
        truncation : {"warn", "silent", "error"}
            What to do about texts longer than `max_seq_length`, which are cut. Only "error" tokenises
            all of one, to tell its length.
        out : ndarray or memmap, shape (S, D), optional
            Filled in place and returned.
        ranges : array_like, shape (2, D), optional
            The lowest and the highest value of each component, for the precisions "int8" and "uint8": what was
            quantised with the same ranges can be compared. By default they are those of the vectors of this call;
            take those of many typical texts, ``np.stack([typical.min(axis=0), typical.max(axis=0)])``.
        **unused
            What sentence-transformers takes besides, with values that change nothing here, such as
            ``convert_to_numpy=True`` or ``device="cpu"``; others are refused.

        Returns
        -------
        ndarray of `dtype`, shape (D,) or (S, D)
            The first for a string, the second for anything else; C-contiguous. With "token_embeddings" an
            array (T, D), or a list of them. Binary precisions have ceil(D / 8) bytes instead of D components.

        Raises
        ------
        EncodeTypeError
            If something that should be a string is not: the message says which.
        EncodeValueError
            If an argument is impossible, or a text can't be written as UTF-8, as far as it is read.
        TruncationError
            If a text is too long and `truncation` is "error".

        Warns
        -----
        CalibrationWarning
            If vectors are quantised by ranges of their own.
        """
        dimension = None if output_value == TOKENS else self._resolve_dimension(truncate_dim)
        precision, normalize = check_encode(
            batch_size, output_value, precision, normalize_embeddings, truncation, (out, ranges), unused
        )
        self._files.refuse_overwritten()
        prompt = resolve_prompt(self.prompts or {}, self.default_prompt_name, prompt_name, prompt)
        compute = partial(self._compute, output_value, self._count_prompt(prompt) if prompt else 0)
        texts, count = as_texts(sentences)
        overlong = OverlongTexts(self.max_seq_length, truncation, self.ITEM, self._tokenizer.count_all)
        progress = Progress(count, show_progress_bar, self.ITEM)
        chunks = token_chunks(read_chunks(texts, check_texts, prompt), self._tokenizer, overlong)
        collector = None
        if dimension is not None:
            collector = Collector(out, count, dimension, precision, self._float, ranges)
        results = self._results(chunks, compute, batch_size, progress)
        with closing(progress), closing(results):
            if collector is None:
                result: Any = []
                for states in results:  # (T, D) each
                    self._refuse_overflow(states, len(result))
                    result += states
            else:
                for rows in results:
                    found = np.array(rows)[:, :dimension]  # (S, D)
                    if not np.isfinite(found).all():
                        reason = ", or a pooling of the maximum has no token left"
                        self._refuse_overflow(found, collector.rows, reason)
                    collector.add(self._kernels.normalize(found) if normalize else found)
                result = collector.result()
        overlong.report()
        return result[0] if isinstance(sentences, str) else result

    @encoding
    def encode_query(self, sentences: str | Iterable[str], **arguments: Any) -> Any:
        """Encode queries: `encode` with the prompt named "query", unless the arguments name another."""
        return self.encode(sentences, **with_role(self.prompts or {}, ("query",), arguments))

    @encoding
    def encode_document(self, sentences: str | Iterable[str], **arguments: Any) -> Any:
        """Encode documents: `encode` with the prompt "document", "passage" or "corpus", whichever is first."""
        names = ("document", "passage", "corpus")
        return self.encode(sentences, **with_role(self.prompts or {}, names, arguments))

    def similarity(self, embeddings1: ArrayLike, embeddings2: ArrayLike) -> Floats:
        """Compare all vectors (A, D) with all vectors (B, D) by `similarity_fn_name`: (A, B).

        Vectors of the precisions "binary" and "ubinary" are compared by their Hamming distance, as vectors of signs.
        """
        dimension = self.get_embedding_dimension()
        return vectors.similarity(embeddings1, embeddings2, self.similarity_fn_name, dimension)

    def similarity_pairwise(self, embeddings1: ArrayLike, embeddings2: ArrayLike) -> Floats:
        """Compare vectors (A, D) with vectors (A, D) row by row, as `similarity` does: (A,)."""
        dimension = self.get_embedding_dimension()
        return vectors.similarity_pairwise(embeddings1, embeddings2, self.similarity_fn_name, dimension)

    def tokenize(self, texts: str | Iterable[str]) -> dict[str, list[TokenIds]]:
        """Return the token ids and token types of each text, cut to `max_seq_length`.

        Returns
        -------
        dict
            ``"input_ids"`` and ``"token_type_ids"``: a list of int32 arrays each, one a text, not padded.
        """
        chunks = read_chunks(as_texts(texts)[0], check_texts)
        rows = [
            ids for first, chunk in chunks for ids in self._tokenizer(chunk, first, self.max_seq_length)[0]
        ]
        types: list[TokenIds] = [np.full(len(ids), self._tokenizer.token_type, np.int32) for ids in rows]
        return {"input_ids": rows, "token_type_ids": types}

    def token_counts(self, texts: str | Iterable[str]) -> NDArray[np.int64]:
        """Return how many tokens each text has before it is cut, special ones included: (S,)."""
        chunks = read_chunks(as_texts(texts)[0], check_texts)
        counts = (count for first, chunk in chunks for count in self._tokenizer.count_all(chunk, first))
        return np.fromiter(counts, np.int64)

    def _resolve_dimension(self, truncate_dim: int | None) -> int:
        dimension = self.truncate_dim if truncate_dim is None else truncate_dim
        return check_dimension(dimension, self.config.embedding_dimension)

    def _count_prompt(self, prompt: str) -> int:
        """Return how many tokens of each sentence are the prompt's, where a pooling leaves them out."""
        if all(getattr(module, "include_prompt", True) for module in self.config.modules):
            return 0
        return self._tokenizer.prompt_length(prompt, self.max_seq_length)

    def _compute(self, feature: str, prompt_length: int, rows: list[TokenIds]) -> Sequence[Floats]:
        """Return a vector (D',) of each of S sentences, or the states (T, D) of its tokens, from its ids (T,)."""
        ids: Ints = np.concatenate(rows)  # (N,)
        types = np.full(len(ids), self._tokenizer.token_type, np.int32)
        offsets: Ints = np.array([0, *accumulate(map(len, rows))])  # (S + 1,)
        if self._is_plain and feature == SENTENCE and not prompt_length:
            return list(self._vectors(ids, types, offsets))
        # What overflows becomes infinity or NaN, and an error of ours once the vectors are looked at.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            if any(needs_all_layers(module) for module, _ in self._steps):
                config = self.config.transformer
                states = model.hidden_states(ids, types, offsets, self._weights, config, self._kernels)
            else:
                states = iter([self._states(ids, types, offsets)])
            found = model.features(states, offsets, prompt_length, self._steps, self._kernels)[feature]
        if feature == TOKENS:  # arrays of their own: views would hold all of a micro-batch in memory
            return [sentence.copy() for sentence in np.split(found, offsets[1:-1])]
        return list(found)

    def _vectors(self, ids: Ints, types: Ints, offsets: Ints) -> Floats:
        """Return vectors (S, D') by one plan, which is possible where all modules are plain: see `modules.is_plain`."""
        plan = self._plans.get(SENTENCE) or self._record(SENTENCE, model.sentence_vectors, steps=self._steps)
        return plan(ids, types, offsets)
