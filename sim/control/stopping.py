"""A VM that is stopped and goes on: the process, and what becomes of the guest's requests.

The process is QEMU's vm_stop() followed by vm_start(), with the device's stop and start inside:

    pause_all_vcpus, vm_state_notify | the gap | CLEAR_ENDPOINT with its drain, GET_VRING_BASE,
    notifiers, bdrv_flush_all | (the hold) | vm_state_notify, the device's start | resume_all_vcpus

Everything from the pause of the vCPUs to their resumption is charged to exactly one phase of PHASES
(`stopped` is the hold). Checkers watch, and steer nothing: requirements 2.1 (the backend's state is
synced into the device), 2.2 (no further I/O to the target), 2.3 (guest memory is left alone) and 3
(requests in flight are completed), as the change that made vhost-scsi migratable stated them.
"""

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.agents import CLOCK_END
from sim.analysis import frame
from sim.config import Config
from sim.control import felt, stop_stamps
from sim.control.again import words_of
from sim.control.clock import Action
from sim.control.halves import lead_in, prepare, start_half, stop_half
from sim.control.power import Host, switch_on
from sim.control.stop_checks import Watch
from sim.control.stop_policy import POLICIES, Policy, policy_named
from sim.control.vm import VmExitError
from sim.engine import Engine
from sim.errors import ConfigError
from sim.faults import Faults, invented
from sim.faults import check as check_faults
from sim.features import STACKS
from sim.formats.faults import Fault, parse_faults
from sim.run import Phases, Result, check_single, run
from sim.units import cycles_to_ns, format_time, ns_to_cycles, parse_time_ns

