"""The three devices behind one guest: kernel vhost-scsi, SPDK's reactor, QEMU's IOThread."""

import dataclasses
import json

import numpy as np
import pytest

from experiments import backends
from sim import agents, costs, machine, record, vring
from sim.analysis import frame
from sim.config import ConfigError, load
from sim.engine import ENGINES
from sim.features import STACKS
from sim.layout import USED_F_NO_NOTIFY, USED_RING
from sim.run import Phases, run
from sim.user import aio_poll
from sim.user import fields as user_fields
from sim.user import scsi as user_scsi

VHOST, SPDK, QEMU = 'vhost-scsi-pci', 'vhost-user-scsi-pci', 'virtio-scsi-pci'
DRIVERS = (VHOST, SPDK, QEMU)
u64 = np.uint64


def config_of(driver, *, iodepth=1, number_ios=1000, device=None, **sections):
    """One job of reads on a disk of 20 us."""
    workload = {'iodepth': iodepth, 'number_ios': number_ios} | sections.pop('workload', {})
    sections = {'target': {'service': '20us'}} | sections
    return load(workload=workload, device={'driver': driver} | (device or {}), **sections)


def report_of(driver, **sections):
    report = run(config_of(driver, **sections)).report
    assert report['violations'] == []
    return report


def world_of(config):
    """The machine after the run."""
    world = machine.build(config, costs.of_config(config))
    engine = ENGINES['compiled'](world)
    Phases(engine, config)
    engine.run()
    return world


# ------------------------------------------------------------------------------------- one guest


@pytest.mark.parametrize('iodepth', [1, 32])
@pytest.mark.parametrize('driver', DRIVERS)
def test_every_request_comes_back_with_its_data(driver, iodepth):
    work = {'rw': 'randrw', 'numjobs': 3, 'bs': '4k'}
    report = report_of(driver, iodepth=iodepth, workload=work)
    assert report['requests_completed'] == 3000
    assert report['ring_errors'] == report['requests_dropped'] == 0


def test_the_first_request_is_the_same_bytes_whoever_serves_it():
    """The guest's side does not know its device: header and table of a request do not differ."""
    device = {'hotplug': False}  # with which the guest fills its event queue
    memories = [
        world_of(config_of(driver, number_ios=1, device=device)).mem for driver in (VHOST, SPDK)
    ]
    written = [np.flatnonzero(mem).size for mem in memories]
    assert written[0] > 0
    first, second = memories
    differing = set(np.flatnonzero(first != second).tolist())
    # What differs are event index, flags and used length: none of it is in header, table or data.
    assert 0 < len(differing) < 16


# --------------------------------------------------------------------------------------- depth 1


PUBLISHED_US = 9.8  # kernel less SPDK: SPDK Vhost Performance Report 24.05, 4 KiB reads at depth 1


def gap_us(**change):
    """How much longer a read takes by kernel vhost-scsi than by SPDK; `change` of the costs."""
    means = {}
    for driver in (VHOST, SPDK):
        config = config_of(driver, workload={'rw': 'randread'}, target={'service': '80us'})
        table = dataclasses.replace(costs.of_config(config), **change)
        report = run(config, costs_override=table).report
        assert report['violations'] == []
        means[driver] = report['latency_ns']['mean'] / 1e3
    return means[VHOST] - means[SPDK]


def test_polling_saves_what_the_published_comparison_says():
    assert gap_us() == pytest.approx(PUBLISHED_US, rel=0.15)


@pytest.mark.parametrize(
    ('part', 'names', 'least', 'most'),
    [
        ('two wakes of the worker', ['worker_wake'], 3.5, 4.5),
        ('two hops to LIO', ['lio_hop'], 3.5, 4.5),
        ('the kick', ['kick_exit', 'kick_signal', 'kick_wakeup'], 0.6, 1.2),
    ],
)
def test_each_part_of_the_gap_goes_with_its_mechanism(part, names, least, most):
    config = config_of(VHOST)
    assert all(getattr(costs.of_config(config), name) for name in names), part
    saved = gap_us() - gap_us(**dict.fromkeys(names, 0))
    assert least < saved < most, part


