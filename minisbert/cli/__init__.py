"""The command `minisbert`."""

from minisbert.cli.commands import main

__all__ = ["main"]
