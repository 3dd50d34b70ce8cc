"""A vhost-scsi device as it travels in QEMU's migration stream: virtio_save() and virtio_load().

hw/virtio/virtio.c, hw/virtio/virtio-pci.c, hw/pci/pci.c; all big-endian. The device's own part of a
section: the bus (PCI configuration space, interrupt state, MSI-X table and pending bits, the
configuration vector), then status, isr, queue_sel, the low features, the config space, the queues,
and subsections for what not every device has. The space of PCI registers is left zero: nothing in
the model reads it.

Not in the stream for a split ring: used_idx, signalled_used and whatever is in flight. After the
load used_idx is what stands in guest memory, so what was fetched and not answered is known as a
number (inuse) and otherwise lost: a stop must drain.
"""

import struct
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sim import features
from sim.device import QUEUE_MAX, VHostSCSI, VirtIODevice
from sim.layout import AVAIL_IDX, USED_IDX
from sim.vhost.dev import VirtQueue, index_at

SECTION = {'vhost-scsi': 'virtio-vhost_scsi', 'vhost-user-scsi': 'virtio-scsi'}
SECTION_VERSION = 1
SUBSECTION = 0x05  # QEMU_VM_SUBSECTION
PCI_VERSION, PCI_CONFIG = 2, 256
PACKED_QUEUE = '>HBHBI'
MODERN_QUEUE = '>HxB6I'  # num, enabled, then desc, avail, used as two words each, low first


class LoadError(Exception):
    """The stream does not fit the device; QEMU refuses the migration with this message."""


@dataclass(kw_only=True)
class DeviceState:
    """What a stream says of a device."""

    status: int = 0
    isr: int = 0
    queue_sel: int = 0
    guest_features: int = 0
    config: bytes = b''
    queues: list[VirtQueue] = field(default_factory=list)
    subsections: tuple[str, ...] = ()


def save(device: VirtIODevice) -> bytes:
    """The section of a device. Ends the VM where vhost still runs (vhost_scsi_pre_save)."""
    if isinstance(device, VHostSCSI) and device.dev.started:
        device.vm.exit('vhost_scsi_pre_save: Assertion `!vhost_dev_is_started(&vsc->dev)\' failed.')
    common = device.parent_obj
    low, config = common.guest_features & 0xFFFFFFFF, common.config()
    parts = [
        _save_bus(common.conf.num_queues + 3),
        struct.pack('>BBHI', common.status, common.isr, common.queue_sel, low),
        struct.pack('>I', len(config)),
        config,
        struct.pack('>I', len(common.vqs)),
    ]
    for vq in common.vqs:
        parts.append(struct.pack('>IQHH', vq.num, vq.desc, vq.last_avail_idx & 0xFFFF, vq.vector))
    for name, body in _subsections(device):
        parts.append(struct.pack('>BB', SUBSECTION, len(name)) + name.encode())
        parts.append(struct.pack('>I', SECTION_VERSION) + body)
    return b''.join(parts)


