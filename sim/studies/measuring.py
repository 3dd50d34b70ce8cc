"""One point of a validation target, simulated: a run, a disk alone, a stop, a migration, ioctls.

Each gives a report with dotted names and 95 % intervals by them, as sim.run makes it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sim.analysis import stats
from sim.config import Config, from_effective, load
from sim.control.stopping import Stopping, StopPlan
from sim.costs import load_preset, of_config
from sim.disks.alone import HZ, alone
from sim.errors import ConfigError
from sim.formats.spread import Spread, parse_spread
from sim.migration import migrate
from sim.run import run
from sim.studies.ioctls import trace
from sim.studies.target_data import AHEAD, BEFORE, OWN, OWN_SECTIONS, Parameter, is_time
from sim.units import format_time, parse_time_ns

QUICK = 4  # --quick simulates so many times fewer requests
QUICK_LEAST = 200
SEGMENTS = 16  # of a disk's run, for intervals of percentiles

Report = dict[str, Any]


def simulate(
    kind: str,
    config: Mapping[str, Any],
    own: Mapping[str, Any],
    sets: Sequence[str],
    *,
    quick: bool = False,
    before: Mapping[str, Any] | None = None,
) -> tuple[Config, Report]:
    """The config of a point and its report. Errors: ConfigError.

    `before`: keys of a job that ran in the same host first.
    """
    mine = {f'{kind}.{name}': str(own.get(name, '0')) for name in OWN[kind]}
    first = {key: str(value) for key, value in (before or {}).items()}
    rest = []
    for text in sets:
        key, _, value = text.partition('=')
        if key in mine:
            mine[key] = value
        elif key.startswith(f'{BEFORE}.'):
            first[key.partition('.')[2]] = value
        else:
            rest.append(text)
    words = {key.partition('.')[2]: text for key, text in mine.items()}
    found = load(**config, sets=rest)
    if kind == 'ioctls':
        return found, ioctl_report(found, words['scenario'], words['step'])
    if kind == 'migrate':
        return found, migrate_report(found)
    times = {name: _time(f'{kind}.{name}', text) for name, text in words.items()}
    if quick and kind != 'stop' and (count := found.jobs[0].number_ios):
        fewer = min(count, max(count // QUICK, QUICK_LEAST))
        found = load(**config, sets=[*rest, f'workload.number_ios={fewer}'])
    if kind == 'disk':
        return found, disk_report(found, **times)
    if kind == 'stop':
        found, ahead = _behind(found, first, config, rest)
        plan = StopPlan(at=ahead + times['at'], gap=times['gap'], hold=times['hold'])
        return found, stop_report(found, plan)
    return found, run_report(found)


def _behind(
    found: Config, first: Mapping[str, str], config: Mapping[str, Any], sets: Sequence[str]
) -> tuple[Config, int]:
    """The config with the job `first` before its own, and how much later those begin, in ns.

    Without a number of requests there is none. What it has left behind (the state of a throttle, a
    cache, a disk's head) the point's own job finds.
    """
    keys = {key: value for key, value in first.items() if key != AHEAD}
    if 'number_ios' not in keys:
        return found, 0
    ahead = _time(f'{BEFORE}.{AHEAD}', first.get(AHEAD, '1s'))
    others = [text for text in sets if not text.startswith('workload.')]
    sections = {name: table for name, table in config.items() if name != 'workload'}
    alone = load(**sections, sets=[*others, *(f'workload.{k}={v}' for k, v in keys.items())])
    effective = found.effective()
    later = [format_time(job.startdelay + ahead) for job in found.jobs]
    own = [job | {'startdelay': text} for job, text in zip(effective['job'], later, strict=True)]
    effective['job'] = [alone.effective()['job'][0] | {'name': BEFORE}, *own]
    return from_effective(effective), ahead


def _time(key: str, text: str) -> int:
    try:
        return parse_time_ns(text)
    except ValueError as error:
        raise ConfigError(f'{key}={text}: {error}') from None


def run_report(config: Config) -> Report:
    """The report of a run, and per request what counters and busy shares say of all of them."""
    report, costs = run(config).report, of_config(config)
    prices = {
        'hits': costs.line_hit, 'shared': costs.line_shared, 'transfers': costs.line_transfer
    }  # fmt: skip
    done, seconds = report['requests_completed'], report['simulated_seconds']
    return report | {
        'cpu_ns_per_request': {
            name: share * seconds * 1e9 / done for name, share in report['busy'].items()
        },
        'ring_ns_per_request': {
            core: sum(prices[kind] * lines[kind] for kind in prices)
            * 1e9
            / config.host.cpu_hz
            / done
            for core, lines in report['lines'].items()
        },
        'notifications_per_request': (report['kicks'] + report['interrupts']) / done,
    }


def stop_report(config: Config, plan: StopPlan) -> Report:
    """What sim stop prints, and the number of responses that are errors."""
    stopping = Stopping(config, plan)
    report = stopping.report(run(config, attend=stopping.attend))
    wrong = sum(count for code, count in report['responses'].items() if code not in ('0', 'none'))
    ok = report['responses'].get('0', 0)
    return report | {
        'responses_ok': ok,
        'responses_wrong': wrong,
        'requests_failed': sum(report['responses'].values()) - ok,
        'intervals': {'values': {}},
    }


def migrate_report(config: Config) -> Report:
    """What sim migrate prints."""
    return migrate(config) | {'intervals': {'values': {}}}


_traced: dict[str, dict[str, list[str]]] = {}  # by config id: every step asks for the same trace


def call_of(row: Mapping[str, Any]) -> str:
    """An ioctl as a target's table has it: its name, and what does not differ by machine."""
    words = [str(row['ioctl']).removeprefix('VHOST_')]
    for name in ('index', 'features', 'flags', 'num', 'nregions'):
        if name in row and not (name == 'num' and 'BASE' in row['ioctl']):
            words.append(f'{name}={row[name]:#x}' if name == 'features' else f'{name}={row[name]}')
    return ' '.join([*words, f'answer={row["result"]}'] if row['result'] else words)


def ioctl_report(config: Config, scenario: str, step: str) -> Report:
    """Of the ioctls of a scenario of sim ioctls: how many, and the one of this step, from 1."""
    if config.id not in _traced:
        parts = trace(config).items()
        _traced[config.id] = {name: [call_of(row) for row in rows] for name, rows in parts}
    traced = _traced[config.id]
    if scenario not in traced:
        raise ConfigError(f'ioctls.scenario={scenario}: known are {", ".join(traced)}')
    if not step.isdecimal() or int(step) < 1:
        raise ConfigError(f'ioctls.step={step}: is no number of a step; the first is 1')
    calls = traced[scenario]
    here = calls[int(step) - 1] if int(step) <= len(calls) else 'nothing'
    return {
        'id': config.id,
        'calls': len(calls),
        'call': here,
        'violations': [],
        'intervals': {'values': {}},
    }


def disk_report(config: Config, host_time: int, submission: int) -> Report:
    """A disk without the virtio path, under fio on bare metal (sim.disks.alone).

    `host_time` is a delay of each request between its completion and the next one, `submission` the
    part of it that fio's lat has in it.
    """
    job = config.jobs[0]
    count = job.number_ios or 20_000
    done = alone(
        config.target, depth=job.iodepth, requests=count, rw=job.rw, bs=job.largest,
        rwmixread=job.rwmixread, host_ns=host_time, seed=config.run.seed,
    )  # fmt: skip
    skip = count // (2 if 'write' in job.rw else 8)  # until a cache is full
    latency = 1e3 * done.latency_us[skip:]
    gaps = np.diff(done.done[skip:]) / HZ
    values: dict[str, list[float]] = {}
    rate = stats.ratio_of_batches(np.ones(len(gaps)), gaps)
    iops = done.iops_from(skip)
    if rate.half_width is not None:
        values['iops'] = [iops - rate.half_width, iops + rate.half_width]
    times = {'mean': float(latency.mean())}
    _bound(values, 'mean', times['mean'], [float(p.mean()) for p in _segments(latency)])
    for name, share in (('p50', 0.5), ('p90', 0.9), ('p99', 0.99)):
        times[name] = float(np.quantile(latency, share))
        parts = [float(np.quantile(p, share)) for p in _segments(latency)]
        _bound(values, name, times[name], parts)
    whole = {name: value + submission for name, value in times.items()}
    return {
        'id': config.id,
        'iops': iops,
        'latency_ns': times,
        'fio_lat_ns': whole,
        'violations': [],
        'intervals': {
            'values': {
                **{name: bound for name, bound in values.items() if name == 'iops'},
                **{f'latency_ns.{n}': values[n] for n in times if n in values},
                **{
                    f'fio_lat_ns.{n}': [end + submission for end in values[n]]
                    for n in times
                    if n in values
                },
            }
        },
    }


def _segments(latency: Any) -> list[Any]:
    return np.array_split(latency, SEGMENTS)


def _bound(values: dict[str, list[float]], name: str, value: float, parts: Sequence[float]) -> None:
    half = stats.mean_interval(parts).half_width
    values[name] = [value - half, value + half]


def _at(report: Mapping[str, Any], path: str) -> Any:
    value: Any = report
    for key in path.split('.'):
        if not isinstance(value, Mapping) or key not in value:
            known = ', '.join(sorted(value)) if isinstance(value, Mapping) else 'nothing'
            raise ConfigError(f'the report has no entry {path!r}; at {key!r} there are: {known}')
        value = value[key]
    return value


def text_at(report: Mapping[str, Any], path: str) -> str:
    """The text under a dotted name. Errors: ConfigError where the report has none."""
    value = _at(report, path)
    if not isinstance(value, str):
        raise ConfigError(f'{path} of the report is no text; take out exact = true')
    return value


def number_at(report: Mapping[str, Any], path: str) -> float:
    """The number under a dotted name. Errors: ConfigError where the report has none."""
    value = _at(report, path)
    if value is None:
        reason = report.get('not_reported', {}).get(path, 'nothing was measured for it')
        raise ConfigError(f'{path} is not reported: {reason}')
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f'{path} of the report is no number')
    return float(value)


