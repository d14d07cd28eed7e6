"""Clusters of two worker processes on this machine: each turns a table of texts, in parts, into one with vectors."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from minisbert.adapters.spec import EncoderSpec

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["CLUSTERS", "WORKERS", "Run", "slices"]

WORKERS = 2
ROOT = Path(__file__).resolve().parents[2]  # where workers find the package and this one


class Run(Protocol):
    """Embeds the column "text" of a table in so many parts; the rows may come back in another order."""

    def __call__(self, table: pa.Table, encoder: EncoderSpec, parts: int) -> pa.Table: ...


def slices(table: pa.Table, parts: int) -> list[pa.Table]:
    size = -(-table.num_rows // parts)
    return [table.slice(size * part, size) for part in range(parts)]


@contextmanager
def ray_cluster() -> Iterator[Run]:
    import pyarrow as pa
    import ray

    import minisbert.adapters.ray as adapter

    def run(table: pa.Table, encoder: EncoderSpec, parts: int) -> pa.Table:
        dataset = ray.data.from_arrow(slices(table, parts))
        return pa.concat_tables(ray.get(adapter.embed(dataset, encoder).to_arrow_refs()))

    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level="error")
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel("ERROR")
    try:
        yield run
    finally:
        ray.shutdown()


@contextmanager
def spark_cluster() -> Iterator[Run]:
    from pyspark.sql import SparkSession

    import minisbert.adapters.spark as adapter

    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    session = (
        SparkSession.builder.master(f"local[{WORKERS}, 4]")  # tries a task
        .config("spark.ui.enabled", False)
        .config("spark.ui.showConsoleProgress", False)
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.log.level", "OFF")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", 1024)
        .getOrCreate()
    )

    def run(table: pa.Table, encoder: EncoderSpec, parts: int) -> pa.Table:
        return adapter.embed(session.createDataFrame(table).repartition(parts), encoder).toArrow()

    try:
        yield run
    finally:
        session.stop()


@contextmanager
def dask_cluster() -> Iterator[Run]:
    import dask.dataframe as dd
    import pandas as pd
    import pyarrow as pa
    from distributed import Client, LocalCluster

    import minisbert.adapters.dask as adapter

    def run(table: pa.Table, encoder: EncoderSpec, parts: int) -> pa.Table:
        frame = dd.from_pandas(table.to_pandas(types_mapper=pd.ArrowDtype), npartitions=parts)
        return pa.Table.from_pandas(adapter.embed(frame, encoder).compute(), preserve_index=False)

    with (
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        yield run


CLUSTERS: dict[str, Callable[[], AbstractContextManager[Run]]] = {
    "ray": ray_cluster,
    "pyspark": spark_cluster,
    "distributed": dask_cluster,
}
