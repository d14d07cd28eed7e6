"""From the name of a checkpoint to a folder: the local Hugging Face cache, then the network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from minisbert.errors import CheckpointNotFoundError, EncodeTypeError, shown

__all__ = ["resolve"]

# All that a checkpoint's vectors depend on, and nothing else: never pickles or other formats of the weights.
FILES = (
    "config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors",
    "*/config.json",
)


def resolve(name_or_path: str | Path, **options: Any) -> Path:
    """Return the folder of a checkpoint.

    Parameters
    ----------
    name_or_path : str or pathlib.Path
        A folder, or ``"organisation/model"``; without an organisation, ``sentence-transformers`` is meant.
    **options
        ``revision``, ``token``, ``cache_folder`` and ``local_files_only`` of `minisbert.load`.

    Raises
    ------
    CheckpointNotFoundError
        If there is no such folder, and no such name in the cache nor, where that may be asked, on the hub.
    EncodeTypeError
        If an argument has the wrong type.
    """
    _check_types({"name_or_path": name_or_path, **options})
    try:
        path = Path(name_or_path).expanduser()
    except (RuntimeError, ValueError):  # a "~user" who is not known, or can't be
        path = Path(name_or_path)
    if os.path.exists(path) or not _is_name(name_or_path):  # unlike the method, it takes any name
        return path
    name = str(name_or_path) if "/" in str(name_or_path) else f"sentence-transformers/{name_or_path}"
    return _download(name, **options)


_TYPES: dict[str, tuple[type, ...]] = {
    "name_or_path": (str, Path),
    "revision": (str, type(None)),
    "token": (str, bool, type(None)),
    "cache_folder": (str, Path, type(None)),
    "local_files_only": (bool,),
}


def _check_types(arguments: dict[str, Any]) -> None:
    for name, value in arguments.items():
        if not isinstance(value, _TYPES[name]):
            kinds = " or ".join(kind.__name__ for kind in _TYPES[name]).replace("NoneType", "None")
            raise EncodeTypeError(f"{name} is {shown(value)}; expected {kinds}")


def _is_name(name_or_path: str | Path) -> bool:
    """Whether this can be a name on the hub: one or two plain parts, and not a path object."""
    parts = str(name_or_path).split("/")
    plain = all(part and not part.startswith(".") and "\\" not in part for part in parts)
    return isinstance(name_or_path, str) and len(parts) <= 2 and plain and ":" not in name_or_path


def _download(
    name: str,
    revision: str | None,
    token: str | bool | None,
    cache_folder: str | Path | None,
    local_files_only: bool,
) -> Path:
    from huggingface_hub import constants, snapshot_download  # slow to import, and needed for names only
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    def snapshot(local: bool) -> Path:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                token=token,
                cache_dir=cache_folder,
                local_files_only=local,
                allow_patterns=list(FILES),
            )
        )

    cache = cache_folder or constants.HF_HUB_CACHE
    try:
        folder = snapshot(local=True)
        if (folder / "model.safetensors").exists():
            return folder
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        raise CheckpointNotFoundError(f"{name!r} is neither a folder nor a model's name ({error})") from error
    except (OSError, ValueError) as error:  # a cache_folder or a revision that can't be part of a path
        raise CheckpointNotFoundError(
            f"{name!r} can't be looked up in the cache, {cache} ({error})"
        ) from error
    if local_files_only or constants.HF_HUB_OFFLINE:
        raise CheckpointNotFoundError(
            f"{name!r} is not a folder, and not in the local cache, {cache}; the network may not be asked "
            "(local_files_only or HF_HUB_OFFLINE). Give the path of a checkpoint folder"
        )
    try:
        return snapshot(local=False)
    except Exception as error:  # of huggingface_hub, of whichever network library it uses, or ValueError
        reason = str(error).partition("\n")[0]
        raise CheckpointNotFoundError(
            f"{name!r} is not a folder, not in the local cache, {cache}, and can't be fetched: {reason}. "
            "Check the name and the connection, or give a checkpoint folder"
        ) from error
