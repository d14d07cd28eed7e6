"""The settings of a checkpoint, read from its JSON files; what can't be honoured is refused by name."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar, cast

from minisbert.errors import CheckpointError, CheckpointNotFoundError, UnsupportedCheckpointError, shown

__all__ = ["CheckpointConfig", "TransformerConfig", "read_config"]

T = TypeVar("T")

ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish", "tanh")
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
MAX_LAYERS = 1024  # far more than any encoder has: a bound, so that a damaged number can't keep us busy


@dataclass(frozen=True)
class TransformerConfig:
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
    type_vocab_size: int
    pad_token_id: int

    @property
    def positions_follow_ids(self) -> bool:
        """Whether positions are counted over the ids that are not padding, as RoBERTa does."""
        return self.model_type == "roberta"

    @property
    def max_tokens(self) -> int:
        """The longest sentence that there are positions for: RoBERTa's start at ``pad_token_id + 1``."""
        return self.max_position_embeddings - (self.pad_token_id + 1 if self.positions_follow_ids else 0)


@dataclass(frozen=True)
class CheckpointConfig:
    """Everything that the JSON files of a checkpoint folder say about how to turn text into vectors."""

    folder: Path
    transformer_folder: Path
    transformer: TransformerConfig
    pooling_mode: str
    normalize: bool
    max_seq_length: int
    do_lower_case: bool
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity_fn_name: str = "cosine"
    truncate_dim: int | None = None


@dataclass(frozen=True)
class JsonFile:
    """A JSON object and the file it came from, so that every complaint can name both."""

    path: Path
    values: Mapping[str, Any]

    def get(self, key: str, kind: type[T], default: T | None = None) -> T:
        """Return the value of a key, checked to be of one type; a None or missing one gives the default."""
        value = self.values.get(key)
        if value is None:
            if default is None:
                raise CheckpointError(f"{self.path}: the key {key!r} is missing; expected {_kind(kind)}")
            return default
        kinds: Any = (int, float) if kind is float else kind
        if not isinstance(value, kinds) or (kind is not bool and isinstance(value, bool)):
            raise CheckpointError(f"{self.path}: {key} is {shown(value)}; expected {_kind(kind)}")
        return cast(T, value)

    def optional(self, key: str, kind: type[T]) -> T | None:
        """Return the value of a key, or None where it is missing or null."""
        return None if self.values.get(key) is None else self.get(key, kind)

    def size(self, key: str, at_most: int = 2**31 - 1, default: int | None = None) -> int:
        """Return the value of a key, checked to be a positive integer."""
        value = self.get(key, int, default)
        if not 1 <= value <= at_most:
            raise CheckpointError(
                f"{self.path}: {key} is {shown(value)}; expected an integer from 1 to {at_most}"
            )
        return value

    def refuse_unless(self, allowed: Mapping[str, Iterable[Any]]) -> None:
        """Refuse a setting that changes the result, unless its value is one that is computed here."""
        for key, values in allowed.items():
            if key in self.values and self.values[key] not in (values := (None, *values)):
                supported = " or ".join(repr(value) for value in values if value is not None)
                raise UnsupportedCheckpointError(
                    f"{self.path}: {key} is {shown(self.values[key])}, which minisbert does not compute; "
                    f"supported: {supported or 'leaving it out'}"
                )


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
    if not os.path.isdir(folder):  # unlike the method, it takes any name, even one that no folder can have
        raise CheckpointNotFoundError(
            f"{folder}: there is no such folder; expected a checkpoint folder with a config.json in it"
        )
    modules = _read_modules(folder)
    transformer_folder = modules[0].folder
    transformer = _read_transformer(transformer_folder / "config.json")
    max_seq_length, do_lower_case = _read_text_settings(transformer_folder, transformer)
    return CheckpointConfig(
        folder=folder,
        transformer_folder=transformer_folder,
        transformer=transformer,
        pooling_mode=_read_pooling_mode(modules[1].folder / "config.json", transformer.hidden_size),
        normalize=len(modules) == 3 and _read_normalize(modules[2].folder / "config.json"),
        max_seq_length=max_seq_length,
        do_lower_case=do_lower_case,
        **_read_sentence_settings(folder / "config_sentence_transformers.json", transformer.hidden_size),
    )


