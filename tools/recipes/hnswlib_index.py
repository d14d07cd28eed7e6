"""hnswlib: approximate search in a graph of neighbours, saved to a file.

    pip install hnswlib
    python tools/recipes/hnswlib_index.py [MODEL]

It makes the vectors unit vectors itself ("cosine"), and its distance is 1 - cosine. A larger `ef` finds more of the
true neighbours, and takes longer.
"""

import sys
import tempfile

import hnswlib
import numpy as np

import minisbert

TEXTS = ["a quick brown fox", "the stock market fell", "a lazy dog sleeps", "shares and bonds lost value"]


def build(encoder: minisbert.SentenceEncoder, texts: list[str], path: str) -> None:
    """Write an index of the texts to a file."""
    vectors = encoder.encode(texts)
    index = hnswlib.Index(space="cosine", dim=vectors.shape[1])
    index.init_index(max_elements=len(texts), ef_construction=200, M=32)
    index.add_items(vectors)
    index.save_index(path)


def search(encoder: minisbert.SentenceEncoder, path: str, queries: list[str], k: int) -> np.ndarray:
    """Return the rows of the k best texts for each query: (Q, k)."""
    index = hnswlib.Index(space="cosine", dim=encoder.get_embedding_dimension())
    index.load_index(path)
    index.set_ef(max(200, k))
    return index.knn_query(encoder.encode_query(queries), k)[0]


if __name__ == "__main__":
    encoder = minisbert.load(*(sys.argv[1:] or ["sentence-transformers/all-MiniLM-L6-v2"]))
    with tempfile.NamedTemporaryFile() as file:
        build(encoder, TEXTS, file.name)
        for row in search(encoder, file.name, ["finance"], k=2)[0]:
            print(TEXTS[row])
