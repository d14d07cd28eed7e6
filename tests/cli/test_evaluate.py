"""``minisbert evaluate``: its files, its tables, and what it says of bad ones."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

import minisbert
from minisbert.cli import commands, plots
from minisbert.evaluation import evaluate_retrieval, evaluate_sts
from tests.conftest import DATA
from tests.support.commandline import LONG, MODEL, Ran, Run, check_error

pytestmark = pytest.mark.usefixtures("place")

PAIRS = [
    ("one apple", "an apple", 5),
    ("a pear", "the sea", 0.5),
    ("x, y", 'a "house"', 2),
    ("one", "two", 3),
]
QUERIES = {"q1": "one apple", "q2": "by the sea", "q3": "a house"}
CORPUS = {f"d{i}": text for i, text in enumerate(["one apple", "a pear", "the sea", "a house", "x", "y z"])}
RELEVANT = {"q1": {"d0", "d1"}, "q2": {"d2"}, "q3": {"d5"}}


def write(name: str, header: list[str], rows: list[Any]) -> Path:
    """Write a table in the format of its suffix."""
    path, kind = Path(name), Path(name.removesuffix(".gz")).suffix
    if kind == ".jsonl":
        lines = [json.dumps(dict(zip(header, row, strict=True))) for row in rows]
    else:
        separator = "\t" if kind in (".tsv", ".txt") else ","
        quoted = [[f'"{cell}"'.replace('"a "house""', '"a ""house"""') for cell in row] for row in rows]
        lines = [separator.join(map(str, row)) for row in [header, *(rows if separator == "\t" else quoted)]]
    content = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


@pytest.mark.usefixtures("cached")
def test_a_model_has_a_name(run: Run) -> None:
    source = write("pairs.csv", ["sentence1", "sentence2", "score"], PAIRS)
    folder, name = objects(run("evaluate", "sts", source, "--json", "--model", MODEL, "org/model"))
    assert (name["model"], name["metrics"]) == ("org/model", folder["metrics"])
    check_error(
        run("evaluate", "sts", source, "--model", "org/other"), "'org/other' is not a folder, and not"
    )


def objects(ran: Ran) -> list[dict[str, Any]]:
    assert ran.status == 0
    return [json.loads(line) for line in ran.out.splitlines()]


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.tsv", "pairs.jsonl", "pairs.csv.gz"])
def test_pairs(run: Run, bert: minisbert.SentenceEncoder, name: str) -> None:
    source = write(name, ["sentence1", "sentence2", "score"], PAIRS)
    [found] = objects(run("evaluate", "sts", source, "--json"))
    assert found["metrics"] == pytest.approx(evaluate_sts(bert, *zip(*PAIRS, strict=True)), abs=1e-6)
    assert (found["model"], found["dtype"], found["precision"]) == (str(MODEL), "float32", "float32")
    assert (found["dimension"], found["bytes"], found["texts"]) == (75, 300, 8)
    assert found["encode_seconds"] > 0
    lines = run("evaluate", "sts", source).out.splitlines()
    assert lines[:3] == ["similarity cosine", "precision  float32", "dim        75"]
    spearman, pearson = (f"{found['metrics'][f'{kind}_cosine']:.4f}" for kind in ("spearman", "pearson"))
    assert lines[-2].split() == ["spearman", "pearson", "encode", "s", "score", "s"]
    assert lines[-1].split()[:2] == [spearman, pearson]


