"""python -m sim calibrate: named parameters fitted to what fio measured on a user's own machine.

Residuals are differences of logarithms in units of their standard errors, those of the measurement
and those of the simulation together. A parameter's interval is its profile: the range within which
the other parameters can keep the sum of squares below its least value by the 95 % point of t
squared, scaled by what is left over (a model that does not fit says less about its parameters).
What the data cannot tell apart is said, and not hidden behind a number.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sim.config import Config, load
from sim.costs import load_preset
from sim.errors import ConfigError, shown
from sim.formats import Given, nearest
from sim.formats.fio_measured import Measured, Observation, read_measured
from sim.formats.keys import fields_of
from sim.pools import Here, Pool
from sim.run import run
from sim.studies import fitting
from sim.studies.measuring import cost_ns, number_at, parameter_sets
from sim.studies.target_data import COSTS, Parameter, is_time
from sim.units import parse_time_ns

METRICS = ('iops', 'mean', 'p50', 'p90', 'p99', 'p999')
DEFAULT_METRICS = ('iops', 'p50', 'p99')
PARAMETERS_MOST = 4
WIDTH = 8.0  # a range that nobody gave: the value divided and multiplied by it
SIMULATED = 0.002  # relative error of a simulated number that has no interval
REQUESTS = 4000


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is fitted to what. `base` are sources of a config without jobs, as load() takes them."""

    measured: tuple[Measured, ...]
    parameters: tuple[Parameter, ...]
    metrics: tuple[str, ...]
    base: Mapping[str, Any]
    sets: tuple[str, ...]
    requests: int

    def config(self, file: Measured, more: Sequence[str] = ()) -> Config:
        """The config of one measured run."""
        return load(**self.base, job=self.jobs(file), sets=[*self.sets, *more])

    def jobs(self, file: Measured) -> list[dict[str, Any]]:
        """Its jobs. Side by side they end together, as fio's do, if the fit is good."""
        counts = [max(1, round(self.requests * share)) for share in file.shares]
        where = '--requests'
        return [
            {**job, 'number_ios': Given(str(count), where)}
            for job, count in zip(file.jobs, counts, strict=True)
        ]


def task_of(
    files: Sequence[str | Path],
    fit: Sequence[str],
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    sets: Sequence[str] = (),
    requests: int = REQUESTS,
    **base: Any,
) -> Task:
    """What is to be fitted to fio's files, as the options of sim calibrate say it.

    `base` are sources of the rest of the machine: toml, device. Errors: ConfigError.
    """
    for metric in metrics:
        if metric not in METRICS:
            raise ConfigError(f'--metrics {metric}: is none of {", ".join(METRICS)}')
    task = Task(
        measured=tuple(read_measured(path) for path in files), parameters=(),
        metrics=tuple(metrics), base=base, sets=tuple(sets), requests=requests,
    )  # fmt: skip
    config = task.config(task.measured[0])
    words = [word for text in fit for word in text.split(',') if word.strip()]
    return replace(task, parameters=tuple(parse_parameter(word, config) for word in words))


def parse_parameter(text: str, config: Config) -> Parameter:
    """A parameter as --fit gives it: PARAM or PARAM=LOW..HIGH; random times are scaled as a whole.

    Errors: ConfigError for an unknown one or a range that makes no sense.
    """
    path, equals, range_ = (part.strip() for part in text.partition('='))
    section, _, key = path.partition('.')
    known = [*(f'costs.{c}' for c in sorted(COSTS)), *(f'target.{k}' for k in fields_of('target'))]
    if path not in known and f'costs.{path}' in known:
        section, key, path = 'costs', path, f'costs.{path}'
    if path not in known:
        close = nearest(path, known)
        raise ConfigError(f'--fit {shown(path)}: there is no such parameter; the nearest: {close}')
    kind = 'time' if section == 'costs' else fields_of('target')[key].metadata['key'].kind
    if kind not in ('time', 'spread', 'int', 'size') or (section == 'costs' and not is_time(path)):
        raise ConfigError(f'--fit {path}: is no quantity that can be moved continuously')
    scaled = kind == 'spread'
    if equals:
        low, dots, high = range_.partition('..')
        try:
            ends = [float(e) if scaled or kind != 'time' else parse_time_ns(e) for e in (low, high)]
        except ValueError:
            ends = []
        if not dots or len(ends) != 2 or not 0 < ends[0] < ends[1]:
            raise ConfigError(f'--fit {shown(text)}: write {path}=LOW..HIGH, as in 20us..200us')
    elif scaled:
        ends = [1 / WIDTH, WIDTH]
    else:
        value = cost_ns(config, key) if section == 'costs' else float(getattr(config.target, key))
        if value <= 0:
            raise ConfigError(f'--fit {path}: is 0 now; give it a range, as in {path}=1us..50us')
        ends = [value / WIDTH, value * WIDTH]
    return Parameter(
        name=path, paths=(path,), form='scale' if scaled else 'value',
        low=float(ends[0]), high=float(ends[1]),
    )  # fmt: skip


