"""Ray, Spark and Dask on two worker processes: nothing lost, nothing doubled, and the bits of one process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minisbert
from minisbert.encoder import SentenceEncoder
from tests.conftest import DATA, FEW
from tests.support.clusters import CLUSTERS, Run
from tests.support.machines import DEADLY, WatchedSpec

pa = pytest.importorskip("pyarrow", reason="pyarrow is optional")
pytestmark = pytest.mark.filterwarnings("default")  # those of the frameworks about each other

TINY = DATA / "tiny-bert"
PARTS = 16
TEXTS = [*FEW, *(f"text number {i}, and {i} again" for i in range(12_000))]


@pytest.fixture(params=CLUSTERS, scope="module")
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    pytest.importorskip(request.param, reason="the framework is optional")
    if request.param == "pyspark" and shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    with CLUSTERS[request.param]() as run:
        yield run


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WatchedSpec:
    monkeypatch.setattr(SentenceEncoder, "_read", SentenceEncoder._read)  # which the spec replaces
    return WatchedSpec(str(TINY), folder=str(tmp_path))


def check(found: Any, texts: list[str]) -> None:
    """Compare the rows, in order of their ids, with what one process computes."""
    rows = found.sort_by("id").combine_chunks()
    assert rows["id"].to_pylist() == list(range(len(texts)))
    assert rows["text"].to_pylist() == texts
    vectors = np.stack(rows["embedding"].to_numpy())
    expected = minisbert.load(TINY).encode(texts)
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors.view(np.uint32), expected.view(np.uint32))


def table(texts: list[str | None]) -> Any:
    return pa.table({"id": pa.array(range(len(texts)), pa.int64()), "text": pa.array(texts, pa.string())})


def test_each_worker_loads_once_and_takes_its_share_of_processors(run: Run, spec: WatchedSpec) -> None:
    check(run(table(TEXTS), spec, PARTS), TEXTS)
    check(run(table(TEXTS), spec, PARTS), TEXTS)
    loads = spec.loads()
    loads.pop(str(os.getpid()), None)
    assert set(loads.values()) == {1}
    assert len(loads) < PARTS
    assert spec.threads(all_but=os.getpid()) == {"1"}


def test_a_worker_that_is_killed_loses_and_doubles_nothing(run: Run, spec: WatchedSpec) -> None:
    texts = [*TEXTS[:6000], DEADLY, *TEXTS[6000:]]
    check(run(table(texts), spec, PARTS), texts)
    assert len(spec.killed()) == 1
    assert str(os.getpid()) not in spec.killed()


def test_a_null_is_named(run: Run, spec: WatchedSpec) -> None:
    with pytest.raises(Exception, match=r"column 'text', row \d+ of .*: is null; expected a string"):
        run(table([*TEXTS[:50], None]), spec, 2)


@pytest.mark.parametrize("texts", [FEW[:3], []], ids=["fewer rows than parts", "no rows"])
def test_empty_parts(run: Run, spec: WatchedSpec, texts: list[str]) -> None:
    found = run(table(texts), spec, 4)
    if texts:
        check(found, texts)
    else:
        assert found.num_rows == 0
