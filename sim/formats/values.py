"""From what is written to what is meant: one value of a config, by the Key that describes it."""

import math
import operator
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from sim.errors import ConfigError, shown
from sim.formats import Given
from sim.formats.key import Key
from sim.formats.spread import Spread, parse_spread
from sim.formats.work_values import (
    Distribution,
    Pair,
    Sizes,
    parse_distribution,
    parse_pair,
    parse_range,
    parse_split,
    percent,
)
from sim.formats.worker_map import WorkerMap, numbers, parse_map
from sim.units import format_size, format_time, parse_size, parse_time_ns

WORDS = {
    **dict.fromkeys(('on', 'yes', 'true', 'y', '1'), True),
    **dict.fromkeys(('off', 'no', 'false', 'n', '0'), False),
}


def convert(key: Key, name: str, given: Given) -> Any:
    """The value that `given` means in the key `name` ('workload.bs'); ConfigError if none."""
    try:
        if isinstance(given.value, str) and not given.value.strip():
            raise ConfigError('the value is empty; write one or take the key out')
        value = READERS[key.kind](key, given.value)
        numbers = [value.read, value.write] if isinstance(value, Pair) else [value]
        if any(isinstance(n, int) and not key.low <= n <= key.high for n in numbers):
            raise ConfigError(f'{shown(given.value)} is out of range: {limits(key)}')
        if key.only and value not in key.only:
            wanted = ', '.join(map(word, key.only))
            raise ConfigError(f'{word(value)} is not modelled yet; use {wanted}')
    except ConfigError as error:
        where = f'{given.where}: ' if given.where else ''
        raise ConfigError(f'{where}{name}: {error}') from None
    return value


def limits(key: Key) -> str:
    """The range of a key in words."""
    sizes = dict.fromkeys(('size', 'sizes', 'extent'), format_size)
    written = {**sizes, 'time': format_time, 'spread': format_time}.get(key.kind, str)
    return f'{written(key.low)} to {written(key.high)}'


def word(value: object) -> str:
    """A value as people write it."""
    return {True: 'on', False: 'off'}[value] if isinstance(value, bool) else str(value)


def whole(value: object) -> int:
    """An int of Python, numpy or text; no bool and no float."""
    if isinstance(value, str) and re.fullmatch(r'[+-]?[0-9][0-9_]{0,24}', value.strip()):
        return int(value)
    if not isinstance(value, bool | str):
        try:
            return operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            pass
    raise ConfigError(f'{shown(value)} is not a whole number')


def read_int(key: Key, value: object) -> int:
    """A number without a suffix."""
    return whole(value)


def read_size(key: Key, value: object) -> int:
    """Bytes or a count; a text may have a suffix."""
    return parse_size(value) if isinstance(value, str) else whole(value)


def read_extent(key: Key, value: object) -> int | str:
    """A size, or a percentage, which stays text until the LUN is known."""
    if isinstance(value, str) and re.fullmatch(r'([1-9][0-9]?|100)%', value.strip()):
        return value.strip()
    return read_size(key, value)


def read_time(key: Key, value: object) -> int:
    """Nanoseconds; a bare number counts in the key's unit."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigError(f'{value} is not a time')
        value = format(Decimal(repr(float(value))), 'f')
    if not isinstance(value, str):
        value = str(whole(value))
    return parse_time_ns(value, key.unit)


def read_bool(key: Key, value: object) -> bool:
    """On or off, in QEMU's, TOML's or fio's words."""
    if isinstance(value, bool):
        return value
    folded = str(value).strip().lower()
    if folded not in WORDS:
        raise ConfigError(f'{shown(value)} is neither on nor off')
    return WORDS[folded]


def read_choice(key: Key, value: object) -> str:
    """One of the key's words; a number may stand for a version."""
    folded = '' if isinstance(value, bool) else str(value).strip().lower()
    folded = key.synonyms.get(folded, folded)
    if folded not in key.choices:
        raise ConfigError(f'{shown(value)} is none of {", ".join(key.choices)}')
    return folded


