"""A ring's device side, stopped: what travels to another host, and what is refused there.

The driver side lives in guest memory and in the guest's own words, and moves with the guest. Of the
device side only a few numbers are saved; the rest is read from memory again or begins anew:

                     split                           packed
    saved            num, areas, last_avail          num, areas, both indices and wraps, in use
    from memory      used.idx, avail.idx             -
    begins anew      signalled_used (so the first check interrupts), notifications, verdicts

Buffers in flight are not part of it: a stop drains them first. What a device leaked (took and never
gave back) shows as `in_use` and stays out for good.

Encodings: VHOST_GET_VRING_BASE and SET_VRING_BASE (Linux vhost_vring_ioctl), the fields of QEMU's
virtio_save() and virtio_load() with the subsections virtio/virtqueues and virtio/packed_virtqueues
(hw/virtio/virtio.c). Integers in the stream are big-endian.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from sim import vring
from sim.layout import F_IN_ORDER, F_RING_PACKED, RING_SIZE_MAX
from sim.ring import split_device as vring_split_device

u64 = np.uint64
Words = npt.NDArray[np.int64]
Memory = npt.NDArray[np.uint8]

WRAP, INDEX = 15, 0x7FFF


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise ValueError(f'saved ring: {reason}')


def _check_area(name: str, address: int, align: int) -> None:
    _require(0 <= address < 1 << 64, f'{name} address {address} is not a 64-bit address')
    _require(address % align == 0, f'{name} address {address:#x} is not aligned to {align}')


@dataclass(frozen=True, kw_only=True)
class Where:
    """Size, features and areas of a ring; what both layouts have in common.

    Errors: ValueError, one line, when the numbers cannot be those of any ring.
    """

    num: int
    features: int
    desc: int
    avail: int  # packed: driver event structure
    used: int  # packed: device event structure

    def __post_init__(self) -> None:
        _require(0 <= self.features < 1 << 64, f'features {self.features} are not 64 bits')
        _require(
            1 <= self.num <= RING_SIZE_MAX, f'{self.num} entries; a ring has 1 to {RING_SIZE_MAX}'
        )
        _check_area('descriptor', self.desc, 16)

    def _field(self, name: str) -> int:
        return int(getattr(self, name))

    @classmethod
    def _areas(cls, st: Words, v: int) -> dict[str, int]:
        names = {
            'num': vring.V_NUM,
            'features': vring.V_FEATURES,
            'desc': vring.V_DESC,
            'avail': vring.V_AVAIL,
            'used': vring.V_USED,
        }
        return {name: int(st[v + int(word)]) for name, word in names.items()}

    def _attach(self, mem: Memory, st: Words, v: int, base: int, personality: int) -> None:
        st[v + int(vring.V_USED_FLAGS)] = 0
        code = vring.device_init(
            mem,
            st,
            u64(v),
            self.num,
            self.desc,
            self.avail,
            self.used,
            self.features,
            base,
            personality,
        )
        verdict = vring.VERDICTS[int(st[v + int(vring.V_VERDICT)])]
        _require(code == 0, f'the device cannot go on with it: {verdict}')


@dataclass(frozen=True, kw_only=True)
class SplitState(Where):
    """A split ring at rest."""

    last_avail: int

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(not self.features >> F_RING_PACKED & 1, 'RING_PACKED is on, this is a split ring')
        _require(self.num & (self.num - 1) == 0, f'{self.num} entries; not a power of two')
        _check_area('available ring', self.avail, 2)
        _check_area('used ring', self.used, 4)
        _require(0 <= self.last_avail <= 0xFFFF, f'last_avail {self.last_avail} is not 16 bits')

    @property
    def base(self) -> int:
        """What VHOST_GET_VRING_BASE returns."""
        return self.last_avail

    def with_base(self, base: int) -> Self:
        """The same ring at another VHOST_SET_VRING_BASE."""
        return replace(self, last_avail=base)

    def restarted_at_used(self, mem: Memory) -> Self:
        """What a forced stop does (vhost_dev_force_stop): last_avail becomes used.idx.

        Safe only if the device completes in order.
        """
        return replace(self, last_avail=_used_idx(mem, self))

    def in_use(self, mem: Memory) -> int:
        """Chains taken and never given back: last_avail - used.idx, as virtio_load() counts."""
        return (self.last_avail - _used_idx(mem, self)) & 0xFFFF

    def vmstate(self) -> dict[str, bytes]:
        """The ring's fields in the migration stream, by name."""
        return {
            'num': self.num.to_bytes(4, 'big'),
            'desc': self.desc.to_bytes(8, 'big'),
            'last_avail_idx': self.last_avail.to_bytes(2, 'big'),
            'avail': self.avail.to_bytes(8, 'big'),
            'used': self.used.to_bytes(8, 'big'),
        }

    @classmethod
    def from_vmstate(cls, fields: Mapping[str, bytes], features: int) -> Self:
        """Back from the stream. Errors: ValueError."""
        number = _numbers(fields, SPLIT_FIELDS)
        return cls(
            num=number['num'],
            features=features,
            desc=number['desc'],
            avail=number['avail'],
            used=number['used'],
            last_avail=number['last_avail_idx'],
        )

    @classmethod
    def from_ring(cls, st: Words, v: int) -> Self:
        """The state of the device whose words begin at `v`."""
        _require_at_rest(st, v)
        return cls(**cls._areas(st, v), last_avail=int(st[v + int(vring.V_LAST_AVAIL)]))

    def to_ring(
        self, mem: Memory, st: Words, v: int, personality: int = vring.KERNEL_VHOST
    ) -> None:
        """Go on with it in `st` from `v` on, as virtio_load() does and then the device's start.

        Errors: ValueError when more is in use than the ring has, or memory has no such ring. An
        available index that ran away makes the device broken, and loading goes on.
        """
        verdict = vring_split_device.check_areas(mem, self.num, self.desc, self.avail, self.used, 1)
        _require(not verdict, f'this memory has no such ring: {vring.VERDICTS[verdict]}')
        in_use = self.in_use(mem)
        _require(
            in_use <= self.num,
            f'last_avail {self.last_avail} with used.idx {_used_idx(mem, self)} means {in_use} '
            f'chains in use, the ring has {self.num}',
        )
        self._attach(mem, st, v, self.base, personality)
        ahead = (_word(mem, self.avail + 2) - self.last_avail) & 0xFFFF
        if ahead > self.num:
            vring.break_device(st, u64(v), vring.BAD_AVAIL_INDEX)


