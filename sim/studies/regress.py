"""sim regress: observe the scenarios, compare them with the baseline, say what moved and where.

With fixed seeds nothing is noise: every number of a scenario is compared exactly, and a difference
is red. What a difference means is said beside it: the stage that moved most, and for the metrics of
HEADLINE a paired test over replications, which see the same random numbers before and after.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats as scipy_stats

from sim.analysis import stats
from sim.pools import Pool
from sim.record import STAGES
from sim.studies.baseline import DEFINITION, Baseline, Record, Row, printed, unit_of
from sim.studies.compare import verdict_of
from sim.studies.scenarios import KINDS, Scenario

REPLICATIONS = 10
ALPHA = 0.05  # of all tests of a comparison together: the share of false ones among those found
STAGE_METRICS = tuple(f'stages_ns.{stage}' for stage in STAGES)
HEADLINE = (
    'iops',
    *(f'latency_ns.{name}' for name in ('mean', 'p50', 'p90', 'p99')),
    *STAGE_METRICS,
    'requests_per_kick',
    'requests_per_interrupt',
)


# ------------------------------------------------------------------------------------- observe ----


def observe(
    scenarios: Sequence[Scenario],
    pool: Pool,
    *,
    replications: int = REPLICATIONS,
    on_done: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> tuple[dict[str, Record], list[str]]:
    """A record of each scenario, and what was violated; `on_done(done, total, name)` after each."""
    found, broken = {}, []
    calls = [(scenario, replications) for scenario in scenarios]
    for done, (name, record, violations) in enumerate(pool.map(observe_one, calls), 1):
        found[name] = record
        broken += violations
        on_done(done, len(scenarios), name)
    return {scenario.name: found[scenario.name] for scenario in scenarios}, broken


def observe_one(scenario: Scenario, replications: int) -> tuple[str, Record, list[str]]:
    """In a worker: one scenario with its replications."""
    metrics = (*HEADLINE, *KINDS[scenario.kind].headline)
    rows: list[Row] = []
    broken = []
    values: dict[str, str] = {}
    for number in range(replications):
        seen = scenario.observe(number)
        if number == 0:
            values = {DEFINITION: scenario.definition}
            values |= {metric: printed(value) for metric, value in seen.values.items()}
        row = {'replication': str(number), 'digest': str(seen.values['digest'])}
        row |= {m: printed(seen.values[m]) if m in seen.values else '' for m in metrics}
        rows.append(row)
        broken += [f'{scenario.name}, replication {number}: {text}' for text in seen.violations]
    return scenario.name, Record(values, rows), broken


# ------------------------------------------------------------------------------------- compare ----


def compare(
    scenarios: Sequence[Scenario],
    now: Mapping[str, Record],
    baseline: Baseline,
    *,
    whole: bool = True,
) -> dict[str, Any]:
    """What differs; `green` where nothing does. `whole`: these are all scenarios there are.

    Only the replications that were observed are compared. Times in ns, differences now - baseline.
    """
    entries = [_entry(s, now[s.name], baseline.records.get(s.name)) for s in scenarios]
    problems = [text for entry in entries for text in entry['problems']]
    names = {scenario.name for scenario in scenarios}
    problems += _promises(names, now, baseline)
    if whole:
        problems += [
            f'{name}: the baseline has it, but there is no such scenario'
            for name in sorted((baseline.records.keys() | baseline.manifest.keys()) - names)
        ]
    moved = [entry for entry in entries if entry['state'] != 'same']
    _adjust([test for entry in moved for test in entry['pairs'].values()])
    return {
        'green': not moved and not problems,
        'points': sum(entry['points'] for entry in entries),
        'equal': sum(entry['equal'] for entry in entries),
        'moved': len(moved),
        'stage': _common_stage(moved),
        'problems': problems,
        'scenarios': entries,
    }


def _promises(names: set[str], now: Mapping[str, Record], baseline: Baseline) -> list[str]:
    """Where the count is wrong: of the manifest, of the files, of what was observed."""
    found = []
    for name in sorted(names & baseline.records.keys()):
        record = baseline.records[name]
        held = (record.points, len(record.replications))
        promised = baseline.manifest.get(name)
        if promised is None:
            found.append(f'{name}: the manifest of the baseline does not name it')
        elif held != promised:
            found.append(
                f'{name}: the baseline holds {held[0]} points and {held[1]} replications, its '
                f'manifest promises {promised[0]} and {promised[1]}'
            )
        elif held[1] < len(now[name].replications):
            found.append(f'{name}: the baseline has only {held[1]} replications')
    return found


def _entry(scenario: Scenario, now: Record, then: Record | None) -> dict[str, Any]:
    """One scenario: its state, the rows that differ, the stage, the paired tests."""
    entry: dict[str, Any] = {
        'name': scenario.name,
        'about': scenario.about,
        'kind': scenario.kind,
        'alone': scenario.is_alone,
        'id': scenario.config.id,
        'state': 'same',
        'points': 0,
        'equal': 0,
        'stage': None,
        'stages_ns': {},
        'rows': [],
        'pairs': {} if then is None else _pairs(then, now),
        'problems': [],
        'replications': len(now.replications),
    }
    if then is None:
        return entry | {
            'state': 'new',
            'problems': [f'{scenario.name}: has no baseline; bless it'],
        }
    metrics = list(dict.fromkeys([*then.values, *now.values]))
    rows = [_row(m, then.values.get(m), now.values.get(m)) for m in metrics]
    digests = [_digest_row(n, then, now) for n in range(len(now.replications))]
    differing = [row for row in rows + digests if row['baseline'] != row['now']]
    entry['points'] = len(rows) + len(digests)
    entry['equal'] = entry['points'] - len(differing)
    if not differing:
        return entry
    stages = _stage_differences(then, now)
    entry |= {
        'state': 'moved',
        'rows': differing,
        'stages_ns': stages,
        'stage': _largest(stages),
    }
    for row in differing:
        if row['baseline'] is None or row['now'] is None:
            where = 'only in the baseline' if row['now'] is None else 'not in the baseline'
            entry['problems'].append(f'{scenario.name}: {row["metric"]} is {where}')
    if then.values.get(DEFINITION) != now.values[DEFINITION]:
        entry['problems'].append(f'{scenario.name}: the scenario itself has been changed')
    return entry


def _row(metric: str, then: str | None, now: str | None) -> dict[str, Any]:
    """One value before and after; the difference where both are numbers."""
    row: dict[str, Any] = {'metric': metric, 'unit': unit_of(metric), 'baseline': then, 'now': now}
    row |= {'delta': None, 'percent': None}
    if then is not None and now is not None and row['unit'] not in ('hash', 'text'):
        first, second = float(then), float(now)
        row['delta'] = second - first
        row['percent'] = (second - first) / abs(first) * 100 if first else None
    return row


def _digest_row(number: int, then: Record, now: Record) -> dict[str, Any]:
    old = then.replications[number]['digest'] if number < len(then.replications) else None
    return _row(f'replications.{number}.digest', old, now.replications[number]['digest'])


def _stage_differences(then: Record, now: Record) -> dict[str, float]:
    """Mean change of each stage over the replications, ns; without any, of the scenario."""
    found = {}
    for stage, metric in zip(STAGES, STAGE_METRICS, strict=True):
        old, new = _pair_of(metric, then, now)
        if len(old):
            found[stage] = float((new - old).mean())
        elif metric in then.values and metric in now.values:
            found[stage] = float(now.values[metric]) - float(then.values[metric])
    return found


def _largest(stages: Mapping[str, float]) -> str | None:
    """The stage that moved most; with those that moved as much but for a tenth."""
    most = max(map(abs, stages.values()), default=0.0)
    if not most:
        return None
    return ' and '.join(stage for stage, ns in stages.items() if abs(ns) >= 0.9 * most)


def _pair_of(metric: str, then: Record, now: Record) -> tuple[np.ndarray, np.ndarray]:
    """The values of both in the replications that have one in both."""
    both = [
        (float(old[metric]), float(new[metric]))
        for old, new in zip(then.replications, now.replications, strict=False)
        if old.get(metric) and new.get(metric)
    ]
    values = np.array(both, dtype=np.float64).reshape(-1, 2)
    return values[:, 0], values[:, 1]


def _common_stage(moved: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The stage to look at first, and by what it is chosen.

    Where only one request is in flight nothing queues, and what a stage takes more is its own cost;
    elsewhere a dearer step shows as waiting in front of it. So the former outrank the latter.
    """
    voting = [entry for entry in moved if entry['stage']]
    alone = [entry for entry in voting if entry['alone']]
    if alone:
        sums = {
            stage: sum(abs(entry['stages_ns'].get(stage, 0.0)) for entry in alone)
            for stage in STAGES
        }
        name, by = _largest(sums), 'one request at a time'
    elif voting:
        votes = Counter(entry['stage'] for entry in voting)
        name, by = votes.most_common(1)[0][0], 'most scenarios'
    else:
        return None
    where = [entry['name'] for entry in alone or voting if entry['stage'] == name]
    return {'name': name, 'by': by, 'scenarios': where}


