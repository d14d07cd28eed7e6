"""Tiny seeded checkpoints of the families beside BERT and RoBERTa, each in another layout that files really have.

The weights are those that `checkpoints` would give a BERT, under the names of the family. Those names are written
out here once more, independently of the library's tables.
"""

from __future__ import annotations

import base64
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tests.support import texts
from tests.support.checkpoints import (
    TINY_BERT_CONFIG,
    TINY_BIAS,
    TINY_LIMIT,
    added_token,
    seeded_weights,
    small_vocabulary,
    tamed,
    uniform,
    write_checkpoint,
    write_json,
)

Weights = dict[str, Any]  # of arrays

_SIZES = {"hidden_size": 24, "intermediate_size": 28, "num_hidden_layers": 2}
_BERT = {**TINY_BERT_CONFIG, **_SIZES}
_ROBERTA = {
    **_BERT,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": TINY_LIMIT + 2,
    "pad_token_id": 1,
    "type_vocab_size": 1,
}
_DISTILBERT_NAMES = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}
_MPNET_NAMES = {
    "attention.self.query": "attention.attn.q",
    "attention.self.key": "attention.attn.k",
    "attention.self.value": "attention.attn.v",
    "attention.output.dense": "attention.attn.o",
    "attention.output.LayerNorm": "attention.LayerNorm",
}
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")


def build_multilingual(folder: Path) -> None:
    """A BERT with XLM-RoBERTa's tokenizer, as paraphrase-multilingual-MiniLM-L12-v2 is; and a classifier."""
    tokenizer = unigram_tokenizer(_SPECIAL, "<s>", "</s>")
    config = {**_BERT, "vocab_size": len(tokenizer["model"]["vocab"]), "hidden_act": "gelu_new"}
    weights = _weights(config, 11, gain=1.1)
    weights = {f"bert.{name}": tensor for name, tensor in weights.items()}
    weights["classifier.weight"] = np.ones((2, 24), np.float32)
    _write(folder, config, weights, tokenizer, "XLMRobertaTokenizer", "<unk>")


def build_xlm_roberta(folder: Path) -> None:
    """An XLM-RoBERTa with a map of characters, saved with its masked-LM head in two files and an index."""
    tokenizer = unigram_tokenizer(_SPECIAL, "<s>", "</s>")
    wide = {"\uff01": "!", "\ufb01": "fi", "\u3000": " "}
    tokenizer["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": charsmap(wide)}
    config = {**_ROBERTA, "model_type": "xlm-roberta", "architectures": ["XLMRobertaForMaskedLM"],
              "vocab_size": len(tokenizer["model"]["vocab"])}  # fmt: skip
    weights = {f"roberta.{name}": tensor for name, tensor in _weights(config, 12).items()}
    weights["lm_head.bias"] = np.ones(config["vocab_size"], np.float32)
    weights["lm_head.layer_norm.weight"] = np.ones(24, np.float32)
    _write(folder, config, weights, tokenizer, "XLMRobertaTokenizer", "<unk>")
    split(folder)


def build_camembert(folder: Path) -> None:
    """A CamemBERT in the layout of the first versions: the transformer in a folder of its own."""
    special = ("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>")
    tokenizer = unigram_tokenizer(special, "<s>", "</s>")
    config = {**_ROBERTA, "model_type": "camembert", "architectures": ["CamembertModel"], "bos_token_id": 5,
              "eos_token_id": 6, "vocab_size": len(tokenizer["model"]["vocab"]), "hidden_act": "relu"}  # fmt: skip
    _write(folder, config, _weights(config, 13, gain=1.7), tokenizer, "CamembertTokenizer", "<unk>")
    move_transformer(folder)


