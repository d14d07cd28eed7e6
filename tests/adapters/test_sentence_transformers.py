"""The stand-in for sentence-transformers: it computes as minisbert does, and refuses by name what it has not."""

from __future__ import annotations

import copy
import importlib.util
import pickle
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

import minisbert
from minisbert.adapters import sentence_transformers as stand_in
from tests.conftest import DATA, FEW
from tests.test_dependencies import PROJECT

TINY_BERT = str(DATA / "tiny-bert")
CROSS = str(DATA / "cross-bert")


@pytest.fixture(autouse=True)
def package() -> Iterator[ModuleType]:
    """The stand-in, where the real one has not been imported."""
    with patch.dict(sys.modules):
        for name in [name for name in sys.modules if name.split(".")[0] == "sentence_transformers"]:
            del sys.modules[name]
        minisbert.as_sentence_transformers()
        yield importlib.import_module("sentence_transformers")


@pytest.fixture
def model(package: Any) -> Any:
    return package.SentenceTransformer(TINY_BERT)


def test_it_can_be_imported_in_every_way(package: ModuleType) -> None:
    from sentence_transformers import (
        CrossEncoder,
        SentenceTransformer,
        SimilarityFunction,
        quantize_embeddings,
        util,
    )
    from sentence_transformers.cross_encoder import CrossEncoder as same
    from sentence_transformers.quantization import quantize_embeddings as also
    from sentence_transformers.util import cos_sim

    assert (CrossEncoder, quantize_embeddings) == (same, also)
    assert (util.cos_sim, SimilarityFunction.DOT_PRODUCT.value) == (cos_sim, "dot")
    assert "sentence_transformers" in str(SentenceTransformer)  # which BERTopic looks for
    minisbert.as_sentence_transformers()
    assert sys.modules["sentence_transformers"] is package


def test_it_says_what_it_is(package: Any) -> None:
    for name in ("sentence_transformers", "sentence_transformers.util"):
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin == package.__file__ == stand_in.__file__
    assert f"sentence-transformers=={package.__version__}" in PROJECT["dependency-groups"]["parity"]


def test_it_does_not_replace_the_real_one() -> None:
    with patch.dict(sys.modules, {"sentence_transformers": ModuleType("sentence_transformers")}):
        with pytest.raises(stand_in.StandInError, match="has been imported, from None; call minisbert"):
            minisbert.as_sentence_transformers()
        assert not hasattr(sys.modules["sentence_transformers"], "SentenceTransformer")


def test_its_vectors_are_the_encoders(package: Any, bert: minisbert.SentenceEncoder) -> None:
    model = package.SentenceTransformer(
        TINY_BERT,
        device="cpu",
        prompts={"query": "find: "},
        truncate_dim=9,
        similarity_fn_name=package.SimilarityFunction.DOT_PRODUCT,
        trust_remote_code=True,
        model_kwargs=None,
        backend="torch",
    )
    encoder = copy.copy(bert)
    encoder.prompts, encoder.truncate_dim, encoder.similarity_fn_name = {"query": "find: "}, 9, "dot"
    for name in ("encode", "encode_query", "encode_document"):
        expected = getattr(encoder, name)(FEW)
        for found in (getattr(model, name)(FEW, convert_to_numpy=True), getattr(model, name)(inputs=FEW)):
            np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(
        model.similarity(expected, expected), encoder.similarity(expected, expected)
    )
    assert model.prompts == {"query": "find: ", "document": ""}
    assert bert.prompts == {"query": "", "document": ""}
    assert model._weights is bert._weights
    assert (model.get_sentence_embedding_dimension(), model.get_max_seq_length(), model.device) == (
        9,
        32,
        "cpu",
    )


def test_a_pickle_of_it_needs_no_stand_in(model: Any) -> None:
    pickled = pickle.dumps(model)
    for name in [name for name in sys.modules if name.split(".")[0] == "sentence_transformers"]:
        del sys.modules[name]
    for found in (pickle.loads(pickled), copy.deepcopy(model)):
        assert type(found) is type(model)
        np.testing.assert_array_equal(found.encode(FEW), model.encode(FEW))


def test_its_scores_are_the_cross_encoders(package: Any) -> None:
    model = package.CrossEncoder(CROSS, max_length=20, activation_fn="Identity", device="cpu")
    expected = minisbert.load_cross_encoder(CROSS).predict([("a", "b")], activation_fn="Identity")
    np.testing.assert_array_equal(model.predict([("a", "b")]), expected)
    np.testing.assert_array_equal(model.predict(sentences=[("a", "b")]), expected)
    assert (model.max_seq_length, model.rank("a", ["b"])[0]["score"]) == (20, float(expected[0]))


