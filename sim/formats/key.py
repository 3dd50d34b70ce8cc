"""What describes one key of a config."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Key:
    """What may stand in a key.

    Kind is int, count, size, extent, time, spread, bool, choice or text. A count takes fio's
    suffixes, an extent is a size or a percentage of the LUN, a spread is a random time
    (sim.formats.spread). `low` and `high` are inclusive, in ns for times. A valid value that is not
    in `only` is not modelled yet.
    """

    kind: str
    help: str
    low: int = 0
    high: int = 2**63 - 1
    unit: str | None = None
    choices: tuple[str, ...] = ()
    synonyms: Mapping[str, str] = field(default_factory=dict)
    pattern: str = ''
    only: tuple[object, ...] = ()
    alias: str = ''


def key(default: Any, kind: str, help: str, **limits: Any) -> Any:
    """A field of a section."""
    return field(default=default, metadata={'key': Key(kind=kind, help=help, **limits)})
