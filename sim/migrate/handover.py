"""From the machine of one host to that of another: the guest moves, the host stays behind.

All state is flat arrays, and `Machine.belongs` says which words are not the guest's. A machine of
the destination's config, as it was built, gives those; the source's gives the rest.

    the guest    vCPUs, driver, application, the recording: as the source left them
    host         vhost, its workers, LIO's kworkers: fresh
    luns         LIO's LUNs: the source's, where the orchestrator moves target state, else fresh
    disks        the source's where the storage is shared, else fresh
    memory       what has been sent
    caches       cold: no line of memory is held by any CPU

Counters go on. The clock does, too: the destination's engine begins at the cycle of the hand-over.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from sim import agents, backend, guest, memory, vring
from sim.agents import A_BUSY, A_STEPS, IDLE
from sim.control.clock import Action
from sim.disks import fields as disks
from sim.engine import Engine
from sim.errors import ConfigError
from sim.lio import lun as unit
from sim.lio import ports
from sim.machine import DISKS, HOST, Machine, Words

# What a disk has of the host above it; all else of it is the storage's.
DISK_OF_HOST = (disks.D_LIO_SUBMIT, disks.D_WBT, disks.D_THREAD)


def snapshot(machine: Machine, media: Words | None = None) -> Machine:
    """The same machine once more, on arrays of its own. `media`: a medium to share instead."""
    return replace(
        machine,
        mem=machine.mem.copy(),
        lines=machine.lines.copy(),
        st=machine.st.copy(),
        tr=machine.tr.copy(),
        media=machine.media.copy() if media is None else media,
    )


def check_alike(source: Machine, fresh: Machine) -> None:
    """A guest can only go where the same devices wait. Errors: ConfigError."""
    for what, here, there in (
        ('agents', source.names, fresh.names),
        ('queues', source.host_vqs, fresh.host_vqs),
        ('memory', source.mem.size, fresh.mem.size),
        ('state', source.belongs, fresh.belongs),
    ):
        if here != there:
            raise ConfigError(
                f'migration: the destination has other {what} than the source (queues, ring sizes, '
                'workers and disks must be the same); give both the same -device and host.workers'
            )


def arrive(
    source: Machine,
    fresh: Machine,
    mem: np.ndarray,
    media: Words,
    *,
    shared: bool = True,
    target_state: bool = True,
) -> Machine:
    """The guest of `source` on the host of `fresh`; none of the two is changed.

    `mem` is what the destination has received, `media` the medium that it uses; both become its
    own. `shared`: it is the same storage, with its queues and caches. `target_state`: LIO's state
    of the LUNs has been moved.
    """
    st = source.st.copy()
    for owner, ranges in fresh.belongs.items():
        if owner != DISKS or not shared:
            for start, end in ranges:
                st[start:end] = fresh.st[start:end]
    if target_state:
        _move_target_state(st, source, fresh)
    _costs(st, fresh)
    machine = replace(
        fresh, mem=mem, st=st, tr=source.tr.copy(), media=media, lines=_cold(source, fresh)
    )
    _counters(machine, source, shared)
    _agents(machine, source, fresh, shared)
    return machine


# What LIO knows of a LUN because of what initiators have asked, not because of how it was set up.
LUN_STATE = (
    unit.L_GUARDED, unit.L_LEGACY_HOLDER, unit.L_HOLDER, unit.L_TYPE, unit.L_SCOPE,
    unit.L_GENERATION, unit.L_APTPL, unit.L_REGISTRATIONS,
)  # fmt: skip
NEXUS_STATE = (
    unit.N_ORDER, unit.N_KEY, unit.N_ALL_PORTS,
    *(unit.N_ATTENTIONS + np.uint64(i) for i in range(1 + unit.ATTENTION_ROOM)),
)  # fmt: skip


def _move_target_state(st: Words, source: Machine, fresh: Machine) -> None:
    """Reservations, registrations and unit attentions of each LUN, and which LUNs are mapped."""
    for place, (target, lun) in fresh.luns.items():
        old_target, old_lun = source.luns[place]
        for there, here, names in nexuses_of(fresh, source, lun, old_lun):
            for name in names:
                st[there + int(name)] = source.st[here + int(name)]
        mapped = int(ports.find_lun(source.st, np.uint64(old_target), place[1]))
        if mapped and not ports.find_lun(st, np.uint64(target), place[1]):
            ports.map_lun(st, np.uint64(target), place[1], lun)
        elif not mapped and ports.find_lun(st, np.uint64(target), place[1]):
            ports.unmap_lun(st, np.uint64(target), place[1])


def nexuses_of(
    fresh: Machine, source: Machine, lun: int, old: int
) -> Iterator[tuple[int, int, tuple[np.uint64, ...]]]:
    """Pairs of stretches that hold a LUN's state here and there, and the names of their words."""
    yield lun, old, LUN_STATE
    for nexus in range(int(fresh.st[lun + int(unit.L_NEXUSES)])):
        there = int(unit.nexus_base(fresh.st, np.uint64(lun), nexus))
        here = int(unit.nexus_base(source.st, np.uint64(old), nexus))
        yield there, here, NEXUS_STATE


