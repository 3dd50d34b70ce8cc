"""--timeline: files are read back; slices nest, flows connect, times are the request table's."""

import importlib.util
import itertools
import json
from collections import Counter as Tally
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.__main__ import main
from sim.analysis import timeline_files
from sim.analysis.timeline import Slice, lanes, timeline, value_at
from sim.config import ConfigError, load
from sim.exports import timeline as timeline_output
from sim.record import STAGES, TIMESTAMPS
from sim.run import run

needs_perfetto = pytest.mark.skipif(
    not importlib.util.find_spec('perfetto'), reason='perfetto is not installed (extra trace)'
)


@pytest.fixture(scope='module')
def result():
    return run(
        load(
            workload={
                'numjobs': 3, 'iodepth': 6, 'iodepth_batch_submit': 3, 'number_ios': 60,
                'rw': 'randrw', 'iodepth_batch_complete_min': 2,
            },
            device={'num_queues': 2},
            target={'kind': 'exponential', 'service': '60us', 'lanes': 4},
        )
    )  # fmt: skip


@pytest.fixture(scope='module')
def found(result):
    return timeline(result.config, result.requests)


def expected(requests):
    """Every stage that took time: (serial, stage, start, end)."""
    rows = set()
    for _, row in requests.iterrows():
        for before, after, stage in zip(TIMESTAMPS, TIMESTAMPS[1:], STAGES, strict=False):
            start, end = row[f'{before}_ns'], row[f'{after}_ns']
            if start < end:
                rows.add((int(row['serial']), stage, int(start), int(end)))
    return rows


def check_nesting(slices):
    """In the order of a track, each (start, end) follows the one before or lies in it."""
    open_ends = []
    for start, end in slices:
        while open_ends and open_ends[-1] <= start:
            open_ends.pop()
        assert not open_ends or end <= open_ends[-1]
        open_ends.append(end)


# ------------------------------------------------------------------------------------- the content


def test_slices_are_the_stages_of_the_request_table(result, found):
    got = [
        (item.serial, item.name, item.start, item.end)
        for track in found.tracks
        for item in track.slices
    ]
    assert Tally(got) == Tally(expected(result.requests))
    assert len(got) > 180 * 6


def test_who_has_a_request_is_on_the_track_of_that_stage(found):
    stages = defaultdict(set)
    for track in found.tracks:
        stages[track.group, track.name.partition(' #')[0]] |= {item.name for item in track.slices}
    assert stages['guest', 'vCPU 1'] <= {'avail', 'kick'}
    assert stages['guest', 'vector of queue 0'] == {'complete'}
    assert stages['host', 'vhost worker 0'] == {'used'}
    assert stages['host', 'LIO submission'] == {'issue'}
    assert stages['host', 'LIO completion'] == {'report'}
    assert stages['disks', 'lun 0'] == {'done'}
    assert {name for _, name in stages if name.startswith('vCPU')} == {'vCPU 0', 'vCPU 1', 'vCPU 2'}
    # As many lanes as were needed at once.
    (disk,) = (counter for counter in found.counters if counter.group == 'disks')
    assert sum(track.group == 'disks' for track in found.tracks) == disk.values.max() > 4


def test_threads_that_share_a_vcpu_are_on_its_track():
    result = run(load(workload={'numjobs': 3, 'number_ios': 20}, guest={'vcpus': 2}))
    found = timeline(result.config, result.requests)
    owners = {
        track.name: {clone_of(result, item.serial) for item in track.slices}
        for track in found.tracks
        if track.name in ('vCPU 0', 'vCPU 1')
    }
    assert owners == {'vCPU 0': {0, 2}, 'vCPU 1': {1}}


def clone_of(result, serial):
    return int(result.requests.set_index('serial')['clone'][serial])


@pytest.mark.parametrize(
    ('driver', 'names'),
    [
        ('vhost-user-scsi-pci', {'bdev submission', 'bdev completion', 'reactor 0'}),
        ('virtio-scsi-pci', {'block layer submission', 'block layer completion', 'IOThread 0'}),
    ],
)
def test_the_other_devices_have_hosts_of_their_own(driver, names):
    result = run(load(workload={'number_ios': 20, 'iodepth': 2}, device={'driver': driver}))
    found = timeline(result.config, result.requests)
    there = {t.name.partition(' #')[0] for t in found.tracks if t.group == 'host'}
    assert there <= names
    assert len(there) >= 2


