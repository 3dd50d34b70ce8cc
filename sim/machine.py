"""Builds the world from a config: the only file that knows every part.

The world is five arrays: guest memory, line ownership, the agents' state, the trace, the medium.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sim import (
    agents,
    backend,
    crossing,
    guest,
    host_task,
    memory,
    record,
    recorder,
    rng,
    target,
    wbt,
)
from sim.config import Config, Target
from sim.costs import Costs
from sim.disks import fields as disks
from sim.disks.build import DiskPlan, has_volatile_cache
from sim.driver.plan import GuestPlan
from sim.formats.disks import THROTTLED
from sim.layout import F_HOTPLUG, PAGE_SIZE, VQ_REQUEST_FIRST
from sim.lio import ports
from sim.lio.ports import TargetPlan
from sim.lio.spec import KERNELS, LunSpec
from sim.units import ns_to_cycles
from sim.user import plan as user_plan
from sim.user.plan import UserPlan
from sim.vhost.plan import DevicePlan, HostPlan, Kworkers, Thread
from sim.workload.jobs import JobBuilder, JobPlan

Words = npt.NDArray[np.int64]


@dataclass(kw_only=True)
class Machine:
    """The arrays, and where everything stands in them."""

    mem: npt.NDArray[np.uint8]
    lines: Words
    st: Words
    tr: Words
    media: Words
    costs: Costs
    kinds: tuple[int, ...]  # of each slot
    names: tuple[str, ...]
    bases: tuple[int, ...]
    cores: tuple[str, ...]  # who accesses memory, in the order of the line table
    guest_vqs: tuple[int, ...]  # bases by number of the virtqueue: control, event, requests
    host_vqs: tuple[int, ...]
    drivers: tuple[int, ...]  # the two sides of each ring (sim.vring)
    devices: tuple[int, ...]
    log: int  # where the dirty bitmap of the device stands in `st` (sim.vhost.log)
    kvm_log: int  # and that of what the vCPUs write (sim.driver.dirty)
    belongs: dict[str, tuple[tuple[int, int], ...]]  # (from, to) in `st` of what is not the guest's
    vhost: int  # base of the vhost-scsi device (sim.vhost.scsi)
    regions: tuple[int, ...]  # room for the in-flight region of each queue (sim.vhost.inflight)
    tasks: tuple[int, ...]  # of the guest's error handler
    error_handler: int
    event_work: int
    luns: dict[tuple[int, int], tuple[int, int]]  # by target and number: bases of both in LIO
    plans: tuple[JobPlan, ...]
    row_margin: int
    watched: tuple[str, ...]  # the groups of counters in the recorder's marks

    @property
    def guest_queues(self) -> tuple[int, ...]:
        """Bases of the request queues in the guest."""
        return self.guest_vqs[VQ_REQUEST_FIRST:]

    @property
    def host_queues(self) -> tuple[int, ...]:
        """Bases of the request queues on the host."""
        return self.host_vqs[VQ_REQUEST_FIRST:]

    def field(self, base: int, name: np.uint64) -> int:
        """One word of a stretch."""
        return int(self.st[base + int(name)])

    @property
    def dirty_log(self) -> npt.NDArray[np.uint8]:
        """The bitmap as QEMU has it: page p is bit p % 8 of byte p / 8. A view, to be cleared."""
        return self._bitmap(self.log)

    @property
    def vcpu_log(self) -> npt.NDArray[np.uint8]:
        """KVM's bitmap of what the vCPUs have written, in the same form. A view, to be cleared."""
        return self._bitmap(self.kvm_log)

    def _bitmap(self, start: int) -> npt.NDArray[np.uint8]:
        words = -(-self.mem.size // (64 * PAGE_SIZE))
        return self.st[start : start + words].view(np.uint8)

    def log_vcpus(self, on: bool) -> None:
        """memory_global_dirty_log_start(), _stop(): note what the vCPUs write, or no more."""
        self.st[int(agents.H_KVM_LOG)] = self.kvm_log if on else 0

    def slots_of(self, kind: int) -> list[int]:
        """Slots of one kind of agent."""
        return [slot for slot, k in enumerate(self.kinds) if k == kind]

    def grow_trace(self) -> None:
        """Double the trace; what is written stays."""
        grown = np.zeros(2 * self.tr.size, dtype=np.int64)
        grown[: self.tr.size] = self.tr
        self.tr = grown
        self._set_high_water()

    def _set_high_water(self) -> None:
        self.st[int(agents.H_ROWS_HIGH)] = self.tr.size - self.row_margin * record.ROW_WORDS

    def start_phase(self, phase: int, now: int) -> int:
        """Control: start the jobs of a phase at `now`; returns how many there are."""
        started = 0
        for plan in self.plans:
            if plan.phase == phase:
                vcpu, job = np.uint64(self.bases[plan.vcpu]), np.uint64(plan.base)
                guest.start_job(self.st, vcpu, job, now)
                started += 1
        return started


@dataclass
class _Arena:
    """Hands out words of the state array, and later bytes of guest memory."""

    used: int
    belongs: dict[str, list[tuple[int, int]]] = field(default_factory=dict)

    def take(self, size: int, align: int = 1) -> int:
        start = -(-self.used // align) * align
        self.used = start + size
        return start

    def take_for(self, owner: str) -> Callable[..., int]:
        """`take` for something that does not move with the guest (Machine.belongs)."""
        ranges = self.belongs.setdefault(owner, [])

        def take(size: int, align: int = 1) -> int:
            start = self.take(size, align)
            if ranges and ranges[-1][1] == start:
                ranges[-1] = ranges[-1][0], start + size
            else:
                ranges.append((start, start + size))
            return start

        return take


# To whom an agent belongs that does not move with the guest. Crossings do: by the time a device has
# stopped nothing is on its way to the host, and what is on its way to the guest QEMU injects.
HOST, DISKS, LUNS = 'host', 'disks', 'luns'
OWNERS = {
    agents.WORKER: HOST,
    agents.LIO_SUBMIT: HOST,
    agents.LIO_COMPLETE: HOST,
    agents.REACTOR: HOST,
    agents.IOTHREAD: HOST,
    agents.HOST_CPU: HOST,
    agents.DISK: DISKS,
}

WORDS_OF = {
    agents.VCPU: guest.VCPU_WORDS,
    agents.KICK: crossing.CROSSING_WORDS,
    agents.IRQ: crossing.CROSSING_WORDS,
    agents.WORKER: backend.WORKER_WORDS,
    agents.LIO_SUBMIT: target.KWORKER_WORDS,
    agents.DISK: disks.DISK_WORDS,
    agents.LIO_COMPLETE: target.KWORKER_WORDS,
    agents.NOTIFIER: crossing.CROSSING_WORDS,
    agents.HOST_CPU: host_task.CPU_WORDS,
    **user_plan.WORDS,
}


def build(config: Config, costs: Costs, *, record_requests: bool = True) -> Machine:
    """The machine at time zero, endpoint set, no job started."""
    return _Builder(config, costs, record_requests).build()


class _Builder:
    def __init__(self, config: Config, costs: Costs, record_requests: bool) -> None:
        self.config = config
        self.costs = costs
        self.record_requests = record_requests
        self.num = config.device.virtqueue_size
        self.features = config.agreed.acked
        self.vcpus = config.guest.vcpus
        self.queues = min(config.device.num_queues, self.vcpus)
        self.segments = max(-(-size // PAGE_SIZE) for size in config.longest)
        self.host_kind = user_plan.host_kind(config)
        self.kick_kind = agents.KICK if self.host_kind == agents.WORKER else agents.NOTIFIER
        self.depth = max(job.iodepth for job in config.jobs)
        self.worker_cpus = config.worker_cpus
        self.cpus = max(self.worker_cpus) + 1
        # Vectors of control and event queue, where something can come over them.
        hotplug = self.features >> F_HOTPLUG & 1 and self.host_kind == agents.WORKER
        self.rare = VQ_REQUEST_FIRST if config.tmfs or config.hotplugs or hotplug else 0
        self.words = _Arena(agents.WORLD_WORDS)
        self.bytes = _Arena(PAGE_SIZE)
        self.writes: list[tuple[int, int]] = []  # (offset, value) once the arrays exist
        self.tables: list[tuple[int, Words]] = []

    def put(self, base: int, name: np.uint64, value: int) -> None:
        self.writes.append((base + int(name), value))

    def _table(self, values: Sequence[int]) -> int:
        """A stretch that holds the values; where it begins."""
        start = self.words.take(len(values))
        self.writes.extend((start + place, value) for place, value in enumerate(values))
        return start

    # ---- the order of this function is the order of slots: at one time agents go in it

    def _slots(self) -> list[tuple[int, str]]:
        """Kind and name of every agent. Whatever is there more than once in newer configs comes
        last, so that the slots of older ones stay.
        """
        if self.host_kind != agents.WORKER:
            return self._slots_of_user_space()
        more_workers, more_cpus = range(1, len(self.worker_cpus)), range(1, self.cpus)
        return [
            *((agents.VCPU, f'vcpu{i}') for i in range(self.vcpus)),
            *((agents.KICK, f'kick{i}') for i in range(self.vcpus)),
            *((agents.IRQ, f'irq{i}') for i in range(self.queues)),
            (agents.WORKER, 'vhost'),
            (agents.LIO_SUBMIT, 'lio_submit'),
            (agents.DISK, 'disk'),
            (agents.LIO_COMPLETE, 'lio_complete'),
            *((agents.DISK, f'disk{i}') for i in range(1, len(self.config.disks))),
            *((agents.WORKER, f'vhost{i}') for i in more_workers),
            *((agents.LIO_SUBMIT, f'lio_submit{i}') for i in more_cpus),
            *((agents.LIO_COMPLETE, f'lio_complete{i}') for i in more_cpus),
            *((agents.IRQ, name) for name in ('irq_control', 'irq_event')[: self.rare]),
            *self._shared_cpus(),
        ]

    def _slots_of_user_space(self) -> list[tuple[int, str]]:
        """The same for a device that a thread of user space serves."""
        return [
            *((agents.VCPU, f'vcpu{i}') for i in range(self.vcpus)),
            *((agents.NOTIFIER, f'kick{i}') for i in range(self.vcpus)),
            *((agents.IRQ, f'irq{i}') for i in range(self.queues)),
            (self.host_kind, user_plan.NAMES[self.host_kind]),
            *((agents.DISK, f'disk{i or ""}') for i in range(len(self.config.disks))),
            *self._shared_cpus(),
        ]

    def _shared_cpus(self) -> list[tuple[int, str]]:
        """Host CPUs that threads share decide behind all that goes on at one time."""
        count = len(self.config.shared_cpus)
        return [(agents.HOST_CPU, f'host_cpu{i or ""}') for i in range(count)]

    def build(self) -> Machine:
        slots = self._slots()
        self.kinds, self.names = zip(*slots, strict=True)
        self.bases = [self._take_agent(kind) for kind in self.kinds]
        self.vcpu = self._bases_of(agents.VCPU)
        self.disks = self._bases_of(agents.DISK)
        self.guest = GuestPlan(
            self.config,
            take=self.words.take,
            take_bytes=self.bytes.take,
            put=self.put,
            vcpu=self.vcpu,
            kick=self._slots_of(self.kick_kind),
            segments=self.segments,
        )
        self.targets = self._luns()
        self.host = self._host(
            take=self.words.take_for(HOST),
            put=self.put,
            irq=self._slots_of(agents.IRQ),
            vqs=self.guest.vqs,
            targets=self.targets,
            segments=self.segments,
        )
        self._crossings()
        self.tasks = self._tasks() if self.config.shared_cpus else 0
        for index, lun in enumerate(self.config.disks):
            self._disk(index, lun.disk)
        plans = self._plans()
        machine = self._assemble(plans)
        self.guest.init_rings(machine.mem, machine.lines, machine.st)
        self.host.init_rings(machine.mem, machine.st)
        return machine

    def _take_agent(self, kind: int) -> int:
        owner = OWNERS.get(kind)
        take = self.words.take if owner is None else self.words.take_for(owner)
        return take(WORDS_OF[kind])

    def _host(self, **device: Any) -> DevicePlan:
        """The device and whoever serves it."""
        if self.host_kind != agents.WORKER:
            return UserPlan(
                self.config,
                self.costs,
                thread=self._threads(self.host_kind)[0],
                guest_queues=self.guest.requests,
                all_disks=self.disks,
                **device,
            )
        pairs = zip(
            self._threads(agents.LIO_SUBMIT), self._threads(agents.LIO_COMPLETE), strict=True
        )
        self.kworkers = [Kworkers(submit=submit, complete=done) for submit, done in pairs]
        return HostPlan(
            self.config,
            workers=self._threads(agents.WORKER),
            cpus=self.worker_cpus,
            kworkers=self.kworkers,
            **device,
        )

    def _slots_of(self, kind: int) -> list[int]:
        return [slot for slot, k in enumerate(self.kinds) if k == kind]

    def _bases_of(self, kind: int) -> list[int]:
        return [self.bases[slot] for slot in self._slots_of(kind)]

    def _threads(self, kind: int) -> list[Thread]:
        return [Thread(base=self.bases[slot], slot=slot) for slot in self._slots_of(kind)]

    def _assemble(self, plans: list[JobPlan]) -> Machine:
        slots = len(self.kinds)
        calendar = agents.calendar_words(slots)
        due = self.words.take(calendar, 8)  # one level of eight entries is one cache line
        kind, base = self.words.take(slots), self.words.take(slots)
        woken = self.words.take(64 * slots)  # a slot may be woken more than once in a stretch
        mem = np.zeros(-(-self.bytes.used // PAGE_SIZE) * PAGE_SIZE, dtype=np.uint8)
        log, kvm_log = (self.words.take(-(-mem.size // (64 * PAGE_SIZE))) for _ in range(2))
        st = np.zeros(self.words.used, dtype=np.int64)
        for offset, value in self.writes:
            st[offset] = value
        for offset, table in self.tables:
            st[offset : offset + table.size] = table
        st[due : due + calendar] = agents.IDLE
        st[kind : kind + slots] = self.kinds
        st[base : base + slots] = self.bases
        heads = (
            (agents.H_SLOTS, slots),
            (agents.H_DUE, due),
            (agents.H_KIND, kind),
            (agents.H_BASE, base),
            (agents.H_WOKEN, woken),
            (agents.H_TASKS, self.tasks),
            (agents.H_ROW_WORDS, record.ROW_WORDS if self.record_requests else 0),
        )
        for name, value in heads:
            st[int(name)] = value
        for index, cost in enumerate(agents.COSTS):
            st[agents.COST_TABLE + index] = getattr(self.costs, cost)
        st[agents.LOG_TABLE : agents.LOG_TABLE + 1025] = rng.log_table()
        cores = [*self.names[: self.vcpus], *self._worker_cores()]
        watched = self._watched(len(cores))
        margin = 2 * self.depth * max(self.vcpus, self.config.threads) + 64
        tr = recorder.new_trace(self._recording(plans, margin + 1, watched))
        self._rows_of_tasks(st, tr)
        first_row = recorder.T_ROWS if self.record_requests else recorder.T_SCRATCH
        st[int(agents.H_ROWS)] = tr[int(first_row)]
        machine = Machine(
            mem=mem,
            lines=memory.new_lines(mem.size, len(cores), self.costs.line_prices),
            st=st,
            tr=tr,
            media=np.zeros(self.target_plan.sectors, dtype=np.int64),
            costs=self.costs,
            kinds=self.kinds,
            names=self.names,
            bases=tuple(self.bases),
            cores=tuple(cores),
            guest_vqs=tuple(self.guest.bases),
            host_vqs=tuple(self.host.bases),
            drivers=tuple(vq.driver for vq in self.guest.vqs),
            devices=tuple(self.host.devices),
            vhost=self.host.vhost,
            regions=tuple(self.host.regions[i] for i in range(len(self.host.bases))),
            log=log,
            kvm_log=kvm_log,
            belongs={owner: tuple(ranges) for owner, ranges in self.words.belongs.items()},
            tasks=tuple(self.guest.tasks),
            error_handler=self.guest.error_handler,
            event_work=self.guest.event_work,
            luns=self._lio_luns(st),
            plans=tuple(plans),
            row_margin=margin,
            watched=tuple(watched),
        )
        machine._set_high_water()
        return machine

    def _rows_of_tasks(self, st: Words, tr: Words) -> None:
        """Each task of the error handler has a row; what else control and event queue say, none."""
        scratch = tr[int(recorder.T_SCRATCH)]
        for vq in self.guest.vqs[:VQ_REQUEST_FIRST]:
            st[vq.rows : vq.rows + self.num] = scratch
        st[self.guest.event_work + int(guest.W_ROW)] = scratch
        for place, task in enumerate(self.guest.tasks):
            row = tr[int(recorder.T_TASKS)] + record.ROW_WORDS * place
            st[task + int(guest.TASK_ROW)] = row

    def _recording(
        self, plans: list[JobPlan], margin: int, watched: dict[str, list[int]]
    ) -> recorder.Recording:
        """Which requests keep a row, which are counted, where the warm-up ends."""
        run, hz = self.config.run, self.config.host.cpu_hz
        limits = [plan.io_limit for plan in plans]
        rows = min(sum(limit for limit in limits if limit is not None) or 1 << 16, 1 << 22)
        counts = run.record != 'full' and self.record_requests
        every = run.sample_every if run.record == 'sampled' else 0
        ramp_ns = max(j.ramp_time and j.startdelay + j.ramp_time for j in self.config.jobs)
        pilot = recorder.PILOT_ROWS if not ramp_ns and run.warmup == 'auto' else 0
        if counts:
            rows = pilot + (rows // every if every else 0)
        in_flight = [
            sum(plan.workload.iodepth for plan in plans if plan.phase == phase)
            for phase in range(len(self.config.phases))
        ]
        return recorder.Recording(
            rows=rows + margin if self.record_requests else margin,
            counts=counts,
            every=every if counts else 0,
            pilot=pilot if counts else 0,
            cut_serial=int(run.warmup) if run.warmup.isdigit() and not ramp_ns else 0,
            cut_ns=ramp_ns,
            cpu_hz=hz,
            in_flight=max(in_flight),
            clones=len(plans),
            watched=list(watched.items()),
            tasks=len(self.guest.tasks),
        )

    def _watched(self, cores: int) -> dict[str, list[int]]:
        """The counters that intervals are wanted for: places in `st`, or -1 - place in `lines`."""
        groups = {
            'kicks': [base + int(guest.V_KICKS) for base in self.vcpu],
            'interrupts': [base + int(guest.G_HANDLERS) for base in self.guest.requests],
            'transfers': [
                -1 - int(memory.L_CORES + memory.CORE_WORDS * np.uint64(core) + memory.C_TRANSFERS)
                for core in range(cores)
            ],
        }
        for name, kind, base in zip(self.names, self.kinds, self.bases, strict=True):
            if kind in agents.CPU_KINDS:
                groups[f'busy.{name}'] = [base + int(agents.A_BUSY)]
            elif kind == agents.DISK:
                groups[f'busy.{name}.lanes'] = [base + int(disks.D_LANE_BUSY)]
                groups[f'busy.{name}.serial'] = [base + int(disks.D_SERIAL_BUSY)]
        return groups

    def _worker_cores(self) -> list[str]:
        """The host CPUs of the workers, each under the name of the first worker on it."""
        if self.host_kind != agents.WORKER:
            return [user_plan.NAMES[self.host_kind]]
        workers = self._slots_of(agents.WORKER)
        return [self.names[workers[self.worker_cpus.index(cpu)]] for cpu in range(self.cpus)]

    # ---- the parts

    def _crossings(self) -> None:
        """Kicks lead to the host's queues, interrupts to the guest's."""
        table = self._table(self.host.bases)
        for vcpu, base in zip(self.vcpu, self._bases_of(self.kick_kind), strict=True):
            self.put(base, crossing.C_VCPU, vcpu)
            self.put(base, crossing.C_HOST_QUEUES, table)
        queues = self.guest.requests + self.guest.bases[: self.rare]
        for queue, base in zip(queues, self._bases_of(agents.IRQ), strict=True):
            self.put(base, crossing.C_GUEST_QUEUE, queue)

    def _tasks(self) -> int:
        """The threads that share a host CPU; returns where the table of tasks by slot begins."""
        take = self.words.take_for(HOST)
        table = take(len(self.kinds))
        cfs = self.config.host.scheduler == 'cfs'
        latency = int(ns_to_cycles(host_task.CFS_LATENCY_NS, self.config.host.cpu_hz))
        margin = int(ns_to_cycles(host_task.CFS_GRANULARITY_NS, self.config.host.cpu_hz))
        for cpu, group in zip(self._threads(agents.HOST_CPU), self.config.shared_cpus, strict=True):
            tasks = []
            for slot in sorted(map(self.names.index, group)):
                tasks.append(take(host_task.TASK_WORDS))
                self.writes.append((table + slot, tasks[-1]))
                self.put(tasks[-1], host_task.K_CPU, cpu.base)
                self.put(tasks[-1], host_task.K_SLOT, slot)
                self.put(tasks[-1], host_task.K_KIND, self.kinds[slot])
                is_vcpu = self.kinds[slot] == agents.VCPU
                self.put(tasks[-1], host_task.K_VCPU, self.bases[slot] if is_vcpu else 0)
            self.put(cpu.base, host_task.CPU_SLOT, cpu.slot)
            self.put(cpu.base, host_task.CPU_TASKS, len(tasks))
            self.put(cpu.base, host_task.CPU_LIST, self._table(tasks))
            self.put(cpu.base, host_task.CPU_EEVDF, int(not cfs))
            self.put(cpu.base, host_task.CPU_BONUS, latency // 2)
            self.put(cpu.base, host_task.CPU_MARGIN, margin)
        return table

    def _luns(self) -> int:
        """Targets and LUNs as LIO has them; returns where their table begins."""
        config = self.config
        luns = [
            LunSpec(
                number=lun.number,
                target=lun.target,
                size=lun.disk.size,
                write_cache=has_volatile_cache(lun.disk),
                rotational=lun.disk.kind == 'hdd',
            )
            for lun in config.disks
        ]
        self.target_plan = TargetPlan(
            luns=luns,
            targets=tuple(sorted({lun.target for lun in luns})),
            wwpn=config.device.wwpn,
            kernel=config.host.kernel,
        )
        bases = {(lun.target, lun.number): b for lun, b in zip(luns, self.disks, strict=True)}
        # Room for what any kernel has, so that a VM may move from one to another.
        sizes = [replace(self.target_plan, kernel=kernel).size() for kernel in KERNELS]
        base = self.words.take_for(LUNS)(max(sizes))
        words = self.target_plan.words(base, bases)
        self.writes += enumerate(words.tolist(), base)
        return base

    def _lio_luns(self, st: Words) -> dict[tuple[int, int], tuple[int, int]]:
        """The LUNs of the config as LIO has them; what is added later is not mapped yet."""
        found = {}
        for lun in self.config.disks:
            target = np.uint64(st[self.targets + lun.target])
            base = int(ports.find_lun(st, target, lun.number))
            found[lun.target, lun.number] = int(target), base
            if self.config.is_late(lun):
                ports.unmap_lun(st, target, lun.number)
        return found

    def _disk(self, index: int, spec: Target) -> None:
        """The disk of one LUN."""
        host, base = self.config.host, self.disks[index]
        self.put(base, disks.D_SLOT, self._slots_of(agents.DISK)[index])
        in_kernel = self.host_kind == agents.WORKER
        if in_kernel:
            self.put(base, disks.D_LIO_SUBMIT, self.kworkers[0].submit.base)
        plan = DiskPlan(
            self.words.take_for(DISKS),
            lambda base, name, value: self.writes.append((base + name, value)),
            base,
            spec,
            hz=host.cpu_hz,
            seed=self.config.run.seed,
            lun=index,
        )
        plan.write(commands=self.num * self.queues, null_service=self.costs.null_service)
        if in_kernel and spec.wbt_lat:
            throttle = self._throttle(spec)  # laid out on any kernel, so that a VM may move to it
            if host.kernel in THROTTLED:
                self.put(base, disks.D_WBT, throttle)

    def _throttle(self, spec: Target) -> int:
        """Write-back throttling of the block device under LIO."""
        hz = self.config.host.cpu_hz
        base = self.words.take_for(HOST)(wbt.WBT_WORDS)
        words = wbt.plan_wbt(
            latency=int(ns_to_cycles(spec.wbt_lat, hz)),
            window=hz // 10,
            depth=spec.wbt_queue_depth,
            volatile=has_volatile_cache(spec),
        )
        for name, value in words.items():
            self.put(base, name, value)
        return base

    # ---- the work

    def _plans(self) -> list[JobPlan]:
        def put(base: int, values: list[tuple[np.uint64, int]]) -> None:
            self.writes += [(base + int(name), value) for name, value in values]

        def place(table: Sequence[int] | Words) -> int:
            base = self.words.take(len(table))
            self.tables.append((base, np.array(table, dtype=np.int64)))
            return base

        builder = JobBuilder(
            config=self.config,
            queues=self.guest.requests,
            luns=self.guest.luns,
            vcpus=self.vcpu,
            take=self.words.take,
            put=put,
            place=place,
        )
        plans = builder.plans()
        for vcpu, base in enumerate(self.vcpu):
            threads = [plan.base for plan in plans if plan.vcpu == vcpu]
            phases = Counter(plan.phase for plan in plans if plan.vcpu == vcpu)
            # One thread at a time needs no scheduler.
            count = len(threads) if max(phases.values(), default=0) > 1 else 1
            self.put(base, guest.V_THREADS, count)
            self.put(base, guest.V_THREAD_LIST, self._table(threads))
        return plans
