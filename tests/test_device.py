"""QEMU's vhost-scsi device by itself: realize, features, config, vmstate, failures."""

import os
import struct

import pytest

from sim import backend, costs, features, machine
from sim.config import load
from sim.control import vmstate
from sim.control.device_user import VHostUserSCSI
from sim.control.power import DRIVER_STATUS, boot, make_host, rings_of, switch_on
from sim.control.stopping import StopPlan, stop
from sim.control.vm import VmExitError
from sim.device import NOT_MIGRATABLE, RealizeError
from sim.engine import ENGINES
from sim.vhost.dev import NO_LOG, VhostDev

MODERN = 0x130000000


def make(**sections):
    """(engine, config, host) of a device that is not realized yet."""
    config = load(**{'device': {'num_queues': 1}, **sections})
    world = machine.build(config, costs.of_config(config), record_requests=False)
    engine = ENGINES['simpy'](world)
    return engine, config, make_host(engine, config)


def perform(engine, action):
    """Run a control action to its end; what it returns or raises."""
    return engine.env.run(engine.env.process(action))


def names(host):
    return [call.name.removeprefix('VHOST_') for call in host.control.calls]


def running(**sections):
    engine, config, host = make(**sections)
    perform(engine, host.virtio.realize())
    perform(engine, boot(host, config))
    return engine, config, host


# ----------------------------------------------------------------------------------- small duties


@pytest.mark.parametrize(
    ('tpgt', 'path'), [(0, '/channel@0/vhost-scsi@0,0'), (26, '/channel@0/vhost-scsi@1a,0')]
)
def test_the_firmware_path_is_hexadecimal(tpgt, path):
    engine, _, host = make(device={'num_queues': 1, 'boot_tpgt': tpgt})
    perform(engine, host.device.realize())
    assert host.device.get_fw_dev_path() == path
    host.device.qemu = (2, 5)
    assert host.device.get_fw_dev_path() == path[1:]


def test_the_backend_hides_listed_features_and_no_others():
    _, _, host = running()
    device = host.device
    device.dev.features &= ~features.mask(features.EVENT_IDX, features.VERSION_1)
    offered = features.mask(features.EVENT_IDX, features.VERSION_1, features.RING_PACKED)
    device.host_features = features.mask(features.T10_PI)
    got = device.get_features(offered)
    assert got == features.mask(features.VERSION_1, features.RING_PACKED, features.T10_PI)


def test_the_config_space_is_that_of_qemu():
    _, _, host = running(device={'num_queues': 3, 'virtqueue_size': 256}, guest={'vcpus': 3})
    words = struct.unpack('<IIIIIIIHHI', host.device.parent_obj.config())
    assert words == (3, 254, 65535, 128, 16, 96, 32, 0, 255, 16383)


def test_a_guest_that_changes_the_sense_size_ends_the_vm():
    _, _, host = running()
    config = bytearray(host.device.parent_obj.config())
    host.device.set_config(bytes(config))  # the same sizes: what Linux writes
    struct.pack_into('<I', config, 20, 252)
    with pytest.raises(VmExitError, match='does not support changing the sense data and CDB sizes'):
        host.device.set_config(bytes(config))
    assert host.vm.ended is not None


def test_qemus_own_device_takes_other_sizes_as_far_as_its_buffers_go():
    _, _, host = running(device={'driver': 'virtio-scsi-pci', 'num_queues': 1})
    config = bytearray(host.virtio.parent_obj.config())
    struct.pack_into('<II', config, 20, 252, 64)
    host.virtio.set_config(bytes(config))
    assert host.virtio.parent_obj.config()[20:28] == bytes(config)[20:28]
    struct.pack_into('<II', config, 20, 65536, 64)
    host.virtio.set_config(bytes(config))
    assert host.virtio.broken
    assert host.vm.ended is None


# ------------------------------------------------------------------------------ realize, unrealize


