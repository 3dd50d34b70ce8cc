"""Guest memory as bytes, and who holds which cache line of it.

Guest memory is one uint8 array; a guest-physical address (GPA) is an index into it. Loads and
stores are little-endian and may be unaligned, as on the machines that run this code in life.

Line ownership (the cost model of the rings): every access of a modelled CPU names its core and
pays by the state of the 64-byte line, as in MESI:

    hit       the core holds the line in a state that allows the access
    shared    a load of a line that others hold clean
    transfer  the line must come from, or be taken from, another core
    cold      the first touch of a line by anybody

The directory keeps up to three holders per line (a limited-pointer directory); a fourth reader
displaces the oldest, which then pays `shared` again. Where `lines` is None nothing is charged: the
compiler prunes the call.
"""

from collections.abc import Sequence
from typing import Any

import llvmlite.ir as ir
import numba
import numpy as np
import numpy.typing as npt
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from sim.jit import JIT, kernel

u64 = np.uint64

ONE = u64(1)
LINE_SHIFT = u64(6)

# The head of the `lines` array: four prices in cycles, where the line entries begin, then five
# words per core.
L_HIT = u64(0)
L_SHARED = u64(1)
L_TRANSFER = u64(2)
L_COLD = u64(3)
L_ENTRIES = u64(4)
L_CORES = u64(5)
CORE_WORDS = u64(5)
C_PAID = u64(0)  # cycles up to the last take_cycles()
C_HITS = u64(1)
C_SHARED = u64(2)
C_TRANSFERS = u64(3)  # transfers and first touches
C_COLD = u64(4)  # first touches

# A line entry: three holders (core + 1, 0 is nobody) of 16 bits, oldest last; bit 62 says that the
# first holder has modified the line (it is then the only one).
HOLDER = 0xFFFF
MODIFIED = 1 << 62


