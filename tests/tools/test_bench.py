"""The benchmark's own arithmetic: what is timed, and what is written of it. Nothing here is timed."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tools.bench import publish, readme, report, stored

TIMES = {"minisbert": [1.0, 2.0, 4.0], "torch": [2.0, 5.0, 8.0], "openvino": [3.0, 3.0, 3.0]}
ENTRY: dict[str, Any] = {"texts": 1200, "tokens": 12.6, "gflop": 100.0, "ceiling": [200.0, 100.0, 50.0]}
ENTRY["peak"] = [400.0, 200.0, 100.0]
RESULT: dict[str, Any] = {
    "date": "2026-01-02",
    "machine": {"processor": "A processor", "threads": 2, "float32 a vector": 16, "python": "3.11.7"},
    "versions": {"minisbert": "0.1.0", "torch": "2.13.0"},
    "models": {
        "a model": {
            "description": "bert, 6 layers",
            "errors": {"texts": 400, **{name: {"largest": 1.5e-7, "mean": 1.25e-8} for name in TIMES}},
            "throughput": {"titles": {**ENTRY, "seconds": TIMES}},
            "avx2": {**ENTRY, "seconds": {name: TIMES[name] for name in ("minisbert", "torch")}},
            "latency": {"one title": {**ENTRY, "turn": 3, "seconds": TIMES}},
            "threads": {
                "threads": 2,
                "seconds": {"one": [4.0, 6.0], "all": [2.0, 4.0]},
                "ceiling": {"one": [100.0, 100.0], "all": [190.0, 200.0]},
            },
            "shares": {
                "paragraphs": {
                    "threads": 1,
                    "seconds": 2.0,
                    "kernels": {"linear": [1.5, 1e11, 0.0]},
                    "ceiling": 100.0,
                }
            },
            "start": {"warm": [0.5, 0.75, 0.25], "empty": [4.0]},
            "memory": {
                "10000": {"loaded": 100.0, "peak": 200.0, "vectors": 15.0},
                "100000": {"loaded": 100.0, "peak": 340.0, "vectors": 150.0},
            },
            "curves": {"counts": [{**ENTRY, "seconds": TIMES}], "lengths": [{**ENTRY, "seconds": TIMES}]},
        }
    },
}


def row(tables: str, start: str) -> list[str]:
    """Return the cells of the only row whose first cell starts so."""
    (line,) = [line for line in tables.split("\n") if line.startswith(f"| {start}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


# --- The tables -------------------------------------------------------------------------------------------


def test_a_ratio_is_taken_within_a_round_and_its_median_is_shown_with_the_range() -> None:
    assert report.ratios(TIMES, "torch") == [2.0, 2.5, 2.0]
    tables = report.markdown(RESULT)
    assert row(tables, "1,200 titles") == [
        "1,200 titles, 13 tokens",
        "600 (300–1,200)",
        "2.00 (2.00–2.50)",
        "1.50 (0.75–3.00)",
        "50 (50–50)",
        "25 (25–25)",
    ]
    assert row(tables, "at the peak: 1,200 titles")[1:] == ["8.00 (8.00–10.00)", "6.00 (3.00–12.00)"]
    assert row(tables, "1,200 of all kinds, AVX2")[2:4] == ["2.00 (2.00–2.50)", ""]


def test_one_text_alone_has_percentiles_and_the_ratio_of_each_turns_medians() -> None:
    tables = report.markdown(RESULT)
    p99 = np.percentile(TIMES["torch"], 99) * 1000
    assert row(tables, "one title alone, 13 tokens: p50")[1:] == ["2000.00", "5000.00", "3000.00"]
    assert row(tables, "one title alone, 13 tokens: p99")[2] == f"{p99:.2f}"
    assert row(tables, "one title alone, 13 tokens: ÷")[1:] == ["1", "2.50", "1.50"]
    assert row(tables, "largest error")[1:] == ["1.5e-07"] * 3


def test_memory_grows_by_the_vectors_and_by_what_is_beyond_them() -> None:
    tables = report.markdown(RESULT)
    assert row(tables, "peak memory, 100,000 texts")[1] == "340, of which vectors 150"
    assert row(tables, "growth")[1] == "140; 5"
    assert row(tables, "2 threads")[1] == "1.75 (1.50–2.00); 1.95 (1.90–2.00)"
    assert row(tables, "a new process")[1] == "0.50 (0.25–0.75)"


def test_what_was_not_measured_is_not_shown() -> None:
    result = copy.deepcopy(RESULT)
    model = result["models"]["a model"]
    for part in ("throughput", "avx2", "latency", "threads", "shares", "start", "memory", "curves"):
        del model[part]
    tables = report.markdown(result)
    assert [line.split("|")[1].strip() for line in tables.split("\n") if line.startswith("|")] == [
        "",
        "---",
        "largest error of a component, 400 texts",
        "mean error of a component, 400 texts",
    ]
    assert tables.endswith("In brackets: the lowest and the highest of the rounds.")


def test_the_tables_can_be_made_from_the_stored_result() -> None:
    assert report.markdown(json.loads(json.dumps(RESULT))) == report.markdown(RESULT)


def test_rounds_of_several_runs_are_joined(tmp_path: Path) -> None:
    files = [tmp_path / "first.json", tmp_path / "second.json"]
    for file in files:
        file.write_text(json.dumps(RESULT))
    model = stored.merged(files)["models"]["a model"]
    entry, first = model["throughput"]["titles"], RESULT["models"]["a model"]
    assert entry["seconds"] == {name: taken + taken for name, taken in TIMES.items()}
    assert (entry["ceiling"], entry["texts"]) == (ENTRY["ceiling"] + ENTRY["ceiling"], 1200)
    assert model["start"]["warm"] == first["start"]["warm"] * 2
    assert (model["curves"], model["memory"]) == (first["curves"], first["memory"])
    assert model["shares"] == first["shares"]
    assert row(report.markdown(stored.merged(files)), "1,200 titles")[2] == "2.00 (2.00–2.50)"


@pytest.mark.parametrize("difference", [{"gflop": 99.0}, {"seconds": {"minisbert": [1.0]}}])
def test_rounds_of_different_texts_or_engines_are_not_joined(
    tmp_path: Path, difference: dict[str, Any]
) -> None:
    other = copy.deepcopy(RESULT)
    other["models"]["a model"]["throughput"]["titles"] |= difference
    files = [tmp_path / "first.json", tmp_path / "second.json"]
    for file, result in zip(files, (RESULT, other), strict=True):
        file.write_text(json.dumps(result))
    with pytest.raises(SystemExit, match="different texts or engines"):
        stored.merged(files)


def test_runs_of_different_machines_are_not_joined(tmp_path: Path) -> None:
    other = {**RESULT, "machine": {**RESULT["machine"], "threads": 4}}
    files = [tmp_path / "first.json", tmp_path / "second.json"]
    for file, result in zip(files, (RESULT, other), strict=True):
        file.write_text(json.dumps(result))
    with pytest.raises(SystemExit, match="different processors or numbers of threads"):
        stored.merged(files)


@pytest.mark.parametrize("content", [None, "no JSON", "{}", "[1]"])
def test_a_file_that_holds_no_result_is_refused_by_name(tmp_path: Path, content: str | None) -> None:
    good, bad = tmp_path / "run.json", tmp_path / "other.json"
    good.write_text(json.dumps(RESULT))
    if content is not None:
        bad.write_text(content)
    with pytest.raises(SystemExit, match=r"--from .*other\.json: expected what --json wrote"):
        stored.merged([good, bad])


# --- The project's pages ----------------------------------------------------------------------------------

OTHER = {**RESULT, "machine": {**RESULT["machine"], "processor": "Another one"}}
TRANSCRIPT: dict[str, Any] = {
    "transcribed": "from a table",
    "date": "2026-01-01",
    "machine": {**RESULT["machine"], "processor": "An old one"},
    "models": {
        "a model": {
            "throughput": {"titles": {"tokens": 13, "speedups": {"torch": [4.54, 4.48, 4.76]}}},
            "latency": {"one title": {"tokens": 14, "speedups": {"openvino": [1.93, 1.31, 2.03]}}},
        }
    },
}
SIZES: dict[str, Any] = {
    "date": "2026-01-02",
    "python": "3.11.7",
    "system": "Linux x86_64",
    "stacks": {"minisbert": {"bytes": 330_000_000}, "torch": {"bytes": 1_400_000_000}},
}


def store(folder: Path, **results: dict[str, Any]) -> list[Path]:
    for name, result in results.items():
        (folder / f"{name.replace('_', '-')}.json").write_text(json.dumps(result))
    return sorted(folder.glob("*.json"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder with the two pages, whose blocks are empty."""
    (tmp_path / "tools" / "results").mkdir(parents=True)
    for page, names in {
        "README.md": ["speed"],
        "tools/results/README.md": ["benchmark, A processor", "benchmark, Another one"],
    }.items():
        blocks = (f"<!-- {name}: start -->\n\nold\n\n<!-- {name}: end -->\n" for name in names)
        (tmp_path / page).write_text("# A page\n\n" + "\n".join(blocks), encoding="utf-8")
    return tmp_path


