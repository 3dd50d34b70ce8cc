"""A random time as people write it: '80us', 'exponential 80us' or 'p0 60us, p50 80us, p100 1ms'.

The last form is a table of quantiles: half of the times are below 80us and none is above 1ms.
Between its points the quantile function is linear (sim.disks.service).
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

from sim.errors import ConfigError, shown
from sim.units import format_time, parse_time_ns

PPM = 10**6
POINTS_MAX = 64
POINT = re.compile(r'p([0-9]{1,3}(?:\.[0-9]{1,4})?)\s+(\S+)')


@dataclass(frozen=True)
class Spread:
    """`form` is constant, exponential or quantiles; `points` are (share in ppm, ns).

    Constant and exponential have one point, (0, mean).
    """

    form: str
    points: tuple[tuple[int, int], ...]

    @property
    def mean_ns(self) -> Fraction:
        """The mean, exact."""
        if self.form != 'quantiles':
            return Fraction(self.points[0][1])
        area = sum((q - p) * (s + t) for (p, s), (q, t) in pairwise(self.points))
        return Fraction(area, 2 * PPM)

    @property
    def least_ns(self) -> int:
        """No time is shorter."""
        return 0 if self.form == 'exponential' else self.points[0][1]

    def __str__(self) -> str:
        if self.form == 'constant':
            return format_time(self.points[0][1])
        if self.form == 'exponential':
            return f'exponential {format_time(self.points[0][1])}'
        return ', '.join(f'{percentile(p)} {format_time(t)}' for p, t in self.points)


def percentile(ppm: int) -> str:
    """The name of a percentile: 990000 is p99, 999990 is p99.999."""
    return f'p{format((Decimal(ppm) / 10**4).normalize(), "f")}'


def parse_spread(text: str) -> Spread:
    """What a text means; ConfigError if nothing."""
    folded = ' '.join(text.lower().split())
    if folded.startswith('exponential '):
        return Spread('exponential', ((0, parse_time_ns(folded.removeprefix('exponential '))),))
    if not folded.startswith('p'):
        return Spread('constant', ((0, parse_time_ns(folded)),))
    points = [parse_point(part) for part in folded.split(',')]
    if len(points) < 2 or points[0][0] != 0 or points[-1][0] != PPM:
        raise ConfigError(f'{shown(text)}: a table of quantiles begins with p0 and ends with p100')
    if len(points) > POINTS_MAX:
        raise ConfigError(f'a table of {len(points)} quantiles: at most {POINTS_MAX} can be kept')
    for (p, s), (q, t) in pairwise(points):
        if q <= p or t < s:
            raise ConfigError(
                f'{shown(text)}: {percentile(q)} {format_time(t)} does not rise above '
                f'{percentile(p)} {format_time(s)}; write quantiles in order'
            )
    return Spread('quantiles', tuple(points))


def parse_point(text: str) -> tuple[int, int]:
    """(share in ppm, ns) of one point such as 'p99.9 2ms'."""
    match = POINT.fullmatch(text.strip())
    if not match:
        raise ConfigError(f'{shown(text.strip())} is no quantile; write it as in p99 250us')
    ppm = int(Decimal(match[1]) * 10**4)
    if ppm > PPM:
        raise ConfigError(f'{shown(text.strip())}: a percentile is at most 100')
    return ppm, parse_time_ns(match[2])
