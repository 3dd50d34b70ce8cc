"""Block traces of other tools, in one normal form.

    fio iolog      versions 2 and 3; version 3 has times in us (utime_since_now() in iolog.c)
    blkparse       the default text form: seconds with nine decimals, sectors of 512 bytes
    MSR Cambridge  CSV of the SNIA repository: Windows file time (100 ns since 1601), bytes

Which one a file is shows in its first line. What cannot be understood, is out of order or cut is an
error with file and line; nothing is passed over without being counted.
"""

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sim.errors import ConfigError, shown

READ, WRITE, FLUSH, DISCARD = range(4)  # as in sim.se_cmd
SECTOR = 512
BLKTRACE_MAGIC = re.compile(b'.tae|eat.', re.DOTALL)  # 0x65617400 + version, in either order

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Requests in order of time; equally long int64 arrays.

    `t_ns` counts from the first request and is None where the file has no times. `op` is READ,
    WRITE, FLUSH or DISCARD, `stream` an index in `streams`: the files or devices that they went to.
    `counts` says what else was in the file.
    """

    path: str
    form: str
    sha256: str
    t_ns: Ints | None
    op: Ints
    offset: Ints
    length: Ints
    stream: Ints
    streams: tuple[str, ...]
    counts: dict[str, int]


@dataclass
class _Lines:
    """What a reader collects, row by row."""

    path: str
    timed: bool = True
    rows: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    streams: dict[str, int] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, t_ns: int, op: int, offset: int, length: int, stream: str) -> None:
        """One request."""
        number = self.streams.setdefault(stream, len(self.streams))
        self.rows.append((t_ns, op, offset, length, number))

    def error(self, line: int, problem: str) -> ConfigError:
        """An error with file and line."""
        return ConfigError(f'{self.path}:{line}: {problem}')


def read_trace(path: str | Path, *, action: str = 'q') -> Trace:
    """The trace in a file; of blkparse text the requests as queued ('q') or as issued ('d').

    Errors: ConfigError with file and line.
    """
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f'{path}: cannot be read: {reason}') from None
    if BLKTRACE_MAGIC.match(content):
        raise ConfigError(f'{path}: is a binary blktrace; make it text with blkparse -i {path}')
    try:
        text = content.decode('utf-8-sig')
    except UnicodeDecodeError:
        raise ConfigError(f'{path}: is not UTF-8 text; unpack a compressed trace first') from None
    lines = text.split('\n')
    if lines[-1] != '':
        raise ConfigError(
            f'{path}:{len(lines)}: the last line has no end: the trace is cut; take the line out'
        )
    found = _Lines(str(path))
    form = _form_of(lines, found)
    if form == 'blkparse':
        _read_blkparse(lines, found, action)
    elif form == 'msr':
        _read_msr(lines, found)
    else:
        _read_iolog(lines, found, 3 if form == 'iolog 3' else 2)
    return _trace(found, form, hashlib.sha256(content).hexdigest())


def _form_of(lines: list[str], found: _Lines) -> str:
    """The format of the file by its first line that says something."""
    for number, line in enumerate(lines, 1):
        if match := re.fullmatch(r'fio version (\d+) iolog\s*', line):
            if match[1] not in '23':
                raise found.error(number, f'an iolog of version {match[1]}; 2 and 3 are known')
            return f'iolog {match[1]}'
        if BLKPARSE.match(line):
            return 'blkparse'
        if MSR.fullmatch(line.strip()):
            return 'msr'
        if line.strip() and not line.startswith('Input file '):
            raise found.error(
                number,
                f'{shown(line.strip())} begins no trace that is known: fio iolog (fio version 3 '
                'iolog), blkparse text, MSR Cambridge CSV',
            )
    raise ConfigError(f'{found.path}: is empty; a trace has at least one request')


def _trace(found: _Lines, form: str, sha256: str) -> Trace:
    if not found.rows:
        raise ConfigError(f'{found.path}: no request in the trace')
    table = np.array(found.rows, dtype=np.int64)
    return Trace(
        path=found.path,
        form=form,
        sha256=sha256,
        t_ns=table[:, 0] - table[0, 0] if found.timed else None,
        op=table[:, 1],
        offset=table[:, 2],
        length=table[:, 3],
        stream=table[:, 4],
        streams=tuple(found.streams),
        counts=dict(found.counts),
    )


def _in_order(found: _Lines, line: int, last: int, t_ns: int, sort: str) -> None:
    if t_ns < last:
        raise found.error(line, f'time goes back by {last - t_ns} ns; put it in order ({sort})')


# ----------------------------------------------------------------------------------- fio iolog ----

IOLOG_OPS = {
    'read': READ, 'write': WRITE, 'sync': FLUSH, 'datasync': FLUSH, 'trim': DISCARD
}  # fmt: skip
FILE_ACTIONS = ('add', 'open', 'close', 'unlink')


def _read_iolog(lines: list[str], found: _Lines, version: int) -> None:
    """'[timestamp] file action [offset length]'; version 2 has no timestamps."""
    found.timed = version == 3
    last = 0
    first = next(n for n, line in enumerate(lines) if line.startswith('fio version'))
    for number, line in enumerate(lines[first + 1 :], first + 2):
        words = line.split()
        if not words:
            continue
        t_ns = 0
        if version == 3:
            t_ns = 1000 * _count(found, number, words[0], 'a time in us')
            words = words[1:]
        if len(words) == 2 and words[1] in FILE_ACTIONS:
            continue
        if len(words) >= 2 and words[1] == 'wait':
            raise found.error(
                number,
                "the unit of 'wait' is not agreed on (us in fio's manual, ms in its code); "
                'write an iolog of version 3, or remove the line',
            )
        if len(words) != 4 or words[1] not in IOLOG_OPS:
            raise found.error(
                number,
                f'{shown(line.strip())} is no line of an iolog of version {version}: '
                f'{"time " if version == 3 else ""}file action offset length',
            )
        _in_order(found, number, last, t_ns, 'sort -n, below the first line')
        last = t_ns
        offset = _count(found, number, words[2], 'an offset')
        length = _count(found, number, words[3], 'a length')
        found.add(t_ns, IOLOG_OPS[words[1]], offset, length, words[0])


def _count(found: _Lines, line: int, text: str, what: str) -> int:
    """A whole number, not negative, that fits 63 bits."""
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise found.error(line, f'{shown(text)} is not {what}')
    return int(text)


# ------------------------------------------------------------------------------------ blkparse ----

# device  cpu  sequence  seconds.nanoseconds  pid  action  rwbs  ...
BLKPARSE = re.compile(
    r'\s*(\d+,\d+)\s+(\d+)\s+(\d+)\s+(\d+\.\d+)\s+(\d+)\s+([A-Za-z]{1,2})\s+([A-Z]+)\s*(.*)'
)
BLKPARSE_MESSAGE = re.compile(r'\s*\d+,\d+\s+\d+\s+\d+\s+\d+\.\d+\s+\d+\s+m\s+N\s')
EXTENT = re.compile(r'(\d+) \+ (\d+)(\s|$)')
SUMMARY = re.compile(r'(CPU\d+ \(|Total \()')


def _read_blkparse(lines: list[str], found: _Lines, action: str) -> None:
    """The lines of one action. CPUs that are each in order are merged by time."""
    last_of_cpu: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if SUMMARY.match(line):
            break
        if not line.strip() or line.startswith('Input file ') or BLKPARSE_MESSAGE.match(line):
            continue
        match = BLKPARSE.fullmatch(line)
        if match is None:
            raise found.error(number, f'{shown(line.strip())} is no line of blkparse text')
        device, cpu, time, act, rwbs, rest = match.group(1, 2, 4, 6, 7, 8)
        seconds, _, decimals = time.partition('.')
        if len(decimals) != 9 or len(seconds) > 9:
            raise found.error(
                number, f'{time}: the unit of time is not known; blkparse writes nine decimals'
            )
        t_ns = int(seconds) * 10**9 + int(decimals)
        _in_order(found, number, last_of_cpu.get(cpu, 0), t_ns, f'of CPU {cpu}: sort -k4,4n')
        last_of_cpu[cpu] = t_ns
        found.counts['merges'] += action == 'q' and act in 'MF'
        if act.lower() == action:
            _blkparse_request(found, number, t_ns, rwbs, rest, device)
    before = [row[0] for row in found.rows]
    found.rows.sort(key=lambda row: row[0])
    found.counts['reordered'] = sum(a != row[0] for a, row in zip(before, found.rows, strict=True))


def _blkparse_request(
    found: _Lines, line: int, t_ns: int, rwbs: str, rest: str, device: str
) -> None:
    """One request by its RWBS letters: F before the direction is a flush first, after it FUA."""
    extent = EXTENT.match(rest)
    if extent is None and re.match(r'\d', rest):
        found.counts['passthrough'] += 1  # a SCSI command of its own, as of sg_io
        return
    kind = rwbs.lstrip('F')
    if rwbs.startswith('F'):
        found.add(t_ns, FLUSH, 0, 0, device)
        if extent is None or extent[2] == '0':
            return
        found.counts['preflush'] += 1
    if extent is None or kind[:1] not in ('R', 'W', 'D'):
        raise found.error(
            line, f'{shown(f"{rwbs} {rest}")}: no request that is known (R, W, D, F: sector + n)'
        )
    found.counts['fua'] += 'F' in kind
    op = {'R': READ, 'W': WRITE, 'D': DISCARD}[kind[0]]
    if len(extent[1]) > 16 or len(extent[2]) > 10:
        raise found.error(line, f'{extent[0].strip()}: is no place on a disk')
    found.add(t_ns, op, SECTOR * int(extent[1]), SECTOR * int(extent[2]), device)


# ------------------------------------------------------------------------------- MSR Cambridge ----

# Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime
MSR = re.compile(r'(\d{1,18}),([\w.-]*),(\d+),(Read|Write),(\d{1,18}),(\d{1,18}),(\d+)')
FILETIME = (1 << 56, 1 << 58)  # the years 1829 and 2514


def _read_msr(lines: list[str], found: _Lines) -> None:
    last = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        match = MSR.fullmatch(line.strip())
        if match is None:
            raise found.error(
                number,
                f'{shown(line.strip())} is no line of an MSR Cambridge trace: '
                'Timestamp,Hostname,DiskNumber,Read or Write,Offset,Size,ResponseTime',
            )
        time, offset, size = (int(match[group]) for group in (1, 5, 6))
        if not FILETIME[0] <= time < FILETIME[1]:
            raise found.error(
                number, f'{time}: the unit of time is not known; it should be Windows file time'
            )
        t_ns = 100 * (time - FILETIME[0])
        _in_order(found, number, last, t_ns, 'sort -t, -k1,1n')
        last = t_ns
        op = READ if match[4] == 'Read' else WRITE
        found.add(t_ns, op, offset, size, f'{match[2]}.{match[3]}')
