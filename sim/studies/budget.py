"""python -m sim budget --target "p99<200us" --find KEY=LOW..HIGH: where a target is met.

Bisection over one number, for each value of the others. A point is simulated under several seeds,
the same for all points; it meets the target if the whole 95 % interval of each metric does, and
fails it if one lies wholly beyond. More seeds are taken where neither holds. What is said is
therefore a bracket: met up to here, failed from there on, and in between not decided.

Bisection believes that there is one boundary. Both ends are simulated, so a target that is met at
neither, at both or at one of them is told apart; several boundaries inside are not found.
"""

import argparse
import itertools
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sim.analysis import stats
from sim.config import Config, load
from sim.errors import ConfigError, shown
from sim.formats import Given
from sim.formats.keys import SECTIONS, fields_of
from sim.formats.values import convert
from sim.options import config_sources
from sim.pools import Pool, open_pool
from sim.replicate import replication
from sim.run import run
from sim.units import format_size, format_time, parse_time_ns

TIMES = ('mean', 'p50', 'p90', 'p99', 'p999', 'max')
MORE = 4  # so many times the replications at most
LOAD = 'load'
DEPTH = 128  # requests in flight of an open loop: Linux's queue depth of a LUN
OPEN_LOOP = (  # what configured() sets
    'workload.io_submit_mode', 'workload.rate_process', 'workload.rate_iops', 'workload.iodepth',
)  # fmt: skip
MET, FAILED, UNDECIDED = 'met', 'failed', 'undecided'
COUNT = re.compile(r'([0-9]+(?:\.[0-9]+)?)\s*([kKmM]?)')


