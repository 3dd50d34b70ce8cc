"""A target file as tables and rows: what is wrong with it is told in one line, with its place."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sim.errors import ConfigError, shown
from sim.formats import nearest, read_text
from sim.formats.toml import read_toml
from sim.studies.target_data import Cells, Metric


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


def rows_of(read: Reader) -> tuple[list[str], tuple[Cells, ...]]:
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


def account_for(read: Reader, header: Sequence[str], named: set[str]) -> None:
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


def text_list(read: Reader, value: Any, dotted: str) -> tuple[str, ...]:
    """A list of texts."""
    if not (isinstance(value, list) and all(isinstance(text, str) for text in value)):
        raise read.wrong(dotted, f'{shown(value)} is no list of texts')
    return tuple(value)


def cells_of(read: Reader, header: Sequence[str], where: Any, dotted: str) -> Cells:
    """{column = value} as the cells of the points that it means."""
    if not isinstance(where, dict) or not where:
        raise read.wrong(dotted, f'{shown(where)} names no point; write {{column = value}}')
    for column in where:
        if column not in header:
            close = nearest(column, header)
            raise read.wrong(dotted, f'the table has no column {column!r}; the nearest: {close!r}')
    return {column: _cell(value) for column, value in where.items()}


def as_text(cells: Cells) -> str:
    """Cells for a message."""
    return ' '.join(f'{column}={value}' for column, value in cells.items())


def check_numbers(read: Reader, rows: Sequence[Cells], metrics: Sequence[Metric]) -> None:
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
