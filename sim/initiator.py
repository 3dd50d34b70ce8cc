"""An initiator on a desk: one request after the other against LUNs, without rings and without time.

    from sim.initiator import Initiator
    from sim.lio.spec import LunSpec

    desk = Initiator([LunSpec(size=1 << 30)])
    reply = desk.send(bytes.fromhex('12 00 00 00 24 00'), data_in=36)
    reply.data[8:16]                       # b'LIO-ORG '
    reply.status, reply.resid              # (0, 0)

The bytes of a request go the way they go in the simulator: into guest memory, through
sim.vhost.scsi into sim.lio, and the response back into guest memory. Nothing here knows SCSI.
"""

import mmap
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim import scsi, vring
from sim.errors import ConfigError
from sim.formats.sense import Sense, parse_sense
from sim.layout import PAGE_SIZE, REQ_PI_SIZE, REQ_SIZE, RESP_SIZE
from sim.lio import ports, sbc
from sim.lio.ports import TargetPlan
from sim.lio.spec import LunSpec
from sim.se_cmd import FROM_DEVICE, X_DATA, X_DIRECTION, X_LENGTH
from sim.vhost import control_queue as vhost_control
from sim.vhost import scsi as vhost_scsi

u64 = np.uint64

PATTERN = 0x5A  # of guest memory that nobody wrote
ROOM = 1200  # buffers that a command may have
BUFFERS = 16  # where in the words the buffer list lies
COMMAND = BUFFERS + 8 + 2 * 1024
TARGETS = COMMAND + int(X_DATA) + 2 * ROOM
OUTCOMES = ('answered', 'answered', 'bad_target', 'dropped')


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came back.

    `outcome` is answered, bad_target or dropped; `response` are the 108 bytes, `data` the bytes
    that the device could have written, `length` how many of them count as transferred.
    """

    outcome: str
    response: bytes
    data: bytes
    length: int

    @property
    def resid(self) -> int:
        """The residual."""
        return int.from_bytes(self.response[4:8], 'little')

    @property
    def status(self) -> int:
        """SAM status."""
        return self.response[10]

    @property
    def code(self) -> int:
        """The virtio response byte."""
        return self.response[11]

    @property
    def sense(self) -> Sense | None:
        """The sense, taken apart; None if there is none."""
        return parse_sense(self.response[12:]) if self.response[:1] != b'\0' else None


def header(
    cdb: bytes,
    *,
    lun: int = 0,
    target: int = 0,
    tag: int = 0,
    attribute: int = 0,
    protection: tuple[int, int] | None = None,
) -> bytes:
    """The request header as Linux writes it (virtscsi_init_hdr): 51 bytes.

    `protection` (bytes out, bytes in) makes it the 59 bytes of VIRTIO_SCSI_F_T10_PI.
    """
    if len(cdb) > 32:
        raise ConfigError(f'a CDB of {len(cdb)} bytes does not fit the 32 of a request')
    head = scsi.linux_lun(target, lun) + tag.to_bytes(8, 'little') + bytes([attribute, 0, 0])
    for size in protection or ():
        head += size.to_bytes(4, 'little')
    return head + cdb.ljust(32, b'\0')


def empty_media(sectors: int) -> npt.NDArray[np.int64]:
    """A word per sector, all zero; takes memory only where it is written, however large it is."""
    size = max(8 * sectors, PAGE_SIZE)
    if sys.platform != 'linux' or size < 1 << 30:
        return np.zeros(size // 8, dtype=np.int64)
    lazily = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE
    try:
        return np.frombuffer(mmap.mmap(-1, size, flags=lazily), dtype=np.int64)
    except (OSError, OverflowError, ValueError) as error:
        raise ConfigError(f'a LUN of {sectors * 512} bytes does not fit this machine') from error


class Initiator:
    """Targets and LUNs, some guest memory, and whoever sends requests.

    `luns` in the order in which they were mapped; `targets` are the targets that exist, by default
    those of the LUNs, or target 0. Every nexus of `nexuses` reaches every LUN. `kernel` is the
    host's, `bugs` as host.bugs. Raises ConfigError where such a target cannot be.
    """

    def __init__(
        self,
        luns: Sequence[LunSpec] = (LunSpec(),),
        *,
        targets: Sequence[int] = (),
        nexuses: int = 2,
        kernel: str = '6.12',
        bugs: str | None = None,
        t10_pi: bool = False,
        memory: int = 16 << 20,
        wwpn: str = 'naa.5001405000000001',
    ) -> None:
        self.plan = TargetPlan(
            luns=luns,
            targets=tuple(targets) or tuple(sorted({spec.target for spec in luns})) or (0,),
            wwpn=wwpn,
            nexuses=[f'naa.{0x5001405000001000 + i:016x}' for i in range(nexuses)],
            kernel=kernel,
        )
        self.mem = np.full(memory, PATTERN, dtype=np.uint8)
        words = self.plan.words(TARGETS)
        self.st = np.zeros(TARGETS + len(words), dtype=np.int64)
        self.st[TARGETS:] = words
        device = (
            (vhost_scsi.S_TARGETS, TARGETS),
            (vhost_scsi.S_HEADER, REQ_PI_SIZE if t10_pi else REQ_SIZE),
            (vhost_scsi.S_KERNEL, vhost_scsi.KERNEL_NUMBERS[kernel]),
            (vhost_scsi.S_ROOM, ROOM),
            (vhost_scsi.S_MEMORY, memory),
            (vhost_scsi.S_BUGS, vhost_scsi.bugs_of(bugs)),
        )
        for name, value in device:
            self.st[int(name)] = value
        self.media = empty_media(self.plan.sectors)
        self.places: list[tuple[int, int]] = []  # of the last request's buffers: address, bytes

    def send(
        self,
        cdb: bytes,
        *,
        data_out: bytes = b'',
        data_in: int = 0,
        lun: int = 0,
        target: int = 0,
        nexus: int = 0,
        tag: int = 0,
        attribute: int = 0,
    ) -> Reply:
        """One command, its buffers laid out as Linux does: header, data out | response, data in."""
        head = header(cdb, lun=lun, target=target, tag=tag, attribute=attribute)
        out = [head, *pages(data_out)]
        sizes = [RESP_SIZE, *(len(page) for page in pages(bytes(data_in)))]
        return self.submit(out, sizes, nexus=nexus)

    def submit(self, out: Sequence[bytes], into: Sequence[int], *, nexus: int = 0) -> Reply:
        """A request in buffers of any layout: contents of the readable, sizes of the writable."""
        if not 0 <= nexus < len(self.plan.nexuses):
            raise ConfigError(f'nexus {nexus}: there are {len(self.plan.nexuses)}')
        self._lay(out, into)
        self._choose_nexus(nexus)
        st = self.st
        place = (u64(0), u64(BUFFERS), u64(COMMAND))
        verdict = int(vhost_scsi.serve(self.mem, st, self.media, *place))
        if verdict == vhost_scsi.DROPPED:
            return Reply(outcome='dropped', response=b'', data=b'', length=0)
        written = self.places[len(out) :]
        content = b''.join(self._bytes(at, size) for at, size in written)
        direction = st[COMMAND + int(X_DIRECTION)]
        reads = verdict == vhost_scsi.READY and direction == FROM_DEVICE
        return Reply(
            outcome=OUTCOMES[verdict],
            response=content[:RESP_SIZE],
            data=content[RESP_SIZE:],
            length=int(st[COMMAND + int(X_LENGTH)]) if reads and content[10] == 0 else 0,
        )

    def control(self, request: bytes, *, into: int = 8) -> bytes | None:
        """A request of the control queue: its response, None if it is dropped."""
        self._lay([request], [into])
        code, size, lun = vhost_control.parse(self.mem, self.st, u64(0), u64(BUFFERS))
        if size == 0:
            return None
        if code == vhost_control.RESET:
            code = vhost_control.reset(self.st, lun)
        return bytes(int(size) - 1) + bytes([int(code)])

    def held(self, spec: LunSpec, lba: int, blocks: int) -> bytes:
        """What blocks of a LUN hold: the first eight bytes of each 512, and zeroes."""
        if spec not in self.plan.luns or not 0 <= lba <= spec.blocks - blocks:
            return bytes(blocks * spec.block_size)
        first = self.plan.place_of(spec.target, spec.number)
        scale = spec.block_size // sbc.SECTOR
        words = (
            int(sbc.read_sector(self.media, first, sector))
            for sector in range(lba * scale, (lba + blocks) * scale)
        )
        return b''.join(
            word.to_bytes(8, 'little', signed=True).ljust(sbc.SECTOR, b'\0') for word in words
        )

    def _lay(self, out: Sequence[bytes], into: Sequence[int]) -> None:
        """Put the buffers into guest memory, each at a page of its own, and list them."""
        st, at = self.st, PAGE_SIZE
        self.places = []
        for size in [*map(len, out), *into]:
            self.places.append((at, size))
            at += -(-(size + 1) // PAGE_SIZE) * PAGE_SIZE
        if at > self.mem.size or len(self.places) > 1024:
            raise ConfigError(f'a request of {at} bytes does not fit; give fewer data')
        self.mem[:at] = PATTERN
        for (place, size), content in zip(self.places, out):
            self.mem[place : place + size] = np.frombuffer(content, dtype=np.uint8)
        counts = (len(out), len(into), sum(map(len, out)), sum(into))
        st[BUFFERS : BUFFERS + 4] = counts
        for i, (place, size) in enumerate(self.places):
            entry = BUFFERS + int(vring.B_ENTRIES) + 2 * i
            st[entry : entry + 2] = place, size

    def _choose_nexus(self, nexus: int) -> None:
        """Requests arrive from this initiator from now on."""
        for number in self.plan.targets:
            target = int(self.st[TARGETS + number])
            self.st[target + int(ports.P_NEXUS)] = nexus

    def _bytes(self, place: int, size: int) -> bytes:
        return self.mem[place : place + size].tobytes()


def pages(data: bytes) -> list[bytes]:
    """Data in pieces of a page, as a page-aligned buffer has them."""
    return [data[i : i + PAGE_SIZE] for i in range(0, len(data), PAGE_SIZE)]