def calibrate(task: Task, pool: Pool | None = None) -> dict[str, Any]:
    """Fit, profile, and say what is left; runs are simulated in the pool. Errors: ConfigError."""
    if not 0 < len(task.parameters) <= PARAMETERS_MOST:
        raise ConfigError(f'--fit: give one to {PARAMETERS_MOST} parameters')
    runs = _Runs(task, pool or Here())
    start = [_start(task, p) for p in task.parameters]
    chosen = runs.chosen
    if len(chosen) < len(task.parameters):
        raise ConfigError(
            f'{len(chosen)} numbers were measured and {len(task.parameters)} parameters are asked '
            'for; give more files or fit fewer'
        )
    sigma = runs.sigmas(tuple(start))

    def residuals(values: tuple[float, ...]) -> Any:
        simulated = runs.numbers(values)
        return np.array(
            [math.log(max(simulated[n], 1e-9) / runs.all[n][1].value) / sigma[n] for n in chosen]
        )

    low, high = [p.low for p in task.parameters], [p.high for p in task.parameters]
    found, space = fitting.fit(residuals, low, high, start, enough=1.0, ahead=runs.simulate)
    freedom = len(chosen) - len(task.parameters)
    scale = max(1.0, found.total / freedom) if freedom > 0 else 1.0
    rise = scale * _t975(freedom) ** 2
    names = [p.name for p in task.parameters]
    unknown = fitting.undetermined(found, names)
    fitted = []
    for index, parameter in enumerate(task.parameters):
        ends = fitting.profile(space, found, index, rise)
        fitted.append(_told(parameter, found.values[index], ends))
    numbers = runs.numbers(found.values)
    return {
        'fitted': fitted,
        'undetermined': unknown,
        'chi2': found.total,
        'degrees_of_freedom': freedom,
        'scale': scale,
        'rms_error': _rms([math.log(numbers[n] / runs.all[n][1].value) for n in chosen]),
        'rows': [
            {
                'file': str(file.path),
                'job': seen.job,
                'op': seen.op,
                'metric': seen.metric,
                'measured': seen.value,
                'simulated': numbers[n],
                'error': numbers[n] / seen.value - 1,
                'sigma': sigma[n],
                'fitted': n in chosen,
            }
            for n, (file, seen) in enumerate(runs.all)
            if n in numbers
        ],
        'requests': task.requests,
        'simulations': runs.count,
        'violations': runs.violations,
        'notes': [note for file in task.measured for note in file.notes],
    }


def _told(
    parameter: Parameter, value: float, ends: tuple[float | None, float | None]
) -> dict[str, Any]:
    """A fitted parameter with its interval; None: not bounded within its range."""
    time = parameter.form == 'value' and is_time(parameter.paths[0])
    return {
        'parameter': parameter.name,
        'value': value,
        'unit': 'factor' if parameter.form == 'scale' else 'ns' if time else '',
        'interval': list(ends),
        'range': [parameter.low, parameter.high],
        'bounded': None not in ends,
    }


