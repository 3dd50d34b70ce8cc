"""What `python -m sim scsi` does, and its options: a SCSI command as bytes, there and back.

    python -m sim scsi INQUIRY --vpd 0x83
    python -m sim scsi READ10 --lba 0x1fffff --blocks 2 --size 1g
    python -m sim scsi 12 01 00 00 ff 00
    python -m sim scsi PR OUT REGISTER --sa-key 0xabc then PR OUT RESERVE --key 0xabc --type 1 \
        then WRITE10 --blocks 1 --nexus B

The request is built as a Linux guest builds it, and served by the same kernels that serve the
simulated ring; here they run in plain Python. `then` begins another command on the same LUNs.
"""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sim import layout, scsi
from sim.errors import ConfigError, shown
from sim.formats import cdb as formats
from sim.formats.cdb import Command
from sim.formats.scsi_data import describe
from sim.formats.scsi_text import (
    ATTRIBUTES,
    Line,
    fields_of_request,
    fields_of_reset,
    fields_of_response,
    text_of,
)
from sim.formats.sense import RESPONSES, STATUSES
from sim.initiator import Initiator, header, pages
from sim.layout import RESP_SIZE
from sim.lio.pages import mode_pages
from sim.lio.spec import BLOCK_SIZES, KERNELS, LunSpec, transport_id
from sim.options import Parser, add_json
from sim.units import parse_size

RESET = 'LUN RESET'
MOST_DATA = 1 << 20
ALIASES = (
    (r'^TUR$', 'TEST UNIT READY'),
    (r'^RTPG$', 'REPORT TARGET PORT GROUPS'),
    (r'^RSOC$', 'REPORT SUPPORTED OPERATION CODES'),
    (r'^CAW$', 'COMPARE AND WRITE'),
    (r'^(PRIN|PR IN|PERSISTENT RESERVE IN)\b', 'PERSISTENT RESERVE IN'),
    (r'^(PROUT|PR OUT|PERSISTENT RESERVE OUT)\b', 'PERSISTENT RESERVE OUT'),
)
DEFAULT_ALLOCATION = {'INQUIRY': 255, 'READ CAPACITY(16)': 32}
FIELDS = sorted({field.name for command in formats.EVERY for field in command.fields})
LIST_FIELDS = ('key', 'sa_key', 'aptpl', 'all_tg_pt', 'unreg', 'port', 'to')
FROM_LIST = ('lba', 'blocks')  # fields of the CDB, or of UNMAP's list


def integer(text: str) -> int:
    """A number in any base: 131, 0x83."""
    try:
        return int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f'{shown(text)} is no number, such as 12 or 0xc') from None


