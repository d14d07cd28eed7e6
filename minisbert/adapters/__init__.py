"""minisbert inside other frameworks: one file a framework, which needs the extra of its name.

>>> from minisbert.adapters.sklearn import SentenceVectorizer  # pip install "minisbert[sklearn]"

Each of them keeps nothing but a `minisbert.adapters.spec.EncoderSpec`, so that it is copied, stored and sent to other
processes as a few words, and all that name one checkpoint in a process share its weights.
"""

from minisbert.errors import MissingPackageError

__all__ = ["missing_package"]


def missing_package(extra: str, error: ImportError) -> MissingPackageError:
    """Return the error for a framework that can't be imported: it says what to install."""
    return MissingPackageError(
        f'this adapter needs what the extra "{extra}" installs, which can\'t be imported ({error}): '
        f'pip install "minisbert[{extra}]"'
    )
