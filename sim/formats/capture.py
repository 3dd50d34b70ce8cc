"""A capture of real ring memory: a folder, laid into guest memory as it was.

The form is described in docs/reference/captures.md: meta.json (who served the rings, what was
negotiated, where the parts of each queue lie and the indices that QEMU reported), three files per
queue (q0_desc.bin, q0_avail.bin, q0_used.bin, ...) and buffers.bin (indirect tables, request
headers, responses).

Guest memory is one array and an address is an index into it, so the parts are put where the guest
had them. The array reserves address space only, 1 TiB of it if the machine lets it: a page costs
memory once something is written there, which is what a capture of a few dozen kilobytes needs.
"""

import json
import mmap
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.errors import ConfigError, shown
from sim.layout import RING_SIZE_MAX

RING_PACKED = 34
ADDRESS_LIMIT = 1 << 40
ADDRESS_LEAST = 1 << 32
FILE_LIMIT = 1 << 30
QUEUES_MAX = 1024
MAP_NORESERVE = 0x4000  # Linux; Python's mmap names it from 3.13 on


@dataclass(frozen=True, kw_only=True)
class Queue:
    """A queue of a capture: where its parts lie, and what QEMU reported of it.

    `avail` and `used` are the rings of a split queue, the driver and the device event structure of
    a packed one. A queue that was not set up has desc 0. The indices are None where QEMU did not
    report them: shadow_avail is missing while vhost runs, and the others are stale then.
    """

    index: int
    num: int
    desc: int
    avail: int
    used: int
    last_avail: int | None
    shadow_avail: int | None
    used_idx: int
    inuse: int | None

    @property
    def vhost_runs(self) -> bool:
        """Does vhost serve this queue? QEMU (virtio-qmp.c) leaves shadow_avail out then."""
        return self.shadow_avail is None


@dataclass(frozen=True, kw_only=True)
class Capture:
    """A capture in memory.

    `memory` holds every saved byte at its guest address. `saved` says which bytes those are.
    `contradictions` are addresses that two saved parts have with different bytes.
    """

    name: str
    origin: str
    features: int
    vhost: bool
    queues: tuple[Queue, ...]
    memory: npt.NDArray[np.uint8]
    saved: 'Saved'
    contradictions: tuple[int, ...]

    @property
    def packed(self) -> bool:
        """Are the rings packed?"""
        return bool(self.features >> RING_PACKED & 1)


class Saved:
    """Which stretches of memory a capture has."""

    def __init__(self, stretches: Sequence[tuple[int, int]]) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []
        for start, size in sorted(stretches):
            if self.ends and start <= self.ends[-1]:
                self.ends[-1] = max(self.ends[-1], start + size)
            elif size:
                self.starts.append(start)
                self.ends.append(start + size)

    def covers(self, address: int, size: int) -> bool:
        """Is every byte of [address, address + size) in the capture?"""
        at = bisect_right(self.starts, address) - 1
        return size == 0 or (at >= 0 and address + size <= self.ends[at])


def read_capture(folder: str | Path) -> Capture:
    """Read a capture folder and lay it into memory.

    Errors: ConfigError for what is missing, truncated or makes no sense.
    """
    place = Path(folder)
    if not place.is_dir():
        raise ConfigError(f'{place}: no such folder')
    meta = _Meta(place / 'meta.json')
    features = _features(meta)
    packed = bool(features >> RING_PACKED & 1)
    queues = _queues(meta)
    parts: list[tuple[int, bytes]] = []
    for queue in queues:
        if packed and queue.vhost_runs:
            raise ConfigError(
                f'{meta.file}: queue {queue.index} is packed and has no shadow-avail-idx, so a '
                'vhost-user backend was running it; nothing in memory says where that stands'
            )
        if queue.desc:
            parts += _ring_parts(place, queue, packed)
    parts += _buffer_parts(place / 'buffers.bin', meta)
    memory = reserve_memory(max((at + len(raw) for at, raw in parts), default=0))
    contradictions = _lay(memory, parts)
    device = meta.text('device')
    told = (('', 'device'), ('QEMU ', 'qemu'), ('guest ', 'guest_kernel'))
    return Capture(
        name=place.resolve().name,
        origin=', '.join(word + meta.text(key) for word, key in told if meta.text(key)),
        features=features,
        vhost=device.startswith('kernel vhost') or any(q.vhost_runs for q in queues),
        queues=queues,
        memory=memory,
        saved=Saved([(at, len(raw)) for at, raw in parts]),
        contradictions=contradictions,
    )


