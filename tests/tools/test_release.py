"""The check before a release: the version, the tag and the change log, in folders made for it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tools import release

LOG = "# A page\n\n## Changes\n\n### Unreleased\n{}\n### {}\n\n- Something.\n\n### 0.1.0\n\n- The first.\n\n## After\n"


def git(root: Path, *arguments: str) -> None:
    who = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.org"]
    subprocess.run(["git", "-C", str(root), *who, *arguments], check=True, capture_output=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    if not shutil.which("git"):
        pytest.skip("the check reads tags by git, which is not installed")
    (tmp_path / "minisbert").mkdir()
    write(tmp_path)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "-m", "A commit")
    return tmp_path


def write(root: Path, version: str = "0.2.0", newest: str = "0.2.0", unreleased: str = "") -> None:
    (root / "minisbert" / "__init__.py").write_text(f'"""A package."""\n\n__version__ = "{version}"\n')
    (root / "README.md").write_text(LOG.format(unreleased, newest))


@pytest.mark.parametrize("tag", [None, "v0.2.0", "0.2.0", "not-a-version"])
def test_a_version_a_tag_and_a_change_log_that_agree_are_fit(
    folder: Path, tag: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if tag:
        git(folder, "tag", tag)
    assert release.main(folder) == 0
    assert capsys.readouterr().out.startswith("0.2.0: ")


def test_entries_may_be_unreleased_until_there_is_a_tag(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, unreleased="\n- A novelty.\n")
    assert release.main(folder) == 0
    git(folder, "tag", "v0.2.0")
    assert release.main(folder) == 1
    assert "still has entries under Unreleased: move them below ### 0.2.0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("version", "newest", "tag", "said"),
    [
        (
            "0.3.0",
            "0.2.0",
            None,
            "__version__ is 0.3.0, and the newest release in README.md's change log is 0.2.0",
        ),
        ("0.2.0", "0.3.0", "v0.2.0", "the newest release in README.md's change log is 0.3.0"),
        ("0.2.0", "0.2.0", "v0.3.0", "the tag v0.3.0 is at this commit, and minisbert.__version__ is 0.2.0"),
    ],
)
def test_what_differs_is_said_and_what_to_do(
    folder: Path, version: str, newest: str, tag: str | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, version, newest)
    if tag:
        git(folder, "tag", tag)
    assert release.main(folder) == 1
    (problem,) = capsys.readouterr().err.splitlines()
    assert said in problem


def test_a_page_without_a_change_log_is_no_release(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "README.md").write_text("# A page\n")
    assert release.main(folder) == 1
    assert "has no heading ### Unreleased" in capsys.readouterr().err


def test_a_folder_that_is_no_repository_has_no_tags(tmp_path: Path) -> None:
    assert release.tags_at(tmp_path / "none") == []


def test_this_repository_is_fit_but_for_its_tag() -> None:
    root = Path(release.__file__).parents[1]
    assert release.problems(release.version_in(root), [], release.changes_in(root)) == []