PHASES = (
    'vcpu_pause', 'drain', 'log_sync', 'ring_base', 'device_start', 'endpoint', 'vcpu_resume',
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class StopPlan:
    """When and how. Times in ns: `gap` lies between the vCPUs' standstill and CLEAR_ENDPOINT,
    `hold` between the end of the stop and `cont`, `lead` before `at` where the policy has one.
    `log`: when dirty logging begins, as at the beginning of a migration; None: never. `faults`:
    what goes wrong.
    """

    at: int
    gap: int = 0
    hold: int = 0
    lead: int = 0
    log: int | None = None
    policy: Policy = POLICIES['drain']
    faults: tuple[Fault, ...] = ()


def plan_of(
    config: Config,
    *,
    at: str,
    policy: str = 'drain',
    lead: str = '0us',
    depth: int | None = None,
    timeout: str | None = None,
    log: str | None = None,
    gap: str = '0us',
    hold: str = '0us',
    fault: str | None = None,
) -> StopPlan:
    """The plan that the options of sim stop ask for. Errors: ConfigError."""
    begin, ahead = _time('--at', at), _time('--lead', lead)
    if ahead > begin:
        raise ConfigError(f'--lead {lead}: begins before the run does; lower it')
    logging = None if log is None else _time('--log', log)
    if logging is not None and logging > begin - ahead:
        raise ConfigError(f'--log {log}: begins after the stop does; lower it')
    pauses, end = {'--gap': _time('--gap', gap), '--hold': _time('--hold', hold)}, begin
    for name, ns in pauses.items():
        end += ns
        if ns_to_cycles(end, config.host.cpu_hz) > CLOCK_END:
            raise ConfigError(
                f'{name} {format_time(ns)}: ends beyond 2**47 cycles, the end of the clock; '
                'shorten it, or lower host.cpu_hz'
            )
    return StopPlan(
        at=begin,
        lead=ahead,
        log=logging,
        policy=policy_named(
            policy,
            ahead,
            stack=STACKS[config.device.driver],
            hypothetical=config.run.hypothetical,
            depth=depth,
            timeout=None if timeout is None else _time('--timeout', timeout),
        ),
        gap=pauses['--gap'],
        hold=pauses['--hold'],
        faults=parse_faults(fault, '--fault', stop=True),
    )


def _time(name: str, text: str) -> int:
    try:
        return parse_time_ns(str(text))
    except ValueError as error:
        raise ConfigError(f'{name} {text}: {error}') from None


@dataclass
class Stopping:
    """One stop of one run: `attend` puts it into the run, `report` says what came of it."""

    config: Config
    plan: StopPlan
    host: Host | None = None
    outcome: str = 'not stopped'
    watch: Watch | None = None
    paused_at: int = 0
    resumed_at: int | None = None
    in_flight: int = 0
    unfetched: int = 0
    open_serials: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    faults: Faults = field(init=False)

    def __post_init__(self) -> None:
        config = self.config
        check_faults(self.plan.faults, config.device.driver, config.host.kernel)
        self.faults = Faults(self.plan.faults, config.host.cpu_hz)

    def attend(self, engine: Engine, phases: Phases) -> None:
        """Switch the device on and schedule the stop."""
        self.host = switch_on(engine, self.config)
        prepare(self.host, self.plan.policy)
        if self.plan.faults:
            self.faults.watch(self.host)
        engine.env.process(self._guarded(self.host, phases))

    # ---- the process

    def _guarded(self, host: Host, phases: Phases) -> Action:
        plan, hz = self.plan, self.config.host.cpu_hz
        if plan.log is not None:
            yield host.control.env.timeout(int(ns_to_cycles(plan.log, hz)))
            assert host.dev is not None
            yield from host.dev.set_log(True)
        begin = int(ns_to_cycles(plan.at - plan.lead, hz))
        yield host.control.env.timeout(max(0, begin - host.control.now))
        yield from lead_in(host, plan.policy)
        yield host.control.env.timeout(max(0, int(ns_to_cycles(plan.at, hz)) - host.control.now))
        if phases.over:
            raise ConfigError(
                f'--at {format_time(self.plan.at)}: the run is over by then; stop earlier, or give '
                'it more to do (workload.number_ios, workload.runtime)'
            )
        self.outcome = 'stuck'
        try:
            yield from self._stop_and_cont(host)
        except VmExitError as end:
            self.outcome = f'QEMU exits: {end}'

    def _stop_and_cont(self, host: Host) -> Action:
        control, plan, hz = host.control, self.plan, self.config.host.cpu_hz
        self.paused_at = control.now
        gap = int(ns_to_cycles(plan.gap, hz))
        watch = yield from stop_half(host, plan.policy, gap=gap, look=self._look)
        control.enter('stopped')
        yield from control.pay(int(ns_to_cycles(plan.hold, hz)))
        yield from start_half(host, plan.policy, watch)
        self.resumed_at = control.now
        self.outcome = 'ok'

    # ---- what checkers see

    def _look(self, watch: Watch) -> None:
        """What is where when CLEAR_ENDPOINT is about to be called."""
        self.watch, host = watch, watch.host
        machine = host.control.machine
        rows = frame.trace_rows(machine)
        self.open_serials, self.unfetched = felt.open_requests(rows)
        self.in_flight = host.backend.in_flight()

    # ---- the report

    def report(self, result: Result) -> dict[str, Any]:
        """What `sim stop` prints: see docs/reference/command-line.md."""
        host, hz = self.host, self.config.host.cpu_hz
        assert host is not None
        machine, control = host.control.machine, host.control

        def ns(cycles: int | None) -> int | None:
            return None if cycles is None else int(cycles_to_ns(cycles, hz))

        spent = control.clock.spent
        names = [*PHASES, *(['stopped'] if self.plan.hold else [])]
        cleared = [c.duration for c in control.calls if c.name == 'VHOST_SCSI_CLEAR_ENDPOINT']
        rows = frame.trace_rows(machine)
        outcome = self.outcome
        down = None if self.resumed_at is None else self.resumed_at - self.paused_at
        complete = rows[:, frame.COLUMN['t_complete']]
        if outcome == 'ok' and (complete == 0).any():
            outcome = 'hung'
        elif outcome == 'ok' and not np.isin(rows[:, frame.COLUMN['outcome']], felt.FINE).all():
            outcome = 'errors'
        findings, others = self._explained(rows, outcome, result)
        first = felt.first_completion(rows, self.resumed_at)
        return {
            'id': result.report['id'],
            'digest': result.report['digest'],
            'at_ns': self.plan.at,
            'outcome': outcome,
            'clear_endpoint_ns': ns(cleared[-1]) if cleared else None,
            'phases_ns': felt.phases_ns(spent, names, hz),
            'downtime_ns': ns(down),
            'blackout_ns': felt.blackout(rows, self.paused_at, self.resumed_at, hz),
            'first_completion_ns': ns(first),
            'in_flight_at_stop': self.in_flight,
            'unfetched_at_stop': self.unfetched,
            'responses': felt.responses(rows, self.open_serials),
            **felt.slow(rows, hz),
            'left_behind': len(host.backend.left_behind),
            'violations': [*(self.watch.found() if self.watch else []), *others],
            'findings': findings,
            'faults': self.faults.report(),
            'qemu_said': list(host.vm.said),
            'replay': replay(self.config, self.plan),
            'expected': self.plan.policy.breaks,
            'hypothetical': self._hypothetical(result),
            'policy': self.plan.policy.name,
            'config': self.config.effective(),
        }  # fmt: skip

    def _explained(
        self, rows: npt.NDArray[np.int64], outcome: str, result: Result
    ) -> tuple[list[str], list[str]]:
        """Findings, and those violations of the run and end to end that they do not explain.

        Where requests stand in a ring whose kick was consumed, the real guest would wait for ever
        as well: it is found, and no mistake of the simulation. A VM that has ended, and what SPDK
        has given up, are lost in life too, but violations all the same, as in a migration.
        """
        assert self.host is not None
        machine, end = self.host.control.machine, self.host.backend
        stamps = stop_stamps.check(machine, rows, end.performed)
        run_violations = felt.without_resubmissions(
            rows, end.left_behind if end.keeps else [], result.violations
        )
        left = felt.stranded(rows)
        completed = rows[rows[:, frame.COLUMN['completed']] > 0, frame.COLUMN['serial']]
        lost = sorted(set(end.left_behind) - set(completed.tolist()))
        findings: list[str] = []
        explained: tuple[str, ...] = ('conservation', 'end:', "Little's law")
        broken = self.faults.why_unanswered(rows)
        if outcome == 'stuck':
            broken = ['liveness: the stop never ends, with the big lock held']
        if outcome.startswith('QEMU exits'):
            findings.append('liveness: the VM has ended; its requests are never answered')
            broken = [*broken, f'ownership: the VM runs no more: {outcome}']
        elif self.plan.policy.breaks:
            return [], [*stamps, *run_violations]
        elif lost:
            findings.append(
                f'lost: {len(lost)} requests were left behind and are never answered, the first is '
                f'serial {lost[0]}'
            )
        elif outcome == 'hung' and left is not None and not broken:
            findings.append(left)
        if not findings and not broken:
            return [], [*stamps, *run_violations]
        if not lost:
            explained = (*explained, 'end to end: liveness', 'end to end: rings')
        found = [*stamps, *run_violations]
        others = [sentence for sentence in found if not sentence.startswith(explained)]
        return findings, [*broken, *others]

    def _hypothetical(self, result: Result) -> list[str]:
        policy = self.plan.policy
        stack = STACKS[self.config.device.driver]
        hypothetical = policy.hypothetical_on(stack)
        reason = f' ({policy.could[stack]})' if stack in policy.could else ''
        mine = [f'stop policy {policy.name}: {policy.what}{reason}'] if hypothetical else []
        return [*result.report['hypothetical'], *mine, *invented(self.plan.faults)]


def replay(config: Config, plan: StopPlan) -> str:
    """The command that does this stop again (sim.control.again)."""
    words = words_of(config, 'stop')
    words += ['--at', f'{plan.at}ns', '--policy', plan.policy.name]
    times = {'gap': plan.gap, 'hold': plan.hold, 'lead': plan.lead, 'log': plan.log}
    times['timeout'] = plan.policy.timeout
    for name, ns in times.items():
        if ns:
            words += [f'--{name}', f'{ns}ns']
    if plan.faults:
        words += ['--fault', ','.join(fault.text for fault in plan.faults)]
    if plan.policy.depth is not None:
        words += ['--depth', str(plan.policy.depth)]
    return shlex.join(words)


def stop(
    config: Config, plan: StopPlan, look: Callable[[Result, Stopping], None] | None = None
) -> dict[str, Any]:
    """Run a config with a stop in it. `look` is shown what came of it.

    Errors: ConfigError, also where the run is over by then.
    """
    check_single(config, 'a stop')
    if plan.log is not None and STACKS[config.device.driver] == 'virtio-scsi':
        raise ConfigError(
            f'--log: of {config.device.driver} QEMU marks what it writes by itself, there '
            'is no log: take it out'
        )
    stopping = Stopping(config, plan)
    result = run(config, attend=stopping.attend)
    if look is not None:
        look(result, stopping)
    return stopping.report(result)
