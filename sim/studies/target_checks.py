"""What a target's file asks of its points beside their errors: [[order]], [[sign]], [[bound]]."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sim.studies.target_data import Bound, Order, Sign, Target
from sim.studies.target_reader import Reader, as_text, cells_of

ORDER = ('metric', 'by', 'where', 'tie')
SIGN = ('name', 'metric', 'more', 'less', 'same_within')
BOUND = ('name', 'metric', 'where', 'at_most', 'at_least')


def with_checks(read: Reader, target: Target, header: Sequence[str]) -> Target:
    """The target with its checks, which name points and metrics of it."""
    checks = {
        'orders': tuple(_order(read, target, header, t) for t in read.tables('order', ORDER)),
        'signs': tuple(_sign(read, target, header, t) for t in read.tables('sign', SIGN)),
        'bounds': tuple(_bound(read, target, header, t) for t in read.tables('bound', BOUND)),
    }
    return Target(**{**vars(target), **checks})


def _metric_of(read: Reader, target: Target, table: Mapping[str, Any], dotted: str) -> str:
    names = [metric.name for metric in target.metrics]
    name = str(table.get('metric', names[0]))
    if name not in names:
        raise read.wrong(dotted, f'there is no metric {name!r}; known: {", ".join(names)}')
    if target.metric(name).exact:
        raise read.wrong(dotted, f'{name} is a text: it is neither more nor less')
    return name


def _order(read: Reader, target: Target, header: Sequence[str], table: Mapping[str, Any]) -> Order:
    where, by = table.get('where'), str(table.get('by', ''))
    if by not in target.columns:
        raise read.wrong('order', f'by={by!r} is none of {", ".join(target.columns)}')
    return Order(
        metric=_metric_of(read, target, table, 'order'),
        by=by,
        where=cells_of(read, header, where, 'order.where') if where else {},
        tie=read.number(table, 'tie', 0.03, 'order'),
    )


def _sign(read: Reader, target: Target, header: Sequence[str], table: Mapping[str, Any]) -> Sign:
    sides = [cells_of(read, header, table.get(side), f'sign.{side}') for side in ('more', 'less')]
    for side in sides:
        if len(target.rows_at(side)) != 1:
            found = len(target.rows_at(side))
            raise read.wrong('sign', f'{as_text(side)} are {found} points; name one')
    within = table.get('same_within')
    return Sign(
        name=str(table.get('name', f'{as_text(sides[0])} > {as_text(sides[1])}')),
        metric=_metric_of(read, target, table, 'sign'),
        more=sides[0],
        less=sides[1],
        same_within=None if within is None else float(within),
    )


def _bound(read: Reader, target: Target, header: Sequence[str], table: Mapping[str, Any]) -> Bound:
    cells = cells_of(read, header, table.get('where'), 'bound.where')
    metric = _metric_of(read, target, table, 'bound')
    limits = [read.number(table, 'at_least', -math.inf, 'bound')]
    limits.append(read.number(table, 'at_most', math.inf, 'bound'))
    if not math.isfinite(limits[0]) and not math.isfinite(limits[1]):
        raise read.wrong('bound', 'wants at_most or at_least')
    measured = [float(target.rows[n][metric] or 'nan') for n in target.rows_at(cells)]
    known = [value for value in measured if not math.isnan(value)]
    if not known:
        raise read.wrong('bound', f'no point has {as_text(cells)} and a {metric}')
    if min(known) < limits[0] or max(known) > limits[1]:
        raise read.wrong('bound', f'what was measured at {as_text(cells)} breaks it, too')
    return Bound(
        name=str(table.get('name', f'{metric} of {as_text(cells)}')),
        metric=metric,
        where=cells,
        at_least=limits[0],
        at_most=limits[1],
    )
