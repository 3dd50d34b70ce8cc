"""What a run measured, behind its warm-up: out of a full trace or out of histograms.

`of_run` reads a finished machine and answers with a Measured, which knows the times of requests by
clone and direction, the stages, and the batches that intervals rest on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from sim import agents, record, recorder
from sim.analysis import frame, stats
from sim.config import Config
from sim.histogram import HISTOGRAM_WORDS, Histogram
from sim.machine import Machine
from sim.units import cycles_to_ns

Words = npt.NDArray[np.int64]

KINDS = ('latency_ns', 'fio_lat_ns')
OPS = ('read', 'write')  # what latencies and IOPS are of; flushes are reported by themselves


class Times(Protocol):
    """Times in ns, all of them or a histogram."""

    @property
    def count(self) -> int:
        """How many."""

    @property
    def sum(self) -> int:
        """Their sum, ns."""

    @property
    def least(self) -> int:
        """The least, ns."""

    @property
    def most(self) -> int:
        """The most, ns."""

    def at_rank(self, rank: int) -> int | None:
        """The `rank`-th smallest, from 1; None where that cannot be said."""


class Exact:
    """Times that are all there."""

    def __init__(self, times_ns: Words) -> None:
        self.sorted = np.sort(times_ns)
        self.count = len(times_ns)
        self.sum = int(times_ns.sum())
        self.least, self.most = (int(self.sorted[i]) if self.count else 0 for i in (0, -1))

    def at_rank(self, rank: int) -> int:
        """The `rank`-th smallest, from 1."""
        return int(self.sorted[rank - 1])


class Source(Protocol):
    """Where the measured requests are read from.

    `clones` None is all of them, `op` None reads and writes; flushes only where asked for.
    """

    def times(self, kind: str, clones: Sequence[int] | None = None, op: str | None = None) -> Times:
        """Latencies, or fio's lats."""

    def span(self, clones: Sequence[int] | None = None) -> tuple[int, int]:
        """First and last completion, ns."""

    def stage(self, name: str) -> tuple[int, int]:
        """Sum of a stage's times in ns, and how many there are."""

    def batch_sums(self, metric: str) -> tuple[Words, Words]:
        """Per batch: sum of a kind of time or of a stage, and how many there are."""

    def batch_up_to(self, kind: str, ns: int) -> Words:
        """Per batch: how many times are not above that (or lie in the same bucket)."""


@dataclass
class Measured:
    """The measured part of a run.

    `marks` has a row per batch and one more: cycles, and the watched counters, when it began.
    """

    source: Source
    issued: int
    completed: int
    cut: int
    batches: slice  # those behind the cut, of those that are over
    batch_size: int  # in requests issued
    marks: Words
    watched: tuple[str, ...]
    jobs: dict[str, list[int]]  # clones by the name under which they are reported
    note: str = ''  # why there are no intervals

    def watched_in_batches(self, name: str) -> npt.NDArray[np.int64]:
        """Per batch, what a watched counter has grown by; 'cycles' is the time."""
        column = 0 if name == 'cycles' else 1 + self.watched.index(name)
        grown = np.diff(self.marks[:, column])
        return np.asarray(grown[self.batches])


def of_run(machine: Machine, config: Config) -> tuple[Measured, pd.DataFrame]:
    """What was measured, and the frame of the requests that kept their rows.

    Its column `measured` says who is behind the warm-up and completed.
    """
    tr = machine.tr
    counts = bool(tr[int(recorder.T_COUNTS)])
    kept = frame.request_frame(machine, config)
    serial_cut, cut_ns = int(tr[int(recorder.T_CUT_SERIAL)]), int(tr[int(recorder.T_CUT_NS)])
    pilot = int(tr[int(recorder.T_PILOT)])
    if counts:
        if pilot:
            cut_ns = automatic_cut(kept[kept['serial'] <= pilot])
            tr[int(recorder.T_CUT_NS)] = cut_ns
            recorder.count_pilot(tr, int(machine.st[int(agents.H_ROWS)]))
        issued = int(machine.st[int(agents.H_SERIAL)])
        source: Source = Counted(machine)
        completed, cut = int(tr[int(recorder.T_REAPED)]), int(tr[int(recorder.T_CUT)])
        every = int(tr[int(recorder.T_EVERY)])
        kept = kept[kept['serial'] % every == 0] if every else kept.iloc[:0]
        kept = kept.reset_index(drop=True)
    elif config.run.warmup == 'auto' and not cut_ns:
        cut_ns = automatic_cut(kept)
    late = (kept['serial'] > serial_cut) & (kept['t_arrive_ns'] >= cut_ns)
    kept['measured'] = (late & kept['t_complete_ns'].notna()).to_numpy(dtype=bool)
    if not counts:
        done = kept[kept['measured']]
        issued, cut = len(kept), int(len(kept) - late.sum())
        completed = int(kept['t_complete_ns'].notna().sum())
        source = Traced(done, machine)
    return _measured(machine, config, source, (issued, completed, cut), serial_cut, cut_ns), kept