def test_all_combinations_are_side_by_side(run: Run) -> None:
    source = write("pairs.csv", ["text1", "label", "text2"], [(a, score, b) for a, b, score in PAIRS])
    argv = ["evaluate", "sts", source, "--model", MODEL, DATA / "tiny-roberta", "--dtype", "float32", "int8"]
    argv += ["--precision", "int8", "ubinary", "--truncate-dim", "16", "30", "--similarity", "cosine", "dot"]
    found = objects(run(*argv, "--json"))
    assert len(found) == 2 * 2 * 2 * 2
    assert {(row["bytes"], row["precision"]) for row in found} == {
        (16, "int8"),
        (30, "int8"),
        (2, "ubinary"),
        (4, "ubinary"),
    }
    assert len(found[0]["metrics"]) == 4
    lines = run(*argv).out.splitlines()
    assert len(lines) == 1 + 1 + 1 + 32  # the number of texts is the same in all; a blank line; a header
    assert lines[2].split()[2:5] == ["similarity", "precision", "dim"]


def collection(kind: str, grades: bool = True) -> list[str | Path]:
    """Write a collection as BEIR has it, and return the options that name it."""
    judged = [(query, document, 1) for query, documents in RELEVANT.items() for document in sorted(documents)]
    judged.append(("q2", "d4", 0))
    columns = ["query-id", "corpus-id", "score"]
    if not grades:
        columns, judged = columns[:2], [row[:2] for row in judged if row[2]]
    return [
        "--queries", write(f"q.{kind}", ["_id", "text"], [*QUERIES.items()]),
        "--corpus", write(f"c.{kind}", ["_id", "title", "text"], [(name, "", text) for name, text in CORPUS.items()]),
        "--qrels", write(f"r.{kind}", columns, judged),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize("grades", [True, False])
def test_a_collection(run: Run, bert: minisbert.SentenceEncoder, kind: str, grades: bool) -> None:
    argv = ["evaluate", "retrieval", *collection(kind, grades)]
    ran = run(*argv, "--json", "--quiet")
    assert ran.err == ""
    [found] = objects(ran)
    assert found["metrics"] == pytest.approx(evaluate_retrieval(bert, QUERIES, CORPUS, RELEVANT))
    lines = run(*argv).out.splitlines()
    assert lines[-2].split()[:5] == ["ndcg@10", "mrr@10", "map@100", "recall@10", "accuracy@1"]
    assert lines[-1].split()[0] == f"{found['metrics']['ndcg@10']:.4f}"


def test_judgements_of_trec_titles_and_ids_of_other_kinds(run: Run, bert: minisbert.SentenceEncoder) -> None:
    queries = write("q.jsonl", ["id", "query"], [(1, "one apple"), (2, "the sea")])
    corpus = write("c.jsonl", ["docid", "contents", "title"], [(1, "apple", "one"), ("2", "the sea", None)])
    Path("qrels.txt").write_text("1 0 1 2\n2\t0\t2\t1\n2 0 1 0\n")
    ran = run(
        "evaluate", "retrieval", "--queries", queries, "--corpus", corpus, "--qrels", "qrels.txt", "--json"
    )
    assert "qrels.txt: grades above 1 count as 1" in ran.err
    [found] = objects(ran)
    assert found["metrics"]["mrr@10"] == 1
    corpus = {"1": "one apple", "2": "the sea"}
    expected = evaluate_retrieval(bert, {"1": "one apple", "2": "the sea"}, corpus, {"1": {"1"}, "2": {"2"}})
    assert found["metrics"] == pytest.approx(expected)


def test_judgements_that_can_not_be_used_are_told(run: Run) -> None:
    argv = collection("tsv")
    with Path("r.tsv").open("a") as file:
        file.write("q9\td1\t1\nq7\td1\t1\nq1\td77\t1\n")
    with Path("q.tsv").open("a") as file:
        file.write("q4\tunjudged\n")
    err = run("evaluate", "retrieval", *argv).err
    assert "r.tsv: left out, as they are for queries that are not there: 'q7' and 1 more\n" in err
    assert "r.tsv: counted as not found, as these documents are not in the corpus: 'd77'\n" in err
    assert "r.tsv: queries left out, as no document is relevant to them: 'q4'\n" in err


def test_a_correlation_that_is_undefined(run: Run) -> None:
    source = write("pairs.csv", ["sentence1", "sentence2", "score"], [(a, b, 1) for a, b, _ in PAIRS])
    ran = run("evaluate", "sts", source)
    assert "a correlation is undefined where all scores, or all similarities, are equal" in ran.err
    assert ran.out.splitlines()[-1].split()[:2] == ["undefined", "undefined"]
    [found] = objects(run("evaluate", "sts", source, "--json"))
    assert found["metrics"] == {"pearson_cosine": None, "spearman_cosine": None}


def test_texts_that_are_cut_are_told(run: Run) -> None:
    source = write("pairs.csv", ["sentence1", "sentence2", "score"], [*PAIRS, (LONG, "x", 1)])
    assert run("evaluate", "sts", source).err == "minisbert: warning: 1 of 10 texts were cut to 32 tokens\n"


def pairs_file(content: str) -> list[str]:
    Path("pairs.csv").write_text(content)
    return ["evaluate", "sts", "pairs.csv"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "pairs.csv: is empty; expected the columns 'sentence1', 'sentence2', 'score'"),
        ("text\none\n", "pairs.csv, line 1: no column 'sentence1' or 'sentence_1'"),
        ("sentence1,sentence2\na,b\n", "line 1: no column 'score' or"),
        ("sentence1,sentence1,sentence2,score\n", "more than one column 'sentence1'"),
        ("sentence1,sentence2,score\na,b,1\n", "pairs.csv: has 1 pairs; expected at least 2"),
        (
            "sentence1,sentence2,score\na,b,1\na,b,high\n",
            "line 3: score is 'high'; expected a finite number",
        ),
        ("sentence1,sentence2,score\na,b,nan\n", "line 2: score is 'nan'; expected a finite number"),
        ("sentence1,sentence2,score\n\na,b\n", "line 3: fields: 2, and in the header: 3"),
        ('sentence1,sentence2,score\n"a,b,1\na,b,2\n', "line 3: not CSV (unexpected end of data)"),
        ('{"sentence1": "a", "sentence2": null, "score": 1}\n', "line 1: sentence2 is None; expected a text"),
        (
            '{"sentence1": "a", "sentence2": "b", "score": true}\n',
            "line 1: score is True; expected a finite number",
        ),
        ('{"sentence1": "a"}\n', "line 1: no column 'sentence2'"),
        ('{"sentence1"\n', "line 1: not JSON"),
    ],
)
def test_bad_pairs_are_told(run: Run, content: str, message: str) -> None:
    check_error(run(*pairs_file(content)), message)


