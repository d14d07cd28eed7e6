"""What ``minisbert evaluate`` compares with: pairs of sentences with scores, and documents judged for queries."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from minisbert.cli.report import tell
from minisbert.cli.streams import TextFileError
from minisbert.cli.tables import Row, read_rows

__all__ = ["Collection", "Pairs", "read_collection", "read_pairs"]

PAIRS = {
    "sentence1": ("sentence1", "sentence_1", "sentence_A", "text1"),
    "sentence2": ("sentence2", "sentence_2", "sentence_B", "text2"),
    "score": ("score", "similarity_score", "relatedness_score", "similarity", "label"),
}
QUERIES = {"id": ("_id", "id", "qid", "query-id", "query_id"), "text": ("text", "query")}
CORPUS = {"id": ("_id", "id", "docid", "doc_id", "corpus-id", "pid"), "text": ("text", "contents", "passage")}
TITLE = {"title": ("title",)}
QRELS = {
    "query": ("query-id", "query_id", "qid", "query"),
    "document": ("corpus-id", "corpus_id", "docid", "doc_id", "pid"),
}
GRADE = {"grade": ("score", "relevance", "grade", "label")}


class Pairs(NamedTuple):
    """Sentences of each pair, and what people say of it."""

    sentences1: list[str]
    sentences2: list[str]
    scores: list[float]


class Collection(NamedTuple):
    """Texts by their ids, and for the id of a query the ids of the documents that are relevant."""

    queries: dict[str, str]
    corpus: dict[str, str]
    relevant: dict[str, set[str]]


def read_pairs(path: str, names: list[str] | None, encoding: str | None) -> Pairs:
    """Read pairs of sentences; `names` are those of the three columns, if they are not the usual ones."""
    columns = PAIRS if names is None else {wanted: (name,) for wanted, name in zip(PAIRS, names, strict=True)}
    found = Pairs([], [], [])
    for row in read_rows(path, columns, encoding):
        found.sentences1.append(_text(path, row, "sentence1"))
        found.sentences2.append(_text(path, row, "sentence2"))
        found.scores.append(_number(path, row, "score"))
    if len(found.scores) < 2:
        raise TextFileError(
            f"{path}: has {len(found.scores)} pairs; expected at least 2, which a correlation needs"
        )
    return found


def read_collection(queries: str, corpus: str, qrels: str, encoding: str | None) -> Collection:
    """Read queries, documents and judgements; say which of the latter can't be used."""
    asked = _by_id(queries, read_rows(queries, QUERIES, encoding))
    documents = _by_id(corpus, read_rows(corpus, CORPUS, encoding, TITLE))
    relevant: dict[str, set[str]] = {}
    grades: dict[tuple[str, str], float] = {}
    for row in read_rows(qrels, QRELS, encoding, GRADE, bare=(*QRELS, *GRADE)):
        pair = _id(qrels, row, "query"), _id(qrels, row, "document")
        grade = _number(qrels, row, "grade") if "grade" in row.values else 1.0
        if grades.setdefault(pair, grade) != grade:
            problem = (
                f"document {pair[1]!r} is judged {grade:g} for query {pair[0]!r}, and {grades[pair]:g} before"
            )
            raise TextFileError(f"{qrels}, line {row.line}: {problem}")
        if grade > 0:
            relevant.setdefault(pair[0], set()).add(pair[1])
    _tell_of_unused(qrels, asked, documents, grades)
    if not asked.keys() & relevant.keys():
        raise TextFileError(
            f"{qrels}: no document is relevant to any query of {queries}; expected their ids, and grades above 0"
        )
    return Collection(asked, documents, relevant)


def _tell_of_unused(
    qrels: str, queries: dict[str, str], corpus: dict[str, str], grades: dict[tuple[str, str], float]
) -> None:
    """Say what the metrics, which are the reference's, make of judgements that are not as they expect."""
    relevant = [pair for pair, grade in grades.items() if grade > 0]
    unknown = {query for query, _ in grades} - queries.keys()
    lost = {document for query, document in relevant if query in queries} - corpus.keys()
    idle = queries.keys() - {query for query, _ in relevant}
    told = {
        "left out, as they are for queries that are not there": unknown,
        "counted as not found, as these documents are not in the corpus": lost,
        "queries left out, as no document is relevant to them": idle,
    }
    for what, ids in told.items():
        if ids:
            more = f" and {len(ids) - 1:,} more" if len(ids) > 1 else ""
            tell(f"warning: {qrels}: {what}: {min(ids)!r}{more}")
    if any(grade > 1 for grade in grades.values()):
        tell(f"warning: {qrels}: grades above 1 count as 1, as in sentence-transformers")


def _by_id(path: str, rows: Iterable[Row]) -> dict[str, str]:
    """Return texts by their ids; a title stands before the text."""
    found: dict[str, str] = {}
    for row in rows:
        name = _id(path, row, "id")
        if name in found:
            raise TextFileError(
                f"{path}, line {row.line}: the id {name!r} is there twice; expected each once"
            )
        title = _text(path, row, "title") if row.values.get("title") else ""
        found[name] = f"{title} {_text(path, row, 'text')}".strip() if title else _text(path, row, "text")
    return found


def _text(path: str, row: Row, name: str) -> str:
    value = row.values[name]
    if not isinstance(value, str):
        raise _error(path, row, name, "a text")
    return value


def _id(path: str, row: Row, name: str) -> str:
    value: Any = row.values[name]
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise _error(path, row, name, "an id")
    return str(value)


def _number(path: str, row: Row, name: str) -> float:
    value = row.values[name]
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise _error(path, row, name, "a finite number")
    return number


def _error(path: str, row: Row, name: str, expected: str) -> TextFileError:
    return TextFileError(f"{path}, line {row.line}: {name} is {row.values[name]!r}; expected {expected}")
