"""Independent replications of one config: as many as asked for, or until an interval is narrow.

Replication 0 is the config itself; the others differ in their seeds only, which are made of the
config's own and the number of the replication. A number that is reported is the mean of the
replications' own numbers (of a percentile: the mean of their percentiles), and its interval is
Student's t on them, whatever happens inside of a run.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from sim.analysis import frame, stats
from sim.config import Config
from sim.pools import Here, Pool
from sim.rng import stream_key
from sim.run import Result, metrics_of, run

SAME = ('id', 'record', 'hypothetical', 'checks', 'config')  # what replications have in common
OWN = ('digest', 'event_digest', 'violations', 'intervals', 'not_reported', 'replications')


def simulate(config: Config, pool: Pool | None = None) -> Result:
    """One run, or the replications that the config asks for."""
    if config.run.replications == 1 and config.run.precision is None:
        return run(config)
    return replicate(config, pool or Here())


def replication(config: Config, number: int) -> Config:
    """The config of one replication: its seeds, run once."""
    jobs = tuple(
        replace(job, randseed=None if job.randseed is None else seed_of(job.randseed, number))
        for job in config.jobs
    )
    once = replace(
        config.run, seed=seed_of(config.run.seed, number), replications=1, precision=None
    )
    return replace(config, jobs=jobs, run=once)


def seed_of(seed: int, number: int) -> int:
    """The seed of a replication; that of number 0 is `seed`."""
    return seed if number == 0 else stream_key(seed, f'replication {number}') & (1 << 63) - 1


def wanted_of(config: Config) -> dict[str, float]:
    """The relative half-widths that run.precision asks for, by metric."""
    pairs = [part.partition(':') for part in (config.run.precision or '').split(',') if part]
    return {metric: float(half) for metric, _, half in pairs}


def replicate(config: Config, pool: Pool) -> Result:
    """Replicate until the precision is reached, in the order of their numbers.

    The pool may run ahead of the decision; what it has computed too much is thrown away, so the
    result does not depend on it.
    """
    wanted = wanted_of(config)
    least = config.run.replications
    most = config.run.max_replications if wanted else least
    results: list[Result] = []
    for result in _in_order(config, pool, least, most):
        results.append(result)
        reports = [each.report for each in results]
        if len(results) >= least and (wanted and _is_reached(reports, wanted)):
            break
        if len(results) >= least and any(_at(reports, metric) is None for metric in wanted):
            break  # and no further replication would change it
    return combine(config, results)


def _in_order(config: Config, pool: Pool, least: int, most: int) -> Iterator[Result]:
    """Replications 0, 1, ...: the first `least` at once, then as many as the pool holds."""
    done, ahead = 0, least
    while done < most:
        numbers = range(done, min(done + ahead, most))
        found = dict(pool.map(_one, [(config, number) for number in numbers]))
        yield from (found[number] for number in numbers)
        done, ahead = numbers.stop, getattr(pool, 'count', 1)


def _one(config: Config, number: int) -> tuple[int, Result]:
    """One replication; only the first one's requests are of use."""
    result = run(replication(config, number))
    if number:
        result = replace(result, requests=result.requests.iloc[:0], histograms=None)
    return number, result


# ------------------------------------------------------------------------------------ combined ----


def _at(reports: Sequence[Mapping[str, Any]], metric: str) -> list[float] | None:
    """The values of a dotted metric, None if a replication has none."""
    values = []
    for report in reports:
        value: Any = report
        for key in metric.split('.'):
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is None:
            return None
        values.append(float(value))
    return values


def _relative(values: Sequence[float]) -> float:
    found = stats.mean_interval(values)
    return found.half_width / abs(found.mean) if found.mean else float(found.half_width > 0)


def _is_reached(reports: Sequence[Mapping[str, Any]], wanted: Mapping[str, float]) -> bool:
    for metric, half in wanted.items():
        values = _at(reports, metric)
        if values is None or _relative(values) > half:
            return False
    return True


