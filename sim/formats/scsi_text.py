"""Requests and responses of virtio-scsi in lines for people: bytes, field, meaning."""

from dataclasses import dataclass
from typing import Any

from sim.formats.cdb import cdb_size, identify
from sim.formats.scsi_data import spaced
from sim.formats.sense import RESPONSES, STATUSES, parse_sense

ATTRIBUTES = ('simple', 'ordered', 'head', 'aca')


@dataclass(frozen=True)
class Line:
    """Bytes of a structure with the name and meaning of what they are."""

    offset: int
    raw: bytes
    name: str
    text: str

    def __str__(self) -> str:
        return f'{self.offset:>5}  {spaced(self.raw):<50} {self.name:17} {self.text}'.rstrip()

    def as_data(self) -> dict[str, Any]:
        """For JSON."""
        return {
            'offset': self.offset, 'bytes': self.raw.hex(), 'field': self.name, 'text': self.text,
        }  # fmt: skip


def fields_of_request(head: bytes) -> list[Line]:
    """The 51 bytes of a request header."""
    cdb = head[19:51]
    size, command = cdb_size(cdb), identify(cdb)
    told = command.name if command else 'none of the subset'
    for field in command.fields if command else ():
        value = field.get(cdb)
        if value or field.bits >= 8:
            told += f'  {field.name}={value:#x}'
    lun = int.from_bytes(head[2:4], 'big') & 0x3FFF
    kind = ATTRIBUTES[head[16]].upper()
    return [
        Line(0, head[:8], 'lun', f'target {head[1]}, LUN {lun}'),
        Line(8, head[8:16], 'tag', str(int.from_bytes(head[8:16], 'little'))),
        Line(16, head[16:17], 'task_attr', kind),
        Line(17, head[17:18], 'prio', ''),
        Line(18, head[18:19], 'crn', ''),
        Line(19, head[19 : 19 + size], 'cdb', told),
        Line(19 + size, head[19 + size : 51], '', ''),
    ]


def fields_of_response(response: bytes) -> list[Line]:
    """The 108 bytes of a response; nothing of one that never came."""
    if not response:
        return []
    length = int.from_bytes(response[:4], 'little')
    sense = parse_sense(response[12:]) if length else None
    status, code = response[10], response[11]
    answer = RESPONSES[code] if code < len(RESPONSES) else ''
    used = 0 if not length else 20 if response[12] & 0x7E == 0x72 else 18
    return [
        Line(0, response[:4], 'sense_len', str(length)),
        Line(4, response[4:8], 'resid', str(int.from_bytes(response[4:8], 'little'))),
        Line(8, response[8:10], 'status_qualifier', ''),
        Line(10, response[10:11], 'status', STATUSES.get(status, '')),
        Line(11, response[11:12], 'response', answer),
        Line(12, response[12 : 12 + used], 'sense', str(sense)),
        Line(12 + used, response[12 + used :], '' if used else 'sense', '' if used else 'none'),
    ]


def fields_of_reset(sent: bytes) -> list[Line]:
    """The 24 bytes of a task management function."""
    lun = int.from_bytes(sent[10:12], 'big') & 0x3FFF
    return [
        Line(0, sent[:4], 'type', 'TMF'),
        Line(4, sent[4:8], 'subtype', 'LOGICAL UNIT RESET'),
        Line(8, sent[8:16], 'lun', f'target {sent[9]}, LUN {lun}'),
        Line(16, sent[16:], 'tag', str(int.from_bytes(sent[16:24], 'little'))),
    ]


def text_of(found: dict[str, Any]) -> str:
    """What a person wants to see of a command."""
    whole = [_block('request', found['request'], found['request_fields'])]
    if found.get('data_out'):
        whole.append(_block('data out', found['data_out'], found['data_out_fields']))
    if found['outcome'] == 'dropped':
        return '\n'.join([*whole, 'no response: the request is dropped, its ring slot leaks'])
    whole.append(_block('response', found['response'], found['response_fields']))
    if found.get('data_in_room'):
        title = f'data in, {len(found["data_in"]) // 2} of {found["data_in_room"]} bytes'
        whole.append(_block(title, found['data_in'], found['data_in_fields']))
    return '\n'.join(whole)


def _block(title: str, content: str, fields: list[dict[str, Any]]) -> str:
    count = '' if ',' in title else f', {len(content) // 2} bytes'
    lines = [f'{title}{count}']
    for row in fields:
        if 'field' in row:
            raw = bytes.fromhex(row['bytes'])
            if raw and (row['field'] or any(raw)):
                lines.append(str(Line(row['offset'], raw, row['field'], row['text'])))
        else:
            lines.append(row['text'])
    shown_bytes = sum(len(row['bytes']) // 2 for row in fields)
    if fields and 'fields' in fields[0] and shown_bytes < len(content) // 2:
        lines.append('       of each sector the first 8 bytes, which is what the medium keeps')
    return '\n'.join(lines)
