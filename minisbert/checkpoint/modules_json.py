"""The list of modules of a checkpoint, as modules.json and the modules' folders say; and whether they fit together.

While the modules are read, in order, a record is kept of the features that there are so far, and of their widths.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

from minisbert.checkpoint.jsonfile import JsonFile, is_there, parse_json, read_json
from minisbert.checkpoint.links import refuse_link_out
from minisbert.checkpoint.modules import (
    LAYERS,
    SENTENCE,
    TOKENS,
    Dense,
    Dropout,
    LayerNorm,
    Module,
    Normalize,
    Pooling,
    WeightedLayerPooling,
)
from minisbert.errors import CheckpointError, CheckpointNotFoundError, UnsupportedCheckpointError, shown

__all__ = ["WIDTHS", "Entry", "entry_files", "read_entries", "read_entry", "read_modules"]

# The old settings and today's names of the pooling modes, in the order in which old settings join them.
POOLING_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
WIDTHS = ("embedding_dimension", "word_embedding_dimension")  # today's name, and the old one
MAX_MODES = 64  # each is computed: a bound, so that a damaged file can't keep us busy
# The classes of torch.nn that a Dense module can have, and the packages that they go by. In small letters they are
# the names of `reference.activations.ACTIVATIONS`. GLU halves the width, and Softmax2d is for images.
DENSE_ACTIVATIONS = (
    "CELU", "ELU", "GELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "Identity", "LeakyReLU",
    "LogSigmoid", "LogSoftmax", "Mish", "PReLU", "RReLU", "ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid", "Softmax",
    "Softmin", "Softplus", "Softshrink", "Softsign", "Tanh", "Tanhshrink",
)  # fmt: skip
TORCH = ("torch.nn", "torch.nn.modules", "torch.nn.modules.activation", "torch.nn.modules.linear")
# Over all tokens of a batch sentence-transformers takes these along the sentences: results would depend on the company.
ALONG_A_VECTOR = ("softmax", "softmin", "logsoftmax")

# Where a feature comes from. If it is missing, sentence-transformers silently leaves a WeightedLayerPooling out.
MAKERS = {
    SENTENCE: "a Pooling before it in modules.json",
    LAYERS: "output_hidden_states to be true in the transformer's config.json (without it, sentence-transformers "
    "leaves the module out)",
}

Widths = dict[str, int]


class Entry(NamedTuple):
    """A line of modules.json: the last part of the module's dotted type, and its folder."""

    kind: str
    folder: Path


def read_entries(folder: Path) -> tuple[Entry, ...]:
    """Read modules.json, which has the transformer first; where it is absent, there are that and mean pooling."""
    path = folder / "modules.json"
    if not is_there(path):
        return (Entry("Transformer", folder),)
    files = entry_files(path)
    entries = tuple(map(read_entry, files))
    kinds = [entry.kind for entry in entries]
    if kinds[:1] != ["Transformer"] or not kinds[1:] or not set(kinds[1:]) <= set(READERS):
        raise UnsupportedCheckpointError(
            f"{path}: the modules are {' -> '.join(kinds) or 'none'}; supported: one Transformer, and then any of "
            f"{', '.join(READERS)}"
        )
    names = Counter(file.optional("name", str) for file in files)
    del names[None]
    for name, count in names.most_common(1):
        if count > 1:  # sentence-transformers would put the later module in the place of the earlier
            raise CheckpointError(
                f"{path}: two modules have the name {shown(name)}; expected a name for each"
            )
    return entries


def entry_files(path: Path) -> list[JsonFile]:
    """Read modules.json line by line, whatever the modules are."""
    values = parse_json(path)
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise CheckpointError(f"{path}: expected a list of objects, one a module")
    return [JsonFile(path, value) for value in values]


def read_entry(file: JsonFile) -> Entry:
    """Read a line of modules.json: only types of sentence-transformers', and folders inside the checkpoint's."""
    kind = file.get("type", str)
    if kind.split(".")[0] != "sentence_transformers":
        raise UnsupportedCheckpointError(
            f"{file.path}: the module type {shown(kind)} is code of the checkpoint's own, which is never run"
        )
    name = file.get("path", str, "")
    escapes = {PurePosixPath(name).is_absolute(), PureWindowsPath(name).anchor != "", "\0" in name}
    if True in escapes or ".." in PureWindowsPath(name).parts:
        raise CheckpointError(
            f"{file.path}: path is {shown(name)}, which leads out of the checkpoint folder; "
            "expected a folder inside it, such as '1_Pooling'"
        )
    refuse_link_out(file.path.parent / name, file.path.parent)
    return Entry(kind.split(".")[-1], file.path.parent / name)


