"""A timeline as a file: Perfetto's protobuf (.pftrace), or Chrome's JSON, which needs no package.

Both open in ui.perfetto.dev. The facts of a request stand with its first slice, its serial with
each. In the protobuf times are ns and a flow id is the serial of its
request; in JSON times are us with three decimals, and flows are bind_id with flow_in and flow_out.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from sim.analysis.timeline import Slice, Timeline, Track
from sim.errors import ConfigError
from sim.folders import check_file

PERFETTO, CHROME = ('.pftrace', '.perfetto-trace'), ('.json',)
SEQUENCE = 1  # trusted_packet_sequence_id: all packets are of one writer


def check(path: str | Path) -> None:
    """ConfigError if a timeline cannot be written there: suffix, folder, package."""
    place = Path(path)
    if place.suffix not in (*PERFETTO, *CHROME):
        raise ConfigError(f'--timeline {path}: end the name in .pftrace (Perfetto) or .json')
    check_file('--timeline', place)
    if place.suffix in PERFETTO:
        _protobuf()


def write(found: Timeline, path: str | Path) -> None:
    """Write the file; which kind the suffix says. Errors: ConfigError."""
    check(path)
    place = Path(path)
    try:
        if place.suffix in PERFETTO:
            with place.open('wb') as binary:
                _write_perfetto(found, binary)
        else:
            with place.open('w') as text:
                _write_chrome(found, text)
    except OSError as error:
        raise ConfigError(f'{path}: cannot be written ({error.strerror or error})') from error


def flows_of(found: Timeline) -> tuple[set[int], set[int]]:
    """Slices, by identity, that begin and that end the flow of their request."""
    firsts: dict[int, tuple[int, int]] = {}
    lasts: dict[int, tuple[int, int]] = {}
    for track in found.tracks:
        for item in track.slices:
            if item.serial:
                key = item.start, id(item)
                firsts[item.serial] = min(firsts.get(item.serial, key), key)
                lasts[item.serial] = max(lasts.get(item.serial, key), key)
    return {key[1] for key in firsts.values()}, {key[1] for key in lasts.values()}


# ------------------------------------------------------------------------------------ Chrome JSON


def _write_chrome(found: Timeline, file: IO[str]) -> None:
    """The JSON object format, one event on a line."""
    file.write('{"displayTimeUnit": "ns", "otherData": ' + json.dumps(found.about))
    file.write(', "traceEvents": [\n')
    file.write(',\n'.join(json.dumps(event) for event in _chrome_events(found)))
    file.write('\n]}\n')


def _chrome_events(found: Timeline) -> Iterator[dict[str, Any]]:
    groups = [track.group for track in found.tracks]
    groups += [counter.group for counter in found.counters]
    pids = {group: number for number, group in enumerate(dict.fromkeys(groups), 1)}
    for group, pid in pids.items():
        yield {'ph': 'M', 'name': 'process_name', 'pid': pid, 'args': {'name': group}}
        yield {'ph': 'M', 'name': 'process_sort_index', 'pid': pid, 'args': {'sort_index': pid}}
    first, last = flows_of(found)
    for tid, track in enumerate(found.tracks, 1):
        pid = pids[track.group]
        yield {
            'ph': 'M', 'name': 'thread_name', 'pid': pid, 'tid': tid, 'args': {'name': track.name}
        }  # fmt: skip
        for item in track.slices:
            event: dict[str, Any] = {
                'ph': 'X', 'name': item.name, 'pid': pid, 'tid': tid, 'ts': item.start / 1000,
                'dur': (item.end - item.start) / 1000, 'args': _arguments(item, first),
            }  # fmt: skip
            if item.serial:
                event['bind_id'] = hex(item.serial)
                event['flow_in'] = id(item) not in first
                event['flow_out'] = id(item) not in last
            yield event
    for counter in found.counters:
        for time, value in zip(counter.times.tolist(), counter.values.tolist(), strict=True):
            yield {
                'ph': 'C', 'name': counter.name, 'pid': pids[counter.group], 'ts': time / 1000,
                'args': {'value': value},
            }  # fmt: skip


def _arguments(item: Slice, first: set[int]) -> dict[str, object]:
    if not item.serial or id(item) in first:
        return item.arguments
    return {'serial': item.serial}


# --------------------------------------------------------------------------------------- Perfetto


def _protobuf() -> Any:
    try:
        from perfetto.trace_builder import proto_builder
    except ImportError:
        raise ConfigError(
            '--timeline: .pftrace needs the package perfetto (pip install '
            '"vhost-scsi-sim[trace]"); or end the name in .json'
        ) from None
    return proto_builder


def _write_perfetto(found: Timeline, file: IO[bytes]) -> None:
    """Descriptors of tracks, then the events in the order of time."""
    builder = _protobuf().StreamingTraceProtoBuilder(file)
    groups: dict[str, int] = {}

    def describe(uuid: int, name: str, parent: int = 0) -> Any:
        packet = builder.create_packet()
        packet.trusted_packet_sequence_id = SEQUENCE
        packet.track_descriptor.uuid = uuid
        packet.track_descriptor.name = name
        if parent:
            packet.track_descriptor.parent_uuid = parent
        return packet

    def group_of(name: str) -> int:
        if name not in groups:
            groups[name] = len(groups) + 1
            packet = describe(groups[name], name)
            packet.track_descriptor.process.pid = groups[name]
            packet.track_descriptor.process.process_name = name
            builder.write_packet(packet)
        return groups[name]

    events: list[tuple[int, int, Any]] = []
    first, last = flows_of(found)
    uuid = 1000
    for track in found.tracks:
        uuid += 1
        builder.write_packet(describe(uuid, track.name, group_of(track.group)))
        events += _slice_events(builder, track, uuid, (first, last), len(events))
    for counter in found.counters:
        uuid += 1
        packet = describe(uuid, counter.name, group_of(counter.group))
        packet.track_descriptor.counter.SetInParent()
        builder.write_packet(packet)
        for time, value in zip(counter.times.tolist(), counter.values.tolist(), strict=True):
            packet = _event(builder, time, uuid, 'TYPE_COUNTER')
            packet.track_event.counter_value = value
            events.append((time, len(events), packet))
    for _, _, packet in sorted(events, key=lambda event: event[:2]):
        builder.write_packet(packet)


def _event(builder: Any, time: int, uuid: int, kind: str) -> Any:
    packet = builder.create_packet()
    packet.timestamp = time
    packet.trusted_packet_sequence_id = SEQUENCE
    packet.track_event.track_uuid = uuid
    packet.track_event.type = getattr(packet.track_event, kind)
    return packet


def _slice_events(
    builder: Any, track: Track, uuid: int, flows: tuple[set[int], set[int]], number: int
) -> list[tuple[int, int, Any]]:
    """Begins and ends of the slices of one track, so ordered that they nest.

    Each with its time and its place among events of one time, from `number` on.
    """
    found: list[tuple[int, int, Any]] = []
    ends: list[int] = []
    first, last = flows

    def close(until: int | None) -> None:
        while ends and (until is None or ends[-1] <= until):
            time = ends.pop()
            packet = _event(builder, time, uuid, 'TYPE_SLICE_END')
            found.append((time, number + len(found), packet))

    for item in track.slices:
        close(item.start)
        packet = _event(builder, item.start, uuid, 'TYPE_SLICE_BEGIN')
        packet.track_event.name = item.name
        for name, value in _arguments(item, first).items():
            note = packet.track_event.debug_annotations.add()
            note.name = name
            if isinstance(value, int):
                note.int_value = value
            else:
                note.string_value = str(value)
        if item.serial:
            flow = 'terminating_flow_ids' if id(item) in last else 'flow_ids'
            getattr(packet.track_event, flow).append(item.serial)
        found.append((item.start, number + len(found), packet))
        ends.append(item.end)
    close(None)
    return found
