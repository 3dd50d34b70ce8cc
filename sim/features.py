"""Feature bits: what they mean, who offers them, and what device and driver agree on.

A bit travels

    property of -device -> host_features -> masked by the backend -> offered -> accepted by the
    guest's Linux -> acked -> SET_FEATURES to the backend

Masking is QEMU's (vhost_get_features_ex): a bit of the device's list that the backend lacks is
taken out of the offer; a bit that is not in the list passes, whatever the backend says, and is
found out only when the guest has acked it and the backend is asked to drive it.

Sets of bits are ints, bit n for feature n. Sources: virtio 1.4 "Reserved Feature Bits" and "SCSI
Host Device"; Linux drivers/vhost/vhost.h and scsi.c, drivers/virtio/virtio_ring.c and
virtio_pci_modern.c, drivers/scsi/virtio_scsi.c; QEMU hw/scsi/vhost-scsi.c, vhost-user-scsi.c and
vhost-scsi-common.c, include/hw/virtio/virtio.h; SPDK lib/vhost/vhost_internal.h and vhost_scsi.c.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

EFAULT, EBUSY, EOPNOTSUPP = -14, -16, -95
REFUSED = -1  # a vhost-user backend has no errno: it closes the connection

INOUT = 0
HOTPLUG = 1
CHANGE = 2
T10_PI = 3
NOTIFY_ON_EMPTY = 24
LOG_ALL = 26
ANY_LAYOUT = 27
INDIRECT_DESC = 28
EVENT_IDX = 29
BAD_FEATURE = 30
VERSION_1 = 32
ACCESS_PLATFORM = 33
RING_PACKED = 34
IN_ORDER = 35
ORDER_PLATFORM = 36
SR_IOV = 37
NOTIFICATION_DATA = 38
NOTIF_CONFIG_DATA = 39
RING_RESET = 40
ADMIN_VQ = 41
SUSPEND = 43


def mask(*bits: int) -> int:
    """The set of these bits."""
    return sum(1 << bit for bit in set(bits))


def bits_of(features: int) -> tuple[int, ...]:
    """The bits of a set, ascending."""
    return tuple(bit for bit in range(features.bit_length()) if features >> bit & 1)


def name_of(bit: int) -> str:
    """The bit's name in the headers, or its number if it has none."""
    return BITS[bit].name if bit in BITS else f'bit {bit}'


@dataclass(frozen=True)
class Bit:
    """One feature bit: number, name in Linux's headers, meaning, what the model does with it."""

    number: int
    name: str
    meaning: str
    here: str