@dataclass(frozen=True, kw_only=True)
class PackedState(Where):
    """A packed ring at rest. Indices count descriptors."""

    last_avail: int
    last_avail_wrap: int
    used_idx: int
    used_wrap: int

    def __post_init__(self) -> None:
        super().__post_init__()
        packed = bool(self.features >> F_RING_PACKED & 1)
        _require(packed, 'RING_PACKED is off, this is a packed ring')
        _check_area('driver event', self.avail, 4)
        _check_area('device event', self.used, 4)
        for name in ('last_avail', 'used_idx'):
            index = self._field(name)
            _require(0 <= index < self.num, f'{name} {index} lies beyond a ring of {self.num}')
        for name in ('last_avail_wrap', 'used_wrap'):
            wrap = self._field(name)
            _require(wrap in (0, 1), f'{name} {wrap} is not a wrap counter')
        _require(
            0 <= self.in_use <= self.num,
            f'last_avail {self.last_avail} with used_idx {self.used_idx} means {self.in_use} '
            f'descriptors in use, the ring has {self.num}',
        )

    @property
    def in_use(self) -> int:
        """Descriptors taken and never given back."""
        laps = 0 if self.last_avail_wrap == self.used_wrap else self.num
        return self.last_avail - self.used_idx + laps

    @property
    def base(self) -> int:
        """What VHOST_GET_VRING_BASE returns: 32 bits, the used index in the high half."""
        avail = self.last_avail_wrap << WRAP | self.last_avail
        return (self.used_wrap << WRAP | self.used_idx) << 16 | avail

    def with_base(self, base: int) -> Self:
        """The same ring at another VHOST_SET_VRING_BASE."""
        _require(0 <= base < 1 << 32, f'base {base} is not 32 bits')
        return replace(
            self,
            last_avail=base & INDEX,
            last_avail_wrap=base >> WRAP & 1,
            used_idx=base >> 16 & INDEX,
            used_wrap=base >> 31,
        )

    def restarted_at_used(self, mem: Memory) -> Self:
        """A forced stop cannot help a packed ring: memory has no index to start from."""
        return self

    def vmstate(self) -> dict[str, bytes]:
        """The ring's fields in the migration stream, by name."""
        return {
            'num': self.num.to_bytes(4, 'big'),
            'desc': self.desc.to_bytes(8, 'big'),
            'avail': self.avail.to_bytes(8, 'big'),
            'used': self.used.to_bytes(8, 'big'),
            'last_avail_idx': self.last_avail.to_bytes(2, 'big'),
            'last_avail_wrap_counter': bytes([self.last_avail_wrap]),
            'used_idx': self.used_idx.to_bytes(2, 'big'),
            'used_wrap_counter': bytes([self.used_wrap]),
            'inuse': self.in_use.to_bytes(4, 'big'),
        }

    @classmethod
    def from_vmstate(cls, fields: Mapping[str, bytes], features: int) -> Self:
        """Back from the stream. Errors: ValueError."""
        number = _numbers(fields, PACKED_FIELDS)
        state = cls(
            num=number['num'],
            features=features,
            desc=number['desc'],
            avail=number['avail'],
            used=number['used'],
            last_avail=number['last_avail_idx'],
            last_avail_wrap=number['last_avail_wrap_counter'],
            used_idx=number['used_idx'],
            used_wrap=number['used_wrap_counter'],
        )
        _require(
            number['inuse'] == state.in_use,
            f'inuse {number["inuse"]}, but the indices are {state.in_use} apart',
        )
        return state

    @classmethod
    def from_ring(cls, st: Words, v: int) -> Self:
        """The state of the device whose words begin at `v`."""
        _require_at_rest(st, v)
        return cls(
            **cls._areas(st, v),
            last_avail=int(st[v + int(vring.V_LAST_AVAIL)]),
            last_avail_wrap=int(st[v + int(vring.V_AVAIL_WRAP)]),
            used_idx=int(st[v + int(vring.V_LAST_USED)]),
            used_wrap=int(st[v + int(vring.V_USED_WRAP)]),
        )

    def to_ring(
        self, mem: Memory, st: Words, v: int, personality: int = vring.KERNEL_VHOST
    ) -> None:
        """Go on with it in `st` from `v` on. Errors: ValueError, when memory has no such ring."""
        self._attach(mem, st, v, self.base, personality)


