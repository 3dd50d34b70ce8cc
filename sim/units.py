"""Sizes and times: parsed from and printed as people write them; cycles to nanoseconds and back.

All of it is integer arithmetic: bytes, nanoseconds, CPU cycles, Hz. Suffixes are fio's, in upper or
lower case:

    size   k m g t p, with or without b, are powers of 1024 (fio's kb_base=1024);
           ki mi gi ti pi, with or without b, are powers of 1000 (!), as fio's manual has it
    time   d h m s ms us ns; msec, usec and nsec are fio's long forms
"""

import re
from fractions import Fraction
from typing import Any

from sim.errors import ConfigError, shown

NS_PER_S = 1_000_000_000

POWERS = {'': 0, 'k': 1, 'm': 2, 'g': 3, 't': 4, 'p': 5}
SIZE = re.compile(r'([0-9]{1,20})(?:([kmgtp]?)(i?)b?)')

UNIT_NS = {
    'ns': 1,
    'us': 1_000,
    'ms': 1_000_000,
    's': NS_PER_S,
    'm': 60 * NS_PER_S,
    'h': 3600 * NS_PER_S,
    'd': 86400 * NS_PER_S,
}
UNIT_NAMES = {'nsec': 'ns', 'usec': 'us', 'µs': 'us', 'msec': 'ms', 'sec': 's'}
TIME = re.compile(r'([0-9]{1,20}(?:\.[0-9]{1,20})?|\.[0-9]{1,20})\s*([a-zµ]*)')


def parse_size(text: str) -> int:
    """Bytes that `text` means: '4096', '0x1000', '4k' and '4kb' (4096), '4kib' (4000).

    Raises ConfigError for anything else: signs, fractions, other suffixes.
    """
    folded = text.strip().lower()
    if re.fullmatch(r'0x[0-9a-f]{1,16}', folded):
        return int(folded, 16)
    match = SIZE.fullmatch(folded)
    if not match or (match[3] and not match[2]):
        raise ConfigError(f'{shown(text)} is not a size; write bytes or a suffix, as in 4k, 1g')
    return int(match[1]) * (1000 if match[3] else 1024) ** POWERS[match[2]]


def format_size(size: int) -> str:
    """The shortest suffix that is exact: 4096 -> '4k', 4097 -> '4097'; `size` in bytes."""
    assert size >= 0
    for suffix in 'ptgmk':
        if size and size % 1024 ** POWERS[suffix] == 0:
            return f'{size // 1024 ** POWERS[suffix]}{suffix}'
    return str(size)


def parse_time_ns(text: str, default_unit: str | None = None) -> int:
    """Nanoseconds that `text` means: '80us', '8.9us', '1m'.

    A bare number counts in `default_unit`; without one, only 0 may be bare. Raises ConfigError for
    anything else, and for fractions of a nanosecond.
    """
    match = TIME.fullmatch(text.strip().lower().replace('\N{GREEK SMALL LETTER MU}', 'µ'))
    if not match:
        raise ConfigError(f'{shown(text)} is not a time; write it as in 80us, 1.5ms, 30s')
    number = Fraction(match[1])
    unit = UNIT_NAMES.get(match[2], match[2]) or default_unit or ('ns' if number == 0 else '')
    if not unit:
        raise ConfigError(f'{shown(text)} has no unit; write {text.strip()}us, say')
    if unit not in UNIT_NS:
        raise ConfigError(f'{shown(text)} has no unit of time; known: {", ".join(UNIT_NS)}')
    ns = number * UNIT_NS[unit]
    if ns.denominator != 1:
        raise ConfigError(f'{shown(text)} is no whole number of nanoseconds')
    return int(ns)


def format_time(ns: int) -> str:
    """`ns` nanoseconds in the largest of s, ms, us, ns not above it, exact: '80us', '8.9us'."""
    assert ns >= 0
    unit = next((u for u in ('s', 'ms', 'us') if ns >= UNIT_NS[u]), 'ns')
    whole, rest = divmod(ns, UNIT_NS[unit])
    digits = len(str(UNIT_NS[unit])) - 1
    fraction = f'.{rest:0{digits}d}'.rstrip('0') if rest else ''
    return f'{whole}{fraction}{unit}'


def cycles_to_ns(cycles: Any, cpu_hz: int) -> Any:
    """Whole nanoseconds in `cycles` of a `cpu_hz` clock, rounded down.

    For an int or an int64 array; exact, without overflow up to 9.2e9 Hz and 292 years.
    """
    seconds, rest = divmod(cycles, cpu_hz)
    return seconds * NS_PER_S + rest * NS_PER_S // cpu_hz


def ns_to_cycles(ns: Any, cpu_hz: int) -> Any:
    """Cycles of a `cpu_hz` clock in `ns` nanoseconds, halves rounded up; int or int64 array."""
    seconds, rest = divmod(ns, NS_PER_S)
    return seconds * cpu_hz + (rest * cpu_hz + NS_PER_S // 2) // NS_PER_S
