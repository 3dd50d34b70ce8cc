"""Readers of other tools' formats, and what they share: values with their places, refusals."""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from sim.errors import ConfigError


class Given(NamedTuple):
    """A value as it was written, not yet understood, and the place to name in a message."""

    value: object
    where: str


def fold(key: object) -> str:
    """A key as we know it: '-' and '_' are the same."""
    return str(key).strip().replace('-', '_')


def nearest(key: str, known: Iterable[str]) -> str:
    """The known key that `key` was most likely meant to be."""
    names = sorted(known)
    return (difflib.get_close_matches(key, names, n=1, cutoff=0.0) or names)[0]


def refuse(when: object, message: str) -> None:
    """ConfigError with the message if `when` holds."""
    if when:
        raise ConfigError(message)


def read_text(path: str | Path) -> str:
    """The UTF-8 text of a file; ConfigError if there is no such thing."""
    try:
        return Path(path).read_text(encoding='utf-8-sig')
    except UnicodeDecodeError:
        raise ConfigError(f'{path}: is not UTF-8 text') from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f'{path}: cannot be read: {reason}') from None
