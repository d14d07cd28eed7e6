"""`fit`: from a checkpoint and rows of texts to a fine-tuned checkpoint."""

from __future__ import annotations

import hashlib
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from minisbert.arrays import Floats
from minisbert.checkpoint import hub
from minisbert.checkpoint.config import read_config
from minisbert.engine.arguments import check_integer
from minisbert.engine.workers import Workers
from minisbert.errors import TrainingError, TruncationWarning, level_of_caller
from minisbert.kernels.cpus import resolve_num_threads
from minisbert.kernels.reference.blas import one_blas_thread
from minisbert.training.data import DataSet, Rows, hold_out, read
from minisbert.training.evaluation import mrr_at_10, spearman
from minisbert.training.folder import RunFolder
from minisbert.training.losses import LOSSES
from minisbert.training.optimiser import AdamW, learning_rate
from minisbert.training.output import model_card, plot_losses, write_checkpoint
from minisbert.training.plan import Plan
from minisbert.training.settings import Settings, dropout_rates
from minisbert.training.steps import Model

__all__ = ["Record", "fit"]

SAVE_SECONDS = 60.0  # from one time that the state is saved to the next
# What is told each entry of the log.
Update: TypeAlias = Callable[[dict[str, Any]], object]
METRICS = ("loss", "mrr@10", "spearman")
STATE, BEST = "state.npy", "best.npy"


@dataclass(frozen=True)
class Record:
    """What `fit` has done.

    Attributes
    ----------
    output : pathlib.Path
        The checkpoint.
    losses : list of float
        The loss of each step.
    metric : str
        What evaluations measure: "mrr@10", or "spearman" of scored pairs.
    evaluations : list of (int, float)
        After how many steps there was one, and what it gave; 0 stands for the base.
    best_step : int
        After how many steps the weights were those of the output.
    """

    output: Path
    losses: list[float]
    metric: str
    evaluations: list[tuple[int, float]]
    best_step: int


def fit(
    base: str | os.PathLike[str],
    data: Rows | Mapping[str, Rows],
    output: str | os.PathLike[str],
    *,
    epochs: int = 1,
    batch_size: int = 32,
    loss: str = "MultipleNegativesRankingLoss",
    scale: float = 20.0,
    similarity_fct: str = "cos_sim",
    lr: float = 2e-5,
    weight_decay: float = 0.01,
    scheduler: str = "WarmupLinear",
    warmup_steps: int | None = None,
    max_grad_norm: float = 1.0,
    steps_per_epoch: int | None = None,
    evaluation_steps: int = 0,
    dropout: float | None = None,
    seed: int = 0,
    dtype: str = "float32",
    num_threads: int | None = None,
    shuffle: bool = True,
    evaluation: Rows | Mapping[str, Rows] | int | None = None,
    no_duplicates: bool = True,
    sampling: str = "proportional",
    resume: bool = False,
    show_progress_bar: bool | Callable[[int, dict[str, Any]], object] | None = None,
) -> Record:
    """Fine-tune a Sentence-BERT checkpoint, with AdamW, and write the result as a checkpoint.

    A run that is interrupted goes on with `resume`, and ends with the same bits as one that was not. The same
    arguments give the same bits on one machine.

    Parameters
    ----------
    base : str or os.PathLike
        A checkpoint folder, or the name of one on the Hugging Face hub, as for `minisbert.load`.
    data : iterable of sequence, str, os.PathLike or mapping
        Rows (anchor, positive) or (anchor, positive, negative, ...) of texts; for `CosineSimilarityLoss` (text, text,
        score). Or the name of a file of them: CSV with a header, or JSONL with an object or a list a line, columns in
        this order. Or several of either by name: then each batch is of one data set.
    output : str or os.PathLike
        The folder of the trained checkpoint, which appears once it is complete.
    epochs, batch_size : int
        How often the rows are gone through, and how many there are in a step; a batch of any size takes the memory of
        a small one. What is left over in the end is a smaller batch.
    loss : {"MultipleNegativesRankingLoss", "CosineSimilarityLoss"}
        As in sentence-transformers: see `minisbert.training.losses`.
    scale : float
        What similarities are multiplied by in the ranking loss.
    similarity_fct : {"cos_sim", "dot_score"}
        The similarity of the ranking loss.
    lr, weight_decay : float
        The highest learning rate, and the decay of all weights but biases and those of ``LayerNorm``.
    scheduler : {"WarmupLinear", "warmupconstant", "constantlr", "warmupcosine"}
        How the learning rate goes on after the warm-up, in which it grows from 0.
    warmup_steps : int, optional
        By default a tenth of all steps.
    max_grad_norm : float
        A gradient that is longer is shortened to this.
    steps_per_epoch : int, optional
        By default as many as it takes to go through the rows.
    evaluation_steps : int
        After how many steps each there is an evaluation; there is one at the end of each epoch anyway.
    dropout : float, optional
        The rate of all dropout; by default what the checkpoint's settings say.
    seed : int
        Decides the order of the rows and the dropout.
    dtype : {"float32", "float64"}
        What is computed in, and what the weights are written in.
    num_threads : int, optional
        As for `minisbert.load`; another number gives other last bits.
    shuffle : bool
        Draw the rows in another order in each epoch; False takes them as they come.
    evaluation : as `data`, or int, optional
        Rows to evaluate with; or how many of the data's are held out for that. The best weights are kept, by the mean
        reciprocal rank at 10 of positives, or the rank correlation of scores.
    no_duplicates : bool
        Have no text twice in a batch, where it would be its own negative: rows with one wait for a later batch.
    sampling : {"proportional", "round_robin"}
        Draw data sets by their size until all are used up, or in turn until one is.
    resume : bool
        Go on with the run that was interrupted, which the same arguments began.
    show_progress_bar : bool or callable, optional
        By default a bar on a terminal. A function is called, for each step, with the number of all steps
        and the log's entry.

    Returns
    -------
    Record
        The loss of each step, and more.

    Raises
    ------
    EncodeTypeError, EncodeValueError
        If an argument, or a row, is impossible; the message says which.
    TrainingError
        If the output exists, or can't be written; if the loss or the gradient is no longer finite.
    CheckpointError
        If the base can't be loaded, as `minisbert.load` says.

    Warns
    -----
    TruncationWarning
        If texts were longer than the checkpoint's ``max_seq_length``, and were cut.

    Examples
    --------
    >>> record = fit("sentence-transformers/all-MiniLM-L6-v2", "pairs.csv", "my-model", batch_size=128)
    >>> encoder = minisbert.load("my-model")
    """
    given = {name: value for name, value in locals().items() if name in Settings.__dataclass_fields__}
    # NumPy's numbers, which JSON does not know, become Python's.
    settings = Settings(**{name: v.item() if isinstance(v, np.generic) else v for name, v in given.items()})
    sets, held = _read(data, evaluation, settings)
    plan, threads = Plan(settings, sets), resolve_num_threads(num_threads)
    # Each thread has multiplies of its own; and what BLAS computes by one thread has the same bits each time.
    with closing(Workers(threads if threads > 1 else 0)) as workers, one_blas_thread():
        folder = hub.resolve(base, revision=None, token=None, cache_folder=None, local_files_only=False)
        config = read_config(folder)
        model = Model(config, dropout_rates(config, dropout), np.dtype(dtype), workers, threads)
        which = {
            "base": _fingerprint([model.weights]),
            "data": ", ".join(map(_describe, sets)),
            "evaluation": held and _describe(held),
            "num_threads": threads,
        }
        with closing(RunFolder(Path(output).absolute(), asdict(settings) | which, resume)) as place:
            run = _Run(settings, model, plan, held, place)
            with _progress(show_progress_bar, int(run.step), plan.ends[-1]) as update:
                run.train(update)
            record = run.finish(str(base), {data.name: len(data.rows) for data in sets})
    if model.has_truncated:
        message = f"some texts were cut to max_seq_length, {config.max_seq_length} tokens; split them"
        warnings.warn(TruncationWarning(message), stacklevel=level_of_caller())
    return record


