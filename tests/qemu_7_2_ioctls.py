"""What QEMU 7.2 was seen to ask of /dev/vhost-scsi, in the order in which it did.

From the last start of a VM to the end of its migration to another host, as strace showed it: QEMU
7.2.x with Debian kernels, own measurement. One request queue of 128 entries, the guest's driver
modern, EVENT_IDX and INDIRECT_DESC agreed.

Each line: ioctl without its VHOST_, then index, features, flags, num and answer where it has them.
Ring addresses, file numbers, names and base indices are the machine's own and are left out.
"""

START = """
SCSI_GET_ABI_VERSION
SET_FEATURES features=0x130000000
GET_BACKEND_FEATURES answer=-105
SET_MEM_TABLE nregions=1
SET_VRING_NUM index=0 num=128
SET_VRING_BASE index=0
SET_VRING_ADDR index=0 flags=0
SET_VRING_KICK index=0
SET_VRING_NUM index=1 num=128
SET_VRING_BASE index=1
SET_VRING_ADDR index=1 flags=0
SET_VRING_KICK index=1
SET_VRING_NUM index=2 num=128
SET_VRING_BASE index=2
SET_VRING_ADDR index=2 flags=0
SET_VRING_KICK index=2
SET_VRING_CALL index=0
SET_VRING_CALL index=1
SET_VRING_CALL index=2
SCSI_SET_ENDPOINT
"""

LOG = """
SET_LOG_BASE
SET_FEATURES features=0x134000000
GET_BACKEND_FEATURES answer=-25
SET_VRING_ADDR index=0 flags=1
SET_VRING_ADDR index=1 flags=1
SET_VRING_ADDR index=2 flags=1
"""

STOP = """
SCSI_CLEAR_ENDPOINT
GET_VRING_BASE index=0
GET_VRING_BASE index=1
GET_VRING_BASE index=2
"""

# Before any start, of the same VM.
INIT = """
SET_OWNER
GET_FEATURES features=0x13d00000a
SET_VRING_CALL index=0
SET_VRING_ERR index=0
SET_VRING_CALL index=1
SET_VRING_ERR index=1
SET_VRING_CALL index=2
SET_VRING_ERR index=2
"""

# While the firmware ran, only the request queue had a ring, and EVENT_IDX was not agreed.
FIRMWARE_START = """
SCSI_GET_ABI_VERSION
SET_FEATURES features=0x100000000
GET_BACKEND_FEATURES answer=-105
SET_MEM_TABLE nregions=1
SET_VRING_NUM index=2 num=128
SET_VRING_BASE index=2
SET_VRING_ADDR index=2 flags=0
SET_VRING_KICK index=2
SET_VRING_CALL index=0
SET_VRING_CALL index=1
SET_VRING_CALL index=2
SCSI_SET_ENDPOINT
"""
