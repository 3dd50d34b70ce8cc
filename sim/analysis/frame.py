"""From the trace to pandas frames: one row per request, one row per metric.

Times in frames are int64 nanoseconds. Each timestamp is converted first and then subtracted, so the
stages of a request add up to its latency exactly. What never happened is missing (<NA>).
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sim import agents, backend, crossing, guest, host_task, record, recorder, wbt
from sim.config import Config
from sim.disks import fields as disks
from sim.histogram import LIMIT_NS, LOWEST_NS, WIDTH_NS, Histogram
from sim.machine import Machine
from sim.memory import C_HITS, C_SHARED, C_TRANSFERS, CORE_WORDS, L_CORES
from sim.units import cycles_to_ns
from sim.user import fields as user_fields
from sim.user import plan as user_plan
from sim.workload import job_fields

# Where a column stands in a row of the trace.
COLUMN = {name: index for index, name in enumerate(record.COLUMNS)}


def trace_rows(machine: Machine) -> npt.NDArray[np.int64]:
    """The rows that are kept, shape (requests, len(record.COLUMNS)), cycles plus one."""
    first, end = int(machine.tr[int(recorder.T_ROWS)]), int(machine.st[int(agents.H_ROWS)])
    return machine.tr[first:end].reshape(-1, record.ROW_WORDS)


def request_frame(machine: Machine, config: Config) -> pd.DataFrame:
    """One row per request: eleven timestamps (ns, missing where it never happened), ten stages
    `<name>_ns`, `latency_ns` (arrival to completion), `fio_lat_ns` (arrival until fio reaped it,
    what fio calls lat), and the facts of the request.
    """
    rows = trace_rows(machine)
    hz = config.host.cpu_hz
    fact = {name: len(record.TIMESTAMPS) + index for index, name in enumerate(record.FACTS)}
    there = {name: rows[:, index] != 0 for index, name in enumerate(record.TIMESTAMPS)}
    there['t_reap'] = rows[:, fact['reap']] != 0
    ns = {
        name: cycles_to_ns(np.maximum(rows[:, index] - 1, 0), hz)
        for index, name in [*enumerate(record.TIMESTAMPS), (fact['reap'], 't_reap')]
    }

    def times(name: str, since: str | None = None) -> Any:
        """A timestamp, or how long after another it lies; missing where either is."""
        if since is None:
            return pd.arrays.IntegerArray(ns[name], ~there[name])
        return pd.arrays.IntegerArray(ns[name] - ns[since], ~(there[name] & there[since]))

    columns: dict[str, Any] = {f'{name}_ns': times(name) for name in record.TIMESTAMPS}
    columns |= {name: rows[:, fact[name]] for name in record.FACTS if name not in ('reap', 'op')}
    for before, after, stage in zip(
        record.TIMESTAMPS, record.TIMESTAMPS[1:], record.STAGES, strict=False
    ):
        columns[f'{stage}_ns'] = times(after, before)
    columns['latency_ns'] = times('t_complete', 't_arrive')
    columns['t_reap_ns'] = times('t_reap')
    columns['fio_lat_ns'] = times('t_reap', 't_arrive')
    names = [config.jobs[plan.job].name for plan in machine.plans]
    columns['job'] = pd.Categorical([names[number] for number in rows[:, fact['job']]])
    columns['clone'] = rows[:, fact['job']]
    for name, words in (('op', record.OPS), ('outcome', record.OUTCOMES)):
        columns[name] = pd.Categorical.from_codes(rows[:, fact[name]], categories=list(words))
    return pd.DataFrame(columns)


def counters(machine: Machine) -> dict[str, int]:
    """What the agents counted over the whole run, warm-up included."""
    vcpus = [machine.bases[slot] for slot in machine.slots_of(agents.VCPU)]
    irqs = [machine.bases[slot] for slot in machine.slots_of(agents.IRQ)]
    workers = [machine.bases[slot] for slot in machine.slots_of(agents.WORKER)]
    threads = threads_of(machine)

    def total(bases: list[int] | tuple[int, ...], name: np.uint64) -> int:
        return sum(machine.field(base, name) for base in bases)

    handlers = total(machine.guest_queues, guest.G_HANDLERS)
    pairs = zip(machine.host_queues, machine.guest_queues, strict=True)
    heard = [q for q, g in pairs if not machine.field(g, guest.G_POLLED)]
    return {
        'kicks': total(vcpus, guest.V_KICKS),
        'kicks_suppressed': total(vcpus, guest.V_KICKS_SUPPRESSED),
        'interrupts': handlers,
        'interrupts_spurious': total(vcpus, guest.V_IRQS_SPURIOUS),
        'interrupts_merged': total(heard, backend.Q_SIGNALS) - handlers,
        'signals': total(machine.host_queues, backend.Q_SIGNALS),
        'signals_suppressed': total(machine.host_queues, backend.Q_SIGNALS_SUPPRESSED),
        'vcpu_wakes': total(irqs, crossing.C_WAKES),
        'worker_wakes': total(workers, backend.B_WAKES) + total(threads, user_fields.T_WAKES),
        'worker_requeues': total(workers, backend.B_REQUEUES),
        'ring_errors': ring_errors(machine),
        'requests_dropped': total(workers, backend.B_DROPPED)
        + total(machine.host_queues, backend.Q_DROPPED)
        + total(threads, user_fields.T_DROPPED),
        'requests_bad_target': total(workers, backend.B_BAD_TARGETS)
        + total(threads, user_fields.T_REFUSED),
        'requests_task_set_full': total(workers, backend.B_TASK_SET_FULL),
        'context_switches': total(vcpus, guest.V_SWITCHES),
        'requests_requeued': total(vcpus, guest.V_REQUEUES),
        'requests_retried': total(vcpus, guest.V_RETRIES),
        'avail_ahead_max': max(machine.field(q, backend.Q_AHEAD_MAX) for q in machine.host_queues),
        'arrivals_missed': total([plan.base for plan in machine.plans], job_fields.J_MISSED),
        'steps': int(machine.st[int(agents.H_STEPS)]),
        **disk_counters(machine),
        **cpu_counters(machine),
    }


def cpu_counters(machine: Machine) -> dict[str, int]:
    """What the host CPUs counted that threads share; nothing where none do."""
    cpus = [machine.bases[slot] for slot in machine.slots_of(agents.HOST_CPU)]
    if not cpus:
        return {}
    names = {'switches': host_task.CPU_SWITCHES, 'preemptions': host_task.CPU_PREEMPTIONS}
    return {
        f'host_{name}': sum(machine.field(cpu, word) for cpu in cpus)
        for name, word in names.items()
    }


def threads_of(machine: Machine) -> list[int]:
    """Bases of the threads of user space that serve the device: a reactor, an IOThread."""
    return [machine.bases[s] for kind in agents.THREAD_KINDS for s in machine.slots_of(kind)]


def host_thread(machine: Machine) -> str:
    """The name of what serves the rings: vhost, reactor or iothread."""
    return user_plan.NAMES[user_plan.kind_of(machine.kinds)]


def ring_errors(machine: Machine) -> int:
    """How often the device met malformed descriptors or requests."""
    workers = [machine.bases[slot] for slot in machine.slots_of(agents.WORKER)]
    found = sum(machine.field(base, backend.B_RING_ERRORS) for base in workers)
    return found + sum(machine.field(b, user_fields.T_RING_ERRORS) for b in threads_of(machine))


def backlog_max(requests: pd.DataFrame) -> int:
    """Most requests that had arrived at one time and were not with the driver yet."""
    arrive = requests['t_arrive_ns'].to_numpy(dtype=np.int64)
    submit = requests['t_submit_ns'].dropna().to_numpy(dtype=np.int64)
    times = np.concatenate([submit, arrive])  # at one time those that leave go first
    change = np.repeat(np.array([-1, 1]), [submit.size, arrive.size])
    waiting = np.cumsum(change[np.argsort(times, kind='stable')])
    return int(waiting.max(initial=0))


SD_TIMEOUT_NS = 30 * 1_000_000_000  # drivers/scsi/sd.h


def overdue(requests: pd.DataFrame) -> int:
    """Requests that the guest's timer has gone off for, or would for ever.

    The driver's handler resets it each time (virtscsi_eh_timed_out), so that nothing comes of it: a
    request that the host has lost is waited for without end.
    """
    submit = requests['t_submit_ns']
    late = requests['t_complete_ns'] - submit > SD_TIMEOUT_NS
    lost = submit.notna() & requests['t_complete_ns'].isna()
    return int(late.fillna(False).sum() + lost.sum())


def disk_counters(machine: Machine) -> dict[str, int]:
    """What the parts counted that some disks have; absent where a disk has no such part."""
    found: Counter[str] = Counter()
    for slot in machine.slots_of(agents.DISK):
        disk = machine.bases[slot]
        if machine.field(disk, disks.D_KIND) == disks.SSD:
            part = machine.field(disk, disks.D_PART)
            found['disk_units_programmed'] += machine.field(part, disks.I_UNITS)
            found['disk_collections'] += machine.field(part, disks.I_GC_COUNT)
            found['disk_housekeeping'] += machine.field(part, disks.I_BACKGROUND_COUNT)
        if network := machine.field(disk, disks.D_NETWORK):
            found['network_messages_lost'] += machine.field(network, disks.N_LOST)
        if throttle := machine.field(disk, disks.D_WBT):
            found['wbt_waits'] += machine.field(throttle, wbt.T_WAITS)
    return dict(found)


def busy_cycles(machine: Machine) -> dict[str, int]:
    """Cycles in which each CPU agent did something; the disk's are summed over its lanes.

    `<thread>.polling`: cycles that a thread of user space has spent on rounds that found nothing.
    """
    busy = {}
    for slot, kind in enumerate(machine.kinds):
        if kind in agents.CPU_KINDS:
            busy[machine.names[slot]] = machine.field(machine.bases[slot], agents.A_BUSY)
            if kind in agents.THREAD_KINDS:
                spun = machine.field(machine.bases[slot], user_fields.T_SPUN)
                busy[f'{machine.names[slot]}.polling'] = spun
        elif kind == agents.DISK:
            base = machine.bases[slot]
            name = machine.names[slot]
            busy[f'{name}.lanes'] = machine.field(base, disks.D_LANE_BUSY)
            busy[f'{name}.serial'] = machine.field(base, disks.D_SERIAL_BUSY)
    return busy


def servers_of(machine: Machine, name: str) -> int:
    """How many can be busy at once under that name in `busy_cycles`."""
    disk, _, part = name.partition('.')
    if part != 'lanes':
        return 1
    return machine.field(machine.bases[machine.names.index(disk)], disks.D_LANES)


def line_accesses(machine: Machine) -> dict[str, dict[str, int]]:
    """Ring and command lines touched per core: hits, clean copies shared, transfers."""
    table = {}
    for core, name in enumerate(machine.cores):
        base = int(L_CORES) + core * int(CORE_WORDS)
        counts = {'hits': C_HITS, 'shared': C_SHARED, 'transfers': C_TRANSFERS}
        table[name] = {k: int(machine.lines[base + int(c)]) for k, c in counts.items()}
    return table


def histogram_frame(parts: Mapping[tuple[str, str, str], Histogram]) -> pd.DataFrame:
    """The occupied buckets of histograms, named (job, op, time): one row per bucket.

    Columns low_ns, high_ns (exclusive), value_ns (the midpoint, which stands for the bucket) and
    requests. Times that have no bucket stand in one row from histogram.LIMIT_NS to the most.
    """
    frames = []
    for (job, op, time), found in parts.items():
        filled = np.flatnonzero(found.counts)
        low, width = LOWEST_NS[filled], WIDTH_NS[filled]
        rows = pd.DataFrame(
            {'low_ns': low, 'high_ns': low + width, 'value_ns': low + (width >> 1)}
            | {'requests': found.counts[filled]}
        )
        if found.beyond:
            rows.loc[len(rows)] = [LIMIT_NS, found.most + 1, found.most, found.beyond]
        frames.append(rows.assign(job=job, op=op, time=time))
    columns = ['job', 'op', 'time', 'low_ns', 'high_ns', 'value_ns', 'requests']
    if not frames:
        return pd.DataFrame(columns=columns)
    return pd.concat(frames, ignore_index=True)[columns]


def summary_frame(
    values: Mapping[str, Any], intervals: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """Flatten a nested mapping of numbers into rows (metric, value, low, high).

    `intervals`: [low, high] or None by metric; what is not known is missing.
    """
    rows: list[tuple[str, float]] = []

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                walk(f'{prefix}.{key}' if prefix else str(key), inner)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            rows.append((prefix, float(value)))

    walk('', values)
    frame = pd.DataFrame(rows, columns=['metric', 'value'])
    bounds = [(intervals or {}).get(metric) or (None, None) for metric, _ in rows]
    frame['low'] = pd.Series([low for low, _ in bounds], dtype='float64')
    frame['high'] = pd.Series([high for _, high in bounds], dtype='float64')
    return frame
