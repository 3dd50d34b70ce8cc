"""Who gets which row of the trace, and what is counted of it once fio has reaped the request.

    full        every request keeps its row
    histogram   a row is used again once its request is reaped, after what it says is counted in
                histograms (sim.histogram): memory does not grow with the number of requests
    sampled     as histogram, but every n-th request keeps its row

With counting, the requests of the warm-up must be known when they are reaped: by their serial, by
the time of their arrival, or, for an automatic cut, afterwards: the first T_PILOT requests keep
their rows until the run is over and are counted then.

In every mode the run is cut into batches of consecutive serials. When a batch begins, a mark keeps
the time and what the agents have counted so far; when the marks are full, neighbouring batches
become one. Confidence intervals rest on these batches.

The trace array, in this order: head, rooms of jobs, stages and batches (with counting), marks,
rows of the error handler's tasks, scratch row, rows in use (with counting), rows kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim import histogram
from sim.agents import H_NOTICE, H_ROW_WORDS, H_ROWS, H_ROWS_HIGH, H_SERIAL, N_TRACE_FULL
from sim.histogram import HISTOGRAM_WORDS
from sim.jit import kernel
from sim.record import (
    BAD_TARGET,
    NO_CONNECT,
    OPS,
    R_ARRIVE,
    R_COMPLETE,
    R_COMPLETED_COUNT,
    R_FETCHED_COUNT,
    R_JOB,
    R_OP,
    R_OUTCOME,
    R_PUBLISHED_COUNT,
    R_REAP,
    R_SERIAL,
    R_USED_COUNT,
    ROW_WORDS,
    STAGE_COUNT,
    STAGES,
)
from sim.se_cmd import OP_FLUSH

u64 = np.uint64

# The head of the trace array.
(
    T_COUNTS,  # 1: requests are counted when they are reaped
    T_EVERY,  # with counting: every n-th serial keeps its row, 0: none does
    T_PILOT,  # with counting: up to this serial rows are kept, to be counted at the end
    T_CUT_SERIAL,  # the warm-up: serials up to this one
    T_CUT_NS,  # and arrivals before this time
    T_HZ,
    T_SCRATCH,  # offset of the scratch row
    T_TASKS,  # offset of the rows of the error handler's tasks
    T_ROWS,  # offset of the first row that is kept
    T_FREE_COUNT,  # rows to be used again, a stack of offsets
    T_FREE_LIST,
    T_JOBS,  # offsets of the rooms
    T_STAGES,
    T_BATCHES,
    T_BATCH_SHIFT,  # a batch is 1 << shift serials
    T_BATCH_COUNT,
    T_BATCH_NEXT,  # serial with which the next batch begins, 0: there are no batches
    T_MARKS,  # a mark is the time and the sum of each group of watched counters
    T_MARK_WORDS,
    T_WATCHES,  # how many words are watched
    T_WATCH_LIST,  # group and place of each: in `st`, or -1 - place in `lines`
    T_REAPED,
    T_CUT,  # reaped requests that belong to the warm-up
    T_HOMELESS,  # requests that found no row to use: none, or the recorder is wrong
    T_WRONG_COUNT,  # reaped requests not published, fetched, used and completed once each
    T_WRONG_COUNT_SERIAL,  # the first of them
    T_WRONG_ORDER,  # completed requests whose timestamps are missing or go back
    T_WRONG_ORDER_SERIAL,
) = map(u64, range(28))
HEAD_WORDS = 28

# A job's clone: first (plus one) and last completion in ns, then the histograms of each operation.
C_FIRST, C_LAST, C_HISTOGRAMS = map(u64, range(3))
CLONE_WORDS = 2 + 2 * len(OPS) * HISTOGRAM_WORDS  # (read, write, flush) x (latency, fio's lat)

# A batch: histograms of latency and fio's lat, then the sum and the number of each stage's times.
BATCHES = 64
E_SUMS = u64(2 * HISTOGRAM_WORDS)
BATCH_WORDS = 2 * HISTOGRAM_WORDS + 2 * len(STAGES)
BATCH_SHIFT_LEAST = 2

PILOT_ROWS = 20_000
NS_PER_S = 1_000_000_000


@kernel
def new_row(lines, st, tr, now):
    """The offset of the row of the request H_SERIAL (the scratch row when nothing is recorded)."""
    serial = st[H_SERIAL]
    if serial == tr[T_BATCH_NEXT]:
        _begin_batch(lines, st, tr, now)
    if tr[T_COUNTS] and serial > tr[T_PILOT] and not (tr[T_EVERY] and serial % tr[T_EVERY] == 0):
        return _reused_row(tr)
    row = st[H_ROWS]
    st[H_ROWS] += st[H_ROW_WORDS]
    if st[H_ROWS] > st[H_ROWS_HIGH]:
        st[H_NOTICE] |= N_TRACE_FULL
    return row


@kernel
def _reused_row(tr):
    if tr[T_FREE_COUNT] == 0:
        tr[T_HOMELESS] += 1
        return tr[T_SCRATCH]
    tr[T_FREE_COUNT] -= 1
    row = tr[u64(tr[T_FREE_LIST]) + u64(tr[T_FREE_COUNT])]
    for place in range(ROW_WORDS):
        tr[u64(row) + u64(place)] = 0
    return row


@kernel
def reap(st, tr, row, now):
    """fio has reaped the request of `row`: the model writes to it no more."""
    tr[row + R_REAP] = now + 1
    if tr[T_COUNTS] == 0 or row == u64(tr[T_SCRATCH]):
        return
    tr[T_REAPED] += 1
    if tr[row + R_SERIAL] > tr[T_PILOT]:
        count_request(tr, row)
    if row < u64(tr[T_ROWS]):
        tr[u64(tr[T_FREE_LIST]) + u64(tr[T_FREE_COUNT])] = np.int64(row)
        tr[T_FREE_COUNT] += 1


# ------------------------------------------------------------------------------------ counting ----


@kernel
def to_ns(cycles, hz):
    """units.cycles_to_ns(), bit for bit."""
    seconds = cycles // hz
    return seconds * NS_PER_S + _part_ns(cycles - seconds * hz, hz, NS_PER_S / hz)


@kernel
def _part_ns(part, hz, ns_per_cycle):
    """Whole ns in less than a second of cycles.

    Multiplied rather than divided, which is a third of what counting a request takes. The float is
    within one of the truth, and the integers behind it set it right.
    """
    ns = np.int64(part * ns_per_cycle)
    left = part * NS_PER_S - ns * hz
    if left < 0:
        return ns - 1
    if left >= hz:
        return ns + 1
    return ns


@kernel
def _later_ns(cycles, since, since_ns, hz, ns_per_cycle):
    """to_ns() of a time not long after `since`, which is a whole second and `since_ns` in ns."""
    part = cycles - since
    if 0 <= part < hz:
        return since_ns + _part_ns(part, hz, ns_per_cycle)
    return to_ns(cycles, hz)


@kernel
def count_request(tr, row):
    """Count what the row of a reaped request says, unless it belongs to the warm-up.

    Flushes are counted by themselves: fio, too, keeps them out of IOPS and latencies.
    """
    _look_at(tr, row)
    hz, serial = tr[T_HZ], tr[row + R_SERIAL]
    seconds, ns_per_cycle = (tr[row + R_ARRIVE] - 1) // hz, NS_PER_S / hz
    second, second_ns = seconds * hz, seconds * NS_PER_S
    arrive = _later_ns(tr[row + R_ARRIVE] - 1, second, second_ns, hz, ns_per_cycle)
    if serial <= tr[T_CUT_SERIAL] or arrive < tr[T_CUT_NS]:
        tr[T_CUT] += 1
        return
    if tr[row + R_COMPLETE] == 0:
        return
    clone = u64(tr[T_JOBS]) + u64(CLONE_WORDS) * u64(tr[row + R_JOB])
    counts = clone + C_HISTOGRAMS + u64(2 * HISTOGRAM_WORDS) * u64(tr[row + R_OP])
    fio_lat = _later_ns(tr[row + R_REAP] - 1, second, second_ns, hz, ns_per_cycle) - arrive
    if tr[row + R_OP] == OP_FLUSH:
        time = _later_ns(tr[row + R_COMPLETE] - 1, second, second_ns, hz, ns_per_cycle)
        histogram.count(tr, counts, time - arrive)
        histogram.count(tr, counts + u64(HISTOGRAM_WORDS), fio_lat)
        return
    batch = u64(tr[T_BATCHES]) + u64(BATCH_WORDS) * u64((serial - 1) >> tr[T_BATCH_SHIFT])
    sums, stages = batch + E_SUMS, u64(tr[T_STAGES])
    raw, time = tr[row + R_ARRIVE], arrive
    for stage in range(STAGE_COUNT):
        next_raw = tr[row + u64(stage + 1)]
        next_time = time
        if next_raw != raw and next_raw != 0:
            next_time = _later_ns(next_raw - 1, second, second_ns, hz, ns_per_cycle)
        if raw and next_raw:
            took = next_time - time
            histogram.count(tr, stages + u64(HISTOGRAM_WORDS * stage), took)
            tr[sums + u64(stage)] += took
            tr[sums + u64(STAGE_COUNT + stage)] += 1
        raw, time = next_raw, next_time
    latency = time - arrive
    if tr[clone + C_FIRST] == 0 or time < tr[clone + C_FIRST] - 1:
        tr[clone + C_FIRST] = time + 1
    tr[clone + C_LAST] = max(tr[clone + C_LAST], time)
    histogram.count(tr, counts, latency)
    histogram.count(tr, counts + u64(HISTOGRAM_WORDS), fio_lat)
    histogram.count(tr, batch, latency)
    histogram.count(tr, batch + u64(HISTOGRAM_WORDS), fio_lat)


@kernel
def count_pilot(tr, end):
    """Count the reaped requests of the pilot, whose rows were kept; `end`: offset behind them."""
    for row in range(tr[T_ROWS], end, ROW_WORDS):
        r = u64(row)
        if tr[r + R_SERIAL] <= tr[T_PILOT] and tr[r + R_REAP]:
            count_request(tr, r)


@kernel
def _look_at(tr, row):
    """Was it published, fetched, used and completed once each; do its timestamps never go back?"""
    serial = tr[row + R_SERIAL]
    other_than_once = (tr[row + R_PUBLISHED_COUNT] - 1) | (tr[row + R_FETCHED_COUNT] - 1)
    other_than_once |= (tr[row + R_USED_COUNT] - 1) | (tr[row + R_COMPLETED_COUNT] - 1)
    if other_than_once:
        if tr[row + R_PUBLISHED_COUNT] == 0 and tr[row + R_OUTCOME] in (BAD_TARGET, NO_CONNECT):
            return  # the driver has given it back by itself
        if tr[T_WRONG_COUNT] == 0:
            tr[T_WRONG_COUNT_SERIAL] = serial
        tr[T_WRONG_COUNT] += 1
    back = np.int64(0)  # below zero as soon as one difference is; what is missing is zero
    for place in range(STAGE_COUNT):
        back |= tr[row + u64(place + 1)] - tr[row + u64(place)]
    if tr[row + R_COMPLETED_COUNT] and (back < 0 or tr[row + R_ARRIVE] == 0):
        if tr[T_WRONG_ORDER] == 0:
            tr[T_WRONG_ORDER_SERIAL] = serial
        tr[T_WRONG_ORDER] += 1


# ------------------------------------------------------------------------------------- batches ----


@kernel
def _begin_batch(lines, st, tr, now):
    """The next serial is the first of a batch: mark the time and what has been counted so far."""
    if tr[T_BATCH_COUNT] == BATCHES:
        _halve(tr)
    mark = u64(tr[T_MARKS]) + u64(tr[T_MARK_WORDS]) * u64(tr[T_BATCH_COUNT])
    for place in range(tr[T_MARK_WORDS]):
        tr[mark + u64(place)] = 0
    tr[mark] = now
    for watch in range(tr[T_WATCHES]):
        at = u64(tr[T_WATCH_LIST]) + u64(2) * u64(watch)
        group, place = mark + u64(1) + u64(tr[at]), tr[at + u64(1)]
        if place >= 0:
            tr[group] += st[u64(place)]
        elif lines is not None:
            tr[group] += lines[u64(-1 - place)]
    tr[T_BATCH_COUNT] += 1
    tr[T_BATCH_NEXT] += 1 << tr[T_BATCH_SHIFT]


@kernel
def _halve(tr):
    """Make one batch of each two neighbours: half as many, twice as long."""
    for place in range(BATCHES // 2):
        _join(tr, place, 2 * place)
        _join(tr, place, 2 * place + 1)
        to = u64(tr[T_MARKS]) + u64(tr[T_MARK_WORDS]) * u64(place)
        mark = u64(tr[T_MARKS]) + u64(tr[T_MARK_WORDS]) * u64(2 * place)
        for word in range(tr[T_MARK_WORDS]):
            tr[to + u64(word)] = tr[mark + u64(word)]
    tr[T_BATCH_COUNT] = BATCHES // 2
    tr[T_BATCH_SHIFT] += 1


@kernel
def _join(tr, to, other):
    """Add what batch `other` has counted to batch `to`, and empty it."""
    if to == other or tr[T_COUNTS] == 0:
        return
    a = u64(tr[T_BATCHES]) + u64(BATCH_WORDS) * u64(to)
    b = u64(tr[T_BATCHES]) + u64(BATCH_WORDS) * u64(other)
    for part in range(2):
        histogram.add(tr, a + u64(HISTOGRAM_WORDS * part), b + u64(HISTOGRAM_WORDS * part))
    for word in range(2 * STAGE_COUNT):
        tr[a + E_SUMS + u64(word)] += tr[b + E_SUMS + u64(word)]
        tr[b + E_SUMS + u64(word)] = 0


# ----------------------------------------------------------------------------------- the array ----


@dataclass(frozen=True, kw_only=True)
class Recording:
    """How the requests of a run are recorded.

    `rows` are expected to keep their row; `in_flight` is the most requests between preparing and
    reaping. `watched` names groups of words that marks sum up: places in `st`, or -1 - place in
    `lines`. `tasks` of the guest's error handler have a row each beside those.
    """

    rows: int
    counts: bool = False
    every: int = 0
    pilot: int = 0
    cut_serial: int = 0
    cut_ns: int = 0
    cpu_hz: int = 1
    in_flight: int = 0
    clones: int = 0
    watched: Sequence[tuple[str, Sequence[int]]] = ()
    tasks: int = 0


def new_trace(recording: Recording) -> npt.NDArray[np.int64]:
    """The trace array; its first kept row is at tr[T_ROWS]."""
    watches = [(g, place) for g, (_, places) in enumerate(recording.watched) for place in places]
    mark_words = 1 + len(recording.watched)
    reused = recording.in_flight if recording.counts else 0
    sizes = {
        T_JOBS: CLONE_WORDS * recording.clones * recording.counts,
        T_STAGES: HISTOGRAM_WORDS * STAGE_COUNT * recording.counts,
        T_BATCHES: BATCH_WORDS * BATCHES * recording.counts,
        T_MARKS: mark_words * BATCHES,
        T_WATCH_LIST: 2 * len(watches),
        T_FREE_LIST: reused,
        T_TASKS: ROW_WORDS * recording.tasks,
        T_SCRATCH: ROW_WORDS * (1 + reused),
        T_ROWS: ROW_WORDS * recording.rows,
    }
    offsets = np.cumsum([HEAD_WORDS, *sizes.values()])
    tr = np.zeros(offsets[-1], dtype=np.int64)
    tr[list(map(int, sizes))] = offsets[:-1]
    head = {
        T_COUNTS: int(recording.counts),
        T_EVERY: recording.every,
        T_PILOT: recording.pilot,
        T_CUT_SERIAL: recording.cut_serial,
        T_CUT_NS: recording.cut_ns,
        T_HZ: recording.cpu_hz,
        T_FREE_COUNT: reused,
        T_BATCH_SHIFT: BATCH_SHIFT_LEAST,
        T_BATCH_NEXT: 1,
        T_MARK_WORDS: mark_words,
        T_WATCHES: len(watches),
    }
    tr[list(map(int, head))] = list(head.values())
    first = int(tr[int(T_SCRATCH)]) + ROW_WORDS
    free = int(tr[int(T_FREE_LIST)])
    tr[free : free + reused] = np.arange(first, first + ROW_WORDS * reused, ROW_WORDS)[::-1]
    listed = int(tr[int(T_WATCH_LIST)])
    tr[listed : listed + 2 * len(watches)] = np.array(watches, dtype=np.int64).reshape(-1)
    return tr
