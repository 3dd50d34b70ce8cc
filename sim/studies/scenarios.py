"""The scenarios of sim regress: read from a TOML file, each of a kind, observed as numbers.

A kind is a row of KINDS: the options that the table of its name may have, what is made of them, and
a function that runs a config with it and says what it saw. Without options the table is a section
of the config. A scenario without such a table is a plain run.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sim.analysis.frame import summary_frame
from sim.config import Config, load
from sim.control.stopping import Stopping, StopPlan, plan_of, stop
from sim.errors import ConfigError, shown
from sim.formats.toml import Where, read_toml
from sim.migrate.moving import Migrating
from sim.migration import migrate
from sim.record import OPS
from sim.replicate import replication
from sim.run import Result, run

SHIPPED = Path(__file__).parent / 'regress.toml'
DEFAULTS = 'defaults'
TEXTS = ('digest', 'event_digest')  # of a report
SIMULATOR = ('engine_calls',)  # numbers of how it was simulated, not of what


@dataclass(frozen=True)
class Observed:
    """What a run of a scenario showed: numbers and words by metric, and what it broke."""

    values: dict[str, float | str]
    violations: list[str]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of scenario. `headline`: metrics of its own that are tested pair by pair."""

    options: tuple[str, ...] = ()
    plan: Callable[[Config, Mapping[str, Any]], Any] = lambda config, options: None
    observe: Callable[[Config, Any], Observed]
    headline: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One of them. `definition` changes with whatever the file says of it, but for `about`."""

    name: str
    about: str
    kind: str
    config: Config
    plan: Any
    definition: str

    def observe(self, number: int) -> Observed:
        """Replication `number`; 0 is the scenario itself."""
        return KINDS[self.kind].observe(replication(self.config, number), self.plan)

    @property
    def is_alone(self) -> bool:
        """One request at a time: none waits for another, so a stage's change is its own."""
        return self.config.threads == 1 and all(job.iodepth == 1 for job in self.config.jobs)


# --------------------------------------------------------------------------------------- kinds ----


def _values(result: Result) -> dict[str, float | str]:
    """The report's numbers, none of them twice."""
    values: dict[str, float | str] = {name: str(result.report[name]) for name in TEXTS}
    left_out = tuple(_said_elsewhere(result.report['jobs']))
    for metric, value in zip(result.summary['metric'], result.summary['value'], strict=True):
        if metric not in SIMULATOR and not metric.startswith(left_out):
            values[metric] = float(value)
    return values


def _said_elsewhere(jobs: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Beginnings of metrics of a job that is alone, and of a direction that is a job's only one."""
    for name, entry in jobs.items():
        ops = [op for op in OPS if op in entry]
        for part in entry:
            if len(ops) < 2 if part in ops else len(jobs) < 2:
                yield f'jobs.{name}.{part}'
        yield from (f'jobs.{name}.{op}.fio_lat_ns' for op in ops)


def _observe_run(config: Config, plan: Any) -> Observed:
    result = run(config)
    return Observed(_values(result), result.violations)


SAID = ('id', 'digest', 'config', 'at_ns')  # of the report of a kind: the run says it


def _with_report(kind: str, seen: Result, report: Mapping[str, Any]) -> Observed:
    """The numbers of a run, and those of a report below the name of its kind.

    What a wrong policy is there to violate is counted and no violation of the scenario.
    """
    values = _values(seen)
    values[f'{kind}.outcome'] = report['outcome']
    table = summary_frame({kind: {name: v for name, v in report.items() if name not in SAID}})
    values |= dict(zip(table['metric'], map(float, table['value']), strict=True))
    values[f'{kind}.violations'] = float(len(report['violations']))
    return Observed(values, [] if report['expected'] else list(report['violations']))


def _stop_plan(config: Config, options: Mapping[str, Any]) -> StopPlan:
    if 'at' not in options:
        raise ConfigError('at is missing; say when, as at = "2ms"')
    return plan_of(config, **options)


def _observe_stop(config: Config, plan: StopPlan) -> Observed:
    seen: list[Result] = []

    def look(result: Result, stopping: Stopping) -> None:
        seen.append(result)

    report = stop(config, plan, look)
    return _with_report('stop', seen[0], report)


def _observe_migration(config: Config, plan: Any) -> Observed:
    seen: list[Result] = []

    def look(result: Result, move: Migrating) -> None:
        seen.append(result)

    report = migrate(config, look)
    return _with_report('migration', seen[0], report)


KINDS: dict[str, Kind] = {
    'run': Kind(observe=_observe_run),
    'stop': Kind(
        options=('at', 'policy', 'lead', 'depth', 'timeout', 'log', 'gap', 'hold', 'fault'),
        plan=_stop_plan,
        observe=_observe_stop,
        headline=(
            'stop.downtime_ns', 'stop.clear_endpoint_ns', 'stop.blackout_ns.largest',
            'stop.first_completion_ns',
        ),
    ),
    'migration': Kind(
        observe=_observe_migration,
        headline=(
            'migration.downtime_ms', 'migration.vm_stopped_ns', 'migration.total_time_ms',
            'migration.blackout_ns.largest', 'migration.first_completion_ns',
        ),
    ),
}  # fmt: skip


# --------------------------------------------------------------------------------------- files ----


def read_scenarios(path: str | Path = SHIPPED, sets: Sequence[str] = ()) -> list[Scenario]:
    """The scenarios of a file, in its order; `sets` change all of them. Errors: ConfigError."""
    tree, where = read_toml(path)
    for name, table in tree.items():
        if not isinstance(table, Mapping):
            raise ConfigError(f'{where(name, 0)}: {shown(name)} is no scenario; write [{name}]')
    defaults = tree.pop(DEFAULTS, {})
    if not tree:
        raise ConfigError(f'{path}: has no scenario; write a table for each')
    return [_scenario(name, table, defaults, sets, where) for name, table in tree.items()]


def _scenario(
    name: str, table: dict[str, Any], defaults: Mapping[str, Any], sets: Sequence[str], where: Where
) -> Scenario:
    place = where(name, 0)
    about = table.pop('about', '')
    kinds = [kind for kind in KINDS if kind in table and kind != 'run']
    if not about or len(kinds) > 1:
        problem = f'has {" and ".join(kinds)}; keep one' if about else 'has no about; say why it is'
        raise ConfigError(f'{place}: {name} {problem}')
    kind = kinds[0] if kinds else 'run'
    options = table.pop(kind) if KINDS[kind].options else {}
    if not isinstance(options, Mapping):
        raise ConfigError(f'{place}: {name}.{kind} is a table; write [{name}.{kind}]')
    for option in options:
        if option not in KINDS[kind].options:
            known = ', '.join(KINDS[kind].options)
            raise ConfigError(f'{place}: {name}.{kind} has no {shown(option)}; known: {known}')
    sections = {**defaults, **table}
    for section, content in defaults.items():
        if isinstance(content, Mapping) and isinstance(table.get(section), Mapping):
            sections[section] = {**content, **table[section]}
    text = json.dumps([sections, kind, options], sort_keys=True, default=str)
    try:
        config = load(**sections, sets=sets)
        plan = KINDS[kind].plan(config, options)
    except (ConfigError, ValueError) as error:
        raise ConfigError(f'{place}: scenario {name}: {error}') from None
    return Scenario(
        name=name,
        about=about,
        kind=kind,
        config=config,
        plan=plan,
        definition=hashlib.sha256(text.encode()).hexdigest()[:16],
    )
