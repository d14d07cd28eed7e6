"""From the name of a checkpoint to a folder: the local Hugging Face cache, then the network.

A snapshot in the cache can lack files: a download was cut, or another program fetched only what it needed.
A missing modules.json would then be taken for a repository without one, and give other vectors. So a cached
snapshot counts only if all that it has to have is there, and modules.json there or known not to exist. What is
fetched comes in an order that keeps this true after any interruption: settings, weights, and last the note of
which commit a branch stands for.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from minisbert.checkpoint import pickle_refusal
from minisbert.errors import CheckpointError, CheckpointNotFoundError, EncodeTypeError, MinisbertError, shown
from minisbert.jsonfile import parse_json

__all__ = ["at_commit", "name_and_commit", "resolve"]

# What vectors depend on besides the weights, by name: never pickles or other formats of the weights.
SETTINGS = (
    "adapter_config.json",
    "added_tokens.json",
    "config.json",
    "modules.json",
    "sentence_*_config.json",
    "config_sentence_transformers.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")

# The files that a module can't do without; what it is not checked for here is left to whoever reads it.
NEEDED = {
    "Transformer": ("config.json", "tokenizer.json", WEIGHTS),
    "Pooling": ("config.json",),
    "Dense": ("config.json", WEIGHTS),
    "LayerNorm": ("config.json", WEIGHTS),
    "WeightedLayerPooling": ("config.json", WEIGHTS),
}

# What an operating system says where the cache, and not the network, is to blame.
CACHE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS}


def resolve(
    name_or_path: str | os.PathLike[str], organisation: str = "sentence-transformers", **options: Any
) -> Path:
    """Return the folder of a checkpoint.

    Parameters
    ----------
    name_or_path : str or os.PathLike
        A folder, or ``"organisation/model"``.
    organisation : str
        The one that is meant where a name has none.
    **options
        ``revision``, ``token``, ``cache_folder`` and ``local_files_only`` of `minisbert.load`.

    Raises
    ------
    CheckpointNotFoundError
        If there is no such folder, and no such name in the cache nor, where that may be asked, on the hub.
    CheckpointError
        If a fetched file is not what the hub says it is.
    UnsupportedCheckpointError
        If the weights are on the hub as pickles only.
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
    name = str(name_or_path) if "/" in str(name_or_path) else f"{organisation}/{name_or_path}"
    return _snapshot(name, **options)


def name_and_commit(folder: Path) -> tuple[str, str] | None:
    """Return the name and the commit of a snapshot in a Hugging Face cache; None for any other folder."""
    repository = folder.parent.parent
    if folder.parent.name != "snapshots" or not repository.name.startswith("models--"):
        return None
    return repository.name.removeprefix("models--").replace("--", "/"), folder.name


def at_commit(name: str, commit: str) -> Path:
    """Return the folder of a checkpoint as it was at a commit, from the default cache or from the hub."""
    return _snapshot(name, commit, None, None, False)


_TYPES: dict[str, tuple[type, ...]] = {
    "name_or_path": (str, os.PathLike),
    "revision": (str, type(None)),
    "token": (str, bool, type(None)),
    "cache_folder": (str, os.PathLike, type(None)),
    "local_files_only": (bool,),
}


def _check_types(arguments: dict[str, Any]) -> None:
    for name, value in arguments.items():
        is_bytes = isinstance(value, os.PathLike) and isinstance(os.fspath(value), bytes)
        if is_bytes or not isinstance(value, _TYPES[name]):
            kinds = " or ".join(kind.__name__ for kind in _TYPES[name]).replace("NoneType", "None")
            raise EncodeTypeError(f"{name} is {shown(value)}; expected {kinds}")


def _is_name(name_or_path: str | os.PathLike[str]) -> bool:
    """Whether this can be a name on the hub: one or two plain parts, and not a path object."""
    if not isinstance(name_or_path, str):
        return False
    parts = name_or_path.split("/")
    plain = all(part and not part.startswith(".") and "\\" not in part for part in parts)
    return len(parts) <= 2 and plain and ":" not in name_or_path


