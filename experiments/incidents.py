"""Which known incidents of a stop, a flush or a migration can be seen here, and do they go away
when their mechanism does?

Method: every scenario of record is a few lines of config, run as `sim stop` or `sim migrate` would
(or, for two, a control process of a dozen lines), and once more with its mechanism taken out. What
is expected of both is part of the scenario; what is seen is looked up in the report.

Expect: every scenario shows what its source tells, and its counterpart does not.

Takes: half a minute on two cores, --quick (without the counterparts) half of that, behind the
compilation of the kernels.
"""

import argparse
import json
import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import command

PLACE = Path(__file__).with_suffix('.toml')
Tables = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One incident, as incidents.toml has it and explains it."""

    name: str
    incident: str
    source: str
    avoid: str
    kind: str
    expected: tuple[str, ...]
    without_what: str
    gone: tuple[str, ...]
    config: Tables
    without: Tables
    stop: Mapping[str, str]
    stop_without: Mapping[str, str]

    def sections(self, other: bool) -> dict[str, Any]:
        """The config; `other`: the counterpart's."""
        return _laid_over(self.config, self.without) if other else dict(self.config)

    def section(self) -> str:
        """Its section of docs/reference/incidents.md."""
        lines = ['```toml']
        for name, table in self.config.items():
            keys = (f'"{key}"' if '.' in key else key for key in table)
            pairs = zip(keys, (json.dumps(value) for value in table.values()), strict=True)
            lines.append(f'[[{name}]]' if name == 'hotplug' else f'[{name}]')
            lines += [f'{key} = {value}' for key, value in pairs]
        lines.append('```')
        options = ' '.join(f'--{key} {value}' for key, value in self.stop.items())
        played = {'migrate': '`sim migrate`', 'stop': f'`sim stop {options}`'}.get(
            self.kind, f'`{self.kind}()` of experiments/incidents.py'
        )
        seen, gone = (', '.join(f'`{c}`' for c in cs) for cs in (self.expected, self.gone))
        return '\n'.join(
            [
                f'## {self.name}\n', f'{self.incident.strip()}\n', *lines, '',
                f'- played by: {played}', f'- seen: {seen}',
                f'- with {self.without_what}: {gone}',
                f'- source: {self.source.strip()}', f'- how to avoid it: {self.avoid.strip()}',
            ]
        )  # fmt: skip


def _laid_over(below: Tables, above: Tables) -> dict[str, Any]:
    found = {name: dict(table) for name, table in below.items()}
    for name, table in above.items():
        found[name] = {**found.get(name, {}), **table}
    return found


def scenarios() -> list[Scenario]:
    """All of them, in the order of the file."""
    with PLACE.open('rb') as file:
        text = tomllib.load(file)
    found = []
    for one in text['scenario']:
        config: dict[str, Any] = {}
        for name in one.pop('base', []):
            config = _laid_over(config, text['base'][name])
        config = _laid_over(config, one.pop('config', {}))
        found.append(
            Scenario(
                config=config,
                without=one.pop('without', {}),
                stop=one.pop('stop', {}),
                stop_without=one.pop('stop_without', {}),
                expected=tuple(one.pop('expected')),
                gone=tuple(one.pop('gone')),
                **one,
            )
        )
    return found


# ------------------------------------------------------------------------------------- what is seen


def facts(report: Mapping[str, Any]) -> dict[str, Any]:
    """What conditions may ask of a report: numbers and texts by name."""
    said = [*report['violations'], *report['findings']]
    answers = report['responses']
    found = {
        'outcome': report['outcome'],
        'violations': '; '.join(dict.fromkeys(v.split(':')[0] for v in report['violations'])),
        'stranded': sum('stay in the ring' in line for line in report['findings']),
        'lost': sum(line.startswith('lost') for line in report['findings']),
        'cancel': next((v for v in said if 'migrate_cancel' in v), ''),
        'in_flight': report['in_flight_at_stop'],
        'bad_target': answers.get('3', 0),
        'unanswered': answers.get('none', 0),
        'drain_ms': report['phases_ns']['drain'] / 1e6,
    }
    for name in ('stale_pages', 'left_behind', 'downtime_ms', 'expected_downtime_ms'):
        if name in report:
            found[name] = report[name]
    return found


def harms(seen: Mapping[str, Any]) -> str:
    """What has been done to the guest, in a few words."""
    outcome = seen['outcome']
    found = {
        'requests never answered': outcome == 'hung',
        'the stop never ends': outcome.startswith('stuck'),
        'requests fail': outcome == 'errors',
        'stale pages': seen.get('stale_pages', 0) > 0,
        'two hosts have the disk': 'ownership' in seen.get('violations', ''),
        'a drain above 100 ms': seen.get('drain_ms', 0) > 100,
        'an event is lost': seen.get('events') == 0 and seen.get('told', False),
    }
    return '; '.join(harm for harm, done in found.items() if done) or 'none'