def test_without_wakes_hops_and_kick_only_cpu_time_is_left_of_the_gap():
    free = gap_us(worker_wake=0, lio_hop=0, kick_exit=0, kick_signal=0, kick_wakeup=0)
    # 2.2 us by the published parts: kernel 1.95 us and LIO 0.85, less the reactor's 0.6.
    assert 0 < free < 3


# --------------------------------------------------------------------------------------- reactor


@pytest.mark.parametrize('iodepth', [1, 8, 64])
def test_a_reactor_is_never_kicked(iodepth):
    report = report_of(SPDK, iodepth=iodepth)
    assert report['kicks'] == 0
    assert report['kicks_suppressed'] > 0
    assert report['worker_wakes'] == 0


def test_a_reactor_says_in_the_ring_that_it_wants_no_kicks():
    world = world_of(config_of(SPDK, number_ios=10))
    for queue, device in enumerate(world.devices):
        used = int(world.st[device + int(vring.V_USED)])
        assert world.mem[used] == USED_F_NO_NOTIFY, queue


def test_a_full_ring_kicks_a_reactor_all_the_same_and_it_does_not_care():
    """virtqueue_add_split() notifies by force where a chain does not fit."""
    device = {'indirect_desc': False, 'virtqueue_size': 32}
    report = report_of(SPDK, iodepth=32, device=device, target={'service': '500us'})
    assert report['kicks'] > 0
    assert report['requests_requeued'] > 0


def test_a_reactor_is_busy_or_polling_all_the_time():
    busy = report_of(SPDK, number_ios=2000)['busy']
    assert busy['reactor'] + busy['reactor.polling'] == pytest.approx(1, abs=0.02)
    assert busy['reactor'] < 0.15


def test_requests_wait_for_the_round_that_finds_them():
    """A slower round is a later completion, by half a round on average."""
    spread = {'kind': 'exponential', 'service': '20us'}
    quick, slow = (
        report_of(SPDK, target=spread, costs={'spdk_vhost.poll_round': f'{ns}ns'})['stages_ns']
        for ns in (100, 1300)
    )
    assert slow['report'] - quick['report'] == pytest.approx(600, rel=0.15)


def test_skipping_empty_rounds_is_no_shortcut():
    """With and without them in full: the same requests, at the same times but for a cache line.

    An empty look that is performed may find that the guest has written the flags beside the index.
    """
    config = config_of(SPDK, iodepth=4, number_ios=200)
    times, steps = [], []
    for rings in (False, True):
        world = machine.build(config, costs.of_config(config))
        engine = ENGINES['simpy'](world)
        Phases(engine, config)
        if rings:
            engine.env.process(_keep_ringing(engine, world.slots_of(agents.REACTOR)[0]))
        engine.run()
        rows = frame.trace_rows(world)
        times.append(rows[:, int(record.R_COMPLETE)] - rows[:, int(record.R_ARRIVE)])
        steps.append(int(world.st[int(agents.H_STEPS)]))
    assert times[0].mean() == pytest.approx(times[1].mean(), rel=0.005)
    assert steps[1] > 1.2 * steps[0]


def _keep_ringing(engine, slot):
    """Control rings the reactor's bell at every turn; each time it looks and finds nothing."""
    st, bell = engine.machine.st, engine.machine.bases[slot] + int(user_fields.T_BELL)
    for _ in range(3000):
        yield engine.env.timeout(777)
        agents.ring(st, u64(bell), int(engine.env.now))
        engine.wake_agents()


def test_interrupts_that_the_guest_does_not_want_now_are_sent_later():
    """SPDK keeps what it has not signalled and asks the flag again in each round."""
    report = report_of(SPDK, iodepth=16, number_ios=4000)
    assert report['signals_suppressed'] > 0
    assert report['interrupts_spurious'] > 0


def test_one_reactor_serves_all_queues():
    report = report_of(SPDK, iodepth=32, workload={'numjobs': 8}, target={'kind': 'null'})
    # 1.71M IOPS per core is what its CPU time per command was taken from.
    assert report['iops'] == pytest.approx(1.71e6, rel=0.08)
    assert report['busy']['reactor'] > 0.95


# -------------------------------------------------------------------------------------- IOThread


