"""Which text goes before each sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from minisbert.errors import EncodeTypeError, EncodeValueError, shown

__all__ = ["resolve_prompt", "with_role"]


def resolve_prompt(
    prompts: Mapping[str, str], default: str | None, name: str | None, prompt: str | None
) -> str:
    """Return the prompt itself, or else the one of that name, or else the default one, or else nothing.

    Raises
    ------
    EncodeTypeError
        If the prompt or the name is no string.
    EncodeValueError
        If there is no prompt of that name.
    """
    if prompt is None:
        name = default if name is None else name
        if name is None:
            return ""
        if not isinstance(name, str):
            raise EncodeTypeError(f"prompt_name is {shown(name)}; expected a string")
        if name not in prompts:
            raise EncodeValueError(
                f"there is no prompt named {shown(name)}; expected one of {sorted(prompts)}"
            )
        prompt = prompts[name]
    if not isinstance(prompt, str):
        raise EncodeTypeError(f"prompt is {shown(prompt)}; expected a string")
    return prompt


def with_role(prompts: Mapping[str, str], names: Sequence[str], arguments: dict[str, Any]) -> dict[str, Any]:
    """Set ``prompt_name`` to the first of `names` that is a prompt's, unless the arguments of `encode` name one."""
    if arguments.get("prompt_name") is None and arguments.get("prompt") is None:
        return {**arguments, "prompt_name": next((name for name in names if name in prompts), None)}
    return arguments
