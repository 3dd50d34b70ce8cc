"""LIO's side of a LUN reset: target_tmr_work(), a process of the control plane.

The vhost worker has parsed the request and leaves it to LIO (N_RESET). LIO aborts every command of
the LUN that it has handed on, waits until the last of them has come back from the disk and been
released, and raises a unit attention. Then vhost-scsi's answer is due:

    6.1            straight to the only worker, whose list holds the commands' answers already
    6.12 and 7.2   another kworker flushes every worker first (vhost_dev_flush), so that the
                   commands' answers are out before the reset's
"""

from collections.abc import Generator
from typing import Any

import numpy as np
import simpy

from sim import agents, backend, guest
from sim.engine import Engine
from sim.record import R_DONE, R_ISSUE, R_REPORT
from sim.se_cmd import X_LEFT, X_LUN, X_NEXT, X_ROW, X_STATUS
from sim.vhost import control_queue as vhost_control
from sim.vhost import scsi as vhost_scsi

u64 = np.uint64
Process = Generator[simpy.Event, Any, None]


class Resets:
    """Does what LIO does of LUN resets; made once per engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.env = engine.env
        self.machine = engine.machine
        self.vhost = u64(self.machine.vhost)
        self.hop = int(self.machine.costs.lio_hop)
        self.waiting: list[tuple[int, simpy.Event]] = []  # resets whose aborted commands are out
        self.flushing: list[tuple[u64, int, simpy.Event]] = []  # worker, count of its flush works
        engine.listeners.append(self.notice)

    def notice(self, bits: int) -> None:
        """The model has left word: a reset begins, one is waited for no more, a flush has run."""
        st = self.machine.st
        if bits & agents.N_RESET:
            x = int(st[self.vhost + vhost_scsi.S_RESETS])
            st[self.vhost + vhost_scsi.S_RESETS] = -1
            while x >= 0:
                self.env.process(self.life(u64(x)))
                x = int(st[u64(x) + X_NEXT])
            self.waiting = [wait for wait in self.waiting if not self.ended(*wait)]
        if bits & agents.N_FLUSHED:
            self.flushing = [flush for flush in self.flushing if not self.flushed(*flush)]

    def ended(self, x: int, event: simpy.Event) -> bool:
        """Is the last aborted command released? Then whoever waits goes on."""
        if self.machine.st[u64(x) + X_LEFT]:
            return False
        event.succeed()
        return True

    def flushed(self, worker: u64, count: int, event: simpy.Event) -> bool:
        """Has a worker run the flush work with this number? Then whoever waits goes on."""
        if self.machine.st[worker + backend.B_FLUSHED] < count:
            return False
        event.succeed()
        return True

    def life(self, x: u64) -> Process:
        """From schedule_work() in target_submit_tmr() to the answer's place in a worker's list."""
        st, env = self.machine.st, self.env
        yield env.timeout(self.hop)
        self.stamp(x, R_ISSUE)
        if st[x + X_LUN]:
            yield from self.abort(x)
        st[x + X_STATUS] = vhost_control.reset(st, st[x + X_LUN])
        self.stamp(x, R_DONE)
        bugs = int(st[self.vhost + vhost_scsi.S_BUGS])
        old = int(st[self.vhost + vhost_scsi.S_KERNEL]) < 612
        if not old and not bugs & vhost_scsi.TMF_NO_FLUSH:
            yield env.timeout(self.hop)  # vhost_scsi_tmf_flush_work(), on a kworker of its own
            yield from self.flush()
        self.stamp(x, R_REPORT)
        backend.finish_reset(st, x, env.now)
        self.engine.wake_agents()

    def abort(self, x: u64) -> Process:
        """core_tmr_lun_reset(): abort the LUN's commands and wait for each (target_put_cmd...)."""
        st = self.machine.st
        for q, g in zip(self.machine.host_queues, self.machine.guest_queues, strict=True):
            commands = int(st[q + int(backend.Q_COMMANDS)])
            stride = int(st[q + int(backend.Q_COMMAND_WORDS)])
            vhost_control.abort(st, x, commands, stride, int(st[g + int(guest.G_NUM)]))
        if st[x + X_LEFT]:
            event = simpy.Event(self.env)
            self.waiting.append((int(x), event))
            yield event
            yield self.env.timeout(self.hop)  # the kworker was asleep in wait_for_completion()

    def flush(self) -> Process:
        """vhost_dev_flush(): one worker after the other runs all that is in its list now."""
        st = self.machine.st
        for slot in self.machine.slots_of(agents.WORKER):
            worker = u64(self.machine.bases[slot])
            count = int(backend.queue_flush(st, worker, self.env.now))
            self.engine.wake_agents()
            event = simpy.Event(self.env)
            self.flushing.append((worker, count, event))
            yield event

    def stamp(self, x: u64, place: u64) -> None:
        """Write a timestamp of the task's row."""
        self.machine.tr[u64(self.machine.st[x + X_ROW]) + place] = int(self.env.now) + 1
