"""Which guesses a headline result rests on: grade C costs that move it by more than 5 %.

A headline result is a number that an experiment, a page or a target tells, of one run or of several
(how much quicker is the one than the other?). Each guess is set to both ends of its range, all runs
are made again under the same random numbers, and the number worked out anew. That takes minutes, so
the answers are kept in a file, `results/guesses.csv`, a row for each guess that matters:

    source, headline, unit     whose number it is
    value                      the number, of replication 0
    cost                       the guess; empty where none moves it by so much
    at_least, at_most          percent by which the number moves at the ends of the cost's range,
                               mean of the replications; empty where the preset has no such end, or
                               where the model refuses it
    ranges                     fingerprint of the ranges that were tried
    model                      digest of the sources of that day, for the record

Whether they still hold is asked of the model itself: the runs of the number are made again, and
where it comes out another, or the preset has other guesses or ranges, the row is stale and says so.
"""

import csv
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sim.config import Config
from sim.control.costs import CONTROL_PARAMETERS
from sim.control.stopping import StopPlan, stop
from sim.costs import MODEL_PARAMETERS
from sim.errors import ConfigError
from sim.jit import MODEL_DIGEST
from sim.migration import migrate
from sim.pools import Pool
from sim.replicate import replication
from sim.run import run
from sim.studies.sensitivity import MATTERS, Cost, costs_of, table_with

REPLICATIONS = 3
SCREEN = 0.02  # what moves nothing by so much in replication 0 is not looked at again
COLUMNS = (
    'source', 'headline', 'unit', 'value', 'cost', 'at_least', 'at_most', 'ranges', 'model',
)  # fmt: skip

Report = dict[str, Any]
Row = dict[str, str]


def plain(config: Config) -> Report:
    """What sim run reports."""
    return run(config).report


def stopped(config: Config, at: int) -> Report:
    """What sim stop reports; `at` in ns."""
    return stop(config, StopPlan(at=at))


def migrated(config: Config) -> Report:
    """What sim migrate reports."""
    return migrate(config)


@dataclass(frozen=True, kw_only=True)
class Headline:
    """A number that is told: `value` of the reports of `configs`, in their order.

    `run` makes a report of a config, in another process: plain, migrated, or stopped with its
    moment (functools.partial).
    """

    name: str
    unit: str
    configs: tuple[Config, ...]
    value: Callable[..., float]
    run: Callable[[Config], Report] = plain


# --------------------------------------------------------------------------------- what moves it


def guesses_of(headline: Headline) -> list[Cost]:
    """The grade C costs that may be charged in its runs, as their first config has them."""
    names = MODEL_PARAMETERS
    if headline.run is not plain:
        names = names | CONTROL_PARAMETERS
    return [cost for cost in costs_of(headline.configs[0], names) if cost.grade == 'C']


def fingerprint(headline: Headline) -> str:
    """Of the guesses and their ranges: the same while they are."""
    told = [(cost.name, cost.minimum, cost.maximum) for cost in guesses_of(headline)]
    return hashlib.blake2b(repr(told).encode(), digest_size=4).hexdigest()


def value_of(headline: Headline) -> float:
    """The number, of replication 0."""
    return float(headline.value(*(headline.run(config) for config in headline.configs)))


Key = tuple[int, int, str | None, int]  # which run, replication, cost and its value


def _simulate(
    key: Key, simulate: Callable[[Config], Report], config: Config, unit: str
) -> tuple[Key, Report | str]:
    """In a worker: one run with one cost changed (`key`); why not, where the model refuses it."""
    _, number, name, value = key
    config = replication(config, number)
    try:
        if name is None:
            return key, simulate(config)
        if simulate is plain:
            return key, run(config, costs_override=table_with(config, (name, value, unit))).report
        # Costs of control are charged beside the table. To the ns: they are hundreds and more.
        given = value if unit == 'percent' else round(value * 1e9 / config.host.cpu_hz)
        return key, simulate(replace(config, costs={**config.costs, name: given}))
    except ConfigError as error:  # a share below the cache-line costs that it contains
        return key, str(error)


