"""What sim regress says: the table of what moved, and the lines around it."""

from collections.abc import Iterator, Mapping
from typing import Any

from sim.record import STAGES
from sim.studies.regress import verdict

SHOWN_FIRST = ('iops', 'latency_ns.mean', 'latency_ns.p99')
COLUMNS = ('scenario', 'metric', 'unit', 'baseline', 'now', 'delta', 'stage that moved')
Cells = tuple[str, ...]


def number(value: str | None) -> str:
    """A value as it is shown: seven digits that count, groups of three."""
    if value is None:
        return 'missing'
    try:
        return f'{float(value):,.7g}' if abs(float(value)) < 1e7 else f'{float(value):,.0f}'
    except ValueError:
        return value


def delta(row: Mapping[str, Any]) -> str:
    """A difference as it is shown, in percent as well."""
    if row['delta'] is None:
        return 'differs'
    percent = '' if row['percent'] is None else f' ({row["percent"]:+.3g} %)'
    return f'{row["delta"]:+,.6g}{percent}'


def table(found: Mapping[str, Any], *, whole: bool = False) -> list[Cells]:
    """The rows of COLUMNS; not `whole`: of each scenario those that say most, and a count."""
    return [cells for entry in found['scenarios'] for cells in _rows(entry, whole)]


def _rows(entry: Mapping[str, Any], whole: bool) -> Iterator[Cells]:
    stage = entry['stage'] or '-'
    rows = entry['rows'] if whole else list(_chosen(entry))
    for row in rows:
        yield (
            entry['name'], row['metric'], row['unit'], number_of(row, 'baseline'),
            number_of(row, 'now'), delta(row), stage,
        )  # fmt: skip
    left = len(entry['rows']) - len(rows)
    if left:
        yield (entry['name'], f'and {left} more', '', '', '', '', stage)


def number_of(row: Mapping[str, Any], side: str) -> str:
    """One side of a row; a hash is not a number, even one of digits."""
    value = row[side]
    return (value or 'missing') if row['unit'] in ('hash', 'text') else number(value)


def _chosen(entry: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The digest, the numbers that people ask for, the stages that moved most, what is missing."""
    stages = sorted(STAGES, key=lambda name: -abs(entry['stages_ns'].get(name, 0.0)))
    wanted = ['digest', *SHOWN_FIRST, *(f'stages_ns.{stage}' for stage in stages[:2])]
    chosen = [row for row in entry['rows'] if row['metric'] in wanted or _is_odd(row)]
    yield from chosen or entry['rows'][:5]


def _is_odd(row: Mapping[str, Any]) -> bool:
    return row['baseline'] is None or row['now'] is None or row['unit'] == 'text'


def counts(found: Mapping[str, Any]) -> str:
    """The closing line."""
    entries = found['scenarios']
    word = 'green' if found['green'] else 'red'
    return (
        f'{word}: {found["points"]} points compared, {found["equal"]} equal; '
        f'{len(entries)} scenarios, {found["moved"]} moved'
    )


def stage_line(found: Mapping[str, Any]) -> str | None:
    """Which stage to look at first."""
    stage = found['stage']
    if stage is None:
        return None
    names = ', '.join(stage['scenarios'])
    reason = {
        'one request at a time': 'where one request at a time is in flight, so that none waits',
        'most scenarios': 'in most of the scenarios that moved',
    }[stage['by']]
    return f'stage that moved: {stage["name"]} ({reason}: {names})'


def meaning(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(scenario, verdict in words) of the paired tests, for each scenario that moved."""
    return [
        (entry['name'], _in_words(entry['pairs']))
        for entry in found['scenarios']
        if entry['state'] == 'moved' and entry['pairs']
    ]


def _in_words(pairs: Mapping[str, Any]) -> str:
    moved = [metric for metric, test in pairs.items() if test['moved']]
    if moved:
        shown = [metric for metric in SHOWN_FIRST if metric in moved] or moved[:3]
        return '; '.join(f'{metric} {verdict(metric, pairs[metric])}' for metric in shown)
    if not any(test['difference'] or test['half_width'] for test in pairs.values()):
        return 'no difference in any replication'
    reach = max((_reach(test) for test in pairs.values() if test['baseline']), default=0.0)
    return f'nothing beyond chance in {len(pairs)} tests (all within {reach:.2g} %)'


def _reach(test: Mapping[str, Any]) -> float:
    """How far the difference may be from zero, percent of the baseline."""
    return float((abs(test['difference']) + test['half_width']) / abs(test['baseline']) * 100)


def printed(found: Mapping[str, Any]) -> str:
    """All of it for a terminal or a log."""
    rows = table(found)
    lines = []
    if rows:
        widths = [max(len(cells[i]) for cells in [COLUMNS, *rows]) for i in range(len(COLUMNS))]
        numbers = (3, 4, 5)

        def line(cells: Cells) -> str:
            return '  '.join(
                cell.rjust(width) if i in numbers else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
            ).rstrip()

        lines += [line(COLUMNS), *(line(cells) for cells in rows), '']
        lines.append('paired test over the replications, the same random numbers before and after:')
        lines += [f'  {name}: {text}' for name, text in meaning(found)]
        lines.append('')
    lines += [f'problem: {text}' for text in found['problems']]
    stage = stage_line(found)
    return '\n'.join([*lines, *([stage] if stage else []), counts(found)])
