"""python -m sim compare A B: two configs under the same random numbers.

Replication i of A and of B have the same seeds, so they see the same arrivals, places and service
times, and what chance does to one it does to the other. Differences are taken pair by pair: per
replication for every number, and per request (the n-th of a clone in A and in B) for latencies and
stages. A difference is B - A; its interval is Student's t on the replications' differences.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sim.analysis import stats
from sim.config import Config, load
from sim.errors import ConfigError
from sim.points import is_finished, load_report, load_requests
from sim.pools import Pool
from sim.record import STAGES
from sim.replicate import replication, seed_of
from sim.run import run

REPLICATIONS = 10
PAIRED = ('latency_ns', 'fio_lat_ns', *(f'{stage}_ns' for stage in STAGES))
BATCHES = 64  # of the paired differences of one replication
# Keys of a job that say how its requests are handed over, not which ones there are.
HOW = (
    'name', 'iodepth', 'iodepth_low', 'iodepth_batch_submit', 'iodepth_batch_complete_min',
    'iodepth_batch_complete_max', 'ioengine', 'io_submit_mode', 'group_reporting', 'ramp_time',
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Side:
    """A or B: its config, and the folder of a saved run if its results may be used as they are."""

    config: Config
    saved: Path | None = None


def _runs_in(place: Path) -> str:
    """What was perhaps meant: --out makes a folder for each run."""
    runs = sorted(report.parent for report in place.glob('*/report.json'))
    return f'; runs lie in it, such as {runs[0]}' if runs else ''


def read_side(source: str, sets: Sequence[str], seed: int | None) -> Side:
    """A config file, or a folder that `--out` or a sweep has left."""
    place = Path(source)
    if not place.is_dir():
        config = load(toml=place, sets=sets)
    elif (place / 'report.json').exists():
        config = load(toml=place / 'config.toml', sets=sets)
    else:
        raise ConfigError(f'{place}: is no folder of a run: it has no report.json{_runs_in(place)}')
    if seed is not None:
        config = replace(config, run=replace(config.run, seed=seed))
    same = place.is_dir() and load_report(place)['id'] == config.id
    return Side(config=config, saved=place if same else None)


# ------------------------------------------------------------------------------- what is compared


def differing(a: Config, b: Config) -> dict[str, list[Any]]:
    """Keys whose effective values differ, and both values."""
    first, second = (dict(_flat('', config.effective())) for config in (a, b))
    names = dict.fromkeys([*first, *second])
    return {
        name: [first.get(name), second.get(name)]
        for name in names
        if first.get(name) != second.get(name)
    }


def differing_work(a: Config, b: Config) -> list[str]:
    """What is issued by one and not by the other, in words; empty if both issue the same."""
    if len(a.jobs) != len(b.jobs):
        return [f'{len(a.jobs)} jobs against {len(b.jobs)}']
    found = []
    for name, (first, second) in differing(a, b).items():
        if name.startswith('job.') and name.rpartition('.')[2] not in HOW:
            found.append(f'{name}: {first} against {second}')
    whole = any(job.size is None for job in a.jobs)
    if whole and a.target.size != b.target.size:
        found.append(f'target.size: {a.target.size} against {b.target.size}, all of which is used')
    return found


def _flat(prefix: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        parts = [(str(key), inner) for key, inner in value.items()]
    elif isinstance(value, list):
        parts = [(str(number), inner) for number, inner in enumerate(value)]
    else:
        return [(prefix, value)]
    return [leaf for key, inner in parts for leaf in _flat(f'{prefix}.{key}'.lstrip('.'), inner)]


# ------------------------------------------------------------------------------- one replication


@dataclass(frozen=True)
class Pair:
    """One replication of both: every number of each, and the paired requests in short."""

    number: int
    a: dict[str, float]
    b: dict[str, float]
    requests: dict[str, Any]
    violations: list[str]


def simulate_pair(a: Config, b: Config, number: int) -> Pair:
    """In a worker: both configs under the seeds of one replication."""
    first, second = (run(replication(config, number)) for config in (a, b))
    broken = [
        f'{name}, replication {number}: {text}'
        for name, result in (('A', first), ('B', second))
        for text in result.violations
    ]
    requests = pair_requests(first.requests, second.requests)
    return Pair(number, _numbers(first.summary), _numbers(second.summary), requests, broken)


def load_pair(a: Path, b: Path) -> Pair:
    """Two saved runs as they are."""
    first, second = (_numbers(pd.read_csv(place / 'summary.csv')) for place in (a, b))
    whole = [(place / 'requests.parquet').exists() for place in (a, b)]
    requests = pair_requests(load_requests(a), load_requests(b)) if all(whole) else {}
    broken = [
        f'{name}: {text}'
        for name, place in (('A', a), ('B', b))
        for text in load_report(place)['violations']
    ]
    return Pair(0, first, second, requests, broken)


def _numbers(summary: pd.DataFrame) -> dict[str, float]:
    return dict(zip(summary['metric'], summary['value'], strict=True))


def paired_frame(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, float]:
    """The n-th request of each clone in A beside that in B, in A's order of serials.

    Columns clone and nth, the others with _a and _b. Only what is measured in both, and in both of
    one operation, place and length; the second value is the share that is.
    """
    columns = ['clone', 'nth', 'op', 'lba', 'bytes', 'serial', *PAIRED]
    sides = []
    for requests in (a, b):
        ordered = requests.sort_values('serial')
        ordered = ordered.assign(nth=ordered.groupby('clone').cumcount())
        sides.append(ordered.loc[ordered['measured'], columns])
    both = sides[0].merge(sides[1], on=['clone', 'nth'], suffixes=('_a', '_b'))
    alike = both['op_a'].astype(str) == both['op_b'].astype(str)
    for key in ('lba', 'bytes'):
        alike &= both[f'{key}_a'] == both[f'{key}_b']
    return both[alike].sort_values('serial_a'), float(alike.mean()) if len(both) else 0.0


def pair_requests(a: pd.DataFrame, b: pd.DataFrame) -> dict[str, Any]:
    """The n-th request of each clone in A with that in B: how many, and how their times differ.

    `same`: share of pairs of one operation, place and length; the others are left out. Empty if
    there are none.
    """
    if a.empty or b.empty:
        return {}
    pairs, same = paired_frame(a, b)
    if pairs.empty:
        return {'pairs': 0, 'same': 0.0}
    delta = {
        name: (pairs[f'{name}_b'] - pairs[f'{name}_a']).dropna().to_numpy(dtype=np.int64)
        for name in PAIRED
    }
    latency = delta['latency_ns']
    return {
        'pairs': len(pairs),
        'same': same,
        'means': {name: float(values.mean()) for name, values in delta.items() if len(values)},
        'batches': {name: _batches(values) for name, values in delta.items()},
        'shares': {
            'faster': float((latency < 0).mean()),
            'equal': float((latency == 0).mean()),
            'slower': float((latency > 0).mean()),
        },
        'percentiles': {f'p{q}': int(stats.percentile(latency, q)) for q in (1, 10, 50, 90, 99)},
    }


def _batches(values: np.ndarray) -> tuple[list[int], list[int]] | None:
    """Sums and sizes of batches of neighbours, oldest first; None for too few."""
    if len(values) < BATCHES:
        return None
    parts = np.array_split(values, BATCHES)
    return [int(part.sum()) for part in parts], [len(part) for part in parts]


# ----------------------------------------------------------------------------------- verdicts ----


def verdict_of(metric: str, relative: float, half: float | None) -> str:
    """A difference in words; `relative` is (B - A) / A, `half` half its interval."""
    if half is None:
        return 'one replication: no interval'
    if relative == 0 and half == 0:
        return 'no difference'
    if abs(relative) <= half:
        return f'no difference within {_percent(abs(relative) + half)}'
    less, more = 'lower', 'higher'
    if metric.partition('.')[0] in ('latency_ns', 'fio_lat_ns', 'stages_ns'):
        less, more = 'faster', 'slower'
    word = less if relative < 0 else more
    return f'{word} by {_percent(abs(relative))} ± {_percent(half)[:-2]}'


def _percent(share: float) -> str:
    """Two digits that count, or one behind the point; nothing below a millionth."""
    percent = 100 * share
    digits = 1 if percent >= 1 or percent < 1e-4 else 1 - math.floor(math.log10(percent))
    return f'{percent:.{digits}f} %'


def compared(metric: str, pairs: Sequence[Pair]) -> dict[str, Any] | None:
    """One number of A and of B over the replications; None if a replication lacks it."""
    a = [pair.a.get(metric) for pair in pairs]
    b = [pair.b.get(metric) for pair in pairs]
    if None in a or None in b:
        return None
    first, second = np.array(a, dtype=float), np.array(b, dtype=float)
    mean_a, mean_b = float(first.mean()), float(second.mean())
    entry: dict[str, Any] = {'a': mean_a, 'b': mean_b, 'difference': mean_b - mean_a}
    half = unpaired = None
    if len(pairs) > 1:
        half = stats.mean_interval(second - first).half_width
        unpaired = math.hypot(*(stats.mean_interval(side).half_width for side in (first, second)))
    return entry | _judged(metric, entry, half) | {'unpaired_half_width': unpaired}


def _judged(metric: str, entry: Mapping[str, float], half: float | None) -> dict[str, Any]:
    """The interval of a difference, relative to A, and in words."""
    base, difference = abs(entry['a']), entry['difference']
    relative = difference / base if base else float(np.sign(difference))
    share = None if half is None else half / base if base else float(half > 0)
    return {
        'low': None if half is None else difference - half,
        'high': None if half is None else difference + half,
        'relative': relative,
        'relative_half_width': share,
        'verdict': verdict_of(metric, relative, share),
    }


def compared_requests(pairs: Sequence[Pair]) -> dict[str, Any]:
    """The paired requests over all replications: mean differences and their intervals."""
    found = [pair.requests for pair in pairs if pair.requests.get('pairs')]
    if len(found) < len(pairs):
        return {'pairs': 0, 'note': 'there are no requests that both have kept and issued'}
    means = {}
    for name in found[0]['means']:
        values = [each['means'][name] for each in found if name in each['means']]
        half = None
        if len(values) > 1:
            half = stats.mean_interval(values).half_width
        elif found[0]['batches'][name] is not None:
            half = stats.ratio_of_batches(*found[0]['batches'][name]).half_width
        mean = float(np.mean(values))
        bounds = [None, None] if half is None else [mean - half, mean + half]
        means[name] = {'mean': mean, 'low': bounds[0], 'high': bounds[1]}
    return {
        'pairs': sum(each['pairs'] for each in found),
        'same': float(np.mean([each['same'] for each in found])),
        'differences': means,
        'shares': _mean_of([each['shares'] for each in found]),
        'percentiles_ns': _mean_of([each['percentiles'] for each in found]),
    }


def _mean_of(tables: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([table[name] for table in tables])) for name in tables[0]}


def compare(
    a: Side, b: Side, pool: Pool, *, replications: int | None = None, any_work: bool = False
) -> dict[str, Any]:
    """The whole comparison as plain data; ConfigError if the two are not comparable."""
    if replications is not None and replications < 1:
        raise ConfigError(f'--replications {replications}: at least one pair of runs is needed')
    work = differing_work(a.config, b.config)
    if work and not any_work:
        raise ConfigError(
            f'A and B do not issue the same requests ({"; ".join(work)}): a difference would be '
            'that of the work; make them alike, or add --different-workloads to compare anyway'
        )
    notes = [f'not the same work: {text}' for text in work]
    seed = a.config.run.seed
    if a.saved and b.saved and replications in (None, 1) and b.config.run.seed == seed:
        models = [load_report(side.saved)['provenance']['model'] for side in (a, b) if side.saved]
        if models[0] != models[1]:
            notes.append('A and B were simulated by different versions of the model')
        pairs = [load_pair(a.saved, b.saved)]
    else:
        count = replications or max(
            a.config.run.replications, b.config.run.replications, REPLICATIONS
        )
        if b.config.run.seed != seed:
            notes.append(f'B is run under the seed of A, {seed}, not {b.config.run.seed}')
        ours = replace(b.config, run=replace(b.config.run, seed=seed))
        stale = [side.saved for side in (a, b) if side.saved and not is_finished(side.saved)]
        notes += [f'{place}: simulated again, by this version of the model' for place in stale]
        calls = [(a.config, ours, number) for number in range(count)]
        pairs = sorted(pool.map(simulate_pair, calls), key=lambda pair: pair.number)
    names = [name for name in pairs[0].a if name in pairs[0].b]
    metrics = {name: found for name in names if (found := compared(name, pairs)) is not None}
    return {
        'a': {'id': a.config.id, 'config': a.config.effective()},
        'b': {'id': b.config.id, 'config': b.config.effective()},
        'differs': differing(a.config, b.config),
        'replications': len(pairs),
        'seeds': [seed_of(seed, pair.number) for pair in pairs],
        'notes': notes,
        'metrics': metrics,
        'requests': compared_requests(pairs),
        'violations': [text for pair in pairs for text in pair.violations],
    }