def _snapshot(
    name: str,
    revision: str | None,
    token: str | bool | None,
    cache_folder: str | os.PathLike[str] | None,
    local_files_only: bool,
) -> Path:
    from huggingface_hub import constants  # slow to import, and needed for names only

    cache = Path(cache_folder or constants.HF_HUB_CACHE).expanduser()
    folder, missing = _look_up(name, revision or constants.DEFAULT_REVISION, cache)
    if folder and not missing:
        return folder
    if local_files_only or constants.HF_HUB_OFFLINE:
        found = (
            f"incomplete in the local cache: {folder} lacks {missing}"
            if folder
            else (f"not in the local cache, {cache}")
        )
        raise CheckpointNotFoundError(
            f"{name!r} is not a folder, and {found}; the network may not be asked (local_files_only or "
            "HF_HUB_OFFLINE). Load it once where it may be, or give the path of a checkpoint folder"
        )
    try:
        return _fetch(name, revision or constants.DEFAULT_REVISION, token, cache)
    except MinisbertError:
        raise
    except (
        Exception
    ) as error:  # of huggingface_hub, of whichever network library it uses, OSError, ValueError
        raise CheckpointNotFoundError(
            f"{name!r} is not a folder, not complete in the local cache, {cache}, and can't be fetched from "
            f"{constants.ENDPOINT}: {_explain(error, shown(revision or constants.DEFAULT_REVISION))}"
        ) from error


# --- The local cache ----------------------------------------------------------------------------------


def _look_up(name: str, revision: str, cache: Path) -> tuple[Path | None, str]:
    """Return the cached snapshot, if there is one, and the name of a file that it lacks, if it does."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.utils import HFValidationError

    try:
        modules, config = (
            try_to_load_from_cache(name, file, cache_dir=cache, revision=revision)
            for file in ("modules.json", "config.json")
        )
    except HFValidationError as error:
        raise CheckpointNotFoundError(f"{name!r} is neither a folder nor a model's name ({error})") from error
    except (OSError, ValueError) as error:  # a cache_folder or a revision that can't be part of a path
        raise CheckpointNotFoundError(
            f"{name!r} can't be looked up in the cache, {cache} ({error})"
        ) from error
    folder = next((Path(path).parent for path in (modules, config) if isinstance(path, str)), None)
    if modules is None:  # neither a path nor the library's mark for a file that the repository does not have
        return folder, "modules.json"
    return folder, _missing(folder) if folder else "config.json"


def _missing(folder: Path) -> str:
    """Return the name of a file that a snapshot lacks, or nothing if it is complete."""
    for kind, module in _modules(folder / "modules.json"):
        for name in NEEDED.get(kind, ()):
            paths = _weights(folder / module) if name == WEIGHTS else [folder / module / name]
            if lost := next((path for path in paths if not path.is_file()), None):
                return lost.relative_to(folder).as_posix()
    return ""


def _weights(folder: Path) -> list[Path]:
    """Return the files of a module's weights: one, or all that an index names."""
    index = folder / INDEX
    if (folder / WEIGHTS).is_file() or not index.is_file():
        return [folder / WEIGHTS]
    return [folder / shard for shard in _shards(index)]


def _shards(index: Path) -> list[str]:
    """Return the names in an index that are plain file names; a wrong index is refused when it is loaded."""
    values = parse_json(index)
    names = values.get("weight_map") if isinstance(values, dict) else None
    texts = {name for name in names.values() if isinstance(name, str)} if isinstance(names, dict) else set()
    return sorted(name for name in texts if fnmatchcase(name, "*.safetensors") and "/" not in name)


def _modules(path: Path) -> Iterator[tuple[str, str]]:
    """Yield kind and folder of each module, as far as they can be read: they are checked when they are loaded."""
    if not path.is_file():
        yield "Transformer", ""
        return
    entries = parse_json(path)
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict):
            kind, folder = str(entry.get("type")).split(".")[-1], str(entry.get("path") or "")
            if ".." not in Path(folder).parts and not Path(folder).is_absolute() and "\0" not in folder:
                yield kind, folder.strip("/")


# --- The network --------------------------------------------------------------------------------------


