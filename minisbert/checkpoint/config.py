"""The settings of a checkpoint, read from its JSON files; what can't be honoured is refused by name."""

from __future__ import annotations

import math
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from minisbert.checkpoint.access import status_of
from minisbert.checkpoint.families import FAMILIES, Family
from minisbert.checkpoint.int8 import is_marked
from minisbert.checkpoint.jsonfile import JsonFile, is_there, read_json
from minisbert.checkpoint.modules import Module
from minisbert.checkpoint.modules_json import read_entries, read_modules
from minisbert.errors import CheckpointError, CheckpointNotFoundError, UnsupportedCheckpointError, shown

__all__ = [
    "CheckpointConfig",
    "TextConfig",
    "TransformerConfig",
    "check_folder",
    "is_cross_encoder",
    "kind_key",
    "read_config",
    "read_prompts",
    "read_sentence_config",
    "read_sentence_settings",
    "read_text_settings",
    "read_transformer",
]

HIDDEN_ACTS = (
    "gelu", "gelu_fast", "gelu_new", "gelu_python", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu", "swish", "tanh",
)  # fmt: skip
# Settings of any family that change the result, and the values that are computed here.
REFUSE_UNLESS: dict[str, tuple[Any, ...]] = {
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "is_encoder_decoder": (False,),
    "is_causal": (False,),
    "quantization_config": (),
    "pruned_heads": ({},),
    "attribute_map": ({},),
    "per_layer_config": ({},),
    "fusion_config": ({},),
    "transformers_weights": (),
    "auto_map": (),
}
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
MAX_LAYERS = 1024  # far more than any encoder has: a bound, so that a damaged number can't keep us busy


class TransformerConfig(NamedTuple):
    """The sizes and constants of the encoder, under the names that they have in ``config.json``."""

    model_type: str
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str
    layer_norm_eps: float
    vocab_size: int
    max_position_embeddings: int
    type_vocab_size: int  # 0 where token types are not told apart
    pad_token_id: int
    embedding_size: int
    is_int8: bool = False  # the weights, as `checkpoint.int8` has it

    @property
    def family(self) -> Family:
        """The names and habits of this kind of checkpoint."""
        return FAMILIES[self.model_type]

    @property
    def positions_follow_ids(self) -> bool:
        """Whether positions are counted over the ids that are not padding, as RoBERTa does."""
        return self.family.positions_follow_ids

    @property
    def max_tokens(self) -> int:
        """The longest sentence that there are positions for: RoBERTa's start at ``pad_token_id + 1``."""
        return self.max_position_embeddings - (self.pad_token_id + 1 if self.positions_follow_ids else 0)


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """What the JSON files of a checkpoint folder say about texts and the transformer, whatever follows it."""

    folder: Path
    transformer_folder: Path
    transformer: TransformerConfig
    max_seq_length: int
    do_lower_case: bool
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig(TextConfig):
    """Everything that the JSON files of a checkpoint folder say about how to turn text into vectors."""

    modules: tuple[Module, ...]
    embedding_dimension: int
    similarity_fn_name: str = "cosine"
    truncate_dim: int | None = None


def read_config(folder: Path) -> CheckpointConfig:
    """Read the JSON files of a checkpoint folder.

    Parameters
    ----------
    folder : pathlib.Path
        A folder as sentence-transformers or transformers saves it.

    Returns
    -------
    CheckpointConfig
        The settings, each checked.

    Raises
    ------
    CheckpointNotFoundError
        If the folder or its ``config.json`` is not there.
    CheckpointError
        If a file is damaged or a value impossible.
    UnsupportedCheckpointError
        If a setting asks for something that is not computed here.
    """
    check_folder(folder)
    if is_cross_encoder(folder):
        file, key = kind_key(folder)
        raise UnsupportedCheckpointError(
            f"{file.path}: {key} is {shown(file.values[key])}: this is a cross-encoder, which scores pairs of texts "
            "and gives no vectors; load it with minisbert.load_cross_encoder"
        )
    entries = read_entries(folder)
    transformer_folder = entries[0].folder
    transformer = read_transformer(transformer_folder / "config.json")
    modules, dimension = read_modules(folder, entries, transformer.hidden_size, transformer.num_hidden_layers)
    settings = read_sentence_config(transformer_folder)
    max_seq_length, do_lower_case = read_text_settings(settings, transformer, "feature-extraction")
    return CheckpointConfig(
        folder=folder,
        transformer_folder=transformer_folder,
        transformer=transformer,
        modules=modules,
        embedding_dimension=dimension,
        max_seq_length=max_seq_length,
        do_lower_case=do_lower_case,
        **read_sentence_settings(folder / "config_sentence_transformers.json", dimension),
    )


