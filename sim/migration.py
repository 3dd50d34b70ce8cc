"""A live migration: pre-copy, switch-over in QEMU's order, the destination, and what came of it.

migration/migration.c, hw/virtio/virtio.c. The source is the run's own machine; at the hand-over the
guest goes on in a second one (sim.migrate.handover), whose engine continues the clock:

    source       setup | iterations until the rest fits the downtime-limit | the policy's lead |
                 the stop (sim.control.halves) | ram_rest | state_save | transfer
    destination  state_load | the start | the vCPUs run

From the pause of the vCPUs on the source to their resumption on the destination every cycle is
charged to exactly one of PHASES. Whatever fails before the hand-over leaves the VM running on the
source; after it that takes the return path, over which the source hears of it.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import simpy

from sim import costs
from sim.analysis import frame
from sim.config import Config, from_effective, with_migration
from sim.control import felt, hotplug, stop_stamps, vmstate
from sim.control.clock import Action
from sim.control.costs import control_of_config
from sim.control.halves import hand_over_regions, lead_in, prepare, start_half, stop_half
from sim.control.power import Host, at_once, make_host, switch_on
from sim.control.stop_checks import Watch
from sim.control.stop_policy import Policy, policy_named
from sim.control.vm import VmExitError
from sim.device import NOT_MIGRATABLE
from sim.engine import ENGINES, Engine
from sim.errors import ConfigError
from sim.faults import Faults
from sim.faults import check as check_faults
from sim.features import STACKS
from sim.formats.faults import parse_faults
from sim.formats.migration_keys import Migration
from sim.formats.qemu import parse_device
from sim.lio import lun as unit
from sim.lio import reserve
from sim.machine import Machine, Words, build
from sim.migrate import checks, handover
from sim.migrate.link import Link, LinkError
from sim.migrate.mishaps import Mishaps
from sim.migrate.precopy import NotConvergingError, Precopy
from sim.migrate.ram import PAGE_ON_WIRE, Ram
from sim.run import Phases, Result, finish
from sim.run import prepare as prepare_run
from sim.units import cycles_to_ns, ns_to_cycles
from sim.vhost.ioctl import VhostScsi
from sim.workload import job_fields

PHASES = (
    'vcpu_pause', 'drain', 'log_sync', 'ring_base', 'ram_rest', 'state_save', 'transfer',
    'state_load', 'device_start', 'endpoint', 'vcpu_resume',
)  # fmt: skip
ON_SOURCE = 'running on the source'
BOTH = 'ownership: the VM runs on both sides'
NOT_TAKEN = ('load of migration failed', 'QEMU exits on the destination')
RESERVATION_KEY = 0x7673636D  # what the guest registers with, whatever it is
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
    open_serials: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    watch: Watch | None = None
    stale: int = 0
    sentences: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    mishaps: Mishaps = field(init=False)

    def __post_init__(self) -> None:
        plan = self.plan
        self.mishaps = Mishaps(self.link, return_path=plan.return_path, split=self._go_on_here)
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
        if self.plan.storage == 'copied_early' or self.plan.without == 'disk':
            self.media_at_start = control.machine.media.copy()
        yield from self._guarded(self._source())

    def depart(self) -> Action:
        """The end of the source's half: pre-copy has done its work, the switch-over begins now."""
        self.began = self.host.control.now
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

    def _switch_over(self) -> Action:
        """migration_completion_precopy() once the VM has stopped."""
        control, ram, link = self.host.control, self.ram, self.link
        control.enter('ram_rest')
        if self.plan.without != 'final_sync':
            yield from self.precopy.sync()
        while (pages := ram.next_io(len(ram.io_dirty))).size:
            ram.send_io(pages)
            yield from link.send(PAGE_ON_WIRE * len(pages))
        rest = ram.rest_dirty
        ram.send_rest(rest)
        yield from link.send(PAGE_ON_WIRE * rest)
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

    def fail_on_source(self, why: str) -> Action:
        """migration_iteration_finish() of a migration that failed: the VM goes on where it was."""
        try:
            yield from self._resume()
        except VmExitError as end:
            self._ends(f'QEMU exits: {end}, after: {why}')
        else:
            what = 'cancelled' if self.link.cancelled else 'failed'
            self.outcome = f'{what}, {ON_SOURCE}: {why}'

    def _resume(self) -> Action:
        control = self.host.control
        control.machine.log_vcpus(False)
        yield from self.precopy.throttle.stop()
        if self.downtime_start is not None:
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
            yield control.env.timeout(int(there.env.now) - control.now)
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
        host.backend.gated = self.policy.name == 'gate'  # it then looks into the rings by itself
        host.virtio.parent_obj.host_features = self.there.agreed.offered
        host.control.start(control_of_config(self.there))
        self.arrived, self.arrived_host = engine, host
        self.mishaps.arrived = True
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
            if self.plan.without != 'state':
                mem = control.machine.mem
                self.sentences += vmstate.load(host.virtio, departure.state, mem)
                hand_over_regions(self.host, host, self.policy)
            self.sentences += checks.device_state(self.host.virtio, host.virtio, control.now)
            yield from control.pay(control.costs.incoming_end)
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
            self.outcome = 'ok'
            self._let_jobs_end(control.machine, control.now)

    def back_home(self) -> Action:
        """The source hears over the return path that the destination has failed, and goes on."""
        assert self.arrived is not None
        control = self.host.control
        yield control.env.timeout(int(self.arrived.env.now) - control.now + self.link.latency)
        yield from self.fail_on_source(self.outcome)


