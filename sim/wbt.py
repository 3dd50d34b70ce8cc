"""Write-back throttling of the host's block device (Linux block/blk-wbt.c, blk-rq-qos.c).

Before Linux 6.6 LIO's iblock does not mark its writes REQ_SYNC | REQ_IDLE, so WBT takes them for
background write-back and limits how many are in flight; later kernels mark them, and WBT lets them
pass. The submission kworker that meets the limit sleeps in submit_bio(), reads behind it and all
(rq_qos_wait), until enough writes have completed or the limits are raised.

    max_depth    16 at first; 1 + (15 << n) after n steps up, at most 3/4 of the queue depth;
                 1 + (15 >> n) after n steps down
    limit        (max_depth + 1) / 2 writes; (max_depth + 3) / 4 within 100 ms of a read
    wake-up      below the limit by a quarter of max_depth / 2; with a volatile write cache
                 only when no write is left in flight

Every window (100 ms, shorter after steps down) ends in a judgement: down when even the quickest
read took longer than `wbt_lat`, or one is under way for that long; up when it did not, or when
there were only writes; and slowly back to 16 when there was nothing. The kernel's timer is not an
agent: windows that have passed are judged when somebody next comes by, with what had been seen by
their end, and a kworker that sleeps wakes at the end of the window by itself.
"""

import numpy as np

from sim.agents import NEVER
from sim.jit import kernel
from sim.se_cmd import OP_DISCARD, OP_READ, OP_WRITE

u64 = np.uint64

(
    T_LATENCY,  # wbt_lat_usec, the latency that reads shall have
    T_WINDOW,  # 100 ms
    T_DEPTH,  # queue depth of the device
    T_VOLATILE,  # 1 if it has a volatile write cache
    T_STEP,  # scale_step
    T_SCALED_MAX,
    T_MAX_DEPTH,
    T_WRITES,  # in flight
    T_DISCARDS,
    T_UNTIL,  # when the current window ends, NEVER while no timer runs
    T_READ_COUNT,  # completions seen in this window
    T_READ_LEAST,
    T_WRITE_COUNT,
    T_LAST_READ,  # when one was last issued or completed
    T_SYNC,  # the read that is being watched, -1 none
    T_SYNC_SINCE,
    T_UNKNOWN,  # windows in a row that say nothing
    T_WAITS,  # how often the kworker had to sleep
) = map(u64, range(18))
WBT_WORDS = 18

DEPTH_AT_FIRST = 16  # RWB_DEF_DEPTH
WRITES_LEAST = 3  # RWB_MIN_WRITE_SAMPLES
UNKNOWN_BUMP = 5  # RWB_UNKNOWN_BUMP


@kernel
def _limit(st, t, op, now):
    """get_limit(): how many writes may be in flight."""
    depth = st[t + T_MAX_DEPTH]
    background = 1 if depth <= 2 else (depth + 3) // 4
    recent = st[t + T_LAST_READ] >= 0 and now < st[t + T_LAST_READ] + st[t + T_WINDOW]
    if op == OP_DISCARD or recent:
        return background
    return _normal(st, t)


@kernel
def _normal(st, t):
    """calc_wb_limits(): wb_normal."""
    depth = st[t + T_MAX_DEPTH]
    return depth if depth <= 2 else (depth + 1) // 2


@kernel
def admit(st, t, x, op, now):
    """wbt_wait(): may the command go to the device now? A read always may."""
    _judge_until(st, t, now)
    if op == OP_READ:
        st[t + T_LAST_READ] = now
        if st[t + T_SYNC] < 0:
            st[t + T_SYNC], st[t + T_SYNC_SINCE] = np.int64(x), now
        return True
    if op not in (OP_WRITE, OP_DISCARD):
        return True
    place = t + (T_WRITES if op == OP_WRITE else T_DISCARDS)
    if st[place] >= _limit(st, t, op, now):
        return False
    st[place] += 1
    if st[t + T_UNTIL] == NEVER:
        _arm(st, t, now)
    return True


@kernel
def done(st, t, x, op, issued, now):
    """wbt_done(): a command has completed. Returns whether a sleeping kworker should look again."""
    _judge_until(st, t, now)
    if op == OP_READ:
        st[t + T_LAST_READ] = now
        if st[t + T_SYNC] == np.int64(x):
            st[t + T_SYNC] = -1
        if st[t + T_UNTIL] < NEVER:
            least = now - issued
            if st[t + T_READ_COUNT]:
                least = min(least, st[t + T_READ_LEAST])
            st[t + T_READ_LEAST] = least
            st[t + T_READ_COUNT] += 1
        return False
    if op not in (OP_WRITE, OP_DISCARD):
        return False
    if st[t + T_UNTIL] < NEVER:
        st[t + T_WRITE_COUNT] += 1
    place = t + (T_WRITES if op == OP_WRITE else T_DISCARDS)
    st[place] -= 1
    return _wakes(st, t, op, st[place])