# --- the settings of each module --------------------------------------------------------------------------------


def read_modules(
    folder: Path, entries: tuple[Entry, ...], hidden_size: int, num_hidden_layers: int
) -> tuple[tuple[Module, ...], int]:
    """Read the modules after the transformer, and check that they fit together.

    Parameters
    ----------
    folder : pathlib.Path
        The checkpoint folder.
    entries : tuple of Entry
        What `read_entries` found in it.
    hidden_size, num_hidden_layers : int
        The width of the transformer's token vectors, and how many layers it has.

    Returns
    -------
    tuple of Module
        In the order of execution.
    int
        The width of the sentence vectors.

    Raises
    ------
    CheckpointNotFoundError
        If a module's settings are missing.
    CheckpointError
        If a setting is impossible, or contradicts what the modules before give.
    UnsupportedCheckpointError
        If a setting asks for what is not computed here.
    """
    transformer, *others = entries
    if not others:
        return (Pooling(transformer.folder, ("mean",), include_prompt=True),), hidden_size
    widths = {TOKENS: hidden_size}
    if read_json(transformer.folder / "config.json").get("output_hidden_states", bool, False):
        widths[LAYERS] = hidden_size
    modules: list[Module] = []
    for entry in others:
        settings = read_json(entry.folder / "config.json")
        if entry.kind not in ("Normalize", "Dropout") and not is_there(settings.path):
            raise CheckpointNotFoundError(
                f"{settings.path}: there is no such file, and modules.json names it"
            )
        module = READERS[entry.kind](settings, widths)
        if isinstance(module, WeightedLayerPooling):
            _check_layers(settings.path, module, num_hidden_layers)
        modules.append(module)
    if SENTENCE not in widths:
        raise UnsupportedCheckpointError(
            f"{folder / 'modules.json'}: the modules are {' -> '.join(entry.kind for entry in entries)}, which make "
            "no sentence embedding; expected a Pooling"
        )
    return tuple(modules), widths[SENTENCE]


def _read_pooling(settings: JsonFile, widths: Widths) -> Module:
    width = _read_width(settings)
    _check_width(settings, width, widths, TOKENS)
    modes = _read_modes(settings)
    widths[SENTENCE] = len(modes) * width
    include_prompt = settings.get("include_prompt", bool, "include_prompt" not in settings.values)  # null: no
    return Pooling(settings.path.parent, modes, include_prompt)


def _read_modes(settings: JsonFile) -> tuple[str, ...]:
    """Return the pooling modes in order, from a name, a list of names, or the old booleans; none means the mean."""
    _refuse_others(settings, *POOLING_MODES, *WIDTHS, "pooling_mode", "include_prompt")
    old = tuple(mode for key, mode in POOLING_MODES.items() if settings.get(key, bool, False))
    if "pooling_mode" not in settings.values:
        return old or ("mean",)
    value = settings.values["pooling_mode"]
    modes = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else ()
    if not 1 <= len(modes) <= MAX_MODES or not all(
        isinstance(mode, str) and mode in POOLING_MODES.values() for mode in modes
    ):
        raise UnsupportedCheckpointError(
            f"{settings.path}: pooling_mode is {shown(value)}, which minisbert does not compute; supported: "
            f"one or several of {', '.join(POOLING_MODES.values())}"
        )
    stated = {mode: settings.optional(key, bool) for key, mode in POOLING_MODES.items()}
    for key, mode in POOLING_MODES.items():
        if stated[mode] is not None and stated[mode] != (mode in modes):
            raise CheckpointError(
                f"{settings.path}: pooling_mode is {shown(value)} and {key} is {stated[mode]}; expected one to "
                "say what the other says"
            )
    return modes


def _read_normalize(settings: JsonFile, widths: Widths) -> Module:
    return Normalize(settings.path.parent, _read_feature(settings))