# ------------------------------------------------------------------------------------- a migration


def migrate(
    config: Config, look: Callable[[Result, Migrating], None] | None = None
) -> dict[str, Any]:
    """Run a config with a migration in it. `look` is shown what came of it.

    Errors: ConfigError where the device blocks migration, or nothing can be migrated like this.
    """
    began = time.perf_counter()
    move = begin(config)
    run_half(move, move.source, move.outbound())
    engine = carry_over(move)
    engine.run()
    result = finish(config, engine, began)
    if look is not None:
        look(result, move)
    return report(move, result)


def begin(config: Config) -> Migrating:
    """Both ends of a migration, at time zero."""
    config = with_migration(config)
    plan = config.migration
    assert plan is not None
    check(config, plan)
    check_faults(parse_faults(plan.faults), config.device.driver, config.host.kernel)
    there = destination_of(config)
    engine, phases = prepare_run(config)
    host = switch_on(engine, config)
    fresh = build(there, costs.of_config(there))
    handover.check_alike(engine.machine, fresh)
    return meet(config, engine, phases, host, fresh, there)


def meet(
    config: Config, engine: Engine, phases: Phases, host: Host, fresh: Machine, there: Config
) -> Migrating:
    """A migration of the VM on `engine` to a host of the config `there`, with machine `fresh`."""
    plan, hz = config.migration, config.host.cpu_hz
    assert plan is not None
    policy = policy_of(config, plan)
    prepare(host, policy)
    if plan.reservation:
        for _, lun in engine.machine.luns.values():
            reserve.hold(engine.machine.st, lun, RESERVATION_KEY)
            unit.guard(engine.machine.st, np.uint64(lun))
    ram = Ram(engine.machine, size=plan.ram, rate=plan.dirty_rate, hot_set=plan.hot_set, cpu_hz=hz)
    latency = int(ns_to_cycles(plan.link_latency, hz))
    link = Link(host.control, plan.link_bandwidth, latency, hz)
    return Migrating(
        config=config,
        plan=plan,
        policy=policy,
        source=engine,
        phases=phases,
        host=host,
        fresh=fresh,
        there=there,
        ram=ram,
        link=link,
        precopy=Precopy(host, plan, ram, link, hz),
        faults=Faults(parse_faults(plan.faults), hz),
    )


def policy_of(config: Config, plan: Migration) -> Policy:
    """How the device is stopped. Errors: ConfigError where its backend cannot do that."""
    return policy_named(
        plan.policy,
        plan.lead,
        stack=STACKS[config.device.driver],
        hypothetical=config.run.hypothetical,
        depth=plan.depth,
        timeout=plan.timeout,
    )