def size(text: str) -> int:
    """Bytes, such as 8g."""
    try:
        return parse_size(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def hexadecimal(text: str) -> bytes:
    """Bytes in hexadecimal, blanks allowed."""
    try:
        return bytes.fromhex(text.removeprefix('0x'))
    except ValueError:
        raise argparse.ArgumentTypeError(f'{shown(text)} is no hexadecimal bytes') from None


def numbers(text: str) -> list[int]:
    """Numbers between commas."""
    return [integer(part) for part in text.split(',')]


def nexus(text: str) -> int:
    """An initiator: A, B, ... or 0, 1, ..."""
    if len(text) == 1 and text.isalpha():
        return ord(text.upper()) - ord('A')
    if text.isdigit() and int(text) < 26:
        return int(text)
    raise argparse.ArgumentTypeError(f'{shown(text)} is no initiator from A to Z')


def shortened(names: str) -> str:
    """A list that fits a line."""
    return names if len(names) <= 60 else f'{names[:60].rpartition(", ")[0]}, ...'


def parser() -> Parser:
    """The options of `sim scsi`."""
    whole = Parser(
        prog='vhost-scsi-sim scsi',
        usage='%(prog)s COMMAND [option ...] [then COMMAND [option ...]] ...',
        description='Build the virtio-scsi request of a command, serve it as LIO does, and print '
        'request and response bytes with their meaning. COMMAND is a name (INQUIRY, READ10, '
        '"READ CAPACITY(16)", PR OUT REGISTER, LUN RESET) or the bytes of a CDB in hexadecimal. '
        '"then" begins another command on the same LUNs. docs/reference/scsi.md lists the '
        'commands.',
    )
    whole.add_argument('command', nargs='+', metavar='COMMAND', help='a name, or a CDB in hex')
    add_json(whole)
    _lun_options(whole.add_argument_group('the LUNs (with the first command)'))
    _request_options(whole.add_argument_group('the request'))
    _list_options(whole.add_argument_group('the parameter list of UNMAP and PR OUT'))
    _field_options(whole.add_argument_group('fields of the CDB'))
    return whole


def _lun_options(group: Any) -> None:
    add = group.add_argument
    add('--size', type=size, metavar='SIZE', help='of each LUN (default: 8g)')
    add('--block-size', type=integer, choices=BLOCK_SIZES, metavar='N', help='bytes (default: 512)')
    add('--luns', metavar='N,N,...', type=numbers, help='their numbers in the order of mapping')
    add('--no-luns', action='store_true', default=None, help='a target without any LUN')
    add('--target-number', type=integer, metavar='N',
        help='of the target that has them (default: 0)')  # fmt: skip
    for name, text in (
        ('thin', 'UNMAP and its kin are on'),
        ('write-protected', 'writes are refused'),
        ('write-cache', 'the disk has a volatile one'),
        ('rotational', 'the medium turns, says VPD page B1'),
        ('refuse-overflow', 'refuse a CDB that asks for more than its buffers hold'),
    ):
        add(f'--{name}', action='store_true', default=None, help=text)
    for name in ('serial', 'vendor', 'product', 'revision'):
        add(f'--{name}', metavar='TEXT', help='of the INQUIRY data')
    add('--kernel', choices=KERNELS, help='of the host (default: 6.12)')


def _request_options(group: Any) -> None:
    add = group.add_argument
    add('--lun', type=integer, metavar='N', default=0, help='that is asked (default: %(default)s)')
    add('--target', type=integer, metavar='N', help='that is asked (default: the one that is)')
    add('--nexus', type=nexus, metavar='A|B|...', default=0, help='who sends it')
    add('--tag', type=integer, metavar='N', default=1, help='of the request (default: %(default)s)')
    add('--attribute', choices=ATTRIBUTES, default='simple', help='of the task')
    add('--data-out', type=hexadecimal, metavar='HEX', help='bytes of the data-out buffer')
    add('--fill', type=integer, metavar='BYTE', default=0xA5, help='of block data')
    add('--data-in', type=size, metavar='BYTES', help='room for data (default: what the CDB says)')
    add('--readable', type=numbers, metavar='N,N,...', help='cut header and data-out like this')
    add('--writable', type=numbers, metavar='N,N,...', help='cut response and data-in like this')


def _list_options(group: Any) -> None:
    add = group.add_argument
    add('--key', type=integer, metavar='N', help='reservation key')
    add('--sa-key', type=integer, metavar='N', help='service action reservation key')
    for name in ('aptpl', 'all-tg-pt', 'unreg'):
        add(f'--{name}', type=integer, nargs='?', const=1, metavar='0|1', help='a bit of PR OUT')
    add('--port', type=integer, metavar='N', help='REGISTER AND MOVE: relative target port')
    add('--to', type=nexus, metavar='A|B|...', help='REGISTER AND MOVE: the initiator')
    add('--compare', type=hexadecimal, metavar='HEX',
        help='COMPARE AND WRITE (default: what the LUN holds)')  # fmt: skip


def _field_options(group: Any) -> None:
    add = group.add_argument
    add('--vpd', type=integer, metavar='PAGE', help='INQUIRY of a VPD page')
    for name in FIELDS:
        whole = [field for command in formats.EVERY if (field := command.field(name))]
        if max(field.bits for field in whole) == 1:
            shape: dict[str, Any] = {'nargs': '?', 'const': 1, 'metavar': '0|1'}
        else:
            shape = {'metavar': 'N'}
        names = ', '.join(command.name for command in formats.EVERY if command.field(name))
        add(f'--{name.replace("_", "-")}', type=integer, help=shortened(names), **shape)


# --------------------------------------------------------------------------------- one command ----


@dataclass(kw_only=True)
class Request:
    """One command as it is sent: `command` is None for a CDB that is none of the subset."""

    name: str
    options: argparse.Namespace
    command: Command | None = None
    cdb: bytes = b''
    data_out: bytes = b''
    room: int = 0
    spec: LunSpec = field(default_factory=LunSpec)


def named(words: Sequence[str], options: argparse.Namespace) -> Command | bytes:
    """The command that the words name, or the CDB that they are."""
    text = ' '.join(words)
    digits = re.sub(r'[\s:,]|\b0x', '', text)
    if re.fullmatch(r'[0-9A-Fa-f]+', digits) and (len(digits) > 2 or re.search(r'\d', digits)):
        raw = hexadecimal_cdb(digits, text)
        given = [name for name in FIELDS if getattr(options, name) is not None]
        if given or options.vpd is not None:
            raise ConfigError(f'scsi: {text} is a whole CDB; it takes no --{(given or ["vpd"])[0]}')
        return raw
    folded = re.sub(r'[\s_-]+', ' ', text.upper()).strip()
    for pattern, name in ALIASES:
        folded = re.sub(pattern, name, folded)
    if folded in ('PERSISTENT RESERVE IN', 'PERSISTENT RESERVE OUT'):
        return _by_action(folded, options.sa)
    return formats.by_name(folded)


def hexadecimal_cdb(digits: str, text: str) -> bytes:
    """A CDB of 1 to 32 bytes."""
    if len(digits) % 2 or len(digits) > 64:
        raise ConfigError(f'scsi: {shown(text)} are not 1 to 32 bytes in hexadecimal')
    return bytes.fromhex(digits)


def _by_action(name: str, action: int | None) -> Command:
    """A persistent reservation command by its service action."""
    found = [command for command in formats.COMMANDS if command.name.startswith(name + ' ')]
    for command in found:
        if command.action == action:
            return command
    known = ', '.join(f'{command.action} {command.name[len(name) + 1 :]}' for command in found)
    raise ConfigError(f'scsi: {name} needs its service action, by name or --sa: {known}')


def build(options: argparse.Namespace, spec: LunSpec, desk: Initiator) -> Request:
    """The request that the options describe."""
    request = Request(name=' '.join(options.command), options=options, spec=spec)
    if formats.folded(request.name) == formats.folded(RESET):
        request.name = RESET
        return request
    found = named(options.command, options)
    if isinstance(found, bytes):
        request.cdb = found
        request.command = formats.identify(found)
        whole = found.ljust(32, b'\0')
        if request.command:
            request.name = request.command.name
            _lengths(request, whole)
        request.data_out = options.data_out or request.data_out
        return request
    request.command, request.name = found, found.name
    values = _values(found, options)
    request.data_out = parameters(found, options, spec) if options.data_out is None else b''
    request.data_out = request.data_out or options.data_out or b''
    if found.field('list_length'):
        values.setdefault('list_length', len(request.data_out))
    request.cdb = formats.build(found, values)
    _lengths(request, request.cdb)
    if found.name == 'COMPARE AND WRITE' and options.data_out is None:
        request.data_out = _halves(request, desk, values.get('lba', 0))
    return request


def _lengths(request: Request, cdb: bytes) -> None:
    """Room for data in, and block data, as much as the CDB asks for."""
    command, options = request.command, request.options
    assert command is not None
    wanted = command.data_bytes(cdb, request.spec.block_size)
    if options.data_in is None and wanted > MOST_DATA:
        raise ConfigError(f'scsi: {wanted} bytes of data are more than {MOST_DATA} shown here')
    if command.data == 'in':
        request.room = wanted if options.data_in is None else options.data_in
        if request.room > MOST_DATA:
            raise ConfigError(f'scsi: --data-in {request.room} is more than {MOST_DATA}')
    elif command.data == 'out' and command.length != 'bytes' and options.data_out is None:
        if not 0 <= options.fill <= 255:
            raise ConfigError(f'scsi: --fill {options.fill} is no byte')
        request.data_out = bytes([options.fill]) * wanted


def _values(command: Command, options: argparse.Namespace) -> dict[str, int]:
    """The fields of the CDB that were given, and sensible ones."""
    in_list = FROM_LIST if command.name == 'UNMAP' else ()
    values = {
        name: getattr(options, name)
        for name in FIELDS
        if getattr(options, name) is not None and name not in in_list
    }
    if options.vpd is not None:
        values |= {'evpd': 1, 'page': options.vpd}
    allocation = command.field('alloc')
    if allocation:
        most = min((1 << allocation.bits) - 1, 4096)
        values.setdefault('alloc', DEFAULT_ALLOCATION.get(command.name, most))
    if command.length in ('blocks', 'one block', 'two halves') or 'VERIFY' in command.name:
        values.setdefault('blocks', 1)
    if command.name == 'START STOP UNIT':  # the only way that LIO takes it
        values = {'immed': 1, 'start': 1} | values
    if command.name.startswith('MODE SELECT'):
        values = {'pf': 1} | values
    if command.name.startswith('MODE SENSE'):
        values = {'page': 0x3F} | values
    return values


def _halves(request: Request, desk: Initiator, lba: int) -> bytes:
    """COMPARE AND WRITE: what is expected, then what is written."""
    half = len(request.data_out) // 2
    options = request.options
    held = desk.held(request.spec, lba, half // request.spec.block_size)
    expected = held if options.compare is None else options.compare
    filled = expected[:half].ljust(half, b'\0')
    return filled + bytes([options.fill]) * half


def parameters(command: Command, options: argparse.Namespace, spec: LunSpec) -> bytes:
    """The parameter list that a command takes."""
    given = [name for name in LIST_FIELDS if getattr(options, name) is not None]
    takes = command.name.startswith('PERSISTENT RESERVE OUT')
    if given and not takes:
        raise ConfigError(f'scsi: {command.name} takes no --{given[0].replace("_", "-")}')
    if takes:
        return _reservation(command, options)
    if command.name == 'UNMAP':
        lba, blocks = options.lba or 0, 1 if options.blocks is None else options.blocks
        for name, value, width in (('lba', lba, 64), ('blocks', blocks, 32)):
            if not 0 <= value < 1 << width:
                raise ConfigError(f'scsi: --{name} {value} does not fit {width} bits')
        entry = lba.to_bytes(8, 'big') + blocks.to_bytes(4, 'big') + bytes(4)
        return bytes([0, 22, 0, 16, 0, 0, 0, 0]) + entry
    if command.name.startswith('MODE SELECT'):  # what the LUN has already: it takes nothing else
        return bytes(4 if command.size == 6 else 8) + mode_pages(spec)[8]
    return b''


def _reservation(command: Command, options: argparse.Namespace) -> bytes:
    """The parameter list of PERSISTENT RESERVE OUT."""
    for name in ('key', 'sa_key'):
        if not 0 <= (getattr(options, name) or 0) < 1 << 64:
            raise ConfigError(f'scsi: --{name.replace("_", "-")} does not fit 64 bits')
    head = b''.join((getattr(options, name) or 0).to_bytes(8, 'big') for name in ('key', 'sa_key'))
    if command.action == 7:
        if options.to is None:
            raise ConfigError('scsi: REGISTER AND MOVE needs --to, the initiator that gets it')
        identity = transport_id(_nexus_name(options.to))
        flags = (options.unreg or 0) << 1 | (options.aptpl or 0)
        port = (options.port if options.port is not None else 1).to_bytes(2, 'big')
        return head + bytes([0, flags]) + port + len(identity).to_bytes(4, 'big') + identity
    flags = (options.all_tg_pt or 0) << 2 | (options.aptpl or 0)
    return head + bytes([0, 0, 0, 0, flags, 0, 0, 0])


# ---------------------------------------------------------------------------- what came of it ----


def answer(request: Request, desk: Initiator) -> dict[str, Any]:
    """Send it; everything about it, as --json prints it."""
    options = request.options
    if request.name == RESET:
        return _reset(request, desk)
    head = header(
        request.cdb,
        lun=options.lun,
        target=options.target,
        tag=options.tag,
        attribute=ATTRIBUTES.index(options.attribute),
    )
    out = [head, *pages(request.data_out)]
    sizes = [RESP_SIZE, *map(len, pages(bytes(request.room)))]
    if options.readable is not None:
        out = cut(head + request.data_out, options.readable)
    if options.writable is not None:
        sizes = options.writable
    reply = desk.submit(out, sizes, nexus=options.nexus)
    sense = reply.sense if reply.response[:4] != bytes(4) and reply.response else None
    data = reply.data[: reply.length]
    return {
        'command': request.name,
        'nexus': chr(ord('A') + options.nexus),
        'cdb': request.cdb.hex(),
        'request': head.hex(),
        'request_fields': [line.as_data() for line in fields_of_request(head)],
        'data_out': request.data_out.hex(),
        'data_out_fields': _rows(request, request.data_out),
        'readable': [len(piece) for piece in out],
        'writable': list(sizes),
        'outcome': reply.outcome,
        'response': reply.response.hex(),
        'response_fields': [line.as_data() for line in fields_of_response(reply.response)],
        'status': STATUSES.get(reply.status) if reply.response else None,
        'resid': reply.resid if reply.response else None,
        'sense': _sense_data(sense),
        'data_in': data.hex(),
        'data_in_room': max(sum(sizes) - RESP_SIZE, 0),
        'data_in_fields': _rows(request, data),
    }


def _sense_data(sense: Any) -> dict[str, Any] | None:
    if sense is None:
        return None
    return {
        'key': sense.key, 'asc': sense.asc, 'ascq': sense.ascq, 'information': sense.information,
        'format': 'descriptor' if sense.descriptor else 'fixed', 'text': str(sense),
    }  # fmt: skip


def _rows(request: Request, data: bytes) -> list[dict[str, Any]]:
    return [
        {'offset': row.offset, 'bytes': row.raw.hex(), 'fields': row.fields, 'text': str(row)}
        for row in describe(request.command, request.cdb.ljust(16, b'\0'), data)
    ]


def cut(content: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Content in buffers of these sizes; what they have no room for is not sent."""
    pieces, at = [], 0
    for size in sizes:
        pieces.append(content[at : at + size].ljust(size, b'\0'))
        at += size
    return pieces


def _reset(request: Request, desk: Initiator) -> dict[str, Any]:
    """LOGICAL UNIT RESET, by the control queue."""
    options = request.options
    sent = scsi.tmf_request(layout.TMF_LOGICAL_UNIT_RESET, options.target, options.lun, options.tag)
    got = desk.control(sent)
    code = got[-1] if got else 0
    reply = [Line(0, got, 'response', RESPONSES[code])] if got else []
    return {
        'command': RESET,
        'request': sent.hex(),
        'request_fields': [line.as_data() for line in fields_of_reset(sent)],
        'outcome': 'answered' if got else 'dropped',
        'response': got.hex() if got else '',
        'response_fields': [line.as_data() for line in reply],
    }


# -------------------------------------------------------------------------------- the sequence ----


def _nexus_name(index: int) -> str:
    return f'naa.{0x5001405000001000 + index:016x}'


def run(words: Sequence[str]) -> tuple[dict[str, Any], bool]:
    """Everything about the commands, and whether JSON is wanted."""
    parsers = parser()
    sections: list[list[str]] = [[]]
    for word in words:
        if word == 'then':
            sections.append([])
        else:
            sections[-1].append(word)
    given = [parsers.parse_intermixed_args(section) for section in sections]
    first = given[0]
    for options in given[1:]:
        _no_lun_options(options)
    specs = luns_of(first)
    target = 0 if first.target_number is None else first.target_number
    desk = Initiator(
        specs,
        targets=(target,),
        nexuses=max(2, 1 + max(max(options.nexus, options.to or 0) for options in given)),
        kernel=first.kernel or '6.12',
    )
    found = []
    for options in given:
        options.target = target if options.target is None else options.target
        for name, most in (('target', 255), ('lun', 0x3FFF), ('tag', (1 << 64) - 1)):
            if not 0 <= getattr(options, name) <= most:
                raise ConfigError(f'scsi: --{name} is a number from 0 to {most}')
        asked = [spec for spec in specs if spec.number == options.lun]
        model = specs[0] if specs else LunSpec()
        spec = asked[0] if asked else replace(model, number=options.lun)
        found.append(answer(build(options, spec, desk), desk))
    about = {
        'luns': [spec.number for spec in specs],
        'target': target,
        'size': specs[0].size if specs else 0,
        'block_size': specs[0].block_size if specs else 0,
        'kernel': first.kernel or '6.12',
        'commands': found,
    }
    return about, any(options.json for options in given)


LUN_OPTIONS = (
    'size', 'block_size', 'thin', 'write_protected', 'write_cache', 'rotational',
    'refuse_overflow', 'serial', 'vendor', 'product', 'revision',
)  # fmt: skip


def _no_lun_options(options: argparse.Namespace) -> None:
    for name in (*LUN_OPTIONS, 'luns', 'no_luns', 'target_number', 'kernel'):
        if getattr(options, name) is not None:
            raise ConfigError(
                f'scsi: --{name.replace("_", "-")} stands behind "then"; the LUNs are described '
                'with the first command'
            )


def luns_of(options: argparse.Namespace) -> list[LunSpec]:
    """The LUNs that the options describe, all alike."""
    if options.no_luns:
        return []
    given = {name: getattr(options, name) for name in LUN_OPTIONS}
    alike = {name: value for name, value in given.items() if value is not None}
    target = options.target_number or 0
    return [LunSpec(number=number, target=target, **alike) for number in options.luns or [0]]


def main(words: Sequence[str]) -> tuple[str, dict[str, Any] | None]:
    """The text to print, and the data instead of it if --json was given."""
    about, as_json = run(words)
    if as_json:
        return '', about
    luns = ', '.join(map(str, about['luns']))
    title = f'LUN {luns} of target {about["target"]}' if luns else 'no LUN'
    if about['luns']:
        title += f': {about["size"]} bytes in blocks of {about["block_size"]}'
    parts = [f'{title}; host Linux {about["kernel"]}']
    for found in about['commands']:
        sender = f' from nexus {found["nexus"]}' if 'nexus' in found else ''
        parts.append(f'\n{found["command"]}{sender}\n{text_of(found)}')
    return '\n'.join(parts), None