@kernel
def _wakes(st, t, op, inflight):
    """wbt_rqw_done(): is so little in flight that sleepers should be woken?"""
    if inflight == 0:
        return True
    if op == OP_WRITE and st[t + T_VOLATILE]:
        return False
    depth = st[t + T_MAX_DEPTH]
    background = 1 if depth <= 2 else (depth + 3) // 4
    limit = background if op == OP_DISCARD else _normal(st, t)
    return inflight < limit and limit - inflight >= background // 2


@kernel
def next_look(st, t):
    """When a sleeping kworker should look again though nothing has completed; NEVER for never."""
    if st[t + T_SCALED_MAX] or st[t + T_MAX_DEPTH] == 1:
        return np.int64(NEVER)  # nothing but a completion will help
    return st[t + T_UNTIL]


# ------------------------------------------------------------------------------------ windows ----


@kernel
def _arm(st, t, now):
    """rwb_arm_timer(): a window begins."""
    length = st[t + T_WINDOW]
    if st[t + T_STEP] > 0:
        length = (length << 4) // _root((st[t + T_STEP] + 1) << 8)
    st[t + T_UNTIL] = now + length
    st[t + T_READ_COUNT] = st[t + T_WRITE_COUNT] = 0


@kernel
def _root(value):
    """int_sqrt()."""
    root = np.int64(0)
    while (root + 1) * (root + 1) <= value:
        root += 1
    return root


@kernel
def _judge_until(st, t, now):
    """Judge every window that has ended by now."""
    while st[t + T_UNTIL] <= now:
        end = st[t + T_UNTIL]
        _judge(st, t, end)
        if st[t + T_STEP] != 0 or st[t + T_WRITES] + st[t + T_DISCARDS] > 0:
            _arm(st, t, end)
        else:
            st[t + T_UNTIL] = NEVER


@kernel
def _judge(st, t, end):
    """wb_timer_fn(), latency_exceeded(): one step up or down, or none."""
    reads, writes = st[t + T_READ_COUNT], st[t + T_WRITE_COUNT]
    inflight = st[t + T_WRITES] + st[t + T_DISCARDS]
    waited = np.int64(0)
    if st[t + T_SYNC] >= 0:
        waited = end - st[t + T_SYNC_SINCE]
    target = st[t + T_LATENCY]
    if waited > st[t + T_WINDOW] or (waited > target and reads == 0):
        _scale_down(st, t, True)
    elif reads == 0 or writes < WRITES_LEAST:
        if writes or inflight:
            _scale_up(st, t)
        else:
            _drift(st, t)
    elif st[t + T_READ_LEAST] > target:
        _scale_down(st, t, True)
    else:
        _scale_up(st, t)


@kernel
def _drift(st, t):
    """Nothing was learnt: after five such windows one step back towards the middle."""
    st[t + T_UNKNOWN] += 1
    if st[t + T_UNKNOWN] >= UNKNOWN_BUMP:
        if st[t + T_STEP] > 0:
            _scale_up(st, t)
        elif st[t + T_STEP] < 0:
            _scale_down(st, t, False)


@kernel
def _scale_up(st, t):
    """rq_depth_scale_up()."""
    if not st[t + T_SCALED_MAX]:
        st[t + T_STEP] -= 1
        st[t + T_UNKNOWN] = 0
        _set_depth(st, t)


@kernel
def _scale_down(st, t, hard):
    """rq_depth_scale_down(); `hard` goes from any step up straight back to the middle."""
    if st[t + T_MAX_DEPTH] > 1:
        st[t + T_STEP] = 0 if hard and st[t + T_STEP] < 0 else st[t + T_STEP] + 1
        st[t + T_UNKNOWN] = 0
        _set_depth(st, t)


@kernel
def _set_depth(st, t):
    """rq_depth_calc_max_depth(): max_depth, and whether it cannot grow."""
    step, depth = st[t + T_STEP], st[t + T_DEPTH]
    st[t + T_SCALED_MAX] = 0
    if depth == 1:
        st[t + T_MAX_DEPTH] = 1 if step > 0 else 2
        st[t + T_SCALED_MAX] = 0 if step > 0 else 1
        return
    least = min(DEPTH_AT_FIRST, depth)
    if step > 0:
        least = 1 + ((least - 1) >> min(31, step))
    elif step < 0:
        least = 1 + ((least - 1) << min(31, -step))
        if least > 3 * depth // 4:
            least = 3 * depth // 4
            st[t + T_SCALED_MAX] = 1
    st[t + T_MAX_DEPTH] = least


def plan_wbt(*, latency: int, window: int, depth: int, volatile: bool) -> dict[np.uint64, int]:
    """The words of a throttle at the beginning; times in cycles."""
    at_first = 2 if depth == 1 else min(DEPTH_AT_FIRST, depth)
    return {
        T_LATENCY: latency,
        T_WINDOW: window,
        T_DEPTH: depth,
        T_VOLATILE: int(volatile),
        T_SCALED_MAX: int(depth == 1),
        T_MAX_DEPTH: at_first,
        T_UNTIL: NEVER,
        T_LAST_READ: -1,
        T_SYNC: -1,
    }
