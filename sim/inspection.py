"""What a capture of ring memory says: its queues, the requests in flight, and what is wrong.

The bytes are read by the device side of sim.vring, with the habits of whoever served the rings.
Where it begins:

* a queue that QEMU served: at the used index that QEMU reported;
* a split queue that vhost served when the capture was taken: at used.idx, for QEMU's figures are
  stale then;
* a packed queue's wrap counter is nowhere in memory. It is the AVAIL bit of the nearest slot before
  used_idx whose AVAIL and USED bits are equal (that slot was used last, or never yet), inverted if
  the search went past slot 0.

In flight is what lies between there and the end of what is available. For a split queue that is
avail[used.idx .. avail.idx); a device that completes out of order leaves older entries in flight
and some of these used, which shows when a head stands there twice. The walk then begins as many
entries earlier as it takes to make the two rings agree.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sim import features, vring
from sim.formats.capture import Capture, Queue
from sim.formats.cdb import Command, cdb_size, identify
from sim.formats.scsi_text import ATTRIBUTES
from sim.layout import REQ_CDB, REQ_SIZE, REQ_TASK_ATTR, RESP_SIZE, VQ_REQUEST_FIRST
from sim.testing import MAX_BUFFERS, Chain

u64 = np.uint64

LOOK_BACK = 256  # used entries that out-of-order completion may reach back

ROLES = ('control', 'event')
DIRECTIONS = {'none': 'none', 'in': 'from_device', 'out': 'to_device'}

# What this module finds beside the verdicts of the ring (sim.vring), and what it means.
VERDICTS = {
    'CONTRADICTION': 'two saved parts have different bytes for one address',
    'INDEX_MISMATCH': 'the indices in memory are not those that QEMU reported',
    'HEAD_TWICE': 'one head is in flight twice',
    'NOT_SAVED': 'a request points to memory that the capture does not have',
    'SHORT_REQUEST': 'fewer readable bytes than a request header: answered with BAD_TARGET',
    'SHORT_RESPONSE': 'fewer writable bytes than a response: dropped without an answer',
    'BAD_LUN': 'the LUN field is none that the device accepts: answered with BAD_TARGET',
    'BAD_TASK_ATTR': 'the task attribute is none that virtio has',
    'TAG_TWICE': 'two requests in flight have the same tag',
    'WRONG_DIRECTION': 'the buffers go the other way than the CDB',
    'WRONG_LENGTH': 'the buffers are not a whole number of blocks for each block of the CDB',
}


@dataclass
class Findings:
    """What is wrong with a capture: (queue or None, verdict, detail) each."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, queue: int | None, verdict: str, detail: str) -> None:
        """Note a verdict; the queue is None for the capture as a whole."""
        self.rows.append({'queue': queue, 'verdict': verdict, 'detail': detail})


def inspect(capture: Capture) -> dict[str, Any]:
    """The report on a capture, as `sim ring inspect --json` prints it.

    `verdicts` is empty for a sound one.
    """
    findings = Findings()
    if capture.contradictions:
        first = capture.contradictions[0]
        count = len(capture.contradictions)
        findings.add(None, 'CONTRADICTION', f'{count} bytes, the first at {first:#x}')
    names = [_short(bit) for bit in features.bits_of(capture.features)]
    queues = []
    for queue in capture.queues:
        walk = _Walk(capture, queue, findings)
        role = ROLES[queue.index] if queue.index < VQ_REQUEST_FIRST else 'request'
        row: dict[str, Any] = {
            'index': queue.index,
            'role': role,
            'layout': 'packed' if capture.packed else 'split',
            'num': queue.num,
            'features': names,
            'features_hex': f'{capture.features:#x}',
            **walk.indices,
        }
        if role == 'request':
            row['in_flight'] = [_request(walk, chain) for chain in walk.chains]
            _tags(queue.index, row['in_flight'], findings)
        else:
            row['available'] = len(walk.chains)
        queues.append(row)
    return {
        'capture': capture.name,
        'origin': capture.origin,
        'served_by': 'kernel vhost' if capture.vhost else 'QEMU',
        'queues': queues,
        'verdicts': findings.rows,
    }


def as_text(report: dict[str, Any]) -> str:
    """The same report for people."""
    lines = [f'{report["capture"]}: served by {report["served_by"]}']
    if report['origin']:
        lines.append(report['origin'])
    if report['queues']:
        lines.append('features ' + ' '.join(report['queues'][0]['features']))
    for queue in report['queues']:
        found = queue.get('in_flight')
        what = f'available {queue["available"]}' if found is None else f'in flight {len(found)}'
        lines.append(
            f'queue {queue["index"]} {queue["role"]:8} {queue["layout"]} ring of {queue["num"]}  '
            f'{_place(queue, "avail")}  {_place(queue, "used")}  {what}'
        )
        if found:
            lines.append(
                f'   {"head":>5} {"lun":>5}  {"tag":18} {"command":22} {"lba":>12} '
                f'{"blocks":>6} {"bytes":>8} {"direction":11}  CDB'
            )
        lines += [_line(request) for request in found or []]
    for row in report['verdicts']:
        where = '' if row['queue'] is None else f'queue {row["queue"]}: '
        lines.append(f'verdict: {where}{row["verdict"]}: {row["detail"]}')
    return '\n'.join(line.rstrip() for line in lines)


