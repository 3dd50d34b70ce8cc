"""What became of the guest's requests once a VM was stopped and went on elsewhere.

A hand-over has any number of fates at once; CLEAN is to have none of them:

    doubled     a request was taken up, answered or given back more than once
    lost        the host took a request up and it is never given back, or a WRITE that was
                acknowledged is not on the disk
    stale       a page of the destination is older than the source's, or a READ brought old data
    broken      any other sentence of a checker
    stranded    a request stands in a ring and nobody looks at it
    failed_io   a request was given back with an error
    stalled     a request took more than a second

Of these `stranded` is what the Linux driver would wait for, too, and for ever: the kick was
consumed while the queue had no backend, SET_ENDPOINT queues nothing, and the guest suppresses its
next kicks.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sim import record
from sim.analysis.frame import COLUMN
from sim.control.felt import FINE, Rows

DOUBLED, LOST, STALE, BROKEN = 'doubled', 'lost', 'stale', 'broken'
STRANDED, FAILED_IO, STALLED, CLEAN = 'stranded', 'failed_io', 'stalled', 'clean'
FATES = (DOUBLED, LOST, STALE, BROKEN, STRANDED, FAILED_IO, STALLED)  # the worst first

# Sentences that say of unfinished requests once more what the rows say.
OF_UNFINISHED = (
    'conservation', 'end:', "Little's law", 'end to end: liveness', 'end to end: rings',
)  # fmt: skip
OF_RESUBMITTED = ('conservation', 'end to end: doubled')
SAID_OF = {
    STALE: ('stale page', 'data:', 'end to end: page'),
    LOST: ('end to end: lost', 'end to end: stale', 'end to end: torn'),
    DOUBLED: ('end to end: doubled',),
}  # beside what the rows say
LIVES = 12  # requests of which lives() tells


@dataclass(frozen=True)
class Fate:
    """`fates` out of FATES, the worst first; `sentences`: what checkers said; `told`: in words."""

    fates: tuple[str, ...]
    sentences: tuple[str, ...]
    told: tuple[str, ...]

    @property
    def worst(self) -> str:
        """The worst fate; CLEAN where there is none."""
        return self.fates[0] if self.fates else CLEAN


def fate_of(
    rows: Rows,
    sentences: Iterable[str],
    cpu_hz: int,
    gone: int | None = None,
    again: Sequence[int] = (),
) -> Fate:
    """The fate of all requests of a run that has come to rest.

    `rows` of the trace (sim.record.COLUMNS), `sentences` of every checker. `gone`: the cycle at
    which the VM left its first host; what stays in a ring must have been published before, or
    stand behind such a request, else it is no stranded kick and counts as broken. `again`: serials
    that an in-flight region has had submitted again, which may be fetched twice.
    """
    said = list(sentences)
    found: dict[str, str] = {}

    def note(fate: str, which: Rows, what: str) -> None:
        if which.size:
            first = which[0]
            found[fate] = (
                f'{len(which)} requests {what}; the first is serial {first[COLUMN["serial"]]} of '
                f'queue {first[COLUMN["queue"]]}'
            )

    unfinished = rows[(rows[:, COLUMN['published']] > 0) & (rows[:, COLUMN['t_complete']] == 0)]
    fetched = unfinished[:, COLUMN['fetched']] > 0
    counts = rows[:, [COLUMN[name] for name in ('fetched', 'used', 'completed')]]
    counts[:, 0] -= np.isin(rows[:, COLUMN['serial']], again) & (counts[:, 0] == 2)
    done = rows[rows[:, COLUMN['t_complete']] > 0]
    latency = done[:, COLUMN['t_complete']] - done[:, COLUMN['t_arrive']]
    note(DOUBLED, rows[(counts > 1).any(axis=1)], 'were taken up or answered more than once')
    note(LOST, unfinished[fetched], 'were taken up and are never given back')
    note(STRANDED, unfinished[~fetched], 'stay in the ring, and nobody looks at them')
    note(FAILED_IO, done[~np.isin(done[:, COLUMN['outcome']], FINE)], 'failed')
    note(STALLED, done[latency > cpu_hz], 'took more than a second')
    for name, heads in SAID_OF.items():
        if name == DOUBLED and len(again):
            continue
        told = [sentence for sentence in said if sentence.startswith(heads)]
        if told:
            found.setdefault(name, told[0])
    explained = [head for heads in SAID_OF.values() for head in heads]
    if unfinished.size or DOUBLED in found:
        explained += OF_UNFINISHED
    if len(again):  # what was performed and not answered is performed once more, to the same end
        explained += OF_RESUBMITTED
    rest = [sentence for sentence in said if not sentence.startswith(tuple(explained))]
    if gone is not None and not _consumed(unfinished[~fetched], gone):
        rest.append('liveness: a request that was published after the hand-over is never fetched')
    if rest:
        found[BROKEN] = rest[0]
    fates = tuple(fate for fate in FATES if fate in found)
    return Fate(fates, tuple(said), tuple(f'{fate}: {found[fate]}' for fate in fates))


def _consumed(stranded: Rows, gone: int) -> bool:
    """Does each queue's oldest stranded request come from before the hand-over?"""
    for queue in np.unique(stranded[:, COLUMN['queue']]):
        mine = stranded[stranded[:, COLUMN['queue']] == queue]
        if int(mine[:, COLUMN['t_avail']].min()) - 1 > gone:
            return False
    return True


def stages(rows: Rows) -> dict[str, int]:
    """How many open requests have come how far: by the last timestamp that they have.

    Those that the driver has begun with and not given back; 'submit' ... 'irq' of sim.record.
    """
    open_ones = rows[(rows[:, COLUMN['t_submit']] > 0) & (rows[:, COLUMN['t_complete']] == 0)]
    times = open_ones[:, 1 : len(record.TIMESTAMPS)] > 0
    last = times.shape[1] - 1 - np.argmax(times[:, ::-1], axis=1)
    names, counts = np.unique(last, return_counts=True)
    return {record.STAGES[int(i)]: int(n) for i, n in zip(names, counts, strict=True)}


def lives(rows: Rows, since: int) -> list[tuple[int, str]]:
    """(cycle, text) of everything that happened to the requests that were open at a cycle, and of
    the first of those that came later.
    """
    submit, complete = rows[:, COLUMN['t_submit']], rows[:, COLUMN['t_complete']]
    open_ones = rows[(submit > 0) & ((complete == 0) | (complete - 1 > since))][:LIVES]
    found = []
    for row in open_ones:
        who = f'request {row[COLUMN["serial"]]} ({record.OPS[row[COLUMN["op"]]]})'
        for name in record.TIMESTAMPS[1:]:
            at = int(row[COLUMN[name]])
            if at:
                ending = ''
                if name == 't_complete':
                    ending = f': {record.OUTCOMES[row[COLUMN["outcome"]]]}'
                found.append((at - 1, f'{who} {name[2:]}{ending}'))
        if row[COLUMN['t_complete']] == 0:
            last = max(int(row[COLUMN[name]]) for name in record.TIMESTAMPS)
            found.append((last - 1, f'{who} ... and that is the last of it'))
    return found


def tally(fates: Sequence[Fate]) -> dict[str, int]:
    """{'boundaries': all, 'clean': n, each of FATES: n}: a boundary may have several fates."""
    counts = {fate: sum(fate in each.fates for each in fates) for fate in FATES}
    clean = sum(not each.fates for each in fates)
    return {'boundaries': len(fates), CLEAN: clean, **counts}
