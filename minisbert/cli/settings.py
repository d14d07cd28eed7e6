"""What decides which vectors are made of texts: a file of vectors keeps it, so that others are told apart."""

from __future__ import annotations

import argparse
import json
from typing import Any, NamedTuple

from minisbert.cli.streams import TextFileError
from minisbert.encoder import SentenceEncoder
from minisbert.engine.prompts import resolve_prompt

__all__ = ["KEY", "Settings", "settings_of"]

KEY = b"minisbert"  # under which Parquet's metadata have the settings


class Settings(NamedTuple):
    """Two files with equal settings can be one: each text has the same vector in either."""

    checkpoint: str  # its fingerprint
    dtype: str
    max_seq_length: int
    prompt: str  # the text itself, and not its name
    truncate_dim: int  # components of a vector, also where bits are packed
    normalize: bool
    precision: str

    def to_json(self) -> str:
        """Write them for a file's metadata."""
        return json.dumps(self._asdict())

    @classmethod
    def from_json(cls, name: str, content: bytes) -> Settings:
        """Read what `to_json` wrote into the file of that name."""
        try:
            found = json.loads(content)
            return cls(**{field: kind(found[field]) for field, kind in KINDS.items()})
        except (ValueError, KeyError, TypeError) as error:
            raise TextFileError(
                f"{name}: its metadata {KEY.decode()!r} are damaged, or of a later minisbert ({error!r})"
            ) from error

    def refuse_others(self, name: str, there: Settings) -> None:
        """Refuse to go on with the file of that name, if it was made with other settings than these."""
        pairs = zip(self._fields, there, self, strict=True)
        differing = [f"{field} {was!r}, now {now!r}" for field, was, now in pairs if was != now]
        if there.checkpoint != self.checkpoint:
            differing[0] = "another checkpoint"
        if differing:
            raise TextFileError(
                f"{name}: was encoded with {'; '.join(differing)}; use the same, or write another file"
            )


KINDS: dict[str, Any] = {
    "checkpoint": str,
    "dtype": str,
    "max_seq_length": int,
    "prompt": str,
    "truncate_dim": int,
    "normalize": bool,
    "precision": str,
}


def settings_of(encoder: SentenceEncoder, arguments: argparse.Namespace) -> Settings:
    """Return the settings of ``minisbert encode``, which are checked already."""
    name, prompt = arguments.prompt_name, arguments.prompt
    return Settings(
        checkpoint=encoder.fingerprint,
        dtype=encoder.dtype,
        max_seq_length=encoder.max_seq_length,
        prompt=resolve_prompt(encoder.prompts, encoder.default_prompt_name, name, prompt),
        truncate_dim=arguments.truncate_dim or encoder.get_embedding_dimension(),
        normalize=arguments.normalize,
        precision=arguments.precision,
    )
