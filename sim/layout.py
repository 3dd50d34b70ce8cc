"""Byte offsets and constants of virtio, virtio-scsi and vhost, as the headers have them.

Sources: virtio 1.x "Split Virtqueues", "Packed Virtqueues" and "SCSI Host Device"; Linux
include/uapi/linux/{virtio_ring,virtio_scsi,vhost}.h, drivers/vhost/scsi.c. All virtio fields are
little-endian, all SCSI fields big-endian. Offsets that kernels (see sim.jit) add to guest addresses
are `uint64`.
"""

import numpy as np

u64 = np.uint64

# Split descriptor, 16 bytes: addr le64, len le32, flags le16, next le16.
DESC_SIZE = u64(16)
DESC_LEN = u64(8)
DESC_FLAGS = u64(12)
DESC_NEXT = u64(14)
F_NEXT = 1
F_WRITE = 2
F_INDIRECT = 4

# Packed descriptor, 16 bytes: addr le64, len le32, id le16, flags le16; its AVAIL and USED bits say
# whose it is. Event suppression structure, 4 bytes: off_wrap le16 (bit 15 wrap), flags le16.
PACKED_ID = u64(12)
PACKED_FLAGS = u64(14)
F_AVAIL = 0x0080
F_USED = 0x8000
EVENT_OFF_WRAP = u64(0)
EVENT_FLAGS = u64(2)
EVENT_STRUCT_SIZE = 4
EVENT_F_ENABLE = 0
EVENT_F_DISABLE = 1
EVENT_F_DESC = 2

# Available ring: flags le16, idx le16, ring[num] le16, used_event le16.
AVAIL_IDX = u64(2)
AVAIL_RING = u64(4)
AVAIL_F_NO_INTERRUPT = 1

# Used ring: flags le16, idx le16, ring[num] {id le32, len le32}, avail_event le16.
USED_IDX = u64(2)
USED_RING = u64(4)
USED_ELEM_SIZE = u64(8)
USED_F_NO_NOTIFY = 1

RING_SIZE_MAX = 32768  # virtio "Virtqueues"
STATUS_NEEDS_RESET = 64  # device status bit DEVICE_NEEDS_RESET

INDIRECT_ENTRIES_MAX = 65536  # drivers/vhost/vhost.c get_indirect(): more is -E2BIG
IOV_MAX = 1024  # UIO_MAXIOV, the iov_limit of vhost-scsi; VIRTQUEUE_MAX_SIZE in QEMU

# Request header (struct virtio_scsi_cmd_req), 51 bytes with a 32-byte CDB.
REQ_SIZE = 51
REQ_LUN = u64(0)
REQ_TAG = u64(8)
REQ_TASK_ATTR = u64(16)
REQ_PRIO = u64(17)
REQ_CRN = u64(18)
REQ_CDB = u64(19)
CDB_SIZE = 32

# With VIRTIO_SCSI_F_T10_PI the header is 59 bytes (struct virtio_scsi_cmd_req_pi). Linux puts the
# two lengths of protection information before the CDB, where the specification has them behind it.
REQ_PI_SIZE = 59
REQ_PI_BYTES_OUT = u64(19)
REQ_PI_BYTES_IN = u64(23)
REQ_PI_CDB = u64(27)

# Response (struct virtio_scsi_cmd_resp), 108 bytes with 96 bytes of sense.
RESP_SIZE = 108
RESP_SENSE_LEN = u64(0)
RESP_RESID = u64(4)
RESP_STATUS_QUALIFIER = u64(8)
RESP_STATUS = u64(10)
RESP_RESPONSE = u64(11)
RESP_SENSE = u64(12)
SENSE_SIZE = 96

# virtio_scsi_cmd_resp.response, and those of the control queue
(
    S_OK,
    S_OVERRUN,
    S_ABORTED,
    S_BAD_TARGET,
    S_RESET,
    S_BUSY,
    S_TRANSPORT_FAILURE,
    S_TARGET_FAILURE,
    S_NEXUS_FAILURE,
    S_FAILURE,
    S_FUNCTION_SUCCEEDED,
    S_FUNCTION_REJECTED,
    S_INCORRECT_LUN,
) = range(13)

# Control and event queue: struct virtio_scsi_ctrl_tmf_req, _an_req, virtio_scsi_event.
TMF_REQ_SIZE, TMF_RESP_SIZE = 24, 1
AN_REQ_SIZE, AN_RESP_SIZE = 16, 5
EVENT_SIZE = 16
T_TMF, T_AN_QUERY, T_AN_SUBSCRIBE = range(3)
(
    TMF_ABORT_TASK,
    TMF_ABORT_TASK_SET,
    TMF_CLEAR_ACA,
    TMF_CLEAR_TASK_SET,
    TMF_I_T_NEXUS_RESET,
    TMF_LOGICAL_UNIT_RESET,
    TMF_QUERY_TASK,
    TMF_QUERY_TASK_SET,
) = range(8)
EVENT_NONE, EVENT_TRANSPORT_RESET, EVENT_ASYNC_NOTIFY, EVENT_PARAM_CHANGE = range(4)
EVENTS_MISSED = 1 << 31
RESET_HARD, RESET_RESCAN, RESET_REMOVED = range(3)

# Numbers of the virtqueues (virtio "SCSI Host Device / Virtqueues").
VQ_CONTROL, VQ_EVENT, VQ_REQUEST_FIRST = range(3)

VHOST_SCSI_WEIGHT = 256  # drivers/vhost/scsi.c: requests per run of handle_vq before it requeues

F_HOTPLUG = 1  # virtio-scsi: the device tells of LUNs that come and go

# Feature bits of the ring and the transport (virtio "Reserved Feature Bits").
F_NOTIFY_ON_EMPTY = 24
F_ANY_LAYOUT = 27
F_INDIRECT_DESC = 28
F_EVENT_IDX = 29
F_VERSION_1 = 32
F_RING_PACKED = 34
F_IN_ORDER = 35
F_NOTIFICATION_DATA = 38
F_RING_RESET = 40

# errno values the ring and the backend answer with, negative as in the kernel.
EIO = -5
E2BIG = -7
EFAULT = -14
EINVAL = -22
ENOSPC = -28
ENOBUFS = -105

PAGE_SIZE = 4096
CACHE_LINE = 64


def desc_bytes(num: int) -> int:
    """Size of the descriptor table (virtio "Split Virtqueues")."""
    return 16 * num


def avail_bytes(num: int, event_idx: bool) -> int:
    """Size of the available ring as vhost counts it (vhost_get_avail_size)."""
    return 4 + 2 * num + (2 if event_idx else 0)


def used_bytes(num: int, event_idx: bool) -> int:
    """Size of the used ring as vhost counts it (vhost_get_used_size)."""
    return 4 + 8 * num + (2 if event_idx else 0)


def vring_offsets(num: int, align: int) -> tuple[int, int, int]:
    """(avail, used, end) of a contiguous ring that starts at 0 (Linux vring_init, vring_size).

    `align` is 4096 for a legacy device and SMP_CACHE_BYTES (64) for a modern PCI one.
    """
    avail = desc_bytes(num)
    used = -(-(avail + 2 * (3 + num)) // align) * align
    return avail, used, used + used_bytes(num, event_idx=True)
