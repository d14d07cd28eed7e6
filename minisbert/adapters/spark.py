"""Spark: `embed`, which appends a column of vectors to a data frame on any number of machines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

from minisbert.adapters import needing

with needing("spark"):
    import pyarrow as pa
    from pyspark import TaskContext
    from pyspark.sql import DataFrame, types

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

    They are the same bits as on one machine. Each Python worker loads the encoder once, and keeps it for later jobs; it
    computes with as many threads as a task has processors, ``spark.task.cpus``. There are as many workers at once as
    partitions, at most: `DataFrame.repartition` makes more. What a worker that dies has not finished is computed anew.

    Parameters
    ----------
    frame : pyspark.sql.DataFrame
        With a column of strings.
    encoder : str, os.PathLike or EncoderSpec
        A checkpoint folder that all machines have, or a name on the Hugging Face hub; or with settings, a
        `minisbert.adapters.spec.EncoderSpec`.
    column, output_column : str
        The column of texts, and the new one of vectors: arrays of float, as Spark has no lists of one size.

    Returns
    -------
    pyspark.sql.DataFrame

    Raises
    ------
    MinisbertError
        If the checkpoint can't be loaded, or the columns are not as they should be; and, once it is computed, if a text
        is null: Spark's error then has ours, which names column, partition and row.

    Examples
    --------
    >>> from minisbert.adapters.spark import embed
    >>> texts = spark.read.parquet("texts/")
    >>> embed(texts, "sentence-transformers/all-MiniLM-L6-v2").write.parquet("vectors/")
    """
    embedder = column_embedder(encoder, column, output_column)
    embedder.check_columns(frame.columns)
    number = types.DoubleType() if embedder.encoder.dtype == "float64" else types.FloatType()
    vectors = types.StructField(output_column, types.ArrayType(number, containsNull=False), nullable=False)
    schema = types.StructType([*frame.schema.fields, vectors])
    return frame.mapInArrow(partial(_append, embedder), schema)


def _append(embedder: ColumnEmbedder, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Append the column to each batch of a partition."""
    context = TaskContext.get()
    part = f"partition {context.partitionId()}" if context else "the partition"
    first = 0
    for batch in batches:
        yield _with_plain_lists(embedder(batch, first, part))
        first += batch.num_rows


def _with_plain_lists(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Make the last column one of plain lists, as Spark reads no lists of one size."""
    vectors = batch.column(batch.num_columns - 1)
    plain = vectors.cast(pa.list_(vectors.type.value_type))
    return pa.RecordBatch.from_arrays([*batch.columns[:-1], plain], names=batch.schema.names)
