"""The other commands of ``minisbert``, its help, and what it shows on a terminal."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub.constants import HF_HUB_CACHE

import minisbert
from minisbert.cli import commands, options
from tests.conftest import BATCH_TOLERANCE, DATA, edit_json
from tests.support.commandline import (
    LONG,
    MODEL,
    Encoder,
    Run,
    check_error,
    process,
    small_chunks,
    write_input,
)

pytestmark = pytest.mark.usefixtures("place")

# --- similarity, search, info --------------------------------------------------------------------------------


def test_similarity(run: Run, bert: Encoder) -> None:
    texts = ["-1", "x" * 100, "a\tb\x1b[31m\n c", "", "猫" * 40]
    vectors = bert.encode(texts, truncation="silent")
    scores = bert.similarity(vectors, vectors)
    facts = {"texts": texts, "similarity_fn_name": "cosine", "similarities": scores.tolist()}
    assert json.loads(run("similarity", "--json", "--", *texts).out) == facts
    shown = ["-1", "x" * 36 + "…", "a b[31m c", "", "猫" * 18 + "…"]  # 37 columns are left for the text
    heading, *lines = run("similarity", "--", *texts).out.splitlines()
    assert heading == "        1       2       3       4       5"
    for i, row in enumerate(scores):
        assert lines[i] == f"{i + 1}" + "".join(f"{score:8.4f}" for score in row) + f"  {shown[i]}"


def ranked(ran: Run) -> list[dict[str, Any]]:
    """Read what search and rerank print as JSON."""
    return [json.loads(line) for line in ran.out.splitlines()]


CORPUS = ["one apple", "", "two apples\x1b[2J and a pear", "猫" * 60, "   ", "a green apple", "x" * 200]


@pytest.mark.parametrize("kind", ["txt", "csv"])
@pytest.mark.parametrize("k", [1, 3, 100])
@small_chunks
def test_search_finds_the_closest(run: Run, bert: Encoder, kind: str, k: int) -> None:
    argv = ["search", "an apple", write_input(kind, CORPUS), "-k", str(k), "--truncation", "silent"]
    texts = {i + 1 + (kind == "csv"): text for i, text in enumerate(CORPUS) if text.strip()}
    vectors = bert.encode(list(texts.values()), truncation="silent")
    scores = bert.similarity(bert.encode(["an apple"]), vectors)[0].tolist()
    best = sorted(zip(scores, texts, strict=True), reverse=True)[:k]
    found = ranked(run(*argv, "--json"))
    assert found == [
        {"rank": i, "score": pytest.approx(score, abs=BATCH_TOLERANCE), "line": line, "text": texts[line]}
        | ({"id": str(line - 2)} if kind == "csv" else {})
        for i, (score, line) in enumerate(best, 1)
    ]
    # Of the 80 columns of the table, 60 are left for the text.
    shown = {CORPUS[2]: "two apples[2J and a pear", CORPUS[3]: "猫" * 29 + "…", CORPUS[6]: "x" * 59 + "…"}
    heading, *lines = run(*argv).out.splitlines()
    assert heading == "rank   score  line  text"
    for row, line in zip(found, lines, strict=True):
        text = shown.get(row["text"], row["text"])
        assert line == f"{row['rank']:4}  {row['score']:.4f}  {row['line']:4}  {text}"


@small_chunks
def test_equal_scores_keep_the_order_of_the_lines(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Encoder, "similarity", lambda encoder, a, b: np.ones((len(a), len(b))))
    source = write_input("txt", ["one", "two", "three", "four", "five"])
    assert [row["line"] for row in ranked(run("search", "x", source, "-k", "3", "--json"))] == [1, 2, 3]


def test_search_uses_the_prompts_and_the_similarity_of_the_model(run: Run, prompted: Path) -> None:
    edit_json(prompted / "config_sentence_transformers.json", similarity_fn_name="euclidean")
    argv = ["search", "an apple", write_input("txt", ["a pear"]), "--model", prompted, "--json"]
    (found,) = ranked(run(*argv))
    query, document = minisbert.load(prompted).encode(["what is an apple", "this is a pear"], prompt="")
    assert found["score"] == pytest.approx(-np.linalg.norm(query - document), abs=1e-6)


def test_search_in_nothing_says_so(run: Run) -> None:
    source = write_input("txt", ["", "  "])
    said = "minisbert: warning: texts.txt: there is no text to search\n"
    assert run("search", "x", source) == (0, "", said)
    assert run("search", "x", source, "--json") == (0, "", said)


@pytest.mark.parametrize("k", [1, 100])
@small_chunks
def test_rerank_sorts_by_the_scores_of_a_cross_encoder(run: Run, k: int) -> None:
    argv = ["rerank", "an apple", write_input("txt", CORPUS), "-k", str(k), "--truncation", "silent"]
    texts = {line: text for line, text in enumerate(CORPUS, 1) if text.strip()}
    model = minisbert.load_cross_encoder(DATA / "cross-bert")
    best = model.rank("an apple", list(texts.values()), top_k=k, truncation="silent")
    found = ranked(run(*argv, "--json"))
    assert [row["line"] for row in found] == [list(texts)[result["corpus_id"]] for result in best]
    assert [row["rank"] for row in found] == list(range(1, len(best) + 1))
    for row, result in zip(found, best, strict=True):
        assert row["text"] == texts[row["line"]]
        assert row["score"] == pytest.approx(result["score"], abs=BATCH_TOLERANCE)
    heading, *lines = run(*argv).out.splitlines()
    assert heading == "rank   score  line  text"
    assert len(lines) == len(found)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "txt"])
def test_what_search_finds_is_reranked(run: Run, kind: str) -> None:
    """In a pipe: lines are those of the file that was searched, whose other fields are kept."""
    source = write_input(kind, CORPUS)
    silent = ["--truncation", "silent"]
    found = ranked(run("search", "an apple", source, "-k", "3", "--json", *silent))
    with process("search", "an apple", source, "-k", "3", "--json", *silent) as searching:
        argv = ["rerank", "a pear", "-", "--json", *silent]
        with process(*argv, stdin=searching.stdout) as reranking:
            out, err = reranking.communicate()
    assert (reranking.returncode, err) == (0, b"")
    reranked = [json.loads(line) for line in out.decode().splitlines()]
    model = minisbert.load_cross_encoder(DATA / "cross-bert")
    best = model.rank("a pear", [row["text"] for row in found], truncation="silent")
    assert [row["text"] for row in reranked] == [found[result["corpus_id"]]["text"] for result in best]
    for rank, (row, result) in enumerate(zip(reranked, best, strict=True), 1):
        before = found[result["corpus_id"]]
        assert row == before | {
            "rank": rank,
            "score": pytest.approx(result["score"], abs=BATCH_TOLERANCE),
            "previous_rank": before["rank"],
            "previous_score": pytest.approx(before["score"], abs=BATCH_TOLERANCE),
        }
        assert CORPUS[row["line"] - 1 - (kind == "csv")] == row["text"]
        if kind != "txt":
            assert int(row["id"]) == CORPUS.index(row["text"])


def test_the_lines_of_what_is_reranked_are_in_the_table_too(run: Run) -> None:
    Path("found.jsonl").write_text('{"line": 123456, "text": "one"}\n{"line": "no number", "text": "two"}\n')
    lines = run("rerank", "x", "found.jsonl").out.splitlines()
    assert sorted(line.split()[2:] for line in lines[1:]) == [["123456", "one"], ["2", "two"]]
    assert [row["line"] for row in ranked(run("rerank", "one", "found.jsonl", "--json"))] == [123456, 2]


def test_rerank_says_what_is_wrong(run: Run) -> None:
    source = write_input("txt", ["one", LONG])
    said = "minisbert: warning: too long, cut to 32 tokens: texts.txt, line 2\n"
    assert run("rerank", "x", source, "--json").err == said
    check_error(
        run("rerank", "x", source, "--truncation", "error"), "texts.txt, line 2: 164 tokens, more than 32"
    )
    check_error(run("rerank", "x", source, "--model", MODEL), "load it with minisbert.load")
    check_error(run("search", "x", source, "--model", DATA / "cross-bert"), "minisbert.load_cross_encoder")
    check_error(run("rerank", "x", source, "--model", DATA / "cross-labels"), "one label, and this one has 3")


def test_info(run: Run, prompted: Path, bert: Encoder) -> None:
    facts = json.loads(run("info", "--json", "--threads", "3").out)
    assert facts["model"] == facts["folder"] == str(MODEL)
    assert (facts["architecture"], facts["layers"], facts["width"], facts["heads"]) == ("bert", 3, 75, 3)
    assert (facts["modules"], facts["dimension"]) == (["Transformer", "Pooling (mean)", "Normalize"], 75)
    assert (facts["max_seq_length"], facts["max_positions"], facts["vocabulary"]) == (32, 64, 544)
    assert (facts["backend"], facts["threads"], facts["dtype"]) == (bert.backend, 3, "float32")
    assert (facts["parameters"], facts["cache"]) == (bert.num_parameters, HF_HUB_CACHE)
    assert facts["prompts"] == {"query": "", "document": ""}
    assert facts["versions"].items() >= {"numpy": np.__version__, "minisbert": minisbert.__version__}.items()
    out = run("info", "--model", prompted).out
    assert f"\nparameters      {bert.num_parameters:,}\n" in out
    assert "\nmodules         Transformer -> Pooling (mean) -> Normalize\n" in out
    assert "\nprompts         query: what is \n                document: this is \n" in out
    assert "\ndefault prompt  none\n" in run("info").out


# --- help, version, model, terminal --------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["", *commands.COMMANDS])
def test_help_fits_and_its_examples_are_right(capsys: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        commands.main([*command.split(), "--help"])
    out, err = capsys.readouterr()
    assert err == ""
    assert max(map(len, out.splitlines())) <= 80
    examples = re.findall(r"^  (.*)", out.split("examples:\n")[1].split("\n\n")[0], re.MULTILINE)
    assert len(examples) >= 2
    for example in examples:
        ours = re.findall(r"(?:^| )minisbert ([^|]*)", example)
        parsed = [options.build_parser().parse_args(shlex.split(argv)).command for argv in ours]
        assert set(parsed) & set([command] if command else commands.COMMANDS)


def test_as_a_module_and_without_what_is_not_needed() -> None:
    with process("--version", env={"PYTHONPROFILEIMPORTTIME": "1"}) as running:
        out, err = running.communicate()
    assert (running.returncode, out.decode()) == (0, f"minisbert {minisbert.__version__}{os.linesep}")
    imported = {line.split("|")[-1].strip() for line in err.decode().splitlines()}
    assert "minisbert.cli.commands" in imported
    assert not imported & {"pyarrow", "huggingface_hub", "tqdm", "numba"}


@pytest.mark.parametrize("variable", ["", "from/variable"])
def test_which_model(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv("MINISBERT_MODEL", variable)
    monkeypatch.setenv("MINISBERT_CROSS_ENCODER", variable)
    parse = options.build_parser().parse_args
    assert parse(["rerank", "q", "f"]).model == (variable or "cross-encoder/ms-marco-MiniLM-L6-v2")
    assert parse(["info"]).model == (variable or "sentence-transformers/all-MiniLM-L6-v2")
    assert parse(["info", "--model", "from/option"]).model == "from/option"