@dataclass(frozen=True)
class Module:
    """One step of the pipeline: the last part of its type's dotted name, and its folder."""

    kind: str
    folder: Path


def _read_modules(folder: Path) -> tuple[Module, ...]:
    """Read the pipeline: Transformer, Pooling and perhaps Normalize; the first two where no file says."""
    path = folder / "modules.json"
    if not _is_there(path):
        return (Module("Transformer", folder), Module("Pooling", folder / "1_Pooling"))
    entries = _parse_json(path)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise CheckpointError(f"{path}: expected a list of objects, one a module")
    modules = tuple(_read_module(JsonFile(path, entry)) for entry in entries)
    kinds = tuple(module.kind for module in modules)
    if kinds not in {("Transformer", "Pooling"), ("Transformer", "Pooling", "Normalize")}:
        raise UnsupportedCheckpointError(
            f"{path}: the modules are {' -> '.join(kinds) or 'none'}; "
            "supported: Transformer -> Pooling, and that -> Normalize"
        )
    if not _is_there(pooling := modules[1].folder / "config.json"):
        raise CheckpointNotFoundError(f"{pooling}: there is no such file, and {path.name} names it")
    return modules


def _read_module(entry: JsonFile) -> Module:
    kind = entry.get("type", str)
    if kind.split(".")[0] != "sentence_transformers":
        raise UnsupportedCheckpointError(
            f"{entry.path}: the module type {shown(kind)} is code of the checkpoint's own, which is never run"
        )
    name = entry.get("path", str, "")
    escapes = {PurePosixPath(name).is_absolute(), PureWindowsPath(name).anchor != "", "\0" in name}
    if True in escapes or ".." in PureWindowsPath(name).parts:
        raise CheckpointError(
            f"{entry.path}: path is {shown(name)}, which leads out of the checkpoint folder; "
            "expected a folder inside it, such as '1_Pooling'"
        )
    return Module(kind.split(".")[-1], entry.path.parent / name)


def _read_transformer(path: Path) -> TransformerConfig:
    if not _is_there(path):
        raise CheckpointNotFoundError(
            f"{path}: there is no such file; expected the config.json of a BERT or RoBERTa checkpoint"
        )
    file = _read_json(path)
    file.refuse_unless(
        {
            "model_type": ("bert", "roberta"),
            "hidden_act": ACTIVATIONS,
            "position_embedding_type": ("absolute",),
            "is_decoder": (False,),
            "add_cross_attention": (False,),
            "is_encoder_decoder": (False,),
            "chunk_size_feed_forward": (0,),
            "quantization_config": (),
            "pruned_heads": ({},),
        }
    )
    model_type, eps = file.get("model_type", str), file.get("layer_norm_eps", float)
    if not 0 < eps < 1:
        raise CheckpointError(f"{path}: layer_norm_eps is {shown(eps)}; expected a number between 0 and 1")
    config = TransformerConfig(
        model_type=model_type,
        hidden_size=file.size("hidden_size"),
        num_hidden_layers=file.size("num_hidden_layers", at_most=MAX_LAYERS),
        num_attention_heads=file.size("num_attention_heads"),
        intermediate_size=file.size("intermediate_size"),
        hidden_act=file.get("hidden_act", str),
        layer_norm_eps=eps,
        vocab_size=file.size("vocab_size"),
        max_position_embeddings=file.size("max_position_embeddings"),
        type_vocab_size=file.size("type_vocab_size"),
        pad_token_id=file.get("pad_token_id", int, {"bert": 0, "roberta": 1}[model_type]),
    )
    _check_sizes(path, config)
    return config


