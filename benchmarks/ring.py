"""The ring core against the same algorithm in C, and what its cache lines cost.

A round trip is add, kick test, fetch, used, signal test, get, with EVENT_IDX. The C twins
(benchmarks/twin) are compiled with gcc -O2 and called in this process with a loop count, as the
ring core is; both must leave the same bytes behind. Runs alternate, and what counts is the median
of the ratios of neighbouring runs. Without gcc the ratios to C are None.

Line transfers are counted, not timed: how many 64-byte lines per request go from one core to the
other, guest on one, worker on another, in the steady state. They are the same on every machine.
"""

import ctypes
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sim import vring
from sim.features import mask
from sim.jit import kernel
from sim.layout import F_EVENT_IDX, F_IN_ORDER, F_INDIRECT_DESC, F_RING_PACKED, F_VERSION_1
from sim.memory import C_TRANSFERS, CORE_WORDS, L_CORES, bare, new_lines

u64 = np.uint64

NUM = 256
MEMORY = 1 << 20
# Where Linux puts them: one block for a split ring, a page each for the parts of a packed one.
SPLIT_PARTS = (0x10000, 0x11000, 0x11240)
PACKED_PARTS = (0x10000, 0x20000, 0x30000)
TABLES, DATA = 0x40000, 0x80000
HEADER, RESPONSE, PAGE = (DATA, 51), (DATA + 64, 108), (DATA + 4096, 4096)
GUEST, WORKER = 0, 1
PRICES = (4, 50, 200, 300)  # any will do: a price is one addition, whatever it is

# What is sent: readable and writable buffers, and whether through an indirect table.
SHAPES = {
    '1desc': ([HEADER], [], False),
    '3desc': ([HEADER], [RESPONSE, PAGE], False),
    'indirect': ([HEADER], [RESPONSE, PAGE], True),
}
LOOPS = 10_000  # round trips per timed run: well below a time slice
PAIRS = 40  # neighbouring runs per round


@dataclass
class Ring:
    """A ring core ready to run: its memory, its state, where things lie in it."""

    mem: np.ndarray
    lines: np.ndarray | None
    st: np.ndarray
    d: u64
    v: u64
    request: u64
    chain: u64
    table: int


def placed(size: int, offset: int = 2048) -> np.ndarray:
    """`size` zero bytes that begin at `offset` in a page.

    A load waits for an earlier store whose address has the same low 12 bits. Left to the allocator
    that is a lottery with a factor of two in it; so guest memory begins with a page, and the state
    of a ring, ours or its twin's, in the middle of one.
    """
    raw = np.zeros(size + 8192, dtype=np.uint8)
    begin = (offset - raw.ctypes.data) % 4096
    return raw[begin : begin + size]


def ring_of(packed: bool, shape: str, *, costed: bool = False, in_order: bool = False) -> Ring:
    """A ring of NUM entries in which both sides ask for notifications by event index."""
    out, in_, indirect = SHAPES[shape]
    features = mask(F_VERSION_1, F_EVENT_IDX, *([F_INDIRECT_DESC] if indirect else []))
    features |= mask(*([F_RING_PACKED] if packed else []), *([F_IN_ORDER] if in_order else []))
    mem = placed(MEMORY, 0)
    lines = new_lines(MEMORY, 2, PRICES) if costed else None
    v = vring.driver_words(NUM)
    request = v + vring.device_words(NUM)
    chain = request + 4 + 2 * 8
    st = placed(8 * (chain + 4 + 2 * 1024)).view(np.int64)
    parts = PACKED_PARTS if packed else SPLIT_PARTS
    st[request : request + 2] = len(out), len(in_)
    pairs = np.ravel([*out, *in_])
    st[request + 4 : request + 4 + pairs.size] = pairs
    ring = Ring(mem, lines, st, u64(0), u64(v), u64(request), u64(chain), TABLES if indirect else 0)
    vring.driver_init(st, ring.d, NUM, *parts, features)
    base = vring.fresh_base(features)
    vring.device_init(mem, st, ring.v, NUM, *parts, features, base)
    st[v + int(vring.V_BATCHED)] = in_order
    if packed:
        vring.disable_cb(mem, lines, st, ring.d, GUEST)
        vring.enable_cb_prepare(mem, lines, st, ring.d, GUEST)
        vring.disable_notify(mem, lines, st, ring.v, WORKER)
        vring.enable_notify(mem, lines, st, ring.v, WORKER)
    return ring


