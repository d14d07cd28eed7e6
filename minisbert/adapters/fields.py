"""A spec's settings as the fields of a pydantic model, which is what LangChain, LlamaIndex and LanceDB stand on."""

from __future__ import annotations

import os
from dataclasses import MISSING, fields
from typing import Any, ClassVar, get_type_hints

from pydantic import BaseModel, ConfigDict, PrivateAttr, create_model, model_validator

from minisbert.adapters.spec import Spec

__all__ = ["fields_of"]


class _Fields(BaseModel):
    """Fields that make a spec; they can be set later, too."""

    model_config = ConfigDict(extra="forbid")
    KIND: ClassVar[type[Spec]]
    NAMES: ClassVar[dict[str, str]]  # of the fields, and which setting each of them is
    _last: Any = PrivateAttr(None)

    @model_validator(mode="before")
    @classmethod
    def _as_strings(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Take paths for what they are called."""
        return {
            name: os.fspath(value) if isinstance(value, os.PathLike) else value
            for name, value in values.items()
        }

    @property
    def spec(self) -> Any:
        """The spec of the fields as they are now, and the same one for as long as they stay so."""
        spec = self.KIND(**{setting: getattr(self, name) for name, setting in self.NAMES.items()})
        if spec != self._last:
            self._last = spec
        return self._last


def fields_of(kind: type[Spec], model: str = "model") -> Any:
    """Return a pydantic model with the settings of a kind of spec as fields, and the field `model` for its model."""
    hints = get_type_hints(kind)
    names = {model if setting.name == "model" else setting.name: setting for setting in fields(kind)}
    types = {
        name: (hints[setting.name], ... if setting.default is MISSING else setting.default)
        for name, setting in names.items()
    }
    created = create_model(f"{kind.__name__}Fields", __base__=_Fields, **types)
    created.KIND, created.NAMES = kind, {name: setting.name for name, setting in names.items()}
    return created