def _place(queue: dict[str, Any], side: str) -> str:
    wrap = f' wrap {queue[f"{side}_wrap"]}' if f'{side}_wrap' in queue else ''
    return f'{side} {queue[f"{side}_idx"]}{wrap}'


def _line(request: dict[str, Any]) -> str:
    if request['cdb'] is None:
        return f'   {request["head"]:5}  unreadable'
    lba, blocks = ('-' if request[key] is None else request[key] for key in ('lba', 'blocks'))
    return (
        f'   {request["head"]:5} {request["target"]}:{request["lun"]:<3}  {request["tag"]:#018x} '
        f'{request["command"]:22} {lba:>12} {blocks:>6} {request["data_len"]:8} '
        f'{request["direction"]:11}  {request["cdb"]}'
    )


def _short(bit: int) -> str:
    """VIRTIO_RING_F_EVENT_IDX is EVENT_IDX."""
    return features.name_of(bit).rpartition('_F_')[2]


# ------------------------------------------------------------------------------ walking the ring


class _Walk:
    """The device side of one queue, walked from where it stands to the end of what there is.

    `indices` are the queue's indices by its bytes, `chains` what is available behind used_idx.
    """

    def __init__(self, capture: Capture, queue: Queue, findings: Findings) -> None:
        self.capture, self.queue, self.findings = capture, queue, findings
        self.indices: dict[str, int] = {'avail_idx': 0, 'used_idx': 0}
        self.chains: list[Chain] = []
        if queue.desc:
            self.words = vring.device_words(queue.num)
            self.st = np.zeros(self.words + 4 + 2 * MAX_BUFFERS, dtype=np.int64)
            (self._packed if capture.packed else self._split)()

    def wrong(self, verdict: str, detail: str) -> None:
        """Note what is wrong with this queue."""
        self.findings.add(self.queue.index, verdict, detail)

    def _field(self, address: int, size: int = 2) -> int:
        return int.from_bytes(self.capture.memory[address : address + size].tobytes(), 'little')

    def _attach(self, base: int) -> bool:
        """Put the device at `base`, as VHOST_SET_VRING_BASE does; False if it will not have it."""
        capture, queue = self.capture, self.queue
        self.st[:] = 0
        refused = vring.device_init(
            capture.memory, self.st, u64(0), queue.num, queue.desc, queue.avail, queue.used,
            capture.features, base, vring.KERNEL_VHOST if capture.vhost else vring.QEMU,
        )  # fmt: skip
        if refused:
            self.wrong(self._verdict(), f'the device does not start at {base:#x}')
        return not refused

    def _verdict(self) -> str:
        return vring.VERDICTS[int(self.st[int(vring.V_VERDICT)])]

    def _fetch(self) -> Chain | None:
        """The next chain; None at the end, or where one is malformed (which is noted)."""
        head = int(vring.fetch(self.capture.memory, None, self.st, u64(0), 0, u64(self.words)))
        if head == vring.EMPTY:
            return None
        if head < 0:
            at = int(self.st[int(vring.V_LAST_AVAIL)])
            self.wrong(self._verdict(), f'the chain at available entry {at} is refused')
            return None
        out, in_ = (int(count) for count in self.st[self.words : self.words + 2])
        pairs = self.st[self.words + 4 : self.words + 4 + 2 * (out + in_)].reshape(-1, 2).tolist()
        entries = tuple((address, length) for address, length in pairs)
        return Chain(head, entries[:out], entries[out:])

    def _split(self) -> None:
        queue = self.queue
        avail_idx, used_idx = self._field(queue.avail + 2), self._field(queue.used + 2)
        self.indices = {'avail_idx': avail_idx, 'used_idx': used_idx}
        outstanding = (avail_idx - used_idx) & 0xFFFF
        if outstanding > queue.num:
            name = vring.VERDICTS[vring.BAD_AVAIL_INDEX]
            self.wrong(
                name,
                f'avail.idx {avail_idx} is {outstanding} ahead of used.idx '
                f'{used_idx}, in a ring of {queue.num}',
            )
            return
        if not queue.vhost_runs:
            self._compare_split(avail_idx, used_idx)
        for slot in range(queue.num):
            if self._used_id(slot) >= queue.num:
                name = vring.VERDICTS[vring.USED_ID_RANGE]
                self.wrong(name, f'used.ring[{slot}] has id {self._used_id(slot)}, of {queue.num}')
        for position in self._positions(avail_idx, used_idx, outstanding):
            if not self._attach(position):
                return
            # An entry before used.idx is in flight too; the device is to count from there.
            self.st[int(vring.V_LAST_USED)] = position
            chain = self._fetch()
            if chain is not None:
                self.chains.append(chain)

    def _compare_split(self, avail_idx: int, used_idx: int) -> None:
        """QEMU's figures against the bytes, for a ring that QEMU served or has stopped."""
        queue = self.queue
        if queue.used_idx != used_idx:
            self.wrong('INDEX_MISMATCH', f'used.idx is {used_idx}, QEMU reported {queue.used_idx}')
        for name, value in (('last', queue.last_avail), ('shadow', queue.shadow_avail)):
            if value is not None and (avail_idx - value) & 0xFFFF > (avail_idx - used_idx) & 0xFFFF:
                self.wrong(
                    'INDEX_MISMATCH',
                    f'{name}_avail_idx is {value}, not between used.idx '
                    f'{used_idx} and avail.idx {avail_idx}',
                )
        taken = ((queue.last_avail or 0) - used_idx) & 0xFFFF
        if queue.inuse is not None and queue.last_avail is not None and queue.inuse != taken:
            self.wrong(
                'INDEX_MISMATCH',
                f'inuse is {queue.inuse}, but {taken} entries lie between '
                f'used.idx {used_idx} and last_avail_idx {queue.last_avail}',
            )

    def _head(self, index: int) -> int:
        return self._field(self.queue.avail + 4 + 2 * (index % self.queue.num))

    def _used_id(self, index: int) -> int:
        return self._field(self.queue.used + 4 + 8 * (index % self.queue.num), 4)

    def _positions(self, avail_idx: int, used_idx: int, outstanding: int) -> Sequence[int]:
        """Available indices of the entries in flight, oldest first."""
        for back in range(min(self.queue.num - outstanding, LOOK_BACK) + 1):
            found = self._replay(used_idx - back, back, outstanding)
            if found is not None:
                return found
        entries = [(used_idx + i) & 0xFFFF for i in range(outstanding)]
        twice = sorted(h for h, n in Counter(map(self._head, entries)).items() if n > 1)
        self.wrong(
            'HEAD_TWICE',
            f'heads {", ".join(map(str, twice))} stand twice between '
            f'used.idx {used_idx} and avail.idx {avail_idx}',
        )
        return entries

    def _replay(self, start: int, uses: int, left: int) -> Sequence[int] | None:
        """Entries in flight, if nothing was when both indices stood at `start`; None: impossible.

        `uses` heads were used since, and `left` more published. A head can be published only
        while it is not in flight, and used only while it is: if neither the next use nor the next
        publication is possible, no order of events explains the two rings.
        """
        flying: dict[int, int] = {}
        published = used = 0
        while published < uses + left or used < uses:
            head = self._used_id(start + used) if used < uses else None
            if head in flying:
                del flying[head]
                used += 1
                continue
            head = self._head(start + published)
            if published == uses + left or head in flying:
                return None
            flying[head] = (start + published) & 0xFFFF
            published += 1
        return list(flying.values())

    def _packed(self) -> None:
        queue = self.queue
        used_wrap = self._used_wrap()
        at = queue.used_idx | used_wrap << 15
        if not self._attach(at << 16 | at):
            return
        while (chain := self._fetch()) is not None:
            self.chains.append(chain)
        last = int(self.st[int(vring.V_LAST_AVAIL)])
        walked = int(self.st[int(vring.V_INUSE)])
        self.indices = {
            'avail_idx': last,
            'avail_wrap': int(self.st[int(vring.V_AVAIL_WRAP)]),
            'used_idx': queue.used_idx,
            'used_wrap': used_wrap,
        }
        if queue.inuse is None or queue.last_avail is None:
            return
        reported = (queue.used_idx + queue.inuse) % queue.num
        if reported != queue.last_avail or queue.inuse > walked:
            self.wrong(
                'INDEX_MISMATCH',
                f'QEMU had taken {queue.inuse} descriptors from slot '
                f'{queue.used_idx} up to slot {queue.last_avail}; {walked} are available',
            )

    def _used_wrap(self) -> int:
        """The device's used wrap counter, from the flags of the slots before used_idx."""
        queue = self.queue
        for back in range(1, queue.num + 1):
            slot = queue.used_idx - back
            flags = self._field(queue.desc + 16 * (slot % queue.num) + 14)
            avail, used = flags >> 7 & 1, flags >> 15 & 1
            if avail == used:
                return avail ^ (slot < 0)
        # Every slot is available: the ring is full, and the one at used_idx is the oldest.
        return self._field(queue.desc + 16 * queue.used_idx + 14) >> 7 & 1