@kernel
def round_trips(memory, ownership, state, d, v, request, chain, table, loops):
    """What the twins do, with the ring core, called as the engine does; returns a checksum."""
    mem, st = bare(memory), bare(state)
    lines = None if ownership is None else bare(ownership)
    total = 0
    for i in range(loops):
        total += vring.add(mem, lines, st, d, GUEST, request, i, table)
        if vring.kick_prepare(mem, lines, st, d, GUEST):
            total += 1
        head = vring.fetch(mem, lines, st, v, WORKER, chain)
        vring.add_used(mem, lines, st, v, WORKER, head, 0)
        if vring.signal_needed(mem, lines, st, v, WORKER):
            total += 1
        total += vring.get_buf(mem, lines, st, d, GUEST)
    return total


def run_ours(ring: Ring, loops: int) -> int:
    """So many round trips of the ring core."""
    return int(
        round_trips(
            ring.mem, ring.lines, ring.st, ring.d, ring.v, ring.request, ring.chain, ring.table,
            loops,
        )
    )  # fmt: skip


# ---------------------------------------------------------------------------------------- C twins


class Twins:
    """The C twins, compiled and loaded."""

    def __init__(self, compiler: str) -> None:
        sources = sorted((Path(__file__).parent / 'twin').glob('*.c'))
        with tempfile.TemporaryDirectory() as folder:  # once loaded, the file may go
            library = Path(folder) / 'twin.so'
            command = [compiler, '-O2', '-shared', '-fPIC', '-o', str(library), *map(str, sources)]
            subprocess.run(command, check=True)
            self.library = ctypes.CDLL(str(library))

    def new(self, packed: bool, shape: str, like: Ring) -> tuple[Callable[[int], int], np.ndarray]:
        """(round_trips(loops), its memory), from the state and the bytes of a fresh `like`."""
        out, in_, indirect = SHAPES[shape]
        mem = placed(MEMORY, 0)
        mem[:] = like.mem
        pairs = np.ravel([*out, *in_]).astype(np.uint64)
        kind = 'packed' if packed else 'split'
        state_bytes = getattr(self.library, f'{kind}_bytes')
        state_bytes.restype = ctypes.c_uint64
        state = placed(state_bytes(NUM))
        init = getattr(self.library, f'{kind}_init')
        init.restype = None
        init.argtypes = [
            ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_uint64] * 4, ctypes.c_uint32, ctypes.c_int,
            ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32,
        ]  # fmt: skip
        parts = PACKED_PARTS if packed else SPLIT_PARTS
        init(state.ctypes.data, mem.ctypes.data, MEMORY, *parts, NUM, 1, indirect,
             pairs.ctypes.data, len(out), len(in_))  # fmt: skip
        run = getattr(self.library, f'{kind}_round_trips')
        run.restype = ctypes.c_int64
        run.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int64]

        def round_trips_in_c(loops: int, keep: np.ndarray = mem) -> int:
            return int(run(state.ctypes.data, like.table, loops))

        return round_trips_in_c, mem


def twins() -> Twins | None:
    """The twins, or None where there is no gcc."""
    compiler = shutil.which('gcc')
    if compiler is None:
        print('ring: no gcc here, so no ratios to C', file=sys.stderr)
        return None
    return Twins(compiler)


# ------------------------------------------------------------------------------------------ timing


def seconds(run: Callable[[int], int], loops: int) -> float:
    """CPU time of one timed run: what other processes take does not count."""
    began = time.thread_time_ns()
    run(loops)
    return (time.thread_time_ns() - began) / 1e9