def reserve_memory(needed: int) -> npt.NDArray[np.uint8]:
    """Guest memory of 1 TiB, or as much as the machine lets us reserve, at least `needed` bytes."""
    size = ADDRESS_LIMIT
    while size >= max(needed, ADDRESS_LEAST):
        try:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
            return np.frombuffer(mmap.mmap(-1, size, flags=flags), dtype=np.uint8)
        except OSError:
            size //= 2
    raise ConfigError(
        f'cannot reserve {max(needed, ADDRESS_LEAST) >> 30} GiB of address space for guest memory; '
        'raise the limit (ulimit -v)'
    )


def _lay(memory: npt.NDArray[np.uint8], parts: Sequence[tuple[int, bytes]]) -> tuple[int, ...]:
    """Put the parts into memory; the addresses of bytes on which two of them disagree."""
    for at, raw in parts:
        memory[at : at + len(raw)] = np.frombuffer(raw, dtype=np.uint8)
    wrong: set[int] = set()
    for at, raw in parts:
        differs = np.flatnonzero(memory[at : at + len(raw)] != np.frombuffer(raw, dtype=np.uint8))
        wrong.update(at + int(i) for i in differs)
    return tuple(sorted(wrong))


def _ring_parts(place: Path, queue: Queue, packed: bool) -> list[tuple[int, bytes]]:
    """The three files of a queue, each with the address where it belongs."""
    num = queue.num
    sizes: dict[str, tuple[int, ...]] = {
        'desc': (16 * num,),
        'avail': (4,) if packed else (6 + 2 * num, 4 + 2 * num),
        'used': (4,) if packed else (6 + 8 * num, 4 + 8 * num),
    }
    parts = []
    for part, wanted in sizes.items():
        file = place / f'q{queue.index}_{part}.bin'
        raw = _read(file)
        if len(raw) not in wanted:
            kind = 'packed' if packed else 'split'
            raise ConfigError(
                f'{file}: {len(raw)} bytes; this part of a {kind} ring of {num} has {wanted[0]}'
            )
        parts.append((getattr(queue, part), raw))
    return parts


def _buffer_parts(file: Path, meta: '_Meta') -> list[tuple[int, bytes]]:
    raw = _read(file)
    parts = []
    for number, row in enumerate(meta.rows('buffers')):
        where = f'buffers[{number}]'
        size = meta.number(row, 'saved', where, FILE_LIMIT)
        offset = meta.number(row, 'off', where, FILE_LIMIT)
        if not size:
            continue
        address = meta.number(row, 'gpa', where, ADDRESS_LIMIT - size)
        if offset + size > len(raw):
            raise ConfigError(
                f'{file}: truncated: {len(raw)} bytes, but {where} of meta.json needs '
                f'{offset + size}'
            )
        parts.append((address, raw[offset : offset + size]))
    return parts


def _features(meta: '_Meta') -> int:
    """The negotiated features; whatever else says them must say the same."""
    text = meta.text('guest_features_hex')
    try:
        features = int(text, 16)
    except ValueError:
        features = -1
    if not 0 <= features < 1 << 64:
        raise ConfigError(
            f'{meta.file}: guest_features_hex is {shown(text)}; wanted 64 bits in hexadecimal'
        )
    bits = meta.table.get('guest_features_bits')
    if bits is not None and bits != [bit for bit in range(64) if features >> bit & 1]:
        raise ConfigError(
            f'{meta.file}: guest_features_bits and guest_features_hex are not the same set'
        )
    layout = meta.text('layout').partition(':')[0]
    told = 'packed' if features >> RING_PACKED & 1 else 'split'
    if layout and layout != told:
        raise ConfigError(
            f'{meta.file}: layout is {shown(layout)}, but the features say {told} '
            f'(VIRTIO_F_RING_PACKED is bit {RING_PACKED})'
        )
    return features


