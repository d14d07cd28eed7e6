"""Is this commit fit to be released? The version, the tag and the change log have to say the same.

    python tools/dev.py release

Without a tag at this commit the version has to be that of the newest release in the change log. With one, the tag has
to name that version as well, and nothing may be left under Unreleased.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

__all__ = ["main", "problems"]

UNRELEASED = "Unreleased"


def main(root: Path) -> int:
    """Say what differs and what to do; return 1 if anything does."""
    found = problems(version_in(root), tags_at(root), changes_in(root))
    for problem in found:
        print(f"release: {problem}", file=sys.stderr)
    if not found:
        tagged = ", ".join(tags_at(root)) or "no tag at this commit"
        print(f"{version_in(root)}: minisbert/__init__.py and the change log agree; {tagged}.")
    return 1 if found else 0


def problems(version: str, tags: list[str], changes: dict[str, str]) -> list[str]:
    """Compare the version, the tags of a commit, and the change log's sections by their headings."""
    newest = next((heading for heading in changes if heading != UNRELEASED), "none")
    found = []
    if not version:
        found.append('minisbert/__init__.py has no line __version__ = "..."; write one')
    elif newest != version:
        found.append(
            f"minisbert.__version__ is {version}, and the newest release in README.md's change log is {newest}: "
            f"rename its Unreleased to the new number, put an empty one above, and set __version__ to that number"
        )
    if UNRELEASED not in changes:
        found.append(
            f"README.md's change log has no heading ### {UNRELEASED}; put it above the newest release"
        )
    numbered = [tag for tag in tags if re.fullmatch(r"v?\d+(\.\d+)+\w*", tag)]
    for tag in numbered:
        if tag.removeprefix("v") != version:
            found.append(
                f"the tag {tag} is at this commit, and minisbert.__version__ is {version}: delete the tag "
                f"(git tag -d {tag}), or set __version__ and tag that commit"
            )
    if numbered and changes.get(UNRELEASED, "").strip():
        found.append(
            f"{numbered[0]} is at this commit, and the change log still has entries under {UNRELEASED}: "
            f"move them below ### {version}, commit, and tag that commit"
        )
    return found


def version_in(root: Path) -> str:
    """Return `minisbert.__version__`, read as the build reads it; nothing if there is none."""
    text = (root / "minisbert" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    return found[1] if found else ""


def changes_in(root: Path) -> dict[str, str]:
    """Return the sections of the README's change log, newest first."""
    text = (root / "README.md").read_text(encoding="utf-8")
    _, _, log = text.partition("\n## Changes\n")
    log = re.split(r"^## ", log, maxsplit=1, flags=re.MULTILINE)[0]
    _, *parts = re.split(r"^### (.+)$", log, flags=re.MULTILINE)
    return {heading.strip(): text for heading, text in zip(parts[::2], parts[1::2], strict=True)}


def tags_at(root: Path) -> list[str]:
    """Return the tags of the commit that is checked out; none where there is no git or no repository."""
    command = ["git", "-C", str(root), "tag", "--points-at", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return []
    return done.stdout.split() if done.returncode == 0 else []