@dataclass(frozen=True, kw_only=True)
class Target:
    """One bound on a metric of the report; `bound` in ns or per second."""

    metric: str
    below: bool
    bound: float

    def __str__(self) -> str:
        name = self.metric.removeprefix('latency_ns.')
        bound = f'{self.bound:.0f}' if name == 'iops' else format_time(int(self.bound))
        return f'{name}{"<" if self.below else ">"}{bound}'


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is searched: values from `low` to `high`, whole numbers; `say` writes one for --set."""

    name: str
    low: int
    high: int
    say: Callable[[int], str]
    powers: bool = False  # of two only


def main(options: argparse.Namespace) -> int:
    """Search; the exit code."""
    if options.replications < 2:
        raise ConfigError(f'--replications {options.replications}: an interval takes at least 2')
    targets = [parse_target(text) for text in options.target]
    search = parse_search(options.find)
    at = None if options.at is None else parse_count('--at', options.at)
    if at is not None and search.name == LOAD:
        raise ConfigError('--at and --find load=...: give one of them')
    seed = [] if options.seed is None else [f'run.seed={options.seed}']
    over = [parse_over(text) for text in options.over]
    if at is not None or search.name == LOAD:
        refuse_loop_keys([('--find', search.name), *(('--over', path) for path, _ in over)])
    rows = []
    with open_pool(options.backend, options.jobs, options.scheduler) as pool:
        for values in itertools.product(*(choices for _, choices in over)):
            chosen = [f'{path}={value}' for (path, _), value in zip(over, values, strict=True)]

            def point(value: int, chosen: Sequence[str] = chosen) -> Config:
                sets = [*options.sets, *seed, *chosen]
                offered = value if search.name == LOAD else at
                if search.name != LOAD:
                    sets.append(f'{search.name}={search.say(value)}')
                return configured(options, sets, offered)

            found = bisect(
                search, targets, point, pool, options.replications, share_of(options.resolution)
            )
            rows.append({'over': dict(item.split('=', 1) for item in chosen), **found})
    report = {
        'targets': [str(target) for target in targets],
        'at': at,
        'find': search.name,
        'low': search.low,
        'high': search.high,
        'rows': rows,
    }
    print(json.dumps(report) if options.json else printed(report, search))
    for broken in (text for row in rows for text in row['violations']):
        print(f'violation: {broken}', file=sys.stderr)
    return 1 if any(row['violations'] for row in rows) else 0


# ------------------------------------------------------------------------------- what was written


def parse_count(name: str, text: str) -> int:
    """Requests per second: '300000', '300k', '1.2m', of thousands."""
    match = COUNT.fullmatch(text.strip())
    if not match or not float(match[1]):
        raise ConfigError(f'{name} {shown(text)}: write a number per second, as in 300k (of 1000)')
    return round(float(match[1]) * {'': 1, 'k': 1_000, 'm': 1_000_000}[match[2].lower()])


def parse_target(text: str) -> Target:
    """'p99<200us', 'iops>250k'. Errors: ConfigError."""
    match = re.fullmatch(r'\s*([a-z0-9]+)\s*([<>])\s*(\S+)\s*', text)
    if not match or match[1] not in (*TIMES, 'iops'):
        known = ', '.join((*TIMES, 'iops'))
        raise ConfigError(f'--target {shown(text)}: write METRIC<BOUND; metrics: {known}')
    if match[1] == 'iops':
        bound: int = parse_count(f'--target {match[1]}{match[2]}', match[3])
    else:
        try:
            bound = parse_time_ns(match[3])
        except ConfigError as error:
            raise ConfigError(f'--target {text}: {error}') from None
    metric = 'iops' if match[1] == 'iops' else f'latency_ns.{match[1]}'
    return Target(metric=metric, below=match[2] == '<', bound=bound)


def parse_search(text: str) -> Search:
    """'workload.iodepth=1..64', 'load=100k..600k'. Errors: ConfigError."""
    path, equals, span = (part.strip() for part in text.partition('='))
    low, dots, high = (part.strip() for part in span.partition('..'))
    if not (equals and dots and low and high):
        raise ConfigError(f'--find {text}: write KEY=LOW..HIGH')
    if path == LOAD:
        ends = [parse_count('--find load', end) for end in (low, high)]
        say: Callable[[int], str] = str
    else:
        section, _, name = path.replace('-', '_').partition('.')
        items = fields_of(section) if section in SECTIONS else {}
        if name not in items:
            raise ConfigError(f'--find {path}: no such key; write section.key, or load')
        key = items[name].metadata['key']
        if key.kind not in ('int', 'count', 'size', 'sizes', 'time'):
            raise ConfigError(f'--find {path}: is no number that can be searched')
        ends = [convert(key, path, Given(end, f'--find {text}')) for end in (low, high)]
        say = (lambda ns: f'{ns}ns') if key.kind == 'time' else str
    if not ends[0] < ends[1]:
        raise ConfigError(f'--find {text}: the low end is not below the high one')
    powers = path.endswith('virtqueue_size')
    return Search(name=path, low=ends[0], high=ends[1], say=say, powers=powers)


def parse_over(text: str) -> tuple[str, list[str]]:
    """'path=value,value'."""
    path, equals, values = text.partition('=')
    found = [value.strip() for value in values.split(',') if value.strip()]
    if not equals or not found:
        raise ConfigError(f'--over {text}: write path=value,value')
    return path.strip(), found


def refuse_loop_keys(given: Sequence[tuple[str, str]]) -> None:
    """ConfigError for a key that an offered load decides, and that would so have no effect."""
    for option, path in given:
        if path.replace('-', '_') in OPEN_LOOP:
            raise ConfigError(
                f'{option} {path}: an open loop (--at, load) decides it; leave one of them out'
            )


def share_of(text: str) -> float:
    """'2%' as 0.02; ConfigError."""
    try:
        share = float(text.strip().removesuffix('%')) / 100
    except ValueError:
        share = 0.0
    if not 0.0001 <= share <= 0.5:
        raise ConfigError(f'--resolution {text}: write a percentage from 0.01% to 50%')
    return share


def configured(options: argparse.Namespace, sets: Sequence[str], offered: int | None) -> Config:
    """The config of one point; with `offered` an open loop of so many requests per second."""
    sources = config_sources(options)
    config = load(**sources, sets=sets)
    if offered is None:
        return config
    if len(config.phases) > 1:
        raise ConfigError('--at: jobs that wait for each other (stonewall) have no common load')
    clones = sum(job.numjobs for job in config.jobs)
    rates = []
    for job in config.jobs:
        shares = {'rw': job.rwmixread, 'randrw': job.rwmixread, 'read': 100, 'randread': 100}
        read = shares.get(job.rw, 0)
        pair = [offered * percent // (100 * clones) for percent in (read, 100 - read)]
        rates.append(','.join(str(rate) if rate else '' for rate in pair))
    if len(set(rates)) > 1:
        raise ConfigError('--at: jobs of different mixes of reads and writes share no load')
    depth = max(DEPTH, *(job.iodepth for job in config.jobs))
    return load(
        **sources,
        sets=[
            *sets,
            'workload.io_submit_mode=offload',
            'workload.rate_process=poisson',
            f'workload.rate_iops={rates[0]}',
            f'workload.iodepth={depth}',
        ],
    )


# --------------------------------------------------------------------------------------- a point


def simulate(config: Config, number: int) -> tuple[int, dict[str, Any], list[str]]:
    """In a worker: one replication: its number, its metrics, what the checkers found."""
    result = run(replication(config, number))
    numbers = {f'latency_ns.{name}': v for name, v in result.report['latency_ns'].items()}
    numbers['iops'] = result.report['iops']
    reasons = result.report['not_reported']
    return number, {'numbers': numbers, 'reasons': reasons}, result.violations


@dataclass(kw_only=True)
class Points:
    """The points that were simulated, by value: each once."""

    search: Search
    targets: Sequence[Target]
    config_at: Callable[[int], Config]
    pool: Pool
    least: int

    def __post_init__(self) -> None:
        self.found: dict[int, dict[str, Any]] = {}
        self.violations: list[str] = []

    def verdict(self, value: int) -> str:
        """MET, FAILED or UNDECIDED."""
        if value not in self.found:
            self.found[value] = self._simulate(value)
        return str(self.found[value]['verdict'])

    def _simulate(self, value: int) -> dict[str, Any]:
        config = self.config_at(value)
        runs: dict[int, dict[str, Any]] = {}
        while True:
            wanted = range(len(runs), len(runs) + self.least)
            for number, found, broken in self.pool.map(simulate, [(config, n) for n in wanted]):
                runs[number] = found
                self.violations += [
                    f'{self.search.name}={value}, replication {number}: {text}' for text in broken
                ]
            ordered = [runs[number] for number in sorted(runs)]
            metrics = {t.metric: self._interval(t.metric, ordered) for t in self.targets}
            verdict = judged(self.targets, metrics)
            if verdict != UNDECIDED or len(runs) >= MORE * self.least:
                return {
                    'value': value, 'verdict': verdict, 'runs': len(runs), 'metrics': metrics
                }  # fmt: skip

    def _interval(self, metric: str, runs: Sequence[Mapping[str, Any]]) -> list[float]:
        values = [found['numbers'].get(metric) for found in runs]
        if any(value is None for value in values):
            reason = next((r['reasons'][metric] for r in runs if metric in r['reasons']), 'nothing')
            raise ConfigError(
                f'{metric} is not known: {reason}; raise workload.number_ios or workload.runtime'
            )
        mean, half = stats.mean_interval(values)
        return [mean, mean - half, mean + half]


def judged(targets: Sequence[Target], metrics: Mapping[str, Sequence[float]]) -> str:
    """Of a point: are all targets met with their whole intervals, or is one surely not?"""
    verdicts = []
    for target in targets:
        _, low, high = metrics[target.metric]
        if not target.below:
            low, high = -high, -low
        bound = target.bound if target.below else -target.bound
        verdicts.append(MET if high < bound else FAILED if low >= bound else UNDECIDED)
    if FAILED in verdicts:
        return FAILED
    return UNDECIDED if UNDECIDED in verdicts else MET


# ------------------------------------------------------------------------------------- bisection


def bisect(
    search: Search,
    targets: Sequence[Target],
    config_at: Callable[[int], Config],
    pool: Pool,
    least: int,
    resolution: float,
) -> dict[str, Any]:
    """Where the targets are met: the verdict, the bracket, and every point that was simulated.

    `met` is [low, high] of what is known to be met, `failed` the nearest value known to fail.
    """
    points = Points(
        search=search, targets=targets, config_at=config_at, pool=pool, least=least
    )  # fmt: skip
    low, high = search.low, search.high
    if search.powers:  # exponents
        low, high = (low - 1).bit_length(), high.bit_length() - 1

    def verdict(place: int) -> str:
        return points.verdict(1 << place if search.powers else place)

    ends = verdict(low), verdict(high)
    met: list[int] | None = None
    failed = None
    if ends == (MET, MET):
        what = 'met from end to end'
        met = [low, high]
    elif MET not in ends:
        what = 'met at neither end'
        if ends != (FAILED, FAILED):
            what += ', and not decided at one'
    else:
        up = ends[0] == MET  # met at the low end
        inner, outer = (low, high) if up else (high, low)
        edge, beyond = _edge(inner, outer, lambda p: verdict(p) == MET, resolution)
        if ends[1 if up else 0] == FAILED:
            beyond = _edge(edge, outer, lambda p: verdict(p) != FAILED, resolution)[1]
            failed = beyond
        met = [low, edge] if up else [edge, high]
        what = 'met up to a point' if up else 'met from a point on'

    def written(place: int) -> int:
        return 1 << place if search.powers else place

    return {
        'what': what,
        'met': None if met is None else [written(place) for place in met],
        'failed': None if failed is None else written(failed),
        'points': [points.found[value] for value in sorted(points.found)],
        'runs': sum(point['runs'] for point in points.found.values()),
        'violations': points.violations,
    }


def _edge(
    inner: int, outer: int, holds: Callable[[int], bool], resolution: float
) -> tuple[int, int]:
    """Nearest values of which the first holds and the second does not; `inner` holds."""
    while abs(outer - inner) > max(1, resolution * min(inner, outer)):
        small, large = sorted((inner, outer))
        middle = (small + large) // 2
        if small > 0 and large > 4 * small:
            middle = min(max(round((small * large) ** 0.5), small + 1), large - 1)
        if holds(middle):
            inner = middle
        else:
            outer = middle
    return inner, outer


# -------------------------------------------------------------------------------------- printing


def printed(report: Mapping[str, Any], search: Search) -> str:
    """What a person wants to see."""
    load_at = '' if report['at'] is None else f' at {report["at"]} requests per second'
    lines = [f'target {" and ".join(report["targets"])}{load_at}; searched: {search.name}']
    for row in report['rows']:
        over = '  '.join(f'{path}={value}' for path, value in row['over'].items())
        lines += ['', *([over] if over else []), '  ' + _sentence(row, search)]
        for point in row['points']:
            numbers = '  '.join(_number(name, values) for name, values in point['metrics'].items())
            lines.append(
                f'    {_said(point["value"], search):>12}  {point["verdict"]:10} {numbers}  '
                f'({point["runs"]} runs)'
            )
    return '\n'.join(lines)


def _sentence(row: Mapping[str, Any], search: Search) -> str:
    if row['met'] is None:
        return row['what']
    low, high = (_said(value, search) for value in row['met'])
    text = f'{row["what"]}: {low} to {high}'
    if row['failed'] is not None:
        failed = row['failed']
        text += f'; failed {"from" if failed > row["met"][1] else "up to"} {_said(failed, search)}'
    return text


def _said(value: int, search: Search) -> str:
    if search.say(0).endswith('ns'):
        return format_time(value)
    name = search.name
    return format_size(value) if name in ('workload.bs', 'target.size') else str(value)


def _number(name: str, values: Sequence[float]) -> str:
    mean, low, high = values
    if name == 'iops':
        return f'iops {mean:.0f} ± {(high - low) / 2:.0f}'
    return f'{name.removeprefix("latency_ns.")} {mean / 1e3:.1f} ± {(high - low) / 2e3:.1f} µs'