def test_migration_is_blocked_unless_it_is_allowed():
    engine, _, host = make()
    perform(engine, host.device.realize())
    assert host.device.migration_blocker == NOT_MIGRATABLE
    engine, _, host = make(device={'num_queues': 1, 'migratable': True})
    perform(engine, host.device.realize())
    assert host.device.migration_blocker is None


def test_a_backend_without_a_log_blocks_migration_whatever_is_allowed():
    engine, _, host = make(device={'num_queues': 1, 'migratable': True})
    host.file.offered &= ~features.mask(features.LOG_ALL)
    perform(engine, host.device.realize())
    assert host.device.migration_blocker is None
    assert host.vm.blockers == [host.device.dev.migration_blocker] == [NO_LOG]
    perform(engine, host.device.unrealize())
    assert host.vm.blockers == []


def spoil_owner(host):
    host.file.owner = True


def spoil_wwpn(host):
    host.device.parent_obj.conf.wwpn = None


def spoil_queues(host):
    host.device.parent_obj.conf.num_queues = 1023


def spoil_size(host):
    host.device.parent_obj.conf.virtqueue_size = 2


def spoil_migratable(host):
    host.vm.only_migratable = True


def spoil_migration(host):
    host.vm.migrating = True


def spoil_log(host):
    host.file.offered &= ~features.mask(features.LOG_ALL)
    host.device.migratable = host.vm.only_migratable = True


def spoil_call(name, errno):
    return lambda host: host.file.failing.update({name: errno})


BUSY, INIT = 'Device or resource busy', ['SET_OWNER', 'GET_FEATURES_ARRAY', 'GET_FEATURES']
QUEUES = ['SET_VRING_CALL', 'SET_VRING_ERR'] * 5


@pytest.mark.parametrize(
    ('spoil', 'message', 'calls'),
    [
        (spoil_wwpn, 'vhost-scsi: missing wwpn', []),
        (
            spoil_queues,
            'Invalid number of queues (= 1023), must be a positive integer less than 1022.',
            [],
        ),
        (spoil_size, 'invalid virtqueue_size property (= 2), must be > 2', []),
        (
            spoil_migratable,
            f'disallowing migration blocker (--only-migratable) for: {NOT_MIGRATABLE}',
            [],
        ),
        (
            spoil_migration,
            'disallowing migration blocker (migration/snapshot in progress) for: '
            + NOT_MIGRATABLE,
            [],
        ),
        (spoil_owner, f'vhost_set_owner failed: {BUSY}', ['SET_OWNER']),
        (
            spoil_call('VHOST_GET_FEATURES', -14),
            'vhost_get_features failed: Bad address',
            INIT,
        ),
        (
            spoil_call('VHOST_SET_VRING_ERR', -16),
            f'Failed to initialize virtqueue 0: {BUSY}',
            [*INIT, 'SET_VRING_CALL', 'SET_VRING_ERR'],
        ),
        (
            spoil_log,
            f'disallowing migration blocker (--only-migratable) for: {NO_LOG}',
            [*INIT, *QUEUES],
        ),
        (
            spoil_call('VHOST_NEW_WORKER', -12),
            'vhost-scsi: vhost worker setup failed: Cannot allocate memory',
            [*INIT, *QUEUES, 'NEW_WORKER'],
        ),
        (
            spoil_call('VHOST_ATTACH_VRING_WORKER', -19),
            'vhost-scsi: vhost worker setup failed: No such device',
            [*INIT, *QUEUES, 'NEW_WORKER', 'ATTACH_VRING_WORKER'],
        ),
    ],
)
def test_a_realize_that_fails_leaves_nothing_behind(spoil, message, calls):
    """Step by step; the same device can be realized afterwards."""
    device = {'num_queues': 3, 'worker_per_virtqueue': True}
    engine, _, host = make(device=device, guest={'vcpus': 3})
    spoil(host)
    with pytest.raises(RealizeError) as error:
        perform(engine, host.device.realize())
    assert str(error.value) == message
    assert names(host) == calls
    assert not host.device.realized
    assert host.device.migration_blocker is None
    assert host.vm.blockers == []
    assert host.device.parent_obj.vqs == []
    assert not host.file.owner
    host.file.failing.clear()
    host.vm.only_migratable = host.vm.migrating = host.device.migratable = False
    conf = host.device.parent_obj.conf
    conf.wwpn, conf.num_queues, conf.virtqueue_size = 'naa.5001405000000001', 3, 128
    perform(engine, host.device.realize())
    assert host.device.realized
    assert NOT_MIGRATABLE in host.vm.blockers