def _fetch(name: str, revision: str, token: str | bool | None, cache: Path) -> Path:
    """Complete the snapshot of what the hub has under a revision now; return its folder."""
    from huggingface_hub import HfApi, constants, hf_hub_download
    from huggingface_hub.utils import EntryNotFoundError

    info = HfApi(token=token).model_info(
        name, revision=revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
    )
    files = {file.rfilename: file for file in info.siblings or ()}

    def get(file: str) -> Path:
        path = Path(hf_hub_download(name, file, revision=info.sha, token=token, cache_dir=cache))
        _verify(path, files[file])
        return path

    roots = [get(file) for file in _settings(files, "")]
    if not roots:
        raise CheckpointNotFoundError(
            f"{name!r}: the repository at {constants.ENDPOINT} has neither config.json nor modules.json; "
            "expected a checkpoint of sentence-transformers or transformers"
        )
    folder = roots[0].parent
    folders = dict.fromkeys(module for _, module in _modules(folder / "modules.json"))
    for module in filter(None, folders):
        for file in _settings(files, module):
            get(file)
    for module in folders:
        _get_weights(name, files, f"{module}/" if module else "", get)
    # Asking by the revision's own name makes the library note which commit it is, and if there is such a file.
    with suppress(EntryNotFoundError):
        hf_hub_download(name, "modules.json", revision=revision, token=token, cache_dir=cache)
    return folder


def _settings(files: Iterable[str], folder: str) -> list[str]:
    """Return the files of settings that a repository has in one of its folders; "" is its root."""
    parts = ((file, *file.rpartition("/")[::2]) for file in files)
    return [file for file, place, name in parts if place == folder and _is_setting(name)]


def _is_setting(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in SETTINGS)


def _get_weights(name: str, files: Mapping[str, Any], prefix: str, get: Callable[[str], Path]) -> None:
    """Fetch one module's weights, if it has any: a single file where there is one, otherwise the shards."""
    if prefix + WEIGHTS in files:
        get(prefix + WEIGHTS)
    elif prefix + INDEX in files:
        for shard in _shards(get(prefix + INDEX)):
            if prefix + shard not in files:
                raise CheckpointError(
                    f"{name!r}: {prefix}{INDEX} names {shard}, and the repository has no such file"
                )
            get(prefix + shard)
    elif pickle := next((prefix + file for file in PICKLES if prefix + file in files), None):
        raise pickle_refusal(f"{name}/{pickle}", name, name.rpartition("/")[2])


def _verify(path: Path, file: Any) -> None:
    """Compare a file with what the hub says of it: huggingface_hub itself looks at the length alone."""
    if file.lfs:
        digest, expected = hashlib.sha256(), file.lfs["sha256"]
    else:  # Git's own name for the content
        digest, expected = hashlib.sha1(usedforsecurity=False), file.blob_id
        digest.update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as content:
        for piece in iter(lambda: content.read(1 << 20), b""):
            digest.update(piece)
    if expected is not None and digest.hexdigest() != expected:
        for place in {Path(os.path.realpath(path)), path}:  # or the next load would take it for sound
            place.unlink()
        raise CheckpointError(
            f"{path}: what was fetched is not what the hub has: its hash is {digest.hexdigest()}, expected "
            f"{expected}. It was deleted again; load once more, and look at proxies and HF_ENDPOINT if it recurs"
        )


def _explain(error: Exception, revision: str) -> str:
    """Say why something can't be fetched, and what to do."""
    from huggingface_hub.utils import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    access = "log in with `hf auth login`, set HF_TOKEN or pass token="
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, GatedRepoError):
        return f"it is gated. Ask for access on its page there; then {access}"
    if isinstance(error, RepositoryNotFoundError):
        return f"there is no such model, or it is private. Check the name; for a private model {access}"
    if isinstance(error, RevisionNotFoundError):
        return f"it has no revision {revision}. Check the branch, tag or full commit hash"
    if status in {401, 403}:
        return f"access is refused ({status}). Check the token, or {access}"
    if isinstance(error, OSError) and error.errno in CACHE_ERRORS:
        return (
            f"the cache can't be written to ({error.strerror}). Free some space there, or choose another place "
            "with cache_folder= or HF_HOME"
        )
    reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
    return f"{reason}. Check the connection and HF_ENDPOINT and try again, or give a checkpoint folder"
