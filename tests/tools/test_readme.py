"""Tables that are written between two markers each, and what the README says of the files and commands here."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from tools.bench import readme

START, END = "<!-- speed: start -->", "<!-- speed: end -->"
PAGE = f"# Caf\u00e9\n\n{START}\n\n| old |\n\n{END}\n\nMore | text |.\n"
WITHOUT = ("nothing", START, END, f"{END} {START}", PAGE + PAGE, PAGE.replace("speed", "size"))


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "README.md"
    path.write_text(PAGE, encoding="utf-8")
    return path


def test_the_block_between_the_markers_is_replaced_and_nothing_else(page: Path) -> None:
    for _ in range(2):
        readme.rewrite(page, "speed", "| new |\n")
        assert page.read_text(encoding="utf-8") == PAGE.replace("| old |", "| new |")


def test_other_blocks_stay(page: Path) -> None:
    page.write_text(PAGE + PAGE.replace("speed", "size"), encoding="utf-8")
    readme.rewrite(page, "size", "| new |")
    assert page.read_text(encoding="utf-8") == PAGE + PAGE.replace("speed", "size").replace(
        "| old |", "| new |"
    )


@pytest.mark.parametrize("text", WITHOUT)
def test_markers_that_are_not_there_once_in_order_are_refused(page: Path, text: str) -> None:
    page.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=f"{START} and {END}, once each and in this order"):
        readme.rewrite(page, "speed", "block")
    assert page.read_text(encoding="utf-8") == text


def test_missing_markers_and_files_are_known_before_anything_is_measured(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    readme.add_option(parser)
    assert parser.parse_args(["--readme"]).readme == readme.RESULTS
    readme.check(parser, parser.parse_args([]).readme, "speed")
    readme.check(parser, parser.parse_args(["--readme", str(page)]).readme, "speed")
    for path, name in ((page, "size"), (page.with_name("none"), "speed")):
        with pytest.raises(SystemExit):
            readme.check(parser, path, name)
        assert f"--readme {path}: " in capsys.readouterr().err


# --- What the README says ---------------------------------------------------------------------------------

PATH = re.compile(r"(?:minisbert|tests|tools|\.ci|\.github)/[\w./*-]*")


def pages() -> list[Path]:
    contributing = readme.ROOT / ".github" / "CONTRIBUTING.md"
    return [readme.README, readme.RESULTS, *([contributing] if contributing.exists() else [])]


def test_every_path_that_a_page_names_exists() -> None:
    for page in pages():
        named = {found.rstrip(".") for found in PATH.findall(page.read_text(encoding="utf-8"))}
        assert named
        missing = [path for path in named if not [*readme.ROOT.glob(path)]]
        assert not missing, f"{page} names {missing}"


def test_every_link_within_the_repository_leads_to_a_file() -> None:
    for page in pages():
        links = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
        missing = [link for link in links if not (page.parent / link).exists()]
        assert not missing, f"{page} links to {missing}"


def test_every_heading_that_the_readme_links_to_is_there() -> None:
    text = readme.README.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors


def test_every_command_that_a_page_names_is_one_of_dev_py() -> None:
    known = set(
        re.findall(r'add_parser\(\s*"([\w-]+)"', (readme.ROOT / "tools" / "dev.py").read_text("utf-8"))
    )
    for page in pages():
        named = set(re.findall(r"python tools/dev\.py ([\w-]+)", page.read_text(encoding="utf-8")))
        assert named
        assert named <= known, f"{page} names {named - known}"


def test_the_readme_stays_short() -> None:
    assert len(readme.README.read_text(encoding="utf-8").splitlines()) <= 260
