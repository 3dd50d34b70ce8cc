"""A validation target, simulated: fitted where it may be, and how wrong the rest comes out.

Calibrated and predicted points are kept apart everywhere: an error of a predicted point is one that
no parameter was moved for. Points that come out badly stay in the table.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sim.errors import ConfigError
from sim.studies import fitting
from sim.studies.measuring import number_at, parameter_sets, said_value, simulate, text_at
from sim.studies.target_data import Bound, Metric, Parameter, Target

BAND = (0.05, 0.95)  # what a point may be that was not recorded in full
BAND_OUTSIDE = 0.2  # so many of the predicted points may lie outside of it for `partly`
ENOUGH = 0.01  # a relative error (rms, weighted) of calibrated points that no fit need better


class Simulator:
    """Simulates points of one target; each set of keys once."""

    def __init__(self, target: Target, *, quick: bool) -> None:
        self.target, self.quick = target, quick
        self.seen: dict[tuple[str, ...], tuple[str, dict[str, Any]]] = {}
        self.violations: list[str] = []

    def report(self, sets: Sequence[str]) -> tuple[str, dict[str, Any]]:
        """(id, report) under these keys."""
        key = tuple(sets)
        if key not in self.seen:
            t = self.target
            config, report = simulate(
                t.kind, t.config, t.own, sets, quick=self.quick, before=t.before
            )
            self.seen[key] = config.id, report
            self.violations += [f'{config.id}: {text}' for text in report['violations']]
        return self.seen[key]

    def value(self, metric: Metric, sets: Sequence[str]) -> tuple[float, list[float] | None]:
        """What the metric is under these keys, and its interval, in the unit of the table.

        Where something was not recorded: its mean over the values of that, and the band in which
        nine of ten lie.
        """
        spread = self._spread(sets)
        if spread:
            found = [metric.scale * self._number(metric, each)[0] for each in spread]
            return float(np.mean(found)), [float(end) for end in np.quantile(found, BAND)]
        value, half = self._number(metric, sets)
        if metric.relative_to:
            other, other_half = self._number(metric, [*sets, *metric.relative_to])
            if other == 0:
                raise ConfigError(f'{metric.report} is 0 under {" ".join(metric.relative_to)}')
            share = math.hypot(half / value, other_half / other) if value else 0.0
            value, half = value / other, share * value / other
        bounds = [metric.scale * (value - half), metric.scale * (value + half)] if half else None
        return metric.scale * value, bounds

    def _spread(self, sets: Sequence[str]) -> list[list[str]]:
        """The keys with each value of what was not recorded, unless they have one of their own."""
        about = self.target.unrecorded
        if about and any(text.startswith(f'{about.key}=') for text in sets):
            return []
        return [[*sets, f'{about.key}={value}'] for value in about.values] if about else []

    def banded(self, sets: Sequence[str]) -> bool:
        """Is a point under these keys a band?"""
        return bool(self._spread(sets))

    def first(self, sets: Sequence[str]) -> list[str]:
        """The keys, with the first value of what was not recorded."""
        return (self._spread(sets) or [list(sets)])[0]

    def text(self, metric: Metric, sets: Sequence[str]) -> str:
        """What a metric that is a text says under these keys."""
        return text_at(self.report(sets)[1], metric.report)

    def _number(self, metric: Metric, sets: Sequence[str]) -> tuple[float, float]:
        """The number and half the width of its interval; 0 where it has none."""
        _, report = self.report(sets)
        value = number_at(report, metric.report)
        bounds = report['intervals']['values'].get(metric.report)
        ends = [end for end in bounds or () if end is not None]
        return value, max((abs(end - value) for end in ends), default=0.0)


def validate(target: Target, *, quick: bool = False) -> dict[str, Any]:
    """Fit what may be fitted, simulate every point, and judge. Errors: ConfigError, one line."""
    simulator = Simulator(target, quick=quick)
    fitted, extra = _fitted(target, simulator)
    rows: list[dict[str, Any]] = []
    for number, row in enumerate(target.rows):
        rows += _rows_of(target, simulator, number, row, extra(number))
    judged = {m.name: _of_metric(target, m, rows) for m in target.metrics}
    headline = judged[target.metrics[0].name]
    result = {
        'name': target.name,
        'title': target.title,
        'file': target.path.name,
        'source': target.source,
        'setup': target.setup,
        'verdict': target.verdict,
        'kind': target.kind,
        'points': len(target.rows),
        'calibrated': sum(target.calibrates),
        'predicted': len(target.rows) - sum(target.calibrates),
        'fitted_scalars': len(target.parameters),
        'fitted': fitted,
        'mape_predicted': headline['mape_predicted'],
        'metrics': judged,
        'orders': [_order(target, order, rows) for order in target.orders],
        'signs': [_sign(target, sign, rows) for sign in target.signs],
        'bounds': [_bound(bound, target.rows_at(bound.where), rows) for bound in target.bounds],
        'unrecorded': None
        if target.unrecorded is None
        else {'key': target.unrecorded.key, 'values': list(target.unrecorded.values)},
        'rows': rows,
        'violations': simulator.violations,
    }
    return result | {'outcome': outcome_of(result)}


# --------------------------------------------------------------------------------- calibration ----


def _fitted(target: Target, simulator: Simulator) -> tuple[dict[str, Any], Any]:
    """The fitted values by parameter, and the keys that they set at each point."""
    base = [target.sets_of(row) for row in target.rows]
    smooth = [p for p in target.parameters if p.form != 'choice']
    discrete = [p for p in target.parameters if p.form == 'choice']
    chosen = [n for n, calibrates in enumerate(target.calibrates) if calibrates]

    def keys(number: int, values: Mapping[str, object]) -> list[str]:
        return [
            text
            for p in target.parameters
            for text in parameter_sets(p, values[p.name], target.config, base[number])
        ]

    def residuals(values: Mapping[str, object]) -> Any:
        found = []
        for number in chosen:
            sets = [*base[number], *keys(number, values)]
            for metric in target.metrics:
                cell = target.rows[number][metric.name]
                if cell and metric.weight and not metric.exact:
                    if float(cell) <= 0:
                        raise ConfigError(
                            f'{target.path}: {target.label(target.rows[number])}: {metric.name}='
                            f'{cell}: a fit goes by ratios, of figures above 0; use weight = 0'
                        )
                    value, _ = simulator.value(metric, sets)
                    ratio = max(value, 1e-12) / float(cell)
                    found.append(math.sqrt(metric.weight) * math.log(ratio))
        return np.array(found)

    if not target.parameters:
        return {}, lambda number: []
    best: tuple[float, dict[str, Any]] = (math.inf, {})
    for picked in itertools.product(*(p.choices for p in discrete)):
        fixed = dict(zip((p.name for p in discrete), picked, strict=True))
        total, values = _smooth_fit(smooth, fixed, residuals, target.config)
        best = min(best, (total, values), key=lambda pair: pair[0])
    values = best[1]
    return {name: _plain(p, values[p.name]) for p in target.parameters for name in [p.name]}, (
        lambda number: keys(number, values)
    )


def _smooth_fit(
    smooth: Sequence[Parameter],
    fixed: Mapping[str, object],
    residuals: Any,
    config: Mapping[str, Any],
) -> tuple[float, dict[str, Any]]:
    """The best values of the parameters that are no choices, and their sum of squares.

    What the shared config says of all of them is one of the places to start from.
    """
    names = [p.name for p in smooth]
    if not smooth:
        left = residuals(fixed)
        return float(left @ left), dict(fixed)
    said = [v for p in smooth if (v := said_value(p, config)) is not None]
    found, _ = fitting.fit(
        lambda values: residuals({**fixed, **dict(zip(names, values, strict=True))}),
        [p.low for p in smooth],
        [p.high for p in smooth],
        said if len(said) == len(smooth) else None,
        enough=ENOUGH**2,
    )
    return found.total, {**fixed, **dict(zip(names, found.values, strict=True))}


def _plain(parameter: Parameter, value: Any) -> dict[str, Any]:
    """A fitted value for the report: with its range, and whether it lies at an end of it."""
    if parameter.form == 'choice':
        return {'value': value, 'choices': list(parameter.choices)}
    ends = {'low': parameter.low, 'high': parameter.high}
    at_end = not 1.02 * parameter.low < value < parameter.high / 1.02
    return {'value': value, **ends, 'form': parameter.form, 'at_end_of_range': at_end}


# -------------------------------------------------------------------------------------- points ----


def _rows_of(
    target: Target, simulator: Simulator, number: int, row: Mapping[str, str], extra: list[str]
) -> list[dict[str, Any]]:
    """An entry for each metric that was measured at a point."""
    sets = [*target.sets_of(dict(row)), *extra]
    entries = []
    for metric in target.metrics:
        if not row[metric.name]:
            continue
        try:
            measured, value, interval, error = _compared(metric, simulator, row[metric.name], sets)
        except ConfigError as wrong:
            raise ConfigError(
                f'{target.path}: point {number + 1} ({target.label(dict(row))}): {wrong}'
            ) from None
        entries.append(
            {
                'point': target.label(dict(row)),
                'number': number,
                'metric': metric.name,
                'role': 'calibrated' if target.calibrates[number] else 'predicted',
                'measured': measured,
                'simulated': value,
                'interval': interval,
                'error': error if math.isfinite(error) else None,
                'grade': _grade(metric, error)
                if not simulator.banded(sets)
                else _in_band(metric, row[metric.name], interval),
                'id': simulator.report(simulator.first(sets))[0],
            }
        )
    return entries


def _compared(
    metric: Metric, simulator: Simulator, cell: str, sets: Sequence[str]
) -> tuple[float | str, float | str, list[float] | None, float]:
    """Measured, simulated, its interval and the relative error: of a text 0, or 1 if it differs."""
    if metric.exact:
        text = simulator.text(metric, sets)
        return cell, text, None, float(text != cell)
    measured = float(cell)
    value, interval = simulator.value(metric, sets)
    error = value / measured - 1 if measured else (0.0 if value == measured else math.inf)
    return measured, value, interval, error


def _grade(metric: Metric, error: float) -> str:
    size = abs(error)
    if size <= metric.excellent:
        return 'excellent'
    return 'acceptable' if size <= metric.acceptable else 'beyond'


def _in_band(metric: Metric, cell: str, band: Sequence[float] | None) -> str:
    """Is the measured value in the band, widened by the acceptable error?"""
    assert band is not None
    low, high = band[0] * (1 - metric.acceptable), band[1] * (1 + metric.acceptable)
    return 'inside' if low <= float(cell) <= high else 'beyond'


# ----------------------------------------------------------------------------------- judgement ----


def _of_metric(target: Target, metric: Metric, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean errors of one metric, calibrated and predicted apart, and the rank correlation."""
    mine = [row for row in rows if row['metric'] == metric.name]
    found: dict[str, Any] = {'excellent': metric.excellent, 'acceptable': metric.acceptable}
    for role in ('predicted', 'calibrated'):
        known = [row for row in mine if row['role'] == role and row['error'] is not None]
        errors = [abs(row['error']) for row in known]
        found[f'mape_{role}'] = 100 * float(np.mean(errors)) if errors else None
        found[f'worst_{role}'] = 100 * max(errors) if errors else None
    found['beyond'] = sum(row['grade'] == 'beyond' for row in mine if row['role'] == 'predicted')
    found['exact'] = metric.exact
    found['rank_correlation'] = None
    if not metric.exact:
        found['rank_correlation'] = rank_correlation(
            [row['measured'] for row in mine], [row['simulated'] for row in mine]
        )
    if target.group:
        words = dict.fromkeys(row[target.group] for row in target.rows)
        found['mape_predicted_by'] = {
            f'{target.group}={word}': _mape(mine, target.rows_at({target.group: word}))
            for word in words
        }
    return found