def _save_bus(vectors: int) -> bytes:
    """virtio_pci_save_config(): pci_device_save(), msix_save(), the configuration vector."""
    pci = struct.pack('>i', PCI_VERSION) + bytes(PCI_CONFIG) + struct.pack('>4i', 0, 0, 0, 0)
    msix = bytes(16 * vectors) + bytes(-(-vectors // 8))
    return pci + msix + struct.pack('>H', 0)


def _subsections(device: VirtIODevice) -> list[tuple[str, bytes]]:
    """Those that are needed, in the order in which vmstate_virtio lists them."""
    common, found = device.parent_obj, []
    offered = common.host_features
    if offered >> 32:
        found.append(('virtio/64bit_features', struct.pack('>Q', common.guest_features)))
    if offered >> features.VERSION_1 & 1:
        pairs = [struct.pack('>QQ', vq.avail, vq.used) for vq in common.vqs]
        found.append(('virtio/virtqueues', _of_all_queues(pairs, '>QQ')))
    found.append(('virtio/extra_state', _extra_state(device)))
    if common.status & 4:
        found.append(('virtio/started', b'\x01'))
    if offered >> features.RING_PACKED & 1:
        found.append(('virtio/packed_virtqueues', _packed(common.vqs)))
    return found


def _of_all_queues(words: list[bytes], layout: str) -> bytes:
    """What each queue has, and zeros for every other one that a virtio device could have."""
    return b''.join(words) + bytes(struct.calcsize(layout) * (QUEUE_MAX - len(words)))


def _extra_state(device: VirtIODevice) -> bytes:
    """vmstate_virtio_pci with its one subsection, the registers of a modern device."""
    name, guest = b'virtio_pci/modern_state', device.parent_obj.guest_features
    registers, words = struct.pack('>4I', 0, 0, guest & 0xFFFFFFFF, guest >> 32), []
    for vq in device.parent_obj.vqs:
        halves = [
            half
            for address in (vq.desc, vq.avail, vq.used)
            for half in (address & 0xFFFFFFFF, address >> 32)
        ]
        words.append(struct.pack(MODERN_QUEUE, vq.num, int(vq.is_set_up), *halves))
    head = struct.pack('>BB', SUBSECTION, len(name)) + name + struct.pack('>I', SECTION_VERSION)
    return head + registers + _of_all_queues(words, MODERN_QUEUE)


def _packed(vqs: list[VirtQueue]) -> bytes:
    """last_avail_idx and used_idx with their wrap counters, and inuse."""
    words = []
    for vq in vqs:
        last, used = vq.last_avail_idx & 0xFFFF, vq.last_avail_idx >> 16 & 0xFFFF
        words.append(
            struct.pack(
                PACKED_QUEUE, last & 0x7FFF, last >> 15, used & 0x7FFF, used >> 15, vq.inuse
            )
        )
    return _of_all_queues(words, PACKED_QUEUE)


# ---------------------------------------------------------------------------------------- load ----


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, layout: str) -> tuple[int, ...]:
        size = struct.calcsize(layout)
        if self.at + size > len(self.data):
            raise LoadError(f'the stream ends at byte {len(self.data)}, within {layout}')
        found = struct.unpack_from(layout, self.data, self.at)
        self.at += size
        return found

    def bytes(self, size: int) -> bytes:
        found = self.data[self.at : self.at + size]
        if len(found) < size:
            raise LoadError(f'the stream ends at byte {len(self.data)}')
        self.at += size
        return found


def parse(data: bytes, *, vectors: int) -> DeviceState:
    """What a stream says. Errors: LoadError where it is cut short or has an unknown subsection."""
    read = _Reader(data)
    (version,) = read.take('>i')
    if version != PCI_VERSION:
        raise LoadError(f'PCI device version {version}, {PCI_VERSION} is known')
    read.bytes(PCI_CONFIG + 16 + 16 * vectors + -(-vectors // 8) + 2)
    status, isr, queue_sel, low = read.take('>BBHI')
    (size,) = read.take('>I')
    state = DeviceState(status=status, isr=isr, queue_sel=queue_sel, guest_features=low)
    state.config = read.bytes(size)
    (count,) = read.take('>I')
    if count > QUEUE_MAX:
        raise LoadError(f'Invalid number of virtqueues: 0x{count:x}')
    for _ in range(count):
        num, desc, last, vector = read.take('>IQHH')
        state.queues.append(VirtQueue(num=num, desc=desc, last_avail_idx=last, vector=vector))
    names = []
    while read.at < len(data):
        mark, length = read.take('>BB')
        name = read.bytes(length).decode('ascii', 'replace')
        read.take('>I')
        if mark != SUBSECTION:
            raise LoadError(f'byte {mark:#x} where a subsection should begin')
        _load_subsection(read, name, state)
        names.append(name)
    state.subsections = tuple(names)
    return state


def _load_subsection(read: _Reader, name: str, state: DeviceState) -> None:
    if name == 'virtio/64bit_features':
        (state.guest_features,) = read.take('>Q')
    elif name == 'virtio/virtqueues':
        for vq in state.queues:
            vq.avail, vq.used = read.take('>QQ')
        _skip_other_queues(read, state, '>QQ')
    elif name == 'virtio/extra_state':
        read.bytes(2 + len('virtio_pci/modern_state') + 4 + 16)
        read.bytes(QUEUE_MAX * struct.calcsize(MODERN_QUEUE))
    elif name == 'virtio/started':
        read.take('>B')
    elif name == 'virtio/packed_virtqueues':
        for vq in state.queues:
            last, last_wrap, used, used_wrap, vq.inuse = read.take(PACKED_QUEUE)
            vq.last_avail_idx = last | last_wrap << 15 | (used | used_wrap << 15) << 16
        _skip_other_queues(read, state, PACKED_QUEUE)
    else:
        raise LoadError(f'unknown subsection {name}')


def _skip_other_queues(read: _Reader, state: DeviceState, layout: str) -> None:
    read.bytes(struct.calcsize(layout) * (QUEUE_MAX - len(state.queues)))


def load(device: VirtIODevice, data: bytes, mem: npt.NDArray[np.uint8]) -> list[str]:
    """virtio_load(): put a stream into a realized device whose guest memory is there already.

    Returns what QEMU says of a device that it then declares broken. Errors: LoadError where the
    migration fails.
    """
    common = device.parent_obj
    state = parse(data, vectors=common.conf.num_queues + 3)
    unknown = state.guest_features & ~common.host_features
    if unknown:
        raise LoadError(
            f'Features 0x{unknown:x} unsupported. Allowed features: 0x{common.host_features:x}'
        )
    if len(state.config) != len(common.config()):
        raise LoadError(f'config of {len(state.config)} bytes, {len(common.config())} wanted')
    if len(state.queues) > len(common.vqs):
        raise LoadError(f'{len(state.queues)} queues, the device has {len(common.vqs)}')
    common.status, common.isr, common.queue_sel = state.status, state.isr, state.queue_sel
    common.guest_features = state.guest_features
    broken = []
    packed = state.guest_features >> features.RING_PACKED & 1
    for index, vq in enumerate(state.queues):
        if vq.is_set_up and not packed:
            broken += _take_indices(index, vq, mem)
        common.vqs[index] = vq
    device.loaded()
    return broken


def _take_indices(index: int, vq: VirtQueue, mem: npt.NDArray[np.uint8]) -> list[str]:
    """used_idx and the shadow of avail.idx come from guest memory, inuse is their difference."""
    avail = index_at(mem, vq.avail + int(AVAIL_IDX))
    heads = avail - vq.last_avail_idx & 0xFFFF
    vq.used_idx = index_at(mem, vq.used + int(USED_IDX))
    vq.shadow_avail_idx = avail
    vq.signalled_used_valid = False
    vq.inuse = vq.last_avail_idx - vq.used_idx & 0xFFFF
    if vq.inuse > vq.num:
        raise LoadError(
            f'VQ {index} size 0x{vq.num:x} < last_avail_idx 0x{vq.last_avail_idx:x} - '
            f'used_idx 0x{vq.used_idx:x}'
        )
    if heads <= vq.num:
        return []
    return [
        f'VQ {index} size 0x{vq.num:x} Guest index 0x{avail:x} inconsistent with Host index '
        f'0x{vq.last_avail_idx:x}: delta 0x{heads:x}'
    ]