BITS = {
    row.number: row
    for row in (
        Bit(INOUT, 'VIRTIO_SCSI_F_INOUT', 'a request may carry data in both directions',
            'nothing: Linux never acks it'),
        Bit(HOTPLUG, 'VIRTIO_SCSI_F_HOTPLUG', 'LUNs come and go, told on the event queue',
            'events of [[hotplug]] tables'),
        Bit(CHANGE, 'VIRTIO_SCSI_F_CHANGE', 'LUN parameters change, told on the event queue',
            'negotiated; vhost-scsi tells of no change'),
        Bit(T10_PI, 'VIRTIO_SCSI_F_T10_PI', 'protection information: 59-byte request header',
            'negotiated; refused in a run'),
        Bit(NOTIFY_ON_EMPTY, 'VIRTIO_F_NOTIFY_ON_EMPTY',
            'legacy: interrupt when the available ring has run empty, suppressed or not',
            'hidden from the modern driver'),
        Bit(LOG_ALL, 'VHOST_F_LOG_ALL', 'vhost only: log every write to guest memory',
            'never shown to a guest'),
        Bit(ANY_LAYOUT, 'VIRTIO_F_ANY_LAYOUT',
            'legacy: no assumption on how a request is cut into descriptors',
            'hidden from the modern driver; VERSION_1 implies it'),
        Bit(INDIRECT_DESC, 'VIRTIO_RING_F_INDIRECT_DESC',
            'a descriptor may point to a table of descriptors',
            'a request takes one ring entry, and the lines of a table'),
        Bit(EVENT_IDX, 'VIRTIO_RING_F_EVENT_IDX',
            'each side says from which index on it wants to be notified',
            'fewer kicks and interrupts; other lines touched'),
        Bit(BAD_FEATURE, 'VIRTIO_F_BAD_FEATURE',
            'unused; between QEMU and a vhost-user backend: PROTOCOL_FEATURES',
            'hidden from the modern driver'),
        Bit(VERSION_1, 'VIRTIO_F_VERSION_1', 'virtio 1.x: little-endian, modern layout',
            'always on'),
        Bit(ACCESS_PLATFORM, 'VIRTIO_F_ACCESS_PLATFORM', 'addresses go through the IOMMU',
            'negotiated; refused in a run'),
        Bit(RING_PACKED, 'VIRTIO_F_RING_PACKED', 'packed rings',
            'one descriptor ring that both sides write: fewer lines per request'),
        Bit(IN_ORDER, 'VIRTIO_F_IN_ORDER', 'buffers are used in the order made available',
            'completions wait for older ones; fewer used elements and lines per batch'),
        Bit(ORDER_PLATFORM, 'VIRTIO_F_ORDER_PLATFORM', "the platform's (DMA) barriers are needed",
            'negotiated; nobody offers it'),
        Bit(SR_IOV, 'VIRTIO_F_SR_IOV', 'single-root I/O virtualization', 'nothing'),
        Bit(NOTIFICATION_DATA, 'VIRTIO_F_NOTIFICATION_DATA',
            'a kick carries the queue number and the position in the ring',
            'negotiated; QEMU has no property that offers it'),
        Bit(NOTIF_CONFIG_DATA, 'VIRTIO_F_NOTIF_CONFIG_DATA',
            "a kick carries the device's own word in place of the queue number", 'nothing'),
        Bit(RING_RESET, 'VIRTIO_F_RING_RESET', 'a queue can be reset by itself',
            'negotiated; no queue is reset'),
        Bit(ADMIN_VQ, 'VIRTIO_F_ADMIN_VQ', 'administration virtqueue', 'nothing'),
        Bit(SUSPEND, 'VIRTIO_F_SUSPEND', 'the device can be suspended through its status field',
            'nothing'),
    )
}  # fmt: skip

LEGACY_ONLY = mask(NOTIFY_ON_EMPTY, ANY_LAYOUT, BAD_FEATURE)  # QEMU's VIRTIO_LEGACY_FEATURES


def unmet(features: int) -> list[str]:
    """What a set of acked bits lacks: every bit from 32 on exists for virtio 1.x drivers only."""
    if features >> VERSION_1 & 1:
        return []
    return [f'{name_of(bit)} needs VIRTIO_F_VERSION_1' for bit in bits_of(features) if bit >= 32]


# ----------------------------------------------------------------------------------- backends ----

# drivers/vhost/vhost.h VHOST_FEATURES, the same in Linux 6.1, 6.12 and 7.2.
VHOST_FEATURES = mask(NOTIFY_ON_EMPTY, INDIRECT_DESC, EVENT_IDX, LOG_ALL, ANY_LAYOUT, VERSION_1)
VHOST_SCSI_FEATURES = VHOST_FEATURES | mask(HOTPLUG, T10_PI)  # 0x13d00000a

# SPDK_VHOST_SCSI_FEATURES without SPDK_VHOST_SCSI_DISABLED_FEATURES (EVENT_IDX, NOTIFY_ON_EMPTY,
# T10_PI): a polling backend has no use for kicks and coalesces its interrupts itself.
SPDK_VHOST_SCSI_FEATURES = mask(
    LOG_ALL, BAD_FEATURE, VERSION_1, INDIRECT_DESC, ANY_LAYOUT, INOUT, HOTPLUG, CHANGE
)


def set_features(
    kernel: str, wanted: int, acked: int = 0, *, endpoint: bool = False, log_valid: bool = True
) -> int:
    """vhost_scsi_set_features(): what VHOST_SET_FEATURES answers, 0 or a negative errno.

    `acked` is what was set before. With an endpoint set Linux 7.2 lets LOG_ALL change and nothing
    else (-EBUSY); LOG_ALL without a valid log area is -EFAULT.
    """
    if wanted & ~VHOST_SCSI_FEATURES:
        return EOPNOTSUPP
    if wanted >> LOG_ALL & 1 and not log_valid:
        return EFAULT
    if kernel == '7.2' and endpoint and (wanted ^ acked) & ~mask(LOG_ALL):
        return EBUSY
    return 0


