"""FAISS: exact search over float vectors, and over bits in a thirty-second of the memory.

    pip install faiss-cpu
    python tools/recipes/faiss_index.py [MODEL]

Two traps: queries are a matrix, so a single one is encoded as a list; and FAISS counts bits of unsigned bytes, so the
precision is "ubinary", not "binary".
"""

import sys

import faiss
import numpy as np

import minisbert

TEXTS = ["a quick brown fox", "the stock market fell", "a lazy dog sleeps", "shares and bonds lost value"]


def build(encoder: minisbert.SentenceEncoder, texts: list[str]) -> faiss.Index:
    """Return an index of unit vectors: their inner product is the cosine."""
    vectors = encoder.encode(texts, normalize_embeddings=True)  # (S, D) float32
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index


def search(encoder: minisbert.SentenceEncoder, index: faiss.Index, queries: list[str], k: int) -> np.ndarray:
    """Return the rows of the k best texts for each query: (Q, k)."""
    return index.search(encoder.encode_query(queries, normalize_embeddings=True), k)[1]


def build_binary(encoder: minisbert.SentenceEncoder, texts: list[str]) -> faiss.IndexBinary:
    """Return an index of the signs of each vector, eight to a byte, compared by how many differ."""
    bits = encoder.encode(texts, precision="ubinary")  # (S, D / 8) uint8
    index = faiss.IndexBinaryFlat(8 * bits.shape[1])
    index.add(bits)
    return index


def search_binary(encoder, index: faiss.IndexBinary, queries: list[str], k: int) -> np.ndarray:
    """Return how many bits differ for the k best texts of each query, and their rows: (Q, k) both."""
    return index.search(encoder.encode_query(queries, precision="ubinary"), k)


if __name__ == "__main__":
    encoder = minisbert.load(*(sys.argv[1:] or ["sentence-transformers/all-MiniLM-L6-v2"]))
    for row in search(encoder, build(encoder, TEXTS), ["finance"], k=2)[0]:
        print(TEXTS[row])
