"""``python -m minisbert`` is the ``minisbert`` command."""

from minisbert.cli.commands import main

if __name__ == "__main__":
    raise SystemExit(main())