# --------------------------------------------------------------------------------------- QEMU ----

STACKS = {
    'vhost-scsi-pci': 'vhost-scsi',
    'vhost-scsi': 'vhost-scsi',
    'vhost-user-scsi-pci': 'vhost-user-scsi',
    'virtio-scsi-pci': 'virtio-scsi',
}

BACKENDS = {
    'vhost-scsi': 'kernel vhost-scsi',
    'vhost-user-scsi': "SPDK's vhost-user-scsi",
    'virtio-scsi': 'QEMU',
}


@dataclass(frozen=True)
class Property:
    """A property of -device that sets a bit of host_features; `since` is None where all have it."""

    name: str
    bit: int
    default: bool
    since: tuple[int, int] | None = None


COMMON = (  # DEFINE_VIRTIO_COMMON_FEATURES
    Property('indirect_desc', INDIRECT_DESC, True),
    Property('event_idx', EVENT_IDX, True),
    Property('notify_on_empty', NOTIFY_ON_EMPTY, True),
    Property('any_layout', ANY_LAYOUT, True),
    Property('iommu_platform', ACCESS_PLATFORM, False),
    Property('packed', RING_PACKED, False, (4, 2)),
    Property('queue_reset', RING_RESET, True, (7, 2)),
    Property('in_order', IN_ORDER, False, (9, 1)),
)
OWN = {
    'vhost-scsi': (
        Property('t10_pi', T10_PI, False),
        Property('hotplug', HOTPLUG, False, (10, 1)),
    ),
    'vhost-user-scsi': (
        Property('t10_pi', T10_PI, False),
        Property('hotplug', HOTPLUG, True),
        Property('param_change', CHANGE, True),
    ),
    'virtio-scsi': (
        Property('hotplug', HOTPLUG, True),
        Property('param_change', CHANGE, True),
    ),
}


def version(text: str) -> tuple[int, int]:
    """'10.2' as a pair that compares."""
    major, minor = text.split('.')[:2]
    return int(major), int(minor)


def properties_of(driver: str) -> dict[str, Property]:
    """The properties of a device that set a feature bit, by name."""
    return {row.name: row for row in (*COMMON, *OWN[STACKS[driver]])}


def masked_by_backend(driver: str, qemu: str) -> int:
    """kernel_feature_bits, or user_feature_bits: the bits that go if the backend lacks them.

    Nobody lists RING_PACKED, VERSION_1, T10_PI or CHANGE. The emulated virtio-scsi has no backend.
    """
    if STACKS[driver] == 'virtio-scsi':
        return 0
    listed = mask(NOTIFY_ON_EMPTY, INDIRECT_DESC, EVENT_IDX, HOTPLUG)
    if version(qemu) >= (7, 2):
        listed |= mask(RING_RESET)
    if version(qemu) >= (9, 1):
        listed |= mask(IN_ORDER, NOTIFICATION_DATA)
    return listed


# -------------------------------------------------------------------------------------- guest ----


def linux_accepts(kernel: str) -> int:
    """The bits that a Linux guest's virtio_scsi, ring and PCI drivers ack where offered.

    virtio_scsi's feature table (with CONFIG_BLK_DEV_INTEGRITY), vring_transport_features() and
    vp_transport_features(); NOTIFICATION_DATA came with 6.4. The driver is a modern one.
    """
    accepted = mask(HOTPLUG, CHANGE, T10_PI)
    accepted |= mask(INDIRECT_DESC, EVENT_IDX, VERSION_1, ACCESS_PLATFORM, RING_PACKED)
    accepted |= mask(ORDER_PLATFORM, RING_RESET)
    if version(kernel) >= (6, 4):
        accepted |= mask(NOTIFICATION_DATA)
    if version(kernel) >= (7, 2):
        accepted |= mask(IN_ORDER)
    return accepted


# -------------------------------------------------------------------------------- negotiation ----