def automatic_cut(requests: pd.DataFrame) -> int:
    """The time before which arrivals are warm-up: MSER-5 on latencies in order of completion."""
    done = requests[requests['op'] != 'flush'].dropna(subset=['t_complete_ns'])
    done = done.sort_values('t_complete_ns', kind='stable')
    if done.empty:
        return 0
    cut = stats.mser5(done['latency_ns'].to_numpy(dtype=np.int64))
    return int(done['t_arrive_ns'].iloc[cut - 1]) if cut else 0


def _measured(
    machine: Machine,
    config: Config,
    source: Source,
    numbers: tuple[int, int, int],
    serial_cut: int,
    cut_ns: int,
) -> Measured:
    tr = machine.tr
    begun, shift = int(tr[int(recorder.T_BATCH_COUNT)]), int(tr[int(recorder.T_BATCH_SHIFT)])
    words, at = int(tr[int(recorder.T_MARK_WORDS)]), int(tr[int(recorder.T_MARKS)])
    marks = tr[at : at + words * begun].reshape(begun, words)
    began_ns = cycles_to_ns(marks[:, 0], config.host.cpu_hz)
    behind = (np.arange(begun) << shift >= serial_cut) & (began_ns >= cut_ns)
    first = int(np.argmax(behind)) if behind.any() else begun
    over = max(begun - 1, 0)
    note = ''
    if len(config.phases) > 1:
        note = 'phases follow each other: there is no steady state; use replications'
    elif over - first < stats.BATCHES_LEAST:
        note = f'the run is too short: {max(over - first, 0)} batches of {1 << shift} requests'
        note += f' behind the warm-up, {stats.BATCHES_LEAST} are needed'
    issued, completed, cut = numbers
    return Measured(
        source=source,
        issued=issued,
        completed=completed,
        cut=cut,
        batches=slice(first, over),
        batch_size=1 << shift,
        marks=marks,
        watched=machine.watched,
        jobs=_jobs(machine, config),
        note=note,
    )


def _jobs(machine: Machine, config: Config) -> dict[str, list[int]]:
    """Clones per job, or each by itself without group_reporting, as fio groups its report."""
    groups: dict[str, list[int]] = {}
    for index, job in enumerate(config.jobs):
        clones = [plan.number for plan in machine.plans if plan.job == index]
        if job.numjobs > 1 and not job.group_reporting:
            groups |= {f'{job.name}.{n}': [clone] for n, clone in enumerate(clones)}
        else:
            groups[job.name] = clones
    return groups


class Traced:
    """A frame of the measured requests (sim.analysis.frame.request_frame)."""

    def __init__(self, done: pd.DataFrame, machine: Machine) -> None:
        self.flushes = done[done['op'] == 'flush']
        done = self.done = done[done['op'] != 'flush']
        self.begun = int(machine.tr[int(recorder.T_BATCH_COUNT)])
        serial = done['serial'].to_numpy(dtype=np.int64)
        self.batch = (serial - 1) >> int(machine.tr[int(recorder.T_BATCH_SHIFT)])
        self.columns = {kind: self._column(kind) for kind in KINDS}
        self.clone = done['clone'].to_numpy(dtype=np.int64)
        self.op = (done['op'] == 'write').to_numpy()
        self.complete = self._column('t_complete_ns')

    def _column(self, name: str) -> Words:
        """int64; what is missing counts as 0, and only where it cannot be missing for latencies."""
        return np.asarray(self.done[name].fillna(0).to_numpy(dtype=np.int64))

    def _of(self, clones: Sequence[int] | None, op: str | None = None) -> Any:
        if clones is None and op is None:
            return slice(None)
        chosen = np.ones(len(self.clone), bool) if clones is None else np.isin(self.clone, clones)
        return chosen if op is None else chosen & (self.op == (op == 'write'))

    def times(self, kind: str, clones: Sequence[int] | None = None, op: str | None = None) -> Times:
        """See Source."""
        if op == 'flush':
            mine = clones is None or self.flushes['clone'].isin(clones)
            return Exact(self.flushes.loc[mine, kind].fillna(0).to_numpy(dtype=np.int64))
        return Exact(self.columns[kind][self._of(clones, op)])

    def span(self, clones: Sequence[int] | None = None) -> tuple[int, int]:
        """See Source."""
        times = self.complete[self._of(clones)]
        return (int(times.min()), int(times.max())) if len(times) else (0, 0)

    def stage(self, name: str) -> tuple[int, int]:
        """See Source."""
        column = self.done[f'{name}_ns']
        return int(column.sum()), int(column.notna().sum())

    def batch_sums(self, metric: str) -> tuple[Words, Words]:
        """See Source."""
        column = self.done[metric]
        present = column.notna().to_numpy()
        batch, times = self.batch[present], column[present].to_numpy(dtype=np.int64)
        sums = np.zeros(self.begun, dtype=np.int64)
        np.add.at(sums, batch, times)
        return sums, np.bincount(batch, minlength=self.begun)

    def batch_up_to(self, kind: str, ns: int) -> Words:
        """See Source."""
        return np.bincount(self.batch[self.columns[kind] <= ns], minlength=self.begun)