def test_without_polling_every_request_at_depth_1_takes_a_kick_and_two_wakes():
    report = report_of(QEMU, qemu={'poll_max_ns': 0})
    assert report['kicks'] == 1000
    assert report['worker_wakes'] == pytest.approx(2000, abs=5)
    assert report['busy']['iothread.polling'] == 0


def test_polling_on_a_fast_disk_needs_almost_no_kick_and_no_wake():
    report = report_of(QEMU)
    assert report['kicks'] < 50
    assert report['worker_wakes'] < 50
    slow = report_of(QEMU, qemu={'poll_max_ns': 0})
    # A wake at each end is what it saves, and the kick.
    saved = slow['latency_ns']['mean'] - report['latency_ns']['mean']
    assert 4_000 < saved < 9_000


def test_polling_gives_up_where_the_disk_is_slower_than_poll_max_ns():
    def disk_time(service, version):
        config = config_of(QEMU, target={'service': service}, qemu={'version': version})
        world = world_of(config)
        return world.field(world.bases[world.slots_of(agents.IOTHREAD)[0]], aio_poll.I_DISK_TIME)

    assert disk_time('80us', '10.2') == 0
    assert disk_time('20us', '10.2') == pytest.approx(32_000 * 2.6, rel=0.03)


def test_with_a_time_for_each_handler_a_slow_disk_does_not_bring_kicks_back():
    """Before QEMU 10.0 the disk's 80 us switch polling off for the virtqueue as well."""

    def kicks(version, event_idx):
        report = report_of(
            QEMU,
            target={'service': '80us'},
            qemu={'version': version},
            device={'event_idx': event_idx},
        )
        return report['kicks'], report['busy']['iothread.polling']

    shared, own = kicks('9.2', False), kicks('10.0', False)
    assert shared[0] == 1000
    assert own[0] < 50
    assert shared[1] < 0.05 < own[1]
    # With EVENT_IDX nothing is written when polling begins: the index that the guest was given when
    # the thread went to sleep still asks for one kick.
    assert kicks('10.0', True)[0] == 1000


@pytest.mark.parametrize(
    ('time', 'blocked', 'grow', 'shrink', 'then'),
    [
        (0, 3, 0, 0, 4),  # from nothing it grows to 4 us
        (4, 3, 0, 0, 4),  # short enough as it is
        (4, 5, 0, 0, 8),  # twice without poll-grow
        (4, 5, 3, 0, 12),
        (20, 25, 0, 0, 32),  # no further than poll-max-ns
        (32, 33, 0, 0, 0),  # to nothing without poll-shrink
        (32, 33, 0, 2, 16),
        (32, 32, 0, 0, 32),
        (16, 32, 0, 0, 16),  # neither too long nor worth it
    ],
)
def test_polling_adapts_as_aio_posix_does(time, blocked, grow, shrink, then):
    st = np.zeros(aio_poll.IOTHREAD_WORDS, dtype=np.int64)
    for name, value in (
        (aio_poll.I_BLOCKED, blocked),
        (aio_poll.I_POLL_MAX, 32),
        (aio_poll.I_POLL_START, 4),
        (aio_poll.I_POLL_GROW, grow),
        (aio_poll.I_POLL_SHRINK, shrink),
    ):
        st[int(name)] = value
    assert aio_poll.adjusted(st, u64(0), np.int64(time)) == then


def test_before_qemu_8_2_each_completion_writes_the_eventfd():
    """defer_call() came with 8.2: one write per batch and queue."""
    deep = {'iodepth': 64, 'number_ios': 4000, 'device': {'event_idx': False}}
    old, new = (report_of(QEMU, qemu={'version': v}, **deep) for v in ('7.2', '8.2'))
    assert old['signals'] > 1.3 * new['signals']


def test_requests_are_submitted_in_batches():
    world = world_of(config_of(QEMU, iodepth=64, number_ios=2000))
    base = world.bases[world.slots_of(agents.IOTHREAD)[0]]
    batches = world.field(base, aio_poll.I_BATCHES)
    assert 2000 / 64 <= batches < 1000
    config = config_of(QEMU, iodepth=64, number_ios=64, workload={'iodepth_batch_submit': 64})
    world = world_of(config)
    base = world.bases[world.slots_of(agents.IOTHREAD)[0]]
    assert world.field(base, aio_poll.I_BATCHES) >= 2  # at most 32 for one io_submit()


