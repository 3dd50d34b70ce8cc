"""The constant bytes of a LUN: INQUIRY data, VPD pages, mode pages, the list of its commands.

Layouts: SPC-4, SBC-3, and what LIO puts in them (target_core_spc.c). Made once per LUN; kernels
copy from them. Where kernels differ, `kernel` is the host's.
"""

from sim.lio import lun as unit
from sim.lio.spec import OUI, LunSpec, protocol_of

VPD_PAGES = (0x00, 0x80, 0x83, 0x86, 0xB0, 0xB1, 0xB2, 0xB3)
MAX_TRANSFER_PAGES = 2048  # VHOST_SCSI_PREALLOC_SGLS
SPC4, SBC3, SAM5 = 0x0460, 0x04C0, 0x00A0
TRANSPORT_VERSIONS = {0: 0x0A40, 5: 0x0960, 6: 0x0C60}  # FCP-4, iSCSI, SAS-3


def flags_of(spec: LunSpec) -> int:
    """The LUN's flags (sim.lio.lun)."""
    flags = unit.FUA_WRITE | unit.COMPARE_AND_WRITE
    if spec.virtual:
        flags |= unit.NULL_IO
    if spec.write_protected:
        flags |= unit.WRITE_PROTECTED
    if spec.write_cache:
        flags |= unit.WRITE_CACHE
    if spec.thin:
        flags |= unit.TPU | unit.TPWS | unit.UNMAP_ZEROES
    if spec.blocks > 1 << 32:
        flags |= unit.DESCRIPTOR_SENSE
    if spec.refuse_overflow:
        flags |= unit.REFUSE_OVERFLOW
    return flags


def be(value: int, size: int) -> bytes:
    """A big-endian field."""
    return value.to_bytes(size, 'big')


def padded(text: str, size: int) -> bytes:
    """ASCII, left-aligned, filled with blanks."""
    return text.encode('ascii').ljust(size)


# ------------------------------------------------------------------------------------- INQUIRY ----


def standard_inquiry(spec: LunSpec, wwpn: str) -> bytes:
    """The 96 bytes of standard INQUIRY data."""
    # SPC-4; response data format 2; 91 more bytes; SCCS, TPGS both ways, 3PC; CMDQUE.
    head = bytes([0x00, 0x00, 0x06, 0x02, 91, 0xB8, 0x00, 0x02])
    names = padded(spec.vendor, 8) + padded(spec.product, 16) + padded(spec.revision, 4)
    versions = (SAM5, TRANSPORT_VERSIONS[protocol_of(wwpn)], SPC4, SBC3)
    return (head + names + bytes(22) + b''.join(be(v, 2) for v in versions)).ljust(96, b'\0')


def vpd(page: int, body: bytes) -> bytes:
    """A VPD page with its header."""
    return bytes([0x00, page]) + be(len(body), 2) + body


def vpd_pages(spec: LunSpec, wwpn: str, kernel: str) -> dict[int, bytes]:
    """Every VPD page, by its code."""
    serial = spec.unit_serial(wwpn)
    supported = bytes(VPD_PAGES) if serial else b''
    return {
        0x00: vpd(0x00, supported),
        0x80: vpd(0x80, serial.encode() + b'\0' if serial else b''),
        0x83: vpd(0x83, designators(spec, wwpn)),
        0x86: vpd(0x86, extended_inquiry(spec)),
        0xB0: vpd(0xB0, block_limits(spec, kernel)),
        0xB1: vpd(0xB1, be(0 if spec.rotational else 1, 2) + bytes(58)),
        0xB2: vpd(0xB2, bytes([0, 0xE4 if spec.thin else 0, 0, 0])),
        0xB3: vpd(0xB3, bytes(12)),
    }


def designator(protocol: int, code_set: int, association: int, kind: int, body: bytes) -> bytes:
    """One designation descriptor; PIV is set where it belongs to a port or a target."""
    second = association << 4 | kind | (0x80 if association else 0)
    return bytes([protocol << 4 | code_set, second, 0, len(body)]) + body


def designators(spec: LunSpec, wwpn: str) -> bytes:
    """The descriptors of page 83h: NAA, T10 vendor, port, port group, LU group, two names."""
    serial, protocol = spec.unit_serial(wwpn), protocol_of(wwpn)
    found = b''
    if serial:
        digits = ''.join(c for c in serial.lower() if c in '0123456789abcdef')
        naa = bytes.fromhex(('6' + OUI + digits)[:32].ljust(32, '0'))
        found += designator(0, 1, 0, 3, naa)
        vendor = padded(spec.vendor, 8) + f'{spec.product}:{serial}'.encode() + b'\0'
    else:
        vendor = padded(spec.vendor, 8) + b'\0'
    found += designator(0, 2, 0, 1, vendor)
    found += designator(protocol, 1, 1, 4, be(port_of(spec), 4))
    found += designator(protocol, 1, 1, 5, be(0, 4))
    found += designator(0, 1, 0, 6, be(0, 4))
    found += designator(protocol, 3, 1, 8, name_string(f'{wwpn},t,0x{spec.target:04x}'))
    return found + designator(protocol, 3, 2, 8, name_string(wwpn))


def port_of(spec: LunSpec) -> int:
    """The relative target port identifier; LIO counts ports from 1."""
    return spec.target + 1


def name_string(text: str) -> bytes:
    """A SCSI name string: ends with a zero, a multiple of four bytes."""
    raw = text.encode() + b'\0'
    return (raw + bytes(-len(raw) % 4))[:252]


def extended_inquiry(spec: LunSpec) -> bytes:
    """Page 86h: HEADSUP, ORDSUP, SIMPSUP, and V_SUP with a write cache."""
    return bytes([0, 0x07, 0x01 if spec.write_cache else 0]).ljust(60, b'\0')


def block_limits(spec: LunSpec, kernel: str) -> bytes:
    """Page B0h; its length is by kernel: 16 or 60 before 7.2, 12 or 40 since."""
    most = min(MAX_TRANSFER_PAGES * 4096 // spec.block_size, spec.hw_max_sectors)
    body = bytes([0x01, 0x01]) + be(1, 2) + be(most, 4) + be(spec.hw_max_sectors, 4)
    if spec.thin:
        body += be(0, 4) + be(spec.max_unmap_blocks, 4) + be(spec.max_unmap_ranges, 4)
        body += be(1, 4) + be(0, 4) + be(spec.max_write_same, 8)
    old, new = (60, 40) if spec.thin else (16, 12)
    size = new if kernel == '7.2' else old
    return body.ljust(size, b'\0')[:size]


# ---------------------------------------------------------------------------------- mode pages ----


def mode_pages(spec: LunSpec) -> dict[int, bytes]:
    """The mode pages with their current values, by page code."""
    control = bytearray(12)
    control[:6] = 0x0A, 0x0A, 0x02 | (0x04 if spec.blocks > 1 << 32 else 0), 0x10, 0, 0x40
    control[8:12] = 0xFF, 0xFF, 0, 30
    caching = bytearray(20)
    caching[:3] = 0x08, 0x12, 0x04 if spec.write_cache else 0
    caching[12] = 0x20  # DRA
    return {
        0x01: bytes([0x01, 0x0A]).ljust(12, b'\0'),
        0x08: bytes(caching),
        0x0A: bytes(control),
        0x1C: bytes([0x1C, 0x0A]).ljust(12, b'\0'),
    }