# What a hypothetical backend may offer beyond the real one: what the ring core can do.
BEYOND = mask(RING_PACKED, IN_ORDER)


@dataclass(frozen=True, kw_only=True)
class Negotiation:
    """What device and driver agree on; every field of bits is a set.

    `backend` is None where QEMU itself is the device. `assumed`: bits that the backend has by
    hypothesis only. `answer`: of SET_FEATURES, 0 or a negative errno; `refusal` says in words what
    the real stack does then, and is empty where all is well.
    """

    driver: str
    qemu: str
    host_kernel: str
    guest_kernel: str
    settings: tuple[tuple[str, bool], ...]  # every property of the device with its value
    missing: tuple[str, ...]  # properties asked for that this QEMU does not have
    backend: int | None
    assumed: int
    listed: int
    host: int
    offered: int
    hidden: int
    accepted: int
    acked: int
    sent: int
    answer: int
    refusal: str

    @property
    def refused(self) -> int:
        """The bits that the backend was asked for and does not have."""
        return 0 if self.backend is None else self.sent & ~(self.backend | self.assumed)

    @property
    def masked(self) -> int:
        """The bits that QEMU would offer and takes out because the backend lacks them."""
        return self.host & ~self.offered

    @property
    def hypothetical(self) -> tuple[str, ...]:
        """Names of the agreed bits that the real backend does not offer, or this QEMU not ask."""
        rows = properties_of(self.driver)
        beyond = self.assumed | mask(*(rows[name].bit for name in self.missing))
        return tuple(name_of(bit) for bit in bits_of(self.acked & beyond))

    @property
    def backend_name(self) -> str:
        """Who serves the rings."""
        return BACKENDS[STACKS[self.driver]]

    def has(self, bit: int) -> bool:
        """Is the bit agreed on?"""
        return bool(self.acked >> bit & 1)

    def why(self, bit: int) -> str:
        """In a few words, why the bit is agreed on or is not."""
        names = [name for name, row in properties_of(self.driver).items() if row.bit == bit]
        values = dict(self.settings)
        if self.refused >> bit & 1:
            return 'acked, and the backend cannot: ' + errno_name(self.answer)
        if self.has(bit):
            return 'acked, by hypothesis only' if self.assumed >> bit & 1 else 'acked'
        if bit == LOG_ALL:
            if self.sent >> bit & 1:
                return 'added by QEMU while memory is logged'
            return 'for QEMU alone, while memory is logged'
        if not self.host >> bit & 1:
            if names and names[0] in values:
                return f'{names[0]}=off'
            return f'QEMU {self.qemu} does not offer it'
        if self.masked >> bit & 1:
            return 'listed and not in the backend: masked'
        if self.hidden >> bit & 1:
            return 'legacy: hidden from a modern driver'
        return f'Linux {self.guest_kernel} does not ack it'

    def rows(self) -> list[dict[str, Any]]:
        """One row for each bit that anybody offers, asks for or lists: the negotiation as data."""
        by_bit = {row.bit: row.name for row in properties_of(self.driver).values()}
        values = dict(self.settings)
        backend = 0 if self.backend is None else self.backend
        found = []
        for bit in bits_of(self.host | backend | self.listed | self.assumed | self.sent):
            name = by_bit.get(bit)
            known = name is not None and name in values
            found.append(
                {
                    'bit': bit,
                    'name': name_of(bit),
                    'backend': None if self.backend is None else bool(backend >> bit & 1),
                    'assumed': bool(self.assumed >> bit & 1),
                    'property': name if known else None,
                    'value': values[name] if name is not None and known else None,
                    'listed': bool(self.listed >> bit & 1),
                    'offered': bool(self.offered >> bit & 1),
                    'acked': self.has(bit),
                    'sent': bool(self.sent >> bit & 1),
                    'why': self.why(bit),
                }
            )
        return found

    def as_data(self) -> dict[str, Any]:
        """The whole negotiation, fit for JSON; sets of bits as hexadecimal text."""
        sets = ('host', 'listed', 'offered', 'accepted', 'acked', 'sent')
        return {
            'driver': self.driver,
            'qemu': self.qemu,
            'host_kernel': self.host_kernel,
            'guest_kernel': self.guest_kernel,
            'backend': None if self.backend is None else hex(self.backend),
            **{name: hex(getattr(self, name)) for name in sets},
            'answer': self.answer,
            'starts': not self.refusal,
            'refusal': self.refusal,
            'missing_properties': list(self.missing),
            'hypothetical': list(self.hypothetical),
            'bits': self.rows(),
        }


