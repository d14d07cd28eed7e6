"""USearch: approximate search, here over bits, and then the best by their float vectors.

    pip install usearch
    python tools/recipes/usearch_index.py [MODEL]

The signs alone find the neighbourhood in a thirty-second of the memory. So ten times as many as are wanted are taken,
and put in order by the float vectors, which can lie on disk.
"""

import sys

import numpy as np
from usearch.index import Index

import minisbert

TEXTS = ["a quick brown fox", "the stock market fell", "a lazy dog sleeps", "shares and bonds lost value"]


def build(encoder: minisbert.SentenceEncoder, vectors: np.ndarray) -> Index:
    """Return an index of the signs of vectors (S, D)."""
    index = Index(ndim=encoder.get_embedding_dimension(), metric="hamming", dtype="b1")
    index.add(np.arange(len(vectors)), np.packbits(vectors > 0, axis=1))  # as precision="ubinary" does
    return index


def search(encoder, index: Index, vectors: np.ndarray, query: str, k: int) -> np.ndarray:
    """Return the rows of the k best texts for a query."""
    vector = encoder.encode_query(query)
    found = index.search(np.packbits(vector > 0), min(10 * k, len(index))).keys.astype(np.int64)
    scores = encoder.similarity(vector, vectors[found])[0]
    return found[np.argsort(-scores, kind="stable")[:k]]


if __name__ == "__main__":
    encoder = minisbert.load(*(sys.argv[1:] or ["sentence-transformers/all-MiniLM-L6-v2"]))
    vectors = encoder.encode(TEXTS)
    for row in search(encoder, build(encoder, vectors), vectors, "finance", k=2):
        print(TEXTS[row])