def combine(config: Config, results: Sequence[Result]) -> Result:
    """The replications as one result, with the tables of the first."""
    reports = [result.report for result in results]
    first = reports[0]
    values: dict[str, list[float | None]] = {}
    report = {
        key: first[key] if key in SAME else _merged(key, [r[key] for r in reports], values)
        for key in first
        if key not in OWN
    }
    report |= {
        'id': config.id,
        'digest': _hash(r['digest'] for r in reports),
        'event_digest': _hash(r['event_digest'] for r in reports),
        'config': config.effective(),
        'wall_seconds': sum(r['wall_seconds'] for r in reports),
        'not_reported': {
            metric: f'replication {number}: {reason}'
            for number, r in reversed(list(enumerate(reports)))
            for metric, reason in r['not_reported'].items()
        },
        'intervals': {
            'method': 'replications',
            'confidence': 0.95,
            'replications': len(reports),
            'note': '',
            'values': values,
        },
        'replications': _account(config, reports),
        'violations': [
            f'replication {number} (seed {r["config"]["run"]["seed"]}): {text}'
            for number, r in enumerate(reports)
            for text in r['violations']
        ],
    }
    return replace(
        results[0],
        config=config,
        report=report,
        summary=frame.summary_frame(metrics_of(report), values),
        violations=report['violations'],
        provenance=results[0].provenance
        | {'config': config.effective(), 'digest': report['digest']},
        replications=_table(results),
    )


def _hash(digests: Iterable[str]) -> str:
    return hashlib.sha256('\n'.join(digests).encode()).hexdigest()[:16]


def _merged(path: str, parts: Sequence[Any], values: dict[str, list[float | None]]) -> Any:
    """Mean of numbers, most of maxima, what is equal; notes the interval of each mean."""
    if isinstance(parts[0], Mapping):
        common = [key for key in parts[0] if all(key in part for part in parts)]
        return {k: _merged(f'{path}.{k}', [part[k] for part in parts], values) for k in common}
    if any(part is None for part in parts):
        return None
    if path.endswith('.max') or not isinstance(parts[0], int | float):
        return max(parts) if path.endswith('.max') else parts[0]
    if len(parts) > 1 and path.partition('.')[0] not in ('wall_seconds', 'wall_io_per_second'):
        mean, half = stats.mean_interval(parts)
        values[path] = [mean - half, mean + half]
    return parts[0] if all(part == parts[0] for part in parts) else sum(parts) / len(parts)


def _account(config: Config, reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many there were, with which seeds, and whether the precision was reached."""
    wanted = wanted_of(config)
    reached: dict[str, dict[str, float | None]] = {}
    notes = []
    for metric, half in wanted.items():
        values = _at(reports, metric)
        found = None if values is None or len(values) < 2 else _relative(values)
        reached[metric] = {'wanted': half, 'reached': found}
        if values is None:
            notes.append(f'{metric} is not reported in every replication: see not_reported')
        elif found is None or found > half:
            notes.append(
                f'{metric}: ± {found or 0:.2%} after {len(reports)} replications, ± {half:.2%} was '
                'wanted; raise run.max_replications or make the runs longer'
            )
    return {
        'count': len(reports),
        'seeds': [report['config']['run']['seed'] for report in reports],
        'digests': [report['digest'] for report in reports],
        'warmup_requests': [report['warmup_requests'] for report in reports],
        'precision': reached,
        'reached': not notes,
        'note': '; '.join(notes),
    }


def _table(results: Sequence[Result]) -> pd.DataFrame:
    """The numbers of every replication: replication, seed, metric, value."""
    return pd.concat(
        [
            result.summary[['metric', 'value']].assign(
                replication=number, seed=result.config.run.seed
            )
            for number, result in enumerate(results)
        ],
        ignore_index=True,
    )[['replication', 'seed', 'metric', 'value']]