def test_bad_bytes_are_told(run: Run) -> None:
    Path("pairs.csv").write_bytes(b"sentence1,sentence2,score\n\xe9,b,1\nc,d,2\n")
    check_error(
        run("evaluate", "sts", "pairs.csv"), "line 2: not UTF-8 (byte 0xe9); name another with --encoding"
    )
    assert run("evaluate", "sts", "pairs.csv", "--encoding", "latin-1").status == 0
    check_error(run("evaluate", "sts", "missing.csv"), "missing.csv")


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("q.tsv", "q1\tagain\n", "q.tsv, line 5: the id 'q1' is there twice; expected each once"),
        ("c.tsv", "\t\tno id\n", "c.tsv, line 8: id is ''; expected an id"),
        ("r.tsv", "q1\td0\tyes\n", "r.tsv, line 7: grade is 'yes'; expected a finite number"),
        ("r.tsv", "q1\td0\t0\n", "r.tsv, line 7: document 'd0' is judged 0 for query 'q1', and 1 before"),
        ("r.tsv", "q1\n", "r.tsv, line 7: fields: 1, and in the header: 3"),
    ],
)
def test_bad_collections_are_told(run: Run, name: str, line: str, message: str) -> None:
    argv = collection("tsv")
    with Path(name).open("a") as file:
        file.write(line)
    check_error(run("evaluate", "retrieval", *argv), message)


