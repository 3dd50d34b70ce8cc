"""Validation targets as data: a file with measured points, and how they are to be simulated.

A target file (validation/*.toml; docs/howto/validate.md tells how to write one) has a table of
measured points, the keys of our config that its columns stand for, which numbers of a report its
other columns are to be held against, and which points may be used to fit which parameters. Here it
is read and checked; sim.studies.validate simulates it.
"""

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sim.control.costs import CONTROL_PARAMETERS
from sim.costs import MODEL_PARAMETERS
from sim.errors import ConfigError, shown
from sim.formats import nearest, read_text
from sim.formats.keys import SECTIONS, fields_of
from sim.formats.toml import read_toml
from sim.units import parse_time_ns

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
PARAMETERS_MOST = 4

TOP = (
    'name', 'title', 'source', 'setup', 'verdict', 'kind', 'data', 'points', 'config', 'columns',
    'unused', 'group', 'metrics', 'calibrate', 'order', 'sign',
)  # fmt: skip
METRIC = (
    'report', 'scale', 'excellent', 'acceptable', 'weight', 'relative_to', 'reference', 'exact',
)  # fmt: skip
CALIBRATE = ('points', 'parameters')
PARAMETER = ('low', 'high', 'choices', 'scale')
ORDER = ('metric', 'by', 'where', 'tie')
SIGN = ('name', 'metric', 'more', 'less', 'same_within')

Cells = dict[str, str]  # a point of the table, by column


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
    columns: Mapping[str, Any]
    unused: tuple[str, ...]
    group: str  # a column: errors are also given for each of its words
    metrics: tuple[Metric, ...]
    rows: tuple[Cells, ...]
    calibrates: tuple[bool, ...]
    parameters: tuple[Parameter, ...]
    orders: tuple[Order, ...]
    signs: tuple[Sign, ...]

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


def targets_in(places: Sequence[str]) -> Iterator[Path]:
    """Target files by their paths and those in folders; ConfigError where there is none."""
    for text in places:
        place = Path(text)
        if not place.is_dir():
            yield place
            continue
        found = sorted(place.glob('*.toml'))
        if not found:
            raise ConfigError(f'{place}: no target file (*.toml) lies in this folder')
        yield from found


def shipped_folder() -> Path:
    """Where the shipped targets lie: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).parent.parent
    inside = package / 'validation'
    return inside if inside.is_dir() else package.parent / 'validation'


# ------------------------------------------------------------------------------------- reading ----


class Reader:
    """One file: its tables, and what is wrong with them in one line with file and line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tree, self.where = read_toml(path)

    def wrong(self, dotted: str, problem: str) -> ConfigError:
        """The error to raise."""
        return ConfigError(f'{self.where(dotted, 0)}: {dotted or "the file"}: {problem}')

    def table(self, parent: Any, name: str, known: Sequence[str], dotted: str) -> dict[str, Any]:
        """A table with known keys only; empty if it is not there."""
        table = parent.get(name, {})
        if not isinstance(table, dict):
            raise self.wrong(dotted, f'is a table; write [{dotted}]')
        self.known(table, known, dotted)
        return table

    def known(self, table: Mapping[str, Any], known: Sequence[str], dotted: str) -> None:
        """Raise for a key that is none."""
        for key in table:
            if key not in known:
                place = f'{dotted}.{key}' if dotted else key
                raise self.wrong(place, f'is no key here; the nearest is {nearest(key, known)!r}')

    def text(self, name: str) -> str:
        """A text on one line; empty if it is not there."""
        value = self.tree.get(name, '')
        if not isinstance(value, str):
            raise self.wrong(name, f'{shown(value)} is no text')
        return ' '.join(value.split())

    def number(self, table: Mapping[str, Any], key: str, default: float, dotted: str) -> float:
        """A number, or the default."""
        value = table.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(f'{dotted}.{key}', f'{shown(value)} is no number')
        return float(value)

    def tables(self, name: str, known: Sequence[str]) -> list[dict[str, Any]]:
        """An array of tables with known keys only."""
        tables = self.tree.get(name, [])
        if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
            raise self.wrong(name, f'is a list of tables; write [[{name}]]')
        for table in tables:
            self.known(table, known, name)
        return tables