def build_distilbert(folder: Path, minilm: Path) -> None:
    """A DistilBERT with a masked-LM head, whose last matrix is a copy of the word embeddings."""
    tokenizer = wordpiece_tokenizer(minilm, ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"))
    bert = {**_BERT, "vocab_size": len(tokenizer["model"]["vocab"])}
    config = {
        "activation": "gelu",
        "architectures": ["DistilBertForMaskedLM"],
        "attention_dropout": 0.1,
        "dim": 24,
        "dropout": 0.1,
        "hidden_dim": 28,
        "initializer_range": 0.02,
        "max_position_embeddings": 64,
        "model_type": "distilbert",
        "n_heads": 3,
        "n_layers": 2,
        "pad_token_id": 0,
        "sinusoidal_pos_embds": False,
        "tie_weights_": True,
        "vocab_size": bert["vocab_size"],
    }
    plain = _renamed(_weights(bert, 14), _DISTILBERT_NAMES)
    weights = {
        f"distilbert.{name}".replace("encoder.layer.", "transformer.layer."): tensor
        for name, tensor in plain.items()
    }
    weights["vocab_projector.weight"] = plain["embeddings.word_embeddings.weight"]
    weights["vocab_layer_norm.weight"] = np.ones(24, np.float32)
    _write(folder, config, weights, tokenizer, "DistilBertTokenizer", "[UNK]")


def build_electra(folder: Path, minilm: Path) -> None:
    """An ELECTRA discriminator with narrow embeddings, their projection, and the norms' first names."""
    tokenizer = wordpiece_tokenizer(minilm, ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"))
    config = {**_BERT, "model_type": "electra", "architectures": ["ElectraForPreTraining"], "embedding_size": 16,
              "vocab_size": len(tokenizer["model"]["vocab"])}  # fmt: skip
    plain = _weights(config, 15)
    for name in [name for name in plain if name.startswith("embeddings.")]:
        plain[name] = np.ascontiguousarray(plain[name][..., :16])
    bits = np.random.PCG64(16)
    plain["embeddings_project.weight"] = uniform(bits, (24, 16), math.sqrt(3 / 16))
    plain["embeddings_project.bias"] = uniform(bits, (24,), TINY_BIAS)
    weights = {
        f"electra.{name}".replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): t
        for name, t in plain.items()
        if not name.startswith("pooler.")
    }
    weights["discriminator_predictions.dense.weight"] = np.ones((24, 24), np.float32)
    _write(folder, config, weights, tokenizer, "ElectraTokenizer", "[UNK]")


def build_mpnet(folder: Path, minilm: Path) -> None:
    """An MPNet: biases as large as the attention scores, and a limit beyond all buckets but the last."""
    tokenizer = wordpiece_tokenizer(minilm, (*_SPECIAL, "[UNK]", "<mask>"))
    config = {**_BERT, "model_type": "mpnet", "architectures": ["MPNetForMaskedLM"], "layer_norm_eps": 1e-05,
              "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1, "max_position_embeddings": 130,
              "relative_attention_num_buckets": 32, "vocab_size": len(tokenizer["model"]["vocab"])}  # fmt: skip
    del config["type_vocab_size"]
    weights = _renamed(_weights({**config, "type_vocab_size": 1}, 17, gain=1.15), _MPNET_NAMES)
    weights["encoder.relative_attention_bias.weight"] = uniform(np.random.PCG64(18), (32, 3), 1.5)
    weights["embeddings.position_ids"] = np.arange(130)[None]
    _write(folder, config, weights, tokenizer, "MPNetTokenizer", "[UNK]", limit=128)


def _weights(config: dict[str, Any], seed: int, gain: float = 1.4) -> Weights:
    weights = tamed(seeded_weights(config, seed=seed, bias=TINY_BIAS), config)
    for name in weights:  # heads as narrow as these need more, for attention that is far from uniform
        if name.endswith(("query.weight", "key.weight")):
            weights[name] *= np.float32(gain)
    return weights


def _renamed(weights: Weights, names: dict[str, str]) -> Weights:
    """The weights of a model without token types under other names; in the table, longer names come first."""
    drop = ("pooler.", "embeddings.token_type")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith(drop)}
    return {_name(name, names): tensor for name, tensor in kept.items()}


def _name(name: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        name = name.replace(f".{old}.", f".{new}.")
    return name


def unigram_tokenizer(special: tuple[str, ...], begin: str, end: str) -> dict[str, Any]:
    """A ``tokenizer.json`` like XLM-RoBERTa's: pieces with logarithms of their frequency in the test texts."""
    pieces = [[name, -100.0 if name == "<unk>NOTUSED" else 0.0] for name in special]
    pieces += [[piece, score] for piece, score in _unigram_pieces() if piece not in special]
    pieces += [["<mask>", 0.0]]
    index = {piece: i for i, (piece, _) in enumerate(pieces)}
    names = [*special, "<mask>"]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(index[name], name) for name in names],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "WhitespaceSplit"},
                {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [_special(begin), {"Sequence": {"id": "A", "type_id": 0}}, _special(end)],
            "pair": [
                _special(begin),
                {"Sequence": {"id": "A", "type_id": 0}},
                _special(end),
                _special(end),
                {"Sequence": {"id": "B", "type_id": 0}},
                _special(end),
            ],
            "special_tokens": {
                name: {"id": name, "ids": [index[name]], "tokens": [name]} for name in (begin, end)
            },
        },
        "decoder": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
        "model": {"type": "Unigram", "unk_id": index["<unk>"], "vocab": pieces, "byte_fallback": False},
    }


