"""What the modules after the transformer compute, against the reference implementation's float64 results."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minisbert
from tests.conftest import DATA, edit_json, keep_tokenizer_steps, largest, load_golden
from tests.support import pipelines
from tests.support.pipelines import CASES

MEAN = pipelines.pooling("mean")

TOLERANCE = {"float32": 2e-6, "float64": 1e-12}  # of the largest component; of unit vectors half of it


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return load_golden("modules")


def encode(encoder: minisbert.SentenceEncoder, case: pipelines.Case, texts: list[str], **more: Any) -> Any:
    """Encode the texts of a case: (S, D), or (N, D) for tokens."""
    found = encoder.encode(
        texts, prompt=case.prompt, output_value=case.output_value, truncation="silent", **more
    )
    return found if case.output_value == "sentence_embedding" else np.concatenate(found)


@pytest.mark.parametrize(
    ("backend", "dtype"), [("auto", "float32"), ("reference", "float32"), ("auto", "float64")]
)
@pytest.mark.parametrize("name", CASES)
def test_every_pipeline_is_the_reference_s(
    tmp_path: Path, golden: dict[str, Any], name: str, backend: str, dtype: str
) -> None:
    case = CASES[name]
    folder = pipelines.build(tmp_path / "model", DATA / "tiny-bert", case.modules)
    encoder = minisbert.load(folder, backend=backend, dtype=dtype)
    found, expected = encode(encoder, case, pipelines.TEXTS), golden[name]
    assert (found.shape, found.dtype) == (expected.shape, dtype)
    size = np.abs(expected).max()
    allowed = TOLERANCE[dtype] * size
    if dtype == "float32" and np.allclose(np.linalg.norm(expected, axis=1), 1):
        allowed = 1e-6
    print(f"{name:40} {backend:10} {dtype} {largest(found - expected):.1e} of {size:.1e}")
    assert largest(found - expected) <= allowed


@pytest.mark.parametrize("name", CASES)
def test_a_sentence_s_vector_depends_on_that_sentence_alone(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    folder = pipelines.build(tmp_path / "model", DATA / "tiny-bert", case.modules)
    encoder = minisbert.load(folder, num_threads=1)
    company = [*pipelines.TEXTS, *(f"{'more ' * n}text {n}" for n in range(20))]
    alone = np.concatenate([np.atleast_2d(encode(encoder, case, [text])) for text in company])
    np.testing.assert_array_equal(encode(encoder, case, company), alone)
    np.testing.assert_array_equal(encode(encoder, case, company, batch_size=3), alone)
    encoder.num_threads = 2
    np.testing.assert_array_equal(encode(encoder, case, company, batch_size=7), alone)


def test_the_order_is_modules_truncation_normalising_precision(tmp_path: Path) -> None:
    folder = pipelines.build(tmp_path / "model", DATA / "tiny-bert", (MEAN, pipelines.dense(20)))
    edit_json(folder / "config_sentence_transformers.json", truncate_dim=16)
    encoder = minisbert.load(folder, backend="reference", dtype="float64")
    whole = encoder.encode(["one", "two words"], truncate_dim=20)
    assert (whole.shape, encoder.get_embedding_dimension()) == ((2, 20), 16)
    cut = whole[:, :16] / np.linalg.norm(whole[:, :16], axis=1, keepdims=True)
    found = encoder.encode(["one", "two words"], normalize_embeddings=True)
    np.testing.assert_allclose(found, cut, atol=1e-15)
    packed = encoder.encode(["one", "two words"], precision="ubinary")
    np.testing.assert_array_equal(packed, np.packbits(whole[:, :16] > 0, axis=1))
    edit_json(folder / "config_sentence_transformers.json", truncate_dim=21)
    with pytest.raises(
        minisbert.CheckpointError, match=r"truncate_dim is 21; expected an integer from 1 to 20"
    ):
        minisbert.load(folder)


def test_a_prompt_is_counted_as_the_reference_counts_it(tmp_path: Path) -> None:
    folder = pipelines.build(tmp_path / "model", DATA / "tiny-bert", (pipelines.pooling("mean"),))
    encoder = minisbert.load(folder, backend="reference")
    count = encoder._tokenizer.prompt_length
    own = len(encoder.tokenize(pipelines.PROMPT)["input_ids"][0]) - 2  # less [CLS] and [SEP]
    assert count(pipelines.PROMPT, 32) == 1 + own  # [CLS] stands before the text, and [SEP] behind it
    assert count("[SEP]", 32) == 2
    assert count(pipelines.LONG_PROMPT, 32) == 31
    assert count("", 32) == 1
    keep_tokenizer_steps(folder)
    edit_json(folder / "tokenizer.json", post_processor=None)  # no special tokens at all
    count = minisbert.load(folder, backend="reference")._tokenizer.prompt_length
    assert (count("", 32), count("a", 32), count("a [MASK]", 32)) == (0, 1, 1)


def test_the_maximum_of_no_token_is_refused(tmp_path: Path) -> None:
    """A prompt that ends within a word can have more tokens than the text that it becomes a part of."""
    stack = (pipelines.pooling("max", include_prompt=False),)
    folder = pipelines.build(tmp_path / "model", DATA / "tiny-bert", stack)
    encoder = minisbert.load(folder)
    prompt, rest = "tha", "t"  # "that" is a token, "tha" is not
    assert encoder.token_counts("that")[0] <= encoder._tokenizer.prompt_length(prompt, 32)
    with pytest.raises(
        minisbert.CheckpointError, match=r"infinity for sentence 1.*maximum has no token left"
    ):
        encoder.encode(["a sentence", rest], prompt=prompt)


def test_an_encoder_with_modules_can_be_pickled(tmp_path: Path) -> None:
    folder = pipelines.build(tmp_path / "model", DATA / "tiny-bert", (MEAN, pipelines.dense(20)))
    encoder = minisbert.load(folder)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(encoder)).encode("a"), encoder.encode("a"))
