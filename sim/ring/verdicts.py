"""What is wrong with a ring, by name: the verdicts of sim.vring and who reacts how.

A device returns the errno from `fetch` or `device_init`; the verdict itself stands in its private
state, with a counter for each. The reactions differ by whose code the device is:

    kernel   vq_err(): the errno; last_avail stays, so the queue is stuck on this head until it is
             reset, and notifications stay off
    qemu     virtio_error(): the device is broken and takes nothing any more; with VERSION_1 it
             raises DEVICE_NEEDS_RESET. Packed rings react so under either personality
    driver   BAD_RING(): the ring is broken, get_buf gives nothing, add answers EIO
"""

import errno
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sim.ring import common

STUCK, BROKEN, ACCEPTS, RING_BROKEN, SILENT = (
    'stuck',
    'broken',
    'accepts it',
    'ring broken',
    'never starts',
)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One way in which a ring can be wrong."""

    number: int
    name: str
    meaning: str
    kernel: str | None  # reaction, None: this side never finds it
    qemu: str | None
    driver: str | None = None

    @property
    def errno_name(self) -> str:
        """The errno that the kernel's vhost answers with; empty if it is not the kernel's."""
        if self.kernel not in (STUCK, SILENT):
            return ''
        return errno.errorcode[-common.errno_of(self.number)]


def _device(name: str, meaning: str, kernel: str = STUCK, qemu: str = BROKEN) -> Verdict:
    number = common.VERDICTS.index(name)
    return Verdict(number=number, name=name, meaning=meaning, kernel=kernel, qemu=qemu)


def _driver(name: str, meaning: str) -> Verdict:
    number = common.VERDICTS.index(name)
    return Verdict(
        number=number, name=name, meaning=meaning, kernel=None, qemu=None, driver=RING_BROKEN
    )


TABLE = (
    _device('BAD_RING_SIZE', 'no ring has this many entries', SILENT, SILENT),
    _device('BAD_RING_ALIGNMENT', 'a part of the ring is not aligned', SILENT, SILENT),
    _device('BAD_RING_ADDRESS', 'a part of the ring lies outside memory', SILENT, SILENT),
    _device('BAD_BASE', 'no ring can go on from this index', SILENT, SILENT),
    _device('BAD_AVAIL_INDEX', 'avail.idx is more than the ring ahead', STUCK, ACCEPTS),
    _device('BAD_HEAD', 'the head is beyond the descriptor table'),
    _device('BAD_NEXT', 'a chain goes on beyond its table'),
    _device('LOOP', 'the chain has more descriptors than its table'),
    _device('BAD_ORDER', 'a readable buffer behind a writable one'),
    _device('NESTED_TABLE', 'an indirect table inside an indirect table', STUCK, ACCEPTS),
    _device('BAD_TABLE_LENGTH', 'the length of an indirect table is no multiple of 16'),
    _device('TABLE_TOO_LONG', 'an indirect table of more than 65536 entries', STUCK, ACCEPTS),
    _device('BAD_TABLE_ADDRESS', 'an indirect table outside memory'),
    _device('BAD_BUFFER_ADDRESS', 'a buffer outside memory'),
    _device('TOO_MANY_BUFFERS', 'more than 1024 buffers in a chain'),
    _device('ZERO_LENGTH', 'a buffer of no bytes', ACCEPTS, BROKEN),
    _device('TOO_MANY_IN_FLIGHT', 'more buffers published than the ring has', ACCEPTS, BROKEN),
    _device('BAD_BUFFER_ID', 'a packed buffer id beyond the ring', ACCEPTS, BROKEN),
    _device('NOT_IN_FLIGHT', 'the device gives back what it does not hold', ACCEPTS, ACCEPTS),
    _driver('USED_ID_RANGE', 'the device used an id beyond the ring'),
    _driver('USED_NOT_A_HEAD', 'the device used an id that is not in flight'),
)
BY_NAME = {verdict.name: verdict for verdict in TABLE}


def device_verdict(st: np.ndarray, v: int) -> str:
    """Name of the last verdict of the device whose state begins at `v`; SOUND if there is none."""
    return common.VERDICTS[int(st[int(v) + int(common.V_VERDICT)])]


def driver_verdict(st: np.ndarray, d: int) -> str:
    """Name of the last verdict of the driver whose state begins at `d`; SOUND if there is none."""
    return common.VERDICTS[int(st[int(d) + int(common.D_VERDICT)])]


def device_counts(st: np.ndarray, v: int) -> dict[str, int]:
    """How often the device met each verdict, those it never met left out."""
    return _counts(st[int(v) + int(common.V_VERDICTS) :])


def driver_counts(st: np.ndarray, d: int) -> dict[str, int]:
    """How often the driver met each verdict, those it never met left out."""
    return _counts(st[int(d) + int(common.D_VERDICTS) :])


def _counts(words: Sequence[int] | np.ndarray) -> dict[str, int]:
    return {name: int(count) for name, count in zip(common.VERDICTS, words) if count}