def test_one_iothread_saturates_where_it_was_measured():
    work = {'numjobs': 4, 'iodepth_batch_submit': 8}
    report = report_of(QEMU, iodepth=32, workload=work, target={'kind': 'null'})
    assert report['iops'] == pytest.approx(2.6e9 / 10_900, rel=0.12)


@pytest.mark.parametrize('packed', [True, False])
def test_packed_rings_work_with_qemu(packed):
    reports = [
        report_of(QEMU, iodepth=16, device={'packed': packed}, run={'engine': engine})
        for engine in ('compiled', 'simpy')
    ]
    assert reports[0]['digest'] == reports[1]['digest']
    assert reports[0]['hypothetical'] == []


def test_qemu_holds_completions_back_in_order():
    target = {'kind': 'exponential', 'service': '60us'}
    report = report_of(
        QEMU, iodepth=16, device={'in_order': True}, guest={'kernel': '7.2'}, target=target
    )
    free = report_of(QEMU, iodepth=16, guest={'kernel': '7.2'}, target=target)
    assert report['stages_ns']['used'] > free['stages_ns']['used'] + 10_000


# ---------------------------------------------------------------------------------- used lengths


def used_lengths(world, queue=2):
    """The lengths of the used elements of a split ring, in order."""
    v = world.devices[queue]
    used, count = int(world.st[v + int(vring.V_USED)]), int(world.st[v + int(vring.V_LAST_USED)])
    at = [used + int(USED_RING) + 8 * i + 4 for i in range(count)]
    return [int.from_bytes(world.mem[a : a + 4].tobytes(), 'little') for a in at]


@pytest.mark.parametrize(
    ('driver', 'rw', 'length'),
    [
        (VHOST, 'read', 0),
        (VHOST, 'write', 0),
        (SPDK, 'read', 108 + 8192),
        (SPDK, 'write', 108),
        (QEMU, 'read', 108 + 8192),
        (QEMU, 'write', 108 + 8192),
    ],
)
def test_used_length_is_as_each_of_them_writes_it(driver, rw, length):
    world = world_of(config_of(driver, number_ios=5, workload={'rw': rw, 'bs': '8k'}))
    assert used_lengths(world) == [length] * 5


# ---------------------------------------------------------------------------------- odd requests


def cdb(opcode, blocks=8, lba=0):
    """A ten-byte CDB."""
    return bytes([opcode, 0, *lba.to_bytes(4, 'big'), 0, *blocks.to_bytes(2, 'big'), 0])


class Bench:
    """One request on a ring of a built machine, taken by the device without an engine."""

    def __init__(self, driver):
        config = config_of(driver)
        self.world = machine.build(config, costs.of_config(config))
        self.qemu = int(STACKS[driver] == 'virtio-scsi')
        self.q = u64(self.world.host_queues[0])

    def take(self, readable, writable, header):
        """(verdict, command) of a request of these buffer sizes that begins with `header`."""
        world, st = self.world, self.world.st
        buffers = u64(st[int(self.q) + int(user_scsi.Q_BUFFERS)])
        at, entry = 0x2000, int(buffers) + int(vring.B_ENTRIES)
        st[int(buffers) : int(buffers) + 4] = [
            len(readable), len(writable), sum(readable), sum(writable)
        ]  # fmt: skip
        for size in (*readable, *writable):
            st[entry], st[entry + 1] = at, size
            entry, at = entry + 2, at + size
        world.mem[0x2000 : 0x2000 + len(header)] = np.frombuffer(header, dtype=np.uint8)
        x = u64(st[int(self.q) + int(user_scsi.Q_COMMANDS)])
        st[int(x) + int(user_scsi.X_QUEUE)] = int(self.q)
        verdict = user_scsi.receive(world.mem, world.lines, st, 1, self.q, x, self.qemu)
        return verdict, x

    def answered(self, x):
        """(response code, used.len) of a request that is refused."""
        world = self.world
        length = user_scsi.refuse(world.mem, world.lines, world.st, 1, x, self.qemu)
        at = int(world.st[int(x) + int(user_scsi.X_RESPONSE)])
        return int(world.mem[at + 11]), int(length)


