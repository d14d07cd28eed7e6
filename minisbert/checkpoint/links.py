"""Symbolic links in a checkpoint: those of the Hugging Face cache are followed, others only inside their folder."""

from __future__ import annotations

import os
from pathlib import Path

from minisbert.checkpoint.files import note_file
from minisbert.errors import CheckpointError

__all__ = ["refuse_link_out"]


def refuse_link_out(path: Path, folder: Path) -> None:
    """Refuse a file or folder of a checkpoint that really lies elsewhere: such a link could name any file.

    As everything is asked here before it is opened, this is also where it is noted what a checkpoint is read from.

    Parameters
    ----------
    path : pathlib.Path
        The file or folder that is about to be opened; it need not be there.
    folder : pathlib.Path
        The folder that it has to lie in. This one may itself be a link.

    Raises
    ------
    CheckpointError
        If links lead out of the folder, to anywhere but the blobs of the Hugging Face cache that it belongs to.
    """
    note_file(path)
    try:
        real, home = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    except ValueError:  # a name that no file can have: whoever opens it says so
        return
    if any(real.is_relative_to(allowed) for allowed in (home, *_blobs(home))):
        return
    raise CheckpointError(
        f"{path}: is a link that leads out of the checkpoint folder, to {real}; put a copy in the place of the link"
    )


def _blobs(folder: Path) -> list[Path]:
    """Return where the Hugging Face cache keeps the files of a snapshot; none for a folder that is not in one."""
    for snapshot in (folder, *folder.parents):
        if snapshot.parent.name == "snapshots":
            repository = snapshot.parent.parent  # its blobs can be links in turn: to those of the whole cache
            return [Path(os.path.realpath(place / "blobs")) for place in (repository, repository.parent)]
    return []
