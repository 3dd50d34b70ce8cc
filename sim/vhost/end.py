"""The backend's end of a device, as a stop sees it: the kernel's, SPDK's, QEMU's own.

What the three have in common: which requests they have, how a ring is taken up and where it stands,
the in-flight region, and what becomes of requests that a stop does not wait for. Those are *left
behind*: their commands stay with the disk, nobody answers them, and the next start has commands of
its own. Cancelled ones move no data any more either.
"""

from collections.abc import Callable

import numpy as np

from sim import backend, features, record, recorder, scsi, vring
from sim.control.clock import Action, Control
from sim.errors import ConfigError
from sim.layout import VQ_REQUEST_FIRST
from sim.se_cmd import LEFT_BEHIND, X_ROW, X_STATUS, X_TAG
from sim.vhost import inflight

u64 = np.uint64


class BackendEnd:
    """One backend on a machine.

    `without` names mechanisms of its stop that are left out, to see what they are good for:
    'detach' (the queues go on being served), 'flush' (nobody waits) and 'cancel' (what is left
    behind is still performed). `patience`: cycles after which it waits no longer, None: for ever.
    `keeps`: it waits for nothing, the in-flight region says what is out. `detached`: when each
    queue was to stop. `on_cleared` is called when the stop has come to where guest memory must be
    left alone.
    """

    def __init__(self, control: Control) -> None:
        self.control = control
        self.machine = control.machine
        self.st = control.machine.st
        self.without: frozenset[str] = frozenset()
        self.patience: int | None = None
        self.keeps = False
        self.gated = False
        self.detached: dict[int, int] = {}
        self.on_cleared: Callable[[], None] | None = None
        self.left_behind: list[int] = []  # serials
        self.withdrawn = False  # and the disks will not perform them
        self.performed = 0  # of those, how many they had by then
        self._spent: set[int] = set()  # queues whose commands are no use any more
        self._second: set[int] = set()  # queues that have gone over to their second ones
        self._again: dict[int, list[int]] = {}  # heads to be submitted again

    def gate(self) -> Action:
        """Serve the queues no more and wait for what is in flight, while the vCPUs run on."""
        raise NotImplementedError

    def commands_out(self, index: int) -> list[int]:
        """Offsets of the commands of a queue that are fetched and not answered."""
        raise NotImplementedError

    # ---- queues

    def queues(self) -> dict[int, int]:
        """Base of the host side of each queue that the machine has, by index."""
        return dict(enumerate(self.machine.host_vqs))

    def in_flight(self) -> int:
        """Requests that the backend has fetched and not answered."""
        return sum(len(self.commands_out(index)) for index in self._request_queues())

    def _request_queues(self) -> list[int]:
        return [index for index in self.queues() if index >= VQ_REQUEST_FIRST]

    def pool(self, index: int) -> range:
        """Offsets of the commands that a queue uses, without the spare one."""
        q = self.queues()[index]
        first = int(self.st[q + int(backend.Q_COMMANDS)])
        words = int(self.st[q + int(backend.Q_COMMAND_WORDS)])
        return range(first, first + words * int(self.st[q + int(backend.Q_TAGS)]), words)

    def base_of(self, index: int) -> int:
        """Where the backend stands in a ring, as GET_VRING_BASE says it."""
        v = int(self.st[self.queues()[index] + int(backend.Q_DEVICE)])

        def word(name: np.uint64) -> int:
            return int(self.st[v + int(name)])

        base = word(vring.V_LAST_AVAIL)
        if word(vring.V_PACKED):
            base |= word(vring.V_AVAIL_WRAP) << 15
            base |= (word(vring.V_LAST_USED) | word(vring.V_USED_WRAP) << 15) << 16
        return base

    def take_ring(
        self,
        index: int,
        ring: tuple[int, int, int, int],
        acked: int,
        base: int,
        personality: int = vring.KERNEL_VHOST,
    ) -> None:
        """Take up a ring: num, descriptors, driver area, device area; counters go on."""
        st, q = self.st, self.queues()[index]
        v = int(st[q + int(backend.Q_DEVICE)])
        seen = slice(v + int(vring.V_VERDICT), v + int(vring.V_TABLE))
        counters = st[seen].copy()
        vring.device_init(self.machine.mem, st, u64(v), *ring, acked, base, personality)
        st[seen] = counters
        self._check_inflights(index, ring[3])
        self._fresh_commands(index)
        st[q + int(backend.Q_BACKEND)] = 1

    # ---- what a stop does not wait for

    def leave_behind(self, *, cancel: bool) -> None:
        """Nobody waits any longer for what is in flight."""
        self.withdrawn = cancel
        st, machine = self.st, self.machine
        for index in self._request_queues():
            for x in self.commands_out(index):
                st[x + int(X_TAG)] = LEFT_BEHIND
                row = int(st[x + int(X_ROW)])
                self.left_behind.append(int(machine.tr[row + int(record.R_SERIAL)]))
                self.put_out(index, x)
                if cancel:
                    self.performed += int(machine.tr[row + int(record.R_DISK_ORDER)] > 0)
                    st[x + int(X_STATUS)] = scsi.TASK_ABORTED
                    st[x + int(X_ROW)] = int(machine.tr[int(recorder.T_SCRATCH)])
                self._spent.add(index)

    def _left_alone(self) -> None:
        """From here on guest memory must be left alone."""
        if self.on_cleared is not None:
            self.on_cleared()
            self.on_cleared = None

    def put_out(self, index: int, x: int) -> None:
        """A command counts as in flight no more."""
        raise NotImplementedError

    def _fresh_commands(self, index: int) -> None:
        """A start over requests left behind has commands of its own, and heads to submit again."""
        st, q = self.st, self.queues()[index]
        if index in self._spent:
            if index in self._second:
                raise ConfigError(
                    'a second stop leaves requests behind, with those of the first still out: once '
                    'only is modelled'
                )
            self._second.add(index)
            self._spent.remove(index)
            pool = self.pool(index)
            other = pool.stop + pool.step  # behind the spare one
            st[q + int(backend.Q_COMMANDS)] = other
            tags = int(st[q + int(backend.Q_TAGS)])
            listed = int(st[q + int(backend.Q_TAG_LIST)])
            st[q + int(backend.Q_TAG_FREE)] = tags
            st[listed : listed + tags] = range(tags - 1, -1, -1)
        heads = self._again.pop(index, [])
        at = int(st[q + int(backend.Q_RESUBMIT_LIST)]) + 1
        st[at : at + len(heads)] = heads[::-1]
        st[q + int(backend.Q_RESUBMITS)] = len(heads)

    # ---- the in-flight region

    def agree_on_regions(self, regions: list[bytes] | None, acked: int) -> None:
        """SET_INFLIGHT_FD: the region of each request queue; None: fresh ones.

        What they say is in flight is submitted again at the start. Errors: ConfigError where a ring
        has no such region here.
        """
        st = self.st
        if acked >> features.RING_PACKED & 1 or acked >> features.IN_ORDER & 1:
            raise ConfigError(
                '--policy inflight: the in-flight region of split virtqueues is modelled, not that '
                'of packed ones nor of those in order; take device.packed and device.in_order out'
            )
        for place, index in enumerate(self._request_queues()):
            q, at = self.queues()[index], self.machine.regions[index]
            num = int(st[q + int(backend.Q_TAGS)])
            region = inflight.empty_region(num, acked) if regions is None else regions[place]
            words = np.frombuffer(region, np.int64)
            if words.size != inflight.region_words(num):
                raise ConfigError(f'the in-flight region of queue {index} is not of {num} entries')
            st[at : at + words.size] = words
            st[q + int(backend.Q_REGION)] = at
            heads = inflight.heads_of(region)
            st[q + int(backend.Q_COUNTER)] = inflight.next_counter(region)
            self._again[index] = heads

    def _check_inflights(self, index: int, used: int) -> None:
        """DPDK's vhost_check_queue_inflights_split(), as the specification asks for it: where the
        region's used_idx is not the ring's, the last batch was not cleared, and is now.

        A region over which nothing has completed yet has 0 for both, whatever the ring says.
        """
        heads, at = self._again.get(index), self.machine.regions[index]
        if not heads:
            return
        header = np.frombuffer(self.st[at : at + 2].tobytes(), inflight.HEADER)[0]
        idx = int.from_bytes(self.machine.mem[used + 2 : used + 4].tobytes(), 'little')
        last = int(header['last_batch_head'])
        if int(header['used_idx']) != idx and last in heads:
            heads.remove(last)
            self.st[at + 2 + 2 * last] &= ~int(inflight.IN_FLIGHT)

    def inflight_regions(self) -> list[bytes]:
        """The in-flight region of each request queue, as its bytes stand in shared memory."""
        found = []
        for index in self._request_queues():
            q, at = self.queues()[index], self.machine.regions[index]
            size = inflight.region_words(int(self.st[q + int(backend.Q_TAGS)]))
            found.append(self.st[at : at + size].tobytes())
        return found

    def recorded(self, index: int) -> set[int]:
        """The heads of a queue that its region has as in flight; none without a region."""
        q = self.queues()[index]
        if not self.st[q + int(backend.Q_REGION)]:
            return set()
        at = self.machine.regions[index]
        size = inflight.region_words(int(self.st[q + int(backend.Q_TAGS)]))
        return set(inflight.heads_of(self.st[at : at + size].tobytes()))