def check_folder(folder: Path) -> None:
    """Refuse what is no folder."""
    status = status_of(folder)
    if status is None or not stat.S_ISDIR(status.st_mode):
        raise CheckpointNotFoundError(
            f"{folder}: there is no such folder; expected a checkpoint folder with a config.json in it"
        )


def kind_key(folder: Path) -> tuple[JsonFile, str]:
    """Return the file and the key that tell what a checkpoint is for; where there are no modules, its architecture."""
    if is_there(folder / "modules.json"):
        return read_json(folder / "config_sentence_transformers.json"), "model_type"
    return read_json(folder / "config.json"), "architectures"


def is_cross_encoder(folder: Path) -> bool:
    """Whether a checkpoint scores pairs of texts."""
    file, key = kind_key(folder)
    if key == "model_type":
        return file.values.get(key) == "CrossEncoder"
    return any(str(name).endswith("ForSequenceClassification") for name in file.get(key, list, []))


def read_transformer(path: Path) -> TransformerConfig:
    """Read the ``config.json`` of a transformer."""
    if not is_there(path):
        raise CheckpointNotFoundError(
            f"{path}: there is no such file; expected the config.json of a transformers checkpoint"
        )
    if is_there(adapter := path.with_name("adapter_config.json")):
        raise UnsupportedCheckpointError(
            f"{adapter}: the weights are changed by an adapter. Where peft is installed, merge it: load the "
            "model, call merge_and_unload() and save the result"
        )
    file = read_json(path)
    file.refuse_unless({"model_type": tuple(FAMILIES)})
    model_type = file.get("model_type", str)
    family = FAMILIES[model_type]
    file.refuse_unless(REFUSE_UNLESS | {family.key("hidden_act"): HIDDEN_ACTS} | dict(family.refuse_unless))
    hidden_size = file.size(family.key("hidden_size"))
    config = TransformerConfig(
        model_type=model_type,
        hidden_size=hidden_size,
        num_hidden_layers=file.size(family.key("num_hidden_layers"), at_most=MAX_LAYERS),
        num_attention_heads=file.size(family.key("num_attention_heads")),
        intermediate_size=file.size(family.key("intermediate_size")),
        hidden_act=file.get(family.key("hidden_act"), str),
        layer_norm_eps=family.layer_norm_eps or _read_eps(file),
        vocab_size=file.size("vocab_size"),
        max_position_embeddings=file.size("max_position_embeddings"),
        type_vocab_size=file.size("type_vocab_size") if family.has_token_types else 0,
        pad_token_id=file.get("pad_token_id", int, family.pad_token_id),
        embedding_size=file.size("embedding_size") if family.projection else hidden_size,
        is_int8=is_marked(file),
    )
    _check_sizes(path, config)
    return config


def _read_eps(file: JsonFile) -> float:
    eps = file.get("layer_norm_eps", float)
    if not 0 < eps < 1:
        raise CheckpointError(
            f"{file.path}: layer_norm_eps is {shown(eps)}; expected a number between 0 and 1"
        )
    return eps


def _check_sizes(path: Path, config: TransformerConfig) -> None:
    key = config.family.key
    if config.hidden_size % config.num_attention_heads:
        raise CheckpointError(
            f"{path}: {key('hidden_size')} is {config.hidden_size} and {key('num_attention_heads')} is "
            f"{config.num_attention_heads}; expected a width that the heads can share evenly"
        )
    if not 0 <= config.pad_token_id < config.vocab_size:
        raise CheckpointError(
            f"{path}: pad_token_id is {shown(config.pad_token_id)}; expected a token id below vocab_size, "
            f"{config.vocab_size}"
        )
    if config.max_tokens < 1:
        raise CheckpointError(
            f"{path}: max_position_embeddings is {config.max_position_embeddings}, which leaves no position "
            f"for a token after pad_token_id, {config.pad_token_id}"
        )