# ---------------------------------------------------------------------------- reading a request


def _request(walk: _Walk, chain: Chain) -> dict[str, Any]:
    """A chain of a request queue as virtio-scsi reads it."""
    row: dict[str, Any] = dict.fromkeys(
        ('head', 'target', 'lun', 'tag', 'cdb', 'opcode', 'command', 'lba', 'blocks', 'data_len')
    )
    row |= {'head': chain.head, 'direction': 'none', 'data_len': 0}
    about = f'head {chain.head}'
    if chain.in_bytes < RESP_SIZE:
        walk.wrong('SHORT_RESPONSE', f'{about}: {chain.in_bytes} writable bytes')
        return row
    if chain.out_bytes < REQ_SIZE:
        walk.wrong('SHORT_REQUEST', f'{about}: {chain.out_bytes} readable bytes')
        return row
    if chain.out_bytes > REQ_SIZE:  # as vhost-scsi: a bidirectional request is a write
        row |= {'direction': 'to_device', 'data_len': chain.out_bytes - REQ_SIZE}
    elif chain.in_bytes > RESP_SIZE:
        row |= {'direction': 'from_device', 'data_len': chain.in_bytes - RESP_SIZE}
    missing = [
        (address, size)
        for pieces in (_pieces(chain.out, REQ_SIZE), _pieces(chain.in_, RESP_SIZE))
        for address, size in pieces
        if not walk.capture.saved.covers(address, size)
    ]
    if missing:
        walk.wrong('NOT_SAVED', f'{about}: {missing[0][1]} bytes at {missing[0][0]:#x}')
        return row
    memory = walk.capture.memory
    raw = b''.join(
        memory[address : address + size].tobytes() for address, size in _pieces(chain.out, REQ_SIZE)
    )
    cdb = raw[int(REQ_CDB) :][: cdb_size(raw[int(REQ_CDB) :])]
    command = identify(cdb)
    row |= {
        'target': raw[1],
        'lun': int.from_bytes(raw[2:4], 'big') & 0x3FFF,
        'tag': int.from_bytes(raw[8:16], 'little'),
        'cdb': cdb.hex(' '),
        'opcode': cdb[0],
        'command': command.name if command else f'opcode {cdb[0]:02x}h',
    }
    if not _lun_accepted(raw, walk.capture.vhost):
        walk.wrong('BAD_LUN', f'{about}: {raw[:8].hex(" ")}')
    if raw[int(REQ_TASK_ATTR)] >= len(ATTRIBUTES):
        walk.wrong('BAD_TASK_ATTR', f'{about}: {raw[int(REQ_TASK_ATTR)]}')
    if command is not None:
        row |= {name: _value(command, name, cdb) for name in ('lba', 'blocks')}
        _compare_data(walk, about, row, command, cdb)
    return row


