"""A disk without the virtio path: a closed loop of commands straight into the medium.

What a published measurement on bare metal is held against. The host is a constant time per request
between a completion and the next command (`host_ns`: fio, system calls and block layer), a delay
and no queue; everything behind it is the disk of [target].
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim import rng
from sim.agents import H_DUE, LOG_TABLE, NEVER, WORLD_WORDS
from sim.disks import fields, medium
from sim.disks.build import DiskPlan
from sim.disks.events import due
from sim.formats.disk_keys import Target
from sim.jit import kernel
from sim.rng import below
from sim.se_cmd import OP_FLUSH, OP_READ, OP_WRITE, X_BLOCKS, X_DATA, X_LBA, X_OP
from sim.units import ns_to_cycles

u64 = np.uint64
HZ = 2_600_000_000
SECTOR = 512

Words = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Alone:
    """What the host saw: per command, in order of completion, cycles of an HZ clock.

    `ops` are OP_READ, OP_WRITE, OP_FLUSH of sim.se_cmd.
    """

    issued: Words
    done: Words
    ops: Words
    disk: Words  # the disk's stretch afterwards
    state: Words

    @property
    def latency_us(self) -> npt.NDArray[np.float64]:
        """From the command's arrival at the disk to its completion."""
        return (self.done - self.issued) / (HZ / 1e6)

    @property
    def iops(self) -> float:
        """Completions per second, from the second eighth of the run on."""
        return self.iops_from(len(self.done) // 8)

    def iops_from(self, skip: int) -> float:
        """Completions per second behind the first `skip`."""
        span = self.done[-1] - self.done[skip]
        return float((len(self.done) - 1 - skip) / span * HZ) if span else 0.0


def alone(
    target: Target,
    *,
    depth: int,
    requests: int,
    rw: str = 'randread',
    rwmixread: int = 50,
    bs: int = 4096,
    size: int | None = None,
    host_ns: int = 0,
    flush_every: int = 0,
    seed: int = 1,
) -> Alone:
    """`depth` commands in flight until `requests` are done.

    `rw` and `rwmixread` as in fio, without a random map; `size` is the part of the LUN that is
    used; after `flush_every` writes the next command is a flush.
    """
    words = WORLD_WORDS
    writes: list[tuple[int, int]] = []

    def take(count: int) -> int:
        nonlocal words
        words += count
        return words - count

    base = take(fields.DISK_WORDS)
    plan = DiskPlan(
        take, lambda at, name, value: writes.append((at + name, value)), base, target,
        hz=HZ, seed=seed,
    )  # fmt: skip
    plan.write(commands=depth, null_service=0)
    due_words, commands = take(1), take(int(X_DATA) * depth)
    st = np.zeros(words, dtype=np.int64)
    for offset, value in writes:
        st[offset] = value
    st[int(H_DUE)] = due_words  # holds 0, so that nobody is ever woken: the loop asks the disk
    st[LOG_TABLE : LOG_TABLE + 1025] = rng.log_table()
    writes_percent = {'read': 0, 'write': 100}.get(rw.removeprefix('rand'), 100 - rwmixread)
    work = (
        rng.stream_key(seed, 'alone'), int(rw.startswith('rand')), writes_percent, bs // SECTOR,
        (size or target.size) // bs, int(ns_to_cycles(host_ns, HZ)), flush_every,
    )  # fmt: skip
    out = np.zeros((requests, 3), dtype=np.int64)
    ring, ready = np.arange(depth), np.zeros((2, depth), dtype=np.int64)
    done = closed_loop(st, u64(base), u64(commands), ring, ready, np.array(work), out)
    assert done == requests or target.stuck_at, f'the disk forgot {requests - done} commands'
    return Alone(
        issued=out[:, 0], done=out[:, 1], ops=out[:, 2],
        disk=st[base : base + fields.DISK_WORDS], state=st,
    )  # fmt: skip


@kernel
def closed_loop(st, disk, commands, ring, ready, work, out):
    """Give every command again `host` cycles after it was done.

    `ring` holds the commands that wait for it, in order of time; `ready` when each may go and when
    it went; `work` the key of the places, random?, percent of writes, blocks, region in requests,
    host, flush_every. A row of `out` is issue, completion, operation. Returns how many are done.
    """
    depth, requests = len(ring), len(out)
    head, count, issued, done, unflushed = 0, depth, 0, 0, 0
    while done < requests:
        soon = due(st, disk)
        index = ring[u64(head)]
        if count and issued < requests and ready[u64(0), u64(index)] <= soon:
            head, count = (head + 1) % depth, count - 1
            x = commands + u64(index) * X_DATA
            now = ready[u64(0), u64(index)]
            ready[u64(1), u64(index)] = now
            if work[u64(6)] and unflushed >= work[u64(6)]:
                st[x + X_OP], st[x + X_BLOCKS], unflushed = OP_FLUSH, 0, 0
            else:
                _place(st, x, issued, work)
                unflushed += 1 if st[x + X_OP] == OP_WRITE else 0
            medium.accept(st, disk, x, now)
            issued += 1
        elif soon >= NEVER:
            break
        else:
            command = medium.step(st, disk, soon)
            if command >= 0:
                index = (command - np.int64(commands)) // np.int64(X_DATA)
                out[u64(done), u64(0)] = ready[u64(1), u64(index)]
                out[u64(done), u64(1)] = soon
                out[u64(done), u64(2)] = st[u64(command) + X_OP]
                ready[u64(0), u64(index)] = soon + work[u64(5)]
                ring[u64((head + count) % depth)] = index
                done, count = done + 1, count + 1
    return done


@kernel
def _place(st, x, number, work):
    """Where the request with this number goes, and whether it writes."""
    key, region = work[u64(0)], work[u64(4)]
    place = below(key, 2 * number, region) if work[u64(1)] else number % region
    st[x + X_BLOCKS] = work[u64(3)]
    st[x + X_LBA] = place * work[u64(3)]
    write = below(key, 2 * number + 1, 100) < work[u64(2)]
    st[x + X_OP] = OP_WRITE if write else OP_READ