def test_runs_of_one_processor_are_joined_and_others_are_told_apart_by_the_names_of_their_files(
    tmp_path: Path,
) -> None:
    files = store(tmp_path, zen5=OTHER, emerald_rapids=RESULT, emerald_rapids_curves=RESULT, sizes=SIZES)
    runs = stored.by_processor(files)
    assert {name: run["machine"]["processor"] for name, run in runs.items()} == {
        "Emerald Rapids": "A processor",
        "Zen 5": "Another one",
    }
    entry = runs["Emerald Rapids"]["models"]["a model"]["throughput"]["titles"]
    assert len(entry["seconds"]["torch"]) == 2 * len(TIMES["torch"])
    assert stored.sizes(files) == SIZES
    assert stored.sizes(files[:1]) is None
    with pytest.raises(SystemExit, match="none of the files is of a run"):
        stored.by_processor([tmp_path / "sizes.json"])


def test_a_transcript_has_no_rounds_to_join(tmp_path: Path) -> None:
    files = store(tmp_path, old=TRANSCRIPT, new={**RESULT, "machine": TRANSCRIPT["machine"]})
    with pytest.raises(SystemExit, match=r"old\.json: a transcript has no rounds to join; delete it"):
        stored.by_processor(files)


def test_the_speed_table_has_a_line_for_each_workload_and_a_column_for_each_processor(tmp_path: Path) -> None:
    table = publish.speed_table(stored.by_processor(store(tmp_path, new=RESULT, old=TRANSCRIPT)))
    assert row(table, "speed-up over torch")[1:] == ["New", "Old"]
    assert row(table, "many short texts, 13 tokens")[1:] == ["2.0× · 1.5×", "4.5×"]
    assert row(table, "one short text, 13 tokens")[1:] == ["2.5× · 1.5×", "1.9×"]
    assert table.endswith("New: A processor, 2026-01-02; Old: An old one, 2026-01-01.")


