"""MTEB: the scores of a checkpoint, computed with minisbert.

    pip install mteb                      (which brings torch along, for its own models)
    python tools/recipes/mteb_score.py [MODEL [TASK ...]]

MTEB knows neither the encoder nor its looks; what it takes is its own `AbsEncoder`. Names of tasks, such as STS12, are
downloaded; without one, a task of six pairs is computed that is written down here.
"""

import sys

import mteb
import numpy as np
from datasets import Dataset, DatasetDict
from mteb.abstasks import AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta

import minisbert

PAIRS = [
    ("a man is eating food", "a man eats something", 4.5),
    ("a plane takes off", "an air plane is taking off", 5.0),
    ("a man plays a flute", "a man is playing a large flute", 3.8),
    ("three men play chess", "two men are playing chess", 2.6),
    ("a woman slices an onion", "a dog runs across a field", 0.2),
    ("a boy sings", "somebody pours oil into a pan", 0.4),
]


class Encoder(AbsEncoder):
    """Computes with minisbert."""

    def __init__(self, encoder: minisbert.SentenceEncoder) -> None:
        self.model, self.model_prompts = encoder, encoder.prompts
        named = {"name": f"minisbert/{encoder.path.name}", "revision": encoder.dtype}
        self.mteb_model_meta = ModelMeta.create_empty(overwrites=named)

    def encode(self, inputs, *, task_metadata, prompt_type=None, **unused) -> np.ndarray:
        """Encode the texts of a torch DataLoader."""
        texts = [text for batch in inputs for text in batch["text"]]
        name = self.get_prompt_name(task_metadata, prompt_type)
        return self.model.encode(texts, prompt_name=name, truncation="silent")


class Pairs(AbsTaskSTS):
    """A task of the pairs above."""

    metadata = TaskMetadata(
        name="Pairs", type="STS", main_score="cosine_spearman", dataset={"path": "pairs", "revision": "1"},
        eval_splits=["test"], eval_langs=["eng-Latn"], description="Six pairs.", reference=None, date=None,
        domains=None, task_subtypes=None, license=None, annotations_creators=None, dialect=None,
        sample_creation=None, bibtex_citation=None,
    )  # fmt: skip
    pairs = PAIRS

    def load_data(self, **unused) -> None:
        columns = dict(zip(("sentence1", "sentence2", "score"), zip(*self.pairs, strict=True), strict=True))
        self.dataset, self.data_loaded = DatasetDict(test=Dataset.from_dict(columns)), True


def scores(model, tasks: list) -> dict[str, float]:
    """Return the main score of each task; nothing is read from, or written to, MTEB's cache."""
    results = mteb.evaluate(model, tasks, cache=None, show_progress_bar=False)
    return {result.task_name: result.get_score() for result in results.task_results}


if __name__ == "__main__":
    encoder = minisbert.load(*(sys.argv[1:2] or ["sentence-transformers/all-MiniLM-L6-v2"]))
    print(scores(Encoder(encoder), list(mteb.get_tasks(tasks=sys.argv[2:])) if sys.argv[2:] else [Pairs()]))
