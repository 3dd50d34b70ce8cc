"""What goes wrong: what is read makes no sense, or points of a sweep are missing."""

from typing import Any


class ConfigError(ValueError):
    """What was read makes no sense; the message is one line that says where and what to do.

    The command line prints it after 'error: ' and exits with code 2.
    """


def shown(value: object) -> str:
    """A value as a message quotes it: on one line, and cut short if it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:56]} ...'


class UnfinishedError(Exception):
    """Points of a sweep are missing: they failed, or belong to another shard.

    `outcome` is the sim.sweep.Outcome with what is there.
    """

    def __init__(self, outcome: Any) -> None:
        super().__init__(f'{outcome.places.count(None)} points are missing')
        self.outcome = outcome
