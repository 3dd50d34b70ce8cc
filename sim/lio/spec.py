"""What a LUN is, as whoever sets up the target says it (targetcli, configfs)."""

import hashlib
from dataclasses import dataclass

from sim.errors import ConfigError, shown

BLOCK_SIZES = (512, 1024, 2048, 4096)
KERNELS = ('6.1', '6.12', '7.2')
PROTOCOLS = {'fc': 0, 'iqn': 5, 'naa': 6}  # by the prefix of a name: FCP, iSCSI, SAS
OUI = '001405'  # of LIO, in its NAA identifiers
VIRTUAL_BLOCKS = 64  # rd_mcp with 8 pages, what LUN 0 is where none is mapped


@dataclass(frozen=True, kw_only=True)
class LunSpec:
    """One LUN of one target. Names are those of LIO's device attributes where it has them.

    `size` in bytes; `serial` '' makes one up from target and number. The limits of UNMAP are what
    an iblock device takes from its disk: one range, and what libata allows in it.
    """

    number: int = 0
    target: int = 0
    size: int = 8 << 30
    block_size: int = 512
    thin: bool = False  # emulate_tpu and emulate_tpws on, unmapped blocks read as zeroes
    write_protected: bool = False
    write_cache: bool = False
    rotational: bool = False
    serial: str = ''
    vendor: str = 'LIO-ORG'
    product: str = 'IBLOCK'
    revision: str = '4.0'
    physical_exponent: int = 0
    hw_max_sectors: int = 16384
    max_write_same: int = 0xFFFF
    max_unmap_blocks: int = 65535 * 64
    max_unmap_ranges: int = 1
    refuse_overflow: bool = False
    virtual: bool = False  # the LUN 0 that answers where none is mapped

    def __post_init__(self) -> None:
        """ConfigError where LIO could not make such a LUN."""
        where = f'LUN {self.number} of target {self.target}'
        if self.block_size not in BLOCK_SIZES:
            raise ConfigError(f'{where}: block_size={self.block_size} is none of {BLOCK_SIZES}')
        if not 0 <= self.number <= 0x3FFF:
            raise ConfigError(f'{where}: a LUN has a number from 0 to 16383')
        if not 0 <= self.target <= 255:
            raise ConfigError(f'{where}: a target has a number from 0 to 255')
        if self.size < self.block_size or self.size % self.block_size:
            raise ConfigError(
                f'{where}: size={self.size} is no multiple of block_size={self.block_size}'
            )
        for name, room in (('vendor', 8), ('product', 16), ('revision', 4), ('serial', 200)):
            text = getattr(self, name)
            if len(text) > room or not text.isascii() or not text.isprintable():
                raise ConfigError(f'{where}: {name}={shown(text)} is not ASCII of {room} at most')

    @property
    def blocks(self) -> int:
        """Capacity in blocks."""
        return self.size // self.block_size

    @property
    def sectors(self) -> int:
        """Capacity in sectors of 512 bytes."""
        return self.size // 512

    def unit_serial(self, wwpn: str) -> str:
        """The unit serial number: as given, or one that only this LUN of this target has."""
        if self.serial or self.virtual:
            return self.serial
        text = f'{wwpn}/{self.target}/{self.number}'
        digits = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
        return '-'.join(parts)


def virtual_lun_0(target: int) -> LunSpec:
    """The RAM disk without memory that answers for LUN 0 of a target that has none."""
    return LunSpec(
        target=target,
        size=VIRTUAL_BLOCKS * 512,
        write_protected=True,
        product='RAMDISK-MCP',
        virtual=True,
    )


def protocol_of(name: str) -> int:
    """The SCSI protocol identifier that vhost-scsi reads from a name's prefix."""
    return PROTOCOLS.get(name.partition('.')[0], PROTOCOLS['naa'])


def transport_id(name: str) -> bytes:
    """The TransportID of an initiator port: 24 bytes, or iSCSI's name padded to four bytes.

    Raises ConfigError if a 'naa.' or 'fc.' name is not 16 hex digits.
    """
    protocol = protocol_of(name)
    if protocol == PROTOCOLS['iqn']:
        text = name.encode() + b'\0'
        text += bytes(-len(text) % 4)
        return bytes([protocol, 0]) + len(text).to_bytes(2, 'big') + text
    try:
        address = bytes.fromhex(name.partition('.')[2].replace(':', ''))
    except ValueError:
        address = b''
    if len(address) != 8:
        raise ConfigError(f'{shown(name)}: a naa. or fc. name has 16 hex digits, as in naa.5001...')
    place = 4 if protocol == PROTOCOLS['naa'] else 8
    return bytes([protocol]) + bytes(place - 1) + address + bytes(24 - place - 8)
