"""txtai: an index that is saved, and computes with minisbert when it is loaded again.

    pip install txtai
    python tools/recipes/txtai_index.py [MODEL]

A function as `transform` can be indexed with, but not be saved with the index. A class can, by its name, which Python
must be able to import: in a package of yours, `METHOD = "yours.txtai_index.Encoder"`.
"""

import sys
import tempfile

import numpy as np
from txtai import Embeddings
from txtai.vectors import Vectors

import minisbert

METHOD = "txtai_index.Encoder"
TEXTS = ["a quick brown fox", "the stock market fell", "a lazy dog sleeps", "shares and bonds lost value"]


class Encoder(Vectors):
    """Computes with minisbert: `path` of the index's settings is the checkpoint."""

    def loadmodel(self, path: str) -> minisbert.SentenceEncoder:
        return minisbert.load(path)

    def encode(self, data: list[str], category: str | None = None) -> np.ndarray:
        encode = self.model.encode_query if category == "query" else self.model.encode
        return encode(data, normalize_embeddings=True)


def build(model: str, texts: list[str], path: str) -> None:
    """Write an index of the texts to a folder."""
    embeddings = Embeddings(method=METHOD, path=model)
    embeddings.index(texts)
    embeddings.save(path)


def search(path: str, query: str, k: int) -> list[tuple[int, float]]:
    """Return the rows of the k best texts of the index in a folder, with their cosines."""
    embeddings = Embeddings()
    embeddings.load(path)
    return embeddings.search(query, k)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        build(*(sys.argv[1:] or ["sentence-transformers/all-MiniLM-L6-v2"]), TEXTS, folder)
        for row, score in search(folder, "finance", k=2):
            print(f"{score:.3f}  {TEXTS[row]}")
