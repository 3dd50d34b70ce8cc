"""Every boundary between two steps of a run, and what comes of a hand-over that begins there.

All state is flat arrays. A `Window` walks through a run step by step and copies the arrays behind
each step; `branch` puts one copy under a fresh engine and a fresh control plane, at that time, and
stops the VM there: the vCPUs stand still at exactly this boundary, or a policy with a lead time
begins. The VM goes on on another host; with an in-flight region, which `sim migrate` hands over, it
stops here and goes on on the same host.

For a migration dirty logging is on all the time, as in the last round of a pre-copy: at the
beginning of the window all memory counts as sent, and the logs have what was written since.

Where several agents are due at one cycle the engines go in the order of slots; any other order
would be as right. `moments(orders=True)` has those, too: behind each step of each order.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import permutations

import numpy as np
import numpy.typing as npt

from sim import agents, costs, invariants, record
from sim.analysis import frame
from sim.config import Config
from sim.control import halves, stop_stamps
from sim.control.clock import Action
from sim.control.power import Host, switch_on
from sim.control.stop_checks import Watch
from sim.control.stop_policy import Policy, policy_named
from sim.control.vm import VmExitError
from sim.drive import drive
from sim.engine import CompiledEngine
from sim.features import STACKS
from sim.machine import Machine, Words, build
from sim.migrate import handover
from sim.migrate.fate import Fate, fate_of, stages
from sim.migrate.moving import Migrating
from sim.migrate.report import ownership, result_machine
from sim.migration import carry_over, check, destination_of, meet, run_half
from sim.run import Phases
from sim.run import prepare as prepare_run
from sim.units import ns_to_cycles

NO_FATE = Fate((), (), ())
TIED_MOST = 4  # agents whose orders are tried; of more that are due at once, the first ones


@dataclass(frozen=True)
class Moment:
    """The machine's arrays behind a step. `order`: slots that went out of turn before it."""

    number: int
    order: tuple[int, ...]
    now: int
    mem: npt.NDArray[np.uint8]
    lines: Words
    st: Words
    tr: Words
    media: Words

    @property
    def name(self) -> str:
        """For a command line: the number, and the order where there is one, as in 17+3+1."""
        return '+'.join(map(str, (self.number, *self.order)))


@dataclass(frozen=True, kw_only=True)
class How:
    """How a VM is handed over: the keys of [migration], times in ns."""

    policy: str = 'drain'
    gap: int = 0
    lead: int = 0
    without: str = 'nothing'

    def on(self, config: Config) -> Policy:
        """The policy. Errors: ConfigError where the config's backend cannot do it."""
        stack, hypothetical = STACKS[config.device.driver], config.run.hypothetical
        return policy_named(self.policy, self.lead, stack=stack, hypothetical=hypothetical)


def migrates(config: Config, how: How) -> bool:
    """Does the VM go on on another host?"""
    return config.migration is not None and how.policy not in halves.REGION


def window_key(how: How) -> tuple[bool, str]:
    """What branches of one window have in common."""
    return how.policy in halves.REGION, how.without


LOGS = {'kvm_log', 'vhost_log', 'log_all', 'vring_log'}


def logs_of(config: Config, how: How) -> set[str]:
    """The dirty logs that are on."""
    return LOGS - {how.without} if migrates(config, how) else set()


class Window:
    """A stretch of `steps` steps of a config's run, behind the first `skip` of them."""

    def __init__(self, config: Config, how: How, *, skip: int, steps: int) -> None:
        """`how`: one of those of its branches; they agree in `window_key`."""
        self.config = config
        self.steps = steps
        self.there, self.fresh = config, None
        if migrates(config, how):
            assert config.migration is not None
            check(config, config.migration)
            self.there = destination_of(config)
            self.fresh = build(self.there, costs.of_config(self.there))
        engine, self.phases = prepare_run(config)
        self.pristine = handover.snapshot(engine.machine)
        halves.prepare(switch_on(engine, config, logs=logs_of(config, how)), how.on(config))
        engine.run(engine.env.timeout(1))  # the jobs are started
        self.machine = engine.machine
        for _ in range(skip):
            if int(_calendar(self.machine).min()) < agents.IDLE:
                self._step(self.machine, self._next_slot(self.machine))
        self.machine.dirty_log[:] = 0
        self.machine.vcpu_log[:] = 0
        self.begin = handover.snapshot(self.machine)

    # ---- steps

    def _next_slot(self, machine: Machine) -> int:
        keys = _calendar(machine)
        return int(keys.min()) & agents.SLOT_MASK

    def _step(self, machine: Machine, slot: int) -> int:
        """What an agent does at one cycle; the notices that it leaves."""
        st, key = machine.st, int(_calendar(machine)[slot])
        limit = (key >> agents.SLOT_BITS) + 1
        drive(machine.mem, machine.lines, st, machine.tr, machine.media, slot, limit)
        notices = int(st[int(agents.H_NOTICE)])
        st[int(agents.H_NOTICE)] = 0
        if notices & agents.N_TRACE_FULL:
            machine.grow_trace()
        return notices

    def moments(self, *, orders: bool = False) -> Iterator[Moment]:
        """Behind each step of the window, until the first job is done or nobody wants to run."""
        machine = handover.snapshot(self.begin)
        yield _moment(machine, 0, ())
        for number in range(1, self.steps):
            if orders:
                yield from self._out_of_turn(machine, number - 1)
            if int(_calendar(machine).min()) >= agents.IDLE:
                return
            if self._step(machine, self._next_slot(machine)) & agents.N_JOB_DONE:
                return
            yield _moment(machine, number, ())

    def _out_of_turn(self, machine: Machine, number: int) -> Iterator[Moment]:
        """What comes next in other orders than that of slots."""
        due = tied(machine)
        known = {tuple(due[:length]) for length in range(len(due) + 1)}
        for order in permutations(due):
            for length in range(1, len(due) + 1):
                if order[:length] in known:
                    continue
                known.add(order[:length])
                other = handover.snapshot(machine)
                if not any(self._step(other, slot) & agents.N_JOB_DONE for slot in order[:length]):
                    yield _moment(other, number, order[:length])

    def moment(self, name: str) -> Moment:
        """The one of a name (Moment.name). Errors: KeyError where the window has none such."""
        for found in self.moments(orders='+' in name):
            if found.name == name:
                return found
        raise KeyError(name)