CONDITION = re.compile(r'(\w+)([=<>~])(.*)')


def holds(condition: str, seen: Mapping[str, Any]) -> bool:
    """Is it so? `name=text`, `name~part of a text`, `name<number`, `name>number`."""
    match = CONDITION.fullmatch(condition)
    assert match is not None, condition
    value, how, wanted = seen[match[1]], match[2], match[3]
    if how == '~':
        return wanted in str(value)
    if how == '=':
        return str(value) == wanted
    if value is None:
        return False
    return bool(value < float(wanted) if how == '<' else value > float(wanted))


def shown(conditions: tuple[str, ...], seen: Mapping[str, Any]) -> str:
    """What the conditions ask for, as it was."""
    names = dict.fromkeys(CONDITION.fullmatch(c)[1] for c in conditions)  # type: ignore[index]
    values = {name: seen[name] for name in names}
    return ', '.join(
        f'{name} {value:.1f}' if isinstance(value, float) else f'{name} {value}'
        for name, value in values.items()
    )


# -------------------------------------------------------------------------------------- what is run


def play(name: str, config: dict[str, Any], other: bool) -> dict[str, Any]:
    """One scenario or (`other`) its counterpart: what is seen. Its own function for processes."""
    from sim.config import from_effective

    scenario = next(one for one in scenarios() if one.name == name)
    given = from_effective(config)
    if scenario.kind == 'migrate':
        return _migrate(given)
    if scenario.kind == 'stop':
        return _stop(given, {**scenario.stop, **(scenario.stop_without if other else {})})
    return PLAYED[scenario.kind](given, other)


def _migrate(config: Any) -> dict[str, Any]:
    from sim.migration import migrate

    seen: dict[str, Any] = {}

    def look(result: Any, move: Any) -> None:
        seen['events'] = len(result.report.get('events', []))
        seen['told'] = bool(config.hotplugs)  # something should be heard of

    return facts(migrate(config, look)) | seen


def _stop(config: Any, given: dict[str, str]) -> dict[str, Any]:
    from sim import vring
    from sim.control.stop_policy import policy_named
    from sim.control.stopping import StopPlan, stop
    from sim.features import STACKS
    from sim.layout import VQ_REQUEST_FIRST
    from sim.units import parse_time_ns

    name = given.pop('policy', 'drain')
    policy = policy_named(name, stack=STACKS[config.device.driver])
    seen: dict[str, Any] = {}

    def look(result: Any, stopping: Any) -> None:
        machine = stopping.host.control.machine
        used = machine.field(machine.devices[VQ_REQUEST_FIRST], vring.V_USED)
        seen['no_notify'] = int(machine.mem[used] & 1)

    times: dict[str, Any] = {key: parse_time_ns(text) for key, text in given.items()}
    return facts(stop(config, StopPlan(policy=policy, **times), look)) | seen


def log_window(config: Any, other: bool) -> dict[str, Any]:
    """A migration; in the counterpart the kernel notes buffers from SET_LOG_BASE on."""
    from sim.migration import migrate

    def attend(move: Any) -> None:
        move.host.file.notes_early = other

    return facts(migrate(config, attend=attend))


def _by_hand(config: Any, act: Any) -> tuple[Any, Any]:
    """A run with a control process of one's own: its host and the rows of the trace."""
    from sim.analysis import frame
    from sim.control.power import switch_on
    from sim.run import run

    kept: dict[str, Any] = {}

    def attend(engine: Any, phases: Any) -> None:
        kept['host'] = switch_on(engine, config)
        engine.env.process(act(kept['host']))

    run(config, attend=attend)
    return kept['host'], frame.trace_rows(kept['host'].control.machine)


def _outcome(rows: Any) -> dict[str, Any]:
    from sim.analysis import frame

    left = int((rows[:, frame.COLUMN['t_complete']] == 0).sum())
    used = rows[:, frame.COLUMN['t_used']] > 0
    silent = int((used & (rows[:, frame.COLUMN['t_complete']] == 0)).sum())
    return {'outcome': 'hung' if left else 'ok', 'unanswered': left, 'used_not_seen': silent}


def index_zero(config: Any, other: bool) -> dict[str, Any]:
    """A session with a new region, over which nothing has completed when SPDK is restarted.

    In the counterpart one request has.
    """
    from sim.control.halves import prepare, start_half, stop_half
    from sim.control.stop_policy import policy_named

    inflight = policy_named('inflight', stack='vhost-user-scsi', hypothetical=True)

    def act(host: Any) -> Any:
        cycles = host.cpu_hz // 1_000_000
        yield host.control.env.timeout(10_400 * cycles)
        yield from stop_half(host)  # as at the end of a migration: everything is drained
        prepare(host, inflight)  # and the region is a new one
        yield from start_half(host)
        yield host.control.env.timeout((1_500 if other else 400) * cycles)
        watch = yield from stop_half(host, inflight)
        yield from start_half(host, inflight, watch)

    _, rows = _by_hand(config, act)
    return _outcome(rows)