def test_a_vcpu_does_one_thing_at_a_time(found):
    """A slice lies in another one there, never across its end: one lane is enough."""
    for track in found.tracks:
        check_nesting([(item.start, item.end) for item in track.slices])
        if track.name.startswith('vCPU'):
            assert '#' not in track.name


def test_counters_are_what_is_between_two_timestamps(result, found):
    table = result.requests
    counters = {counter.name: counter for counter in found.counters}
    rng = np.random.default_rng(1)
    times = rng.integers(0, int(table['t_complete_ns'].max()), 50).tolist()
    for name, rows, begin, end in (
        ('in flight', table, 't_submit_ns', 't_complete_ns'),
        ('backlog', table, 't_arrive_ns', 't_submit_ns'),
        ('queue 1: depth', table[table['queue'] == 1], 't_avail_ns', 't_fetch_ns'),
        ('lun 0: in flight', table, 't_issue_ns', 't_done_ns'),
    ):
        for time in times:
            inside = int(((rows[begin] <= time) & (rows[end] > time)).sum())
            assert value_at(counters[name], time) == inside, (name, time)
    assert counters['in flight'].values[-1] == 0


spans = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12)), max_size=30)


@given(spans, st.booleans())
def test_lanes_keep_every_slice_and_let_them_nest(spans, nest):
    slices = [
        Slice(name='s', start=at, end=at + length, serial=number)
        for number, (at, length) in enumerate(spans)
    ]
    found = lanes(slices, nest=nest)
    assert sorted(item.serial for lane in found for item in lane) == list(range(len(slices)))
    for lane in found:
        check_nesting([(item.start, item.end) for item in lane])
        if not nest:
            assert all(a.end <= b.start for a, b in itertools.pairwise(lane))
    if not nest:  # as few as there are slices at one time
        most = max((sum(s.start <= t < s.end for s in slices) for t in range(45)), default=0)
        assert len(found) == most


# ---------------------------------------------------------------------------------------- the files


def read_chrome(path):
    """(tracks, slices by track, counters) of a file: slices (serial, name, start, end, in, out)."""
    document = json.loads(path.read_text())
    names, slices, counters = {}, defaultdict(list), defaultdict(list)

    def ns(us):
        return round(us * 1000)

    for event in document['traceEvents']:
        if event['ph'] == 'M' and event['name'] == 'thread_name':
            names[event['tid']] = event['args']['name']
        elif event['ph'] == 'X':
            start = ns(event['ts'])
            serial = int(event['bind_id'], 16) if 'bind_id' in event else 0
            assert event['args'].get('serial', 0) == serial
            flows = event.get('flow_in'), event.get('flow_out')
            slices[event['tid']].append(
                (serial, event['name'], start, start + ns(event['dur']), *flows)
            )
        elif event['ph'] == 'C':
            counters[event['name']].append((ns(event['ts']), event['args']['value']))
    return names, slices, counters


def read_perfetto(path):
    """The same of a .pftrace; flow_in is None there, flow_out says that the flow goes on."""
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent

    trace = Trace()
    trace.ParseFromString(path.read_bytes())
    names, slices, counters = {}, defaultdict(list), defaultdict(list)
    open_slices = defaultdict(list)
    last = 0
    for packet in trace.packet:
        assert packet.trusted_packet_sequence_id == 1
        if packet.HasField('track_descriptor'):
            names[packet.track_descriptor.uuid] = packet.track_descriptor.name
            continue
        assert packet.timestamp >= last
        last = packet.timestamp
        event = packet.track_event
        if event.type == TrackEvent.TYPE_COUNTER:
            counters[names[event.track_uuid]].append((last, event.counter_value))
        elif event.type == TrackEvent.TYPE_SLICE_BEGIN:
            flows = [*event.flow_ids, *event.terminating_flow_ids]
            assert len(flows) <= 1
            slices[event.track_uuid].append(
                [*(flows or [0]), event.name, last, None, None, bool(event.flow_ids)]
            )
            open_slices[event.track_uuid].append(slices[event.track_uuid][-1])
        else:
            open_slices[event.track_uuid].pop()[3] = last
    assert not any(open_slices.values())
    return names, {key: [tuple(row) for row in rows] for key, rows in slices.items()}, counters


