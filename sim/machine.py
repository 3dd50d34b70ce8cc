"""Builds the world from a config: the only file that knows every part.

The world is five arrays: guest memory, line ownership, the agents' state, the trace, the medium.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim import (
    agents,
    backend,
    crossing,
    guest,
    memory,
    record,
    recorder,
    rng,
    se_cmd,
    target,
    vhost_scsi,
    vring,
    wbt,
)
from sim.config import Config, Target
from sim.costs import Costs
from sim.disks import fields as disks
from sim.disks.build import DiskPlan, has_volatile_cache
from sim.formats.disks import THROTTLED
from sim.guest_plan import GuestPlan
from sim.jobs import JobBuilder, JobPlan
from sim.layout import PAGE_SIZE, REQ_SIZE, VQ_REQUEST_FIRST
from sim.lio.ports import TARGETS, TargetPlan
from sim.lio.spec import LunSpec
from sim.units import ns_to_cycles

Words = npt.NDArray[np.int64]

# Buffers that a command on the host has room for, beyond the pages of the longest request: headers
# and responses may be cut in pieces.
SPARE_PIECES = 8


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
    guest_vqs: tuple[int, ...]  # bases by number of the virtqueue: control, event, requests
    host_vqs: tuple[int, ...]
    drivers: tuple[int, ...]  # the two sides of each ring (sim.vring)
    devices: tuple[int, ...]
    vhost: int  # base of the vhost-scsi device (sim.vhost_scsi)
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

    def take(self, size: int, align: int = 1) -> int:
        start = -(-self.used // align) * align
        self.used = start + size
        return start


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
        self.pieces = self.segments + SPARE_PIECES
        self.depth = max(job.iodepth for job in config.jobs)
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

    def build(self) -> Machine:
        kinds = (
            [agents.VCPU] * self.vcpus
            + [agents.KICK] * self.vcpus
            + [agents.IRQ] * self.queues
            + [agents.WORKER, agents.LIO_SUBMIT, agents.DISK, agents.LIO_COMPLETE]
            + [agents.DISK] * (len(self.config.disks) - 1)
        )
        sizes = {
            agents.VCPU: guest.VCPU_WORDS,
            agents.KICK: crossing.CROSSING_WORDS,
            agents.IRQ: crossing.CROSSING_WORDS,
            agents.WORKER: backend.WORKER_WORDS,
            agents.LIO_SUBMIT: target.KWORKER_WORDS,
            agents.DISK: disks.DISK_WORDS,
            agents.LIO_COMPLETE: target.KWORKER_WORDS,
        }
        bases = [self.words.take(sizes[kind]) for kind in kinds]
        self.vcpu = bases[: self.vcpus]
        self.kick = bases[self.vcpus : 2 * self.vcpus]
        self.irq = bases[2 * self.vcpus : 2 * self.vcpus + self.queues]
        rest = bases[2 * self.vcpus + self.queues :]
        self.worker, self.lio_submit, first_disk, self.lio_complete, *others = rest
        self.disks = [first_disk, *others]
        self.guest = GuestPlan(
            self.config,
            take=self.words.take,
            take_bytes=self.bytes.take,
            put=self.put,
            vcpu=self.vcpu,
            kick=range(self.vcpus, 2 * self.vcpus),
            segments=self.segments,
        )
        vqs = range(len(self.guest.vqs))
        self.host_vqs = [self.words.take(backend.HOST_QUEUE_WORDS) for _ in vqs]
        self.devices = [self.words.take(vring.device_words(self.num)) for _ in vqs]
        self.vhost = self.words.take(vhost_scsi.DEVICE_WORDS)
        self._luns()
        for index in vqs:
            self._host_queue(index)
        self._crossings()
        self._worker()
        self._target()
        plans = self._plans()
        machine = self._assemble(kinds, bases, plans)
        self.guest.init_rings(machine.mem, machine.st)
        for index in vqs:
            self._init_device(machine, index)
        return machine

    def _assemble(self, kinds: list[int], bases: list[int], plans: list[JobPlan]) -> Machine:
        slots = len(kinds)
        calendar = agents.calendar_words(slots)
        due = self.words.take(calendar, 8)  # one level of eight entries is one cache line
        kind, base = self.words.take(slots), self.words.take(slots)
        woken = self.words.take(64 * slots)  # a slot may be woken more than once in a stretch
        st = np.zeros(self.words.used, dtype=np.int64)
        for offset, value in self.writes:
            st[offset] = value
        for offset, table in self.tables:
            st[offset : offset + table.size] = table
        st[due : due + calendar] = agents.IDLE
        st[kind : kind + slots] = kinds
        st[base : base + slots] = bases
        heads = (
            (agents.H_SLOTS, slots),
            (agents.H_DUE, due),
            (agents.H_KIND, kind),
            (agents.H_BASE, base),
            (agents.H_WOKEN, woken),
            (agents.H_ROW_WORDS, record.ROW_WORDS if self.record_requests else 0),
        )
        for name, value in heads:
            st[int(name)] = value
        for index, cost in enumerate(agents.COSTS):
            st[agents.COST_TABLE + index] = getattr(self.costs, cost)
        st[agents.LOG_TABLE : agents.LOG_TABLE + 1025] = rng.log_table()
        mem = np.zeros(-(-self.bytes.used // PAGE_SIZE) * PAGE_SIZE, dtype=np.uint8)
        cores = self.vcpus + 1
        watched = self._watched(kinds, bases)
        margin = 2 * self.depth * self.vcpus + 64
        tr = recorder.new_trace(self._recording(plans, margin + 1, watched))
        first_row = recorder.T_ROWS if self.record_requests else recorder.T_SCRATCH
        st[int(agents.H_ROWS)] = tr[int(first_row)]
        machine = Machine(
            mem=mem,
            lines=memory.new_lines(mem.size, cores, self.costs.line_prices),
            st=st,
            tr=tr,
            media=np.zeros(self.target_plan.sectors, dtype=np.int64),
            costs=self.costs,
            kinds=tuple(kinds),
            names=self._names(),
            bases=tuple(bases),
            guest_vqs=tuple(self.guest.bases),
            host_vqs=tuple(self.host_vqs),
            drivers=tuple(vq.driver for vq in self.guest.vqs),
            devices=tuple(self.devices),
            vhost=self.vhost,
            plans=tuple(plans),
            row_margin=margin,
            watched=tuple(watched),
        )
        st[self.vhost + int(vhost_scsi.S_MEMORY)] = mem.size
        machine._set_high_water()
        return machine

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
        )

    def _watched(self, kinds: list[int], bases: list[int]) -> dict[str, list[int]]:
        """The counters that intervals are wanted for: places in `st`, or -1 - place in `lines`."""
        groups = {
            'kicks': [base + int(guest.V_KICKS) for base in self.vcpu],
            'interrupts': [base + int(guest.G_HANDLERS) for base in self.guest.requests],
            'transfers': [
                -1 - int(memory.L_CORES + memory.CORE_WORDS * np.uint64(core) + memory.C_TRANSFERS)
                for core in range(self.vcpus + 1)
            ],
        }
        for name, kind, base in zip(self._names(), kinds, bases, strict=True):
            if kind in agents.CPU_KINDS:
                groups[f'busy.{name}'] = [base + int(agents.A_BUSY)]
            elif kind == agents.DISK:
                groups[f'busy.{name}.lanes'] = [base + int(disks.D_LANE_BUSY)]
                groups[f'busy.{name}.serial'] = [base + int(disks.D_SERIAL_BUSY)]
        return groups

    def _names(self) -> tuple[str, ...]:
        each = [f'vcpu{i}' for i in range(self.vcpus)]
        each += [f'kick{i}' for i in range(self.vcpus)]
        each += [f'irq{i}' for i in range(self.queues)]
        each += ['vhost', 'lio_submit', 'disk', 'lio_complete']
        return (*each, *(f'disk{i}' for i in range(1, len(self.disks))))

    # ---- the parts

    def _host_queue(self, index: int) -> None:
        """A virtqueue as the host has it; a request queue has commands and a vector agent."""
        num, q, request = self.num, self.host_vqs[index], index - VQ_REQUEST_FIRST
        values = [
            (backend.Q_DEVICE, self.devices[index]),
            (backend.Q_INDEX, index),
            (backend.Q_WORKER, self.worker),
            (backend.Q_COMPLETIONS, -1),
            (backend.Q_BUFFERS, self.words.take(8 + 2 * 1024)),
            (backend.Q_ROW_OF_HEAD, self.guest.vqs[index].rows),
            (backend.Q_VHOST, self.vhost),
            (backend.Q_BACKEND, 1),
            (backend.Q_INFLIGHT, q + int(backend.Q_INFLIGHTS)),
            (backend.Q_INFLIGHTS, 1),
        ]
        if request >= 0:
            command_words = int(se_cmd.X_DATA) + 2 * self.pieces
            values += [
                (backend.Q_IRQ_SLOT, 2 * self.vcpus + request),
                (backend.Q_COMMANDS, self.words.take(command_words * num)),
                (backend.Q_COMMAND_WORDS, command_words),
                (backend.Q_ORDER_LIST, self.words.take(num)),
                (backend.Q_ORDER_ROOM, num),
            ]
        for name, value in values:
            self.put(q, name, value)

    def _init_device(self, machine: Machine, index: int) -> None:
        """The device's side of a fresh ring."""
        vq, v = self.guest.vqs[index], np.uint64(self.devices[index])
        ring = (vq.desc, vq.avail, vq.used)
        base = vring.fresh_base(self.features)
        vring.device_init(
            machine.mem, machine.st, v, self.num, *ring, self.features, base, vring.KERNEL_VHOST
        )

    def _crossings(self) -> None:
        """Kicks lead to the host's queues, interrupts to the guest's."""
        table = self._table(self.host_vqs)
        for vcpu, base in zip(self.vcpu, self.kick, strict=True):
            self.put(base, crossing.C_VCPU, vcpu)
            self.put(base, crossing.C_HOST_QUEUES, table)
        for queue, base in zip(self.guest.requests, self.irq, strict=True):
            self.put(base, crossing.C_GUEST_QUEUE, queue)

    def _worker(self) -> None:
        room = 2 * len(self.host_vqs) + backend.FLUSHES_MAX
        values = (
            (backend.B_SLOT, 2 * self.vcpus + self.queues),
            (backend.B_CORE, self.vcpus),
            (backend.B_WORK_ROOM, room),
            (backend.B_WORK_LIST, self.words.take(2 * room)),
            (backend.B_COMMAND, -1),
            (backend.B_BATCH, -1),
            (backend.B_LIO, self.lio_submit),
        )
        for name, value in values:
            self.put(self.worker, name, value)

    def _luns(self) -> None:
        """Targets and LUNs as LIO has them, and the vhost-scsi device in front of them."""
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
        base = self.words.take(self.target_plan.size())
        words = self.target_plan.words(base, bases)
        self.writes += enumerate(words.tolist(), base)
        values = (
            (vhost_scsi.S_TARGETS, base),
            (vhost_scsi.S_NO_TARGETS, self.words.take(TARGETS)),
            (vhost_scsi.S_HEADER, REQ_SIZE),
            (vhost_scsi.S_KERNEL, vhost_scsi.KERNEL_NUMBERS[config.host.kernel]),
            (vhost_scsi.S_ROOM, self.pieces),
        )
        for name, value in values:
            self.put(self.vhost, name, value)

    def _target(self) -> None:
        """LIO's kworkers, and a disk for each LUN."""
        first = 2 * self.vcpus + self.queues + 1
        for place, base in ((0, self.lio_submit), (2, self.lio_complete)):
            self.put(base, target.W_SLOT, first + place)
            self.put(base, target.W_HEAD, -1)
        self.put(self.lio_submit, target.W_PEER, self.lio_complete)
        self.put(self.lio_submit, target.W_FAILED, -1)
        host = self.config.host
        self.put(self.lio_submit, target.W_DIRECT, int(host.submit_type == 'direct'))
        self.put(self.lio_complete, target.W_DIRECT, int(host.complete_type == 'direct'))
        for index, (base, lun) in enumerate(zip(self.disks, self.config.disks, strict=True)):
            self.put(base, disks.D_SLOT, first + (1 if index == 0 else 2 + index))
            self._disk(base, index, lun.disk)

    def _disk(self, base: int, index: int, spec: Target) -> None:
        """The disk of one LUN."""
        host = self.config.host
        self.put(base, disks.D_LIO_COMPLETE, self.lio_complete)
        self.put(base, disks.D_LIO_SUBMIT, self.lio_submit)
        plan = DiskPlan(
            self.words.take,
            lambda base, name, value: self.writes.append((base + name, value)),
            base,
            spec,
            hz=host.cpu_hz,
            seed=self.config.run.seed,
            lun=index,
        )
        plan.write(commands=self.num * self.queues, null_service=self.costs.null_service)
        if host.kernel in THROTTLED and spec.wbt_lat:
            self.put(base, disks.D_WBT, self._throttle(spec))

    def _throttle(self, spec: Target) -> int:
        """Write-back throttling of the block device under LIO."""
        hz = self.config.host.cpu_hz
        base = self.words.take(wbt.WBT_WORDS)
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
            queues=self.queues,
            luns=self.guest.luns,
            take=self.words.take,
            put=put,
            place=place,
        )
        return builder.plans()


def states_of(kind: int) -> list[str]:
    """Names of the states of a kind of agent, for humans."""
    return {
        agents.VCPU: guest.STATES,
        agents.WORKER: backend.STATES,
        agents.KICK: list(crossing.KICK_STATES),
        agents.IRQ: list(crossing.IRQ_STATES),
        agents.LIO_SUBMIT: target.STATES,
        agents.LIO_COMPLETE: target.STATES,
    }.get(kind, ['idle'])