class _Runs:
    """The runs behind headlines, each made once, however many of them look at it."""

    def __init__(self, headlines: Sequence[Headline], pool: Pool) -> None:
        self.headlines, self.pool = headlines, pool
        self.seen: dict[Key, Report | str] = {}
        known: dict[tuple[str, str], int] = {}
        self.of: list[list[int]] = []  # of each headline the numbers of its runs
        for line in headlines:
            how = f'{getattr(line.run, "func", line.run)} {getattr(line.run, "keywords", "")}'
            self.of.append([known.setdefault((c.id, how), len(known)) for c in line.configs])

    def look(self, wanted: Iterable[tuple[int, Cost | None]], number: int) -> None:
        """Make the runs of these headlines with these costs at their ends, in one replication."""
        calls: dict[Key, Any] = {}
        for place, cost in wanted:
            line = self.headlines[place]
            for which, config in zip(self.of[place], line.configs, strict=True):
                for value in _ends(cost):
                    name, unit = (None, '') if cost is None else (cost.name, cost.unit)
                    key = (which, number, name, value)
                    calls[key] = (key, line.run, config, unit)
        new = [call for key, call in calls.items() if key not in self.seen]
        self.seen.update(self.pool.map(_simulate, new))

    def value(self, place: int, number: int, name: str | None, end: int) -> float | None:
        """The headline's number; None where the model refused the cost."""
        reports = [self.seen.get((which, number, name, end)) for which in self.of[place]]
        if not all(isinstance(report, dict) for report in reports):
            return None
        return float(self.headlines[place].value(*reports))

    def change(self, place: int, cost: Cost, end: int | None, numbers: int) -> float | None:
        """The share by which the number moves with a cost at `end`, mean of some replications."""
        if end is None or end == cost.value:
            return None if end is None else 0.0
        found = []
        for number in range(numbers):
            base = self.value(place, number, None, 0)
            then = self.value(place, number, cost.name, end)
            if base and then is not None:
                found.append(then / base - 1)
        return sum(found) / len(found) if found else None


def moved(
    headlines: Sequence[Headline], pool: Pool, replications: int = REPLICATIONS
) -> list[list[dict[str, Any]]]:
    """Of each headline the guesses that move it by more than MATTERS: cost, at_least, at_most.

    Shares of the number, the largest first. Costs that move nothing in replication 0 are not tried
    in the others.
    """
    runs = _Runs(headlines, pool)
    everything = [(place, cost) for place, h in enumerate(headlines) for cost in guesses_of(h)]
    bases: list[tuple[int, Cost | None]] = [(place, None) for place in range(len(headlines))]
    runs.look([*bases, *everything], 0)

    def ends(place: int, cost: Cost, numbers: int) -> list[float | None]:
        both = (cost.minimum, cost.maximum)
        return [runs.change(place, cost, end, numbers) for end in both]

    left = [which for which in everything if _largest(ends(*which, 1)) > SCREEN]
    for number in range(1, replications):
        runs.look([*bases, *left], number)
    rows: list[list[dict[str, Any]]] = [[] for _ in headlines]
    for place, cost in left:
        low, high = ends(place, cost, replications)
        if _largest([low, high]) > MATTERS:
            rows[place].append({'cost': cost.name, 'at_least': low, 'at_most': high})
    for found in rows:
        found.sort(key=lambda row: -_largest([row['at_least'], row['at_most']]))
    return rows


def _largest(changes: Iterable[float | None]) -> float:
    return max((abs(change) for change in changes if change is not None), default=0.0)


def _ends(cost: Cost | None) -> list[int]:
    """The values at which a cost is tried; of none: one run."""
    if cost is None:
        return [0]
    return sorted({end for end in (cost.minimum, cost.maximum) if end is not None} - {cost.value})


# ------------------------------------------------------------------------------------- the file