def _start(task: Task, parameter: Parameter) -> float:
    """Where the parameter stands now, or the middle of a range that does not hold that."""
    if parameter.form == 'scale':
        now = 1.0
    else:
        config = task.config(task.measured[0])
        section, _, key = parameter.name.partition('.')
        now = cost_ns(config, key) if section == 'costs' else float(getattr(config.target, key))
    inside = parameter.low <= now <= parameter.high
    return now if inside else math.sqrt(parameter.low * parameter.high)


def _rms(values: Sequence[float]) -> float:
    return math.sqrt(sum(v * v for v in values) / len(values))


def _t975(freedom: int) -> float:
    """The 97.5 % point of Student's t; of the normal where nothing is left to estimate from."""
    from scipy import stats

    return float(stats.t.ppf(0.975, freedom)) if freedom > 0 else 1.96


class _Runs:
    """Simulates every file under parameter values, and reads off what was measured."""

    def __init__(self, task: Task, pool: Pool) -> None:
        self.task = task
        self.pool = pool
        self.all: list[tuple[Measured, Observation]] = [
            (file, seen) for file in task.measured for seen in file.observations
        ]
        wanted = task.metrics
        self.chosen = [n for n, (_, seen) in enumerate(self.all) if seen.metric in wanted]
        self.count = 0
        self.violations: list[str] = []
        self.seen: dict[tuple[float, ...], dict[int, float]] = {}
        self.halves: dict[int, float] = {}

    def numbers(self, values: tuple[float, ...]) -> dict[int, float]:
        """The simulated number of each observation."""
        self.simulate([values])
        return self.seen[values]

    def simulate(self, wanted: Sequence[tuple[float, ...]]) -> None:
        """Every file under each of the values that have not been simulated, all at once."""
        new = [values for values in dict.fromkeys(wanted) if values not in self.seen]
        calls = [
            (place, number, self._config(file, values))
            for place, values in enumerate(new)
            for number, file in enumerate(self.task.measured)
        ]
        found: dict[tuple[int, int], dict[int, float]] = {}
        for place, number, report in self.pool.map(_simulated, calls):
            found[place, number] = self._numbers(self.task.measured[number], report)
            self.violations += report['violations']
        self.count += len(calls)
        for place, values in enumerate(new):
            self.seen[values] = {}
            for number in range(len(self.task.measured)):
                self.seen[values] |= found[place, number]

    def _config(self, file: Measured, values: tuple[float, ...]) -> Config:
        sets = [
            text
            for parameter, value in zip(self.task.parameters, values, strict=True)
            for text in parameter_sets(parameter, value, *self._base(file))
        ]
        return self.task.config(file, sets)

    def _numbers(self, file: Measured, report: Mapping[str, Any]) -> dict[int, float]:
        """What was observed in a file, in a report of it."""
        found = {}
        alone = len(file.jobs) == 1
        for n, (of, seen) in enumerate(self.all):
            if of is not file:
                continue
            path = _path(seen)
            try:
                found[n] = number_at(report, path)
            except ConfigError as error:
                if n in self.chosen:
                    raise ConfigError(
                        f'{file.path}: {seen.metric}: {error} (--requests; or leave it out of '
                        '--metrics)'
                    ) from None
                continue
            whole = path.split('.', 3)[-1] if seen.op else 'iops'
            bounds = report['intervals']['values'].get(whole) if alone else None
            ends = [end for end in bounds or () if end is not None]
            half = max((abs(end - found[n]) for end in ends), default=0.0)
            self.halves[n] = half / found[n] if found[n] else 0.0
        return found

    def _base(self, file: Measured) -> tuple[Mapping[str, Any], list[str]]:
        """What parameter_sets() needs to know of a config: its sections and sets."""
        sections = {k: v for k, v in self.task.base.items() if v is not None}
        return {**sections, 'job': self.task.jobs(file)}, list(self.task.sets)

    def sigmas(self, values: tuple[float, ...]) -> dict[int, float]:
        """Relative standard errors: of the measurement and of the simulation together."""
        self.numbers(values)
        return {
            n: math.hypot(seen.sigma, max(self.halves.get(n, 0.0) / 1.96, SIMULATED))
            for n, (_, seen) in enumerate(self.all)
        }