def _queues(meta: '_Meta') -> tuple[Queue, ...]:
    packed = bool(_features(meta) >> RING_PACKED & 1)
    queues = []
    for number, row in enumerate(meta.rows('queues')):
        where = f'queues[{number}]'
        num = meta.number(row, 'vring-num', where, RING_SIZE_MAX)
        if num == 0 or (not packed and num & (num - 1)):
            raise ConfigError(
                f'{meta.file}: {where}.vring-num is {num}; a ring has 1 to {RING_SIZE_MAX} entries'
                + ('' if packed else ', a power of two if split')
            )
        limit = ADDRESS_LIMIT - 32 * RING_SIZE_MAX
        index_limit = num - 1 if packed else 0xFFFF
        queues.append(
            Queue(
                index=meta.number(row, 'queue-index', where, QUEUES_MAX - 1),
                num=num,
                desc=meta.number(row, 'vring-desc', where, limit),
                avail=meta.number(row, 'vring-avail', where, limit),
                used=meta.number(row, 'vring-used', where, limit),
                last_avail=meta.maybe(row, 'last-avail-idx', where, index_limit),
                shadow_avail=meta.maybe(row, 'shadow-avail-idx', where, index_limit),
                used_idx=meta.number(row, 'used-idx', where, index_limit),
                inuse=meta.maybe(row, 'inuse', where, RING_SIZE_MAX),
            )
        )
    if len({queue.index for queue in queues}) < len(queues):
        raise ConfigError(f'{meta.file}: two queues have the same queue-index')
    return tuple(sorted(queues, key=lambda queue: queue.index))


class _Meta:
    """meta.json, with every access checked: a wrong type or value is one line that says where."""

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            table = json.loads(_read(file))
        except (ValueError, RecursionError) as error:
            text = str(error).partition('\n')[0]
            raise ConfigError(f'{file}: not JSON: {text[:120]}') from error
        if not isinstance(table, dict):
            raise ConfigError(f'{file}: wanted an object, found {shown(table)}')
        self.table: dict[str, Any] = table

    def text(self, key: str) -> str:
        """A text, empty if it is not there."""
        value = self.table.get(key, '')
        if not isinstance(value, str):
            raise ConfigError(f'{self.file}: {key} is {shown(value)}; wanted a text')
        return ' '.join(''.join(c if c.isprintable() else '?' for c in value).split())

    def rows(self, key: str) -> list[Mapping[str, Any]]:
        """A list of objects."""
        value = self.table.get(key)
        if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
            raise ConfigError(f'{self.file}: {key} is missing or no list of objects')
        return value

    def number(self, row: Mapping[str, Any], key: str, where: str, maximum: int) -> int:
        """A whole number in 0..maximum."""
        value = row.get(key)
        if type(value) is not int or not 0 <= value <= maximum:
            found = 'missing' if value is None else shown(value)
            raise ConfigError(
                f'{self.file}: {where}.{key} is {found}; wanted a whole number in 0..{maximum}'
            )
        return value

    def maybe(self, row: Mapping[str, Any], key: str, where: str, maximum: int) -> int | None:
        """The same, None if it is not there."""
        return self.number(row, key, where, maximum) if key in row else None


def _read(file: Path) -> bytes:
    """The whole of a regular file."""
    try:
        if not file.is_file():
            raise ConfigError(f'{file}: no such file' if not file.exists() else f'{file}: no file')
        if file.stat().st_size > FILE_LIMIT:
            raise ConfigError(f'{file}: larger than {FILE_LIMIT >> 30} GiB: not part of a capture')
        return file.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f'{file}: cannot be read: {error}') from error
