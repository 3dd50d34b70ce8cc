"""When a job's I/O comes: rates, Poisson arrivals, bursts, on and off phases, think time.

A rated direction has a time at which its next I/O is due. In a closed loop (io_submit_mode inline)
the thread sleeps until then, as fio's rate_ddir() does; in an open loop (offload) the I/O arrives
then, whatever the thread is at, and waits in the backlog for a unit. Linear gaps are exact: what
division leaves over is carried on.
"""

import numpy as np

from sim.agents import LOG_TABLE, NEVER
from sim.jit import kernel
from sim.rng import below, exponential
from sim.workload.job_fields import (
    DIRECTION_WORDS,
    F_ACTIVE,
    F_GAP,
    F_GAP_PER_BLOCK,
    F_IN_BURST,
    F_MEAN,
    F_NEXT,
    F_OWED,
    F_POISSON,
    F_RATE,
    F_REST,
    F_USED,
    J_BURST_IOS,
    J_BURST_OFF,
    J_BURST_ON,
    J_DIRECTIONS,
    J_ISSUED,
    J_KEY_ARRIVAL,
    J_KEY_MIX,
    J_PACED,
    J_SPIN_LEFT,
    J_STARTED,
    J_STOP_AT,
    J_THINK,
    J_THINK_BLOCKS,
    J_THINK_IOTIME,
    J_THINK_LAST,
    J_THINK_LAST_ISSUED,
    J_THINK_LEFT,
    J_THINK_SPIN,
    J_WRITE_PERCENT,
    PACE_BURST,
    PACE_RATE,
)

u64 = np.uint64
READS = J_DIRECTIONS
WRITES = J_DIRECTIONS + DIRECTION_WORDS


@kernel
def start(st, j, at):
    """The job's clocks stand at `at`."""
    st[j + J_THINK_LAST] = at
    for f in (j + READS, j + WRITES):
        st[f + F_NEXT] = at if st[f + F_USED] else NEVER
        st[f + F_IN_BURST] = st[j + J_BURST_IOS]


# -------------------------------------------------------------------------------- the next I/O ----


@kernel(inline=True)
def direction(st, j, index):
    """0 for a read, 1 for a write: by rwmixread."""
    percent = st[j + J_WRITE_PERCENT]
    return 1 if percent and below(st[j + J_KEY_MIX], index, 100) < percent else 0


@kernel
def due_direction(st, j, write, now):
    """rate_ddir(): the direction asked for if its time has come, else the other if that is due."""
    other = j + (READS if write else WRITES)
    mine = j + (WRITES if write else READS)
    if st[mine + F_NEXT] > now and st[other + F_NEXT] <= now:
        return 1 - write
    return write


@kernel(inline=True)
def next_due(st, j):
    """When an I/O is due in either direction."""
    return min(st[j + READS + F_NEXT], st[j + WRITES + F_NEXT])


@kernel
def earliest(st, j, now):
    """Not before this time does a closed loop go on; think time left counts as the clock's end."""
    if st[j + J_THINK_LEFT] or st[j + J_SPIN_LEFT]:
        return NEVER
    at = np.int64(0)
    if st[j + J_PACED] & PACE_RATE:
        at = next_due(st, j)
    if st[j + J_PACED] & PACE_BURST:
        at = max(at, _on_phase(st, j, now))
    return at


@kernel
def _on_phase(st, j, now):
    """`now` in an on-phase, else the beginning of the next."""
    began = st[j + J_STARTED] - 1
    period = st[j + J_BURST_ON] + st[j + J_BURST_OFF]
    phase = (now - began) % period
    return now if phase < st[j + J_BURST_ON] else now - phase + period


@kernel
def advance(st, j, f, index, blocks):
    """An I/O of `blocks` has come: when is the next of this direction due?"""
    left = st[f + F_IN_BURST] - 1
    gap = np.int64(0)
    if not st[f + F_POISSON]:
        work = st[f + F_GAP] * (blocks if st[f + F_GAP_PER_BLOCK] else 1) + st[f + F_REST]
        gap = work // st[f + F_RATE]
        st[f + F_REST] = work - gap * st[f + F_RATE]
    elif left == 0:
        gap = exponential(st, LOG_TABLE, st[j + J_KEY_ARRIVAL], index, st[f + F_MEAN])
    gap += st[f + F_OWED]
    if left > 0:
        st[f + F_IN_BURST] = left
        st[f + F_OWED] = gap
        return
    st[f + F_IN_BURST] = st[j + J_BURST_IOS]
    st[f + F_OWED] = 0
    if st[j + J_BURST_ON] == 0:
        st[f + F_NEXT] += gap
        return
    active = st[f + F_ACTIVE] + gap
    st[f + F_ACTIVE] = active
    phases = active // st[j + J_BURST_ON]
    st[f + F_NEXT] = st[j + J_STARTED] - 1 + active + phases * st[j + J_BURST_OFF]


# ---------------------------------------------------------------------------------- think time ----


@kernel
def think(st, j, now):
    """handle_thinktime(), after an I/O has been issued: is it time for a pause?"""
    issued, last = st[j + J_ISSUED], st[j + J_THINK_LAST_ISSUED]
    due = st[j + J_THINK_BLOCKS] > 0 and issued - last >= st[j + J_THINK_BLOCKS]
    if st[j + J_THINK_IOTIME] > 0 and now - st[j + J_THINK_LAST] >= st[j + J_THINK_IOTIME]:
        due = True
    if due:
        st[j + J_THINK_LAST_ISSUED] = issued
        st[j + J_SPIN_LEFT] = st[j + J_THINK_SPIN]
        st[j + J_THINK_LEFT] = st[j + J_THINK] - st[j + J_THINK_SPIN]


@kernel
def spin(st, j, now):
    """How long the thread burns its CPU."""
    left = st[j + J_SPIN_LEFT]
    st[j + J_SPIN_LEFT] = 0
    if st[j + J_THINK_LEFT] == 0:
        st[j + J_THINK_LAST] = now + left
    return min(left, st[j + J_STOP_AT] - now)


@kernel
def pause(st, j, now):
    """How long the thread sleeps; the think time is then over."""
    left = st[j + J_THINK_LEFT]
    if left:
        st[j + J_THINK_LEFT] = 0
        st[j + J_THINK_LAST] = now + left
    left = max(left, earliest(st, j, now) - now)
    return min(left, st[j + J_STOP_AT] - now)