def _check_sizes(path: Path, config: TransformerConfig) -> None:
    if config.hidden_size % config.num_attention_heads:
        raise CheckpointError(
            f"{path}: hidden_size is {config.hidden_size} and num_attention_heads is "
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


def _read_pooling_mode(path: Path, hidden_size: int) -> str:
    """Check that the pooling is the mean, in either layout: ``pooling_mode_*`` booleans, or a name or list."""
    if not _is_there(path):
        return "mean"
    file = _read_json(path)
    width = file.get("embedding_dimension", int, file.optional("word_embedding_dimension", int))
    if width != hidden_size:
        raise CheckpointError(
            f"{path}: the pooling is for vectors of width {width}, and the transformer's have {hidden_size}"
        )
    others: dict[str, tuple[Any, ...]] = {key: (False,) for key in file.values if key not in _WIDTHS}
    mean = {"pooling_mode": ("mean", ["mean"]), "pooling_mode_mean_tokens": (True,)}
    file.refuse_unless(others | mean | {"include_prompt": (True,)})
    return "mean"


_WIDTHS = ("embedding_dimension", "word_embedding_dimension")


def _read_normalize(path: Path) -> bool:
    """Check the settings of a Normalize module, which often has no file, and never needs one."""
    names = ("sentence_embedding",)
    _read_json(path).refuse_unless({"module_input_name": names, "module_output_name": names})
    return True


def _read_text_settings(folder: Path, transformer: TransformerConfig) -> tuple[int, bool]:
    """Return how many tokens of a text are read, and whether it is lower-cased first."""
    settings = _read_json(folder / "sentence_bert_config.json")
    settings.refuse_unless(
        {
            "transformer_task": ("feature-extraction",),
            "module_output_name": ("token_embeddings",),
            "modality_config": ({"text": {"method": "forward", "method_output_name": "last_hidden_state"}},),
            "tokenizer_name_or_path": (),
            "query_length": (),
            "document_length": (),
            "query_expansion": (),
            "processing_kwargs": ({},),
        }
        | {f"{name}_{kind}": ({},) for name in _LOADING for kind in ("args", "kwargs")}
    )
    tokenizer = _read_json(folder / "tokenizer_config.json")
    tokenizer.refuse_unless({"truncation_side": ("right",)})
    file, key = settings, "max_seq_length"
    limit: float | None = file.optional(key, int)
    if limit is None:  # 1e30 stands for no limit in tokenizer_config.json, as an integer or a float
        file, key = tokenizer, "model_max_length"
        limit = file.get(key, float, math.inf)
    if not limit >= 1:  # nor NaN
        raise CheckpointError(f"{file.path}: {key} is {shown(limit)}; expected at least 1")
    return int(min(limit, transformer.max_tokens)), settings.get("do_lower_case", bool, False)


_LOADING = ("model", "tokenizer", "processor", "config")


def _read_sentence_settings(path: Path, hidden_size: int) -> dict[str, Any]:
    """Read the prompts, the similarity function and the length that vectors are cut to."""
    file = _read_json(path)
    file.refuse_unless({"model_type": ("SentenceTransformer",)})
    prompts = dict.fromkeys(("query", "document"), "")
    for name, prompt in file.get("prompts", dict, {}).items():
        if not isinstance(prompt, str | None):
            raise CheckpointError(f"{path}: the prompt {shown(name)} is {shown(prompt)}; expected a string")
        prompts[name] = prompt or ""
    default = file.optional("default_prompt_name", str)
    if default is not None and default not in prompts:
        raise CheckpointError(
            f"{path}: default_prompt_name is {shown(default)}; expected one of the prompts, {sorted(prompts)}"
        )
    similarity = file.get("similarity_fn_name", str, "cosine")
    file.refuse_unless({"similarity_fn_name": SIMILARITIES})
    cut = None if file.optional("truncate_dim", int) is None else file.size("truncate_dim", hidden_size)
    return {
        "prompts": prompts,
        "default_prompt_name": default,
        "similarity_fn_name": similarity,
        "truncate_dim": cut,
    }


def _read_json(path: Path) -> JsonFile:
    """Read a JSON object; a missing file counts as an empty one, as all but config.json are optional."""
    if not _is_there(path):
        return JsonFile(path, {})
    values = _parse_json(path)
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: holds {_kind(type(values))}; expected an object")
    return JsonFile(path, values)


def _is_there(path: Path) -> bool:
    """Whether there is such a file; a folder, a pipe or a link to nothing does not count as an absent one."""
    if os.path.lexists(path) and not os.path.isfile(path):
        raise CheckpointError(f"{path}: is not a regular file, nor a link to one; copy the checkpoint again")
    return os.path.isfile(path)


def _parse_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # malformed, not UTF-8, or nested without end
        raise CheckpointError(f"{path}: is not valid JSON ({error}); copy the checkpoint again") from error
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({error.strerror})") from error


def _kind(kind: type) -> str:
    """Name a Python type as a reader of JSON would."""
    names = {str: "a string", int: "an integer", float: "a number", bool: "true or false", dict: "an object"}
    return names.get(kind, "a list" if kind is list else "nothing")
