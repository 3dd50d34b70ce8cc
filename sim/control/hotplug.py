"""LUNs that come and go while the guest runs: what targetcli does on the host, and what is heard.

`plug` is one such action, for control processes of your own; `start` begins those of the config.

    add     core_dev_add_lun(), then vhost_scsi_port_link(): an event with reason RESCAN
    remove  vhost_scsi_port_unlink(): an event with reason REMOVED, then core_dev_del_lun()

The event is told only where the endpoint is set and HOTPLUG was agreed. LIO also raises a unit
attention (3Fh/0Eh, REPORTED LUNS DATA HAS CHANGED) on the target's other LUNs. Commands of a LUN
that goes finish; in life the removal waits for them, which changes nothing that is seen here.
"""

from collections.abc import Generator
from typing import Any

import numpy as np
import pandas as pd
import simpy

from sim import backend, guest, scsi
from sim.config import Config
from sim.engine import Engine
from sim.layout import (
    EVENT_TRANSPORT_RESET,
    EVENTS_MISSED,
    RESET_REMOVED,
    RESET_RESCAN,
    VQ_EVENT,
)
from sim.lio import ports
from sim.machine import Machine
from sim.units import cycles_to_ns, ns_to_cycles

u64 = np.uint64


def start(engine: Engine, config: Config) -> None:
    """A process for each [[hotplug]] table of the config whose time is still to come."""
    for action in config.hotplugs:
        at = int(ns_to_cycles(action.at, config.host.cpu_hz)) - int(engine.env.now)
        if at >= 0:
            engine.env.process(_later(engine, at, action.action, action.target, action.lun))


def _later(
    engine: Engine, at: int, action: str, target: int, number: int
) -> Generator[simpy.Event, Any, None]:
    yield engine.env.timeout(at)
    plug(engine, action, target, number)


def plug(engine: Engine, action: str, target: int, number: int) -> None:
    """Control: add or remove a LUN of the config now; KeyError where it has none such."""
    machine, st = engine.machine, engine.machine.st
    base, lun = map(u64, machine.luns[target, number])
    field = int.from_bytes(scsi.event_lun(target, number), 'little')
    if action == 'add':
        ports.map_lun(st, base, number, lun)
        _tell(engine, field, RESET_RESCAN)
    else:
        _tell(engine, field, RESET_REMOVED)
        ports.unmap_lun(st, base, number)


def _tell(engine: Engine, field: int, reason: int) -> None:
    event_queue = u64(engine.machine.host_vqs[VQ_EVENT])
    backend.plug(engine.machine.st, event_queue, field, reason, int(engine.env.now))
    engine.wake_agents()


EVENTS = {0: 'no_event', EVENT_TRANSPORT_RESET: 'transport_reset'}
REASONS = {RESET_RESCAN: 'rescan', RESET_REMOVED: 'removed'}


def events_of(machine: Machine, cpu_hz: int) -> list[dict[str, Any]]:
    """The events that the guest has handled, oldest first; of very many the last ones.

    Each: t_handle_ns, event, missed (were there others before?), target, lun as the guest reads it,
    reason, inquiries (LUNs that it has looked at).
    """
    thread = machine.event_work
    count, room = machine.field(thread, guest.W_HANDLED), machine.field(thread, guest.W_LOG_ROOM)
    log, found = machine.field(thread, guest.W_LOG), []
    for number in range(max(0, count - room), count):
        at = log + guest.LOG_WORDS * (number % room)
        time, event, target, lun, reason, inquiries = machine.st[at : at + guest.LOG_WORDS].tolist()
        kind = event & ~EVENTS_MISSED
        found.append(
            {
                't_handle_ns': int(cycles_to_ns(np.int64(time), cpu_hz)),
                'event': EVENTS.get(kind, str(kind)),
                'missed': bool(event & EVENTS_MISSED),
                'target': target,
                'lun': lun,
                'reason': REASONS.get(reason, str(reason)) if kind else None,
                'inquiries': inquiries,
            }
        )
    return found


def event_frame(machine: Machine, cpu_hz: int) -> pd.DataFrame:
    """`events_of` as a frame."""
    return pd.DataFrame(events_of(machine, cpu_hz))