def carry_over(move: Migrating) -> Engine:
    """After the source's half: the engine on which the VM goes on, ready to run."""
    if move.departure is None:
        return move.source
    move.arrive()
    engine = move.arrived
    assert engine is not None
    run_half(move, engine, move.inbound())
    if move.outcome.startswith(NOT_TAKEN) and move.plan.return_path and move.link.cut is None:
        run_half(move, move.source, move.back_home())
        return move.source
    return engine


def run_half(move: Migrating, engine: Engine, action: Action) -> None:
    """Run an engine until a control action is over; one that never ends leaves `stuck`."""
    process = engine.env.process(action)
    engine.run(process)
    if not process.triggered:
        host = move.arrived_host if engine is move.arrived else move.host
        assert host is not None
        move.outcome = f'stuck in {host.control.clock.phase}'
        host.control.clock.phase = None  # which has no length


def destination_of(config: Config) -> Config:
    """The config of the destination."""
    plan = config.migration
    assert plan is not None
    host = replace(config.host, kernel=plan.to_kernel)
    sections = replace(config, host=host, migration=None).effective()  # what that kernel knows of
    sections['qemu'] = {**sections['qemu'], 'version': plan.to_qemu}
    if plan.to_device:
        driver = config.device.driver
        table, _ = parse_device(f'{driver},{plan.to_device}')
        given = {name: value for name, value in table.items() if name != 'driver'}
        sections['device'] = {**sections['device'], **given}
    return from_effective(sections)


def check(config: Config, plan: Migration) -> None:
    """What cannot be migrated, or not like this. Errors: ConfigError."""
    if config.run.record != 'full':
        raise ConfigError(
            f'run.record={config.run.record}: a migration looks at every request; use '
            'run.record=full'
        )
    if STACKS[config.device.driver] == 'vhost-scsi' and not config.device.migratable:
        raise ConfigError(f'device.migratable=off: {NOT_MIGRATABLE}')
    if config.tmfs or any(lun.disk.kind == 'python' for lun in config.disks):
        raise ConfigError(
            'migration: neither [[tmf]] tables nor disks written in Python can be handed over; '
            'take them out'
        )


# -------------------------------------------------------------------------------------- the report


def report(move: Migrating, result: Result) -> dict[str, Any]:
    """What `sim migrate` prints: see docs/reference/migration.md."""
    hz, counters = move.hz, move.precopy.counters
    control = move.host.control
    there = move.arrived_host
    spent = dict(control.clock.spent)
    if there is not None:
        for name, cycles in there.control.clock.spent.items():
            spent[name] = spent.get(name, 0) + cycles
    rows = frame.trace_rows(result_machine(move))

    def ms(cycles: float | None) -> float | None:
        return None if cycles is None else round(cycles * 1e3 / hz, 6)

    def ns(cycles: int | None) -> int | None:
        return None if cycles is None else int(cycles_to_ns(cycles, hz))

    end = downtime_end(move)
    start = move.downtime_start
    down = None if start is None or end is None else end - start
    outcome, findings, violations = explained(move, rows, result)
    cleared = [c.duration for c in control.calls if c.name == 'VHOST_SCSI_CLEAR_ENDPOINT']
    expected = counters.expected_downtime_s
    felt_from = start if start is not None else 0
    resumed = move.resumed_at
    return {
        'id': result.report['id'],
        'digest': result.report['digest'],
        'outcome': outcome,
        'policy': move.policy.name,
        'downtime_ms': ms(down),
        'expected_downtime_ms': None if expected is None else round(expected * 1e3, 6),
        'setup_time_ms': ms(counters.setup_time),
        'total_time_ms': ms(None if end is None else end - move.began),
        'dirty_sync_count': counters.dirty_sync_count,
        'dirty_pages_rate': round(counters.dirty_pages_rate, 1),
        'transferred_bytes': move.link.sent,
        'mbps': round(counters.bandwidth * 8 / 1e6, 3),
        'phases_ns': felt.phases_ns(spent, PHASES, hz),
        'vm_stopped_ns': ns(None if start is None or resumed is None else resumed - start),
        'blackout_ns': felt.blackout(rows, felt_from, resumed, hz),
        'first_completion_ns': ns(felt.first_completion(rows, resumed)),
        'clear_endpoint_ns': ns(cleared[-1]) if cleared else None,
        'in_flight_at_stop': move.in_flight,
        'unfetched_at_stop': move.unfetched,
        'responses': felt.responses(rows, move.open_serials),
        **felt.slow(rows, hz),
        'stale_pages': move.stale,
        'faults': move.faults.report(),
        'throttle': [[ns(at), percent] for at, percent in move.precopy.throttle.history],
        'violations': violations,
        'findings': findings,
        'expected': move.policy.breaks,
        'hypothetical': hypothetical(move, result),
        'config': move.config.effective(),
    }  # fmt: skip


