"""The arguments of `fit`, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from minisbert.checkpoint import modules
from minisbert.checkpoint.config import CheckpointConfig
from minisbert.checkpoint.jsonfile import read_json
from minisbert.engine.arguments import check_choice, check_flag, check_integer
from minisbert.errors import EncodeTypeError, EncodeValueError, UnsupportedCheckpointError, shown
from minisbert.training.forward import Rates
from minisbert.training.losses import LOSSES, SCORED, SIMILARITIES
from minisbert.training.optimiser import SCHEDULERS

__all__ = ["Settings", "dropout_rates"]

SAMPLINGS = ("proportional", "round_robin")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What `fit` is told, but for where things are, how they are shown, and how many threads there are."""

    epochs: int
    batch_size: int
    loss: str
    scale: float
    similarity_fct: str
    lr: float
    weight_decay: float
    scheduler: str
    warmup_steps: int | None
    max_grad_norm: float
    steps_per_epoch: int | None
    evaluation_steps: int
    dropout: float | None
    seed: int
    dtype: str
    shuffle: bool
    no_duplicates: bool
    sampling: str

    def __post_init__(self) -> None:
        check_choice("loss", self.loss, tuple(LOSSES))
        check_choice("similarity_fct", self.similarity_fct, SIMILARITIES)
        check_choice("scheduler", str(self.scheduler).lower(), tuple(SCHEDULERS))
        check_choice("dtype", self.dtype, ("float32", "float64"))
        check_choice("sampling", self.sampling, SAMPLINGS)
        least = {"epochs": 1, "batch_size": 1 if self.is_scored else 2, "evaluation_steps": 0, "seed": 0}
        least |= {name: 1 for name in ("steps_per_epoch",) if self.steps_per_epoch is not None}
        least |= {name: 0 for name in ("warmup_steps",) if self.warmup_steps is not None}
        for name, value in least.items():
            if check_integer(name, getattr(self, name)) < value:
                raise EncodeValueError(f"{name} is {shown(getattr(self, name))}; expected at least {value}")
        for name in ("scale", "lr", "max_grad_norm"):
            _check_number(name, getattr(self, name), above=0)
        _check_number("weight_decay", self.weight_decay, at_least=0)
        if self.dropout is not None:
            _check_number("dropout", self.dropout, at_least=0, below=1)
        for name in ("shuffle", "no_duplicates"):
            check_flag(name, getattr(self, name))

    @property
    def is_scored(self) -> bool:
        """Whether rows are two texts and a score."""
        return self.loss == SCORED


def _check_number(
    name: str, value: Any, above: float = -math.inf, at_least: float = -math.inf, below: float = math.inf
) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise EncodeTypeError(f"{name} is {shown(value)}; expected a number")
    if not (above < value < below and value >= at_least):  # nor NaN
        low = f"above {above:g}" if above > -math.inf else f"at least {at_least:g}"
        high = f" and below {below:g}" if below < math.inf else ""
        raise EncodeValueError(f"{name} is {shown(value)}; expected a number {low}{high}")


def dropout_rates(config: CheckpointConfig, dropout: float | None) -> Rates:
    """Return how much dropout there is: by default what the checkpoint's settings say, or else transformers' 0.1.

    Raises
    ------
    UnsupportedCheckpointError
        If a module can't be trained.
    """
    for module in config.modules:
        if isinstance(module, modules.Dense) and module.activation == "rrelu":
            raise UnsupportedCheckpointError(
                f"{module.folder}: the activation {module.activation} is random in training; this is not done here"
            )
    dropouts = [module for module in config.modules if isinstance(module, modules.Dropout)]
    if dropout is not None:
        return Rates(dropout, dropout, (dropout,) * len(dropouts))
    file = read_json(config.transformer_folder / "config.json")
    is_distilbert = config.transformer.model_type == "distilbert"
    hidden, attention = (
        ("dropout", "attention_dropout")
        if is_distilbert
        else ("hidden_dropout_prob", "attention_probs_dropout_prob")
    )
    rates = (read_json(module.folder / "config.json").get("dropout", float, 0.2) for module in dropouts)
    found = Rates(file.get(hidden, float, 0.1), file.get(attention, float, 0.1), tuple(rates))
    for rate in (found.hidden, found.attention, *found.modules):
        _check_number(f"{file.path}: dropout", rate, at_least=0, below=1)
    return found
