"""What a fio job file says of its output, and its options as written: for --fio-json, --fio-logs.

Nothing here changes the simulation. Defaults and meanings are fio's (its manual; options.c, stat.c
of fio 3.33).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sim.errors import ConfigError, shown

Options = dict[str, str | None]  # as written; None: a key without a value

PERCENTILE_LIST = (1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 99.5, 99.9, 99.95, 99.99)
PERCENTILES_MAX = 20  # FIO_IO_U_LIST_MAX_LEN
KINDS = ('slat', 'clat', 'lat')
UNIFIED = {'none': 'none', '0': 'none', 'mixed': 'mixed', '1': 'mixed', 'both': 'both', '2': 'both'}
ON = ('', '1', 'true', 'yes', 'on')
OFF = ('0', 'false', 'no', 'off')


def _flag(text: str | None) -> bool:
    folded = (text or '').strip().lower()
    if folded not in (*ON, *OFF):
        raise ConfigError(f'{shown(text)} is neither 1 nor 0')
    return folded in ON


def _whole(low: int, high: int) -> Callable[[str | None], int]:
    def read(text: str | None) -> int:
        if text is None or not text.isdecimal() or not low <= int(text) <= high:
            raise ConfigError(f'{shown(text)} is no whole number from {low} to {high}')
        return int(text)

    return read


def _unified(text: str | None) -> str:
    folded = (text or '1').strip().lower()
    if folded not in UNIFIED:
        raise ConfigError(f'{shown(text)} is none of none, mixed, both')
    return UNIFIED[folded]


def _percentiles(text: str | None) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in (text or '').split(':'))
    except ValueError:
        found = ()
    if not 0 < len(found) <= PERCENTILES_MAX or not all(0 < share <= 100 for share in found):
        raise ConfigError(
            f'{shown(text)} is no list of up to {PERCENTILES_MAX} numbers above 0 and up to 100, '
            'as in 50:99:99.9'
        )
    return tuple(sorted(found))


def _prefix(text: str | None) -> str:
    if text and ('/' in text or '\0' in text):
        raise ConfigError(f'{shown(text)}: the logs go to the folder of --fio-logs; write a name')
    return text or ''


MINUTE_MS = 60_000
READERS: dict[str, Callable[[str | None], Any]] = {
    'percentile_list': _percentiles,
    **{f'{kind}_percentiles': _flag for kind in KINDS},
    'unified_rw_reporting': _unified,
    'bwavgtime': _whole(1, MINUTE_MS),
    'iopsavgtime': _whole(1, MINUTE_MS),
    'write_lat_log': _prefix,
    'write_bw_log': _prefix,
    'write_iops_log': _prefix,
    'write_hist_log': _prefix,
    'log_avg_msec': _whole(0, MINUTE_MS),
    'log_hist_msec': _whole(0, MINUTE_MS),
    'log_hist_coarseness': _whole(0, 6),
    'log_offset': _flag,
    'log_max_value': _flag,
    'per_job_logs': _flag,
    'new_group': _flag,
}
# What each of them shapes, for the table of options.
MEANINGS = {
    'percentile_list': 'which percentiles stand in the file of `--fio-json`',
    'slat_percentiles': 'percentiles and bins of `slat_ns` too',
    'clat_percentiles': 'percentiles and bins of `clat_ns`; on by itself',
    'lat_percentiles': 'percentiles and bins of `lat_ns`, beside those of `clat_ns`',
    'unified_rw_reporting': 'none, mixed or both: one entry for all directions, or beside them',
    'bwavgtime': 'window of the `bw_*` samples, ms; a tenth of the run where that is shorter',
    'iopsavgtime': 'the same for the `iops_*` samples',
    'write_lat_log': 'which logs `--fio-logs` writes, and the beginning of their names',
    'write_bw_log': 'as `write_lat_log`',
    'write_iops_log': 'as `write_lat_log`',
    'write_hist_log': 'as `write_lat_log`; needs `log_hist_msec`',
    'log_avg_msec': 'window of the logs, ms; 0 is a line for each request',
    'log_hist_msec': 'window of the histogram log, ms',
    'log_hist_coarseness': 'halve the number of its bins so many times',
    'log_offset': 'a column with the offset of each request in bytes',
    'log_max_value': 'the most of a window instead of its mean',
    'per_job_logs': 'off: one log for all jobs instead of one for each clone',
    'new_group': 'begins a group for `group_reporting`',
}


def check(name: str, value: str | None) -> None:
    """ConfigError if the value of such an option makes no sense."""
    READERS[name](value)


@dataclass(frozen=True, kw_only=True)
class Reporting:
    """How one job wants to be reported; windows in ms."""

    percentile_list: tuple[float, ...] = PERCENTILE_LIST
    slat_percentiles: bool = False
    clat_percentiles: bool = True
    lat_percentiles: bool = False
    unified_rw_reporting: str = 'none'
    bwavgtime: int = 500
    iopsavgtime: int = 500
    write_lat_log: str | None = None
    write_bw_log: str | None = None
    write_iops_log: str | None = None
    write_hist_log: str | None = None
    log_avg_msec: int = 0
    log_hist_msec: int = 0
    log_hist_coarseness: int = 0
    log_offset: bool = False
    log_max_value: bool = False
    per_job_logs: bool = True
    new_group: bool = False

    @property
    def kinds(self) -> tuple[str, ...]:
        """The latencies that have percentiles and bins."""
        return tuple(kind for kind in KINDS if getattr(self, f'{kind}_percentiles'))


def reporting(options: Mapping[str, str | None]) -> Reporting:
    """What the options of a job say of its report."""
    return Reporting(
        **{name: READERS[name](value) for name, value in options.items() if name in READERS}
    )


@dataclass(frozen=True, kw_only=True)
class Written:
    """The options of one job as fio's JSON repeats them, and what they say of the report."""

    options: dict[str, str]  # of the job's own section
    reporting: Reporting = field(default_factory=Reporting)


def written(
    sections: Sequence[tuple[str, Options]], overrides: Mapping[str, str]
) -> tuple[dict[str, str], list[Written]]:
    """The 'global options', and the jobs in the order of the file.

    `sections`: name and options of each section in order; `overrides` are laid over every job. As
    in fio, a key without a value is not repeated.
    """
    shared: Options = {}
    jobs: list[Written] = []
    for name, options in sections:
        if name == 'global':
            shared |= options
            continue
        own = {**options, **overrides}
        jobs.append(Written(options=_given(own), reporting=reporting({**shared, **own})))
    return _given(shared), jobs


def _given(options: Options) -> dict[str, str]:
    return {name: value for name, value in options.items() if value is not None}


def folder(path: str | Path) -> Path:
    """A folder for files, made if it is missing; ConfigError where it cannot be."""
    place = Path(path)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f'{place}: cannot be a folder ({error.strerror or error})') from error
    return place
