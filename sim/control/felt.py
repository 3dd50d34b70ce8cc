"""What a guest has felt of a stop: gaps without a completion, answers, requests that took long.

All functions read rows of the trace (sim.record.COLUMNS; times are cycle + 1, 0 for never).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sim import record
from sim.analysis.frame import COLUMN
from sim.units import cycles_to_ns

RESPONSES = {'ok': '0', 'check_condition': '0', 'bad_target': '3'}  # virtio_scsi response codes
FINE = (record.OK, record.CHECK_CONDITION)
Rows = npt.NDArray[np.int64]


def blackout(rows: Rows, paused_at: int, resumed_at: int | None, cpu_hz: int) -> dict[str, Any]:
    """Per queue the longest gap in ns between two completions that ends after the pause began.

    None: nothing of that queue completed after the VM went on. Times in cycles.
    """
    queues: dict[str, int | None] = {}
    for queue in np.unique(rows[:, COLUMN['queue']]):
        mine = rows[rows[:, COLUMN['queue']] == queue]
        times = np.sort(mine[mine[:, COLUMN['t_complete']] > 0, COLUMN['t_complete']] - 1)
        gaps = np.diff(np.concatenate([[0], times]))[times > paused_at]
        went_on = resumed_at is not None and (times > resumed_at).any()
        longest = int(cycles_to_ns(int(gaps.max()), cpu_hz)) if went_on else None
        queues[str(int(queue))] = longest
    known = [gap for gap in queues.values() if gap is not None]
    return {'largest': max(known, default=None), 'queues': queues}


def responses(rows: Rows, serials: Rows) -> dict[str, int]:
    """How often these requests were answered with each response code; 'none': not at all."""
    found: dict[str, int] = {}
    for outcome in rows[np.isin(rows[:, COLUMN['serial']], serials), COLUMN['outcome']]:
        code = RESPONSES.get(record.OUTCOMES[outcome], 'none')
        found[code] = found.get(code, 0) + 1
    return dict(sorted(found.items()))


def slow(rows: Rows, cpu_hz: int) -> dict[str, int]:
    """How many completed requests took more than 1 s, and more than 30 s."""
    done = rows[rows[:, COLUMN['t_complete']] > 0]
    latency = done[:, COLUMN['t_complete']] - done[:, COLUMN['t_arrive']]
    return {
        'above_1s': int((latency > cpu_hz).sum()),
        'above_30s': int((latency > 30 * cpu_hz).sum()),
    }


def first_completion(rows: Rows, resumed_at: int | None) -> int | None:
    """Cycles from the resumption of the vCPUs to the first completion; None: there was none."""
    after = rows[rows[:, COLUMN['t_complete']] > (resumed_at or 0), COLUMN['t_complete']]
    return None if resumed_at is None or not after.size else int(after.min()) - 1 - resumed_at


def unfetched(rows: Rows) -> Rows:
    """Requests that were published and never fetched."""
    return rows[(rows[:, COLUMN['t_avail']] > 0) & (rows[:, COLUMN['t_fetch']] == 0)]


def open_requests(rows: Rows) -> tuple[Rows, int]:
    """Serials of what is with the device now, and how many of them it has not fetched."""
    published = rows[(rows[:, COLUMN['t_avail']] > 0) & (rows[:, COLUMN['t_complete']] == 0)]
    return published[:, COLUMN['serial']].copy(), len(unfetched(published))


def phases_ns(spent: dict[str, int], names: Sequence[str], cpu_hz: int) -> dict[str, int]:
    """Cycles by phase as ns by phase; they add up to the ns of the sum."""
    found, before = {}, 0
    for name in names:
        after = before + spent.get(name, 0)
        found[name] = int(cycles_to_ns(after, cpu_hz)) - int(cycles_to_ns(before, cpu_hz))
        before = after
    return found


def stranded(rows: Rows) -> str | None:
    """A sentence where requests stand in a ring whose kick was consumed."""
    left = unfetched(rows)
    if not left.size:
        return None
    return (
        f'liveness: {len(left)} requests stay in the ring, the first is serial '
        f'{left[0, COLUMN["serial"]]}: their kick was consumed while the endpoint was cleared, '
        'SET_ENDPOINT queues nothing, and the Linux driver never lets a request time out'
    )


def without_resubmissions(
    rows: Rows, left_behind: Sequence[int], violations: list[str]
) -> list[str]:
    """What an in-flight region has had submitted again may be fetched twice, and once done.

    `left_behind`: the serials that such a region had.
    """
    again = np.isin(rows[:, COLUMN['serial']], left_behind)
    fetched = rows[:, COLUMN['fetched']]
    if not len(left_behind) or (fetched[~again] != 1).any() or (fetched > 2).any():
        return violations
    return [v for v in violations if not ('conservation' in v and 'not fetched' in v)]
