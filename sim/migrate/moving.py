"""One migration under way: both halves as control actions, and what is known of it so far.

    source       setup | iterations until the rest fits the downtime-limit | the policy's lead |
                 the stop (sim.control.halves) | vfio_stop | ram_rest | vfio_save | state_save |
                 transfer
    destination  state_load with vfio_load | vfio_start | the start | the vCPUs run

Functions passed through with VFIO are stopped behind the device and started before it:
vm_state_notify() stops the deepest first, and a virtio device hangs on a bus below its PCI
function.

migration/migration.c (migration_thread, migration_completion), hw/virtio/virtio.c. Whatever fails
before the hand-over leaves the VM running on the source; after it that takes the return path, over
which the source hears of it.
"""

import os
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import simpy

from sim.analysis import frame
from sim.config import Config
from sim.control import felt, hotplug, vmstate
from sim.control.clock import Action, Control
from sim.control.costs import control_of_config
from sim.control.halves import hand_over_regions, lead_in, start_half, stop_half
from sim.control.power import Host, at_once, make_host
from sim.control.stop_checks import Watch
from sim.control.stop_policy import Policy
from sim.control.vm import VmExitError
from sim.engine import ENGINES, Engine
from sim.faults import Faults
from sim.formats.migration_keys import Migration
from sim.machine import Machine, Words
from sim.migrate import checks, fate, handover
from sim.migrate.link import Link, LinkError
from sim.migrate.mishaps import Mishaps
from sim.migrate.precopy import NotConvergingError, Precopy
from sim.migrate.ram import Ram
from sim.run import Phases
from sim.units import ns_to_cycles
from sim.vhost.ioctl import VhostScsi
from sim.workload import job_fields

ON_SOURCE = 'running on the source'
BOTH = 'ownership: the VM runs on both sides'
NOT_TAKEN = ('load of migration failed', 'QEMU exits on the destination')
OTHER_STATE = 200_000  # bytes of the stream that are not this device: CPUs, PCI, timers


@dataclass
class Departure:
    """What has left the source."""

    at: int
    state: bytes
    watch: Watch


