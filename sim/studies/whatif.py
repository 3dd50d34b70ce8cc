"""python -m sim whatif CONFIG --free NAME: what would be gained if something cost nothing.

The config is simulated again with some costs set to zero or scaled, under the same random numbers:
what is gained is a difference of two exact runs, not an estimate from a profile. A name is a group
or a stage of the table below, a field of sim.costs.Costs, or a parameter of the preset.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sim import costs, features
from sim.analysis import stats
from sim.config import Config, load
from sim.errors import ConfigError, shown
from sim.formats import nearest
from sim.formats.luns import Lun
from sim.options import config_sources
from sim.pools import Pool, open_pool
from sim.record import STAGES
from sim.replicate import replication
from sim.run import run

DISK = 'disk'
KINDS_WITH_SERVICE = ('constant', 'exponential', 'lanes')
GROUPS: dict[str, tuple[str, ...]] = {
    'syscalls': ('guest_io_submit', 'guest_io_getevents'),
    'driver': ('guest_submit', 'guest_complete'),
    'kick': ('kick_exit', 'kick_signal', 'kick_wakeup', 'kick_return'),
    'wakeup': ('worker_wake', 'worker_wake_deep', 'context_switch'),
    'vhost': ('worker_pop', 'worker_submit', 'worker_complete'),
    'hops': ('lio_hop',),
    'lio': ('lio_submit', 'lio_complete'),
    'reactor': (
        'reactor_round',
        'reactor_queue',
        'reactor_submit',
        'reactor_complete',
        'call_write',
    ),
    'iothread': (
        'iothread_wake',
        'iothread_turn',
        'iothread_round',
        'iothread_pop',
        'iothread_submit',
        'iothread_issue',
        'iothread_complete',
        'call_write',
    ),
    'threads': ('guest_switch', 'guest_poll'),
    'irq': ('irq_inject', 'irq_entry', 'irq_return', 'vcpu_halt_wake'),
    'lines': ('line_hit', 'line_shared', 'line_transfer', 'line_cold'),
    DISK: (),
}
# Of one device only; the other groups are of every device.
OWN = {
    'vhost-scsi': ('wakeup', 'vhost', 'hops', 'lio'),
    'vhost-user-scsi': ('reactor',),
    'virtio-scsi': ('iothread',),
}
# What is charged between the timestamps of a stage; kick and irq are groups as well.
STAGE_COSTS: dict[str, tuple[str, ...]] = {
    'submit': ('guest_io_submit',),
    'avail': ('guest_submit',),
    'fetch': ('worker_wake', 'worker_wake_deep', 'context_switch', 'iothread_wake'),
    'issue': (
        'worker_pop', 'worker_submit', 'lio_hop', 'lio_submit', 'reactor_submit', 'iothread_pop',
        'iothread_submit', 'iothread_issue',
    ),
    'done': (),  # the disk
    'report': ('lio_complete', 'lio_hop'),
    'used': ('worker_complete', 'reactor_complete', 'iothread_complete'),
    'complete': ('guest_complete', 'irq_return'),
}  # fmt: skip
FIELDS = tuple(item.name for item in dataclasses.fields(costs.Costs))
METRICS = ('latency_ns.mean', 'latency_ns.p50', 'latency_ns.p99', 'iops')

Edit = tuple[str, float]  # a name, and the factor for its costs


def main(options: argparse.Namespace) -> int:
    """Simulate; the exit code."""
    sets = [*options.sets, *([] if options.seed is None else [f'run.seed={options.seed}'])]
    config = load(**config_sources(options), sets=sets)
    for note in config.notes:
        print(f'note: {note}', file=sys.stderr)
    edits = edits_of(options.free, options.scale, config)
    for said in idle_names(config, edits):
        print(f'note: {said}', file=sys.stderr)
    with open_pool(options.backend, options.jobs, options.scheduler) as pool:
        found = whatif(config, edits, pool, replications=options.replications)
    print(json.dumps(found) if options.json else printed(found))
    for broken in found['violations']:
        print(f'violation: {broken}', file=sys.stderr)
    return 1 if found['violations'] else 0


def groups_of(config: Config) -> list[str]:
    """The groups of which the device of a config has something."""
    stack = features.STACKS[config.device.driver]
    others = {name for own, names in OWN.items() if own != stack for name in names}
    return [name for name in GROUPS if name not in others]


def idle_names(config: Config, variants: Sequence[Sequence[Edit]]) -> list[str]:
    """Groups that are asked for and of which the device has nothing, each with what has it."""
    here = groups_of(config)
    asked = dict.fromkeys(name for edits in variants for name, _ in edits)
    owners = {name: stack for stack, names in OWN.items() for name in names}
    stack = features.STACKS[config.device.driver]
    return [
        f'{name}: a {config.device.driver} has no such costs, only {owners[name]} has; its own '
        f'are {", ".join(OWN[stack])}'
        for name in asked
        if name in owners and name not in here
    ]


def edits_of(free: Sequence[str], scale: Sequence[str], config: Config) -> list[list[Edit]]:
    """The variants: each name alone, and all of them together if there are several."""
    names = [name.strip() for text in free for name in text.split(',') if name.strip()]
    every = names == ['all']
    found = [(name, 0.0) for name in (groups_of(config) if every else names)]
    for text in scale:
        name, equals, factor = (part.strip() for part in text.partition('='))
        try:
            value = float(factor)
        except ValueError:
            value = -1.0
        if not equals or not 0 <= value < 1e6:
            raise ConfigError(f'--scale {text}: write NAME=FACTOR, as in irq=0.5')
        found.append((name, value))
    if not found:
        raise ConfigError(f'whatif: say what with --free or --scale; groups: {", ".join(GROUPS)}')
    twice = next((name for name, _ in found if [n for n, _ in found].count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f'whatif: {twice} is there twice; keep one')
    alone = [[edit] for edit in found]
    return alone if every or len(found) == 1 else [*alone, found]


def fields_of(name: str, preset: costs.Preset) -> tuple[str, ...]:
    """The fields of Costs that a name stands for; none for the disk and a preset's parameter."""
    if name in GROUPS:
        return GROUPS[name]
    if name in STAGE_COSTS:
        return STAGE_COSTS[name]
    if name in FIELDS:
        return (name,)
    if name in preset.parameters:
        return ()
    close = nearest(name, {*GROUPS, *STAGE_COSTS, *FIELDS, *preset.parameters})
    raise ConfigError(f'whatif: no cost {shown(name)}; the nearest is {close!r}')


