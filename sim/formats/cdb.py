"""Command descriptor blocks by name: the fields of each command, in bytes and back.

SPC-4 and SBC-3 give the layouts. `used` marks the fields that LIO looks at, which is what REPORT
SUPPORTED OPERATION CODES reports of a CDB. All fields are big-endian; the last byte of a CDB is
CONTROL.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sim.errors import ConfigError, shown
from sim.formats import nearest


@dataclass(frozen=True)
class Field:
    """A field of `size` bytes from `byte`: bits `high` of the first down to `low` of the last."""

    name: str
    byte: int
    size: int = 1
    high: int = 7
    low: int = 0
    used: bool = True

    @property
    def bits(self) -> int:
        """Width in bits."""
        return 8 * (self.size - 1) + self.high - self.low + 1

    def put(self, cdb: bytearray, value: int) -> None:
        """Write the field."""
        whole = int.from_bytes(cdb[self.byte : self.byte + self.size], 'big')
        mask = (1 << self.bits) - 1 << self.low
        whole = whole & ~mask | value << self.low
        cdb[self.byte : self.byte + self.size] = whole.to_bytes(self.size, 'big')

    def get(self, cdb: bytes) -> int:
        """Read the field."""
        whole = int.from_bytes(cdb[self.byte : self.byte + self.size], 'big')
        return whole >> self.low & (1 << self.bits) - 1


@dataclass(frozen=True)
class Command:
    """A command: what its CDB looks like and which way its data go.

    `data` is none, in or out; `length` says how its bytes follow from the CDB: 'blocks', 'bytes',
    'one block', 'two halves' (COMPARE AND WRITE), or a number of bytes.
    """

    name: str
    opcode: int
    size: int
    fields: tuple[Field, ...]
    data: str = 'none'
    length: str = '0'
    action: int | None = None

    def field(self, name: str) -> Field | None:
        """The field of that name, if the CDB has one."""
        return next((field for field in self.fields if field.name == name), None)

    def data_bytes(self, cdb: bytes, block_size: int) -> int:
        """How many bytes of data the CDB asks for, going by it alone."""
        blocks, count = self.field('blocks'), self.field('alloc') or self.field('list_length')
        if self.length == 'bytes':
            return count.get(cdb) if count else 0
        if self.length == 'one block':
            return block_size
        if self.length in ('blocks', 'two halves') and blocks:
            number = blocks.get(cdb)
            if self.size == 6 and not number:
                number = 256
            return number * block_size * (2 if self.length == 'two halves' else 1)
        return int(self.length) if self.length.isdigit() else 0


def bit(name: str, byte: int, place: int, used: bool = True) -> Field:
    """A single bit."""
    return Field(name, byte, 1, place, place, used)


def bits(name: str, byte: int, high: int, low: int, used: bool = True) -> Field:
    """A few bits of one byte."""
    return Field(name, byte, 1, high, low, used)


LBA_4, LBA_8 = Field('lba', 2, 4), Field('lba', 2, 8)
PROTECT, DPO, FUA = bits('protect', 1, 7, 5), bit('dpo', 1, 4), bit('fua', 1, 3)
READ_FLAGS = (PROTECT, DPO, FUA)
VERIFY_FLAGS = (PROTECT, DPO, bit('bytchk', 1, 1, used=False))
SAME_FLAGS = (PROTECT, bit('anchor', 1, 4, False), bit('unmap', 1, 3), bit('ndob', 1, 0, False))
CHECK_FLAGS = (
    bits('protect', 1, 7, 5, False),
    bit('dpo', 1, 4, False),
    bits('bytchk', 1, 2, 1, False),
)


def group(byte: int) -> Field:
    """The group number, which LIO does not look at."""
    return bits('group', byte, 4, 0, used=False)


def ten(*flags: Field) -> tuple[Field, ...]:
    """LBA and length of a 10-byte block command."""
    return (*flags, LBA_4, group(6), Field('blocks', 7, 2))


def twelve(*flags: Field) -> tuple[Field, ...]:
    """LBA and length of a 12-byte block command."""
    return (*flags, LBA_4, Field('blocks', 6, 4), group(10))


def sixteen(*flags: Field) -> tuple[Field, ...]:
    """LBA and length of a 16-byte block command."""
    return (*flags, LBA_8, Field('blocks', 10, 4), group(14))


SIX = (Field('lba', 1, 3, 4), Field('blocks', 4))
MODE_SENSE = (
    bit('dbd', 1, 3),
    bits('pc', 2, 7, 6),
    bits('page', 2, 5, 0),
    Field('subpage', 3),
)
MODE_SELECT = (bit('pf', 1, 4), bit('sp', 1, 0, used=False))
ACTION = bits('sa', 1, 4, 0)
PR_OUT = (ACTION, bits('scope', 2, 7, 4), bits('type', 2, 3, 0), Field('list_length', 5, 4))


def pr_in(name: str, action: int) -> Command:
    """A service action of PERSISTENT RESERVE IN."""
    return Command(name, 0x5E, 10, (ACTION, Field('alloc', 7, 2)), 'in', 'bytes', action)


def pr_out(name: str, action: int) -> Command:
    """A service action of PERSISTENT RESERVE OUT."""
    return Command(name, 0x5F, 10, PR_OUT, 'out', 'bytes', action)


# In the order in which LIO reports them.
COMMANDS = (
    Command('READ(6)', 0x08, 6, SIX, 'in', 'blocks'),
    Command('READ(10)', 0x28, 10, ten(*READ_FLAGS), 'in', 'blocks'),
    Command('READ(12)', 0xA8, 12, twelve(*READ_FLAGS), 'in', 'blocks'),
    Command('READ(16)', 0x88, 16, sixteen(*READ_FLAGS), 'in', 'blocks'),
    Command('WRITE(6)', 0x0A, 6, SIX, 'out', 'blocks'),
    Command('WRITE(10)', 0x2A, 10, ten(*READ_FLAGS), 'out', 'blocks'),
    Command('WRITE AND VERIFY(10)', 0x2E, 10, ten(*VERIFY_FLAGS), 'out', 'blocks'),
    Command('WRITE(12)', 0xAA, 12, twelve(*READ_FLAGS), 'out', 'blocks'),
    Command('WRITE(16)', 0x8A, 16, sixteen(*READ_FLAGS), 'out', 'blocks'),
    Command('WRITE AND VERIFY(16)', 0x8E, 16, sixteen(*VERIFY_FLAGS), 'out', 'blocks'),
    Command(
        'WRITE SAME(32)', 0x7F, 32,
        (
            Field('additional', 7), Field('sa', 8, 2), bits('protect', 10, 7, 5),
            bit('anchor', 10, 4, False), bit('unmap', 10, 3), Field('lba', 12, 8),
            Field('blocks', 28, 4),
        ),
        'out', 'one block', 0x0D,
    ),
    Command(
        'COMPARE AND WRITE', 0x89, 16,
        (bits('protect', 1, 7, 5, False), DPO, FUA, LBA_8, Field('blocks', 13), group(14)),
        'out', 'two halves',
    ),
    Command('READ CAPACITY(10)', 0x25, 10, (LBA_4, bit('pmi', 8, 0)), 'in', '8'),
    Command(
        'READ CAPACITY(16)', 0x9E, 16,
        (ACTION, Field('lba', 2, 8, used=False), Field('alloc', 10, 4), bit('pmi', 14, 0, False)),
        'in', 'bytes', 0x10,
    ),
    Command('SYNCHRONIZE CACHE(10)', 0x35, 10, ten(bit('immed', 1, 1))),
    Command('SYNCHRONIZE CACHE(16)', 0x91, 16, sixteen(bit('immed', 1, 1))),
    Command(
        'UNMAP', 0x42, 10,
        (bit('anchor', 1, 0, False), group(6), Field('list_length', 7, 2)),
        'out', 'bytes',
    ),
    Command('WRITE SAME(10)', 0x41, 10, ten(*SAME_FLAGS), 'out', 'one block'),
    Command('WRITE SAME(16)', 0x93, 16, sixteen(*SAME_FLAGS), 'out', 'one block'),
    Command('VERIFY(10)', 0x2F, 10, ten(*CHECK_FLAGS)),
    Command('VERIFY(16)', 0x8F, 16, sixteen(*CHECK_FLAGS)),
    Command(
        'START STOP UNIT', 0x1B, 6,
        (bit('immed', 1, 0), bits('power', 4, 7, 4, False), bit('loej', 4, 1, False),
         bit('start', 4, 0)),
    ),
    Command(
        'MODE SELECT(6)', 0x15, 6, (*MODE_SELECT, Field('list_length', 4)), 'out', 'bytes'
    ),
    Command(
        'MODE SELECT(10)', 0x55, 10, (*MODE_SELECT, Field('list_length', 7, 2)), 'out', 'bytes'
    ),
    Command('MODE SENSE(6)', 0x1A, 6, (*MODE_SENSE, Field('alloc', 4)), 'in', 'bytes'),
    Command(
        'MODE SENSE(10)', 0x5A, 10,
        (bit('llbaa', 1, 4), *MODE_SENSE, Field('alloc', 7, 2)),
        'in', 'bytes',
    ),
    pr_in('PERSISTENT RESERVE IN READ KEYS', 0),
    pr_in('PERSISTENT RESERVE IN READ RESERVATION', 1),
    pr_in('PERSISTENT RESERVE IN REPORT CAPABILITIES', 2),
    pr_in('PERSISTENT RESERVE IN READ FULL STATUS', 3),
    pr_out('PERSISTENT RESERVE OUT REGISTER', 0),
    pr_out('PERSISTENT RESERVE OUT RESERVE', 1),
    pr_out('PERSISTENT RESERVE OUT RELEASE', 2),
    pr_out('PERSISTENT RESERVE OUT CLEAR', 3),
    pr_out('PERSISTENT RESERVE OUT PREEMPT', 4),
    pr_out('PERSISTENT RESERVE OUT PREEMPT AND ABORT', 5),
    pr_out('PERSISTENT RESERVE OUT REGISTER AND IGNORE EXISTING KEY', 6),
    pr_out('PERSISTENT RESERVE OUT REGISTER AND MOVE', 7),
    Command('RELEASE(6)', 0x17, 6, ()),
    Command('RELEASE(10)', 0x57, 10, (Field('list_length', 7, 2),), 'out', 'bytes'),
    Command('RESERVE(6)', 0x16, 6, ()),
    Command('RESERVE(10)', 0x56, 10, (Field('list_length', 7, 2),), 'out', 'bytes'),
    Command('REQUEST SENSE', 0x03, 6, (bit('desc', 1, 0, False), Field('alloc', 4)), 'in', 'bytes'),
    Command(
        'INQUIRY', 0x12, 6, (bit('evpd', 1, 0), Field('page', 2), Field('alloc', 3, 2)),
        'in', 'bytes',
    ),
    Command('REPORT LUNS', 0xA0, 12, (Field('select', 2), Field('alloc', 6, 4)), 'in', 'bytes'),
    Command('TEST UNIT READY', 0x00, 6, ()),
    Command(
        'REPORT TARGET PORT GROUPS', 0xA3, 12,
        (bits('format', 1, 7, 5), ACTION, Field('alloc', 6, 4)),
        'in', 'bytes', 0x0A,
    ),
    Command(
        'REPORT SUPPORTED OPERATION CODES', 0xA3, 12,
        (ACTION, bit('rctd', 2, 7), bits('option', 2, 2, 0), Field('opcode', 3),
         Field('action', 4, 2), Field('alloc', 6, 4)),
        'in', 'bytes', 0x0C,
    ),
)  # fmt: skip

# What LIO answers with GOOD and does nothing for; it does not report them.
SEEKS = (
    Command('REZERO UNIT', 0x01, 6, ()),
    Command('SEEK(6)', 0x0B, 6, (Field('lba', 1, 3, 4),)),
    Command('SEEK(10)', 0x2B, 10, (LBA_4,)),
)
EVERY = COMMANDS + SEEKS

SIZE_BY_GROUP = (6, 10, 10, 12, 16, 12, 10, 10)  # by the opcode's upper three bits


def cdb_size(cdb: bytes) -> int:
    """scsi_command_size(): by the opcode's group, or as a variable-length CDB says."""
    return cdb[7] + 8 if cdb[0] == 0x7F else SIZE_BY_GROUP[cdb[0] >> 5]