def test_old_qemu_says_less_of_a_realize_that_fails():
    engine, _, host = make(qemu={'version': '5.2'})
    spoil_owner(host)
    with pytest.raises(RealizeError, match=f'^vhost-scsi: vhost initialization failed: {BUSY}$'):
        perform(engine, host.device.realize())


def test_unrealize_stops_the_device():
    engine, _, host = running()
    del host.control.calls[:]
    perform(engine, host.device.unrealize())
    assert names(host) == ['SCSI_CLEAR_ENDPOINT'] + ['GET_VRING_BASE'] * 3
    assert host.device.migration_blocker is None
    assert host.vm.blockers == []
    assert host.lio.held == {}
    assert (host.file.owner, host.device.dev.notifiers) == (False, {})


def test_a_worker_for_each_queue_but_the_first():
    """NEW_WORKER for vq 3 and on; Linux 6.1 has no such ioctl, and one try is enough."""
    device = {'num_queues': 4, 'worker_per_virtqueue': True}
    sections = {'device': device, 'guest': {'vcpus': 4}}
    engine, _, host = make(**sections)
    perform(engine, host.device.realize())
    made = [n for n in names(host) if 'WORKER' in n]
    assert made == ['NEW_WORKER', 'ATTACH_VRING_WORKER'] * 3
    assert [vq.worker for vq in host.file.vqs[:6]] == [0, 0, 0, 1, 2, 3]
    engine, _, host = make(**{**sections, 'device': {**device, 'worker_per_virtqueue': False}})
    host.device.parent_obj.conf.worker_per_virtqueue = True
    host.file.kernel = '6.1'
    perform(engine, host.device.realize())
    assert [n for n in names(host) if 'WORKER' in n] == ['NEW_WORKER']
    assert host.vm.said == [
        'warning: vhost-scsi: Backend supports a single worker. Ignoring '
        'worker_per_virtqueue=true setting.'
    ]


# ---------------------------------------------------------------------------------- start and stop


def test_status_without_driver_ok_starts_nothing_and_twice_the_same_does_nothing():
    engine, config, host = make()
    perform(engine, host.device.realize())
    del host.control.calls[:]
    host.device.guest_writes_rings(rings_of(host.control.machine))
    perform(engine, host.device.set_status(3))
    assert names(host) == []
    host.device.parent_obj.guest_features = config.agreed.acked
    perform(engine, host.device.set_status(DRIVER_STATUS))
    made = len(host.control.calls)
    assert made
    perform(engine, host.device.set_status(DRIVER_STATUS))
    assert len(host.control.calls) == made


def test_features_that_the_kernel_does_not_have_end_the_vm():
    """packed=on is not filtered by QEMU: the guest acks it and SET_FEATURES fails."""
    engine, config, host = make()
    perform(engine, host.device.realize())
    common = host.device.parent_obj
    common.guest_features = config.agreed.acked | features.mask(features.RING_PACKED)
    host.device.guest_writes_rings(rings_of(host.control.machine))
    with pytest.raises(VmExitError, match='unable to start vhost-scsi: Operation not supported'):
        perform(engine, host.device.set_status(DRIVER_STATUS))
    assert names(host)[-1] == 'SET_FEATURES'
    assert host.control.calls[-1].answer == -95
    assert not host.device.dev.started


def test_a_target_that_another_vm_holds_ends_the_vm():
    engine, config, host = make()
    perform(engine, host.device.realize())
    host.lio.held[0] = 'another QEMU'
    with pytest.raises(VmExitError, match='unable to start vhost-scsi: No such device'):
        perform(engine, boot(host, config))
    assert names(host)[-4:] == ['SCSI_SET_ENDPOINT'] + ['GET_VRING_BASE'] * 3
    assert host.lio.held == {0: 'another QEMU'}
    assert not host.device.dev.started


