"""Pre-copy of a guest that has written little of its RAM, and devices beside the simulated one."""

import pytest

from sim.config import load
from sim.errors import ConfigError
from sim.migrate.ram import PAGE_ON_WIRE, ZERO_ON_WIRE
from sim.migration import migrate

PAGE, GIB = 4096, 1 << 30
LINK = 1_250_000_000
IDLE = [
    'device.migratable=on', 'host.kernel=7.2', 'target.size=4m', 'workload.iodepth=1',
    'workload.thinktime=20ms', 'workload.runtime=100s', 'workload.time_based=on',
    'workload.number_ios=100000', 'migration.at=1ms', 'migration.run_on=1ms',
    'migration.max_bandwidth=0', 'migration.ram=2g',
]  # fmt: skip
SLICE_MS = 100  # by how much a switch-over may come later than it could


def move(*sets):
    return migrate(load(sets=[*IDLE, *sets]))


@pytest.fixture(scope='module')
def empty():
    return move('migration.ram_used=128m')


def test_pages_in_use_take_the_link_and_zero_pages_the_thread(empty):
    used = move('migration.ram_used=1152m')
    pages = GIB // PAGE
    longer = 1e3 * (pages * PAGE_ON_WIRE / LINK - pages * 300e-9)
    assert used['total_time_ms'] - empty['total_time_ms'] == pytest.approx(longer, abs=SLICE_MS)
    more = move('migration.ram_used=128m', 'migration.ram=10g')
    scan = 1e3 * 8 * pages * 300e-9
    assert more['total_time_ms'] - empty['total_time_ms'] == pytest.approx(scan, abs=SLICE_MS)
    assert more['transferred_bytes'] - empty['transferred_bytes'] == 8 * pages * ZERO_ON_WIRE


def test_zero_pages_that_cost_nothing_are_gone_in_no_time(empty):
    free = ['migration.ram_used=128m', 'costs.control.page_zero=0']
    small, large = move(*free), move(*free, 'migration.ram=10g')
    sent = 1e3 * 8 * GIB / PAGE * ZERO_ON_WIRE / LINK
    syncs = 3 * 8 * GIB / PAGE / 64 * 23e-6  # 3 ms for 32 GiB each
    assert large['total_time_ms'] - small['total_time_ms'] == pytest.approx(sent + syncs, abs=0.1)
    assert small['total_time_ms'] < empty['total_time_ms']


def test_counters_are_those_of_qemu(empty):
    ram = empty['ram']
    assert ram['total'] == 2 * GIB
    assert ram['remaining'] == 0
    assert ram['normal'] >= (128 << 20) / PAGE
    assert ram['duplicate'] == (2 * GIB - (128 << 20)) / PAGE
    sent = ram['normal'] * PAGE_ON_WIRE + ram['duplicate'] * ZERO_ON_WIRE
    assert ram['precopy_bytes'] + ram['downtime_bytes'] == sent
    behind_setup = empty['total_time_ms'] - empty['setup_time_ms']
    assert ram['mbps'] == pytest.approx(ram['transferred'] * 8 / behind_setup / 1e3, rel=1e-4)


def test_published_counters_add_up_with_these_bytes_a_page():
    """E. Ufimtseva, qemu-devel, 2024-07-26, example 1; QEMU prints kbytes, rounded down."""
    normal, duplicate, precopy, downtime = 201300, 8192488, 480464, 398313
    sent = normal * PAGE_ON_WIRE + duplicate * ZERO_ON_WIRE
    assert sent / 1024 == pytest.approx(precopy + downtime, abs=2)


