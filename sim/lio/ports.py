"""Targets and their LUNs: who is asked when a request names target and LUN.

`TargetPlan` lays out everything that the target side knows as words of the state array:

    table of 256 targets -> target -> table of LUNs by number -> LUN -> nexuses, pages, bytes

A target is a struct se_portal_group of vhost-scsi, a LUN is a device with its one mapping.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim import scsi
from sim.errors import ConfigError
from sim.formats import cdb
from sim.jit import kernel
from sim.lio import lun as unit
from sim.lio import pages, spc
from sim.lio.spec import KERNELS, LunSpec, protocol_of, transport_id, virtual_lun_0
from sim.se_cmd import TO_DEVICE

u64 = np.uint64
Words = npt.NDArray[np.int64]

TARGETS = 256

# A target.
(
    P_NUMBER,
    P_NEXUS,  # the nexus of requests that arrive here
    P_LUNS,  # how many LUNs
    P_NUMBERS,  # their numbers, in the order in which they were mapped
    P_TABLE_SIZE,
    P_TABLE,  # base of the LUN by its number, 0 none
    P_VIRTUAL,  # base of the LUN 0 that answers where none is mapped
) = map(u64, range(7))
TARGET_WORDS = 7


@kernel
def find_target(st, targets, number):
    """vs_tpg[]: base of the target, 0 if there is none."""
    return st[u64(targets) + u64(number)]


@kernel
def find_lun(st, target, number):
    """target_nacl_find_deve(): base of the LUN mapped under that number, 0 if there is none."""
    if number < st[target + P_TABLE_SIZE]:
        return st[u64(st[target + P_TABLE]) + u64(number)]
    return np.int64(0)


@kernel
def lookup(st, target, number, direction):
    """transport_lookup_cmd_lun(): (base of the LUN, sense).

    LUN 0 always answers: where none is mapped the virtual one does, which takes no data. A LUN that
    is write-protected refuses any data, whatever they are for.
    """
    lun = find_lun(st, target, number)
    sense = scsi.SENSE_NONE
    if lun == 0:
        lun = st[target + P_VIRTUAL]
        if number:
            sense = scsi.SENSE_UNKNOWN_LUN
    if not sense and direction == TO_DEVICE and unit.has(st, u64(lun), unit.WRITE_PROTECTED):
        sense = scsi.SENSE_WRITE_PROTECTED
    return lun, sense


# ----------------------------------------------------------------------------------- hot-plug ----


@kernel
def map_lun(st, target, number, lun):
    """core_dev_add_lun(): LUN `lun` (a base) is mapped; the target's other LUNs tell of it."""
    _luns_have_changed(st, target)
    st[u64(st[target + P_TABLE]) + u64(number)] = np.int64(lun)
    st[u64(st[target + P_NUMBERS]) + u64(st[target + P_LUNS])] = number
    st[target + P_LUNS] += 1


@kernel
def unmap_lun(st, target, number):
    """core_dev_del_lun(): a LUN is mapped no more; those that are left tell of it."""
    st[u64(st[target + P_TABLE]) + u64(number)] = 0
    numbers, left = u64(st[target + P_NUMBERS]), 0
    for i in range(st[target + P_LUNS]):
        kept = st[numbers + u64(i)]
        if kept != number:
            st[numbers + u64(left)] = kept
            left += 1
    st[target + P_LUNS] = left
    _luns_have_changed(st, target)


@kernel
def _luns_have_changed(st, target):
    """target_luns_data_has_changed(): unit attention 3Fh/0Eh on every LUN of the target."""
    for i in range(st[target + P_LUNS]):
        lun = u64(find_lun(st, target, st[u64(st[target + P_NUMBERS]) + u64(i)]))
        for nexus in range(st[lun + unit.L_NEXUSES]):
            unit.raise_attention(st, lun, nexus, unit.LUNS_CHANGED)


# -------------------------------------------------------------------------------------- layout ----


@dataclass(frozen=True, kw_only=True)
class TargetPlan:
    """Which targets and LUNs there are.

    `luns` in the order in which they were mapped. `targets` names the targets that exist, more than
    the LUNs do if one has none. `nexuses` are names of initiators; the one whose index is `nexus`
    sends what arrives. `kernel` is the host's.
    """

    luns: Sequence[LunSpec]
    targets: Sequence[int] = (0,)
    wwpn: str = 'naa.5001405000000001'
    nexuses: Sequence[str] = ('naa.5001405000001000',)
    kernel: str = '6.12'

    def __post_init__(self) -> None:
        """ConfigError if two LUNs have one number, or a LUN no target."""
        seen = set()
        for spec in self.luns:
            place = (spec.target, spec.number)
            if place in seen:
                raise ConfigError(f'LUN {spec.number} of target {spec.target} is there twice')
            if spec.target not in self.targets:
                raise ConfigError(f'LUN {spec.number}: there is no target {spec.target}')
            seen.add(place)
        if self.kernel not in KERNELS:
            raise ConfigError(f'kernel={self.kernel} is none of {", ".join(KERNELS)}')

    @property
    def sectors(self) -> int:
        """How many sectors of 512 bytes all media have together."""
        return sum(spec.sectors for spec in self.luns)

    def size(self) -> int:
        """How many words it takes."""
        return len(self.words(0))

    def words(self, base: int, disks: Mapping[tuple[int, int], int] | None = None) -> Words:
        """The words, to be laid at `base`, where the table of targets begins.

        `disks` gives the base of the disk agent by (target, number) of the LUN.
        """
        return _Layout(self, base, disks or {}).build()

    def place_of(self, target: int, number: int) -> int:
        """Where in the media array the LUN's blocks begin, in sectors."""
        before = 0
        for spec in self.luns:
            if (spec.target, spec.number) == (target, number):
                return before
            before += spec.sectors
        raise ConfigError(f'there is no LUN {number} of target {target}')


