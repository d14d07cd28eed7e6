"""What `run.py` measures: which checkpoints, in which layouts, with which modules and dtypes, on which texts.

Not every combination, which would be thousands: each family with every pooling, each with every layout, each with
every dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.support import pipelines, texts
from tests.support.pipelines import NORMALIZE, Spec

# The families, by the checkpoints of tests/data, and two of full size.
MINILM, ROBERTA = "all-MiniLM-L6-v2", "full-size-roberta"
FULL_SIZE = (MINILM, ROBERTA)
TITLES = {
    "tiny-bert": "BERT",
    "tiny-multilingual": "BERT with a Unigram tokenizer",
    "tiny-roberta": "RoBERTa",
    "tiny-xlm-roberta": "XLM-RoBERTa",
    "tiny-camembert": "CamemBERT",
    "tiny-distilbert": "DistilBERT",
    "tiny-electra": "ELECTRA",
    "tiny-mpnet": "MPNet",
    MINILM: "all-MiniLM-L6-v2",
    ROBERTA: "RoBERTa of full size",
}

DTYPES = ("float32", "float16", "bfloat16", "float64")

# How a checkpoint is laid out, and the version of sentence-transformers that its modules' type names and settings of
# pooling are of. `build.py` says what each layout is.
PLAIN = "plain"
LAYOUTS = {
    PLAIN: "6",
    "5.4": "5.4",
    "2.x": "2",
    "prefix": "6",
    "shards": "6",
    "0_Transformer": "2",
    "no modules.json": "6",
    "masked-LM head": "6",
    "classifier head": "6",
    "gamma and beta": "2",
    "saved again": "6",
}
FULL_SIZE_LAYOUTS = (PLAIN, "2.x", "prefix", "shards", "0_Transformer")

Stack = tuple[Spec, ...]
STANDARD, DENSE = "mean, Normalize", "mean, Dense, Normalize"


def _pool(*modes: str) -> Callable[[int, int], Stack]:
    return lambda width, layers: (pipelines.pooling(*modes, width=width),)


def _normalised(*modes: str) -> Callable[[int, int], Stack]:
    return lambda width, layers: (pipelines.pooling(*modes, width=width), NORMALIZE)


def _dense(width: int, layers: int) -> Stack:
    return pipelines.pooling("mean", width=width), pipelines.dense(width // 3, width=width), NORMALIZE


def _weighted(width: int, layers: int) -> Stack:
    mixed = pipelines.weighted_layers(1, embedding_dimension=width, num_hidden_layers=layers)
    return mixed, pipelines.pooling("mean", width=width), NORMALIZE


# The modules after a transformer, given its width and number of layers.
POOLINGS: dict[str, Callable[[int, int], Stack]] = {
    STANDARD: _normalised("mean"),
    **{mode: _pool(mode) for mode in pipelines.MODES},
    "cls + mean, Normalize": _normalised("cls", "mean"),
    DENSE: _dense,
    "WeightedLayerPooling, mean, Normalize": _weighted,
}


@dataclass(frozen=True)
class Case:
    """One row: a checkpoint to be made, and measured."""

    family: str
    layout: str = PLAIN
    pooling: str = STANDARD
    dtype: str = "float32"

    @property
    def kind(self) -> str:
        """What the vectors are: of length 1, or of any."""
        return "unit" if self.pooling.endswith("Normalize") else "any"


def cases(family: str) -> Iterator[Case]:
    """Yield every row of a family; the other dtypes with a Dense module, whose weights have them too."""
    for pooling in POOLINGS:
        yield Case(family, pooling=pooling)
    for layout in FULL_SIZE_LAYOUTS if family in FULL_SIZE else LAYOUTS:
        if layout != PLAIN:
            yield Case(family, layout, "mean" if layout == "no modules.json" else STANDARD)
    for dtype in DTYPES[1:]:
        yield Case(family, pooling=DENSE, dtype=dtype)


# --- Texts ------------------------------------------------------------------------------------------------

# What every checkpoint has to be given; the last one is longer than any limit here.
KINDS = [
    "",
    "a [MASK] in the middle of a [SEP] sentence [CLS] with [PAD] and [UNK].",
    "positions <pad> shift <pad> after <pad> each",
    "first</s></s>second <s> third <unk> fourth",
    "  two spaces before",
    "two spaces after  ",
    "\u4e2d\u6587and English\u6df7\u5408\u65e0\u7a7a\u683c",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f3f3\ufe0f\u200d\U0001f308 \U0001f44d\U0001f3fd",
    "a " * 255,
]
LONGEST = 3000  # characters: longer texts are cut all the same, and only take time to split


def sentences(family: str) -> list[str]:
    """Return texts of all kinds, without repetition: a hundred, or some twenty for a checkpoint of full size."""
    edges = [text for text in texts.edge_texts() if len(text) <= LONGEST]
    real = texts.real_texts()
    more = [*edges[::12], *real[::80]] if family in FULL_SIZE else [*edges, *real[::16]]
    return list(dict.fromkeys([*KINDS, *more]))
