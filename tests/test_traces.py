"""Traces: what each format means, what is reported, what is refused with its line; and replay."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import costs, invariants, machine
from sim.__main__ import main
from sim.analysis import frame
from sim.config import ConfigError, from_effective, load
from sim.engine import CompiledEngine
from sim.formats.traces import read_trace
from sim.run import Phases, run
from sim.units import ns_to_cycles

TOP = Path(__file__).resolve().parent.parent
MAIL = TOP / 'examples/mail-server.iolog'
OLTP = TOP / 'examples/oltp.blkparse.txt'
HZ = 2_600_000_000
CACHED = {'kind': 'ssd', 'write_cache': '1m'}


@pytest.fixture
def trace_file(tmp_path):
    """Writes a trace and gives its path."""

    def write(text: str, name: str = 'trace') -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def iolog(*lines: str, version: int = 3) -> str:
    return '\n'.join([f'fio version {version} iolog', *lines]) + '\n'


def blk(time: str, rest: str, cpu: int = 0, action: str = 'Q') -> str:
    return f'  8,16   {cpu}        1 {time}  2101  {action}  {rest}\n'


def replayed(path, disk=None, **work):
    """Rows of a replay, in the order of their serials, and the config."""
    config = load(workload={'read_iolog': str(path)} | work, target=disk or {})
    world = machine.build(config, costs.of_config(config))
    engine = CompiledEngine(world)
    Phases(engine, config)
    engine.run()
    assert invariants.check(world) == []
    rows = frame.trace_rows(world)
    return {name: rows[:, index] for name, index in invariants.COLUMN.items()}, config


# ----------------------------------------------------------------------------------- the formats


def test_an_iolog_of_version_3_has_microseconds(trace_file):
    trace = read_trace(
        trace_file(
            iolog(
                '0 /dev/sdb add',
                '0 /dev/sdb open',
                '100 /dev/sdb read 8192 4096',
                '138 /dev/sdb write 0 512',
                '140 /dev/sdc sync 0 0',
                '141 /dev/sdb datasync 0 0',
                '150 /dev/sdb trim 4096 4096',
                '160 /dev/sdb close',
            )
        )
    )
    assert trace.form == 'iolog 3'
    assert list(trace.t_ns) == [0, 38_000, 40_000, 41_000, 50_000]
    assert list(trace.op) == [0, 1, 2, 2, 3]
    assert list(trace.offset) == [8192, 0, 0, 0, 4096]
    assert list(trace.length) == [4096, 512, 0, 0, 4096]
    assert [trace.streams[i] for i in trace.stream] == ['/dev/sdb'] * 2 + ['/dev/sdc'] + [
        '/dev/sdb'
    ] * 2


def test_an_iolog_of_version_2_has_no_times(trace_file):
    path = trace_file(iolog('f add', 'f read 0 4096', 'f write 4096 4096', version=2))
    trace = read_trace(path)
    assert trace.t_ns is None
    assert list(trace.op) == [0, 1]
    columns, config = replayed(path, iodepth=1)
    assert any('without times' in note for note in config.notes)
    assert columns['t_arrive'][1] >= columns['reap'][0]  # one after the other


def test_blkparse_has_nanoseconds_sectors_and_letters(trace_file):
    text = (
        'Input file sdb.blktrace.0 added\n'
        + blk('0.000000100', 'R 8 + 16 [a b]')
        + blk('0.000000200', 'WS 24 + 8 [x]')
        + blk('0.000000300', 'FWS [jbd2/sdb1-8]')
        + blk('0.000000400', 'FWFSM 32 + 8 [x]')
        + blk('0.000000500', 'D 0 + 2048 [fstrim]')
        + blk('0.000000600', 'R 36 (12 00 00 00) [sg]')
        + blk('0.000000700', 'RA 8 + 8 [x]', action='D')
        + blk('0.000000710', 'N [x]', action='P')
        + '  8,16 0 9 0.000000720 0 m N cfq schedule dispatch\n'
        + blk('0.000000800', 'R 8 + 8 [0]', action='C')
        + blk('0.000000900', 'W 99 + 1 [x]', action='M')
        + 'CPU0 (8,16):\n Reads Queued: 2, 8KiB\nTotal (8,16):\n'
    )
    trace = read_trace(trace_file(text))
    assert trace.form == 'blkparse'
    assert list(trace.t_ns) == [0, 100, 200, 300, 300, 400]
    assert list(trace.op) == [0, 1, 2, 2, 1, 3]
    assert list(trace.offset) == [4096, 12288, 0, 0, 16384, 0]
    assert list(trace.length) == [8192, 4096, 0, 0, 4096, 1 << 20]
    assert trace.counts == {
        'merges': 1, 'preflush': 1, 'fua': 1, 'passthrough': 1, 'reordered': 0
    }  # fmt: skip
    issued = read_trace(trace_file(text), action='d')
    assert list(issued.op) == [0]


def test_cpus_in_order_are_merged_by_time(trace_file):
    text = (
        blk('0.000001000', 'R 8 + 8 [x]', cpu=0)
        + blk('0.000003000', 'R 24 + 8 [x]', cpu=0)
        + blk('0.000002000', 'R 16 + 8 [x]', cpu=1)
    )
    trace = read_trace(trace_file(text))
    assert list(trace.offset // 4096) == [1, 2, 3]
    assert trace.counts['reordered'] == 2


def test_msr_cambridge_has_file_times(trace_file):
    text = (
        '128166372003061629,usr,0,Read,7014609920,24576,41286\n'
        '128166372016382155,usr,1,Write,2657792000,8192,1963\n'
    )
    trace = read_trace(trace_file(text))
    assert trace.form == 'msr'
    assert list(trace.t_ns) == [0, 1_332_052_600]
    assert list(trace.op) == [0, 1]
    assert trace.streams == ('usr.0', 'usr.1')


GOOD = blk('0.000000001', 'R 8 + 8 [x]')


@pytest.mark.parametrize(
    ('text', 'place', 'says'),
    [
        ('', '', 'is empty'),
        ('hello\n', ':1', 'begins no trace that is known'),
        ('fio version 1 iolog\n', ':1', '2 and 3 are known'),
        (iolog('0 f open'), '', 'no request in the trace'),
        (iolog('5 f read 0 4096', '4 f read 0 4096'), ':3', 'time goes back by 1000 ns'),
        (iolog('5 f read 0 4096')[:-1], ':2', 'is cut'),
        (iolog('5 f read 0'), ':2', 'no line of an iolog of version 3'),
        (iolog('f read 0 4096'), ':2', "'f' is not a time"),
        (iolog('5 f read 0 4k'), ':2', 'not a length'),
        (iolog('5 f read -1 4096'), ':2', 'not an offset'),
        (iolog('5 f munch 0 4096'), ':2', 'no line of an iolog'),
        (iolog('f wait 100 0', 'f read 0 1', version=2), ':2', 'unit of'),
        (iolog('5 f read 0 4096', '', blk('0.1', 'R 8 + 8 [x]')), ':4', 'not a time'),
        (GOOD + 'garbage\n', ':2', 'no line of blkparse text'),
        (GOOD + blk('0.001', 'R 8 + 8 [x]'), ':2', 'unit of time'),
        (blk('0.000000002', 'R 8 + 8 [x]') + GOOD, ':2', 'of CPU 0'),
        (blk('0.000000002', 'X 8 + 8 [x]'), ':1', 'no request that is known'),
        (GOOD[:-12], ':1', 'is cut'),
        ('1,usr,0,Read,0,512,9\n', ':1', 'Windows file time'),
        (
            '128166372003061629,u,0,Read,0,512,9\n128166372003061628,u,0,Read,0,512,9\n',
            ':2', 'goes back by 100 ns',
        ),
        ('128166372003061629,u,0,Read,0,512,9\n1,2\n', ':2', 'no line of an MSR'),
    ],
)  # fmt: skip
def test_a_damaged_trace_is_refused_with_its_line(trace_file, text, place, says):
    path = trace_file(text)
    with pytest.raises(ConfigError) as caught:
        read_trace(path)
    assert str(caught.value).startswith(f'{path}{place}: ')
    assert says in str(caught.value)
    assert '\n' not in str(caught.value)


def test_other_files_are_refused_by_what_they_are(tmp_path):
    binary = tmp_path / 'trace.bin'
    binary.write_bytes(b'\x07tae' + bytes(60))
    with pytest.raises(ConfigError, match='binary blktrace; make it text with blkparse'):
        read_trace(binary)
    binary.write_bytes(b'\x1f\x8b\x08\x00\xff\xff')
    with pytest.raises(ConfigError, match='unpack'):
        read_trace(binary)
    with pytest.raises(ConfigError, match='cannot be read'):
        read_trace(tmp_path / 'none')


@given(st.text(alphabet='0123456789 +,.RWDFSQCm[]\n\tfioread', max_size=300), st.sampled_from('qd'))
def test_whatever_a_file_says_it_is_a_trace_or_an_error(tmp_path_factory, text, action):
    path = tmp_path_factory.mktemp('any') / 'trace'
    for head in ('', 'fio version 3 iolog\n', 'fio version 2 iolog\n', GOOD):
        path.write_text(head + text)
        try:
            trace = read_trace(path, action=action)
        except ConfigError:
            continue
        assert trace.op.size > 0
        assert trace.t_ns is None or (np.diff(trace.t_ns) >= 0).all()
        assert (trace.offset >= 0).all()
        assert (trace.length >= 0).all()


# ----------------------------------------------------------------------------------------- replay


@pytest.mark.parametrize('path', [MAIL, OLTP])
def test_a_trace_is_replayed_at_the_cycles_that_it_says(path):
    trace = read_trace(path)
    columns, _ = replayed(path, CACHED)
    data = trace.op != 3
    assert (columns['t_arrive'] - 1 == ns_to_cycles(trace.t_ns[data], HZ)).all()
    assert (columns['op'] == trace.op[data]).all()
    moved = trace.op[data] != 2
    assert (columns['lba'] * 512 == np.where(moved, trace.offset[data], 0)).all()
    assert (columns['bytes'] == np.where(moved, trace.length[data], 0)).all()


def test_where_the_thread_is_idle_each_is_issued_at_once(trace_file):
    lines = [f'{1000 * n} f read {4096 * n} 4096' for n in range(40)]
    columns, config = replayed(trace_file(iolog(*lines)))
    assert (columns['t_arrive'] - 1 == np.arange(40) * (HZ // 1000)).all()
    gap = columns['t_submit'] - columns['t_arrive']
    assert set(gap) == {costs.of_config(config).guest_io_submit}


def test_without_units_requests_wait_and_keep_their_times(trace_file):
    lines = [f'{10 * n} f read {4096 * n} 4096' for n in range(100)]
    columns, _ = replayed(trace_file(iolog(*lines)), iodepth=1)
    assert (columns['t_arrive'] - 1 == np.arange(100) * (HZ // 100_000)).all()
    late = columns['t_submit'] - columns['t_arrive']
    assert late[-1] > 80 * late[1] / 2
    assert (np.diff(columns['t_submit']) > HZ // 20_000).all()


def test_time_can_be_scaled_and_forgotten():
    columns, _ = replayed(MAIL)
    twice, _ = replayed(MAIL, replay_time_scale=200)
    assert (abs(columns['t_arrive'] - 2 * twice['t_arrive']) <= 5).all()
    stalled, _ = replayed(MAIL, replay_no_stall=True, iodepth=8)
    assert stalled['t_arrive'].max() < columns['t_arrive'].max()
    assert (stalled['lba'] == columns['lba']).all()


def test_loops_and_limits_of_a_replay(trace_file):
    path = trace_file(iolog('0 f read 0 4096', '500 f write 4096 4096'))
    columns, _ = replayed(path, loops=3)
    assert list(columns['op']) == [0, 1] * 3
    begin = columns['t_arrive'][::2]
    assert (begin[1:] >= columns['reap'][1:-1:2]).all()  # the one before is over
    assert (columns['t_arrive'][1::2] - begin == HZ // 2000).all()
    assert len(replayed(path, number_ios=1)[0]['op']) == 1
    forever, _ = replayed(path, runtime='5ms', time_based=True)
    assert len(forever['op']) == 17  # a loop takes 596 us, and none begins only to be cut


def test_clones_replay_the_same_trace_each():
    columns, _ = replayed(OLTP, numjobs=2)
    first, second = (columns['t_arrive'][columns['job'] == clone] for clone in (0, 1))
    assert (first == second).all()


def test_a_flush_in_a_trace_does_not_stop_the_rest(trace_file):
    lines = ['0 f write 0 4096', '10 f sync 0 0', '11 f write 4096 4096']
    result = run(workload={'read_iolog': str(trace_file(iolog(*lines)))}, target=CACHED)
    found = result.requests
    assert list(found['op']) == ['write', 'flush', 'write']
    assert list(found['t_arrive_ns']) == [0, 10_000, 11_000]
    assert found['t_submit_ns'].iloc[2] < found['t_complete_ns'].iloc[1]


# ------------------------------------------------------------------------------------ what is cut


def counts(path, **work) -> dict[str, int]:
    config = load(workload={'read_iolog': str(path)} | work, target=CACHED | {'size': '1m'})
    replay = config.replays[0]
    told = {name: n for name, n in replay.counts.items() if replay.counts.get(name)}
    for name in told.keys() - {'records', 'requests', 'streams'}:
        assert any(str(told[name]) in note for note in config.notes), name
    return told


def test_what_does_not_fit_is_reported_and_never_silent(trace_file):
    lines = (
        '0 f read 0 4096',
        '1 f read 1044480 8192',  # 4 KiB beyond the end
        '2 f write 2097152 4096',  # all beyond
        '3 f read 100 1000',  # no whole sectors: 0 to 1536
        '4 f read 0 0',
        '5 f trim 0 4096',
        '6 f write 0 1048576',  # three commands of 504 KiB at most
        '7 f sync 0 0',
    )
    path = trace_file(iolog(*lines))
    assert counts(path) == {
        'streams': 1, 'records': 8, 'requests': 7, 'cut_at_end': 1, 'beyond_end': 1,
        'unaligned': 1, 'empty': 1, 'discards': 1, 'split': 1,
    }  # fmt: skip
    replay = load(workload={'read_iolog': str(path)}, target=CACHED | {'size': '1m'}).replays[0]
    assert list(replay.lba) == [0, 2040, 0, 0, 1008, 2016, 0]
    assert list(replay.blocks) == [8, 8, 3, 1008, 1008, 32, 0]
    assert list(replay.t_ns) == [0, 1000, 3000, 6000, 6000, 6000, 7000]
    wrapped = counts(path, replay_wrap=True)
    assert (wrapped['wrapped'], wrapped['requests']) == (1, 8)
    plain = load(workload={'read_iolog': str(path)}, target={'size': '1m'}).replays[0]
    assert (plain.counts['flushes_unsent'], plain.counts['requests']) == (1, 6)
    skipped = counts(path, replay_skip='write,trim')
    assert (skipped['skipped'], skipped['requests']) == (3, 4)


def test_offsets_are_scaled_and_aligned(trace_file):
    path = trace_file(iolog('0 f read 81920 4096', '1 f read 90112 4096'))
    config = load(workload={'read_iolog': str(path), 'replay_scale': 3, 'replay_align': '4k'})
    assert list(config.replays[0].lba) == [81920 // 3 // 4096 * 8, 90112 // 3 // 4096 * 8]


def test_a_long_request_is_split_to_what_the_ring_takes(trace_file):
    path = trace_file(iolog('0 f read 0 524288'))
    config = load(workload={'read_iolog': str(path)}, device={'virtqueue_size': 32})
    assert list(config.replays[0].blocks) == [240, 240, 240, 240, 64]
    assert run(config).violations == []


def test_the_report_has_the_counts():
    report = run(workload={'read_iolog': str(OLTP)}).report
    assert report['replay']['job1']['merges'] == 10
    assert report['replay']['job1']['requests'] == report['requests']


# ------------------------------------------------------------------------------------- the config


def test_the_content_of_a_trace_and_not_its_path_makes_the_run(trace_file):
    text = iolog('0 f read 0 4096')
    a, b, c = (
        load(workload={'read_iolog': str(trace_file(t, name))})
        for t, name in ((text, 'a'), (text, 'b'), (text + '1 f read 0 512\n', 'c'))
    )
    assert a.id == b.id != c.id
    assert from_effective(json.loads(json.dumps(a.effective()))) == a


def test_a_trace_that_has_changed_is_noticed(trace_file):
    path = trace_file(iolog('0 f read 0 4096'))
    effective = load(workload={'read_iolog': str(path)}).effective()
    path.write_text(iolog('0 f read 512 4096'))
    with pytest.raises(ConfigError, match='is not the trace that read_iolog_sha256 names'):
        from_effective(effective)


@pytest.mark.parametrize(
    ('work', 'says'),
    [
        ({'rate_iops': 5}, 'the trace says when'),
        ({'thinktime': 5}, 'the trace says when'),
        ({'io_submit_mode': 'offload'}, 'the trace says when'),
        ({'replay_align': 1000}, 'no power of two'),
        ({'replay_skip': 'reads'}, 'leave out'),
        ({'replay_time_scale': 0}, 'out of range'),
        ({'replay_skip': 'read,write,sync'}, 'nothing is left to replay'),
        ({'read_iolog': '/nonexistent'}, 'cannot be read'),
    ],
)
def test_what_makes_no_sense_is_refused(work, says):
    with pytest.raises(ConfigError) as caught:
        load(workload={'read_iolog': str(MAIL)} | work)
    assert says in str(caught.value)
    assert '\n' not in str(caught.value)


def test_what_the_trace_overrules_is_noted():
    notes = load(workload={'read_iolog': str(MAIL), 'rw': 'write', 'bs': '8k'}).notes
    assert any('rw, bs: no effect, the trace says' in note for note in notes)


def test_the_command_replays_a_trace(tmp_path, capsys):
    device = (TOP / 'examples/device.txt').read_text()
    assert main(['run', '--trace', str(MAIL), '--device', device, '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    assert report['requests'] == 440 - report['replay']['job1']['flushes_unsent']
    assert report['violations'] == []
    job = tmp_path / 'job.fio'
    job.write_text('[j]\niodepth=2\nioengine=io_uring\n')
    assert main(['run', '--trace', str(OLTP), '--fio', str(job)]) == 0
    out = capsys.readouterr().out
    assert 'iodepth = 2' in out
    assert 'backlog' in out
    job.write_text('[a]\n[b]\n')
    assert main(['run', '--trace', str(OLTP), '--fio', str(job)]) == 2
    assert 'one job replays it' in capsys.readouterr().err


def test_a_job_file_may_name_the_trace(tmp_path):
    job = tmp_path / 'job.fio'
    job.write_text(f'[j]\nread_iolog={OLTP}\nioengine=libaio\nreplay_time_scale=50\n')
    config = load(fio=job)
    assert config.jobs[0].iodepth == 1  # fio's default, said aloud
    assert any('no iodepth' in note for note in config.notes)
    assert config.replays[0].t_ns[-1] == pytest.approx(2 * read_trace(OLTP).t_ns[-1], abs=2)


def test_the_samples_are_what_the_script_writes():
    scope: dict = {'__name__': 'sample_traces', '__file__': str(TOP / 'scripts/sample_traces.py')}
    exec((TOP / 'scripts/sample_traces.py').read_text(), scope)
    assert scope['mail_server']() == MAIL.read_text()
    assert scope['oltp']() == OLTP.read_text()