def _accessors(bits: int) -> tuple[Any, Any]:
    """An unaligned little-endian load and store of `bits` bits at a byte index, as intrinsics.

    As with plain arrays, bounds are checked when NUMBA_BOUNDSCHECK=1 says so, and only then.
    """
    word = ir.IntType(bits)
    numba_type = getattr(types, f'int{max(bits, 64)}')

    def address(context, builder, signature, args):
        data, index = args[0], args[1]
        if not isinstance(signature.args[0], types.CPointer):
            array = context.make_array(signature.args[0])(context, builder, data)
            data = array.data
            if numba.config.BOUNDSCHECK:
                (size,) = cgutils.unpack_tuple(builder, array.shape, 1)
                last = builder.add(index, index.type(bits // 8 - 1))
                cgutils.do_boundscheck(context, builder, index, size)
                cgutils.do_boundscheck(context, builder, last, size)
        return builder.bitcast(builder.gep(data, [index]), word.as_pointer())

    @intrinsic
    def load(typing_context, array, index):
        def generate(context, builder, signature, args):
            value = builder.load(address(context, builder, signature, args), align=1)
            return builder.zext(value, ir.IntType(64)) if bits < 64 else value

        return numba_type(array, types.uint64), generate

    @intrinsic
    def store(typing_context, array, index, value):
        def generate(context, builder, signature, args):
            value = args[2]
            value = builder.trunc(value, word) if bits < 64 else value
            builder.store(value, address(context, builder, signature, args), align=1)
            return context.get_dummy_value()

        return types.void(array, types.uint64, types.int64), generate

    return load, store


def _plain_accessors(bits: int) -> tuple[Any, Any]:
    """The same two in plain Python, for NUMBA_DISABLE_JIT=1; they check their bounds."""
    size = bits // 8

    def check(memory, address):
        if not 0 <= address <= memory.size - size:
            raise IndexError(f'{size} bytes at {int(address):#x} are outside guest memory')

    def load(memory, address):
        check(memory, address)
        raw = memory[int(address) : int(address) + size].tobytes()
        return int.from_bytes(raw, 'little', signed=bits == 64)

    def store(memory, address, value):
        check(memory, address)
        raw = (int(value) & ((1 << bits) - 1)).to_bytes(size, 'little')
        memory[int(address) : int(address) + size] = np.frombuffer(raw, dtype=np.uint8)

    return load, store


@intrinsic
def _data_pointer(typing_context, array):
    if array == types.none:  # no line ownership: None stays None
        return types.none(types.none), lambda context, *_: context.get_dummy_value()

    def generate(context, builder, signature, args):
        return context.make_array(signature.args[0])(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), generate


def _same(array):
    return array


# What a kernel hands down to other kernels instead of an array: the bare pointer, one machine word
# where an array is seven, which is most of the price of a call. It is indexed like the array; it
# has no size and no bounds, so a checked run (NUMBA_BOUNDSCHECK=1) and plain Python keep the array.
bare = _data_pointer if JIT and not numba.config.BOUNDSCHECK else kernel(_same)

_make = _accessors if JIT else _plain_accessors
load16, store16 = _make(16)
load32, store32 = _make(32)
load64, store64 = _make(64)


def new_lines(size: int, cores: int, prices: Sequence[int]) -> npt.NDArray[np.int64]:
    """An ownership table for `size` bytes and `cores` cores.

    `prices` are cycles for (hit, shared, transfer, cold). Returns int64, one entry per 64-byte
    line behind a short head.
    """
    entries = int(L_CORES) + cores * int(CORE_WORDS)
    lines = np.zeros(entries + -(-size // 64), dtype=np.int64)
    lines[int(L_HIT) : int(L_COLD) + 1] = prices
    lines[int(L_ENTRIES)] = entries
    return lines


@kernel(inline=True)
def _count(lines, core, counter):
    lines[L_CORES + u64(core) * CORE_WORDS + counter] += 1


@kernel
def _load_other(lines, core, line):
    """A load of a line that others hold clean, or nobody, or this core as well."""
    entry = lines[line]
    me = core + 1
    a, b, c = entry & HOLDER, (entry >> 16) & HOLDER, (entry >> 32) & HOLDER
    if me in (b, c):
        _count(lines, core, C_HITS)
    elif entry == 0:
        _count(lines, core, C_TRANSFERS)
        _count(lines, core, C_COLD)
        lines[line] = me
    else:
        _count(lines, core, C_SHARED)
        lines[line] = me | (a << 16) | (b << 32)


@kernel
def _store_own(lines, core, line):
    """A store to a line that this core alone holds, clean, or nobody."""
    if lines[line]:
        _count(lines, core, C_HITS)
    else:
        _count(lines, core, C_TRANSFERS)
        _count(lines, core, C_COLD)
    lines[line] = (core + 1) | MODIFIED


@kernel(inline=True)
def _load_line(lines, core, line):
    entry = lines[line]
    holder = entry & HOLDER
    if holder == core + 1:
        _count(lines, core, C_HITS)
    elif entry & MODIFIED:
        _count(lines, core, C_TRANSFERS)
        lines[line] = (core + 1) | (holder << 16)
    else:
        _load_other(lines, core, line)


@kernel(inline=True)
def _store_line(lines, core, line):
    entry = lines[line]
    if entry == (core + 1) | MODIFIED:
        _count(lines, core, C_HITS)
    elif entry != 0 and entry != core + 1:  # others hold it, with or without this core
        _count(lines, core, C_TRANSFERS)
        lines[line] = (core + 1) | MODIFIED
    else:
        _store_own(lines, core, line)


@kernel(inline=True)
def touch_load(lines, core, address, size):
    """Charge `core` for reading `size` bytes at `address`."""
    if lines is not None:
        first = u64(lines[L_ENTRIES]) + (u64(address) >> LINE_SHIFT)
        last = u64(lines[L_ENTRIES]) + ((u64(address) + u64(size) - ONE) >> LINE_SHIFT)
        while first <= last:
            _load_line(lines, core, first)
            first += ONE


@kernel(inline=True)
def touch_store(lines, core, address, size):
    """Charge `core` for writing `size` bytes at `address`."""
    if lines is not None:
        first = u64(lines[L_ENTRIES]) + (u64(address) >> LINE_SHIFT)
        last = u64(lines[L_ENTRIES]) + ((u64(address) + u64(size) - ONE) >> LINE_SHIFT)
        while first <= last:
            _store_line(lines, core, first)
            first += ONE


@kernel(inline=True)
def hit_cycles(lines):
    """What a core pays for a line that it holds."""
    return 0 if lines is None else lines[L_HIT]


@kernel(inline=True)
def take_cycles(lines, core):
    """What `core` has to pay for what it touched since the last call."""
    if lines is None:
        return 0
    base = L_CORES + u64(core) * CORE_WORDS
    cold = lines[base + C_COLD]
    cycles = (
        lines[base + C_HITS] * lines[L_HIT]
        + lines[base + C_SHARED] * lines[L_SHARED]
        + (lines[base + C_TRANSFERS] - cold) * lines[L_TRANSFER]
        + cold * lines[L_COLD]
    )
    fresh = cycles - lines[base + C_PAID]
    lines[base + C_PAID] = cycles
    return fresh
