"""Dask: `embed`, which appends a column of vectors to a data frame on any number of machines."""

from __future__ import annotations

from functools import partial

from minisbert.adapters import needing
from minisbert.errors import EncodeTypeError

with needing("dask"):
    import pandas as pd
    import pyarrow as pa
    from dask.dataframe import DataFrame

    from minisbert.adapters.arrow import ColumnEmbedder, Encoder, column_embedder

__all__ = ["embed"]


def embed(
    frame: DataFrame,
    encoder: Encoder,
    column: str = "text",
    *,
    output_column: str = "embedding",
) -> DataFrame:
    """Append the vectors of a column of texts to a data frame.

    They are the same bits as on one machine. Each worker process loads the encoder once. It computes with
    ``OMP_NUM_THREADS`` threads, which a worker of `dask.distributed` is given as 1 for each task: so let a machine have
    as many workers, or threads a worker, as processors. What a worker that dies has not finished is computed anew.

    Parameters
    ----------
    frame : dask.dataframe.DataFrame
        With a column of strings.
    encoder : str, os.PathLike or EncoderSpec
        A checkpoint folder that all machines have, or a name on the Hugging Face hub; or with settings, a
        `minisbert.adapters.spec.EncoderSpec`.
    column, output_column : str
        The column of texts, and the new one of vectors: Arrow's lists of one size, of float32.

    Returns
    -------
    dask.dataframe.DataFrame

    Raises
    ------
    MinisbertError
        If the checkpoint can't be loaded, or the columns are not as they should be; and, once it is computed, if a text
        is null: the message names column, row and index.

    Examples
    --------
    >>> from minisbert.adapters.dask import embed
    >>> texts = dask.dataframe.read_parquet("texts/")
    >>> embed(texts, "sentence-transformers/all-MiniLM-L6-v2").to_parquet("vectors/")
    """
    embedder = column_embedder(encoder, column, output_column)
    append = partial(_append, embedder)
    like = append(frame._meta)  # of no rows; without it Dask would try rows that it makes up
    return frame.map_partitions(append, meta=like)


def _append(embedder: ColumnEmbedder, frame: pd.DataFrame) -> pd.DataFrame:
    """Append the column to a partition."""
    embedder.check_columns(list(frame.columns))
    column, index = frame[embedder.column], frame.index
    try:
        texts = pa.array(column)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:  # objects of several types
        raise EncodeTypeError(
            f"column {column.name!r} is {column.dtype}, and not of strings alone: {error}"
        ) from error
    vectors = embedder.embed(texts, lambda row: f"row {row} of a partition (index {index[row]})")
    values = pd.arrays.ArrowExtensionArray(vectors)
    return frame.assign(**{embedder.output_column: pd.Series(values, index=index)})