@pytest.mark.parametrize(
    "name", ["cos_sim", "dot_score", "euclidean_sim", "manhattan_sim", "pytorch_cos_sim"]
)
def test_similarities_are_those_of_vectors(package: Any, model: Any, name: str) -> None:
    a, b = model.encode(FEW), model.encode(FEW[::-1])
    kinds = {"cos_sim": "cosine", "dot_score": "dot", "pytorch_cos_sim": "cosine"}
    kind = kinds.get(name, name.removesuffix("_sim"))
    np.testing.assert_array_equal(getattr(package.util, name)(a, b), minisbert.vectors.similarity(a, b, kind))
    if name != "pytorch_cos_sim":
        found = getattr(package.util, f"pairwise_{name}")(a, b)
        np.testing.assert_array_equal(found, minisbert.vectors.similarity_pairwise(a, b, kind))


def test_searches_are_minisberts(package: Any, model: Any) -> None:
    vectors, util = model.encode(FEW), package.util
    expected = minisbert.semantic_search(vectors[:2], vectors, top_k=3, score_function="dot")
    assert util.semantic_search(vectors[:2], vectors, top_k=3, score_function=util.dot_score) == expected
    assert util.paraphrase_mining(model, FEW) == minisbert.paraphrase_mining(model, FEW)
    assert util.community_detection(vectors, min_community_size=1)


def test_vectors_are_quantised_as_there(package: Any, model: Any) -> None:
    vectors = model.encode(FEW)
    ranges = np.stack([vectors.min(axis=0), vectors.max(axis=0)])
    for precision in minisbert.vectors.PRECISIONS:
        scaled = ranges if precision in ("int8", "uint8") else None
        expected = minisbert.vectors.quantize(vectors, precision, scaled)
        for arguments in ({"ranges": ranges}, {"calibration_embeddings": vectors}, {}):
            found = package.quantize_embeddings(vectors, precision, **arguments)
            np.testing.assert_array_equal(found, expected)
    with pytest.raises(minisbert.EncodeValueError, match="embeddings are int8"):
        package.quantize_embeddings(package.quantize_embeddings(vectors, "int8"), "int8")


REFUSED: list[tuple[str, Callable[[Any, Any], Any]]] = [
    ("SentenceTransformer.fit", lambda st, model: model.fit([])),
    ("SentenceTransformer.start_multi_process_pool", lambda st, model: model.start_multi_process_pool()),
    ("SentenceTransformer.to", lambda st, model: model.to("cuda")),
    ("CrossEncoder.fit", lambda st, model: st.CrossEncoder(CROSS).fit()),
    ("device", lambda st, model: st.SentenceTransformer(TINY_BERT, device="cuda")),
    ("backend", lambda st, model: st.SentenceTransformer(TINY_BERT, backend="onnx")),
    ("modules", lambda st, model: st.SentenceTransformer(TINY_BERT, modules=[1])),
    (
        "model_kwargs",
        lambda st, model: st.SentenceTransformer(TINY_BERT, model_kwargs={"device_map": "auto"}),
    ),
    ("num_labels", lambda st, model: st.CrossEncoder(CROSS, num_labels=3)),
    ("convert_to_tensor", lambda st, model: model.encode("a", convert_to_tensor=True)),
    ("pool", lambda st, model: model.encode("a", pool={})),
    ("sentence_transformers.SparseEncoder", lambda st, model: st.SparseEncoder("a")),
    ("sentence_transformers.InputExample", lambda st, model: st.InputExample(texts=["a"])),
    ("sentence_transformers.models.StaticEmbedding", lambda st, model: st.models.StaticEmbedding()),
    ("sentence_transformers.mine_hard_negatives", lambda st, model: st.mine_hard_negatives()),
    ("sentence_transformers.util.http_get", lambda st, model: st.util.http_get("a", "b")),
]


@pytest.mark.parametrize(("name", "use"), REFUSED, ids=[name for name, _ in REFUSED])
def test_what_it_has_not_is_refused_by_name(
    package: Any, model: Any, name: str, use: Callable[[Any, Any], Any]
) -> None:
    with pytest.raises(minisbert.MinisbertError, match=rf"\b{name}\b"):
        use(package, model)


def test_whoever_asks_first_is_told(package: Any, model: Any) -> None:
    assert not hasattr(model, "fit")
    assert not hasattr(package, "losses")
    with pytest.raises(
        ImportError, match=f"'losses' from 'sentence_transformers' .*{stand_in.__name__.split('.')[1]}"
    ):
        exec("from sentence_transformers import losses")
    with pytest.raises(ModuleNotFoundError, match=r"sentence_transformers\.losses"):
        importlib.import_module("sentence_transformers.losses")