def _read_dense(settings: JsonFile, widths: Widths) -> Module:
    keys = ("in_features", "out_features", "bias", "activation_function", "use_residual")
    _refuse_others(settings, *keys, "module_input_name", "module_output_name")
    feature = _read_feature(settings)
    module = Dense(
        folder=settings.path.parent,
        feature=feature,
        in_features=settings.size("in_features"),
        out_features=settings.size("out_features"),
        bias=settings.get("bias", bool, "bias" not in settings.values),  # null: none
        activation=_read_activation(settings),
        use_residual=settings.get("use_residual", bool, False),
    )
    if feature == TOKENS and module.activation in ALONG_A_VECTOR:
        raise UnsupportedCheckpointError(
            f"{settings.path}: activation_function is {module.activation} over {TOKENS}, which the reference takes "
            "over the sentences of a batch, so that a vector depends on its company"
        )
    _check_width(settings, module.in_features, widths, feature)
    widths[feature] = module.out_features
    return module


def _read_activation(settings: JsonFile) -> str:
    """Return what the kernels call the activation; without the key it is tanh."""
    if "activation_function" not in settings.values:
        return "tanh"
    package, _, name = settings.get("activation_function", str).rpartition(".")
    if package not in TORCH or name not in DENSE_ACTIVATIONS:
        raise UnsupportedCheckpointError(
            f"{settings.path}: activation_function is {shown(settings.values['activation_function'])}, which "
            "minisbert does not compute; supported: torch.nn.modules.activation and one of "
            f"{', '.join(DENSE_ACTIVATIONS)}"
        )
    return name.lower()


def _read_layer_norm(settings: JsonFile, widths: Widths) -> Module:
    _refuse_others(settings, "dimension")
    module = LayerNorm(settings.path.parent, settings.size("dimension"))
    _check_width(settings, module.dimension, widths, SENTENCE)
    return module


def _read_dropout(settings: JsonFile, widths: Widths) -> Module:
    _check_width(settings, None, widths, SENTENCE)
    return Dropout(settings.path.parent)


def _read_weighted_layers(settings: JsonFile, widths: Widths) -> Module:
    _refuse_others(settings, *WIDTHS, "layer_start", "num_hidden_layers")
    width = _read_width(settings)
    _check_width(settings, width, widths, LAYERS)
    widths[TOKENS] = width
    start, layers = settings.get("layer_start", int, 4), settings.get("num_hidden_layers", int, 12)
    return WeightedLayerPooling(settings.path.parent, start, layers)


def _check_layers(path: Path, module: WeightedLayerPooling, num_hidden_layers: int) -> None:
    if module.num_hidden_layers != num_hidden_layers:
        raise CheckpointError(
            f"{path}: num_hidden_layers is {shown(module.num_hidden_layers)}, and the transformer has "
            f"{num_hidden_layers} layers; expected the same number"
        )
    if not 0 <= module.layer_start <= num_hidden_layers:
        raise CheckpointError(
            f"{path}: layer_start is {shown(module.layer_start)}; expected 0 to {num_hidden_layers}"
        )


READERS: dict[str, Callable[[JsonFile, Widths], Module]] = {
    "Pooling": _read_pooling,
    "Normalize": _read_normalize,
    "Dense": _read_dense,
    "LayerNorm": _read_layer_norm,
    "Dropout": _read_dropout,
    "WeightedLayerPooling": _read_weighted_layers,
}


def _refuse_others(settings: JsonFile, *known: str) -> None:
    """Refuse every other key by name, unless it turns something off: it could change the result."""
    settings.refuse_unless({key: (False,) for key in settings.values if key not in known})


def _read_feature(settings: JsonFile) -> str:
    """Return the feature that a module replaces: sentence vectors, or those of tokens."""
    feature = settings.get("module_input_name", str, SENTENCE)
    settings.refuse_unless({"module_input_name": (SENTENCE, TOKENS), "module_output_name": (feature,)})
    return feature


def _read_width(settings: JsonFile) -> int:
    new, old = WIDTHS
    return settings.get(new, int, settings.optional(old, int))


def _check_width(settings: JsonFile, width: int | None, widths: Widths, feature: str) -> None:
    """Refuse a module if there is no such feature before it, or one of another width."""
    if feature not in widths:
        raise UnsupportedCheckpointError(
            f"{settings.path}: the module needs {feature}, and nothing before it makes one; expected {MAKERS[feature]}"
        )
    if width is not None and width != widths[feature]:
        raise CheckpointError(
            f"{settings.path}: the module is for {feature} of width {shown(width)}, and those before it have "
            f"{widths[feature]}; expected one width"
        )