def result_machine(move: Migrating) -> Machine:
    """Where the VM was at the end."""
    on_source = move.arrived is None or ON_SOURCE in move.outcome
    return move.source.machine if on_source or move.arrived is None else move.arrived.machine


def downtime_end(move: Migrating) -> int | None:
    """QEMU's: the stream is out or, with the return path, the destination has said that it runs."""
    if move.outcome != 'ok':
        return None
    if not move.plan.return_path:
        return move.stream_end
    assert move.resumed_at is not None
    return move.resumed_at + move.link.latency


def explained(
    move: Migrating, rows: npt.NDArray[np.int64], result: Result
) -> tuple[str, list[str], list[str]]:
    """Outcome, findings, and the violations that no finding explains."""
    outcome, findings = move.outcome, list(move.findings)
    if outcome == 'ok' and (rows[:, felt.COLUMN['t_complete']] == 0).any():
        outcome = 'hung'
    elif outcome == 'ok' and not np.isin(rows[:, felt.COLUMN['outcome']], felt.FINE).all():
        outcome = 'errors'
    findings += move.mishaps.findings
    owned = ownership(move)
    reasons = [sentence for sentence in owned if not sentence.startswith(BOTH)]
    left = felt.stranded(rows)
    if not reasons:
        reasons = move.faults.why_unanswered(rows)
        owned += reasons
    elif not outcome.startswith('stuck'):
        findings.append('liveness: the VM has ended; its requests are never answered')
    if not reasons and left is not None and not move.policy.breaks:
        findings.append(left)
        reasons = [left]
    move.sentences += owned
    end = move.host.backend
    region = end.left_behind if end.keeps else []
    stamps = stop_stamps.check(result_machine(move), rows)
    run = [*stamps, *felt.without_resubmissions(rows, region, result.violations)]
    if reasons:
        unfinished = (
            'conservation', 'end:', "Little's law", 'end to end: liveness', 'end to end: rings',
        )  # fmt: skip
        run = [sentence for sentence in run if not sentence.startswith(unfinished)]
    watched = move.watch.found() if move.watch is not None else []
    return outcome, findings, [*watched, *move.sentences, *run]


def has_endpoint(host: Host) -> bool:
    """Does the kernel still serve the device of a host?"""
    return isinstance(host.backend, VhostScsi) and bool(host.backend.endpoint)


def ownership(move: Migrating) -> list[str]:
    """The VM runs on exactly one side, or a sentence."""
    here = move.host.vm.guest_runs
    there = move.arrived_host is not None and move.arrived_host.vm.guest_runs
    if here and there:
        return [f'{BOTH}, on one disk']
    if here or there:
        return []
    if move.outcome.startswith('stuck'):
        asked = move.mishaps.cancelled_at
        cannot = '' if asked is None else f'; migrate_cancel of cycle {asked} waits for that lock'
        return [f'liveness: {move.outcome}, for ever, with the big lock held{cannot}']
    told = ''
    if move.outcome.startswith(NOT_TAKEN) and not move.plan.return_path:
        told = ': the source was told of no failure; migration.return_path=on would have told it'
    return [f'ownership: the VM runs on neither side{told}']


def hypothetical(move: Migrating, result: Result) -> list[str]:
    """What no real stack does."""
    policy = move.policy
    stack = STACKS[move.config.device.driver]
    invented = policy.hypothetical_on(stack)
    mine = [f'stop policy {policy.name}: {policy.what}'] if invented else []
    found: list[str] = result.report['hypothetical']
    return [*found, *mine]
