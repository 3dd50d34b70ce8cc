"""The ioctls that QEMU's vhost-scsi makes, in the columns of a trace.

They are made by the device model (sim.device) on a simulated machine, not read from a table.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from sim import costs, machine
from sim.config import Config, load
from sim.control.clock import Action, Call
from sim.control.power import Host, boot, make_host
from sim.engine import ENGINES
from sim.errors import ConfigError
from sim.features import STACKS
from sim.options import config_sources, version_sets
from sim.units import cycles_to_ns

COLUMNS = ('t_us', 'tid', 'ioctl', 'args', 'result', 'duration_us')
# Of the scenarios, in their order, the thread: QEMU's main, vCPU 0's, migration's.
THREADS = {'init': 1, 'start': 2, 'log': 3, 'stop': 3}


def main(options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """(text, data) of the scenario that the options ask for. Errors: ConfigError."""
    config = load(**config_sources(options), sets=[*options.sets, *version_sets(options)])
    if STACKS[config.device.driver] != 'vhost-scsi':
        raise ConfigError(
            f'device.driver={config.device.driver}: makes no ioctls of /dev/vhost-scsi; use '
            'vhost-scsi-pci'
        )
    rows = trace(config)[options.scenario]
    lines = [','.join(COLUMNS), *(as_csv(row) for row in rows)]
    data = {
        'scenario': options.scenario,
        'qemu': config.qemu.version,
        'kernel': config.host.kernel,
        'rows': rows,
    }
    return '\n'.join(lines), data


def trace(config: Config) -> dict[str, list[dict[str, Any]]]:
    """The rows of every scenario of one life: init, start, log, stop."""
    world = machine.build(config, costs.of_config(config), record_requests=False)
    engine = ENGINES['simpy'](world)
    host = make_host(engine, config)
    parts: dict[str, list[Call]] = {}
    engine.env.process(_life(host, config, parts))
    with np.errstate(over='ignore'):  # kernels run as plain Python are not silent about it
        engine.run()
    hz = config.host.cpu_hz
    return {name: [row_of(call, THREADS[name], hz) for call in parts[name]] for name in THREADS}


def _life(host: Host, config: Config, parts: dict[str, list[Call]]) -> Action:
    """Realize, boot, log, stop; what each has called goes into `parts`."""
    steps = (
        host.device.realize(),
        boot(host, config),
        host.device.dev.set_log(True),
        _stop(host),
    )
    for name, step in zip(THREADS, steps, strict=True):
        before = len(host.control.calls)
        yield from step
        parts[name] = host.control.calls[before:]


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


def as_csv(row: dict[str, Any], columns: Sequence[str] = COLUMNS) -> str:
    """One row of the trace."""
    return ','.join(str(row[name]) for name in columns)
