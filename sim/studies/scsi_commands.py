"""What `python -m sim scsi` does: a SCSI command as bytes, there and back.

    python -m sim scsi INQUIRY --vpd 0x83
    python -m sim scsi READ10 --lba 0x1fffff --blocks 2 --size 1g
    python -m sim scsi 12 01 00 00 ff 00
    python -m sim scsi PR OUT REGISTER --sa-key 0xabc then PR OUT RESERVE --key 0xabc --type 1 \
        then WRITE10 --blocks 1 --nexus B

The request is built as a Linux guest builds it, and served by the same kernels that serve the
simulated ring; here they run in plain Python. `then` begins another command on the same LUNs.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sim import layout, scsi
from sim.errors import ConfigError
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
from sim.lio.spec import LunSpec
from sim.studies.scsi_options import luns_of, no_lun_options, parser
from sim.studies.scsi_request import RESET, Request, build

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
        no_lun_options(options)
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