def read(path: Path) -> list[Row]:
    """The rows of the file; none where there is no file. Errors: ConfigError."""
    if not path.is_file():
        return []
    try:
        with path.open(encoding='utf-8', newline='') as file:
            table = csv.DictReader(file)
            rows = list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f'{path}: cannot be read ({error})') from None
    if tuple(table.fieldnames or ()) != COLUMNS:
        raise ConfigError(f'{path}: its columns are not {", ".join(COLUMNS)}; make it anew')
    return rows


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write the file."""
    with path.open('w', encoding='utf-8', newline='') as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)


def rows_of(rows: Iterable[Row], source: str, headline: str) -> list[Row]:
    """The rows of one headline."""
    return [row for row in rows if (row['source'], row['headline']) == (source, headline)]


def stale(headline: Headline, rows: Sequence[Row], value: float | None = None) -> str:
    """Why its rows do not hold any more; empty where they do.

    `value`: the number as it comes out now; None: simulate it.
    """
    if not rows:
        return 'nobody has tried'
    if rows[0]['ranges'] != fingerprint(headline):
        return 'other guesses, or other ranges'
    now = value_of(headline) if value is None else value
    if _digits(now) != rows[0]['value']:
        return f'the model now says {_digits(now)}, not {rows[0]["value"]}'
    return ''


def renewed(
    sources: Mapping[str, Sequence[Headline]],
    old: Sequence[Row],
    pool: Pool,
    say: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """The rows of all headlines by source; only what is stale, or missing, is tried again."""
    rows: list[Row] = []
    for source, headlines in sources.items():
        values = {headline.name: value_of(headline) for headline in headlines}
        kept = {line.name: rows_of(old, source, line.name) for line in headlines}
        wrong = [h for h in headlines if stale(h, kept[h.name], values[h.name])]
        if wrong:
            say(f'{source}: {", ".join(headline.name for headline in wrong)}')
        for headline, found in zip(wrong, moved(wrong, pool), strict=True):
            kept[headline.name] = [
                {
                    'source': source, 'headline': headline.name, 'unit': headline.unit,
                    'value': _digits(values[headline.name]), 'cost': guess['cost'],
                    'at_least': _percent(guess['at_least']),
                    'at_most': _percent(guess['at_most']),
                    'ranges': fingerprint(headline), 'model': MODEL_DIGEST,
                }
                for guess in found or [{'cost': '', 'at_least': None, 'at_most': None}]
            ]  # fmt: skip
        rows += [row for headline in headlines for row in kept[headline.name]]
    return rows


def _digits(value: float) -> str:
    return f'{value:.6g}'


def _percent(share: float | None) -> str:
    return '' if share is None else f'{100 * share:+.1f}'


# ------------------------------------------------------------------------------------- for people


def told(source: str, headlines: Sequence[Headline], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A dict per headline: headline, value, unit, guesses (cost, at_least, at_most in %), stale."""
    found = []
    for headline in headlines:
        mine = rows_of(rows, source, headline.name)
        found.append(
            {
                'headline': headline.name,
                'unit': headline.unit,
                'value': float(mine[0]['value']) if mine else None,
                'guesses': [
                    {
                        'cost': row['cost'],
                        **{e: float(row[e]) if row[e] else None for e in ('at_least', 'at_most')},
                    }
                    for row in mine
                    if row['cost']
                ],
                'stale': stale(headline, mine) or None,
            }
        )
    return found


def printed(found: Iterable[Mapping[str, Any]]) -> str:
    """The same as text."""
    lines = [
        f'guesses (grade C) that move a headline result by more than {MATTERS:.0%} over their '
        'range, in % at its least and most:'
    ]
    for entry in found:
        old = f'; STALE: {entry["stale"]}' if entry['stale'] else ''
        value = '-' if entry['value'] is None else f'{entry["value"]:,.4g} {entry["unit"]}'
        lines.append(f'  {entry["headline"]}: {value}{old}')
        wide = max((len(guess['cost']) for guess in entry['guesses']), default=0)
        for guess in entry['guesses']:
            both = (guess['at_least'], guess['at_most'])
            ends = ('-' if end is None else f'{end:+.1f}' for end in both)
            lines.append(f'      {guess["cost"]:{wide}}  ' + '  '.join(f'{e:>7}' for e in ends))
        if not entry['guesses'] and not entry['stale']:
            lines.append('      none')
    return '\n'.join(lines)