def test_the_scan_of_zero_pages_keeps_the_threshold_down():
    """What is pending counts whole pages, bandwidth counts nine bytes for each."""
    scanned = ['migration.ram_used=0', 'migration.ram=4g', 'migration.downtime_limit=30s']
    ram, free = move(*scanned)['ram'], move(*scanned, 'costs.control.page_zero=0')['ram']
    assert ram['pages_per_second'] == pytest.approx(1 / 300e-9, rel=0.02)
    threshold = ZERO_ON_WIRE / 300e-9 * 30
    assert 0 < ram['downtime_bytes'] <= threshold / PAGE * ZERO_ON_WIRE + 64 * PAGE_ON_WIRE
    assert free['pages_per_second'] > 2 * ram['pages_per_second']


def test_what_the_vcpus_write_is_in_use_already(empty):
    busy = move('migration.ram_used=128m', 'migration.dirty_rate=50m')
    assert busy['ram']['duplicate'] == empty['ram']['duplicate']
    assert busy['ram']['normal'] > empty['ram']['normal']


def test_one_thread_does_not_fill_a_quick_link():
    quick = ['migration.link_bandwidth=12500000000', 'migration.downtime_limit=20ms']
    bound, free = move(*quick), move(*quick, 'costs.control.page_send=0')
    assert bound['total_time_ms'] == pytest.approx(2 * GIB / PAGE * 1600e-6, abs=SLICE_MS)
    assert free['total_time_ms'] < bound['total_time_ms'] / 3


# ------------------------------------------------------------------------ functions with VFIO

ONE_MS = {'vfio_stop': 74, 'vfio_save': 2.127, 'vfio_load': 212, 'vfio_start': 16}


@pytest.mark.parametrize('told', [True, False])
def test_functions_passed_through_are_stopped_saved_loaded_and_started(empty, told):
    path = [f'migration.return_path={"on" if told else "off"}', 'migration.ram_used=128m']
    without, two = move(*path), move(*path, 'migration.vfio_devices=2')
    assert sum(two['phases_ns'].values()) == two['vm_stopped_ns']
    for name, ms in ONE_MS.items():
        assert name not in without['phases_ns']
        assert two['phases_ns'][name] / 1e6 >= 2 * ms * 0.999  # the link may be slower than a save
    seen = ONE_MS if told else ('vfio_stop', 'vfio_save')  # the stream is out before the load
    others = two['downtime_ms'] - sum(two['phases_ns'][name] for name in seen) / 1e6
    assert others == pytest.approx(without['downtime_ms'], abs=20)
    assert two['transferred_bytes'] - without['transferred_bytes'] == 2 * (4496 << 10)
    costless = [f'costs.control.{name}=0' for name in ONE_MS]
    gone = move(*path, 'migration.vfio_devices=2', 'migration.vfio_state=0', *costless)
    assert gone['vm_stopped_ns'] == without['vm_stopped_ns']


def test_functions_start_again_where_the_migration_fails():
    report = move('migration.vfio_devices=1', 'migration.faults=link_cut@ram_rest')
    assert 'running on the source' in report['outcome']
    assert report['phases_ns']['vfio_start'] == 16_000_000
    assert report['phases_ns']['vfio_load'] == 0


def test_a_state_that_never_fits_the_limit_is_said_and_a_promised_bandwidth_helps():
    """state_pending_exact() of VFIO has the size of what it will save once it is stopped."""
    large = ['migration.ram_used=128m', 'migration.vfio_devices=1', 'migration.vfio_state=1g']
    stuck = move(*large, 'migration.give_up=3s')
    assert 'does not converge' in stuck['outcome']
    assert '1.02e+03 of them of VFIO devices' in stuck['outcome']
    promised = move(*large, 'migration.avail_switchover_bandwidth=10g')
    assert promised['outcome'] == 'ok'


@pytest.mark.parametrize(
    ('sets', 'said'),
    [
        (['migration.ram_used=3g'], 'more than migration.ram='),
        (['migration.vfio_state=1m'], 'has no meaning without migration.vfio_devices'),
    ],
)
def test_keys_that_do_not_fit_are_refused(sets, said):
    with pytest.raises(ConfigError, match=said):
        move(*sets)
