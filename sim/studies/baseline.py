"""The baseline of sim regress: text files that a reviewer reads, one folder.

    manifest.csv            scenario,points,replications: what there has to be
    NAME.csv                metric,value,unit of the scenario itself
    replications/NAME.csv   a row per replication: its digest and the metrics tested in pairs

The replications are what a paired test needs. They are kept in place of latencies of single
requests because a percentile and a rate have one value per run, because runs are independent and
requests of one run are not, and because ten rows can be read.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sim.errors import ConfigError
from sim.folders import whole_folder

MANIFEST = 'manifest.csv'
REPLICATIONS = 'replications'
COLUMNS = ('metric', 'value', 'unit')
DEFINITION = 'scenario'  # the metric that says which scenario it was
UNITS = {
    'outcome': 'text', 'mbps': 'Mbit/s', 'dirty_pages_rate': '1/s', 'transferred_bytes': 'bytes',
    'total': 'bytes', 'transferred': 'bytes', 'remaining': 'bytes', 'normal_bytes': 'bytes',
    'precopy_bytes': 'bytes', 'downtime_bytes': 'bytes', 'page_size': 'bytes',
    'pages_per_second': '1/s',
}  # fmt: skip

Row = dict[str, str]


@dataclass(frozen=True)
class Record:
    """What is kept of a scenario, as it is printed: values by metric, a row per replication."""

    values: dict[str, str]
    replications: list[Row]

    @property
    def points(self) -> int:
        """How many values there are to compare; of a replication its digest."""
        return len(self.values) + len(self.replications)


@dataclass(frozen=True)
class Baseline:
    """A folder: records by scenario, and what its manifest promises: (points, replications)."""

    records: dict[str, Record]
    manifest: dict[str, tuple[int, int]]


def printed(value: float | str) -> str:
    """A value as it is kept and compared: twelve digits, whole numbers whole."""
    if isinstance(value, str):
        return value
    if float(value).is_integer() and abs(value) < 1 << 53:
        return str(int(value))
    return f'{value:.12g}'


def unit_of(metric: str) -> str:
    """The unit of a metric, by its name."""
    parts = metric.split('.')
    if parts[-1] in ('digest', 'event_digest', DEFINITION):
        return 'hash'
    for ending in ('ns', 'ms'):
        if any(part.endswith(f'_{ending}') for part in parts):
            return ending
    if parts[-1] == 'iops':
        return '1/s'
    if metric == 'simulated_seconds':
        return 's'
    if parts[0] == 'busy':
        return 'share'
    if '_per_' in parts[0]:
        return 'ratio'
    return UNITS.get(parts[-1], 'count')


# --------------------------------------------------------------------------------------- files ----


def read(folder: Path) -> Baseline:
    """Errors: ConfigError where there is none, or where it cannot be read."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise ConfigError(f'{folder}: holds no baseline ({MANIFEST} is missing); make one: --bless')
    promised = {}
    for row in _rows(manifest, ('scenario', 'points', 'replications')):
        try:
            promised[row['scenario']] = (int(row['points']), int(row['replications']))
        except ValueError:
            raise ConfigError(f'{manifest}: not a number in {",".join(row.values())}') from None
    records = {}
    for path in sorted(folder.glob('*.csv')):
        if path.name != MANIFEST:
            values = {row['metric']: row['value'] for row in _rows(path, COLUMNS)}
            pairs = folder / REPLICATIONS / path.name
            rows = _rows(pairs, ('replication', 'digest')) if pairs.is_file() else []
            records[path.stem] = Record(values, rows)
    return Baseline(records, promised)


def _rows(path: Path, columns: Sequence[str]) -> list[Row]:
    try:
        with open(path, encoding='utf-8', newline='') as file:
            table = csv.DictReader(file)
            rows = list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f'{path}: cannot be read ({error})') from None
    missing = [name for name in columns if name not in (table.fieldnames or ())]
    if missing:
        raise ConfigError(f'{path}: has no column {missing[0]}; make the baseline anew: --bless')
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise ConfigError(f'{path}:{number}: not as many values as columns')
    return rows


def write(folder: Path, records: Mapping[str, Record]) -> None:
    """Make the folder hold these and no others. Errors: ConfigError, also where it is not ours."""
    if any(folder.glob('*.csv')) and not (folder / MANIFEST).is_file():
        raise ConfigError(f'{folder}: holds CSV files that are no baseline; choose another folder')
    files = {
        MANIFEST: _text(
            ('scenario', 'points', 'replications'),
            ((name, r.points, len(r.replications)) for name, r in records.items()),
        )
    }
    for name, record in records.items():
        rows = ((metric, value, unit_of(metric)) for metric, value in record.values.items())
        files[f'{name}.csv'] = _text(COLUMNS, rows)
        columns = list(dict.fromkeys(key for row in record.replications for key in row))
        pairs = ([row.get(column, '') for column in columns] for row in record.replications)
        files[f'{REPLICATIONS}/{name}.csv'] = _text(columns, pairs)
    try:
        with whole_folder(folder / REPLICATIONS) as part:
            for name, text in files.items():
                if name.startswith(REPLICATIONS):
                    (part / Path(name).name).write_text(text, encoding='utf-8')
        for path in folder.glob('*.csv'):
            if path.name not in files:
                path.unlink()
        for name, text in files.items():
            if not name.startswith(REPLICATIONS):
                (folder / name).write_text(text, encoding='utf-8')
    except OSError as error:
        raise ConfigError(
            f'{folder}: cannot be written ({error.strerror or error}); choose another --baseline'
        ) from None


def _text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()