def errno_name(answer: int) -> str:
    """The name of what SET_FEATURES answers."""
    names = {0: 'ok', REFUSED: 'refused', EFAULT: 'EFAULT', EBUSY: 'EBUSY'}
    return names.get(answer, 'EOPNOTSUPP')


def negotiate(
    *,
    driver: str = 'vhost-scsi-pci',
    qemu: str = '10.2',
    host_kernel: str = '6.12',
    guest_kernel: str = '6.12',
    properties: Mapping[str, bool] | None = None,
    logging: bool = False,
    hypothetical: bool = False,
) -> Negotiation:
    """Run the negotiation of a modern Linux guest with a device.

    `properties` are those of -device, by name; the others have QEMU's defaults. A property that
    this QEMU does not have is taken as if it had it, and named in `missing`. `logging`: dirty
    logging is on. `hypothetical`: the backend has what BEYOND allows and a property asks for.
    Errors: KeyError for a property that sets no feature bit of this device.
    """
    asked = dict(properties or {})
    rows, newest = properties_of(driver), version(qemu)
    if not asked.keys() <= rows.keys():
        raise KeyError(f'no feature property of {driver}: {sorted(asked.keys() - rows.keys())}')
    had = {name for name, row in rows.items() if row.since is None or row.since <= newest}
    missing = tuple(sorted(name for name, on in asked.items() if on and name not in had))
    settings = {
        name: asked.get(name, row.default)
        for name, row in rows.items()
        if name in had or name in missing
    }
    host = mask(VERSION_1, BAD_FEATURE, *(rows[name].bit for name, on in settings.items() if on))

    stack = STACKS[driver]
    backend = {'vhost-scsi': VHOST_SCSI_FEATURES, 'vhost-user-scsi': SPDK_VHOST_SCSI_FEATURES}.get(
        stack
    )
    assumed = 0
    if hypothetical and backend is not None:
        wanted = mask(*(rows[name].bit for name, on in settings.items() if on and asked.get(name)))
        assumed = wanted & BEYOND & ~backend
    listed = masked_by_backend(driver, qemu)
    has = host if backend is None else backend | assumed
    offered = host & ~(listed & ~has)
    hidden = offered & LEGACY_ONLY
    accepted = linux_accepts(guest_kernel)
    acked = offered & ~hidden & accepted
    sent = 0
    if backend is not None:  # without a virtual IOMMU vhost is not told of ACCESS_PLATFORM
        sent = acked & ~mask(ACCESS_PLATFORM) | (mask(LOG_ALL) if logging else 0)
    lacking = sent & ~has
    answer = (EOPNOTSUPP if stack == 'vhost-scsi' else REFUSED) if lacking else 0
    return Negotiation(
        driver=driver,
        qemu=qemu,
        host_kernel=host_kernel,
        guest_kernel=guest_kernel,
        settings=tuple(settings.items()),
        missing=missing,
        backend=backend,
        assumed=assumed,
        listed=listed,
        host=host,
        offered=offered,
        hidden=hidden,
        accepted=accepted,
        acked=acked,
        sent=sent,
        answer=answer,
        refusal=refusal_of(stack, bits_of(lacking)),
    )


def refusal_of(stack: str, lacking: Iterable[int]) -> str:
    """What the real stack does about bits that the backend does not have; '' if there are none."""
    names = ' and '.join(f'{name_of(bit)} (bit {bit})' for bit in lacking)
    if not names:
        return ''
    if stack == 'vhost-scsi':
        then = (
            'VHOST_SET_FEATURES fails with EOPNOTSUPP and QEMU exits with "unable to start '
            'vhost-scsi"'
        )
    else:
        then = 'SET_FEATURES fails and QEMU disconnects the chardev'
    return f'{BACKENDS[stack]} does not offer {names}: {then}'