@dataclass
class Migrating:
    """One migration: who takes part, and what is known of it so far. Times in cycles."""

    config: Config
    plan: Migration
    policy: Policy
    source: Engine
    phases: Phases
    host: Host
    fresh: Machine  # the destination's machine as it was built
    there: Config
    ram: Ram
    link: Link
    precopy: Precopy
    faults: Faults
    media_at_start: Words | None = None
    arrived: Engine | None = None
    arrived_host: Host | None = None
    departure: Departure | None = None
    outcome: str = 'not begun'
    began: int = 0
    downtime_start: int | None = None
    stream_end: int | None = None
    resumed_at: int | None = None
    in_flight: int = 0
    unfetched: int = 0
    stages: dict[str, int] = field(default_factory=dict)
    open_serials: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    watch: Watch | None = None
    stale: int = 0
    devices_stopped: bool = False  # those passed through with VFIO
    sentences: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    mishaps: Mishaps = field(init=False)

    def __post_init__(self) -> None:
        plan = self.plan
        self.mishaps = Mishaps(self.link, return_path=plan.return_path, split=self._go_on_here)
        self.mishaps.source = self.host
        self.faults.acts |= self.mishaps.acts()
        if plan.faults:
            self.link.may_break()
            self.faults.watch(self.host)

    @property
    def hz(self) -> int:
        """Cycles per second."""
        return self.config.host.cpu_hz

    def cycles(self, ns: int) -> int:
        """Cycles in so many ns."""
        return int(ns_to_cycles(ns, self.hz))

    # ---- the source

    def outbound(self) -> Action:
        """The source's half, whatever becomes of it; `departure` is there if it went well."""
        control = self.host.control
        yield control.env.timeout(self.cycles(self.plan.at))
        self.began = control.now
        self.host.vm.migrating = True
        self._note_media(control.machine.media)
        yield from self._guarded(self._source())

    def has_sent(self, memory: npt.NDArray[np.uint8], media: Words) -> None:
        """Pre-copy has sent everything, I/O memory with this content; logging is on, and the logs
        have what was written since. `media` is the medium of that time.
        """
        self.ram.has_received(memory)
        self.precopy.join()
        self._note_media(media)

    def _note_media(self, media: Words) -> None:
        if self.plan.storage == 'copied_early' or self.plan.without == 'disk':
            self.media_at_start = media.copy()

    def depart(self) -> Action:
        """The end of the source's half: pre-copy has done its work, the switch-over begins now."""
        self.began = self.host.control.now
        self.host.vm.migrating = True
        yield from self._guarded(self._leave())

    def _guarded(self, action: Action) -> Action:
        """A half that may end otherwise than it should."""
        self.mishaps.half = self.host.control.env.active_process
        try:
            yield from action
        except VmExitError as end:
            self._ends(f'QEMU exits: {end}')
        except simpy.Interrupt as signal:
            self._ends(f'QEMU exits: {signal.cause}')
        except LinkError as error:
            if self.mishaps.stream_out and not self.plan.return_path:
                self._ends(f'load of migration failed: {error}')
            else:
                yield from self.fail_on_source(str(error))
        except NotConvergingError as error:
            yield from self.fail_on_source(str(error))

    def _ends(self, outcome: str) -> None:
        """The source's half is over, and has not brought the VM anywhere."""
        self.host.control.enter(None)
        self.outcome = outcome

    def _source(self) -> Action:
        self.faults.reach('setup', self.host)
        if self.faults.armed:  # they strike now, before anything else happens
            yield self.host.control.env.timeout(0)
        if self.mishaps.no_log_memory:
            self.host.vm.exit('g_malloc0() of the log aborts: out of memory')
        answer = yield from self.precopy.setup()
        if answer < 0:
            yield from self._without_log(answer)
            return
        self.faults.reach('precopy', self.host)
        yield from self.precopy.run()
        yield from self.precopy.throttle.stop()
        yield from self._leave()

    def _without_log(self, answer: int) -> Action:
        """vhost_log_global_start() of a log that does not begin.

        It aborted QEMU until 10.1 ("vhost: Do not abort on log-start error", Hanna Czenczek, July
        2025).
        """
        why = f'vhost: Failed to start logging: {os.strerror(-answer)}'
        if self.host.virtio.qemu < (10, 1):
            self.host.vm.exit(f'abort() in vhost_log_global_start: {os.strerror(-answer)}')
        yield from self.fail_on_source(why)

    def _leave(self) -> Action:
        control = self.host.control
        yield from lead_in(self.host, self.policy)
        yield control.env.timeout(self.cycles(self.plan.lead))
        if self.phases.over:
            self.findings.append(
                'the jobs were done before the switch-over: nothing was in flight; give them more '
                'to do (workload.number_ios, workload.runtime)'
            )
        self.downtime_start = control.now
        self.mishaps.take_lock(self.host)
        if self.plan.without == 'order':
            control.enter('vcpu_pause')
            yield from self.host.vm.pause_all_vcpus()
        else:
            self.watch = yield from stop_half(
                self.host, self.policy, gap=self.cycles(self.plan.gap), look=self._look
            )
        yield from self._switch_over()

    def _look(self, watch: Watch) -> None:
        """What is where when the device is about to be stopped."""
        self.watch = watch
        rows = frame.trace_rows(self.source.machine)
        self.open_serials, self.unfetched = felt.open_requests(rows)
        self.in_flight = self.host.backend.in_flight()
        self.stages = fate.stages(rows)

    def _switch_over(self) -> Action:
        """migration_completion_precopy() once the VM has stopped."""
        control, link, functions = self.host.control, self.link, self.plan.vfio_devices
        self.devices_stopped = functions > 0
        yield from self._vfio(control, 'vfio_stop', control.costs.vfio_stop)
        control.enter('ram_rest')
        yield from self.precopy.complete(sync=self.plan.without != 'final_sync')
        if functions:
            control.enter('vfio_save')
            size = functions * self.plan.state_of_device
            yield from link.send(size, size * control.costs.vfio_save >> 20)
        control.enter('state_save')
        state = vmstate.save(self.host.virtio)
        yield from control.pay(control.costs.state_save)
        control.enter('transfer')
        yield from link.send(len(state) + OTHER_STATE)
        self.stream_end = control.now
        self.mishaps.stream_out = True
        self.mishaps.release_lock()
        yield from link.arrive()
        control.enter(None)
        self.departure = Departure(control.now, state, self.watch or Watch(self.host))

    def _vfio(self, control: Control, phase: str, cycles: int) -> Action:
        """What takes each function so many cycles, one after the other."""
        if self.plan.vfio_devices:
            before = control.enter(phase)
            yield from control.pay(self.plan.vfio_devices * cycles)
            control.enter(before)

    def fail_on_source(self, why: str) -> Action:
        """migration_iteration_finish() of a migration that failed: the VM goes on where it was."""
        self.mishaps.half = self.host.control.env.active_process
        self.mishaps.came_back = True
        try:
            yield from self._resume()
        except VmExitError as end:
            self._ends(f'QEMU exits: {end}, after: {why}')
        except simpy.Interrupt as signal:
            self._ends(f'QEMU exits: {signal.cause}, after: {why}')
        else:
            what = 'cancelled' if self.link.cancelled else 'failed'
            self.outcome = f'{what}, {ON_SOURCE}: {why}'

    def _resume(self) -> Action:
        control = self.host.control
        control.machine.log_vcpus(False)
        self.host.vm.migrating = False
        yield from self.precopy.throttle.stop()
        if self.downtime_start is not None:
            if self.devices_stopped:
                yield from self._vfio(control, 'vfio_start', control.costs.vfio_start)
            yield from start_half(self.host, self.policy, self.watch)
            self.resumed_at = self.resumed_at or control.now
        if self.host.dev is not None:
            yield from self.host.dev.set_log(False)
        self._let_jobs_end(control.machine, control.now)
        self.mishaps.release_lock()

    def _go_on_here(self, why: str) -> None:
        """The source takes the migration for failed, and goes on beside the destination."""
        there, control = self.arrived, self.host.control
        assert there is not None
        self.findings.append(
            f'{why}: the source waited for the word that the destination runs, takes the migration '
            'for failed and goes on'
        )

        def life() -> Action:
            yield control.env.timeout(max(0, int(there.env.now) - control.now))
            try:
                yield from self._resume()
            except VmExitError as end:
                self.findings.append(f'QEMU exits on the source: {end}')

        control.env.process(life())
        handover.haunt(there, self.source)

    def _let_jobs_end(self, machine: Machine, now: int) -> None:
        """The VM goes on: where that is asked for, its jobs have a while left."""
        if self.plan.run_on is None:
            return
        for plan in machine.plans:
            place = plan.base + int(job_fields.J_STOP_AT)
            machine.st[place] = min(int(machine.st[place]), now + self.cycles(self.plan.run_on))

    # ---- the destination

    def arrive(self) -> None:
        """The destination's machine and host, with what has been sent; nothing has run there."""
        assert self.departure is not None
        source, now, plan = self.source.machine, self.departure.at, self.plan
        media = source.media
        if self.media_at_start is not None:
            media = self.media_at_start
        elif plan.storage == 'copied':
            media = source.media.copy()
        moved = plan.target_state and plan.without != 'target_state'
        machine = handover.arrive(
            source, self.fresh, self.ram.memory.copy(), media,
            shared=media is source.media
            and handover.is_idle(source, handover.host_slots(source)),
            target_state=moved,
        )  # fmt: skip
        pages, self.stale = checks.stale_pages(self.host, machine.mem, now)
        self.sentences += [
            *pages,
            *checks.medium(source, media, now),
            *checks.target_state(source, machine, now),
        ]
        engine = ENGINES[self.config.run.engine](machine, now)
        self.phases = Phases(engine, self.there, self.phases)
        hotplug.start(engine, self.there)
        lio = self.host.lio if plan.local else None
        host = make_host(engine, self.there, instant=True, lio=lio)
        at_once(host.virtio.realize())
        host.vm.running = False
        host.backend.gated = self.policy.name in ('gate', 'look')  # it looks into the rings
        host.virtio.parent_obj.host_features = self.there.agreed.offered
        host.control.start(control_of_config(self.there))
        self.arrived, self.arrived_host = engine, host
        self.mishaps.arrived, self.mishaps.destination = True, host
        self.faults.watch(host, 'destination')
        if has_endpoint(self.host) and not plan.local:
            self.sentences.append(
                f'ownership: the backend of the source has the ring and the disk, and so has the '
                f"destination's, from cycle {now} on"
            )
        if not handover.is_idle(source, handover.host_slots(source)):
            handover.haunt(engine, self.source)

    def inbound(self) -> Action:
        """The destination's half: load, start, run."""
        host, departure = self.arrived_host, self.departure
        assert host is not None
        assert departure is not None
        control = host.control
        self.mishaps.half = control.env.active_process
        try:
            control.enter('state_load')
            yield from control.pay(control.costs.state_load)
            yield from self._vfio(control, 'vfio_load', control.costs.vfio_load)
            if self.plan.without != 'state':
                mem = control.machine.mem
                self.sentences += vmstate.load(host.virtio, departure.state, mem)
                hand_over_regions(self.host, host, self.policy)
            self.sentences += checks.device_state(self.host.virtio, host.virtio, control.now)
            yield from control.pay(control.costs.incoming_end)
            yield from self._vfio(control, 'vfio_start', control.costs.vfio_start)
            yield from start_half(host, self.policy)
        except vmstate.LoadError as error:
            control.enter(None)
            self.outcome = f'load of migration failed: {error}'
        except VmExitError as error:
            control.enter(None)
            self.outcome = f'QEMU exits on the destination: {error}'
        except simpy.Interrupt as signal:
            control.enter(None)
            self.outcome = f'QEMU exits on the destination: {signal.cause}'
        else:
            self.resumed_at = control.now
            self.mishaps.over_at = control.now + self.link.latency
            self.outcome = 'ok'
            self._let_jobs_end(control.machine, control.now)

    def back_home(self) -> Action:
        """The source hears over the return path that the destination has failed, and goes on."""
        assert self.arrived is not None
        control = self.host.control
        self.mishaps.over_at = control.now
        told = int(self.arrived.env.now) + self.link.latency
        yield control.env.timeout(max(0, told - control.now))
        yield from self.fail_on_source(self.outcome)


def has_endpoint(host: Host) -> bool:
    """Does the kernel still serve the device of a host?"""
    return isinstance(host.backend, VhostScsi) and bool(host.backend.endpoint)