def varied(config: Config, edits: Sequence[Edit]) -> tuple[Config, costs.Costs]:
    """The config and its cost table with the edits in them. Errors: ConfigError."""
    preset = costs.load_preset(config.run.preset)
    factors: dict[str, float] = {}
    for name, factor in edits:
        for field in fields_of(name, preset):
            factors[field] = min(factors.get(field, factor), factor)
        if name in (DISK, 'done'):
            config = _disk(config, factor)
            factors |= {'null_service': 0.0} if factor == 0 else {}
        elif name in preset.parameters and name not in FIELDS:
            config = _parameter(config, preset, name, factor)
    table = costs.of_config(config)
    changed = {name: round(getattr(table, name) * factor) for name, factor in factors.items()}
    return config, replace(table, **changed)


def _parameter(config: Config, preset: costs.Preset, name: str, factor: float) -> Config:
    row = preset.parameters[name]
    if row.unit not in ('ns', 'cycles'):
        raise ConfigError(f'whatif: {name} is in {row.unit}; only times can be scaled')
    ns = config.costs.get(name)
    if ns is None:
        ns = round(row.value * 10**9 / preset.cpu_hz if row.unit == 'cycles' else row.value)
    return replace(config, costs={**config.costs, name: round(ns * factor)})


def _disk(config: Config, factor: float) -> Config:
    """Every disk without service, or with its service scaled."""

    def changed(disk: Any) -> Any:
        if factor == 0:
            return replace(disk, kind='null', component=None)
        if disk.kind not in KINDS_WITH_SERVICE:
            raise ConfigError(
                f'whatif: a disk of kind {disk.kind} has no one service to scale; only '
                f'{", ".join(KINDS_WITH_SERVICE)} have; or free it'
            )
        return replace(disk, service=round(disk.service * factor))

    luns = tuple(Lun(**{**vars(lun), 'disk': changed(lun.disk)}) for lun in config.luns)
    return replace(config, target=changed(config.target), luns=luns)


def simulate(config: Config, edits: Sequence[Edit], place: int, number: int) -> dict[str, Any]:
    """In a worker: one replication of one variant; `place` says which."""
    changed, table = varied(replication(config, number), edits)
    result = run(changed, costs_override=table)
    report = result.report
    numbers: dict[str, Any] = {'iops': report['iops']}
    numbers |= {f'latency_ns.{name}': value for name, value in report['latency_ns'].items()}
    numbers |= {f'stages_ns.{name}': value for name, value in report['stages_ns'].items()}
    return {
        'place': place, 'number': number, 'numbers': numbers, 'violations': result.violations
    }  # fmt: skip


