"""From the name of a checkpoint to a folder: the local Hugging Face cache, then the network.

A snapshot in the cache can lack files: a download was cut, or another program fetched only what it needed.
A missing modules.json would then be taken for a repository without one, and give other vectors; and a vocabulary
might have a tokenizer.json to go with it. So a cached snapshot counts only if all that it has to have is there, and
these two there or known not to exist. What is fetched comes in an order that keeps this true after any interruption:
settings, weights, and last the note of which commit a branch stands for.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from minisbert.checkpoint.config import is_cross_encoder
from minisbert.checkpoint.conversion import refusal_by_name
from minisbert.checkpoint.repository import (
    INDEX,
    TOKENIZER,
    WHOLE,
    missing_file,
    module_folders,
    settings_files,
    shards,
    unreadable_files,
    weights_name,
)
from minisbert.errors import CheckpointError, CheckpointNotFoundError, EncodeTypeError, MinisbertError, shown

__all__ = ["at_commit", "name_and_commit", "resolve"]

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
    return _snapshot(name, commit)


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
    revision: str | None = None,
    token: str | bool | None = None,
    cache_folder: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Path:
    constants = _settings(name)
    cache = Path(cache_folder or constants.HF_HUB_CACHE).expanduser()
    revision = revision or constants.DEFAULT_REVISION
    offline = local_files_only or constants.HF_HUB_OFFLINE
    folder, missing = _look_up(name, revision, cache, offline)
    if folder and not missing:
        return folder
    if offline:
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
        return _fetch(name, revision, token, cache)
    except MinisbertError:
        raise
    except (
        Exception
    ) as error:  # of huggingface_hub, of whichever network library it uses, OSError, ValueError
        folder, missing = _look_up(name, revision, cache, offline=True)
        if folder and not missing and getattr(error, "response", None) is None:  # the hub did not say no
            return folder
        raise CheckpointNotFoundError(
            f"{name!r} is not a folder, not complete in the local cache, {cache}, and can't be fetched from "
            f"{constants.ENDPOINT}: {_explain(error, shown(revision))}"
        ) from error


def _settings(name: str) -> Any:
    """Return the settings of huggingface_hub, which is slow to import, and needed for names only."""
    try:
        from huggingface_hub import constants
    except ImportError as error:
        raise CheckpointNotFoundError(
            f"{name!r} is not a folder, and names are looked up by huggingface_hub, which can't be imported ({error}): "
            "pip install huggingface_hub, or give the path of a checkpoint folder"
        ) from error
    return constants


# --- The local cache ----------------------------------------------------------------------------------


def _look_up(name: str, revision: str, cache: Path, offline: bool) -> tuple[Path | None, str]:
    """Return the cached snapshot, if there is one, and the name of a file that it lacks, if it does."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.utils import HFValidationError

    def find(file: str) -> Any:
        """Return a file's path, or None; or the library's mark for one that the repository does not have."""
        return try_to_load_from_cache(name, file, cache_dir=cache, revision=revision)

    try:
        paths = [
            Path(found) for found in map(find, ("modules.json", "config.json")) if isinstance(found, str)
        ]
    except HFValidationError as error:
        raise CheckpointNotFoundError(f"{name!r} is neither a folder nor a model's name ({error})") from error
    except (OSError, ValueError) as error:  # a cache_folder or a revision that can't be part of a path
        raise CheckpointNotFoundError(
            f"{name!r} can't be looked up in the cache, {cache} ({error})"
        ) from error
    if not paths:
        return None, ""
    folder = paths[0].parent
    # Where nobody can be asked, modules.json is taken for absent only if it looks as if all had been fetched.
    is_whole = any((folder / name).is_file() for name in WHOLE)
    return folder, missing_file(
        folder, lambda file: find(file) is not None or (offline and (is_whole or file != "modules.json"))
    )


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

    roots = [get(file) for file in settings_files(files, "")]
    if not roots:
        raise CheckpointNotFoundError(
            f"{name!r}: the repository at {constants.ENDPOINT} has neither config.json nor modules.json; "
            "expected a checkpoint of sentence-transformers or transformers"
        )
    folder = roots[0].parent
    modules = list(module_folders(folder / "modules.json"))
    prefixes = dict.fromkeys(prefix for _, prefix in modules)
    for prefix in filter(None, prefixes):
        for file in settings_files(files, prefix):
            get(file)
    for refused in unreadable_files(files, modules):
        raise refusal_by_name(name, revision, is_cross_encoder(folder), refused)
    for prefix in prefixes:
        _get_weights(name, files, prefix, weights_name(folder, prefix), get)
    # Asking for what is not there makes the library note that; by the revision's own name, also which commit it is.
    absent = {prefix + TOKENIZER: info.sha for kind, prefix in modules if kind == "Transformer"}
    for file, at in {**absent, "modules.json": revision}.items():
        if file not in files or at == revision:
            with suppress(EntryNotFoundError):
                hf_hub_download(name, file, revision=at, token=token, cache_dir=cache)
    return folder


def _get_weights(
    name: str, files: Collection[str], prefix: str, single: str, get: Callable[[str], Path]
) -> None:
    """Fetch one module's weights, if it has any: a single file where there is one, otherwise the shards."""
    if prefix + single in files:
        get(prefix + single)
    elif prefix + INDEX in files:
        for shard in shards(get(prefix + INDEX)):
            if prefix + shard not in files:
                raise CheckpointError(
                    f"{name!r}: {prefix}{INDEX} names {shard}, and the repository has no such file"
                )
            get(prefix + shard)


def _verify(path: Path, file: Any) -> None:
    """Compare a file with what the hub says of it: huggingface_hub itself looks at the length alone."""
    import hashlib

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
