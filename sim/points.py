"""A point of a sweep on disk: what a run left under its id, and what a failed one left."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sim.config import Config
from sim.folders import remove_folder, whole_folder
from sim.jit import MODEL_DIGEST

FAILED = 'failed'  # folder of the failed points, beside the finished ones


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A point that went wrong: `label` names it among others, `place` holds its config.toml."""

    label: str
    message: str
    seed: int
    place: Path

    @property
    def replay(self) -> str:
        """The command that does it again."""
        return f'python -m sim run {self.place / "config.toml"}'

    def __str__(self) -> str:
        return f'{self.label}: {self.message} (seed {self.seed}; again: {self.replay})'


def is_finished(place: Path) -> bool:
    """Does the point lie there, simulated by this model? Another model's results are stale."""
    try:
        return bool(load_report(place)['provenance']['model'] == MODEL_DIGEST)
    except (OSError, ValueError, KeyError):
        return False


def load_report(place: Path) -> dict[str, Any]:
    """The report.json of a finished point."""
    report: dict[str, Any] = json.loads((place / 'report.json').read_text(encoding='utf-8'))
    return report


def load_requests(place: Path) -> pd.DataFrame:
    """The request table of a finished point (none with run.record=histogram)."""
    return pd.read_parquet(place / 'requests.parquet')


def load_latencies(
    place: Path, time: str = 'latency_ns'
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The measured latencies of a finished point: times in ns, ascending, and how many of each.

    Exact where every request was kept, else the midpoints of the histogram's buckets.
    """
    report = load_report(place)
    if report['record'] == 'full':
        requests = load_requests(place)
        wanted = requests['measured'] & (requests['op'] != 'flush')
        counted = requests.loc[wanted, time].astype('int64').value_counts().sort_index()
    else:
        table = pd.read_parquet(place / 'histograms.parquet')
        wanted = (table['time'] == time) & (table['op'] != 'flush')
        counted = table[wanted].groupby('value_ns')['requests'].sum()
    return counted.index.to_numpy(), counted.to_numpy()


def save_files(root: Path, config: Config, files: dict[str, bytes]) -> None:
    """Put what was computed elsewhere under its id; if somebody was quicker, theirs stays."""
    place = root / config.id
    with whole_folder(place, lambda: is_finished(place)) as part:
        for name, content in files.items():
            (part / name).write_bytes(content)


def save_failure(root: Path, config: Config, label: str, message: str, trace: str) -> Failure:
    """Leave the config and the error of a failed point under failed/<id>."""
    place = root / FAILED / config.id
    with whole_folder(place) as part:
        (part / 'config.toml').write_text(config.to_toml(), encoding='utf-8')
        (part / 'error.txt').write_text(trace or message + '\n', encoding='utf-8')
    return Failure(label=label, message=message, seed=config.run.seed, place=place)


def forget_failure(root: Path, config: Config) -> None:
    """The point has been finished after all."""
    if (root / FAILED / config.id).exists():
        remove_folder(root / FAILED / config.id)