def _mape(rows: Sequence[Mapping[str, Any]], numbers: Sequence[int]) -> float | None:
    """In %, of the predicted ones among these points."""
    errors = [
        abs(row['error'])
        for row in rows
        if row['role'] == 'predicted' and row['number'] in numbers and row['error'] is not None
    ]
    return 100 * float(np.mean(errors)) if errors else None


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's, ties at their mean rank; None below three points or where all are alike."""
    if len(a) < 3 or len(set(a)) == 1 or len(set(b)) == 1:
        return None
    import pandas as pd

    ranks = [pd.Series(list(values)).rank().to_numpy() for values in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def _order(target: Target, order: Any, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Do the simulated values rank as the measured ones? Near ties of the measured may swap."""
    numbers = target.rows_at(order.where)
    mine = [row for row in rows if row['metric'] == order.metric and row['number'] in numbers]
    wrong = [
        f'{a["point"]} against {b["point"]}'
        for a, b in itertools.combinations(mine, 2)
        if abs(a['measured'] / b['measured'] - 1) > order.tie
        and (a['measured'] - b['measured']) * (a['simulated'] - b['simulated']) <= 0
    ]
    where = ''.join(f', {column}={value}' for column, value in order.where.items())
    return {'name': f'{order.metric} by {order.by}{where}', 'holds': not wrong, 'wrong': wrong}


def _sign(target: Target, sign: Any, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One point against another, as measured and as simulated."""
    sides = []
    for where in (sign.more, sign.less):
        number = target.rows_at(where)[0]
        found = [r for r in rows if r['metric'] == sign.metric and r['number'] == number]
        if not found:
            raise ConfigError(f'{target.path}: sign {sign.name!r}: {sign.metric} was not measured')
        sides.append(found[0])
    measured, simulated = (
        sides[0][which] / sides[1][which] if sides[1][which] else math.inf
        for which in ('measured', 'simulated')
    )
    if sign.same_within is None:
        holds = simulated > 1
    else:
        holds = abs(simulated - 1) <= sign.same_within
    return {'name': sign.name, 'holds': holds, 'measured': measured, 'simulated': simulated}


def _bound(
    bound: Bound, numbers: Sequence[int], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The least or the greatest value of these points, as measured and as simulated.

    Where a point has an interval (or a band), its ends count.
    """
    mine = [row for row in rows if row['metric'] == bound.metric and row['number'] in numbers]
    found = {
        'measured': [row['measured'] for row in mine],
        'simulated': [end for row in mine for end in (row['interval'] or [row['simulated']])],
    }
    low, high = min(found['simulated']), max(found['simulated'])
    return {
        'name': bound.name,
        'holds': bound.at_least <= low and high <= bound.at_most,
        'at_least': bound.at_least if math.isfinite(bound.at_least) else None,
        'at_most': bound.at_most if math.isfinite(bound.at_most) else None,
        **{which: [min(values), max(values)] for which, values in found.items()},
    }


def outcome_of(result: Mapping[str, Any]) -> str:
    """In words: reproduced, partly, not reproduced, or calibrated only.

    Reproduced: no predicted point is beyond the acceptable error, and every check holds. Partly:
    the mean error of the headline metric's predicted points is acceptable; where something was not
    recorded, at most one in five of them lies outside its band.
    """
    checks = [*result['orders'], *result['signs'], *result['bounds']]
    if result['predicted'] == 0 and not checks:
        return 'calibrated only'
    metrics = list(result['metrics'].values())
    if all(m['beyond'] == 0 for m in metrics) and all(check['holds'] for check in checks):
        return 'reproduced'
    mape = metrics[0]['mape_predicted']
    if result['unrecorded']:
        near = metrics[0]['beyond'] <= BAND_OUTSIDE * result['predicted']
        return 'partly' if near else 'not reproduced'
    near = mape is None or mape <= 100 * metrics[0]['acceptable']
    return 'partly' if near else 'not reproduced'