def charsmap(table: dict[str, str]) -> str:
    """SentencePiece's map of characters: a trie over UTF-8 in a double array, then the replacements, in base 64.

    The children of a node stand at its place XOR its offset XOR their byte. Each node has a block of 256 for them.
    """
    prefixes = sorted({key.encode()[:end] for key in table for end in range(len(key.encode()) + 1)})
    block = {prefix: 256 * i for i, prefix in enumerate(prefixes)}
    units, replacements = [0] * (256 * len(prefixes)), b""
    for prefix in prefixes:
        place = block[prefix[:-1]] ^ prefix[-1] if prefix else 0
        units[place] |= (place ^ block[prefix]) << 10 | (prefix[-1] if prefix else 0)
        if (found := prefix.decode(errors="ignore")) in table:
            units[place] |= 1 << 8  # there is a value, in place of a child with byte 0
            units[block[prefix]] = 1 << 31 | len(replacements)
            replacements += table[found].encode() + b"\0"
    trie = np.array(units, "<u4").tobytes()
    return base64.b64encode(len(trie).to_bytes(4, "little") + trie + replacements).decode()


def _special(name: str) -> dict[str, Any]:
    return {"SpecialToken": {"id": name, "type_id": 0}}


def _unigram_pieces() -> list[tuple[str, float]]:
    """Characters, frequent words with the mark of a space before them, and frequent ends of words."""
    words = Counter(word for text in texts.real_texts() for word in text.split() if word.isascii())
    counts: Counter[str] = Counter({chr(code): 1 for code in range(33, 127)})
    counts.update({"\u2581": 50, "\u4e2d": 2, "\u6587": 2, "\u00e9": 3})
    whole = {f"\u2581{word}": count for word, count in words.items() if len(word) > 1}
    ends: Counter[str] = Counter()
    for word, count in words.items():
        for length in (2, 3, 4):
            if len(word) > length:
                ends[word[-length:]] += count
    for table in (whole, ends):
        counts.update(dict(sorted(table.items(), key=lambda item: (-item[1], item[0]))[:120]))
    total = sum(counts.values())
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [(piece, round(math.log(count / total), 6)) for piece, count in ranked]


def wordpiece_tokenizer(minilm: Path, special: tuple[str, ...]) -> dict[str, Any]:
    """A part of the genuine WordPiece vocabulary; with special tokens ``<s>`` and the like, MPNet's tokenizer."""
    tokenizer: dict[str, Any] = json.loads((minilm / "tokenizer.json").read_text(encoding="utf-8"))
    names = small_vocabulary(list(tokenizer["model"]["vocab"]), special, 150)
    vocab = {name: index for index, name in enumerate(names)}
    tokenizer["model"]["vocab"] = vocab
    tokenizer["truncation"] = tokenizer["padding"] = None
    tokenizer["added_tokens"] = [added_token(vocab[name], name) for name in special]
    if "<s>" in special:
        tokenizer["post_processor"] = {
            "type": "RobertaProcessing",
            "sep": ["</s>", vocab["</s>"]],
            "cls": ["<s>", vocab["<s>"]],
            "trim_offsets": True,
            "add_prefix_space": False,
        }
    else:
        for token in tokenizer["post_processor"]["special_tokens"].values():
            token["ids"] = [vocab[token["id"]]]
    return tokenizer


def _write(
    folder: Path,
    config: dict[str, Any],
    weights: Weights,
    tokenizer: dict[str, Any],
    kind: str,
    unknown: str,
    limit: int = TINY_LIMIT,
) -> None:
    write_checkpoint(folder, config, weights, tokenizer, max_seq_length=limit)
    settings = {"tokenizer_class": kind, "model_max_length": limit, "unk_token": unknown}
    write_json(folder / "tokenizer_config.json", settings)


def move_transformer(folder: Path) -> None:
    """Give the transformer a folder of its own, as the first versions of sentence-transformers did."""
    inner = folder / "0_Transformer"
    inner.mkdir(exist_ok=True)
    for name in ("config.json", "sentence_bert_config.json", "tokenizer.json", "tokenizer_config.json",
                 "model.safetensors"):  # fmt: skip
        (folder / name).replace(inner / name)
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    modules[0]["path"] = inner.name
    write_json(folder / "modules.json", modules)


def split(folder: Path) -> None:
    """Save the weights in two files with an index instead of one."""
    from safetensors.numpy import load_file

    whole = folder / "model.safetensors"
    tensors = load_file(whole)
    whole.unlink()
    names = sorted(tensors)
    shards = {
        name: f"model-0000{1 + (i > len(names) // 2)}-of-00002.safetensors" for i, name in enumerate(names)
    }
    for shard in set(shards.values()):
        save_file(
            {name: tensors[name] for name in names if shards[name] == shard}, folder / shard, {"format": "pt"}
        )
    size = sum(tensor.nbytes for tensor in tensors.values())
    write_json(
        folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": shards}
    )
