"""The data buffer of a command: bytes 0, 1, 2 ... over guest memory in pieces.

Writes end at the command's data length (X_LENGTH): what LIO would cut off is never written. Nor is
a buffer that the device may only read, which LIO does not look at: answering, say, an INQUIRY that
has data-out, it writes over them.
"""

import numpy as np

from sim.jit import kernel
from sim.layout import PAGE_SIZE
from sim.lio.command import ONE, TWO
from sim.memory import store64
from sim.se_cmd import FROM_DEVICE, X_DATA, X_DIRECTION, X_LENGTH, X_SEGMENTS

u64 = np.uint64


@kernel
def locate(st, x, offset):
    """Guest address of byte `offset` of the data, -1 behind the last segment."""
    at = x + X_DATA
    for _ in range(st[x + X_SEGMENTS]):
        if offset < st[at + ONE]:
            return st[at] + offset
        offset -= st[at + ONE]
        at += TWO
    return np.int64(-1)


@kernel
def put(mem, st, x, offset, size, value):
    """Write a big-endian field of data-in, as far as the data length goes."""
    if st[x + X_DIRECTION] != FROM_DEVICE:
        return
    for i in range(size):
        if offset + i < st[x + X_LENGTH]:
            at = locate(st, x, offset + i)
            if at >= 0:
                mem[u64(at)] = (value >> (8 * (size - 1 - i))) & 0xFF


@kernel
def get(mem, st, x, offset, size):
    """Read a big-endian field; bytes behind the last segment are zero."""
    value = np.int64(0)
    for i in range(size):
        at = locate(st, x, offset + i)
        value = value << 8
        if at >= 0:
            value |= np.int64(mem[u64(at)])
    return value


@kernel
def rom_byte(st, base, index):
    """Byte `index` of constant bytes that begin at word `base`."""
    return (st[u64(base) + (u64(index) >> u64(3))] >> (8 * (index & 7))) & 0xFF


@kernel
def put_rom(mem, st, x, offset, base, size):
    """Copy constant bytes into the data."""
    for i in range(size):
        put(mem, st, x, offset + i, 1, rom_byte(st, base, i))


@kernel
def get64(mem, st, x, offset):
    """A little-endian word of the data: the stamp of a block."""
    value = np.int64(0)
    for i in range(8):
        at = locate(st, x, offset + i)
        if at >= 0:
            value |= np.int64(mem[u64(at)]) << (8 * i)
    return value


@kernel
def put64(mem, st, x, offset, value):
    """Write a little-endian word, across segments if need be."""
    for i in range(8):
        at = locate(st, x, offset + i)
        if at >= 0:
            mem[u64(at)] = (value >> (8 * i)) & 0xFF


@kernel
def clear_first(mem, st, x):
    """__target_submit(): the first page's share of a buffer that takes emulated data is zeroed."""
    if st[x + X_SEGMENTS] == 0:
        return
    at, size = st[x + X_DATA], st[x + X_DATA + ONE]
    size = min(size, PAGE_SIZE - at % PAGE_SIZE)
    end = at + size
    while at + 8 <= end:
        store64(mem, u64(at), 0)
        at += 8
    while at < end:
        mem[u64(at)] = 0
        at += 1


@kernel
def pages(st, x):
    """Into how many scatterlist entries of one page each vhost-scsi maps the data."""
    count = 0
    at = x + X_DATA
    for _ in range(st[x + X_SEGMENTS]):
        count += (st[at] % PAGE_SIZE + st[at + ONE] + PAGE_SIZE - 1) // PAGE_SIZE
        at += TWO
    return count
