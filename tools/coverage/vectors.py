"""The rows of `run.py` that are about sentence vectors."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

import minisbert
from tools.coverage.build import build, cast, make_base
from tools.coverage.cases import TITLES, Case, cases, sentences
from tools.golden.make import token_ids


def measure_family(family: str, scratch: Path) -> Iterator[dict[str, Any]]:
    """Yield every row of a family."""
    base = scratch / family
    make_base(family, base)
    for case in cases(family):
        with tempfile.TemporaryDirectory(dir=scratch) as parent:
            folder = build(case, base, Path(parent) / "model")
            weights = cast(load_file(base / "model.safetensors"), case.dtype)
            yield {"title": TITLES[family], **vars(case), "kind": case.kind, **measure(case, folder, weights)}


# --- The reference ----------------------------------------------------------------------------------------


def reference(folder: Path, weights: Mapping[str, torch.Tensor]) -> SentenceTransformer:
    """Load a checkpoint into the reference, all weights widened to float64 before anything is computed.

    Without `dtype` the transformer would take the one in config.json, and the modules after it would follow: weights
    with more digits would be rounded. The modules are made in float32 whatever their files hold, so their weights are
    read once more, into float64.
    """
    model = SentenceTransformer(
        str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float64}
    )
    model.double().eval()
    check_weights(folder, model[0].auto_model.state_dict(), weights)
    path = folder / "modules.json"
    if path.exists():
        entries = json.loads(path.read_text(encoding="utf-8"))
        for entry, module in zip(entries[1:], list(model)[1:], strict=True):
            own = folder / entry["path"] / "model.safetensors"
            if own.exists():
                module.load_state_dict(load_file(own))
    return model


def check_weights(
    folder: Path, found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> None:
    """Stop unless the reference has these weights in float64: it makes up those that it does not find."""
    for name, tensor in expected.items():
        if tensor.is_floating_point() and not torch.equal(found[name], tensor.double()):
            raise SystemExit(
                f"coverage: {folder}: the reference has other values than the checkpoint in {name}"
            )


# --- A row ------------------------------------------------------------------------------------------------


def measure(case: Case, folder: Path, weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Compare token ids and vectors, each text encoded alone by the reference."""
    texts = sentences(case.family)
    theirs = reference(folder, weights)
    expected = theirs.encode(texts, batch_size=1)
    assert expected.dtype == np.float64
    fast = minisbert.load(folder, backend="native", num_threads=2)
    plain = minisbert.load(folder, backend="reference")
    double = minisbert.load(folder, dtype="float64")
    found = {
        name: encoder.encode(texts, truncation="silent")
        for name, encoder in (("numba", fast), ("reference", plain), ("float64", double))
    }
    ids = zip(fast.tokenize(texts)["input_ids"], texts, strict=True)
    return {
        "texts": len(texts),
        "ids_equal": sum(np.array_equal(row, token_ids(theirs, text)) for row, text in ids),
        **{name: error(vectors, expected, case.kind) for name, vectors in found.items()},
        "invariant": is_invariant(fast, fast.encode, texts, found["numba"]),
    }


def error(found: np.ndarray, expected: np.ndarray, kind: str) -> float:
    """Return the largest error of a component; of vectors of any length, as a part of their largest component."""
    wrong = np.abs(found - expected).max(axis=1)  # (S,)
    return float((wrong if kind == "unit" else wrong / np.abs(expected).max(axis=1)).max())


def is_invariant(
    model: minisbert.SentenceEncoder | minisbert.CrossEncoder,
    compute: Callable[..., Any],
    items: Sequence[Any],
    together: np.ndarray,
) -> bool:
    """Whether results are the same bits alone, and in another order, batch size and number of threads."""
    alone = np.stack([compute(item, truncation="silent") for item in items])
    model.num_threads = 1
    order = np.random.default_rng(0).permutation(len(items))
    mixed = compute([items[row] for row in order], batch_size=5, truncation="silent")
    return together.tobytes() == alone.tobytes() and together[order].tobytes() == mixed.tobytes()
