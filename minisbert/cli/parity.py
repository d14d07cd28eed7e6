"""The same texts through minisbert and through sentence-transformers, compared stage by stage, where that is installed.

The reference computes in float64, each text alone, so the errors are minisbert's own. It is given no prompt, and so is
minisbert, but for the last stage: that is `encode` of both as people call it.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from minisbert import model
from minisbert.arrays import Floats, Ints
from minisbert.checkpoint.modules import SENTENCE, TOKENS, Module, WeightedLayerPooling
from minisbert.cross_encoder import CrossEncoder
from minisbert.encoder import SentenceEncoder
from minisbert.engine.base import TextModel
from minisbert.errors import EncodeValueError

__all__ = ["Stage", "check_installed", "compare", "table"]

TEXTS = [
    "The weather is lovely today.",
    "",
    "   ",
    "  two spaces before, and after  ",
    "[MASK] and <mask>, [PAD] and <pad>, [SEP] and </s>: special tokens, written out",
    "\u4e2d\u6587, \u65e5\u672c\u8a9e and \ud55c\uad6d\uc5b4 in one text",
    "\U0001f600 \U0001f44d\U0001f3fd \U0001f468\u200d\U0001f469\u200d\U0001f467 emoji",
    "Caf\u00e9s na\u00efve: cafe\u0301s, UPPER CASE, 3.14!",
]
# The largest error that is allowed: of unit vectors as it is, of other values for each of the largest one's size.
UNIT = {"float32": 1e-6, "float64": 1e-12}
RELATIVE = {"float32": 2e-6, "float64": 1e-12}


@dataclass(frozen=True)
class Stage:
    """How far minisbert is from the reference: the largest absolute error of any number, or how many texts differ."""

    name: str
    error: float
    bound: float

    @property
    def ok(self) -> bool:
        """Whether the bound is kept; NaN keeps none."""
        return self.error <= self.bound

    def as_json(self) -> dict[str, Any]:
        """Return what `minisbert check --json` prints."""
        return asdict(self) | {"ok": self.ok}


def check_installed() -> None:
    """Refuse to compare without the reference implementation."""
    missing = [name for name in ("torch", "sentence_transformers") if find_spec(name) is None]
    if missing:
        raise EncodeValueError(
            f"--against-torch needs {' and '.join(missing).replace('_', '-')}, which is not installed: "
            "pip install torch sentence-transformers"
        )


def compare(encoder: TextModel) -> list[Stage]:
    """Compare the tokens, the embeddings, every layer, what comes after them, and `encode` or `predict`."""
    if encoder.dtype not in UNIT:
        raise EncodeValueError(
            f"--against-torch compares float32 and float64, and {encoder.path} is {encoder.dtype}, which minisbert "
            "compare compares with the original"
        )
    texts = [*TEXTS, "word " * encoder.max_seq_length]  # and one that is too long
    inputs = list(zip(texts, texts[1:] + texts[:1], strict=True)) if _is_cross(encoder) else texts
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the reference, about itself
        reference = _load_reference(encoder)
        rows = [_run_reference(reference, encoder, item) for item in inputs]
        results = reference.predict if _is_cross(encoder) else reference.encode
        theirs = results(inputs, batch_size=1, show_progress_bar=False, convert_to_tensor=True).numpy()
    tokens = [row.pop("tokens") for row in rows]
    different = sum(not np.array_equal(*pair) for pair in zip(_tokens(encoder, inputs), tokens, strict=True))
    expected = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    found = _run(encoder, tokens)
    dtype, last = str(encoder.dtype), "predict" if _is_cross(encoder) else "encode"
    ours = getattr(encoder, last)(inputs, truncation="silent", show_progress_bar=False)
    return [
        Stage("texts with other tokens", different, 0),
        *(_stage(name, found[name], value, dtype) for name, value in expected.items()),
        _stage(last, ours, theirs, dtype),
    ]


def table(stages: Sequence[Stage]) -> Iterator[str]:
    """Yield the lines of a table for people."""
    rows = [("stage", "largest error", "bound", "")]
    for stage in stages:
        form = ".1e" if stage.bound else ".0f"  # no text may have other ids
        numbers = format(stage.error, form), format(stage.bound, form)
        rows.append((stage.name, *numbers, "ok" if stage.ok else "NOT OK"))
    width = max(len(name) for name, *_ in rows)
    for name, error, bound, verdict in rows:
        yield f"{name:<{width}}  {error:>13}  {bound:>7}  {verdict}".rstrip()


def _stage(name: str, found: Floats, expected: Floats, dtype: str) -> Stage:
    largest = float(np.abs(expected).max())
    bound = RELATIVE[dtype] * (max(1.0, largest) if name in ("logits", "predict") else largest)
    if expected.ndim == 2 and np.allclose(np.linalg.norm(expected, axis=1), 1):
        bound = UNIT[dtype]
    return Stage(name, float(np.abs(found - expected).max()), bound)


def _is_cross(encoder: TextModel) -> bool:
    return isinstance(encoder, CrossEncoder)


def _after(encoder: TextModel) -> list[tuple[str, str]]:
    """Return what follows the layers: names of stages, and the features that they leave changed."""
    if not isinstance(encoder, SentenceEncoder):
        return [("logits", "scores")]
    return [(f"{i} {module}", _changed(module)) for i, module in enumerate(encoder.config.modules, 1)]


def _changed(module: Module) -> str:
    feature: str = getattr(module, "feature", SENTENCE)
    return TOKENS if isinstance(module, WeightedLayerPooling) else feature


def _named(encoder: TextModel, values: list[Floats]) -> dict[str, Floats]:
    """Give the values of all stages their names."""
    layers = [f"layer {i}" for i in range(1, encoder.config.transformer.num_hidden_layers + 1)]
    names = ["embeddings", *layers, *(name for name, _ in _after(encoder))]
    return dict(zip(names, values, strict=True))


# --- minisbert ------------------------------------------------------------------------------------------------


def _tokens(encoder: Any, inputs: Sequence[Any]) -> list[Ints]:
    """Return the ids and types of each text: (2, T)."""
    found = encoder.tokenize(inputs)
    return [np.stack(row) for row in zip(found["input_ids"], found["token_type_ids"], strict=True)]


def _run(encoder: TextModel, rows: list[Ints]) -> dict[str, Floats]:
    """Run minisbert over tokens: every stage by name, all texts end to end."""
    kernels, config = encoder._kernels, encoder.config.transformer
    ids, types = np.ascontiguousarray(np.concatenate(rows, axis=1), np.int32)  # (N,) each
    offsets: Ints = np.cumsum([0, *(row.shape[1] for row in rows)])  # (S + 1,)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # the table shows what it comes to
        states = list(
            model.hidden_states(ids, types, offsets, encoder._weights, config, kernels)
        )  # (N, D) each
        if isinstance(encoder, CrossEncoder):
            after = [model.logits(states[-1], offsets, encoder._head, kernels)]
        else:
            after = list(_run_modules(encoder, states, offsets))
    return _named(encoder, states + after)


def _run_modules(encoder: Any, states: list[Floats], offsets: Ints) -> Iterator[Floats]:
    for end, (_, feature) in enumerate(_after(encoder), 1):
        found = model.features(states, offsets, 0, encoder._steps[:end], encoder._kernels)
        yield found.get(feature, found[TOKENS])


# --- the reference ----------------------------------------------------------------------------------------------


def _load_reference(encoder: TextModel) -> Any:
    log = importlib.import_module("transformers").logging
    log.disable_progress_bar()
    log.set_verbosity_error()
    library = importlib.import_module("sentence_transformers")
    kind = library.CrossEncoder if _is_cross(encoder) else library.SentenceTransformer
    # Otherwise it would round the weights to the dtype that config.json names.
    arguments = {"dtype": importlib.import_module("torch").float64}
    reference = kind(str(encoder.path), device="cpu", local_files_only=True, model_kwargs=arguments)
    reference = reference.double().eval()
    reference[0].auto_model.config.output_hidden_states = True
    return reference


def _run_reference(reference: Any, encoder: TextModel, item: Any) -> dict[str, Any]:
    """Run the reference over one text: its tokens (2, T), and every stage by name, (T, D) or (1, D)."""
    transformer, *others = reference.children()
    with importlib.import_module("torch").inference_mode():
        features = transformer(reference.preprocess([item]))
        values = [*features["all_layer_embeddings"]]
        for module, (_, feature) in zip(others or [lambda found: found], _after(encoder), strict=True):
            features = module(features)
            values.append(features.get(feature, features.get(TOKENS)))
    ids = features["input_ids"][0].numpy()
    types = features["token_type_ids"][0].numpy() if "token_type_ids" in features else np.zeros_like(ids)
    rows = [value.reshape(-1, value.shape[-1]).numpy() for value in values]
    return {"tokens": np.stack([ids, types])} | _named(encoder, rows)