RING = ['NUM', 'BASE', 'ADDR', 'KICK']
BASES = ['GET_VRING_BASE'] * 3


@pytest.mark.parametrize(
    ('step', 'errno', 'tail', 'said'),
    [
        ('VHOST_SCSI_GET_ABI_VERSION', -25, ['SCSI_GET_ABI_VERSION'], None),
        (
            'host_notifiers', -24, ['SCSI_GET_ABI_VERSION'],
            'Error starting vhost-scsi: Error enabling host notifiers: Too many open files',
        ),
        (
            'guest_notifiers', -28, ['SCSI_GET_ABI_VERSION'],
            'Error starting vhost-scsi: Error binding guest notifier: No space left on device',
        ),
        ('VHOST_SET_FEATURES', -14, ['SET_FEATURES'], 'dev'),
        ('VHOST_SET_MEM_TABLE', -12, ['SET_MEM_TABLE'], 'dev'),
        ('VHOST_SET_VRING_NUM', -16, ['SET_VRING_NUM'], 'dev'),
        ('VHOST_SET_VRING_BASE', -16, ['SET_VRING_NUM', 'SET_VRING_BASE'], 'dev'),
        ('VHOST_SET_VRING_ADDR', -14, ['SET_VRING_BASE', 'SET_VRING_ADDR'], 'dev'),
        ('VHOST_SET_VRING_KICK', -9, ['SET_VRING_ADDR', 'SET_VRING_KICK'], 'dev'),
        ('VHOST_SET_LOG_BASE', -14, ['SET_LOG_BASE', *BASES], 'dev'),
        (
            'VHOST_SCSI_SET_ENDPOINT', -19, ['SCSI_SET_ENDPOINT', *BASES],
            'Error setting vhost-scsi endpoint',
        ),
    ],
)  # fmt: skip
def test_a_start_that_fails_at_any_step_is_undone_and_ends_the_vm(step, errno, tail, said):
    engine, config, host = make()
    perform(engine, host.device.realize())
    host.device.dev.log_enabled = step == 'VHOST_SET_LOG_BASE'
    (host.vm if step.endswith('notifiers') else host.file).failing[step] = errno
    with pytest.raises(VmExitError) as error:
        perform(engine, boot(host, config))
    why = os.strerror(-errno)
    assert str(error.value) == host.vm.ended == f'unable to start vhost-scsi: {why}'
    assert names(host)[-len(tail) :] == tail
    if said == 'dev':
        said = f'Error starting vhost-scsi: Error starting vhost dev: {why}'
    assert (said in host.vm.said) or said is None
    assert host.vm.said[-1] == host.vm.ended
    assert (host.vm.host_notifiers, host.vm.guest_notifiers) == (0, 0)
    assert not host.device.dev.started
    assert host.device.dev.log is None
    assert (host.lio.held, host.file.endpoint) == ({}, ())


def test_a_ring_in_the_middle_that_cannot_start_stops_those_before_it():
    engine, config, host = make()
    perform(engine, host.device.realize())
    set_kick = host.file.set_vring_kick

    def second_fails(index, fd):
        host.file.failing = {'VHOST_SET_VRING_KICK': -9} if index == 1 else {}
        return set_kick(index, fd)

    host.file.set_vring_kick = second_fails
    with pytest.raises(VmExitError, match='unable to start vhost-scsi: Bad file descriptor'):
        perform(engine, boot(host, config))
    made = [(c.name.removeprefix('VHOST_'), c.arguments.get('index')) for c in host.control.calls]
    assert made[-2:] == [('SET_VRING_KICK', 1), ('GET_VRING_BASE', 0)]