def header(command, lun=b'\1\0\x40\0'):
    """51 bytes of struct virtio_scsi_cmd_req."""
    return (lun.ljust(8, b'\0') + bytes(11) + command).ljust(51, b'\0')


READ, WRITE = cdb(0x28), cdb(0x2A)


@pytest.mark.parametrize(
    ('driver', 'readable', 'writable', 'head', 'code'),
    [
        (QEMU, [51], [108, 4096], header(READ), None),
        (QEMU, [51], [108, 2048], header(READ), 1),  # OVERRUN: the CDB wants more than there is
        (QEMU, [51, 4096], [108], header(READ), 1),  # or the other way
        (QEMU, [51, 4096], [108, 4096], header(READ), 9),  # FAILURE: both ways
        (QEMU, [51], [108, 4096], header(READ, b'\1\5\x40\0'), 3),  # BAD_TARGET: no such target
        (QEMU, [51], [108, 4096], header(READ, b'\1\0\x80\0'), 3),  # or a method it does not know
        (QEMU, [51], [108, 4096], header(READ, b'\2\0\x40\0'), 3),
        (SPDK, [51], [108, 4096], header(READ), None),
        (SPDK, [51], [108, 2048], header(READ), None),  # SPDK does not look
        (SPDK, [51, 4096], [108, 4096], header(WRITE), None),
        (SPDK, [51], [108, 4096], header(READ, b'\1\0\x80\0'), None),
        (SPDK, [51], [108, 4096], header(READ, b'\1\x09\x40\0'), 3),
    ],
)
def test_odd_requests_are_answered_as_each_of_them_does(driver, readable, writable, head, code):
    bench = Bench(driver)
    verdict, x = bench.take(readable, writable, head)
    if code is None:
        assert verdict in (user_scsi.READY, user_scsi.FAILED)
        return
    assert verdict == user_scsi.REFUSED
    data = sum(readable[1:]) or sum(writable[1:])
    expected = 108 + (data if driver == QEMU or not readable[1:] else 0)
    assert bench.answered(x) == (code, expected)


@pytest.mark.parametrize('driver', [SPDK, QEMU])
@pytest.mark.parametrize(('readable', 'writable'), [([50], [108]), ([51], [107])])
def test_what_is_no_request_is_malformed(driver, readable, writable):
    assert Bench(driver).take(readable, writable, header(READ))[0] == user_scsi.MALFORMED


def test_qemu_takes_a_header_in_pieces_and_spdk_does_not():
    pieces = [20, 31], [108, 4096]
    assert Bench(SPDK).take(*pieces, header(READ))[0] == user_scsi.MALFORMED
    # QEMU reads it across the pieces, and takes what lies behind the first buffer for data as well.
    verdict, x = (bench := Bench(QEMU)).take(*pieces, header(READ))
    assert verdict == user_scsi.REFUSED
    assert bench.answered(x)[0] == 9


# --------------------------------------------------------------------------------------- configs


def test_each_driver_has_its_own_defaults():
    sizes = {driver: config_of(driver).device.virtqueue_size for driver in DRIVERS}
    assert sizes == {VHOST: 128, SPDK: 128, QEMU: 256}
    old = config_of(QEMU, qemu={'version': '4.2'})
    assert old.device.virtqueue_size == 128
    assert [config_of(driver).device.hotplug for driver in DRIVERS] == [False, True, True]


def test_spdk_has_no_event_idx_and_nobody_is_told_who_did_not_ask():
    config = config_of(SPDK)
    assert (config.device.event_idx, config.notes) == (False, ())
    asked = config_of(SPDK, device={'event_idx': True})
    assert any('does not offer' in note for note in asked.notes)


