"""Many runs: each under its own id, finished points kept, the next start goes on from them.

A sweep is "run the ids that are missing". A point is written whole or not at all, so that a sweep
that was interrupted loses only what was running.
"""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import joblib
import pandas as pd

from sim.config import Config
from sim.errors import ConfigError
from sim.jit import MODEL_DIGEST
from sim.run import run

Progress = Callable[[int, int, str], None]


def run_point(config: Config, folder: Path) -> Path:
    """Run one config unless its results are there; returns where they lie."""
    place = folder / config.id
    if not is_finished(place):
        run(config).save(folder)
    return place


def is_finished(place: Path) -> bool:
    """Does the point lie there, simulated by this model? Another model's results are stale."""
    try:
        return bool(load_report(place)['provenance']['model'] == MODEL_DIGEST)
    except (OSError, ValueError, KeyError):
        return False


def sweep(
    configs: Sequence[Config], folder: str | Path, *, jobs: int = 1, progress: Progress = print
) -> list[Path]:
    """Run every config into `folder`; results in the order of `configs`.

    `jobs` processes run at once; `progress(done, total, label)` is told of every finished point.
    Errors: ConfigError where the folder cannot be written or `jobs` makes no sense.
    """
    root = Path(folder)
    if jobs < 1:
        raise ConfigError(f'--jobs {jobs}: at least one process is needed')
    try:
        root.mkdir(parents=True, exist_ok=True)
        (root / '.writable').touch()
        (root / '.writable').unlink()
    except OSError as error:
        raise ConfigError(
            f'{root}: cannot write results ({error.strerror}); choose another --out'
        ) from error
    missing = [c for c in configs if not is_finished(root / c.id)]
    done = len(configs) - len(missing)
    if done:
        progress(done, len(configs), 'already there')
    for label in _run_all(missing, root, jobs):
        done += 1
        progress(done, len(configs), label)
    return [root / config.id for config in configs]


def _run_all(configs: Sequence[Config], root: Path, jobs: int) -> Iterable[str]:
    if not configs:
        return
    first, rest = configs[0], configs[1:]
    yield _timed(first, root)  # compiles the kernels once, before anybody else needs them
    if jobs == 1:
        for config in rest:
            yield _timed(config, root)
        return
    parallel = joblib.Parallel(n_jobs=jobs, return_as='generator_unordered')
    yield from parallel(joblib.delayed(_timed)(config, root) for config in rest)


def _timed(config: Config, root: Path) -> str:
    began = time.perf_counter()
    run_point(config, root)
    depths = '/'.join(str(job.iodepth) for job in config.jobs)
    return f'{config.id} iodepth={depths} in {time.perf_counter() - began:.1f} s'


def load_report(place: Path) -> dict[str, Any]:
    """The report.json of a finished point."""
    report: dict[str, Any] = json.loads((place / 'report.json').read_text(encoding='utf-8'))
    return report


def load_requests(place: Path) -> pd.DataFrame:
    """The request table of a finished point (none with run.record=histogram)."""
    return pd.read_parquet(place / 'requests.parquet')


def load_latencies(place: Path, time: str = 'latency_ns') -> tuple[Any, Any]:
    """The measured latencies of a finished point: times in ns, ascending, and how many of each.

    Exact where every request was kept, else the midpoints of the histogram's buckets.
    """
    report = load_report(place)
    if report['record'] == 'full':
        requests = load_requests(place).sort_values('serial').iloc[report['warmup_requests'] :]
        counted = requests[time].dropna().astype('int64').value_counts().sort_index()
    else:
        table = pd.read_parquet(place / 'histograms.parquet')
        counted = table[table['time'] == time].groupby('value_ns')['requests'].sum()
    return counted.index.to_numpy(), counted.to_numpy()