def _costs(st: Words, fresh: Machine) -> None:
    """What things cost on that host."""
    table = slice(agents.COST_TABLE, agents.COST_TABLE + len(agents.COSTS))
    st[table] = fresh.st[table]
    for slot in fresh.slots_of(agents.VCPU):
        place = fresh.bases[slot] + int(guest.V_HALT_SHRINK)
        st[place] = fresh.st[place]


def _cold(source: Machine, fresh: Machine) -> Words:
    """The line table: nobody holds a line; what was counted stays."""
    lines = fresh.lines.copy()
    entries = int(lines[int(memory.L_ENTRIES)])
    lines[entries:] = 0
    lines[int(memory.L_CORES) : entries] = source.lines[int(memory.L_CORES) : entries]
    return lines


def _counters(machine: Machine, source: Machine, shared: bool) -> None:
    """Statistics of the host go on where they were."""
    for slot, kind in enumerate(machine.kinds):
        if kind in (*agents.CPU_KINDS, agents.DISK):
            for name in (A_BUSY, A_STEPS):
                place = machine.bases[slot] + int(name)
                machine.st[place] = source.st[place]
        if kind == agents.DISK:
            base, now = machine.bases[slot], int(source.st[int(agents.H_NOW)])
            lanes = now * int(source.st[base + int(disks.D_LANES)])
            for name, most in ((disks.D_LANE_BUSY, lanes), (disks.D_SERIAL_BUSY, now)):
                place = base + int(name)
                # An access is charged as it begins: what is still to come of one (a cache that is
                # written out) stays with a disk that is left behind.
                busy = int(source.st[place])
                machine.st[place] = busy if shared else min(busy, most)
    for device in machine.devices:
        seen = slice(device + int(vring.V_VERDICT), device + int(vring.V_TABLE))
        machine.st[seen] = source.st[seen]
    for queue in machine.host_vqs:
        place = queue + int(backend.Q_AHEAD_MAX)
        machine.st[place] = source.st[place]


def _agents(machine: Machine, source: Machine, fresh: Machine, shared: bool) -> None:
    """The calendar: the guest's agents as they were, the host's wait; disks know their new host."""
    st = machine.st
    due = int(st[int(agents.H_DUE)])
    for slot, kind in enumerate(machine.kinds):
        base = machine.bases[slot]
        if kind == agents.DISK:
            for name in DISK_OF_HOST:
                st[base + int(name)] = fresh.st[base + int(name)]
        if _is_of(machine, base, HOST) or (kind == agents.DISK and not shared):
            st[due + slot] = IDLE
    for slot in range(len(machine.kinds)):
        agents.renew(st, slot)
    st[int(agents.H_WOKEN_COUNT)] = 0
    st[int(agents.H_KVM_LOG)] = 0


def _is_of(machine: Machine, base: int, owner: str) -> bool:
    return any(start <= base < end for start, end in machine.belongs.get(owner, ()))


def is_idle(machine: Machine, slots: list[int]) -> bool:
    """Has none of these agents anything to do?"""
    due = int(machine.st[int(agents.H_DUE)])
    return all(machine.st[due + slot] >= IDLE for slot in slots)


def host_slots(machine: Machine) -> list[int]:
    """The agents that stay behind: the host's and the disks."""
    owners = (HOST, DISKS)
    return [
        slot for slot, base in enumerate(machine.bases)
        if any(_is_of(machine, base, owner) for owner in owners)
    ]  # fmt: skip


def next_due(engine: Engine) -> int | None:
    """The cycle at which an agent or a control process wants to run next; None: never."""
    st, count = engine.machine.st, len(engine.machine.kinds)
    at = int(st[int(agents.H_DUE)])
    key = int(st[at : at + count].min())
    due = min(agents.NEVER if key >= IDLE else key >> agents.SLOT_BITS, engine.next_control())
    return None if due >= agents.NEVER else due


def haunt(engine: Engine, source: Engine) -> None:
    """A source host that has not come to rest goes on beside the destination.

    Its agents and control processes act at their times, on its own memory and on the medium that
    both use.
    """

    def life() -> Action:
        while (due := next_due(source)) is not None:
            yield engine.env.timeout(max(0, due - int(engine.env.now)))
            until = source.env.timeout(max(0, due + 1 - int(source.env.now)))
            source.run(until)

    engine.env.process(life())
