"""BERTopic: topics of many texts.

    pip install bertopic
    python tools/recipes/bertopic_topics.py [MODEL]

BERTopic takes an object that it doesn't know for none, says nothing, and computes with another model. What it knows is
its `BaseEmbedder`.
"""

import json
import sys
from pathlib import Path

import numpy as np
from bertopic import BERTopic
from bertopic.backend import BaseEmbedder

import minisbert


class Encoder(BaseEmbedder):
    """Computes with minisbert."""

    def embed(self, documents: list[str], verbose: bool = False) -> np.ndarray:
        return self.embedding_model.encode(list(documents), show_progress_bar=verbose, truncation="silent")


def topics(encoder: minisbert.SentenceEncoder, texts: list[str], **options: object) -> BERTopic:
    """Return a fitted model; `topics_` says for each text in which topic it is, -1 for none."""
    return BERTopic(embedding_model=Encoder(encoder), **options).fit(texts)


if __name__ == "__main__":
    encoder = minisbert.load(*(sys.argv[1:] or ["sentence-transformers/all-MiniLM-L6-v2"]))
    file = Path(__file__).parents[2] / "tests" / "data" / "texts.json"
    titles = json.loads(file.read_text(encoding="utf-8"))["groups"][0]["texts"]
    model = topics(encoder, titles, min_topic_size=5)
    print(model.get_topic_info()[["Topic", "Count", "Name"]].to_string(index=False))
