"""Tables that are written into the README, between two markers each."""

from __future__ import annotations

import argparse
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
    assert parser.parse_args(["--readme"]).readme == readme.README
    readme.check(parser, parser.parse_args([]).readme, "speed")
    readme.check(parser, parser.parse_args(["--readme", str(page)]).readme, "speed")
    for path, name in ((page, "size"), (page.with_name("none"), "speed")):
        with pytest.raises(SystemExit):
            readme.check(parser, path, name)
        assert f"--readme {path}: " in capsys.readouterr().err
