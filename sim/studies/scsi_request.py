"""From the options of `sim scsi` to a request as a Linux guest builds it: CDB and data."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from sim.errors import ConfigError, shown
from sim.formats import cdb as formats
from sim.formats.cdb import Command
from sim.initiator import Initiator
from sim.lio.pages import mode_pages
from sim.lio.spec import LunSpec, transport_id
from sim.studies.scsi_options import FIELDS

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
LIST_FIELDS = ('key', 'sa_key', 'aptpl', 'all_tg_pt', 'unreg', 'port', 'to')
FROM_LIST = ('lba', 'blocks')  # fields of the CDB, or of UNMAP's list


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
        identity = transport_id(nexus_name(options.to))
        flags = (options.unreg or 0) << 1 | (options.aptpl or 0)
        port = (options.port if options.port is not None else 1).to_bytes(2, 'big')
        return head + bytes([0, flags]) + port + len(identity).to_bytes(4, 'big') + identity
    flags = (options.all_tg_pt or 0) << 2 | (options.aptpl or 0)
    return head + bytes([0, 0, 0, 0, flags, 0, 0, 0])


def nexus_name(index: int) -> str:
    """The initiator's name on the wire, of A, B, ... by number."""
    return f'naa.{0x5001405000001000 + index:016x}'
