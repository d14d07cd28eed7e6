"""minisbert inside other frameworks: one file a framework, which needs the extra of its name.

>>> from minisbert.adapters.sklearn import SentenceVectorizer  # pip install "minisbert[sklearn]"

Each of them keeps nothing but a `minisbert.adapters.spec.EncoderSpec`, so that it is copied, stored and sent to other
processes as a few words, and all that name one checkpoint in a process share its weights.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from minisbert.errors import MissingPackageError

__all__ = ["needing"]


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """Say what to install if something can't be imported."""
    try:
        yield
    except ImportError as error:
        first = error.__cause__ or error  # an adapter can stand on another one
        raise MissingPackageError(
            f'this adapter needs what the extra "{extra}" installs, which can\'t be imported ({first}): '
            f'pip install "minisbert[{extra}]"'
        ) from error