# -------------------------------------------------------------------------------- paired tests ----


def _pairs(then: Record, now: Record) -> dict[str, dict[str, Any]]:
    """Of each metric with two pairs or more: means, difference, its 95 % half width, p."""
    metrics = [m for m in now.replications[0] if m not in ('replication', 'digest')]
    found = {}
    for metric in metrics:
        old, new = _pair_of(metric, then, now)
        if len(old) >= 2:
            found[metric] = _test(metric, old, new)
    return found


def _test(metric: str, old: np.ndarray, new: np.ndarray) -> dict[str, Any]:
    """Student's t on the differences of pairs."""
    difference = new - old
    mean, half = stats.mean_interval(difference)
    if half > 1e-9 * abs(mean):
        p = float(scipy_stats.ttest_1samp(difference, 0).pvalue)
    else:
        p = 0.0 if mean else 1.0  # the same in every pair
    return {
        'unit': unit_of(metric),
        'pairs': len(old),
        'baseline': float(old.mean()),
        'baseline_half_width': float(stats.mean_interval(old).half_width),
        'now': float(new.mean()),
        'now_half_width': float(stats.mean_interval(new).half_width),
        'difference': float(mean),
        'half_width': float(half),
        'p': p,
        'moved': False,
    }


def _adjust(tests: Sequence[dict[str, Any]]) -> None:
    """Which moved. Among many tests some differ by chance: p is adjusted for that.

    Benjamini and Yekutieli, The Annals of Statistics 29, 2001: right for dependent tests, too.
    """
    if not tests:
        return
    adjusted = scipy_stats.false_discovery_control([test['p'] for test in tests], method='by')
    for test, p in zip(tests, adjusted, strict=True):
        test['p_adjusted'] = float(p)
        test['moved'] = bool(p <= ALPHA)


def verdict(metric: str, test: Mapping[str, Any]) -> str:
    """A paired test in words."""
    base = abs(test['baseline'])
    if not base:
        return f'{test["difference"]:+.3g} from 0' if test['difference'] else 'no difference'
    relative, half = test['difference'] / base, test['half_width'] / base
    words = verdict_of(metric, relative, half)
    if not test['moved'] and not words.startswith('no difference'):
        return f'perhaps {words}'
    return words
