"""pyarrow: a Parquet file of texts of any size to one with vectors, a piece at a time.

    pip install pyarrow
    python tools/recipes/pyarrow_parquet.py [MODEL]

Memory stays constant, and the new file appears under its name once it is complete. `minisbert.adapters.arrow` appends
the column, and its errors name the row; all other columns stay as they are.
"""

import os
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from minisbert.adapters.arrow import ColumnEmbedder, column_embedder

TEXTS = ["a quick brown fox", "the stock market fell", "a lazy dog sleeps", "shares and bonds lost value"]


def embed_file(model: str, source: Path, target: Path, column: str = "text") -> None:
    unfinished = target.with_suffix(".unfinished")
    try:
        write(column_embedder(model, column, "embedding"), source, unfinished)
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)


def write(append: ColumnEmbedder, source: Path, target: Path) -> None:
    with pq.ParquetFile(source) as file:
        schema = append(file.schema_arrow.empty_table()).schema
        with pq.ParquetWriter(target, schema) as writer:
            first = 0
            for batch in file.iter_batches(batch_size=8192):
                writer.write_batch(append(batch, first, str(source)))
                first += batch.num_rows


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "texts.parquet"), Path(folder, "vectors.parquet")
        pq.write_table(pa.table({"id": range(4), "text": TEXTS}), source)
        embed_file(*(sys.argv[1:] or ["sentence-transformers/all-MiniLM-L6-v2"]), source, target)
        print(pq.read_schema(target))
