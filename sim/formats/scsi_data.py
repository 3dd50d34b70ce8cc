"""The data of SCSI commands taken apart for people: bytes, and what they mean.

SPC-4 and SBC-3 give the layouts. A field that the data end in front of, or in, is left out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sim.formats.cdb import Command, Field, bit, bits, identify
from sim.formats.sense import CODES, KEYS

SECTOR = 512
ROW_BYTES = 16  # of bytes that no field covers
MOST_SECTORS = 8  # shown of block data

Value = int | str


@dataclass(frozen=True)
class Row:
    """Some bytes of the data, and the fields in them."""

    offset: int
    raw: bytes
    fields: dict[str, Value]

    def __str__(self) -> str:
        words = '  '.join(
            f'{name} {value}' if isinstance(value, str) else f'{name}={number(name, value)}'
            for name, value in self.fields.items()
        )
        return f'{self.offset:>5}  {spaced(self.raw):<50} {words}'.rstrip()


def spaced(raw: bytes, most: int = ROW_BYTES) -> str:
    """Hexadecimal bytes, the rest of a long string counted."""
    shown = raw[:most].hex(' ')
    return shown if len(raw) <= most else f'{shown}+{len(raw) - most}'


HEXADECIMAL = ('key', 'sa_key', 'lba', 'last_lba', 'page', 'opcode', 'types', 'action', 'code')
WIDE = {'key': 16, 'sa_key': 16}


def number(name: str, value: int) -> str:
    """An integer as people write that field."""
    return f'{value:#0{WIDE.get(name, 2) + 2}x}' if name in HEXADECIMAL else str(value)


def rows(data: bytes, layout: tuple[Field, ...], base: int = 0) -> Iterator[Row]:
    """The fields of a layout that begins at `base`; fields of the same bytes share a row."""
    together: dict[tuple[int, int], dict[str, Value]] = {}
    for field in layout:
        at = base + field.byte
        if at + field.size > len(data):
            continue
        raw = data[at : at + field.size]
        value: Value = text(raw) if field.name in TEXTS else field.get(data[base:])
        together.setdefault((at, field.size), {})[field.name] = value
    for (at, size), fields in together.items():
        yield Row(at, data[at : at + size], fields)


def whole(data: bytes, layout: tuple[Field, ...], at: int, size: int) -> Iterator[Row]:
    """A structure of `size` bytes in one row."""
    if at + size <= len(data):
        raw = data[at : at + size]
        yield Row(at, raw, {field.name: field.get(raw) for field in layout})
    else:
        yield from rows(data, layout, at)


def text(raw: bytes) -> str:
    """ASCII, other bytes as dots, without the padding."""
    shown = raw.rstrip(b'\0 ').decode('latin-1')
    return repr(''.join(c if ' ' <= c <= '~' else '.' for c in shown))


def covered(data: bytes, found: list[Row]) -> list[Row]:
    """The rows, and rows without fields for the bytes between and behind them."""
    whole: list[Row] = []
    at = 0
    for row in [*sorted(found, key=lambda row: row.offset), Row(len(data), b'', {})]:
        for start in range(at, row.offset, ROW_BYTES):
            whole.append(Row(start, data[start : min(start + ROW_BYTES, row.offset)], {}))
        if row.raw:
            whole.append(row)
        at = max(at, row.offset + len(row.raw))
    return whole


# ------------------------------------------------------------------------------------- layouts ----

TEXTS = ('vendor', 'product', 'revision')
DEVICE = (bits('qualifier', 0, 7, 5), bits('type', 0, 4, 0))
INQUIRY = (
    *DEVICE, bit('rmb', 1, 7), Field('version', 2), bits('format', 3, 3, 0),
    Field('additional_length', 4),
    bit('sccs', 5, 7), bits('tpgs', 5, 5, 4), bit('3pc', 5, 3), bit('protect', 5, 0),
    bit('multip', 6, 4), bit('cmdque', 7, 1),
    Field('vendor', 8, 8), Field('product', 16, 16), Field('revision', 32, 4),
    *(Field(f'version_descriptor_{i + 1}', 58 + 2 * i, 2) for i in range(8)),
)  # fmt: skip
PAGE_HEADER = (*DEVICE, Field('page', 1), Field('page_length', 2, 2))
PAGES = {
    0x86: (
        bit('headsup', 5, 2), bit('ordsup', 5, 1), bit('simpsup', 5, 0), bit('v_sup', 6, 0),
    ),
    0xB0: (
        bit('wsnz', 4, 0), Field('max_compare_and_write', 5), Field('granularity', 6, 2),
        Field('max_transfer', 8, 4), Field('optimal_transfer', 12, 4),
        Field('max_prefetch', 16, 4), Field('max_unmap_blocks', 20, 4),
        Field('max_unmap_descriptors', 24, 4), Field('unmap_granularity', 28, 4),
        Field('ugavalid', 32, 4, 7, 31), Field('unmap_alignment', 32, 4, 6, 0),
        Field('max_write_same', 36, 8),
    ),
    0xB1: (Field('rotation_rate', 4, 2), bits('form_factor', 7, 3, 0)),
    0xB2: (
        Field('threshold_exponent', 4), bit('lbpu', 5, 7), bit('lbpws', 5, 6),
        bit('lbpws10', 5, 5), bits('lbprz', 5, 4, 2), bit('anc_sup', 5, 1), bit('dp', 5, 0),
        bits('provisioning_type', 6, 2, 0),
    ),
    0xB3: (Field('segment_size', 8, 4), Field('segment_multiplier', 12, 4)),
}  # fmt: skip
DESIGNATOR = (
    bits('protocol', 0, 7, 4), bits('code_set', 0, 3, 0), bit('piv', 1, 7),
    bits('association', 1, 5, 4), bits('designator_type', 1, 3, 0), Field('length', 3),
)  # fmt: skip
DESIGNATORS = {
    1: 'T10 vendor', 3: 'NAA', 4: 'relative target port', 5: 'target port group',
    6: 'logical unit group', 8: 'SCSI name',
}  # fmt: skip
ASSOCIATIONS = ('logical unit', 'target port', 'target device')
CAPACITY_10 = (Field('last_lba', 0, 4), Field('block_length', 4, 4))
CAPACITY_16 = (
    Field('last_lba', 0, 8), Field('block_length', 8, 4), bits('p_type', 12, 3, 1),
    bit('prot_en', 12, 0), bits('p_i_exponent', 13, 7, 4), bits('lbppbe', 13, 3, 0),
    Field('lbpme', 14, 2, 7, 15), Field('lbprz', 14, 2, 6, 14),
    Field('lowest_aligned', 14, 2, 5, 0),
)  # fmt: skip
MODE_6 = (
    Field('mode_data_length', 0), Field('medium', 1), bit('wp', 2, 7), bit('dpofua', 2, 4),
    Field('block_descriptor_length', 3),
)  # fmt: skip
MODE_10 = (
    Field('mode_data_length', 0, 2), Field('medium', 2), bit('wp', 3, 7), bit('dpofua', 3, 4),
    bit('long_lba', 4, 0), Field('block_descriptor_length', 6, 2),
)  # fmt: skip
BLOCKS_SHORT = (Field('blocks', 0, 4), Field('block_length', 4, 4))
BLOCKS_LONG = (Field('blocks', 0, 8), Field('block_length', 12, 4))
MODE_PAGE = (bit('ps', 0, 7), bit('spf', 0, 6), bits('page', 0, 5, 0), Field('length', 1))
MODE_PAGES = {
    0x08: (bit('wce', 2, 2), bit('rcd', 2, 0), bit('dra', 12, 5)),
    0x0A: (
        bit('d_sense', 2, 2), bit('gltsd', 2, 1), bits('queue_algorithm', 3, 7, 4),
        bit('ato', 5, 7), bit('tas', 5, 6), Field('busy_timeout', 8, 2),
        Field('self_test_time', 10, 2),
    ),
}  # fmt: skip
FIXED_SENSE = (
    bit('valid', 0, 7), bits('code', 0, 6, 0), bits('key', 2, 3, 0), Field('information', 3, 4),
    Field('additional_length', 7), Field('asc', 12), Field('ascq', 13),
)  # fmt: skip
KEYS_HEADER = (Field('generation', 0, 4), Field('additional_length', 4, 4))
RESERVATION = (
    *KEYS_HEADER, Field('key', 8, 8), bits('scope', 21, 7, 4), bits('type', 21, 3, 0),
)  # fmt: skip
CAPABILITIES = (
    Field('length', 0, 2), bit('crh', 2, 4), bit('sip_c', 2, 3), bit('atp_c', 2, 2),
    bit('ptpl_c', 2, 0), bit('tmv', 3, 7), bits('allow_commands', 3, 6, 4), bit('ptpl_a', 3, 0),
    Field('types', 4, 2),
)  # fmt: skip
FULL_STATUS = (
    Field('key', 0, 8), bit('all_tg_pt', 12, 1), bit('r_holder', 12, 0), bits('scope', 13, 7, 4),
    bits('type', 13, 3, 0), Field('port', 18, 2), Field('transport_id_length', 20, 4),
)  # fmt: skip
PORT_GROUP = (
    bit('pref', 0, 7), bits('state', 0, 3, 0), Field('supported_states', 1), Field('group', 2, 2),
    Field('status', 5), Field('vendor_specific', 6), Field('ports', 7),
)  # fmt: skip
ONE_COMMAND = (bit('ctdp', 1, 7), bits('support', 1, 2, 0), Field('cdb_length', 2, 2))
COMMAND_DESCRIPTOR = (
    Field('opcode', 0), Field('action', 2, 2), bit('ctdp', 5, 1), bit('servactv', 5, 0),
    Field('cdb_length', 6, 2),
)  # fmt: skip
UNMAP_LIST = (Field('data_length', 0, 2), Field('descriptors_length', 2, 2))
UNMAP_RANGE = (Field('lba', 0, 8), Field('blocks', 8, 4))
REGISTRATION = (
    Field('key', 0, 8), Field('sa_key', 8, 8), bit('spec_i_pt', 20, 3), bit('all_tg_pt', 20, 2),
    bit('aptpl', 20, 0),
)  # fmt: skip
MOVE = (
    Field('key', 0, 8), Field('sa_key', 8, 8), bit('unreg', 17, 1), bit('aptpl', 17, 0),
    Field('port', 18, 2), Field('transport_id_length', 20, 4),
)  # fmt: skip


# -------------------------------------------------------------------------------------- lists ----


def inquiry(cdb: bytes, data: bytes) -> Iterator[Row]:
    """Standard data, or a VPD page."""
    if not cdb[1] & 1:
        yield from rows(data, INQUIRY)
        return
    yield from whole(data, PAGE_HEADER, 0, 4)
    if len(data) < 4:
        return
    page, end = data[1], min(len(data), 4 + int.from_bytes(data[2:4], 'big'))
    if page == 0x00 and end > 4:
        yield Row(4, data[4:end], {'pages': ' '.join(f'{code:#04x}' for code in data[4:end])})
    elif page == 0x80 and end > 4:
        yield Row(4, data[4:end], {'serial': text(data[4:end])})
    elif page == 0x83:
        yield from designators(data[:end])
    else:
        yield from rows(data[:end], PAGES.get(page, ()))


def designators(data: bytes) -> Iterator[Row]:
    """The descriptors of VPD page 83h."""
    at = 4
    while at + 4 <= len(data):
        yield from whole(data, DESIGNATOR, at, 4)
        kind, whose, size = data[at + 1] & 0x0F, data[at + 1] >> 4 & 3, data[at + 3]
        body = data[at + 4 : at + 4 + size]
        if body:
            name = DESIGNATORS.get(kind, f'type {kind}')
            owner = ASSOCIATIONS[whose] if whose < 3 else f'association {whose}'
            shown = {1: body.hex(), 2: text(body), 3: text(body)}.get(data[at] & 0x0F, body.hex())
            yield Row(at + 4, body, {f'{name} of the {owner}': shown})
        at += 4 + size


def mode_parameters(data: bytes, short: bool) -> Iterator[Row]:
    """A mode parameter header, its block descriptor, mode pages."""
    at = 4 if short else 8
    yield from whole(data, MODE_6 if short else MODE_10, 0, at)
    if len(data) < at:
        return
    descriptor = data[3] if short else int.from_bytes(data[6:8], 'big')
    if descriptor:
        yield from whole(data, BLOCKS_LONG if descriptor == 16 else BLOCKS_SHORT, at, descriptor)
    at += descriptor
    while at + 2 <= len(data):
        end = min(len(data), at + 2 + data[at + 1])
        layout = (*MODE_PAGE, *MODE_PAGES.get(data[at] & 0x3F, ()))
        yield from whole(data[:end], layout, at, end - at)
        at = end


def luns(data: bytes) -> Iterator[Row]:
    """REPORT LUNS."""
    yield from rows(data, (Field('list_length', 0, 4),))
    for at in range(8, len(data) - 7, 8):
        lun = (data[at] & 0x3F) << 8 | data[at + 1]
        yield Row(at, data[at : at + 8], {'lun': lun})


def sense(data: bytes) -> Iterator[Row]:
    """Sense data, fixed or of descriptors."""
    if not data:
        return
    if data[0] & 0x7E == 0x72:
        layout: tuple[Field, ...] = (
            bits('code', 0, 6, 0), bits('key', 1, 3, 0), Field('asc', 2), Field('ascq', 3),
            Field('additional_length', 7),
        )  # fmt: skip
        if len(data) >= 20 and data[7] >= 12 and data[8] == 0:
            layout += (bit('valid', 10, 7), Field('information', 12, 8))
    else:
        layout = FIXED_SENSE
    for row in rows(data, layout):
        fields = dict(row.fields)
        if 'key' in fields:
            fields['key'] = f'{row.raw[0] & 0x0F:X} {KEYS[row.raw[0] & 0x0F]}'
        for name in ('asc', 'ascq'):
            if name in fields:
                fields[name] = f'{row.raw[0]:02X}'
        if 'ascq' in fields:
            code = int.from_bytes(data[row.offset - 1 : row.offset + 1], 'big')
            fields['means'] = CODES.get(code, 'no text for this code')
        yield Row(row.offset, row.raw, fields)


def keys(data: bytes) -> Iterator[Row]:
    """PERSISTENT RESERVE IN READ KEYS."""
    yield from rows(data, KEYS_HEADER)
    for at in range(8, len(data) - 7, 8):
        yield from rows(data, (Field('key', 0, 8),), at)


def full_status(data: bytes) -> Iterator[Row]:
    """PERSISTENT RESERVE IN READ FULL STATUS."""
    yield from rows(data, KEYS_HEADER)
    at = 8
    while at + 24 <= len(data):
        yield from rows(data, FULL_STATUS, at)
        size = int.from_bytes(data[at + 20 : at + 24], 'big')
        name = data[at + 24 : at + 24 + size]
        if name:
            yield Row(at + 24, name, {'transport_id': name.hex()})
        at += 24 + size


def port_groups(cdb: bytes, data: bytes) -> Iterator[Row]:
    """REPORT TARGET PORT GROUPS, with the extended header if it was asked for."""
    yield from rows(data, (Field('return_length', 0, 4),))
    at = 4
    if cdb[1] >> 5 == 1:
        yield from rows(data, (bits('format', 4, 6, 4), Field('transition_time', 5)))
        at = 8
    while at + 8 <= len(data):
        yield from whole(data, PORT_GROUP, at, 8)
        count = data[at + 7]
        for place in range(at + 8, min(at + 8 + 4 * count, len(data) - 3), 4):
            yield from rows(data, (Field('port', 2, 2),), place)
        at += 8 + 4 * count


def opcodes(cdb: bytes, data: bytes) -> Iterator[Row]:
    """REPORT SUPPORTED OPERATION CODES: all, or one."""
    if cdb[2] & 7:
        yield from rows(data, ONE_COMMAND)
        size = int.from_bytes(data[2:4], 'big')
        if size and len(data) >= 4 + size:
            yield Row(4, data[4 : 4 + size], {'usage': name_of(data[4], data[5:7])})
        return
    yield from rows(data, (Field('list_length', 0, 4),))
    at = 4
    while at + 8 <= len(data):
        action = int.from_bytes(data[at + 2 : at + 4], 'big') if data[at + 5] & 1 else None
        for row in whole(data, COMMAND_DESCRIPTOR, at, 8):
            yield Row(at, row.raw, row.fields | {'is': title(data[at], action)})
        at += 20 if data[at + 5] & 2 else 8


def title(opcode: int, action: int | None) -> str:
    """The name of a command by its opcode and service action."""
    cdb = bytearray(16)
    cdb[0] = opcode
    if action is not None:
        cdb[8:10] = action.to_bytes(2, 'big') if opcode == 0x7F else bytes(2)
        cdb[1] = action & 0x1F
    command = identify(bytes(cdb))
    return command.name if command else 'a command without a name here'


def name_of(opcode: int, rest: bytes) -> str:
    """The name of a command by its CDB usage data."""
    command = identify(bytes([opcode]) + rest.ljust(15, b'\0'))
    return command.name if command else ''


def ranges(data: bytes) -> Iterator[Row]:
    """The parameter list of UNMAP."""
    yield from whole(data, UNMAP_LIST, 0, 8)
    for at in range(8, len(data) - 15, 16):
        yield from whole(data, UNMAP_RANGE, at, 16)


def sectors(data: bytes) -> Iterator[Row]:
    """Block data: the first eight bytes of each 512, which is what the simulated medium keeps."""
    for at in range(0, min(len(data), SECTOR * MOST_SECTORS), SECTOR):
        yield Row(at, data[at : at + 8], {'sector': at // SECTOR})


# ---------------------------------------------------------------------------------- by command ----

Reader = Callable[[bytes, bytes], Iterator[Row]]

READERS: dict[str, Reader] = {
    'INQUIRY': inquiry,
    'READ CAPACITY(10)': lambda cdb, data: rows(data, CAPACITY_10),
    'READ CAPACITY(16)': lambda cdb, data: rows(data, CAPACITY_16),
    'MODE SENSE(6)': lambda cdb, data: mode_parameters(data, short=True),
    'MODE SENSE(10)': lambda cdb, data: mode_parameters(data, short=False),
    'MODE SELECT(6)': lambda cdb, data: mode_parameters(data, short=True),
    'MODE SELECT(10)': lambda cdb, data: mode_parameters(data, short=False),
    'REPORT LUNS': lambda cdb, data: luns(data),
    'REQUEST SENSE': lambda cdb, data: sense(data),
    'PERSISTENT RESERVE IN READ KEYS': lambda cdb, data: keys(data),
    'PERSISTENT RESERVE IN READ RESERVATION': lambda cdb, data: rows(data, RESERVATION),
    'PERSISTENT RESERVE IN REPORT CAPABILITIES': lambda cdb, data: rows(data, CAPABILITIES),
    'PERSISTENT RESERVE IN READ FULL STATUS': lambda cdb, data: full_status(data),
    'PERSISTENT RESERVE OUT REGISTER AND MOVE': lambda cdb, data: rows(data, MOVE),
    'REPORT TARGET PORT GROUPS': port_groups,
    'REPORT SUPPORTED OPERATION CODES': opcodes,
    'UNMAP': lambda cdb, data: ranges(data),
}


def describe(command: Command | None, cdb: bytes, data: bytes) -> list[Row]:
    """The data of a command in rows; block data by sector, unknown data as bytes."""
    if command is None:
        return covered(data, [])
    if command.length in ('blocks', 'one block', 'two halves'):
        return list(sectors(data))
    if command.name.startswith('PERSISTENT RESERVE OUT') and command.name not in READERS:
        return covered(data, list(rows(data, REGISTRATION)))
    reader = READERS.get(command.name)
    return covered(data, list(reader(cdb, data)) if reader else [])
