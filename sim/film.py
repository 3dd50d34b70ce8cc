"""A ring's bytes as a strip of frames that a person can read.

A frame is a picture of the ring at one moment: one row per descriptor or ring field, with its
address, its bytes in groups of one field each, and what they say. A row stands in a frame if it is
new there; a byte that differs from the frame before carries a star:

    desc[0]   0x00010000  *00 00*20 00 ...   0x200000+51 NEXT next 1

Layouts: virtio "Split Virtqueues" and "Packed Virtqueues".
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sim.layout import (
    AVAIL_F_NO_INTERRUPT,
    EVENT_F_DESC,
    EVENT_F_DISABLE,
    EVENT_F_ENABLE,
    F_AVAIL,
    F_INDIRECT,
    F_NEXT,
    F_USED,
    F_WRITE,
    USED_F_NO_NOTIFY,
)

HEADS_PER_ROW = 8
LABEL = 14  # width of a row's label


@dataclass(frozen=True)
class Row:
    """One line of a frame: `groups` are the sizes of its fields in bytes."""

    label: str
    address: int
    groups: tuple[int, ...]
    meaning: Callable[[Sequence[int]], str] = field(compare=False)

    @property
    def size(self) -> int:
        """Bytes of the row."""
        return sum(self.groups)


class Strip(str):
    """The text of a film; a notebook or a Python prompt shows it as it is."""

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Frame:
    """The ring at one moment: the bytes of its rows, and by side the words of private state."""

    caption: str
    bytes: dict[Row, bytes]
    words: dict[str, Mapping[str, int]]
    pinned: frozenset[Row]  # shown though nothing in them has changed


@dataclass
class Film:
    """The frames taken so far."""

    frames: list[Frame] = field(default_factory=list)

    def take(
        self,
        caption: str,
        memory: npt.NDArray[np.uint8],
        rows: Iterable[Row],
        words: Mapping[str, Mapping[str, int]],
        pinned: Iterable[Row] = (),
    ) -> None:
        """One more frame: what `rows` of `memory` hold, and the private `words` of each side."""
        seen = {row: memory[row.address : row.address + row.size].tobytes() for row in rows}
        self.frames.append(Frame(caption, seen, dict(words), frozenset(pinned)))

    def strip(self, first: int = 1) -> Strip:
        """Frames number `first` and later as text: what changed against the frame before.

        The first frame of a film shows what is not zero. A negative `first` counts from the end.
        """
        lines: list[str] = []
        first = max(1, first if first >= 0 else len(self.frames) + 1 + first)
        for number in range(first, len(self.frames) + 1):
            last = self.frames[number - 2] if number > 1 else None
            lines += [f'{number}. {self.frames[number - 1].caption}']
            lines += ['   ' + line for line in _changes(self.frames[number - 1], last)]
        return Strip('\n'.join(lines))


def _changes(frame: Frame, last: Frame | None) -> Iterable[str]:
    for row, now in frame.bytes.items():
        before = last.bytes.get(row, bytes(row.size)) if last else bytes(row.size)
        if now != before or row in frame.pinned:
            yield shown(row, now, before if last else now)
    if last is None:
        return
    for side, words in frame.words.items():
        before_words = last.words.get(side, words)
        news = [
            f'{name} {before_words[name]} -> {value}'
            for name, value in words.items()
            if before_words[name] != value
        ]
        if news:
            yield f'{side:{LABEL}}{", ".join(news)}'


def shown(row: Row, now: bytes, before: bytes) -> str:
    """A row as text; a byte that differs from `before` carries a star."""
    marks = [f'{"*" if a != b else " "}{a:02x}' for a, b in zip(now, before, strict=True)]
    at, groups, values = 0, [], []
    for size in row.groups:
        groups.append(''.join(marks[at : at + size]))
        values.append(int.from_bytes(now[at : at + size], 'little'))
        at += size
    line = f'{row.label:{LABEL}}{row.address:#010x} {" ".join(groups):<52}  {row.meaning(values)}'
    return line.rstrip()


# ---------------------------------------------------------------------------- what rows there are


def split_rows(num: int, desc: int, avail: int, used: int) -> list[Row]:
    """The rows of a split ring."""
    rows = [Row(f'desc[{i}]', desc + 16 * i, (8, 4, 2, 2), _split_desc) for i in range(num)]
    rows.append(Row('avail', avail, (2, 2), _avail_head))
    for first in range(0, num, HEADS_PER_ROW):
        heads = min(HEADS_PER_ROW, num - first)
        at = avail + 4 + 2 * first
        rows.append(Row(f'avail[{first}..]', at, (2,) * heads, _heads))
    rows.append(Row('used_event', avail + 4 + 2 * num, (2,), _index))
    rows.append(Row('used', used, (2, 2), _used_head))
    rows += [Row(f'used[{i}]', used + 4 + 8 * i, (4, 4), _used_element) for i in range(num)]
    rows.append(Row('avail_event', used + 4 + 8 * num, (2,), _index))
    return rows


def packed_rows(num: int, ring: int, driver_event: int, device_event: int) -> list[Row]:
    """The rows of a packed ring."""
    rows = [Row(f'slot[{i}]', ring + 16 * i, (8, 4, 2, 2), _packed_desc) for i in range(num)]
    rows.append(Row('driver event', driver_event, (2, 2), _event))
    rows.append(Row('device event', device_event, (2, 2), _event))
    return rows


def table_rows(address: int, entries: int, packed: bool) -> list[Row]:
    """The rows of an indirect table."""
    meaning = _packed_entry if packed else _split_desc
    return [Row(f'  table[{i}]', address + 16 * i, (8, 4, 2, 2), meaning) for i in range(entries)]


def region_rows(name: str, address: int, size: int) -> list[Row]:
    """Any stretch of memory, 16 bytes a row."""
    rows = []
    for at in range(0, size, 16):
        left = min(16, size - at)
        groups = (left,) if left <= 8 else (8, left - 8)
        rows.append(Row(f'{name}+{at}' if at else name, address + at, groups, _nothing))
    return rows


# --------------------------------------------------------------------------------- what bytes say


def _nothing(fields: Sequence[int]) -> str:
    return ''


def _names(flags: int, names: Mapping[int, str]) -> str:
    return '|'.join(name for bit, name in names.items() if flags & bit) or '-'


CHAIN_FLAGS = {F_INDIRECT: 'INDIRECT', F_WRITE: 'WRITE', F_NEXT: 'NEXT'}
PACKED_FLAGS = {F_AVAIL: 'AVAIL', F_USED: 'USED', **CHAIN_FLAGS}
EVENT_FLAGS = {EVENT_F_ENABLE: 'ENABLE', EVENT_F_DISABLE: 'DISABLE', EVENT_F_DESC: 'DESC'}


def _split_desc(fields: Sequence[int]) -> str:
    address, length, flags, successor = fields
    text = f'{address:#x}+{length} {_names(flags, CHAIN_FLAGS)}'
    return f'{text} next {successor}' if flags & F_NEXT else text


def _packed_desc(fields: Sequence[int]) -> str:
    address, length, ident, flags = fields
    return f'id {ident} {_names(flags, PACKED_FLAGS)} {address:#x}+{length}'


def _packed_entry(fields: Sequence[int]) -> str:
    address, length, _, flags = fields
    return f'{address:#x}+{length} {_names(flags, CHAIN_FLAGS)}'


def _avail_head(fields: Sequence[int]) -> str:
    flags, index = fields
    return f'idx {index}' + (' NO_INTERRUPT' if flags & AVAIL_F_NO_INTERRUPT else '')


def _used_head(fields: Sequence[int]) -> str:
    flags, index = fields
    return f'idx {index}' + (' NO_NOTIFY' if flags & USED_F_NO_NOTIFY else '')


def _heads(fields: Sequence[int]) -> str:
    return 'heads ' + ' '.join(map(str, fields))


def _used_element(fields: Sequence[int]) -> str:
    return f'id {fields[0]} len {fields[1]}'


def _index(fields: Sequence[int]) -> str:
    return f'at {fields[0]}'


def _event(fields: Sequence[int]) -> str:
    off_wrap, flags = fields
    kind = EVENT_FLAGS.get(flags & 3, 'reserved')
    return f'{kind} off {off_wrap & 0x7FFF} wrap {off_wrap >> 15}'