SPLIT_FIELDS = {'num': 4, 'desc': 8, 'last_avail_idx': 2, 'avail': 8, 'used': 8}
PACKED_FIELDS = SPLIT_FIELDS | {
    'last_avail_wrap_counter': 1,
    'used_idx': 2,
    'used_wrap_counter': 1,
    'inuse': 4,
}


def _numbers(fields: Mapping[str, bytes], sizes: Mapping[str, int]) -> dict[str, int]:
    """The stream's fields as numbers; every one must be there, in its size, and no other."""
    for name in sizes:
        _require(name in fields, f'field {name} is missing')
    for name, raw in fields.items():
        _require(name in sizes, f'unknown field {name}')
        _require(len(raw) == sizes[name], f'field {name} has {len(raw)} bytes, not {sizes[name]}')
    return {name: int.from_bytes(raw, 'big') for name, raw in fields.items()}


def _word(mem: Memory, address: int) -> int:
    return int.from_bytes(mem[address : address + 2].tobytes(), 'little')


def _used_idx(mem: Memory, state: SplitState) -> int:
    return _word(mem, state.used + 2)


def _require_at_rest(st: Words, v: int) -> None:
    in_order = int(st[v + int(vring.V_FEATURES)]) >> F_IN_ORDER & 1
    _require(
        not in_order or not vring.in_flight(st, u64(v)),
        'an IN_ORDER ring with chains in flight: where they stand in line would be lost',
    )


def save(st: Words, v: int) -> SplitState | PackedState:
    """The state of the device whose words begin at `v`, whichever ring it is."""
    kind = PackedState if st[v + int(vring.V_PACKED)] else SplitState
    return kind.from_ring(st, v)