@pytest.mark.parametrize(
    ("qrels", "message"),
    [
        ("", "r.tsv: is empty"),
        ("query-id\tcorpus-id\tscore\n", "r.tsv: no document is relevant to any query of q.tsv"),
        ("query-id\tcorpus-id\tscore\nq1\td0\t0\n", "r.tsv: no document is relevant to any query of q.tsv"),
        ("q1 0 d0 1\nq1 0 d1\n", "r.tsv, line 2: fields: 3, and expected 4: query, 0, document and grade"),
        ("q1\td0\n", "r.tsv, line 1: no column 'query-id' or"),
    ],
)
def test_judgements_that_say_nothing_are_told(run: Run, qrels: str, message: str) -> None:
    argv = collection("tsv")
    Path("r.tsv").write_text(qrels)
    ran = run("evaluate", "retrieval", *argv)
    assert (ran.status, ran.out) == (2, "")
    assert message in ran.err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--truncate-dim", "76"], "truncate_dim is 76; expected 1 to 75"),
        (["--precision", "int4"], "argument --precision: invalid choice: 'int4'"),
        (["--similarity", "cos"], "argument --similarity: invalid choice: 'cos'"),
        (["--columns", "a", "b", "c"], "no column 'a'; found 'sentence1', 'sentence2', 'score'"),
        (["--plot", "plot.jpg"], "plot.jpg: the plot must end in .png, .svg, .pdf"),
        (["--plot", "nowhere/plot.png"], "there is no folder nowhere"),
    ],
)
def test_bad_options_are_told(run: Run, option: list[str], message: str) -> None:
    source = write("pairs.csv", ["sentence1", "sentence2", "score"], PAIRS)
    check_error(run("evaluate", "sts", source, *option), message)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of an older matplotlib, about what it imports
def test_a_plot(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = [
        "evaluate",
        "sts",
        write("pairs.csv", ["sentence1", "sentence2", "score"], PAIRS),
        "--plot",
        "plot.png",
    ]
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        check_error(run(*argv), "plot.png: a plot needs matplotlib; run: pip install 'minisbert[plot]'")
    pytest.importorskip("matplotlib")
    assert run(*argv, "--precision", "float32", "ubinary", "--truncate-dim", "32", "75").status == 0
    assert Path("plot.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in Path().iterdir()} == {"pairs.csv", "plot.png"}


def test_what_a_plot_calls_the_ways() -> None:
    way = {"model": "a/b", "dtype": "int8", "precision": "binary", "dimension": 8}
    assert plots._labels([way, way | {"model": "c", "dimension": 16}]) == ["b, 8d", "c, 16d"]
    assert plots._labels([way]) == ["b"]


@pytest.mark.parametrize("task", ["sts", "retrieval"])
def test_the_help_of_tasks_fits(capsys: pytest.CaptureFixture[str], task: str) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        commands.main(["evaluate", task, "--help"])
    out = capsys.readouterr().out
    assert out.startswith(f"usage: minisbert evaluate {task} ")
    assert max(map(len, out.splitlines())) <= 80
    check_error(
        Ran(commands.main(["evaluate", task, "--no"]), *capsys.readouterr()),
        f"(see minisbert evaluate {task} --help)",
    )


def test_a_name_that_is_wrong_is_told_before_anything_is_computed(run: Run, calls: list[list[str]]) -> None:
    source = write("pairs.csv", ["sentence1", "sentence2", "score"], PAIRS)
    check_error(run("evaluate", "sts", source, "--model", MODEL, "./nowhere"), "nowhere")
    assert calls == []


def test_a_text_is_encoded_once(run: Run, calls: list[list[str]]) -> None:
    source = write(
        "pairs.csv", ["sentence1", "sentence2", "score"], [("a", "b", 1), ("a", "c", 2), ("c", "b", 3)]
    )
    assert (
        run("evaluate", "sts", source, "--precision", "float32", "binary", "--truncate-dim", "8", "9").status
        == 0
    )
    assert calls == [["a", "c", "b"]]