# The first versions of sentence-transformers named the file after the family.
_SENTENCE_CONFIGS = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")


def read_sentence_config(folder: Path) -> JsonFile:
    """Read the settings of a transformer's folder: as in sentence-transformers, the first file that says something."""
    files = (read_json(folder / f"sentence_{name}_config.json") for name in _SENTENCE_CONFIGS)
    return next((file for file in files if file.values), JsonFile(folder / "sentence_bert_config.json", {}))


# What a transformer module is for: what its output is called by the next module, and by the transformer.
TASKS = {
    "feature-extraction": ("token_embeddings", "last_hidden_state"),
    "sequence-classification": ("scores", "logits"),
}


def read_text_settings(settings: JsonFile, transformer: TransformerConfig, task: str) -> tuple[int, bool]:
    """Return how many tokens of a text are read, and whether it is lower-cased first."""
    output, own_name = TASKS[task]
    allowed: dict[str, tuple[Any, ...]] = {
        "transformer_task": (task,),
        "module_output_name": (output,),
        "modality_config": ({"text": {"method": "forward", "method_output_name": own_name}},),
        "tokenizer_name_or_path": (),
        "query_length": (),
        "document_length": (),
        "query_expansion": (),
        "processing_kwargs": ({},),
    } | {f"{name}_{kind}": ({},) for name in _LOADING for kind in ("args", "kwargs")}
    inert = ("max_seq_length", "do_lower_case", "unpad_inputs", "cache_dir")
    others = {key: (False,) for key in settings.values if key not in allowed and key not in inert}
    settings.refuse_unless(allowed | others)
    tokenizer = read_json(settings.path.parent / "tokenizer_config.json")
    tokenizer.refuse_unless({"truncation_side": ("right",)})
    file, key = settings, "max_seq_length"
    limit: float | None = file.optional(key, int)
    if limit is None:  # 1e30 stands for no limit in tokenizer_config.json, as an integer or a float
        file, key = tokenizer, "model_max_length"
        if key not in tokenizer.values:  # its first name
            key = "max_len"
        limit = file.get(key, float, math.inf)
    if not limit >= 1:  # nor NaN
        raise CheckpointError(f"{file.path}: {key} is {shown(limit)}; expected at least 1")
    return int(min(limit, transformer.max_tokens)), settings.get("do_lower_case", bool, False)


_LOADING = ("model", "tokenizer", "processor", "config")


def read_sentence_settings(path: Path, dimension: int) -> dict[str, Any]:
    """Read the prompts, the similarity function and the length that vectors are cut to."""
    file = read_json(path)
    file.refuse_unless({"model_type": ("SentenceTransformer",)})
    prompts, default = read_prompts(file, ("query", "document"))
    similarity = file.get("similarity_fn_name", str, "cosine")
    file.refuse_unless({"similarity_fn_name": SIMILARITIES})
    cut = None if file.optional("truncate_dim", int) is None else file.size("truncate_dim", dimension)
    return {
        "prompts": prompts,
        "default_prompt_name": default,
        "similarity_fn_name": similarity,
        "truncate_dim": cut,
    }


def read_prompts(file: JsonFile, always: tuple[str, ...] = ()) -> tuple[dict[str, str], str | None]:
    """Read the prompts, of which some always are there, if empty, and the name of the one used by default."""
    prompts = dict.fromkeys(always, "")
    for name, prompt in file.get("prompts", dict, {}).items():
        if not isinstance(prompt, str | None):
            raise CheckpointError(
                f"{file.path}: the prompt {shown(name)} is {shown(prompt)}; expected a string"
            )
        prompts[name] = prompt or ""
    default = file.optional("default_prompt_name", str)
    if default is not None and default not in prompts:
        raise CheckpointError(
            f"{file.path}: default_prompt_name is {shown(default)}; expected one of the prompts, {sorted(prompts)}"
        )
    return prompts, default