@pytest.mark.parametrize(
    ('sections', 'problem'),
    [
        ({'device': {'driver': SPDK, 'packed': True}}, "SPDK's vhost-user-scsi does not offer"),
        ({'device': {'driver': SPDK, 'packed': True}}, 'QEMU disconnects the chardev'),
        ({'device': {'driver': VHOST, 'packed': True}}, 'exits with "unable to start vhost-scsi"'),
        ({'device': {'driver': QEMU, 'wwpn': 'naa.5'}}, 'virtio-scsi-pci has no property wwpn'),
        ({'device': {'driver': SPDK, 'migratable': True}}, 'no property migratable'),
        ({'device': {'driver': QEMU, 'boot_tpgt': 3}}, 'no property boot_tpgt'),
        ({'device': {'driver': QEMU}, 'host': {'submit_type': 'direct'}}, 'of kernel vhost-scsi'),
        ({'device': {'driver': VHOST}, 'qemu': {'poll_max_ns': 0}}, 'is of an IOThread'),
        ({'device': {'driver': SPDK}, 'qemu': {'poll_grow': 2}}, 'is of an IOThread'),
        ({'device': {'driver': SPDK}, 'target': {'luns': 2}}, '8 targets with LUN 0 each'),
        ({'device': {'driver': SPDK, 'num_queues': 255}}, 'room for 256 virtqueues'),
        ({'device': {'driver': QEMU}, 'tmf': [{'at': '1ms', 'function': 'lun_reset'}]}, '[[tmf]]'),
    ],
)
def test_what_a_driver_has_not_is_refused(sections, problem):
    with pytest.raises(ConfigError) as caught:
        load(**sections)
    assert problem in str(caught.value)
    assert '\n' not in str(caught.value)


def test_the_kernel_of_a_host_that_is_not_asked_is_noted():
    config = config_of(SPDK, host={'kernel': '7.2'})
    assert any('host.kernel has no effect' in note for note in config.notes)
    assert config.id == config_of(SPDK).id


@pytest.mark.parametrize('driver', DRIVERS)
def test_the_effective_config_of_each_driver_is_read_again(driver):
    from sim.config import from_effective

    config = config_of(driver)
    assert from_effective(config.effective()) == config


@pytest.mark.parametrize(
    ('text', 'problem'),
    [
        ('virtio-scsi-pci,chardev=c0', 'virtio-scsi-pci has no property chardev'),
        ('vhost-scsi-pci,iothread=io0', 'vhost-scsi-pci has no property iothread'),
        ('virtio-scsi-pci,wwpn=naa.5', 'virtio-scsi-pci has no property wwpn'),
        ('virtio-scsi-pci,iothread-vq-mapping=x', 'several IOThreads'),
    ],
)
def test_a_device_string_with_somebody_elses_property_is_refused(text, problem):
    with pytest.raises(ConfigError) as caught:
        load(device=text)
    assert problem in str(caught.value)


def test_a_device_string_without_an_iothread_is_told_that_it_gets_one():
    assert load(device='virtio-scsi-pci,iothread=io0').notes[-1].endswith('anyway')
    assert any('main loop' in note for note in load(device='virtio-scsi-pci').notes)


# ------------------------------------------------------------------------------------ experiment


def test_the_experiment_has_a_row_for_each_backend_and_a_figure(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(backends, 'REQUESTS_QUICK', 400)
    monkeypatch.setattr(backends, 'DEPTHS', (1,))
    monkeypatch.setattr(backends, 'SWEPT', ('10 µs',))
    out = ['--quick', '--json', '--jobs', '1', '--out', str(tmp_path)]
    assert backends.EXPERIMENT.main(out) == 0
    rows = json.loads(capsys.readouterr().out)['rows']
    kicks = {row['backend']: row['kicks_per_request'] for row in rows}
    assert list(kicks) == list(backends.BACKENDS)
    assert kicks['SPDK reactor'] == 0
    assert kicks['IOThread, no polling'] == 1
    assert (tmp_path / 'backends.png').stat().st_size > 10_000
    assert (tmp_path / 'stages.png').stat().st_size > 10_000


@pytest.mark.long  # it compiles every kernel anew
@pytest.mark.parametrize('driver', ['vhost-scsi-pci', 'vhost-user-scsi-pci', 'virtio-scsi-pci'])
def test_a_machine_without_line_ownership_runs_too(driver):
    config = load(device={'driver': driver}, workload={'number_ios': 50})
    world = machine.build(config, costs.of_config(config))
    world.lines = None
    engine = ENGINES['compiled'](world)
    Phases(engine, config)
    engine.run()
    assert int(world.st[int(machine.agents.H_SERIAL)]) == 50
