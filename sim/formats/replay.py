"""A trace as a job replays it: scaled, aligned, cut to what the LUN and the driver can take.

Nothing is changed in silence: each way in which requests were changed or left out is counted, and
said in a note and in the report.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.errors import ConfigError
from sim.formats.disk_keys import Target
from sim.formats.traces import DISCARD, FLUSH, READ, WRITE, Ints, Trace, read_trace

SECTOR = 512

# What is counted, and how a note says it. {} is the number.
COUNTS = {
    'streams': 'its {} files or devices all go to the one LUN',
    'merges': '{} requests were merged into others before they were issued; replay_action=d '
    'replays them as issued',
    'reordered': '{} requests were put in order of time between CPUs',
    'passthrough': '{} SCSI commands of its own are left out',
    'preflush': '{} writes begin with a flush, which goes beside them and not before',
    'fua': '{} writes ask for FUA, which is not modelled',
    'skipped': '{} requests are left out by replay_skip',
    'discards': '{} discards are left out: LIO offers none by default (emulate_tpu=0)',
    'flushes_unsent': '{} flushes are left out: the disk has no volatile write cache '
    '(target.write_cache), so Linux sends it none',
    'empty': '{} requests without a length are left out',
    'unaligned': '{} requests were widened to whole sectors of 512 bytes',
    'beyond_end': '{} requests beyond the end of the LUN are left out',
    'wrapped': '{} requests beyond the end of the LUN start over at its beginning',
    'cut_at_end': '{} requests were cut at the end of the LUN',
    'split': '{} requests were too long for one command and are split',
}


@dataclass(frozen=True, kw_only=True)
class Replay:
    """The requests of one loop: equally long int64 arrays, and what was done to the trace.

    `t_ns` counts from the first request; without times, or with replay_no_stall, it is all zero and
    `timed` is False.
    """

    sha256: str
    form: str
    timed: bool
    t_ns: Ints
    op: Ints
    lba: Ints
    blocks: Ints
    counts: dict[str, int]

    @property
    def notes(self) -> list[str]:
        """What a reader should know, one sentence each."""
        told = [text.format(self.counts[name]) for name, text in COUNTS.items() if self.told(name)]
        if not self.timed:
            told.append('is replayed without times, as a closed loop of iodepth')
        return told

    def told(self, name: str) -> bool:
        """Is there something to say of this count?"""
        return self.counts[name] > (name == 'streams')

    @property
    def blocks_max(self) -> int:
        """Of the longest request."""
        return int(self.blocks.max(initial=1))


def load_replay(job: Mapping[str, Any], *, where: str, disk: Target, bytes_max: int) -> Replay:
    """Read the trace that the keys of a job name, and make it fit.

    `bytes_max` is the longest transfer of a command. Errors: ConfigError, for a trace that cannot
    be read or is not the one whose hash the job gives, and where nothing of it is left.
    """
    try:
        trace = read_trace(job['read_iolog'], action=job['replay_action'])
    except ConfigError as error:
        raise ConfigError(f'{where}: {error}' if where else str(error)) from None
    wanted = job['read_iolog_sha256']
    if wanted is not None and wanted != trace.sha256:
        raise ConfigError(
            f'{where}: {trace.path}: is not the trace that read_iolog_sha256 names (it has '
            f'{trace.sha256[:12]}..., not {wanted[:12]}...); find that one, or take the key out'
        )
    replay = fitted(trace, job, disk=disk, bytes_max=bytes_max)
    if replay.op.size == 0:
        raise ConfigError(
            f'{where}: {trace.path}: nothing is left to replay of {trace.op.size} requests: '
            + '; '.join(replay.notes)
        )
    return replay


def fitted(trace: Trace, job: Mapping[str, Any], *, disk: Target, bytes_max: int) -> Replay:
    """The trace through the replay_* keys and onto the LUN."""
    counts = dict.fromkeys(COUNTS, 0) | {'records': trace.op.size, 'streams': len(trace.streams)}
    counts |= trace.counts
    timed = trace.t_ns is not None and not job['replay_no_stall']
    times = trace.t_ns if trace.t_ns is not None else np.zeros(trace.op.size, dtype=np.int64)
    t_ns = times * 100 // job['replay_time_scale'] if timed else np.zeros_like(times)
    offset = trace.offset // job['replay_scale']
    offset -= offset % job['replay_align'] if job['replay_align'] > SECTOR else 0
    rows = _chosen(trace, job['replay_skip'] or '', disk.has_volatile_cache, counts)
    t_ns, op, offset, length = t_ns[rows], trace.op[rows], offset[rows], trace.length[rows]
    begin = offset // SECTOR
    end = -(-(offset + length) // SECTOR)
    data = op != FLUSH
    counts['unaligned'] = int((data & ((offset | length) % SECTOR != 0)).sum())
    begin, end = np.where(data, begin, 0), np.where(data, end, 0)
    begin, end = _on_the_lun(begin, end, disk.size // SECTOR, bool(job['replay_wrap']), counts)
    keep = ~data | (end > begin)
    t_ns, op, begin, end = t_ns[keep], op[keep], begin[keep], end[keep]
    t_ns, op, begin, blocks = _split(t_ns, op, begin, end - begin, bytes_max // SECTOR, counts)
    if timed and t_ns.size:
        t_ns = t_ns - t_ns[0]
    counts['requests'] = int(op.size)
    return Replay(
        sha256=trace.sha256,
        form=trace.form,
        timed=timed,
        t_ns=t_ns,
        op=op,
        lba=begin,
        blocks=blocks,
        counts=counts,
    )


def _chosen(trace: Trace, skip: str, flushes: bool, counts: dict[str, int]) -> Any:
    """Which requests are replayed at all."""
    codes = {'read': READ, 'write': WRITE, 'sync': FLUSH, 'trim': DISCARD}
    unwanted = [codes[word.strip()] for word in skip.split(',') if word.strip()]
    skipped = np.isin(trace.op, unwanted)
    discards = ~skipped & (trace.op == DISCARD)
    empty = ~skipped & ~discards & (trace.op != FLUSH) & (trace.length == 0)
    counts['skipped'] = int(skipped.sum())
    counts['discards'] = int(discards.sum())
    unsent = ~skipped & (trace.op == FLUSH) & (not flushes)
    counts['empty'] = int(empty.sum())
    counts['flushes_unsent'] = int(unsent.sum())
    return ~(skipped | discards | empty | unsent)


def _on_the_lun(
    begin: Ints, end: Ints, lun: int, wrap: bool, counts: dict[str, int]
) -> tuple[Ints, Ints]:
    """Requests of the LUN's `lun` sectors; what is left out has no length."""
    outside = (begin >= lun) & (end > begin)
    if wrap:
        counts['wrapped'] = int(outside.sum())
        length = end - begin
        begin = np.where(outside, begin % lun, begin)
        end = begin + length
    else:
        counts['beyond_end'] = int(outside.sum())
        end = np.where(outside, begin, end)
    across = (begin < lun) & (end > lun)
    counts['cut_at_end'] = int(across.sum())
    return begin, np.where(across, lun, end)


def _split(
    t_ns: Ints, op: Ints, begin: Ints, blocks: Ints, most: int, counts: dict[str, int]
) -> tuple[Ints, Ints, Ints, Ints]:
    """blk-mq's bio_split: requests of at most `most` sectors that come at the same time."""
    pieces = np.maximum(-(-blocks // most), 1)
    counts['split'] = int((pieces > 1).sum())
    row = np.repeat(np.arange(op.size), pieces)
    nth = np.arange(row.size) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    start = begin[row] + nth * most
    return t_ns[row], op[row], start, np.minimum(blocks[row] - nth * most, most)