def _calendar(machine: Machine) -> Words:
    due = int(machine.st[int(agents.H_DUE)])
    return machine.st[due : due + len(machine.kinds)]


def tied(machine: Machine) -> tuple[int, ...]:
    """The slots that are due at the next cycle at which anybody is, where they are several."""
    times = _calendar(machine) >> agents.SLOT_BITS
    least = int(times.min())
    slots = np.flatnonzero(times == least)
    if least >= agents.CLOCK_END or slots.size < 2:
        return ()
    return tuple(slots[:TIED_MOST].tolist())


def _moment(machine: Machine, number: int, order: tuple[int, ...]) -> Moment:
    arrays = {name: getattr(machine, name).copy() for name in ARRAYS}
    return Moment(number, order, int(machine.st[int(agents.H_NOW)]), **arrays)


ARRAYS = ('mem', 'lines', 'st', 'tr', 'media')


# ---------------------------------------------------------------------------------- a branch ----


@dataclass
class Branch:
    """What came of one hand-over. `stages`: how far the open requests were when the device was
    stopped (sim.migrate.fate.stages). Times in cycles; `move` is there where it was a migration.
    """

    source: Host
    outcome: str = 'not begun'
    gone_at: int | None = None  # the VM had stopped, and left
    runs_at: int | None = None
    move: Migrating | None = None
    watch: Watch | None = None
    stages: dict[str, int] = field(default_factory=dict)
    machine: Machine | None = None
    rows: Words = field(default_factory=lambda: np.zeros((0, record.ROW_WORDS), np.int64))
    fate: Fate = NO_FATE

    def look(self, watch: Watch) -> None:
        """The device is about to be stopped."""
        self.watch = watch
        self.stages = stages(frame.trace_rows(self.source.control.machine))

    def judge(self, machine: Machine, cpu_hz: int, also: list[str]) -> None:
        """The run has come to rest on a machine."""
        self.machine, self.rows = machine, frame.trace_rows(machine)
        sentences = [
            *(self.watch.found() if self.watch is not None else []),
            *also,
            *invariants.check(machine),
            *stop_stamps.check(machine, self.rows),
            *([] if self.outcome == 'ok' else [self.outcome]),
        ]
        end = self.source.backend
        again = end.left_behind if end.keeps else []
        self.fate = fate_of(self.rows, sentences, cpu_hz, self.gone_at, again)


def branch(window: Window, moment: Moment, how: How) -> Branch:
    """Hand the VM over from a moment of a window, and run on until nobody has anything to do."""
    config, hz = window.config, window.config.host.cpu_hz
    machine = handover.snapshot(window.pristine)
    engine = CompiledEngine(machine, moment.now)
    phases = Phases(engine, config, window.phases)
    host = switch_on(engine, config, logs=logs_of(config, how))
    halves.prepare(host, how.on(config))
    for name in ('mem', 'lines', 'st', 'media'):
        getattr(machine, name)[:] = getattr(moment, name)
    machine.tr = moment.tr.copy()
    made = Branch(host)
    if not migrates(config, how):
        engine.env.process(_stop_and_cont(made, how, config))
        engine.run()
        made.judge(machine, hz, [])
        return made
    assert config.migration is not None
    assert window.fresh is not None
    plan = replace(
        config.migration, policy=how.policy, gap=how.gap, lead=how.lead, without=how.without
    )
    config = replace(config, migration=plan)
    made.move = move = meet(config, engine, phases, host, window.fresh, window.there)
    move.has_sent(window.begin.mem, window.begin.media)
    run_half(move, engine, move.depart())
    carry_over(move).run()
    made.outcome, made.watch, made.stages = move.outcome, move.watch, move.stages
    made.gone_at = None if move.departure is None else move.departure.at
    made.runs_at = move.resumed_at
    made.judge(result_machine(move), hz, [*move.sentences, *ownership(move)])
    return made


def _stop_and_cont(made: Branch, how: How, config: Config) -> Action:
    """The VM stops, and goes on on the same host."""
    host, policy, hz = made.source, how.on(config), config.host.cpu_hz
    try:
        yield from halves.lead_in(host, policy)
        yield from host.control.pay(int(ns_to_cycles(how.lead, hz)))
        gap = int(ns_to_cycles(how.gap, hz))
        watch = yield from halves.stop_half(host, policy, gap=gap, look=made.look)
        made.gone_at = host.control.now
        yield from halves.start_half(host, policy, watch)
    except VmExitError as end:
        made.outcome = f'QEMU exits: {end}'
    else:
        made.outcome, made.runs_at = 'ok', host.control.now