class Pair:
    """Two things timed by turns; which goes first alternates as well."""

    def __init__(self, ours: Callable[[int], int], theirs: Callable[[int], int]) -> None:
        self.runs = (ours, theirs)
        self.times: list[tuple[float, float]] = []
        for run in self.runs:
            run(2 * NUM)

    def turn(self) -> None:
        """One timed run of each."""
        order = (0, 1) if len(self.times) % 2 else (1, 0)
        took = [0.0, 0.0]
        for which in order:
            took[which] = seconds(self.runs[which], LOOPS)
        self.times.append((took[0], took[1]))

    @property
    def ratio(self) -> float:
        """Median of the ratios of neighbouring runs."""
        return statistics.median(ours / theirs for ours, theirs in self.times)

    def nanoseconds(self, which: int) -> float:
        """Median CPU time of a round trip of one of the two (0 ours, 1 theirs)."""
        return statistics.median(took[which] for took in self.times) / LOOPS * 1e9


def measure(rounds: int, number_ios: int) -> dict[str, float | None]:
    """The table; number_ios is not used, a round is PAIRS runs of LOOPS round trips."""
    del number_ios
    c = twins()
    kinds = [(packed, shape) for packed in (False, True) for shape in SHAPES]
    against_c: dict[tuple[bool, str], Pair] = {}
    checks = []
    for packed, shape in kinds if c is not None else []:
        ring = ring_of(packed, shape)
        run, mem = c.new(packed, shape, ring)
        against_c[packed, shape] = Pair(bound(ring), run)
        checks.append((ring.mem, mem))
    against_split = {
        shape: Pair(bound(ring_of(True, shape)), bound(ring_of(False, shape))) for shape in SHAPES
    }
    against_bare = {
        (packed, shape): Pair(
            bound(ring_of(packed, shape, costed=True)), bound(ring_of(packed, shape))
        )
        for packed, shape in kinds
    }
    pairs = [*against_c.values(), *against_split.values(), *against_bare.values()]
    for number in range(rounds):
        print(f'ring: round {number + 1}/{rounds}', file=sys.stderr, flush=True)
        for pair in pairs:  # one pair after the other: what else has run just now costs C a fifth
            for _ in range(PAIRS):
                pair.turn()
    for ours, theirs in checks:
        if not np.array_equal(ours, theirs):
            raise AssertionError('the ring core and its C twin have left different bytes behind')
    return {
        **_ratios(against_c, against_split, against_bare),
        **_nanoseconds(against_c, against_bare),
        **line_transfers(),
    }


def bound(ring: Ring) -> Callable[[int], int]:
    """run_ours for this ring."""
    return lambda loops: run_ours(ring, loops)


def _ratios(
    against_c: dict[tuple[bool, str], Pair],
    against_split: dict[str, Pair],
    against_bare: dict[tuple[bool, str], Pair],
) -> dict[str, float | None]:
    table: dict[str, float | None] = {}
    for shape in SHAPES:
        pair = against_c.get((False, shape))
        table[f'ring.split_{shape}_vs_c'] = pair.ratio if pair else None
    packed = {shape: against_c.get((True, shape)) for shape in SHAPES}
    for shape, pair in packed.items():
        table[f'ring.packed_{shape}_vs_c'] = pair.ratio if pair else None
    # A key without a shape is the worst of the three.
    table['ring.packed_vs_c'] = max((p.ratio for p in packed.values() if p), default=None)
    for shape, pair in against_split.items():
        table[f'ring.packed_{shape}_vs_split'] = pair.ratio
    table['ring.packed_vs_split'] = max(pair.ratio for pair in against_split.values())
    for (is_packed, shape), pair in against_bare.items():
        kind = 'packed' if is_packed else 'split'
        table[f'ring.{kind}_{shape}_costed_vs_bare'] = pair.ratio
    table['ring.costed_vs_bare'] = max(pair.ratio for pair in against_bare.values())
    return table


def _nanoseconds(
    against_c: dict[tuple[bool, str], Pair], against_bare: dict[tuple[bool, str], Pair]
) -> dict[str, float | None]:
    table: dict[str, float | None] = {}
    for (packed, shape), pair in against_bare.items():
        kind = 'packed' if packed else 'split'
        table[f'ring.{kind}_{shape}_ns'] = pair.nanoseconds(1)
        twin = against_c.get((packed, shape))
        table[f'ring.{kind}_{shape}_c_ns'] = twin.nanoseconds(1) if twin else None
    return table


