"""datasets: a column of vectors by `map`, cached on disk.

    pip install datasets
    python tools/recipes/datasets_map.py [MODEL]

The key of the cache has the hash of the checkpoint's files, as the encoder's pickle has it: other weights in the same
folder are computed anew. Without `features` the vectors would be lists of any length, in float64 when read.
"""

import sys

from datasets import Dataset, Features, List, Value

import minisbert

TEXTS = ["a quick brown fox", "the stock market fell", "a lazy dog sleeps", "shares and bonds lost value"]


class Embed:
    """What `map` calls: an object, as all that it holds becomes part of the key."""

    def __init__(self, encoder: minisbert.SentenceEncoder) -> None:
        self.encoder = encoder

    def __call__(self, rows: dict[str, list]) -> dict[str, object]:
        return {"embedding": self.encoder.encode(rows["text"])}


def with_vectors(encoder: minisbert.SentenceEncoder, dataset: Dataset) -> Dataset:
    vector = List(Value("float32"), length=encoder.get_embedding_dimension())
    features = Features({**dataset.features, "embedding": vector})
    return dataset.map(Embed(encoder), batched=True, features=features)


if __name__ == "__main__":
    encoder = minisbert.load(*(sys.argv[1:] or ["sentence-transformers/all-MiniLM-L6-v2"]))
    dataset = with_vectors(encoder, Dataset.from_dict({"text": TEXTS}))
    print(dataset.features, dataset.with_format("numpy")["embedding"][:].shape)
