"""Ray Data: `embed`, which appends a column of vectors to a dataset on any number of machines."""

from __future__ import annotations

from typing import Any

from minisbert.adapters import needing

with needing("ray"):
    from ray.data import Dataset

    from minisbert.adapters.arrow import Encoder, column_embedder

__all__ = ["embed"]

BATCH = 1024  # rows: a task has as many at least, so larger ones would leave small datasets to one worker


def embed(
    dataset: Dataset,
    encoder: Encoder,
    column: str = "text",
    *,
    output_column: str = "embedding",
    **options: Any,
) -> Dataset:
    """Append the vectors of a column of texts to a dataset.

    They are the same bits as on one machine. Each worker process loads the encoder once, and computes with as many
    threads as Ray gives it processors, ``num_cpus``. What a worker that dies has not finished is computed anew.

    Parameters
    ----------
    dataset : ray.data.Dataset
        With a column of strings.
    encoder : str, os.PathLike or EncoderSpec
        A checkpoint folder that all machines have, or a name on the Hugging Face hub; or with settings, a
        `minisbert.adapters.spec.EncoderSpec`.
    column, output_column : str
        The column of texts, and the new one of vectors: lists of one size, of float32.
    **options
        As in `ray.data.Dataset.map_batches`, such as ``num_cpus``, ``memory`` and ``batch_size`` (by default 1024).

    Returns
    -------
    ray.data.Dataset

    Raises
    ------
    MinisbertError
        If the checkpoint can't be loaded; and, once it is computed, if a column is not there or of another type, or a
        text is null: Ray's error then has ours, which names column and row.

    Examples
    --------
    >>> from minisbert.adapters.ray import embed
    >>> texts = ray.data.read_parquet("texts/")
    >>> embed(texts, "sentence-transformers/all-MiniLM-L6-v2").write_parquet("vectors/")
    """
    embedder = column_embedder(encoder, column, output_column)
    return dataset.map_batches(embedder, batch_format="pyarrow", **{"batch_size": BATCH, **options})
