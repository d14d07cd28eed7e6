"""A checkpoint in float16 or bfloat16, loaded by sentence-transformers; in int8, refused by it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import minisbert
from minisbert.convert import convert_checkpoint
from tests.conftest import DATA
from tests.support import texts

torch = pytest.importorskip("torch", reason="torch is not installed: see test_parity.py")
library = pytest.importorskip(
    "sentence_transformers", reason="sentence-transformers is not installed: see test_parity.py"
)

# 1 - cosine at worst. In the folder's own dtype the reference rounds every step to it: 1.2e-6 and 1.0e-4 were measured.
OWN = {"float16": 5e-6, "bfloat16": 5e-4}
FLOAT32 = 5e-12  # 5e-13


def cost(found: np.ndarray, expected: np.ndarray) -> float:
    one, other = (
        v.astype(float) / np.linalg.norm(v.astype(float), axis=1)[:, None] for v in (found, expected)
    )
    return float((np.square(one - other).sum(axis=1) / 2).max())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["minilm", "tiny-roberta", "tiny-xlm-roberta"])
def test_the_reference_loads_it(
    name: str, dtype: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source = request.getfixturevalue(name) if name == "minilm" else DATA / name
    folder = convert_checkpoint(source, tmp_path / "out", dtype=dtype)
    some = [text[:200] for text in texts.all_texts()[::20]]
    found = minisbert.load(folder).encode(some, truncation="silent")
    # It calls a checkpoint of fewer bits slow, in the log.
    own = library.SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    assert next(own.parameters()).dtype == getattr(torch, dtype)
    theirs = own.encode(some, batch_size=1, convert_to_tensor=True).float().numpy()
    wide = library.SentenceTransformer(
        str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32}
    )
    exact = wide.encode(some, batch_size=1)
    print(
        f"\n{name}, {dtype}: 1 - cos {cost(found, exact):.1e} in float32, {cost(found, theirs):.1e} in {dtype}"
    )
    assert cost(found, exact) <= FLOAT32
    assert cost(found, theirs) <= OWN[dtype]


def test_the_reference_does_not_take_integers_for_weights(tmp_path: Path) -> None:
    folder = convert_checkpoint(DATA / "tiny-bert", tmp_path / "out", dtype="int8")
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        library.SentenceTransformer(str(folder), device="cpu", local_files_only=True)
