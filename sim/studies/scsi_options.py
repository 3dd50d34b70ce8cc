"""The options of `sim scsi`: of the LUNs, the request, its parameter list, its CDB."""

import argparse
from typing import Any

from sim.errors import ConfigError, shown
from sim.formats import cdb as formats
from sim.formats.scsi_text import ATTRIBUTES
from sim.lio.spec import BLOCK_SIZES, KERNELS, LunSpec
from sim.options import Parser, add_json
from sim.units import parse_size

FIELDS = sorted({field.name for command in formats.EVERY for field in command.fields})
LUN_OPTIONS = (
    'size', 'block_size', 'thin', 'write_protected', 'write_cache', 'rotational',
    'refuse_overflow', 'serial', 'vendor', 'product', 'revision',
)  # fmt: skip


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


def no_lun_options(options: argparse.Namespace) -> None:
    """Refuse a description of the LUNs behind "then"; ConfigError."""
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