def load_target(path: Path) -> Target:
    """Read and check a target file. Errors: ConfigError, one line, for whatever makes no sense."""
    read = Reader(path)
    read.known(read.tree, TOP, '')
    name = read.text('name') or path.stem
    kind = read.tree.get('kind', 'run')
    if kind not in KINDS:
        raise read.wrong('kind', f'{shown(kind)} is none of {", ".join(KINDS)}')
    for needed in ('source', 'columns', 'metrics'):
        if not read.tree.get(needed):
            raise read.wrong(needed, 'is missing; a target says where its figures come from')
    header, rows = _rows(read)
    columns = _columns(read, header, kind)
    metrics = _metrics(read, header)
    unused = _texts(read, read.tree.get('unused', []), 'unused')
    _account_for(read, header, {*columns, *(m.name for m in metrics), *unused})
    _numbers(read, rows, metrics)
    group = read.text('group')
    if group and group not in columns:
        raise read.wrong('group', f'{group!r} is none of {", ".join(columns)}')
    config, own = _config(read, kind)
    calibrates, parameters = _calibration(read, header, rows)
    target = Target(
        path=path, name=name, title=read.text('title') or name, source=read.text('source'),
        setup=read.text('setup'), verdict=read.text('verdict'), kind=kind, config=config, own=own,
        columns=columns, unused=unused, group=group, metrics=metrics, rows=rows,
        calibrates=calibrates, parameters=parameters, orders=(), signs=(),
    )  # fmt: skip
    return _with_checks(read, target, header)


def _rows(read: Reader) -> tuple[list[str], tuple[Cells, ...]]:
    """The columns and the points, from the CSV that `data` names or from [[points]]."""
    data, points = read.tree.get('data'), read.tree.get('points')
    if (data is None) == (points is None):
        raise read.wrong('data', 'give the measured points: data = "file.csv", or [[points]]')
    if points is not None:
        given = points if isinstance(points, list) else []
        known = [str(key) for table in given if isinstance(table, dict) for key in table]
        tables = read.tables('points', known)
        header = list(dict.fromkeys(str(key) for table in tables for key in table))
        rows = [{key: _cell(table.get(key, '')) for key in header} for table in tables]
        place = str(read.path)
    else:
        file = read.path.parent / str(data)
        lines = [ln for ln in read_text(file).splitlines() if ln.strip() and ln[0] != '#']
        found = list(csv.reader(lines))
        header = [cell.strip() for cell in found[0]] if found else []
        place = str(file)
        rows = []
        for number, cells in enumerate(found[1:], 1):
            if len(cells) != len(header):
                raise ConfigError(
                    f'{place}: row {number} has {len(cells)} cells, the header has {len(header)}'
                )
            rows.append({key: cell.strip() for key, cell in zip(header, cells, strict=True)})
    if not rows:
        raise ConfigError(f'{place}: the table of measured points is empty; a target needs one')
    twice = [key for key in header if header.count(key) > 1]
    if twice:
        raise ConfigError(f'{place}: column {twice[0]!r} is there twice')
    return header, tuple(rows)


def _cell(value: Any) -> str:
    return {True: 'on', False: 'off'}[value] if isinstance(value, bool) else str(value)


def _account_for(read: Reader, header: Sequence[str], named: set[str]) -> None:
    """Every column is used, and every name that is used is a column."""
    for column in header:
        if column not in named:
            raise read.wrong(
                'columns',
                f'says nothing of column {column!r} of the table; map it, make it a metric, or '
                'name it in unused',
            )
    for name in sorted(named):
        if name not in header:
            close = nearest(name, header)
            raise read.wrong('columns', f'the table has no column {name!r}; the nearest: {close!r}')


def _key_problem(path: str, kind: str) -> str:
    """What is wrong with a dotted key; empty if nothing."""
    section, dot, key = path.replace('-', '_').partition('.')
    own = kind if OWN[kind] else None
    if section == 'costs':
        if key in COSTS:
            return ''
        return f'there is no cost {key!r} that the model charges; the nearest is {_near(key)!r}'
    if section == own and key in OWN[kind]:
        return ''
    if section not in SECTIONS:
        known = [*SECTIONS, 'costs', *([own] if own else [])]
        return f'there is no section {section!r}; known are {", ".join(known)}'
    if not dot or key not in fields_of(section):
        close = nearest(key, fields_of(section))
        return f'there is no key {path!r}; the nearest is {section}.{close}'
    return ''


def _near(key: str) -> str:
    return nearest(key, COSTS)


def _columns(read: Reader, header: Sequence[str], kind: str) -> dict[str, Any]:
    """What each column sets: a key, several, a key with a unit, or for each word its sets."""
    columns = read.tree['columns']
    if not isinstance(columns, dict):
        raise read.wrong('columns', 'is a table; write [columns]')
    for column, meaning in columns.items():
        place = f'columns.{column}'
        if isinstance(meaning, dict) and 'key' in meaning:
            read.known(meaning, ('key', 'unit'), place)
            keys = meaning['key']
        elif not isinstance(meaning, str | list | dict):
            raise read.wrong(place, f'{shown(meaning)} is no key; write "section.key"')
        elif isinstance(meaning, dict):
            for word, sets in meaning.items():
                if not (isinstance(sets, list) and all(isinstance(s, str) for s in sets)):
                    raise read.wrong(f'{place}.{word}', 'write a list of "section.key=value"')
            keys = [s.partition('=')[0] for sets in meaning.values() for s in sets]
        else:
            keys = meaning
        for key in [keys] if isinstance(keys, str) else keys:
            problem = _key_problem(str(key), kind)
            if problem:
                raise read.wrong(place, problem)
    return columns