@pytest.mark.parametrize('qemu', ['10.0', '10.2'])
def test_guest_notifiers_that_do_not_go_are_an_assertion_until_10_1(qemu):
    engine, _, host = running(qemu={'version': qemu})
    host.vm.failing['guest_notifiers'] = -5
    host.vm.running = False
    if qemu == '10.0':
        with pytest.raises(VmExitError, match='vhost_scsi_common_stop: Assertion `ret >= 0'):
            perform(engine, host.device.set_status(DRIVER_STATUS))
    else:
        assert perform(engine, host.device.set_status(DRIVER_STATUS)) == 0
    assert 'vhost guest notifier cleanup failed: -5' in host.vm.said
    assert host.vm.host_notifiers == 3
    assert host.file.endpoint == ()


def test_old_qemu_says_less_of_a_start_that_fails():
    engine, config, host = make(qemu={'version': '5.2'})
    perform(engine, host.device.realize())
    host.file.failing['VHOST_SET_MEM_TABLE'] = -12
    with pytest.raises(VmExitError):
        perform(engine, boot(host, config))
    assert host.vm.said == [
        'Error start vhost dev', 'unable to start vhost-scsi: Cannot allocate memory',
    ]  # fmt: skip


def test_a_kernel_with_a_newer_abi_is_refused(monkeypatch):
    engine, config, host = make()
    perform(engine, host.device.realize())

    def newer():
        yield from ()
        return {'abi': 2}

    monkeypatch.setattr(host.file, 'get_abi_version', newer)
    with pytest.raises(VmExitError, match='unable to start vhost-scsi: Function not implemented'):
        perform(engine, boot(host, config))
    assert host.vm.said[0] == (
        'vhost-scsi: The running tcm_vhost kernel abi_version: 2 is greater than vhost_scsi '
        'userspace supports: 1, please upgrade your version of QEMU'
    )


def test_an_endpoint_that_is_not_cleared_is_ignored_by_qemu():
    """The base is then read from a running ring."""
    engine, _, host = running()
    host.lio.wwpn = 'naa.5001405000000099'
    del host.control.calls[:]
    host.vm.running = False
    perform(engine, host.device.set_status(DRIVER_STATUS))
    assert [call.answer for call in host.control.calls] == [-22, 0, 0, 0]
    assert host.file.endpoint


def test_a_failure_to_log_is_rolled_back():
    engine, _, host = running()
    dev = host.device.dev
    host.file.offered &= ~features.mask(features.LOG_ALL)
    assert perform(engine, dev.set_log(True)) == -95
    assert not dev.log_enabled
    assert host.file.acked == MODERN
    assert {vq.flags for vq in host.file.vqs} == {0}


