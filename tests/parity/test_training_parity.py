"""Training beside torch: gradients by its autograd, and steps by a loop with the reference's parameter groups."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minisbert
from minisbert.training import fit
from minisbert.training.losses import SCORED
from tests.conftest import DATA, TINY
from tests.support import pipelines
from tests.support.training import RANKING, Trained, scored_rows, some_rows

torch = pytest.importorskip(
    "torch", reason="torch is not installed: python tools/dev.py test --parity installs it"
)
pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")

pytestmark = [
    pytest.mark.filterwarnings("ignore::minisbert.TruncationWarning"),
    pytest.mark.filterwarnings("ignore:Implicit dimension choice:UserWarning"),  # torch's, on softmax
]

GRADIENT = 1e-9  # relative to the largest one of a tensor, in float64: some hundred roundings
LOSS, WEIGHT = {"float64": 1e-9, "float32": 1e-4}, 1e-8


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def load(folder: Path, dtype: str = "float64") -> Any:
    from tools.golden import make as make_golden

    return make_golden.load(folder).to(getattr(torch, dtype))  # in eval mode: without dropout


def torch_loss(model: Any, loss: str, rows: list[tuple[Any, ...]], similarity: str = "cos_sim") -> Any:
    columns = list(zip(*rows, strict=True))
    from sentence_transformers import util
    from sentence_transformers.sentence_transformer import losses

    if loss == SCORED:
        scores = torch.tensor(columns.pop())
        function = losses.CosineSimilarityLoss(model)
    else:
        scores = torch.zeros(len(rows))
        similar = getattr(util, similarity)
        function = losses.MultipleNegativesRankingLoss(model, scale=20.0, similarity_fct=similar)
    return function([model.preprocess(list(column)) for column in columns], scores)


def compare_gradients(folder: Path, loss: str, similarity: str = "cos_sim", limit: float = GRADIENT) -> None:
    rows = scored_rows(6) if loss == SCORED else some_rows(6, 3)
    model = load(folder)
    value = torch_loss(model, loss, rows, similarity)
    value.backward()
    expected = {
        name.removeprefix("0.model.").removeprefix("0.auto_model."): parameter.grad.numpy()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    trained = Trained(folder)
    found_value, found = trained.gradient(rows, loss, similarity)
    assert found_value == pytest.approx(value.item(), rel=1e-12)
    names = {
        role: name
        for role, name in trained.reference_names().items()
        if name in expected or found[role].any()
    }
    assert set(names.values()) == set(expected)
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    for role, name in names.items():
        error = np.abs(found[role] - expected[name]).max()
        # The gradient of a key's bias is 0, as it changes no difference of scores.
        assert error <= limit * max(np.abs(expected[name]).max(), 1e-6 * largest), role


@pytest.mark.parametrize("loss", [RANKING, SCORED])
def test_gradient_of_every_parameter(tiny: Path, loss: str) -> None:
    compare_gradients(tiny, loss)


def test_gradient_of_dot_score() -> None:
    compare_gradients(DATA / "tiny-bert", RANKING, "dot_score")


@pytest.mark.parametrize(
    "name", [name for name in pipelines.CASES if "prompt" not in name and name != "tokens"]
)
def test_gradient_of_every_pipeline(tmp_path: Path, name: str) -> None:
    if name == "dense RReLU":
        pytest.skip("random in training")
    folder = pipelines.build(tmp_path / "model", DATA / "tiny-bert", pipelines.CASES[name].modules)
    # torch's slope of that is 1/6 in float32, also where it computes in float64.
    compare_gradients(folder, RANKING, limit=1e-7 if name == "dense Hardsigmoid" else GRADIENT)


def torch_steps(
    folder: Path, rows: list[tuple[Any, ...]], loss: str, dtype: str, steps: int
) -> tuple[Any, list[float]]:
    """Train as the reference's `fit` does, with its parameter groups, but for dropout."""
    import transformers

    model = load(folder, dtype)
    named, no_decay = list(model.named_parameters()), ["bias", "LayerNorm.bias", "LayerNorm.weight"]
    kept = [[p for n, p in named if any(part in n for part in no_decay) == free] for free in (False, True)]
    groups = [{"params": kept[0], "weight_decay": 0.01}, {"params": kept[1], "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=1e-3)
    scheduler = transformers.get_linear_schedule_with_warmup(optimiser, 10, steps)
    losses = []
    for step in range(steps):
        start = 16 * step % len(rows)
        value = torch_loss(model, loss, rows[start : start + 16])
        losses.append(value.item())
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        scheduler.step()
        optimiser.zero_grad()
    return model, losses


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("loss", [RANKING, SCORED])
@pytest.mark.parametrize("name", TINY)
def test_fifty_steps(tmp_path: Path, name: str, loss: str, dtype: str) -> None:
    if dtype == "float32" and name not in ("tiny-bert", "tiny-roberta"):
        pytest.skip("two families are enough for float32")
    rows = scored_rows(80) if loss == SCORED else some_rows(80, 2)
    model, expected = torch_steps(DATA / name, rows, loss, dtype, 50)
    record = fit(
        DATA / name, rows, tmp_path / "out", batch_size=16, loss=loss, lr=1e-3, warmup_steps=10, steps_per_epoch=50,
        dropout=0, dtype=dtype, num_threads=1, shuffle=False,
    )  # fmt: skip
    error = np.abs(np.subtract(record.losses, expected)).max()
    print(f"{name:20} {loss:30} {dtype} largest difference of the loss {error:.1e}")
    assert error <= LOSS[dtype]
    if dtype == "float64":
        trained, weights = Trained(tmp_path / "out"), dict(model.named_parameters())
        worst = 0.0
        for role, key in trained.reference_names().items():
            value = weights[next(n for n in weights if n.endswith(key))].detach().numpy()
            found = trained.parameters.view(trained.model.weights, role)
            worst = max(worst, np.abs(found - value).max() / np.abs(value).max())
        print(f"{name:20} {loss:30} largest relative difference of a weight {worst:.1e}")
        assert worst <= WEIGHT


def compare_output(base: Path, out: Path) -> None:
    rows = some_rows(16, 2)
    fit(base, rows, out, batch_size=8, lr=1e-3, num_threads=1)
    texts = [text for row in rows for text in row]
    expected = load(out, "float32").encode(texts)
    np.testing.assert_allclose(
        minisbert.load(out).encode(texts), expected, atol=3e-6 * np.abs(expected).max()
    )


def test_the_output_in_the_reference(tiny: Path, tmp_path: Path) -> None:
    compare_output(tiny, tmp_path / "out")


@pytest.mark.parametrize(
    "name", ["pooling all, old", "pooling two, old order", "pooling two, as listed", "dense PReLU"]
)
def test_the_output_of_a_pipeline_in_the_reference(tmp_path: Path, name: str) -> None:
    base = pipelines.build(tmp_path / "base", DATA / "tiny-bert", pipelines.CASES[name].modules)
    compare_output(base, tmp_path / "out")