def test_all_pages_and_plots_are_made_from_the_stored_files(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="the plots are drawn by matplotlib, which is not installed")
    from tools.bench import run as bench

    results = root / "tools" / "results"
    files = store(results, mine=RESULT, other=OTHER, old=TRANSCRIPT, sizes=SIZES)
    monkeypatch.setattr("tools.bench.readme.ROOT", root)
    monkeypatch.setattr(sys, "argv", ["bench", "--from", *map(str, files), "--readme"])
    made = []
    for _ in range(2):
        bench.main()
        written = [root / "README.md", *(results / name for name in ("README.md", "speed.svg", "size.svg"))]
        assert capsys.readouterr().err.splitlines() == [f"written: {path}" for path in written]
        made.append([path.read_bytes() for path in written])
    assert made[0] == made[1]
    assert publish.speed_table(stored.by_processor(files)) in (root / "README.md").read_text("utf-8")
    page = (results / "README.md").read_text("utf-8")
    assert report.markdown(RESULT) in page
    assert report.markdown(OTHER) in page
    assert "old" not in page
    assert all(b"<svg" in svg and b"<dc:date>" not in svg for svg in made[0][2:])


def test_nothing_is_written_if_markers_are_missing(root: Path, tmp_path: Path) -> None:
    files = store(root / "tools" / "results", new={**RESULT, "machine": TRANSCRIPT["machine"]})
    before = (root / "README.md").read_bytes()
    with pytest.raises(ValueError, match="<!-- benchmark, An old one: start -->"):
        publish.publish(files, root)
    assert (root / "README.md").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--readme"], "--readme needs --from"), (["--plot", "x.png"], "--plot needs --curves")],
)
def test_options_that_need_another_are_refused(
    options: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tools.bench import run as bench

    monkeypatch.setattr(sys, "argv", ["bench", *options])
    with pytest.raises(SystemExit):
        bench.main()
    assert said in capsys.readouterr().err


def test_several_processors_are_not_joined_into_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tools.bench import run as bench

    files = store(tmp_path, mine=RESULT, other=OTHER)
    monkeypatch.setattr(
        sys, "argv", ["bench", "--from", *map(str, files), "--json", str(tmp_path / "all.json")]
    )
    with pytest.raises(SystemExit):
        bench.main()
    assert "--json and --plot are for one processor, and these are of Mine, Other" in capsys.readouterr().err


def test_the_stored_results_of_this_repository_can_be_published() -> None:
    files = sorted(readme.RESULTS.parent.glob("*.json"))
    table = publish.speed_table(stored.by_processor(files))
    assert readme.with_block(readme.README.read_text("utf-8"), "speed", table) == readme.README.read_text(
        "utf-8"
    )


def test_a_size_is_of_all_files_but_those_of_the_environment(tmp_path: Path) -> None:
    from tools.bench import size

    for name in ("numpy/core/a.so", "numpy-2.0.dist-info/RECORD", "one.py", "pipeline/b.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    for name in ("pip/c.py", "pip-25.1.dist-info/RECORD", "setuptools/d.py", "distutils-precedence.pth"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    assert size.installed(tmp_path) == 20