def parameter_sets(
    parameter: Parameter, value: object, config: Mapping[str, Any], sets: Sequence[str]
) -> list[str]:
    """The keys that a parameter's value sets, as --set writes them."""
    if parameter.form == 'choice':
        return [f'{path}={value}' for path in parameter.paths]
    assert isinstance(value, float)
    if parameter.form == 'value':
        return [f'{path}={_written(path, value)}' for path in parameter.paths]
    found = load(
        **config, sets=[s for s in sets if s.partition('.')[0] not in (*OWN_SECTIONS, BEFORE)]
    )
    return [f'{path}={_scaled(found, path, value)}' for path in parameter.paths]


def said_value(parameter: Parameter, config: Mapping[str, Any]) -> float | None:
    """What the sections say of a parameter that is a value; None where they say nothing."""
    section, _, key = parameter.paths[0].partition('.')
    said = config.get(section, {}).get(key)
    if parameter.form != 'value' or said is None:
        return None
    return float(parse_time_ns(str(said)) if is_time(parameter.paths[0]) else said)


def _written(path: str, value: float) -> str:
    return format_time(max(1, round(value))) if is_time(path) else str(round(value))


def _scaled(config: Config, path: str, factor: float) -> str:
    """What a key says in a config, times a factor."""
    section, _, key = path.partition('.')
    if section == 'costs':
        return format_time(max(1, round(factor * cost_ns(config, key))))
    value = vars(config.jobs[0] if section == 'workload' else getattr(config, section))[key]
    if isinstance(value, str):
        value = parse_spread(value)
    if isinstance(value, Spread):
        points = tuple((p, max(1, round(t * factor))) for p, t in value.points)
        return str(Spread(value.form, points))
    return _written(path, value * factor)


def cost_ns(config: Config, name: str) -> float:
    """A cost in ns: what the config says of it, else the preset."""
    if name in config.costs:
        return config.costs[name]
    preset = load_preset(config.run.preset)
    row = preset.parameters[name]
    return row.value * 1e9 / preset.cpu_hz if row.unit == 'cycles' else row.value