# ------------------------------------------------------------------------------------------- lines


@kernel
def batches(mem, lines, st, d, v, request, chain, tables, batch, loops):
    """Batches as guest and worker have them, with the asking for and against notifications."""
    heads = chain + u64(4 + 2 * 8)  # the worker's list of what it has taken
    for _ in range(loops):
        for i in range(batch):
            table = tables + 64 * st[d + vring.D_FREE_HEAD] if tables else 0
            vring.add(mem, lines, st, d, GUEST, request, i, table)
        vring.kick_prepare(mem, lines, st, d, GUEST)
        vring.disable_notify(mem, lines, st, v, WORKER)
        taken = 0
        while True:
            head = vring.fetch(mem, lines, st, v, WORKER, chain)
            if head < 0:
                break
            st[heads + u64(taken)] = head
            taken += 1
        vring.enable_notify(mem, lines, st, v, WORKER)
        vring.more_avail(mem, lines, st, v, WORKER)
        for i in range(taken):
            # In order the last one first, so that the whole batch becomes publishable at once.
            which = taken - 1 - i if st[v + vring.V_IN_ORDER] else i
            vring.add_used(mem, lines, st, v, WORKER, st[heads + u64(which)], 0)
        vring.signal_needed(mem, lines, st, v, WORKER)
        vring.vring_interrupt(mem, lines, st, d, GUEST)
        vring.disable_cb(mem, lines, st, d, GUEST)
        while vring.get_buf(mem, lines, st, d, GUEST) >= 0:
            pass
        vring.enable_cb_prepare(mem, lines, st, d, GUEST)
        vring.more_used(mem, lines, st, d, GUEST)


def line_transfers() -> dict[str, float | None]:
    """Lines per request that went from core to core, by ring and batch size."""
    table: dict[str, float | None] = {}
    for packed in (False, True):
        for in_order in (False, True):
            for batch in (1, 32):
                kind = 'packed' if packed else 'split'
                order = '_in_order' if in_order else ''
                key = f'lines.{kind}{order}_batch{batch}'
                table[key] = transfers_per_request(packed, in_order, batch)
    return table


def transfers_per_request(packed: bool, in_order: bool, batch: int) -> float:
    """Of indirect requests over four laps of the ring, after two to warm up.

    Rings and tables only: what header, response and data cost is the same for every ring.
    """
    ring = ring_of(packed, 'indirect', costed=True, in_order=in_order)
    assert ring.lines is not None
    laps = NUM // batch

    def counted() -> int:
        counters = [int(L_CORES + u64(core) * CORE_WORDS + C_TRANSFERS) for core in (0, 1)]
        return sum(int(ring.lines[at]) for at in counters)

    for turns in (2, 4):
        before = counted()
        batches(
            ring.mem, ring.lines, ring.st, ring.d, ring.v, ring.request, ring.chain, ring.table,
            batch, turns * laps,
        )  # fmt: skip
    return (counted() - before) / (4 * NUM)


def explain(table: dict[str, float | None]) -> str:
    """What the numbers say, in a few sentences."""
    said = 'The ring core against its C twin (gcc -O2): '
    if table['ring.packed_vs_c'] is None:
        said += 'not measured, there is no gcc.'
    else:
        shapes = ', '.join(f'{shape} {table[f"ring.split_{shape}_vs_c"]:.2f}' for shape in SHAPES)
        said += f'split {shapes}; packed at most {table["ring.packed_vs_c"]:.2f} times its time.'
    lines = {key: value for key, value in table.items() if key.startswith('lines.')}
    return (
        f'{said}\nA packed round trip takes at most {table["ring.packed_vs_split"]:.2f} times a '
        f'split one, a ring with cache lines at most {table["ring.costed_vs_bare"]:.2f} times one '
        'without.\nLines that change cores per request: '
        + ', '.join(f'{key.removeprefix("lines.")} {value:.2f}' for key, value in lines.items())
        + '.'
    )