def whatif(
    config: Config, variants: Sequence[Sequence[Edit]], pool: Pool, *, replications: int = 1
) -> dict[str, Any]:
    """The baseline and what each variant gains; times in ns. Errors: ConfigError."""
    if replications < 1:
        raise ConfigError(f'--replications {replications}: at least one is needed')
    everything: list[Sequence[Edit]] = [(), *variants]
    for edits in variants:
        varied(config, edits)  # whatever is wrong with a name is said before the first run
    calls = [
        (config, edits, place, number)
        for place, edits in enumerate(everything)
        for number in range(replications)
    ]
    runs = {(found['place'], found['number']): found for found in pool.map(simulate, calls)}

    def numbers(place: int) -> list[dict[str, Any]]:
        return [runs[place, number]['numbers'] for number in range(replications)]

    base = numbers(0)
    rows = [
        {
            'name': ' '.join(name if not f else f'{name}={f:g}' for name, f in edits),
            'edits': [list(edit) for edit in edits],
            'changed': changes_of(config, edits),
            'gain': gains(base, numbers(place)),
        }
        for place, edits in enumerate(variants, 1)
    ]
    return {
        'id': config.id,
        'replications': replications,
        'base': {name: _mean([one.get(name) for one in base]) for name in base[0]},
        'variants': rows,
        'violations': [
            f'{rows[place - 1]["name"] if place else "base"}, replication {number}: {text}'
            for (place, number), found in sorted(runs.items())
            for text in found['violations']
        ],
        'config': config.effective(),
    }


def changes_of(config: Config, edits: Sequence[Edit]) -> dict[str, list[int]]:
    """Costs in cycles before and after, by field."""
    before = costs.of_config(config)
    after = varied(config, edits)[1]
    return {
        name: [getattr(before, name), getattr(after, name)]
        for name in FIELDS
        if getattr(before, name) != getattr(after, name)
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def gains(
    base: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, float | None] | None]:
    """Per number: with the change, the difference to the base, relative, and its interval.

    The interval is Student's t on the differences of the replications; None for a single one.
    """
    found: dict[str, dict[str, float | None] | None] = {}
    for name in (*METRICS, *(f'stages_ns.{stage}' for stage in STAGES)):
        sides = [[one.get(name) for one in runs] for runs in (base, other)]
        mean_a, mean_b = map(_mean, sides)
        if mean_a is None or mean_b is None:
            found[name] = None
            continue
        half = None
        if len(base) > 1:
            a, b = (np.array(values, dtype=np.float64) for values in sides)
            half = stats.mean_interval(b - a).half_width
        found[name] = {
            'value': mean_b,
            'difference': mean_b - mean_a,
            'half_width': half,
            'relative': (mean_b - mean_a) / mean_a if mean_a else None,
        }
    return found


def printed(found: Mapping[str, Any]) -> str:
    """What a person wants to see: the largest gain of the mean first, what is combined last."""
    base = found['base']
    exact = found['replications'] == 1

    def us(ns: float | None) -> str:
        return '-' if ns is None else f'{ns / 1e3:.2f}'

    lines = [
        f'run {found["id"]}: mean {us(base["latency_ns.mean"])}  p50 {us(base["latency_ns.p50"])}  '
        f'p99 {us(base["latency_ns.p99"])} µs  {base["iops"]:.0f} IOPS; '
        + ('one run' if exact else f'{found["replications"]} replications, ± 95 %'),
        '',
        f'{"without":24}'
        + ''.join(f'{name:>20}' for name in ('mean, µs', 'p99, µs', 'IOPS'))
        + '   most in',
    ]
    singles = [row for row in found['variants'] if len(row['edits']) == 1]
    singles.sort(key=lambda row: row['gain']['latency_ns.mean']['difference'])
    for row in singles + [row for row in found['variants'] if len(row['edits']) > 1]:
        cells = [
            _cell(row['gain'][name], scale)
            for name, scale in (('latency_ns.mean', 1e3), ('latency_ns.p99', 1e3), ('iops', 1.0))
        ]
        stages = {
            stage: gain['difference']
            for stage in STAGES
            if (gain := row['gain'][f'stages_ns.{stage}']) is not None
        }
        most = _most_in(stages, row['gain']['latency_ns.mean']['difference'])
        lines.append(f'{row["name"]:24}' + ''.join(f'{cell:>20}' for cell in cells) + f'   {most}')
    return '\n'.join(lines)


def _most_in(moved: Mapping[str, float], whole: float) -> str:
    """The stage that moves most the way the latency does; '-' where nothing moves."""
    sign = -1.0 if whole < 0 else 1.0
    stage = max(moved, key=lambda name: sign * moved[name], default='-')
    return stage if any(moved.values()) else '-'


def _cell(gain: Mapping[str, Any] | None, scale: float) -> str:
    if gain is None:
        return '-'
    digits = 2 if scale > 1 else 0
    text = f'{gain["difference"] / scale:+.{digits}f}'
    if gain['half_width'] is not None:
        return f'{text} ± {gain["half_width"] / scale:.{digits}f}'
    return text if gain['relative'] is None else f'{text} ({gain["relative"]:+.1%})'
