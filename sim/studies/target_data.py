"""A validation target: measured points, what simulates them, and how they are judged.

sim.studies.target_file reads one from its file, sim.studies.validate simulates it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sim.control.costs import CONTROL_PARAMETERS
from sim.costs import MODEL_PARAMETERS
from sim.errors import ConfigError, shown
from sim.formats import nearest
from sim.formats.keys import SECTIONS, fields_of

# The whole path; a disk alone; a run with a stop of the VM; one with a migration; QEMU's ioctls.
KINDS = ('run', 'disk', 'stop', 'migrate', 'ioctls')
# What a point of these kinds needs and is no key of a config: times, but for the last.
OWN: dict[str, tuple[str, ...]] = {
    'run': (),
    'disk': ('host_time', 'submission'),
    'stop': ('at', 'gap', 'hold'),
    'migrate': (),
    'ioctls': ('scenario', 'step'),
}
OWN_SECTIONS = tuple(kind for kind, keys in OWN.items() if keys)
OWN_TIMES = {'at', 'gap', 'hold', 'host_time', 'submission'}
# A job that ran in the same host before the point's own, which began AHEAD later: any workload key.
BEFORE, AHEAD = 'before', 'ahead'
BEFORE_KINDS = ('stop',)
PARAMETERS_MOST = 4

Cells = dict[str, str]  # a point of the table, by column


COSTS = MODEL_PARAMETERS | CONTROL_PARAMETERS
# Costs of the data path that are times; the rest are percentages that split one.
TIMES = {name for name in MODEL_PARAMETERS if not re.search(r'share_(of|before)', name)}


def is_time(path: str) -> bool:
    """Is the key a time (or a random time)?"""
    section, _, key = path.partition('.')
    if section == 'costs':
        return key in TIMES | CONTROL_PARAMETERS
    if section in OWN_SECTIONS or path == f'{BEFORE}.{AHEAD}':
        return key in {*OWN_TIMES, AHEAD}
    section = 'workload' if section == BEFORE else section
    return fields_of(section)[key].metadata['key'].kind in ('time', 'spread')


def key_problem(path: str, kind: str) -> str:
    """What is wrong with a dotted key; empty if nothing."""
    section, dot, key = path.replace('-', '_').partition('.')
    own = kind if OWN[kind] else None
    if section == 'costs':
        if key in COSTS:
            return ''
        return f'there is no cost {key!r} that the model charges; the nearest is {_near(key)!r}'
    if section == own and key in OWN[kind]:
        return ''
    if section == BEFORE and kind in BEFORE_KINDS and key in {AHEAD, *fields_of('workload')}:
        return ''
    if section == own:
        return f'there is no key {path!r}; the nearest is {own}.{nearest(key, OWN[kind])}'
    if section == BEFORE and kind in BEFORE_KINDS:
        close = nearest(key, [AHEAD, *fields_of('workload')])
        return f'there is no key {path!r}; the nearest is {BEFORE}.{close}'
    if section not in SECTIONS:
        known = [*SECTIONS, 'costs', *([own] if own else [])]
        known += [BEFORE] if kind in BEFORE_KINDS else []
        return f'there is no section {section!r}; known are {", ".join(known)}'
    if not dot or key not in fields_of(section):
        close = nearest(key, fields_of(section))
        return f'there is no key {path!r}; the nearest is {section}.{close}'
    return ''


def _near(key: str) -> str:
    return nearest(key, COSTS)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A measured column: `scale` times the number `report` of a report is what it says.

    Errors are relative. `weight` is of its squared error in a fit. With `relative_to` (sets) it is
    the ratio to the same point simulated under these. `reference` says what of it was no
    measurement of this point but a figure that was derived. `exact`: a text, which is the same or
    wrong.
    """

    name: str
    report: str
    scale: float
    excellent: float
    acceptable: float
    weight: float
    relative_to: tuple[str, ...] = ()
    reference: str = ''
    exact: bool = False


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """What a fit may move. `paths` are keys such as target.serial or costs.NAME.

    `form` is value (all paths get the value), scale (it multiplies what they have) or choice. `low`
    and `high` are ns for times.
    """

    name: str
    paths: tuple[str, ...]
    form: str
    low: float = 0.0
    high: float = 0.0
    choices: tuple[object, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Order:
    """The simulated values of a metric rank as the measured ones do, apart from near ties."""

    metric: str
    by: str
    where: Cells
    tie: float


@dataclass(frozen=True, kw_only=True)
class Sign:
    """One point has more of a metric than another, or the same within a share."""

    name: str
    metric: str
    more: Cells
    less: Cells
    same_within: float | None


@dataclass(frozen=True, kw_only=True)
class Bound:
    """No simulated value of these points is above (or below) a limit, nor is a measured one."""

    name: str
    metric: str
    where: Cells
    at_most: float
    at_least: float


@dataclass(frozen=True, kw_only=True)
class Unrecorded:
    """A key that nobody wrote down: a point is simulated at `values` of it, which give a band."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A target file, checked. `rows` are the measured points, `calibrates` which of them fit."""

    path: Path
    name: str
    title: str
    source: str
    setup: str
    verdict: str
    kind: str
    config: Mapping[str, Any]
    own: Mapping[str, Any]
    before: Mapping[str, Any]
    columns: Mapping[str, Any]
    unused: tuple[str, ...]
    group: str  # a column: errors are also given for each of its words
    metrics: tuple[Metric, ...]
    rows: tuple[Cells, ...]
    calibrates: tuple[bool, ...]
    parameters: tuple[Parameter, ...]
    orders: tuple[Order, ...]
    signs: tuple[Sign, ...]
    bounds: tuple[Bound, ...]
    unrecorded: Unrecorded | None

    def sets_of(self, row: Cells) -> list[str]:
        """The keys that a point sets, as --set writes them."""
        sets: list[str] = []
        for column, meaning in self.columns.items():
            cell = row[column]
            if isinstance(meaning, Mapping) and 'key' not in meaning:
                if cell not in meaning:
                    known = ', '.join(meaning)
                    raise ConfigError(
                        f'{self.path}: columns.{column}: says nothing of {shown(cell)}; it has '
                        f'{known}'
                    )
                sets += meaning[cell]
                continue
            unit = meaning.get('unit', '') if isinstance(meaning, Mapping) else ''
            keys = meaning['key'] if isinstance(meaning, Mapping) else meaning
            sets += [f'{key}={cell}{unit}' for key in ([keys] if isinstance(keys, str) else keys)]
        return sets

    def label(self, row: Cells) -> str:
        """What tells a point from the others."""
        return ' '.join(f'{column}={row[column]}' for column in self.columns)

    def metric(self, name: str) -> Metric:
        """A metric by the name of its column."""
        return next(metric for metric in self.metrics if metric.name == name)

    def rows_at(self, where: Cells) -> list[int]:
        """Numbers of the points whose cells are these."""
        return [
            n
            for n, row in enumerate(self.rows)
            if all(row[column] == value for column, value in where.items())
        ]
