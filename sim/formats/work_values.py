"""Values of a workload as fio writes them: one per direction, mixes of block sizes, distributions.

    4k,8k                      for reads, for writes; one value is for both
    4k-16k                     a range of block sizes (bsrange)
    4k/60:64k/40               block sizes and their shares in percent (bssplit)
    zipf:1.2  pareto:0.2:0.5   where random I/O goes (random_distribution), with or without a centre
    zoned:60/10:40/90          shares of the I/O and of the disk in percent

Each prints as it is written, so an effective config reads back as it was.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Generic, TypeVar

from sim.errors import ConfigError, shown
from sim.units import format_size, parse_size

T = TypeVar('T')

SPLITS_MAX = 64  # BSSPLIT_MAX of fio
ZONES_MAX = 256  # ZONESPLIT_MAX


@dataclass(frozen=True)
class Pair(Generic[T]):
    """A value for reads and one for writes; None where only the other direction has one."""

    read: T | None
    write: T | None

    def of(self, write: bool) -> T | None:
        """The value of one direction."""
        return self.write if write else self.read

    def __str__(self) -> str:
        if self.read == self.write:
            return str(self.read)
        return ','.join('' if value is None else str(value) for value in (self.read, self.write))


@dataclass(frozen=True)
class Sizes:
    """Block sizes of one direction: (bytes, percent) of each, or a range if it is one.

    In a range every multiple of the smallest size is as likely as another, and what lies above the
    largest counts as the largest, as in fio.
    """

    entries: tuple[tuple[int, int], ...]
    is_range: bool = False

    @property
    def least(self) -> int:
        """The smallest, to which all are aligned."""
        return min(size for size, _ in self.entries)

    @property
    def most(self) -> int:
        """The largest."""
        return max(size for size, _ in self.entries)

    def aligned(self) -> 'Sizes':
        """What fio makes of sizes that are no multiples of the smallest: it rounds them down."""
        least = self.least
        return Sizes(tuple((size - size % least, n) for size, n in self.entries), self.is_range)

    def __str__(self) -> str:
        if self.is_range:
            return f'{format_size(self.least)}-{format_size(self.most)}'
        return ':'.join(f'{format_size(size)}/{percent}' for size, percent in self.entries)


@dataclass(frozen=True)
class Distribution:
    """Where random I/O goes; `zones` are (percent of the I/O, percent or bytes of the disk)."""

    form: str = 'random'
    value: Decimal = Decimal(0)
    center: Decimal | None = None
    zones: tuple[tuple[int, int], ...] = ()

    def zone_table(self, places: int, unit: int) -> list[tuple[int, int, int]]:
        """Of each zone: percent of the I/O up to its end, first place, how many places.

        `places` are all there are, `unit` the bytes between two of them.
        """
        table = []
        share_end = size_end = 0
        for share, size in self.zones:
            share_end, begin, size_end = share_end + share, size_end, size_end + size
            if self.form == 'zoned':
                first, count = places * begin // 100, places * size // 100
            else:
                first, count = begin // unit, size_end // unit - begin // unit
            table.append((share_end, first, count))
        return table

    def __str__(self) -> str:
        if self.form == 'random':
            return self.form
        if self.zones:
            show = format_size if self.form == 'zoned_abs' else str
            return self.form + ':' + ':'.join(f'{n}/{show(size)}' for n, size in self.zones)
        tail = '' if self.center is None else f':{self.center}'
        return f'{self.form}:{self.value}{tail}'


def parse_pair(text: str, part: Callable[[str], T], default: T | None) -> Pair[T]:
    """Values for reads and writes; one is for both, an empty one leaves the default.

    fio's third value is for trims, which there are none of.
    """
    parts = text.split(',')
    if len(parts) > 3:
        raise ConfigError(f'{shown(text)} has {len(parts)} values; there are reads, writes, trims')
    found = [part(one.strip()) if one.strip() else default for one in parts]
    return Pair(found[0], found[0] if len(found) == 1 else found[1])


def parse_range(text: str) -> Sizes:
    """'4k-16k'."""
    low, dash, high = text.partition('-')
    if not dash:
        raise ConfigError(f'{shown(text)} is not a range of sizes; write it as in 4k-16k')
    sizes = sorted((parse_size(low), parse_size(high)))
    return Sizes(((sizes[0], 0), (sizes[1], 0)), is_range=True)


def parse_split(text: str) -> Sizes:
    """'4k/60:64k/40'; entries without a share have what is left in equal parts, as in fio."""
    entries: list[tuple[int, int | None]] = []
    for one in text.split(':'):
        size, _, share = one.strip().partition('/')
        entries.append((parse_size(size), percent(share) if share.strip() else None))
    if len(entries) > SPLITS_MAX:
        raise ConfigError(f'{len(entries)} block sizes: at most {SPLITS_MAX} can be given')
    given = sum(share for _, share in entries if share is not None)
    blank = [index for index, (_, share) in enumerate(entries) if share is None]
    if given > 100 or (given < 100 and not blank):
        raise ConfigError(f'{shown(text)}: the shares add up to {given}, not to 100')
    each, rest = divmod(100 - given, len(blank)) if blank else (0, 0)
    shares = {index: each + (index == blank[-1]) * rest for index in blank}
    whole = [(size, shares.get(i, share)) for i, (size, share) in enumerate(entries)]
    return Sizes(tuple((size, share) for size, share in whole if share))


def percent(text: str) -> int:
    """0 to 100."""
    folded = text.strip().removesuffix('%')
    if not folded.isascii() or not folded.isdigit() or int(folded) > 100:
        raise ConfigError(f'{shown(text)} is not a whole number from 0 to 100')
    return int(folded)


# What may stand behind the name, and what stands there if nothing does (options.c of fio).
RANGES = {
    'zipf': (Decimal('0.01'), Decimal(20), Decimal('1.1'), 'zipf theta'),
    'pareto': (Decimal('0.0001'), Decimal('0.9999'), Decimal('0.2'), 'pareto power'),
    'normal': (Decimal(0), Decimal('99.9999'), Decimal(0), 'normal deviation in percent'),
}


def parse_distribution(text: str) -> Distribution:
    """random, zipf:theta, pareto:power, normal:deviation, zoned:..., zoned_abs:..."""
    folded = text.strip().lower()
    if ',' in folded:
        raise ConfigError(f'{shown(text)}: one distribution for both directions is modelled')
    form, _, rest = folded.partition(':')
    form = {'gauss': 'normal'}.get(form, form)
    if form in ('zoned', 'zoned_abs'):
        return parse_zones(form, rest)
    if form == 'random' and not rest:
        return Distribution()
    if form not in RANGES:
        known = ', '.join(['random', *RANGES, 'zoned', 'zoned_abs'])
        raise ConfigError(f'{shown(text)} is none of {known}')
    low, high, default, what = RANGES[form]
    value, colon, center = rest.partition(':')
    theta = number(value, what, low, high) if value else default
    if form == 'zipf' and theta == 1:
        raise ConfigError('a zipf theta of 1 is no value that fio takes; write 0.99 or 1.01')
    middle = number(center, 'centre', Decimal(0), Decimal(1)) if colon else None
    return Distribution(form, theta, middle)


def number(text: str, what: str, low: Decimal, high: Decimal) -> Decimal:
    """A decimal number within limits."""
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        value = Decimal('nan')
    if not value.is_finite() or not low <= value <= high or len(value.as_tuple().digits) > 12:
        raise ConfigError(f'{shown(text)} is no {what}; write a number from {low} to {high}')
    return Decimal(format(value.normalize(), 'f'))


def parse_zones(form: str, text: str) -> Distribution:
    """'60/10:40/90': percent of the I/O, and percent (zoned_abs: bytes) of the disk."""
    zones = []
    for one in text.split(':'):
        share, slash, size = one.strip().partition('/')
        if not slash:
            raise ConfigError(f'{shown(one)} is no zone; write share/size, as in 60/10')
        zones.append((percent(share), percent(size) if form == 'zoned' else parse_size(size)))
    if len(zones) > ZONES_MAX:
        raise ConfigError(f'{len(zones)} zones: at most {ZONES_MAX} can be given')
    for what, total in (
        ('I/O', sum(share for share, _ in zones)),
        ('the disk', sum(size for _, size in zones) if form == 'zoned' else 100),
    ):
        if total != 100:
            raise ConfigError(f'{shown(text)}: the shares of {what} add up to {total}, not to 100')
    return Distribution(form, zones=tuple(zones))