def _read(
    data: Rows | Mapping[str, Rows], evaluation: Rows | Mapping[str, Rows] | int | None, s: Settings
) -> tuple[list[DataSet], DataSet | None]:
    """Read what to train on, and what to evaluate with."""
    sets = read(data, s.is_scored)
    if evaluation is None:
        return sets, None
    if isinstance(evaluation, int | np.integer):
        return hold_out(sets, check_integer("evaluation", evaluation), s.seed)
    each = read(evaluation, s.is_scored, "evaluation")
    return sets, DataSet("evaluation", *(list(chain(*lists)) for lists in list(zip(*each, strict=True))[1:]))


def _describe(data: DataSet) -> str:
    """Say in words which rows these are, wherever they came from."""
    rows = (repr(row).encode() for row in chain(data.rows, data.scores))
    return f"{len(data.rows)} rows, {_fingerprint(rows)}"


def _fingerprint(parts: Iterable[Any]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return f"fingerprint {digest.hexdigest()}"


@contextmanager
def _progress(show: Any, done: int, steps: int) -> Iterator[Update]:
    """Show how far the steps are, and the loss. Yield what is told each entry of the log."""
    if callable(show) or show is False or (show is None and not (sys.stderr and sys.stderr.isatty())):
        yield partial(show, steps) if callable(show) else lambda entry: None
        return
    from tqdm.auto import tqdm  # not needed by every run

    shown: dict[str, str] = {}  # the last loss, and what the last evaluation gave
    with tqdm(desc="Training", initial=done, total=steps, unit=" steps") as bar:

        def update(entry: dict[str, Any]) -> None:
            shown.update({key: f"{value:.4f}" for key, value in entry.items() if key in METRICS})
            bar.set_postfix(shown, refresh=False)
            bar.update(entry["step"] - bar.n)

        yield update


class _Run:
    """A run of `fit`: the steps from wherever it stands to the end.

    What a step does depends on its number, the weights and the optimiser's means alone. So a state that was saved, at
    whatever time, leads to the same end.
    """

    def __init__(
        self, settings: Settings, model: Model, plan: Plan, held: DataSet | None, folder: RunFolder
    ) -> None:
        self._settings, self._model, self._plan = settings, model, plan
        self._held, self._folder = held, folder
        self._metric = METRICS[1 + settings.is_scored]
        self._optimiser = AdamW(model.weights, model.parameters.num_decayed, settings.weight_decay)
        self.step, self._saved = np.zeros((), np.int64), -math.inf
        self._state = [self.step, model.weights, self._optimiser.m, self._optimiser.v]
        if folder.has(STATE):
            folder.load(STATE, self._state)
        self._log = folder.read_log(int(self.step))

    def train(self, update: Update) -> None:
        """Do all steps that are left."""
        s, start, total = self._settings, int(self.step), self._plan.ends[-1]
        warmup = total // 10 if s.warmup_steps is None else s.warmup_steps
        if self._held and not self._log:
            self._evaluate(update)
        for step, (data, places) in enumerate(self._plan.steps(start), start + 1):
            begin = time.perf_counter()
            lr = learning_rate(s.lr, s.scheduler.lower(), step - 1, warmup, total)
            loss, gradient = self._gradient(data, places, step)
            norm = self._model.norm(self._optimiser, gradient)
            if not math.isfinite(loss) or not math.isfinite(norm):
                raise self._diverged(step, f"the loss is {loss}, and the norm of its gradient {norm}")
            if time.monotonic() - self._saved > SAVE_SECONDS:  # only now, as the weights are known to be good
                self._save()
            self._model.update(self._optimiser, gradient, min(1.0, s.max_grad_norm / (norm + 1e-6)), lr, step)
            self.step[...] = step
            seconds = round(time.perf_counter() - begin, 4)
            self._note({"step": step, "loss": loss, "lr": lr, "grad_norm": norm, "seconds": seconds}, update)
            if self._held and (
                step in self._plan.ends or (s.evaluation_steps and step % s.evaluation_steps == 0)
            ):
                self._evaluate(update)

    def _gradient(self, data: DataSet, places: list[int], step: int) -> tuple[float, Floats]:
        """Return the loss of some rows, and its gradient."""
        s, columns = self._settings, zip(*(data.rows[place] for place in places), strict=True)
        scores = np.array([data.scores[place] for place in places], s.dtype) if s.is_scored else None

        def loss(vectors: Floats) -> tuple[float, Floats]:
            return LOSSES[s.loss](vectors, len(places), scores, s.scale, s.similarity_fct)

        with np.errstate(all="ignore"):  # what overflows is found in the end
            return self._model.gradient(list(chain.from_iterable(columns)), loss, [s.seed, step])

    def _evaluate(self, update: Update) -> None:
        """Evaluate, and keep the weights if they are the best so far."""
        assert self._held is not None
        columns = [self._model.encode([row[i] for row in self._held.rows]) for i in (0, 1)]
        if not all(np.isfinite(column).all() for column in columns):
            raise self._diverged(int(self.step), "a vector of the evaluation is not finite")
        measure = spearman if self._settings.is_scored else mrr_at_10
        score = measure(columns, self._held.scores, self._model.parameters.config.similarity_fn_name)
        if score > max((value for _, value in self._evaluations()), default=-math.inf):
            self._folder.save(BEST, [self._model.weights])
        self._note({"step": int(self.step), self._metric: score}, update)

    def _evaluations(self) -> list[tuple[int, float]]:
        return [(entry["step"], entry[self._metric]) for entry in self._log if self._metric in entry]

    def _note(self, entry: dict[str, Any], update: Update) -> None:
        self._log.append(entry)
        self._folder.log(entry)
        update(entry)

    def _save(self) -> None:
        self._folder.save(STATE, self._state)
        self._saved = time.monotonic()

    def _diverged(self, step: int, what: str) -> TrainingError:
        is_saved = self._folder.has(STATE)
        if not is_saved:
            self._folder.remove()  # there is nothing in it
        where = f"; the last good state is in {self._folder.path}: remove that to start anew" * is_saved
        return TrainingError(f"step {step}: {what}; a lower lr or more warmup_steps may help{where}")

    def finish(self, base: str, data: dict[str, int]) -> Record:
        """Write the output: of the best weights, or else of the last."""
        model, evaluations, best = self._model, self._evaluations(), self._plan.ends[-1]
        if not np.isfinite(model.weights).all():
            raise self._diverged(best, "a weight is not finite")
        self._save()
        if evaluations:
            best = max(evaluations, key=lambda item: item[1])[0]
            self._folder.load(BEST, [model.weights])
        losses = [entry["loss"] for entry in self._log if "loss" in entry]
        record = Record(self._folder.output, losses, self._metric, evaluations, best)
        card = model_card(record, base, asdict(self._settings), data, model.parameters.config)
        with self._folder.finishing() as path:
            plot_losses(path / "loss.png", losses, evaluations, self._metric)
            write_checkpoint(path, model.parameters, model.weights, card)
        return record
