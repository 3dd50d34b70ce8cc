"""Why the slowest requests are slow: their stages against those of requests at the median.

The middle is the tenth of the requests around the median, the tail the slowest share. Of each stage
the mean over the tail minus the mean over the middle is what it adds; stages add up to the latency,
so these differences add up to that of the latencies.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sim.analysis import stats
from sim.record import STAGES

MIDDLE = 0.1  # share of the requests, half of it on either side of the median
TAIL_LEAST = 10  # requests, as beyond a percentile that is reported
BATCHES = 64
CROWD = ('op', 'job', 'clone', 'queue', 'bytes', 'outcome')
OFTEN, SHARE_LEAST = 1.5, 0.05  # what is that much more frequent in the tail is named


def measured(requests: pd.DataFrame) -> pd.DataFrame:
    """The reads and writes behind the warm-up."""
    return requests[requests['measured'] & (requests['op'] != 'flush')]


def explain(requests: pd.DataFrame, share: float = 0.01) -> dict[str, Any]:
    """What makes the slowest `share` of the requests slow; times in ns.

    `requests` as of sim.analysis.frame.request_frame. Raises ValueError where the tail would be
    fewer than TAIL_LEAST requests.
    """
    done = measured(requests).sort_values(['latency_ns', 'serial'])
    count = round(len(done) * share)
    if count < TAIL_LEAST:
        need = int(np.ceil(TAIL_LEAST / share))
        raise ValueError(
            f'the slowest {share:.3%} of {len(done)} measured requests are {count}, {TAIL_LEAST} '
            f'are needed: measure {need} or more'
        )
    half = max(round(len(done) * MIDDLE / 2), 1)
    center = len(done) // 2
    middle, tail = done.iloc[max(center - half, 0) : center + half], done.iloc[-count:]
    stages = {stage: stage_entry(stage, done, middle, tail) for stage in STAGES}
    latency = stage_entry('latency', done, middle, tail)
    excess = latency['added']
    for entry in stages.values():
        entry['share'] = entry['added'] / excess if excess else 0.0
    worst_stage = (tail[_columns()].to_numpy(dtype=np.float64) - _means(middle)).argmax(axis=1)
    for number, stage in enumerate(STAGES):
        stages[stage]['largest_in'] = float((worst_stage == number).mean())
    return {
        'requests': len(done),
        'tail_requests': count,
        'share': share,
        'threshold_ns': int(tail['latency_ns'].iloc[0]),
        'latency': latency,
        'stages': dict(sorted(stages.items(), key=lambda item: -item[1]['added'])),
        'crowd': crowd(done, tail),
        'in_flight': {
            'all': _in_flight(requests, done),
            'tail': _in_flight(requests, tail),
        },
        'examples': {
            'typical': vector(nearest(middle, _means(middle))),
            'tail': vector(nearest(tail, _means(tail))),
            'worst': vector(done.iloc[-1]),
        },
    }


def _columns() -> list[str]:
    return [f'{stage}_ns' for stage in STAGES]


def _means(part: pd.DataFrame) -> npt.NDArray[np.float64]:
    return np.asarray(part[_columns()].fillna(0).to_numpy(dtype=np.float64).mean(axis=0))


def stage_entry(
    stage: str, done: pd.DataFrame, middle: pd.DataFrame, tail: pd.DataFrame
) -> dict[str, Any]:
    """Means in the middle and in the tail, what the tail adds, and its 95 % interval."""
    column = f'{stage}_ns'
    base = float(middle[column].fillna(0).mean())
    mean = float(tail[column].fillna(0).mean())
    return {
        'middle': base,
        'tail': mean,
        'added': mean - base,
        'half_width': _half_width(column, done, tail),
    }


def _half_width(column: str, done: pd.DataFrame, tail: pd.DataFrame) -> float | None:
    """Of the tail's mean, from batches of requests in the order of their serials."""
    serials = np.sort(done['serial'].to_numpy(dtype=np.int64))
    rank = np.searchsorted(serials, tail['serial'].to_numpy(dtype=np.int64))
    batch = rank * BATCHES // len(serials)
    times = tail[column].fillna(0).to_numpy(dtype=np.float64)
    sums = np.bincount(batch, weights=times, minlength=BATCHES)
    return stats.ratio_of_batches(sums, np.bincount(batch, minlength=BATCHES)).half_width


def crowd(done: pd.DataFrame, tail: pd.DataFrame) -> list[dict[str, Any]]:
    """What requests of the tail are more often than others: column, value, both shares."""
    found = []
    for column in CROWD:
        if done[column].nunique() < 2:
            continue
        usual = done[column].astype(str).value_counts(normalize=True)
        here = tail[column].astype(str).value_counts(normalize=True)
        for value, share in here.items():
            if share >= SHARE_LEAST and share >= OFTEN * usual[value]:
                found.append(
                    {
                        'column': column,
                        'value': str(value),
                        'tail': float(share),
                        'all': float(usual[value]),
                    }
                )
    return found


def _in_flight(requests: pd.DataFrame, part: pd.DataFrame) -> float:
    """Mean number of requests with driver and device when those of `part` were submitted."""
    begun = np.sort(requests['t_submit_ns'].dropna().to_numpy(dtype=np.int64))
    done = np.sort(requests['t_complete_ns'].dropna().to_numpy(dtype=np.int64))
    at = part['t_submit_ns'].to_numpy(dtype=np.int64)
    inside = np.searchsorted(begun, at, side='right') - np.searchsorted(done, at, side='right')
    return float(inside.mean())


def nearest(part: pd.DataFrame, means: npt.NDArray[np.float64]) -> pd.Series:
    """The request whose stages lie nearest to the means; the first of several."""
    away = np.abs(part[_columns()].fillna(0).to_numpy(dtype=np.float64) - means).sum(axis=1)
    return part.iloc[int(away.argmin())]


def vector(row: pd.Series) -> dict[str, Any]:
    """One request: what it was, its latency and its stages, ns."""
    return {
        'serial': int(row['serial']),
        'job': str(row['job']),
        'op': str(row['op']),
        'lba': int(row['lba']),
        'bytes': int(row['bytes']),
        'queue': int(row['queue']),
        't_arrive_ns': int(row['t_arrive_ns']),
        'latency_ns': int(row['latency_ns']),
        'stages_ns': {
            stage: 0 if pd.isna(row[f'{stage}_ns']) else int(row[f'{stage}_ns']) for stage in STAGES
        },
    }
