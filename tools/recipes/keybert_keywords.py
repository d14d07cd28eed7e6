"""KeyBERT: the words of a text that are most like the text.

    pip install keybert
    python tools/recipes/keybert_keywords.py [MODEL]

KeyBERT takes an object that it doesn't know for none, says nothing, and computes with another model. What it knows is
its `BaseEmbedder`.
"""

import sys

import numpy as np
from keybert import KeyBERT
from keybert.backend import BaseEmbedder

import minisbert

TEXT = """Supervised learning is the machine learning task of learning a function that maps an input to an output
based on example input-output pairs. It infers a function from labelled training data."""


class Encoder(BaseEmbedder):
    """Computes with minisbert."""

    def embed(self, documents: list[str], verbose: bool = False) -> np.ndarray:
        return self.embedding_model.encode(documents, show_progress_bar=verbose)


def keywords(encoder: minisbert.SentenceEncoder, text: str, k: int) -> list[tuple[str, float]]:
    """Return the k words that are most like the text, with their cosines."""
    return KeyBERT(Encoder(encoder)).extract_keywords(text, stop_words="english", top_n=k)


if __name__ == "__main__":
    encoder = minisbert.load(*(sys.argv[1:] or ["sentence-transformers/all-MiniLM-L6-v2"]))
    for word, score in keywords(encoder, TEXT, k=5):
        print(f"{score:.3f}  {word}")