READERS = [
    pytest.param('a.json', read_chrome, id='json'),
    pytest.param('a.pftrace', read_perfetto, id='pftrace', marks=needs_perfetto),
]


@pytest.mark.parametrize(('name', 'read'), READERS)
def test_a_file_reads_back(result, found, tmp_path, name, read):
    path = tmp_path / name
    timeline_files.write(found, path)
    names, slices, counters = read(path)
    rows = [row for track in slices.values() for row in track]
    assert Tally(row[:4] for row in rows) == Tally(expected(result.requests))
    for track in slices.values():
        check_nesting([row[2:4] for row in track])
    assert {t.name for t in found.tracks} <= set(names.values())
    for counter in found.counters:
        assert counters[counter.name] == list(
            zip(counter.times.tolist(), counter.values.tolist(), strict=True)
        )
    # The flow of a request: from the first slice through all of them to the last one.
    chains = defaultdict(list)
    for row in rows:
        chains[row[0]].append(row)
    assert sorted(chains) == sorted(result.requests['serial'])
    for chain in chains.values():
        chain.sort(key=lambda row: row[2])
        assert all(a[3] <= b[2] for a, b in itertools.pairwise(chain))
        assert [row[5] for row in chain] == [True] * (len(chain) - 1) + [False]
        if name.endswith('.json'):
            assert [row[4] for row in chain] == [False] + [True] * (len(chain) - 1)


@pytest.mark.parametrize(('name', 'read'), READERS)
def test_a_stop_has_its_ioctls_on_a_track_of_their_own(tmp_path, capsys, name, read):
    path = tmp_path / name
    arguments = f'stop --at 500us --hold 100us --json --timeline {path}'.split()
    sets = 'workload.number_ios=100 workload.iodepth=4'.split()
    assert main([*arguments, *(part for text in sets for part in ('--set', text))]) == 0
    report = json.loads(capsys.readouterr().out)
    names, slices, _ = read(path)
    (track,) = (key for key, text in names.items() if text == 'QEMU')
    rows = {row[1]: row for row in slices[track] if row[0] == 0}
    stopped, clear = rows['stopped'], rows['VHOST_SCSI_CLEAR_ENDPOINT']
    assert stopped[3] - stopped[2] == pytest.approx(report['downtime_ns'], abs=2)
    assert clear[3] - clear[2] == pytest.approx(report['clear_endpoint_ns'], abs=2)
    assert stopped[2] < clear[2] < clear[3] < stopped[3]
    check_nesting([row[2:4] for row in slices[track]])
    # No vCPU does anything between the end of the pause and the resumption.
    quiet = [
        row
        for key, text in names.items()
        if text.startswith('vCPU')
        for row in slices.get(key, ())
        if clear[2] < row[2] < stopped[3] - 100_000
    ]
    assert quiet == []


def test_a_run_writes_one(tmp_path, capsys):
    path = tmp_path / 'a.json'
    assert main(f'run --set workload.number_ios=20 --timeline {path} --json'.split()) == 0
    assert read_chrome(path)[0]
    assert str(path) in capsys.readouterr().err


@pytest.mark.parametrize(
    ('sets', 'name', 'problem'),
    [
        ([], 'a.txt', 'end the name in'),
        ([], 'no/a.json', 'folder does not exist'),
        ([], 'folder.json', 'is a folder'),
        (['run.record=histogram'], 'a.json', 'needs requests'),
        (['run.replications=2'], 'a.json', 'of one run'),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, sets, name, problem):
    (tmp_path / 'folder.json').mkdir()
    with pytest.raises(ConfigError, match=problem):
        timeline_output.check(load(sets=sets), str(tmp_path / name))


def test_without_perfetto_its_files_are_refused(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__('sys').modules, 'perfetto.trace_builder', None)
    with pytest.raises(ConfigError, match=r'vhost-scsi-sim\[trace\]'):
        timeline_files.check(tmp_path / 'a.pftrace')
    timeline_files.check(tmp_path / 'a.json')