def silent_answers(config: Any, other: bool) -> dict[str, Any]:
    """The answers that are given during the drain are not signalled; in the counterpart the
    session signals every queue when it begins.
    """
    from sim import agents, backend
    from sim.control.halves import start_half, stop_half
    from sim.user import fields
    from sim.user.scsi import Q_UNSIGNALLED

    def act(host: Any) -> Any:
        control, end, machine = host.control, host.backend, host.control.machine
        at = int(end.thread + fields.T_QUEUES)
        queues = int(machine.st[at])
        yield control.env.timeout(10_400 * (host.cpu_hz // 1_000_000))

        def silence(watch: Any) -> None:
            machine.st[at] = 0  # the poller that signals has no queue any more

        yield from stop_half(host, look=silence)
        machine.st[at] = queues
        for q in machine.host_queues:
            machine.st[q + int(Q_UNSIGNALLED)] = 0  # the next session knows nothing of it
        yield from start_half(host)
        if other:
            for q in machine.host_queues:
                agents.wake(machine.st, machine.field(q, backend.Q_IRQ_SLOT), control.now)
            control.engine.wake_agents()

    _, rows = _by_hand(config, act)
    return _outcome(rows)


PLAYED = {'log_window': log_window, 'index_zero': index_zero, 'silent_answers': silent_answers}


def experiment(options: argparse.Namespace) -> command.Outcome:
    """Every scenario, and what goes away with its mechanism."""
    configs, calls = {}, {}
    for scenario in scenarios():
        for other in (False,) if options.quick else (False, True):
            sections = scenario.sections(other)
            if 'hotplug' in sections:
                sections['hotplug'] = [sections['hotplug']]
            config = command.config(options, under=sections)
            label = scenario.name + (', without' if other else '')
            configs[label] = config
            calls[label] = (scenario.name, config.effective(), other)
    first = next(iter(configs.values()))
    command.announce(options, first)
    seen = dict(zip(calls, command.each(options, play, calls), strict=True))
    rows = [row_of(scenario, seen) for scenario in scenarios()]
    wrong = [
        f'{row["scenario"]}: expected {row["expected"]}, seen {row["seen"]}'
        for row in rows
        if not row['agrees']
    ] + [
        f'{row["scenario"]}, {row["without"]}: expected {row["without_expected"]}, seen '
        f'{row["without_seen"]}'
        for row in rows
        if row['goes'] is False
    ]
    return command.Outcome(first, rows, wrong)


def row_of(scenario: Scenario, seen: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """A scenario's line of the table; `goes` is None where the counterpart was not run."""
    here, other = seen[scenario.name], seen.get(scenario.name + ', without')
    return {
        'scenario': scenario.name,
        'expected': ', '.join(scenario.expected),
        'seen': shown(scenario.expected, here),
        'agrees': all(holds(condition, here) for condition in scenario.expected),
        'without': scenario.without_what,
        'without_expected': ', '.join(scenario.gone),
        'without_seen': None if other is None else shown(scenario.gone, other),
        'goes': None
        if other is None
        else all(holds(condition, other) for condition in scenario.gone),
        'source': scenario.source.strip(),
        'harms': harms(here),
        'without_harms': None if other is None else harms(other),
    }


def draw(outcome: command.Outcome, folder: Path) -> None:
    """Table and figure."""
    import pandas as pd

    from sim.analysis import plot, plot_incidents

    table = pd.DataFrame(outcome.rows)
    table.to_csv(folder / 'incidents.csv', index=False)
    plot.save(plot_incidents.incidents(table), folder / 'incidents.png')


def show(outcome: command.Outcome) -> None:
    """The table for people."""
    for row in outcome.rows:
        print(f'{row["scenario"]}: {"as expected" if row["agrees"] else "NOT AS EXPECTED"}')
        print(f'    expected  {row["expected"]}\n    seen      {row["seen"]}')
        if row['goes'] is not None:
            goes = 'and it goes' if row['goes'] else 'IT DOES NOT GO'
            print(f'    {row["without"]}: {goes} ({row["without_seen"]})')


EXPERIMENT = command.Experiment(
    'incidents', __doc__, experiment, draw, show,
    tables=('incidents.csv',),
    figures={'incidents.png': 'what each scenario does, and what is left without its mechanism'},
    points=False,
    headlines='a scenario is seen or not; its own config has the costs that it needs',
)  # fmt: skip

if __name__ == '__main__':
    sys.exit(EXPERIMENT.main())