def test_logging_goes_on_and_off():
    engine, _, host = running(host={'kernel': '7.2'})
    dev = host.device.dev
    perform(engine, dev.set_log(True))
    assert host.file.acked == MODERN | features.mask(features.LOG_ALL)
    assert [vq.flags for vq in host.file.vqs[:4]] == [1, 1, 1, 0]
    assert dev.log.words == -(-host.control.machine.mem.size // (1 << 18))
    perform(engine, dev.set_log(False))
    assert host.file.acked == MODERN
    assert dev.log is None


def test_a_vm_that_ends_in_the_middle_of_a_run_is_told_of_and_nothing_runs_again(monkeypatch):
    from sim.vhost.ioctl import VhostScsi

    def refuse(self, wwpn):
        yield from ()
        return -19

    def late(self, wwpn):
        taken = (
            refuse if self.control.calls and not self.control.instant else VhostScsi._set_endpoint
        )
        return self._ioctl('VHOST_SCSI_SET_ENDPOINT', taken(self, wwpn), wwpn=wwpn)

    monkeypatch.setattr(VhostScsi, 'set_endpoint', late)
    report = stop(load(workload={'number_ios': 400}), StopPlan(at=2_000_000))
    assert report['outcome'] == 'QEMU exits: unable to start vhost-scsi: No such device'
    assert report['violations'] == [f'ownership: the VM runs no more: {report["outcome"]}']
    assert report['downtime_ns'] is None
    assert report['blackout_ns']['largest'] is None


# --------------------------------------------------------------------------------- migration stream


def stopped(**sections):
    engine, config, host = running(**sections)
    host.vm.running = False
    perform(engine, host.device.set_status(DRIVER_STATUS))
    return engine, config, host


def test_a_running_backend_must_not_be_saved():
    _, _, host = running()
    with pytest.raises(VmExitError, match='vhost_scsi_pre_save: Assertion'):
        vmstate.save(host.device)


def test_the_stream_is_laid_out_as_qemu_does():
    _, _, host = stopped()
    host.device.parent_obj.vqs[2].last_avail_idx = 0x1234
    data = vmstate.save(host.device)
    vectors = 4
    at = 4 + 256 + 16 + 16 * vectors + 1 + 2  # PCI device, MSI-X table and pending bits, vector
    status, isr, queue, low, length = struct.unpack_from('>BBHII', data, at)
    assert (status, isr, queue, low, length) == (15, 0, 0, 0x30000000, 36)
    at += 12 + 36
    (count,) = struct.unpack_from('>I', data, at)
    assert count == 3
    num, desc, last, _ = struct.unpack_from('>IQHH', data, at + 4 + 2 * 16)
    assert (num, last) == (128, 0x1234)
    assert desc == host.device.parent_obj.vqs[2].desc
    at += 4 + 3 * 16
    assert data[at : at + 2] == bytes([5, len('virtio/64bit_features')])
    assert vmstate.parse(data, vectors=vectors).subsections == (
        'virtio/64bit_features', 'virtio/virtqueues', 'virtio/extra_state', 'virtio/started',
    )  # fmt: skip
    assert vmstate.SECTION[host.device.name] == 'virtio-vhost_scsi'


def test_a_stream_fills_another_device_and_memory_has_the_rest():
    _, config, source = stopped()
    source.device.parent_obj.vqs[2].last_avail_idx = 7
    data = vmstate.save(source.device)
    engine, _, there = make()
    perform(engine, there.device.realize())
    there.device.parent_obj.host_features = config.agreed.offered
    mem = there.control.machine.mem
    vq = source.device.parent_obj.vqs[2]
    mem[vq.avail + 2], mem[vq.used + 2] = 9, 7
    assert vmstate.load(there.device, data, mem) == []
    got = there.device.parent_obj
    assert got.guest_features == MODERN
    assert got.status == DRIVER_STATUS
    assert [(q.num, q.desc, q.avail, q.used) for q in got.vqs] == rings_of(there.control.machine)
    assert (got.vqs[2].last_avail_idx, got.vqs[2].used_idx) == (7, 7)
    assert (got.vqs[2].shadow_avail_idx, got.vqs[2].inuse) == (9, 0)
    perform(engine, there.device.set_status(got.status))
    base = [c.arguments for c in there.control.calls if c.name == 'VHOST_SET_VRING_BASE']
    assert base[2] == {'index': 2, 'num': 7}


def test_streams_that_make_no_sense_are_refused():
    _, config, source = stopped()
    data = vmstate.save(source.device)
    engine, _, there = make()
    perform(engine, there.device.realize())
    common, mem = there.device.parent_obj, there.control.machine.mem
    with pytest.raises(vmstate.LoadError, match='Features 0x130000000 unsupported'):
        vmstate.load(there.device, data, mem)
    common.host_features = config.agreed.offered
    for cut in range(1, len(data), 4001):
        with pytest.raises(vmstate.LoadError):
            vmstate.load(there.device, data[:-cut], mem)
    vq = source.device.parent_obj.vqs[2]
    mem[vq.used + 2 : vq.used + 4] = 0, 4
    with pytest.raises(vmstate.LoadError, match=r'VQ 2 size 0x80 < last_avail_idx 0x0'):
        vmstate.load(there.device, data, mem)
    mem[vq.used + 2 : vq.used + 4] = 0, 0
    mem[vq.avail + 2] = 200
    broken = vmstate.load(there.device, data, mem)
    assert broken == [
        'VQ 2 size 0x80 Guest index 0xc8 inconsistent with Host index 0x0: delta 0xc8'
    ]


# -------------------------------------------------------------------------------------- vhost-user


def vhost_user(qemu):
    """The vhost-user device; the kernel's file stands in for the process behind the socket."""
    engine, config, host = make()
    parent = host.device.parent_obj
    dev = VhostDev(vm=host.vm, file=host.file, qemu=qemu, vqs=parent.vqs)
    device = VHostUserSCSI(vm=host.vm, parent_obj=parent, qemu=qemu, dev=dev, chardev='char0')
    perform(engine, device.realize())
    parent.guest_features = config.agreed.acked
    device.guest_writes_rings(rings_of(host.control.machine))
    return engine, host, device


def test_vhost_user_has_no_endpoint_and_no_blocker():
    engine, host, device = vhost_user((10, 2))
    assert device.migration_blocker is None
    assert vmstate.SECTION[device.name] == 'virtio-scsi'
    assert device.get_fw_dev_path() == '/channel@0/vhost-user-scsi@0,0'
    del host.control.calls[:]
    assert perform(engine, device.set_status(DRIVER_STATUS)) == 0
    host.vm.running = False
    assert perform(engine, device.set_status(DRIVER_STATUS)) == 0
    assert not [name for name in names(host) if 'ENDPOINT' in name]
    assert names(host)[-3:] == ['GET_VRING_BASE'] * 3


def test_vhost_user_that_cannot_start_loses_its_connection_or_the_vm():
    engine, _, device = vhost_user((10, 2))
    device.parent_obj.guest_features |= features.mask(features.IN_ORDER)
    assert perform(engine, device.set_status(DRIVER_STATUS)) == 0
    assert not device.connected
    assert perform(engine, device.set_status(DRIVER_STATUS)) == -1
    engine, _, device = vhost_user((7, 2))
    device.parent_obj.guest_features |= features.mask(features.IN_ORDER)
    with pytest.raises(VmExitError, match='unable to start vhost-user-scsi'):
        perform(engine, device.set_status(DRIVER_STATUS))


@pytest.mark.parametrize(('qemu', 'told'), [((10, 0), 0), ((10, 2), -105)])
def test_vhost_user_tells_of_a_stop_that_failed_since_10_1(qemu, told):
    engine, host, device = vhost_user(qemu)
    perform(engine, device.set_status(DRIVER_STATUS))
    host.vm.running = False
    del host.file.vqs[2:]  # the process has forgotten the request queue
    assert perform(engine, device.set_status(DRIVER_STATUS)) == told
    vq = device.parent_obj.vqs[2]
    assert vq.last_avail_idx == vq.used_idx  # used.idx stands in for the base


def test_a_device_switched_on_at_no_cost_is_started():
    config = load()
    world = machine.build(config, costs.of_config(config))
    host = switch_on(ENGINES['compiled'](world), config)
    assert host.device.dev.started
    assert host.control.now == 0
    assert names(host)[-1] == 'SCSI_SET_ENDPOINT'
    assert {call.duration for call in host.control.calls} == {0}


@pytest.mark.parametrize('driver', ['vhost-user-scsi-pci', 'virtio-scsi-pci'])
def test_devices_in_user_space_are_unrealized_too(driver):
    engine, _, host = running(device={'driver': driver, 'num_queues': 1})
    assert host.virtio.parent_obj.vqs[2].is_set_up
    perform(engine, host.virtio.unrealize())
    assert host.virtio.parent_obj.vqs == []
    q = host.control.machine.host_vqs[2]
    assert host.control.machine.st[q + int(backend.Q_BACKEND)] == 0


@pytest.mark.parametrize('driver', ['vhost-user-scsi-pci', 'virtio-scsi-pci'])
def test_every_device_checks_its_queues(driver):
    engine, _, host = make(device={'driver': driver, 'num_queues': 1})
    host.virtio.parent_obj.conf.virtqueue_size = 2
    with pytest.raises(RealizeError, match='invalid virtqueue_size property'):
        perform(engine, host.virtio.realize())
