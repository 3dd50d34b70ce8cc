"""The ioctls that QEMU's vhost-scsi makes, in the columns of a trace.

They are made by the device model (sim.device) on a simulated machine, not read from a table.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sim import costs, machine
from sim.config import Config, load, with_migration
from sim.control import vmstate
from sim.control.clock import Action, Call
from sim.control.power import Host, boot, make_host
from sim.engine import ENGINES, Engine
from sim.errors import ConfigError
from sim.features import STACKS
from sim.migrate import handover
from sim.migration import destination_of
from sim.options import config_sources, version_sets
from sim.units import cycles_to_ns

COLUMNS = ('t_us', 'tid', 'ioctl', 'args', 'result', 'duration_us')
# Of the scenarios, in their order, the thread: QEMU's main, vCPU 0's, migration's.
THREADS = {'init': 1, 'start': 2, 'log': 3, 'stop': 3}
SOURCE, DESTINATION = ('init', 'start', 'log', 'stop'), ('init', 'start')


def main(options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """(text, data) of the scenario that the options ask for. Errors: ConfigError."""
    config = load(**config_sources(options), sets=[*options.sets, *version_sets(options)])
    if STACKS[config.device.driver] != 'vhost-scsi':
        raise ConfigError(
            f'device.driver={config.device.driver}: makes no ioctls of /dev/vhost-scsi; use '
            'vhost-scsi-pci'
        )
    data = {
        'scenario': options.scenario,
        'qemu': config.qemu.version,
        'kernel': config.host.kernel,
    }
    if options.scenario == 'migrate':
        sides = migration(config)
        lines = [line for side, rows in sides.items() for line in (side, *as_lines(rows))]
        return '\n'.join(lines), {**data, **sides}
    rows = trace(config)[options.scenario]
    return '\n'.join(as_lines(rows)), {**data, 'rows': rows}


def trace(config: Config) -> dict[str, list[dict[str, Any]]]:
    """The rows of every scenario of one life: init, start, log, stop."""
    return _rows(_lived(config, _engine(config))[1], config)


def migration(config: Config) -> dict[str, list[dict[str, Any]]]:
    """The rows of a VM without work that moves to another host, of source and destination."""
    config = with_migration(config)
    if config.migration is not None and config.migration.faults:
        raise ConfigError(
            'migration.faults: these are the ioctls of a migration in which nothing goes wrong; '
            'take it out'
        )
    there, source = destination_of(config), _engine(config)
    host, parts = _lived(config, source)
    world, now = source.machine, int(source.env.now)
    fresh = machine.build(there, costs.of_config(there), record_requests=False)
    handover.check_alike(world, fresh)
    arrived = handover.arrive(world, fresh, world.mem.copy(), world.media)
    engine = ENGINES['simpy'](arrived, now)
    parts_there = _incoming(engine, there, vmstate.save(host.device))
    rows, rows_there = _rows(parts, config), _rows(parts_there, there, dict.fromkeys(THREADS, 1))
    return {
        'source': [row for name in SOURCE for row in rows[name]],
        'destination': [row for name in DESTINATION for row in rows_there[name]],
    }


Parts = dict[str, list[Call]]  # what each part of a life has called


def _engine(config: Config) -> Engine:
    world = machine.build(config, costs.of_config(config), record_requests=False)
    return ENGINES['simpy'](world)


def _lived(config: Config, engine: Engine) -> tuple[Host, Parts]:
    """Realize, boot, log, stop."""
    host = make_host(engine, config)
    steps = (
        host.device.realize(),
        boot(host, config),
        host.device.dev.set_log(True),
        _stop(host),
    )
    return host, _live(host, dict(zip(SOURCE, steps, strict=True)))


def _incoming(engine: Engine, config: Config, state: bytes) -> Parts:
    """Realize, load, start."""
    host = make_host(engine, config)
    common = host.device.parent_obj
    common.host_features = config.agreed.offered

    def start() -> Action:
        vmstate.load(host.device, state, engine.machine.mem)
        yield from host.device.set_status(common.status)

    steps = host.device.realize(), start()
    return _live(host, dict(zip(DESTINATION, steps, strict=True)))


def _live(host: Host, steps: dict[str, Action]) -> Parts:
    """Perform the steps one after the other; the calls of each."""
    parts: Parts = {}

    def life() -> Action:
        for name, step in steps.items():
            before = len(host.control.calls)
            yield from step
            parts[name] = host.control.calls[before:]

    host.control.env.process(life())
    with np.errstate(over='ignore'):  # kernels run as plain Python are not silent about it
        host.control.engine.run()
    return parts


def _rows(
    parts: Parts, config: Config, threads: Mapping[str, int] = THREADS
) -> dict[str, list[dict[str, Any]]]:
    hz = config.host.cpu_hz
    return {name: [row_of(call, threads[name], hz) for call in parts[name]] for name in parts}


def _stop(host: Host) -> Action:
    yield from host.vm.pause_all_vcpus()
    host.vm.running = False
    yield from host.device.set_status(host.device.parent_obj.status)


def row_of(call: Call, tid: int, hz: int) -> dict[str, Any]:
    """One line of the diary under the names of the trace's columns, and each argument by name."""
    return {
        't_us': round(float(cycles_to_ns(call.time, hz)) / 1e3, 1),
        'tid': tid,
        'ioctl': call.name,
        'args': arguments_of(call),
        'result': call.answer,
        'duration_us': round(float(cycles_to_ns(call.duration, hz)) / 1e3, 1),
        **call.arguments,
    }


def arguments_of(call: Call) -> str:
    """The arguments as a trace prints them: index=2 -> num=17 for what the kernel answered."""
    found = [f'{name}={_word(name, value)}' for name, value in call.arguments.items()]
    if call.name == 'VHOST_GET_VRING_BASE' and call.answer == 0:
        return ' -> '.join(found)
    if call.name == 'VHOST_SCSI_GET_ABI_VERSION':
        return ''
    return ' '.join(found)


def _word(name: str, value: Any) -> str:
    return f'{value:#x}' if name in ('features', 'log') else str(value)


def as_lines(rows: list[dict[str, Any]]) -> list[str]:
    """A trace as CSV."""
    return [','.join(COLUMNS), *(as_csv(row) for row in rows)]


def as_csv(row: dict[str, Any], columns: Sequence[str] = COLUMNS) -> str:
    """One row of the trace."""
    return ','.join(str(row[name]) for name in columns)
