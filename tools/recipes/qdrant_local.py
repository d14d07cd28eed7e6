"""Qdrant: vectors with properties to filter by; local here, and on a server with the same lines.

    pip install qdrant-client
    python tools/recipes/qdrant_local.py [MODEL]

Vectors are computed here and handed over: Qdrant's own `models.Document(text, model)` would compute with fastembed, and
with another checkpoint.
"""

import sys

from qdrant_client import QdrantClient, models

import minisbert

TEXTS = ["a quick brown fox", "the stock market fell", "a lazy dog sleeps", "shares and bonds lost value"]
KINDS = ["animals", "money", "animals", "money"]


def build(
    client: QdrantClient, encoder: minisbert.SentenceEncoder, texts: list[str], kinds: list[str]
) -> None:
    """Make a collection of texts and their kinds."""
    size = encoder.get_embedding_dimension()
    client.create_collection(
        "texts", vectors_config=models.VectorParams(size=size, distance=models.Distance.COSINE)
    )
    payload = [{"text": text, "kind": kind} for text, kind in zip(texts, kinds, strict=True)]
    client.upload_collection("texts", encoder.encode(texts), payload, ids=range(len(texts)))


def search(client: QdrantClient, encoder: minisbert.SentenceEncoder, query: str, kind: str, k: int) -> list:
    """Return the k best texts of a kind."""
    only = models.Filter(must=[models.FieldCondition(key="kind", match=models.MatchValue(value=kind))])
    vector = encoder.encode_query(query)
    return client.query_points("texts", query=vector, query_filter=only, limit=k).points


if __name__ == "__main__":
    encoder = minisbert.load(*(sys.argv[1:] or ["sentence-transformers/all-MiniLM-L6-v2"]))
    client = QdrantClient(":memory:")  # or path="folder", or url="http://localhost:6333"
    build(client, encoder, TEXTS, KINDS)
    for point in search(client, encoder, "a pet", "animals", k=2):
        print(f"{point.score:.3f}  {point.payload['text']}")
    client.close()