def _texts(read: Reader, value: Any, dotted: str) -> tuple[str, ...]:
    if not (isinstance(value, list) and all(isinstance(text, str) for text in value)):
        raise read.wrong(dotted, f'{shown(value)} is no list of texts')
    return tuple(value)


def _metrics(read: Reader, header: Sequence[str]) -> tuple[Metric, ...]:
    """The measured columns that are held against a report; the first is the headline."""
    metrics: list[Metric] = []
    if not isinstance(read.tree['metrics'], dict):
        raise read.wrong('metrics', 'is a table of tables; write [metrics.NAME]')
    for name in read.tree['metrics']:
        place = f'metrics.{name}'
        table = read.table(read.tree['metrics'], name, METRIC, place)
        excellent = read.number(table, 'excellent', 0.05, place)
        acceptable = read.number(table, 'acceptable', 2 * excellent, place)
        if not 0 < excellent <= acceptable:
            raise read.wrong(place, 'wants 0 < excellent <= acceptable')
        metrics.append(
            Metric(
                name=name,
                report=str(table.get('report', name)),
                scale=read.number(table, 'scale', 1.0, place),
                excellent=excellent,
                acceptable=acceptable,
                weight=read.number(table, 'weight', 1.0, place),
                relative_to=_texts(read, table.get('relative_to', []), f'{place}.relative_to'),
                reference=str(table.get('reference', '')),
                exact=table.get('exact', False) is True,
            )
        )
    return tuple(metrics)


def _numbers(read: Reader, rows: Sequence[Cells], metrics: Sequence[Metric]) -> None:
    """What was measured is a number, or was not measured."""
    for number, row in enumerate(rows, 1):
        for metric in metrics:
            cell = row.get(metric.name, '')
            if metric.exact:
                continue
            try:
                if cell and not math.isfinite(float(cell)):
                    raise ValueError(cell)
            except ValueError:
                raise ConfigError(
                    f'{read.path}: row {number}: {metric.name}={cell!r} is no number'
                ) from None


