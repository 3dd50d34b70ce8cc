"""SPDK's end of a vhost-user socket: a session, which the reactor serves while it runs.

lib/vhost/rte_vhost_user.c and vhost_scsi.c. Messages are taken by a thread of their own; the
reactor is told of the session's begin and end between two rounds.

    begin      all rings enabled: vhost_scsi_start, the reactor polls them from the next round on,
               and so finds whatever stands in them, kicked for or not
    end        GET_VRING_BASE of whichever queue comes first: vhost_scsi_stop, no ring is polled any
               more; the stop poller looks once a millisecond whether a task is left. SPDK gives up
               after 4000 looks (SPDK_VHOST_SESSION_STOP_RETRY_TIMEOUT_IN_SEC; policy `timeout`)

A message takes QEMU `control.message`, one with a reply `control.reply` more. A refusal has no
errno: SPDK closes the connection, here -EPROTO.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from sim import agents, backend, features, vring
from sim.control.clock import Action, Call, Control
from sim.layout import ENOBUFS, EVENT_F_DISABLE, EVENT_FLAGS, USED_F_NO_NOTIFY
from sim.se_cmd import LEFT_BEHIND, X_INFLIGHT, X_TAG
from sim.user import fields
from sim.user.scsi import Q_TASKS
from sim.vhost import scsi as vhost_scsi
from sim.vhost.end import BackendEnd
from sim.vhost.file import ENOTTY, VRING_F_LOG, EventFd, Vq

u64 = np.uint64

EPROTO = -71


class UserEnd(BackendEnd):
    """What the two threads of user space have in common: their tasks, and how one is told."""

    def __init__(self, control: Control) -> None:
        super().__init__(control)
        kinds, bases = self.machine.kinds, self.machine.bases
        slot = next(slot for slot, kind in enumerate(kinds) if kind in agents.THREAD_KINDS)
        self.thread = u64(bases[slot])
        for q in self.queues().values():
            self.st[q + int(backend.Q_BACKEND)] = 0

    def commands_out(self, index: int) -> list[int]:
        """Tasks that are out."""
        st = self.st
        taken = [x for x in self.pool(index) if st[x + int(X_INFLIGHT)]]
        return [x for x in taken if st[x + int(X_TAG)] != LEFT_BEHIND]

    def put_out(self, index: int, x: int) -> None:
        """The queue does not count it any more."""
        self.st[self.queues()[index] + int(Q_TASKS)] -= 1

    def tasks(self) -> int:
        """How many tasks the thread has."""
        return sum(int(self.st[q + int(Q_TASKS)]) for q in self.queues().values())

    def halt(self) -> Action:
        """The thread serves its virtqueues no more, once it has come to where it can be told."""
        st, control = self.st, self.control
        if 'detach' not in self.without and not control.instant:
            st[self.thread + fields.T_STOP] = fields.ASKED
            self.rouse()
            while st[self.thread + fields.T_STOP] != fields.STANDS:
                yield control.notice(agents.N_STOPPED)
        self.detached = dict.fromkeys(self.queues(), control.now)
        for q in self.queues().values():
            st[q + int(backend.Q_BACKEND)] = 0

    def go_on(self) -> None:
        """It serves them again."""
        self.st[self.thread + fields.T_STOP] = fields.RUNS
        for q in self.queues().values():
            self.st[q + int(backend.Q_BACKEND)] = 1
        if not self.control.instant:
            self.rouse()

    def rouse(self) -> None:
        """Something has come for the thread."""
        fields.rouse(self.st, self.thread, self.control.now)
        agents.ring(self.st, self.thread + fields.T_BELL, self.control.now)
        self.control.engine.wake_agents()


class VhostUser(UserEnd):
    """A vhost-user connection and its session.

    `offered`: what GET_FEATURES says. `running`: the session runs.
    """

    def __init__(self, control: Control, *, offered: int) -> None:
        super().__init__(control)
        self.offered = offered
        self.acked = 0
        self.running = False
        self.vqs = [Vq() for _ in self.queues()]
        self.enabled: set[int] = set()

    def close(self) -> None:
        """QEMU closes its end of the socket: the session forgets its queues."""
        self.acked = 0
        self.vqs = [Vq() for _ in self.vqs]
        self.enabled.clear()

    # ---- messages

    def _message(
        self, name: str, act: Callable[[], Any], *, reply: bool = False, **arguments: Any
    ) -> Action:
        """One message; `act` does what it asks for and answers, or is an action that does."""
        control, began = self.control, self.control.now
        yield from control.pay(control.costs.message)
        answer = act()
        if not isinstance(answer, int | dict):
            answer = yield from answer
        if reply:
            yield from control.pay(control.costs.reply)
        found = answer if isinstance(answer, int) and answer < 0 else 0
        if isinstance(answer, dict):
            arguments |= answer
        control.calls.append(
            Call(
                time=began, name=name, arguments=arguments, answer=found,
                duration=control.now - began,
            )
        )  # fmt: skip
        return answer

    def _vring(self, name: str, index: int, act: Callable[[Vq], Any], **arguments: Any) -> Action:
        """A message about one queue."""

        def body() -> Any:
            return act(self.vqs[index]) if index < len(self.vqs) else ENOBUFS

        return self._message(f'VHOST_USER_{name}', body, index=index, **arguments)

    def set_owner(self) -> Action:
        """VHOST_USER_SET_OWNER."""
        return self._message('VHOST_USER_SET_OWNER', lambda: 0)

    def get_features(self) -> Action:
        """VHOST_USER_GET_FEATURES: {'features': bits}."""
        return self._message(
            'VHOST_USER_GET_FEATURES', lambda: {'features': self.offered}, reply=True
        )

    def get_protocol_features(self) -> Action:
        """VHOST_USER_GET_PROTOCOL_FEATURES."""
        return self._message('VHOST_USER_GET_PROTOCOL_FEATURES', lambda: 0, reply=True)

    def set_protocol_features(self) -> Action:
        """VHOST_USER_SET_PROTOCOL_FEATURES."""
        return self._message('VHOST_USER_SET_PROTOCOL_FEATURES', lambda: 0)

    def get_queue_num(self) -> Action:
        """VHOST_USER_GET_QUEUE_NUM: {'num': queues}."""
        return self._message('VHOST_USER_GET_QUEUE_NUM', lambda: {'num': len(self.vqs)}, reply=True)

    def set_features(self, wanted: int) -> Action:
        """VHOST_USER_SET_FEATURES."""

        def act() -> int:
            if wanted & ~self.offered:
                return EPROTO
            self.acked = wanted
            logs = wanted >> features.LOG_ALL & 1
            for q in self.queues().values():
                self.st[q + int(backend.Q_LOG_ALL)] = logs
            return 0

        return self._message('VHOST_USER_SET_FEATURES', act, features=wanted)

    def set_mem_table(self, regions: int) -> Action:
        """VHOST_USER_SET_MEM_TABLE."""
        return self._message('VHOST_USER_SET_MEM_TABLE', lambda: 0, reply=True, nregions=regions)

    def set_log_base(self, log: object) -> Action:
        """VHOST_USER_SET_LOG_BASE: the bitmap is shared memory."""

        def act() -> int:
            at = 0 if log is None else self.machine.log
            self.st[self.machine.vhost + int(vhost_scsi.S_LOG)] = at
            return 0

        return self._message('VHOST_USER_SET_LOG_BASE', act, reply=True)

    def new_worker(self) -> Action:
        """There is no such message."""
        yield from ()
        return ENOTTY

    def attach_vring_worker(self, index: int, worker: int) -> Action:
        """There is no such message."""
        yield from ()
        return ENOTTY

    def unknown(self, name: str, first_word: int) -> Action:
        """What QEMU asks the kernel for only."""
        yield from ()
        return ENOTTY

    # ---- rings

    def set_vring_num(self, index: int, num: int) -> Action:
        """VHOST_USER_SET_VRING_NUM."""

        def act(vq: Vq) -> int:
            vq.num = num
            return 0

        return self._vring('SET_VRING_NUM', index, act, num=num)

    def set_vring_base(self, index: int, num: int) -> Action:
        """VHOST_USER_SET_VRING_BASE."""

        def act(vq: Vq) -> int:
            vq.base = num
            return 0

        return self._vring('SET_VRING_BASE', index, act, num=num)

    def set_vring_addr(
        self, index: int, *, flags: int, desc: int, avail: int, used: int, log: int
    ) -> Action:
        """VHOST_USER_SET_VRING_ADDR."""

        def act(vq: Vq) -> int:
            vq.flags, vq.desc, vq.avail, vq.used, vq.log = flags, desc, avail, used, log
            q = self.queues()[index]
            self.st[q + int(backend.Q_LOG)] = log if flags & VRING_F_LOG else 0
            return 0

        return self._vring('SET_VRING_ADDR', index, act, flags=flags, log=log)

    def set_vring_kick(self, index: int, fd: EventFd | None) -> Action:
        """VHOST_USER_SET_VRING_KICK; nobody reads the eventfd."""

        def act(vq: Vq) -> int:
            vq.kick = fd
            return 0

        return self._vring('SET_VRING_KICK', index, act)

    def set_vring_call(self, index: int, fd: EventFd | None) -> Action:
        """VHOST_USER_SET_VRING_CALL."""

        def act(vq: Vq) -> int:
            vq.call = fd
            return 0

        return self._vring('SET_VRING_CALL', index, act)

    def set_vring_err(self, index: int, fd: EventFd | None) -> Action:
        """VHOST_USER_SET_VRING_ERR."""

        def act(vq: Vq) -> int:
            vq.err = fd
            return 0

        return self._vring('SET_VRING_ERR', index, act)

    def set_vring_enable(self, index: int, on: bool) -> Action:
        """VHOST_USER_SET_VRING_ENABLE: with the last of the rings the session begins."""

        def act(vq: Vq) -> int:
            (self.enabled.add if on else self.enabled.discard)(index)
            ready = {place for place, vq in enumerate(self.vqs) if vq.is_set_up}
            if on and not self.running and ready <= self.enabled:
                self._begin()
            return 0

        return self._vring('SET_VRING_ENABLE', index, act, num=int(on))

    def get_inflight_fd(self, regions: list[bytes] | None) -> Action:
        """Hypothetical, VHOST_USER_GET_INFLIGHT_FD: the backend makes the regions."""

        def act() -> int:
            self.agree_on_regions(regions, self.acked)
            return 0

        return self._message('VHOST_USER_GET_INFLIGHT_FD', act, reply=True)

    def set_inflight_fd(self, regions: list[bytes]) -> Action:
        """Hypothetical, VHOST_USER_SET_INFLIGHT_FD: regions of a backend before this one."""

        def act() -> int:
            self.agree_on_regions(regions, self.acked)
            return 0

        return self._message('VHOST_USER_SET_INFLIGHT_FD', act)

    def get_vring_base(self, index: int) -> Action:
        """VHOST_USER_GET_VRING_BASE: {'num': base}; the first one ends the session."""

        def body() -> Action:
            if index >= len(self.vqs):
                return ENOBUFS
            if self.running:
                yield from self._end()
            if self.vqs[index].is_set_up:
                self.vqs[index].base = self.base_of(index)
            return {'num': self.vqs[index].base}

        return self._message('VHOST_USER_GET_VRING_BASE', body, reply=True, index=index)

    # ---- the session

    def _begin(self) -> None:
        """vhost_scsi_start()."""
        st, mem = self.st, self.machine.mem
        for index, vq in enumerate(self.vqs):
            if not vq.is_set_up:
                continue
            v = int(st[self.queues()[index] + int(backend.Q_DEVICE)])
            st[v + int(vring.V_USED_FLAGS)] = USED_F_NO_NOTIFY  # no kicks: it polls
            if self.acked >> features.RING_PACKED & 1:
                mem[vq.used + int(EVENT_FLAGS)] = EVENT_F_DISABLE
            self.take_ring(index, (vq.num, vq.desc, vq.avail, vq.used), self.acked, vq.base)
        self.running = True
        self.gated = False
        self.go_on()

    def _end(self) -> Action:
        """vhost_scsi_stop(), until the stop poller finds no task any more."""
        if not self.gated:
            yield from self.halt()
        if 'flush' not in self.without:
            before = self.control.enter_within('drain')
            if self.keeps:
                self.leave_behind(cancel='cancel' not in self.without)
            yield from self._poll()
            self.control.enter_within(before)
        self.running = False
        self._left_alone()

    def _poll(self) -> Action:
        """destroy_session_poller_cb(). Where nothing ever happens again it looks no more either."""
        period = self.control.costs.stop_poll
        until = None if self.patience is None else self.control.now + self.patience
        while self.tasks():
            if until is None and self.control.nothing_moves():
                yield self.control.env.event()
            yield from self.control.pay(period)
            if until is not None and self.control.now >= until and self.tasks():
                self.leave_behind(cancel=False)

    def gate(self) -> Action:
        """Hypothetical: the end of the session up to its drain, while the vCPUs run on."""
        yield from self.halt()
        yield from self._poll()
        self.gated = True