def read_text(key: Key, value: object) -> str:
    """Printable text, of the key's pattern if it has one."""
    text = str(value).strip() if isinstance(value, str) else str(whole(value))
    if not text.isprintable() or not re.fullmatch(key.pattern or '.*', text):
        raise ConfigError(f'{shown(value)} cannot stand here; {key.help}')
    return text


def read_spread(key: Key, value: object) -> Spread:
    """A random time: constant, exponential or a table of quantiles."""
    spread = value if isinstance(value, Spread) else parse_spread(str(value))
    times = [ns for _, ns in spread.points]
    if not key.low <= min(times) <= max(times) <= key.high:
        raise ConfigError(f'{shown(str(spread))} is out of range: {limits(key)}')
    return spread


PERCENTILES = {'p50': 50.0, 'p90': 90.0, 'p99': 99.0, 'p999': 99.9}
OF_LATENCY = ('mean', *PERCENTILES)
PRECISE = (
    'iops',
    *(f'latency_ns.{name}' for name in OF_LATENCY),
    *(f'fio_lat_ns.{name}' for name in OF_LATENCY),
)


def read_precision(key: Key, value: object) -> str:
    """'p99:0.02', several with commas, or a table of them; in the long names of the report."""
    if isinstance(value, Mapping):
        pairs = [(str(name), str(half)) for name, half in value.items()]
    else:
        pairs = [part.partition(':')[::2] for part in str(value).split(',')]
    found: dict[str, str] = {}
    for given, half in pairs:
        name = given.strip()
        name = name if name in PRECISE else f'latency_ns.{name}'
        if name not in PRECISE:
            raise ConfigError(f'{shown(given)} is none of {", ".join((*OF_LATENCY, *PRECISE))}')
        if not re.fullmatch(r'0?\.[0-9]{1,6}', half.strip()) or not float(half):
            raise ConfigError(f'{shown(half)} is no share between 0 and 1; write p99:0.02 for 2 %')
        found[name] = half.strip()
    return ','.join(f'{name}:{half}' for name, half in found.items())


def read_sizes(key: Key, value: object) -> int | Pair[int]:
    """A block size, or one for reads and one for writes."""
    if isinstance(value, str) and ',' in value:
        return parse_pair(value, parse_size, 4096)
    return read_size(key, value)


def read_bsrange(key: Key, value: object) -> Pair[Sizes]:
    """A range of block sizes, or one for reads and one for writes."""
    return parse_pair(str(value), parse_range, None)


def read_bssplit(key: Key, value: object) -> Pair[Sizes]:
    """Block sizes with their shares, or those for reads and those for writes."""
    return parse_pair(str(value), parse_split, None)


def read_counts(key: Key, value: object) -> Pair[int]:
    """A count, or one for reads and one for writes; an empty one is none."""
    return parse_pair(str(value), parse_size, None)


def read_percents(key: Key, value: object) -> Pair[int]:
    """A percentage, or one for reads and one for writes; an empty one is 100."""
    return parse_pair(str(value), percent, 100)


def read_distribution(key: Key, value: object) -> Distribution:
    """fio's random_distribution."""
    return parse_distribution(str(value))


def read_workers(key: Key, value: object) -> int | WorkerMap:
    """How many vhost workers, or the virtqueues of each."""
    if isinstance(value, WorkerMap):
        return value
    if isinstance(value, list | tuple) or (isinstance(value, str) and '[' in value):
        return parse_map(value)
    return whole(value)


def read_cpus(key: Key, value: object) -> str:
    """A list of CPU numbers, as text with commas."""
    found = numbers(value)
    if min(found) < 0:
        raise ConfigError(f'{shown(value)}: CPUs are numbered from 0')
    return ','.join(map(str, found))


READERS: dict[str, Callable[[Key, object], Any]] = {
    'int': read_int,
    'count': read_size,
    'size': read_size,
    'extent': read_extent,
    'time': read_time,
    'spread': read_spread,
    'bool': read_bool,
    'choice': read_choice,
    'text': read_text,
    'precision': read_precision,
    'sizes': read_sizes,
    'bsrange': read_bsrange,
    'bssplit': read_bssplit,
    'counts': read_counts,
    'percents': read_percents,
    'distribution': read_distribution,
    'workers': read_workers,
    'cpus': read_cpus,
}