def _simulated(place: int, number: int, config: Config) -> tuple[int, int, dict[str, Any]]:
    """In a worker: the report of a run, and which one it is."""
    return place, number, run(config).report


def _path(seen: Observation) -> str:
    """Where the report has a number."""
    if seen.metric == 'iops':
        return f'jobs.{seen.job}.iops'
    return f'jobs.{seen.job}.{seen.op}.fio_lat_ns.{seen.metric}'


# ---------------------------------------------------------------------------------------- presets


def preset_texts(task: Task, found: Mapping[str, Any]) -> dict[str, str]:
    """The fitted values as presets, by kind: costs for run.preset, disk for target.disk."""
    config = task.config(task.measured[0])
    source = 'sim calibrate on ' + ', '.join(file.path.name for file in task.measured)
    costs = [f for f in found['fitted'] if f['parameter'].startswith('costs.')]
    disks = [f for f in found['fitted'] if f['parameter'].startswith('target.')]
    texts = {}
    if costs:
        texts['costs'] = _cost_preset(config, costs, source)
    if disks:
        texts['disk'] = _disk_preset(task, config, found, source)
    return texts


def _cost_preset(config: Config, costs: Sequence[Mapping[str, Any]], source: str) -> str:
    """The preset of the config with the fitted rows in it, in its own unit."""
    from sim.formats.toml import toml_table

    preset = load_preset(config.run.preset)
    fitted = {f['parameter'].removeprefix('costs.'): f for f in costs}
    lines = [
        f'# {preset.name} with rows fitted by {source}.',
        f'name = "{preset.name} calibrated"',
        f'cpu_hz = {preset.cpu_hz}',
        '',
    ]
    for name, row in preset.parameters.items():
        table: dict[str, Any] = {
            'value': row.value, 'unit': row.unit, 'min': row.minimum, 'max': row.maximum,
            'grade': row.grade, 'role': row.role, 'source': row.source,
        }  # fmt: skip
        if name in fitted:
            per_ns = preset.cpu_hz / 1e9 if row.unit == 'cycles' else 1.0
            low, high = (
                row_end if end is None else end * per_ns
                for end, row_end in zip(
                    fitted[name]['interval'], (row.minimum, row.maximum), strict=True
                )
            )
            table |= {
                'value': round(fitted[name]['value'] * per_ns),
                'min': None if low is None else round(low),
                'max': None if high is None else round(high),
                'grade': 'B' if fitted[name]['bounded'] else 'C',
                'source': f'{source}; range: its 95 % profile interval',
            }
        lines.append(_table(name, table, toml_table))
    return '\n'.join(lines)


def _table(name: str, table: Mapping[str, Any], write: Any) -> str:
    plain = {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in table.items()}
    return str(write(f'["{name}"]', plain))


def _disk_preset(task: Task, config: Config, found: Mapping[str, Any], source: str) -> str:
    """[target] of the config with the fitted keys, as a disk preset."""
    from sim.formats.toml import toml_table

    values = {f['parameter']: f['value'] for f in found['fitted']}
    file = task.measured[0]
    base = {k: v for k, v in task.base.items() if v is not None}
    base['job'] = task.jobs(file)
    sets = [
        text
        for p in task.parameters
        for text in parameter_sets(p, values[p.name], base, list(task.sets))
    ]
    target = task.config(file, sets).effective()['target']
    table = {k: v for k, v in target.items() if k not in ('luns', 'disk', 'size') and v is not None}
    lines = [
        f'# Fitted by {source}: measured through the whole path, whose costs are those of',
        f'# {config.run.preset}; what these get wrong is in here.',
        '',
        'name = "calibrated"',
        f'summary = "{source}"',
        'grade = "B"',
        '',
        toml_table('[target]', table),
        '[fit]',
        f'rms_error_percent = {100 * found["rms_error"]:.2f}',
    ]
    for one in found['fitted']:
        ends = ['' if end is None else f'{end:.5g}' for end in one['interval']]
        lines.append(
            f'# {one["parameter"]} = {one["value"]:.5g} {one["unit"]}, 95 %: {ends[0]} .. {ends[1]}'
        )
    return '\n'.join(lines) + '\n'