def _config(read: Reader, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The sections that all points share, and what is no key of a config."""
    config = read.tree.get('config', {})
    if not isinstance(config, dict):
        raise read.wrong('config', 'is a table of sections; write [config.workload]')
    sections = dict(config)
    own = sections.pop(kind, {}) if OWN[kind] else {}
    read.known(own, OWN[kind], f'config.{kind}')
    for section, table in sections.items():
        if section in SECTIONS and isinstance(table, dict):
            for key in table:
                problem = _key_problem(f'{section}.{key}', kind)
                if problem:
                    raise read.wrong(f'config.{section}.{key}', problem)
    return sections, own


def _calibration(
    read: Reader, header: Sequence[str], rows: Sequence[Cells]
) -> tuple[tuple[bool, ...], tuple[Parameter, ...]]:
    """Which points fit, and what they may move."""
    table = read.table(read.tree, 'calibrate', CALIBRATE, 'calibrate')
    wheres = table.get('points', [])
    if not isinstance(wheres, list):
        raise read.wrong('calibrate.points', 'is a list; write [{ column = value }]')
    chosen = [False] * len(rows)
    for where in wheres:
        cells = _where(read, header, where, 'calibrate.points')
        found = [n for n, row in enumerate(rows) if all(row[c] == v for c, v in cells.items())]
        if not found:
            raise read.wrong('calibrate.points', f'no point has {_said(cells)}')
        for n in found:
            chosen[n] = True
    written = table.get('parameters', {})
    if not isinstance(written, dict):
        raise read.wrong('calibrate.parameters', 'is a table; write [calibrate.parameters]')
    parameters = tuple(_parameter(read, name, said) for name, said in written.items())
    if len(parameters) > PARAMETERS_MOST:
        raise read.wrong('calibrate.parameters', f'at most {PARAMETERS_MOST} may be fitted')
    if parameters and not any(chosen):
        raise read.wrong('calibrate.points', 'parameters are to be fitted, and to no point')
    return tuple(chosen), parameters


def _where(read: Reader, header: Sequence[str], where: Any, dotted: str) -> Cells:
    if not isinstance(where, dict) or not where:
        raise read.wrong(dotted, f'{shown(where)} names no point; write {{column = value}}')
    for column in where:
        if column not in header:
            close = nearest(column, header)
            raise read.wrong(dotted, f'the table has no column {column!r}; the nearest: {close!r}')
    return {column: _cell(value) for column, value in where.items()}


def _said(cells: Cells) -> str:
    return ' '.join(f'{column}={value}' for column, value in cells.items())


def _parameter(read: Reader, name: str, said: Any) -> Parameter:
    """One parameter: [low, high] of a key, {choices}, or {scale = [keys], low, high}."""
    dotted = f'calibrate.parameters.{name}'
    table = {'low': said[0], 'high': said[1]} if isinstance(said, list) and len(said) == 2 else said
    if not isinstance(table, dict):
        raise read.wrong(dotted, 'write [low, high], or a table with choices or scale')
    read.known(table, PARAMETER, dotted)
    scaled = table.get('scale')
    paths = [str(p) for p in ([scaled] if isinstance(scaled, str) else scaled or [name])]
    for word, names in (('costs', TIMES), ('control', CONTROL_PARAMETERS)):
        if scaled is not None and word in paths:
            paths = [p for p in paths if p != word] + [f'costs.{c}' for c in sorted(names)]
    for path in paths:
        problem = _key_problem(path, 'run')
        if problem:
            raise read.wrong(dotted, problem)
    if 'choices' in table:
        choices = table['choices']
        if not isinstance(choices, list) or not choices:
            raise read.wrong(dotted, 'choices is a list of values')
        return Parameter(name=name, paths=tuple(paths), form='choice', choices=tuple(choices))
    form = 'value' if scaled is None else 'scale'
    low, high = (
        _end(read, table.get(end), dotted, time=form == 'value' and is_time(paths[0]))
        for end in ('low', 'high')
    )
    if not 0 < low < high:
        raise read.wrong(dotted, f'wants 0 < low < high, not {low:g} and {high:g}')
    return Parameter(name=name, paths=tuple(paths), form=form, low=low, high=high)


COSTS = MODEL_PARAMETERS | CONTROL_PARAMETERS
# Costs of the data path that are times; the rest are percentages that split one.
TIMES = {name for name in MODEL_PARAMETERS if not re.search(r'share_(of|before)', name)}


def is_time(path: str) -> bool:
    """Is the key a time (or a random time)?"""
    section, _, key = path.partition('.')
    if section == 'costs':
        return key in TIMES | CONTROL_PARAMETERS
    return fields_of(section)[key].metadata['key'].kind in ('time', 'spread')


def _end(read: Reader, value: Any, dotted: str, *, time: bool) -> float:
    try:
        if time and isinstance(value, str):
            return float(parse_time_ns(value))
        return float(value)
    except (TypeError, ValueError):
        raise read.wrong(dotted, f'{shown(value)} is no end of a range') from None


def _with_checks(read: Reader, target: Target, header: Sequence[str]) -> Target:
    """[[order]] and [[sign]], which name points and metrics of the target."""
    names = [metric.name for metric in target.metrics]

    def metric_of(table: Mapping[str, Any], dotted: str) -> str:
        name = str(table.get('metric', names[0]))
        if name not in names:
            raise read.wrong(dotted, f'there is no metric {name!r}; known: {", ".join(names)}')
        if target.metric(name).exact:
            raise read.wrong(dotted, f'{name} is a text: it is neither more nor less')
        return name

    orders = []
    for table in read.tables('order', ORDER):
        where = table.get('where')
        by = str(table.get('by', ''))
        if by not in target.columns:
            raise read.wrong('order', f'by={by!r} is none of {", ".join(target.columns)}')
        orders.append(
            Order(
                metric=metric_of(table, 'order'),
                by=by,
                where=_where(read, header, where, 'order.where') if where else {},
                tie=read.number(table, 'tie', 0.03, 'order'),
            )
        )
    signs = []
    for table in read.tables('sign', SIGN):
        sides = [_where(read, header, table.get(side), f'sign.{side}') for side in ('more', 'less')]
        for side in sides:
            if len(target.rows_at(side)) != 1:
                found = len(target.rows_at(side))
                raise read.wrong('sign', f'{_said(side)} are {found} points; name one')
        within = table.get('same_within')
        signs.append(
            Sign(
                name=str(table.get('name', f'{_said(sides[0])} > {_said(sides[1])}')),
                metric=metric_of(table, 'sign'),
                more=sides[0],
                less=sides[1],
                same_within=None if within is None else float(within),
            )
        )
    return Target(**{**vars(target), 'orders': tuple(orders), 'signs': tuple(signs)})
