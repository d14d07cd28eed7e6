"""The arguments of `fit`, checked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_type_hints

from minisbert.checkpoint import modules
from minisbert.checkpoint.config import CheckpointConfig
from minisbert.checkpoint.jsonfile import read_json
from minisbert.engine.arguments import check_choice, check_flag, check_integer
from minisbert.errors import EncodeTypeError, EncodeValueError, UnsupportedCheckpointError, shown
from minisbert.training.forward import Rates
from minisbert.training.losses import LOSSES, SCORED, SIMILARITIES
from minisbert.training.optimiser import SCHEDULERS

__all__ = ["Settings", "dropout_rates"]

DTYPES, SAMPLINGS = ("float32", "float64"), ("proportional", "round_robin")
# What numbers can be; NaN is in none of these.
RANGES: dict[str, Callable[[float], bool]] = {
    "above 0": lambda x: 0 < x < math.inf,
    "at least 0": lambda x: 0 <= x < math.inf,
    "at least 0 and below 1": lambda x: 0 <= x < 1,
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What `fit` is told, but for where things are, how they are shown, and how many threads there are.

    Beside the type of each stand the choices there are, or the least of integers, or the range of numbers.
    """

    epochs: Annotated[int, 1]
    batch_size: Annotated[int, 1]
    loss: Annotated[str, LOSSES]
    scale: Annotated[float, "above 0"]
    similarity_fct: Annotated[str, SIMILARITIES]
    lr: Annotated[float, "above 0"]
    weight_decay: Annotated[float, "at least 0"]
    scheduler: Annotated[str, SCHEDULERS]
    warmup_steps: Annotated[int | None, 0]
    max_grad_norm: Annotated[float, "above 0"]
    steps_per_epoch: Annotated[int | None, 1]
    evaluation_steps: Annotated[int, 0]
    dropout: Annotated[float | None, "at least 0 and below 1"]
    seed: Annotated[int, 0]
    dtype: Annotated[str, DTYPES]
    shuffle: Annotated[bool, None]
    no_duplicates: Annotated[bool, None]
    sampling: Annotated[str, SAMPLINGS]

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(Settings, include_extras=True).items():
            value, (kind, allowed) = getattr(self, name), get_args(hint)
            if kind is bool:
                check_flag(name, value)
            elif kind is str:
                value = value.lower() if name == "scheduler" and isinstance(value, str) else value
                check_choice(name, value, tuple(allowed))
            elif value is not None or kind in (int, float):  # others can do without
                (_check_number if isinstance(allowed, str) else _check_least)(name, value, allowed)
        if not self.is_scored:
            _check_least("batch_size", self.batch_size, 2)

    @property
    def is_scored(self) -> bool:
        """Whether rows are two texts and a score."""
        return self.loss == SCORED


def _check_least(name: str, value: Any, least: int) -> None:
    if check_integer(name, value) < least:
        raise EncodeValueError(f"{name} is {shown(value)}; expected at least {least}")


def _check_number(name: str, value: Any, allowed: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise EncodeTypeError(f"{name} is {shown(value)}; expected a number")
    if not RANGES[allowed](value):
        raise EncodeValueError(f"{name} is {shown(value)}; expected a number {allowed}")


def dropout_rates(config: CheckpointConfig, dropout: float | None) -> Rates:
    """Return how much dropout there is: by default what the checkpoint's settings say, or else transformers' 0.1.

    Raises
    ------
    UnsupportedCheckpointError
        If the checkpoint can't be trained.
    """
    if config.transformer.is_int8:
        raise UnsupportedCheckpointError(
            f"{config.transformer_folder}: the weights are int8, which can't be trained; name the checkpoint that was "
            "converted"
        )
    for module in config.modules:
        if isinstance(module, modules.Dense) and module.activation == "rrelu":
            raise UnsupportedCheckpointError(
                f"{module.folder}: the activation rrelu is random in training; this is not done here"
            )
    folders = [module.folder for module in config.modules if isinstance(module, modules.Dropout)]
    if dropout is not None:
        return Rates(dropout, dropout, (dropout,) * len(folders))
    is_distilbert = config.transformer.model_type == "distilbert"
    hidden = "dropout" if is_distilbert else "hidden_dropout_prob"
    attention = "attention_dropout" if is_distilbert else "attention_probs_dropout_prob"
    places = [(config.transformer_folder, hidden, 0.1), (config.transformer_folder, attention, 0.1)]
    rates = []
    for folder, key, default in (*places, *((folder, "dropout", 0.2) for folder in folders)):
        source = read_json(folder / "config.json")
        rates.append(source.get(key, float, default))
        _check_number(f"{source.path}: {key}", rates[-1], "at least 0 and below 1")
    return Rates(rates[0], rates[1], tuple(rates[2:]))