def folded(name: str) -> str:
    """A name without blanks, brackets and the like: READ_CAPACITY-16 is READ CAPACITY(16)."""
    return re.sub(r'[^A-Z0-9]', '', name.upper())


def by_name(name: str) -> Command:
    """The command of that name; ConfigError, naming the nearest, if there is none."""
    wanted = folded(name)
    found = [command for command in EVERY if folded(command.name) == wanted]
    if not found:  # a length left out means the shortest form that sd uses
        found = [
            command
            for size in ('10', '16', '6')
            for command in EVERY
            if folded(command.name) == wanted + size
        ]
    if not found:
        close = nearest(wanted, [folded(command.name) for command in EVERY])
        title = next(command.name for command in EVERY if folded(command.name) == close)
        raise ConfigError(f'no command {shown(name)}; the nearest is {title!r}')
    return found[0]


def identify(cdb: bytes) -> Command | None:
    """The command of a CDB, by its opcode and service action."""
    for command in EVERY:
        if command.opcode == cdb[0]:
            action = command.field('sa')
            if command.action is None or action is None or action.get(cdb) == command.action:
                return command
    return None


def build(command: Command, values: Mapping[str, int]) -> bytes:
    """The CDB with these values in its fields; ConfigError for a field that it does not have."""
    cdb = bytearray(command.size)
    cdb[0] = command.opcode
    fixed = {} if command.action is None else {'sa': command.action}
    if command.opcode == 0x7F:
        fixed['additional'] = command.size - 8
    for name, value in {**fixed, **values}.items():
        field = command.field(name)
        if field is None:
            known = ', '.join(field.name for field in command.fields) or 'no fields'
            raise ConfigError(f'{command.name} has no field {name}; it has {known}')
        if not 0 <= value < 1 << field.bits:
            raise ConfigError(f'{command.name}: {name}={value} does not fit {field.bits} bits')
        field.put(cdb, value)
    return bytes(cdb)


def usage(command: Command) -> bytes:
    """The CDB usage data of a command: opcode, service action, and the bits that LIO looks at."""
    cdb = bytearray(command.size)
    cdb[0] = command.opcode
    for field in command.fields:
        if field.name == 'sa' and command.action is not None:
            field.put(cdb, command.action)
        elif field.used and field.name != 'additional':
            field.put(cdb, (1 << field.bits) - 1)
    return bytes(cdb)