class Counted:
    """The recorder's histograms."""

    def __init__(self, machine: Machine) -> None:
        self.tr = machine.tr
        self.clones = range(len(machine.plans))
        self.begun = int(self.tr[int(recorder.T_BATCH_COUNT)])
        self.batch_at = int(self.tr[int(recorder.T_BATCHES)])

    def _clone(self, clone: int) -> int:
        return int(self.tr[int(recorder.T_JOBS)]) + recorder.CLONE_WORDS * clone

    def times(
        self, kind: str, clones: Sequence[int] | None = None, op: str | None = None
    ) -> Histogram:
        """See Source."""
        total = Histogram.of(np.zeros(0, dtype=np.int64))
        for clone in self.clones if clones is None else clones:
            for number, name in enumerate(record.OPS):
                if op == name or (op is None and name in OPS):
                    place = HISTOGRAM_WORDS * (2 * number + KINDS.index(kind))
                    at = self._clone(clone) + int(recorder.C_HISTOGRAMS) + place
                    total = total + Histogram.read(self.tr, at)
        return total

    def span(self, clones: Sequence[int] | None = None) -> tuple[int, int]:
        """See Source."""
        bases = [self._clone(clone) for clone in (self.clones if clones is None else clones)]
        firsts = [int(self.tr[base + int(recorder.C_FIRST)]) for base in bases]
        lasts = [int(self.tr[base + int(recorder.C_LAST)]) for base in bases]
        return min((first - 1 for first in firsts if first), default=0), max(lasts, default=0)

    def stage(self, name: str) -> tuple[int, int]:
        """See Source."""
        found = self.stage_histogram(name)
        return found.sum, found.count

    def stage_histogram(self, name: str) -> Histogram:
        """The times of one stage."""
        at = int(self.tr[int(recorder.T_STAGES)]) + HISTOGRAM_WORDS * record.STAGES.index(name)
        return Histogram.read(self.tr, at)

    def _batches(self, kind: str) -> list[Histogram]:
        first = self.batch_at + HISTOGRAM_WORDS * KINDS.index(kind)
        places = first + recorder.BATCH_WORDS * np.arange(self.begun)
        return [Histogram.read(self.tr, at) for at in places.tolist()]

    def batch_sums(self, metric: str) -> tuple[Words, Words]:
        """See Source."""
        if metric in KINDS:
            found = self._batches(metric)
            return np.array([h.sum for h in found]), np.array([h.count for h in found])
        stage = int(recorder.E_SUMS) + record.STAGES.index(metric.removesuffix('_ns'))
        at = self.batch_at + recorder.BATCH_WORDS * np.arange(self.begun) + stage
        return self.tr[at], self.tr[at + len(record.STAGES)]

    def batch_up_to(self, kind: str, ns: int) -> Words:
        """See Source."""
        return np.array([round(h.share_up_to(ns) * h.count) for h in self._batches(kind)])


def histograms(measured: Measured) -> pd.DataFrame:
    """The histograms of a run that counted its requests, as one frame; empty for a full trace."""
    source = measured.source
    parts = {}
    if isinstance(source, Counted):
        for job, clones in measured.jobs.items():
            for op in record.OPS:
                for kind in KINDS:
                    parts[job, op, kind] = source.times(kind, clones, op)
        for stage in record.STAGES:
            parts['', '', f'{stage}_ns'] = source.stage_histogram(stage)
    return frame.histogram_frame({name: part for name, part in parts.items() if part.count})