class _Layout:
    """Appends stretch after stretch; what a pointer points to comes before it."""

    def __init__(self, plan: TargetPlan, base: int, disks: Mapping[tuple[int, int], int]) -> None:
        self.plan = plan
        self.base = base
        self.disks = disks
        self.data: list[int] = [0] * TARGETS

    def build(self) -> Words:
        for number in self.plan.targets:
            luns = [spec for spec in self.plan.luns if spec.target == number]
            bases = {spec.number: self.lun(spec) for spec in luns}
            table = [bases.get(i, 0) for i in range(max(bases, default=-1) + 1)]
            fields = {
                P_NUMBER: number,
                P_LUNS: len(luns),
                P_NUMBERS: self.append([spec.number for spec in luns]),
                P_TABLE_SIZE: len(table),
                P_TABLE: self.append(table),
                P_VIRTUAL: self.lun(virtual_lun_0(number)),
            }
            self.data[number] = self.stretch(TARGET_WORDS, fields)
        return np.array(self.data, dtype=np.int64)

    def append(self, words: Sequence[int]) -> int:
        place = self.base + len(self.data)
        self.data += words
        return place

    def stretch(self, size: int, fields: Mapping[np.uint64, int]) -> int:
        words = [0] * size
        for name, value in fields.items():
            words[int(name)] = value
        return self.append(words)

    def rom(self, content: bytes) -> int:
        """Constant bytes, eight to a word."""
        filled = content + bytes(-len(content) % 8)
        return self.append(np.frombuffer(filled, dtype='<i8').tolist())

    def table(self, entries: Mapping[int, bytes]) -> int:
        """Triples of a page code, its length and where its bytes are."""
        rows = [(code, len(content), self.rom(content)) for code, content in entries.items()]
        return self.append([word for row in rows for word in row])

    def lun(self, spec: LunSpec) -> int:
        wwpn, plan = self.plan.wwpn, self.plan
        inquiry = {unit.STANDARD: pages.standard_inquiry(spec, wwpn)}
        inquiry |= pages.vpd_pages(spec, wwpn, plan.kernel)
        reports = plan.kernel != '6.1'  # which has no REPORT SUPPORTED OPERATION CODES yet
        fields = {
            unit.L_NUMBER: spec.number,
            unit.L_BLOCKS: spec.blocks,
            unit.L_BLOCK_SIZE: spec.block_size,
            unit.L_MEDIA: 0 if spec.virtual else plan.place_of(spec.target, spec.number),
            unit.L_FLAGS: pages.flags_of(spec),
            unit.L_DISK: self.disks.get((spec.target, spec.number), 0),
            unit.L_NEXUSES: len(plan.nexuses),
            unit.L_NEXUS_TABLE: self.nexuses(),
            unit.L_PAGES: len(inquiry),
            unit.L_PAGE_TABLE: self.table(inquiry),
            unit.L_MODE_TABLE: self.table(pages.mode_pages(spec)),
            unit.L_OPCODES: len(cdb.COMMANDS) if reports else 0,
            unit.L_OPCODE_TABLE: self.opcodes() if reports else 0,
            unit.L_MAX_WRITE_SAME: spec.max_write_same,
            unit.L_MAX_UNMAP_BLOCKS: spec.max_unmap_blocks,
            unit.L_MAX_UNMAP_RANGES: spec.max_unmap_ranges,
            unit.L_PHYSICAL: spec.physical_exponent,
            unit.L_PORT: pages.port_of(spec),
            unit.L_LEGACY_HOLDER: -1,
            unit.L_HOLDER: -1,
        }
        return self.stretch(unit.LUN_WORDS, fields)

    def nexuses(self) -> int:
        rows: list[int] = []
        for name in self.plan.nexuses:
            identity = transport_id(name)
            row = [0] * unit.NEXUS_WORDS
            row[int(unit.N_TRANSPORT_ID)] = self.rom(identity)
            row[int(unit.N_TRANSPORT_ID_SIZE)] = len(identity)
            row[int(unit.N_PROTOCOL)] = protocol_of(name)
            rows += row
        return self.append(rows)

    def opcodes(self) -> int:
        """The table of supported commands; the same for every LUN, so laid out once."""
        if not hasattr(self, '_opcodes'):
            rows: list[int] = []
            for command in cdb.COMMANDS:
                row = [0] * int(spc.OPCODE_WORDS)
                row[int(spc.C_OPCODE)] = command.opcode
                row[int(spc.C_ACTION)] = -1 if command.action is None else command.action
                row[int(spc.C_CDB_SIZE)] = command.size
                row[int(spc.C_USAGE)] = self.rom(cdb.usage(command))
                row[int(spc.C_NEEDS)] = unit.TPU if command.name == 'UNMAP' else 0
                fua = command.field('fua')
                row[int(spc.C_DPO_FUA)] = fua.byte if fua else 0
                rows += row
            self._opcodes = self.append(rows)
        return self._opcodes