def _value(command: Command, name: str, cdb: bytes) -> int | None:
    """A field of the CDB, None if it has none of that name; no blocks are 256 in six bytes."""
    field = command.field(name)
    value = field.get(cdb) if field else None
    return 256 if value == 0 and name == 'blocks' and command.size == 6 else value


def _pieces(buffers: Sequence[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """The first `size` bytes of a list of buffers: a header may be cut anywhere."""
    for address, length in buffers:
        if size <= 0:
            return
        yield address, min(length, size)
        size -= length


def _lun_accepted(raw: bytes, vhost: bool) -> bool:
    """vhost looks at the first byte alone; QEMU (virtio_scsi_device_get) at the method as well."""
    return raw[0] == 1 and (vhost or raw[2] == 0 or 0x40 <= raw[2] < 0x80)


def _compare_data(
    walk: _Walk, about: str, row: dict[str, Any], command: Command, cdb: bytes
) -> None:
    """The buffers of a command that moves blocks against its CDB."""
    if command.length not in ('blocks', 'one block', 'two halves'):
        return
    units = command.data_bytes(cdb, 1)  # so many blocks are in the buffers
    wanted = DIRECTIONS[command.data] if units else 'none'
    if row['direction'] != wanted:
        walk.wrong('WRONG_DIRECTION', f'{about}: {command.name} with data {row["direction"]}')
    elif units:
        block, rest = divmod(row['data_len'], units)
        if rest or block < 512 or block & (block - 1):
            detail = f'{row["data_len"]} bytes for {units} blocks'
            walk.wrong('WRONG_LENGTH', f'{about}: {detail}')


def _tags(queue: int, requests: Sequence[dict[str, Any]], findings: Findings) -> None:
    counts = Counter(row['tag'] for row in requests if row['tag'] is not None)
    for tag, count in counts.items():
        if count > 1:
            findings.add(queue, 'TAG_TWICE', f'{count} requests with tag {tag:#x}')
