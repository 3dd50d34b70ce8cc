"""Bounds and expectations against the simulator: runs lie where theory puts them, or they fail."""

import dataclasses
import functools
import json

import pytest

from experiments.command import experiments
from sim import costs
from sim.__main__ import main
from sim.analysis import theory
from sim.analysis.bounds import (
    SAID,
    least_us,
    no_product_form,
    said_by_theory,
)
from sim.analysis.demands import minimal_demands, unshared_demands
from sim.config import load
from sim.control.stop_policy import POLICIES
from sim.control.stopping import StopPlan, stop
from sim.replicate import replication
from sim.run import run

KERNEL, REACTOR, IOTHREAD = 'vhost-scsi-pci', 'vhost-user-scsi-pci', 'virtio-scsi-pci'
DISKS = {
    'constant': {'kind': 'constant', 'service': '80us'},
    'exponential': {'kind': 'exponential', 'service': '10us'},
    'null': {'kind': 'null'},
    'flash': {'disk': 'nvme-mlc-p3700'},
    'array': {'disk': 'iscsi-ssd'},
}
A_SECOND_EACH = lambda *_: [(2.6e9, 1)]  # noqa: E731  no machine is that slow: all runs beat it


def free() -> costs.Costs:
    zero = {field.name: 0 for field in dataclasses.fields(costs.Costs)}
    return costs.Costs(**zero | {'vcpu_halt_poll': 1 << 60})


def config_of(driver, disk, depth, **sections):
    work = {'iodepth': depth, 'number_ios': 2500}
    return load(workload=work, target=DISKS[disk], device={'driver': driver}, **sections)


# ---------------------------------------------------------------------------- where runs lie


@pytest.mark.parametrize('depth', [1, 4, 64])
@pytest.mark.parametrize('disk', DISKS)
@pytest.mark.parametrize('driver', [KERNEL, REACTOR, IOTHREAD])
def test_a_run_lies_between_the_balanced_bounds_and_within_the_asymptotic_ones(driver, disk, depth):
    config = config_of(driver, disk, depth)
    said, report = said_by_theory(config), run(config).report
    luck = 0.03  # of 2500 random services
    assert said['balanced_low_iops'] * (1 - luck) <= report['iops']
    assert report['iops'] <= said['balanced_high_iops'] * (1 + luck)
    assert said['balanced_high_iops'] <= said['bound_iops'] * (1 + 1e-9)
    assert report['fio_lat_ns']['mean'] / 1e3 >= said['bound_us'] * (1 - luck)
    assert report['latency_ns']['mean'] / 1e3 >= least_us(config)['least_us'] * (1 - luck)


@pytest.mark.parametrize('disk', DISKS)
def test_one_request_at_a_time_takes_what_its_unshared_demands_add_up_to(disk):
    config = config_of(KERNEL, disk, 1)
    said, report = said_by_theory(config), run(config).report
    assert report['iops'] == pytest.approx(said['mva_iops'], rel=0.06)
    cycles = sum(demand for demand, _ in unshared_demands(config, costs.of_config(config)))
    assert said['mva_us'] == pytest.approx(cycles / 2600)


def test_a_poller_takes_its_unshared_demands_too_and_a_cost_that_is_left_out_shows():
    config = config_of(REACTOR, 'constant', 1)
    report = run(config).report
    assert report['iops'] == pytest.approx(said_by_theory(config)['mva_iops'], rel=0.02)
    cheap = load(
        workload={'iodepth': 1, 'number_ios': 2500}, target={'kind': 'null'},
        costs={'lio.workqueue_hop_latency_qd1': '0'},
    )  # fmt: skip
    quick, slow = said_by_theory(cheap)['mva_us'], said_by_theory(config_of(KERNEL, 'null', 1))
    assert slow['mva_us'] - quick == pytest.approx(4, abs=0.01)  # two hops of 2 us
    assert run(cheap).report['iops'] > slow['mva_iops'] * 1.1


def test_without_batches_and_suppression_the_worker_is_at_its_unshared_demand():
    """Where nothing is saved the expectation is met; where EVENT_IDX saves, the run is above it."""
    said = said_by_theory(config_of(KERNEL, 'constant', 64))
    on = run(config_of(KERNEL, 'constant', 64)).report['iops']
    off = load(
        workload={'iodepth': 64, 'number_ios': 2500}, target=DISKS['constant'],
        device={'event_idx': False},
    )  # fmt: skip
    assert on > run(off).report['iops'] > said['mva_iops']


@pytest.mark.parametrize(
    ('sections', 'why'),
    [
        ({'target': {'disk': 'hdd-7200'}}, 'head'),
        ({'workload': {'rate_iops': 1000}}, 'hold back'),
        ({'workload': {'iodepth': 64, 'numjobs': 40}}, 'in flight'),
        ({'workload': {'rw': 'randwrite'}, 'target': {'disk': 'nvme-mlc-p3700'}}, 'cache'),
        ({}, ''),
    ],
)
def test_where_product_form_says_nothing_only_the_asymptotic_bounds_are_drawn(sections, why):
    config = load(**sections)
    assert why in no_product_form(config)
    said = said_by_theory(config)
    assert tuple(said) == SAID
    assert said['bound_iops'] > 0
    assert [said[name] is None for name in SAID[2:]] == [bool(why)] * 4


def test_unshared_demands_are_no_less_than_the_least_of_the_same_station():
    for driver in (KERNEL, REACTOR, IOTHREAD):
        config = config_of(driver, 'flash', 4)
        table = costs.of_config(config)
        least, unshared = minimal_demands(config, table), unshared_demands(config, table)
        assert len(unshared) == len(least) + 1  # and the latencies
        assert sum(d for d, _ in unshared) > sum(d for d, _ in least)


# -------------------------------------------------------- the formulas against the simulator


@pytest.mark.parametrize('lanes', [1, 8])
@pytest.mark.parametrize('depth', [4, 24])
def test_a_disk_behind_a_delay_is_what_mean_value_analysis_and_balanced_bounds_say(lanes, depth):
    """The product-form subset: exponential lanes, a constant round trip, CPUs that cost nothing."""
    result = run(
        workload={'iodepth': depth, 'number_ios': 15_000},
        target={
            'kind': 'exponential', 'service': '60us', 'lanes': lanes,
            'network_round_trip': '100us',
        },
        costs_override=free(),
    )  # fmt: skip
    exact = theory.mva(depth, [theory.Station(60e-6, lanes), theory.delay(100e-6)])
    assert result.report['iops'] == pytest.approx(exact.throughput_per_s, rel=0.03)
    assert result.report['latency_ns']['mean'] == pytest.approx(1e9 * exact.response_s, rel=0.03)
    if lanes == 1:
        low, high = theory.balanced_bounds(depth, [60e-6], 100e-6)
        assert low * 0.97 <= result.report['iops'] <= high * 1.03


def drains(lead_ns=0, policy='drain', n=8, count=60):
    """CLEAR_ENDPOINT of so many stops with n exponential requests of 1 ms in flight, in ms."""
    config = load(
        workload={'iodepth': n, 'number_ios': 20 * n},
        target={'kind': 'lanes', 'service': '1ms', 'distribution': 'exponential', 'lanes': 64},
    )
    plan = StopPlan(at=6_000_000, policy=POLICIES[policy], lead=lead_ns)
    reports = [stop(replication(config, number), plan) for number in range(count)]
    return [report['phases_ns']['drain'] / 1e6 for report in reports]


@pytest.mark.parametrize(('policy', 'lead_ms'), [('drain', 0.0), ('quiesce', 1.0)])
def test_a_drain_takes_its_harmonic_number_less_what_a_quiesced_guest_has_drained(policy, lead_ms):
    """Of 60 stops the mean has a standard error of 6 %; H_8 is 2.72, a ms later 1.77 are left."""
    found = drains(round(lead_ms * 1e6), policy)
    expected = theory.mean_drain_left(8, 1.0, lead_ms)
    assert sum(found) / len(found) == pytest.approx(expected, rel=0.2)


def test_what_is_left_of_a_drain_is_the_whole_at_first_and_memoryless_at_the_end():
    assert theory.mean_drain_left(8, 2.0, 0.0) == pytest.approx(
        theory.mean_exponential_drain(8, 2.0, 8)
    )
    assert theory.mean_drain_left(1, 2.0, 3.0) == pytest.approx(2.0 * 2.718281828**-1.5)
    late = [theory.mean_drain_left(8, 1.0, t) for t in (8.0, 9.0)]
    assert late[0] / late[1] == pytest.approx(2.718281828, rel=0.01)


# ------------------------------------------------------------------- outside the bounds it fails


@pytest.fixture
def impossible(monkeypatch):
    """Bounds that every run beats."""
    monkeypatch.setattr('sim.analysis.bounds.minimal_demands', A_SECOND_EACH)


SHORT = ['--set', 'workload.number_ios=300']
MOVING = [
    'workload.number_ios=2000', 'device.migratable=on', 'host.kernel=7.2', 'migration.at=1ms',
    'migration.ram=4m',
]  # fmt: skip
COMMANDS = {
    'run': ['run', *SHORT],
    'replications': ['run', *SHORT, '--set', 'run.replications=2'],
    'stop': ['stop', '--at', '1ms', *SHORT],
    'migrate': ['migrate', *(part for text in MOVING for part in ('--set', text))],
    'whatif': ['whatif', *SHORT, '--free', 'hops'],
    'sensitivity': ['sensitivity', '--set', 'workload.number_ios=20', '--replications', '1'],
}


@pytest.mark.parametrize('command', COMMANDS)
def test_a_command_whose_run_beats_the_bounds_fails_and_says_so(command, impossible, capsys):
    assert main(COMMANDS[command]) == 1
    out, err = capsys.readouterr()
    assert 'leaves room for 1' in out + err
    assert 'violation: ' in out + err


def test_json_has_the_violation(impossible, capsys):
    assert main(['run', *SHORT, '--json']) == 1
    report = json.loads(capsys.readouterr().out)
    assert [text for text in report['violations'] if text.startswith('bounds: ')]
    assert 'bounds' in report['checks']['ran']


# What makes an experiment as short as it goes, by its module's names.
TINY = {
    'backends': {'REQUESTS_QUICK': 100, 'DEPTHS': (1,), 'SWEPT': ('10 µs',)},
    'disks': {
        'DEPTHS_QUICK': (1,), 'DEPTHS': (1,), 'REQUESTS_QUICK': 60, 'REQUESTS_HDD_QUICK': 60,
        'CACHED': {'sata-ssd-s4610': 32}, 'FLUSH_EVERY': (1,),
        'TAILS': {'reads': {'workload.rw': 'randread'}},
    },
    'drain': {'SEEDS_QUICK': 1, 'DEPTHS': (1, 4, 8, 16), 'INSTANTS_MS': (20,)},
    'feature_bits': {'REQUESTS_QUICK': 100},
    'migration_downtime': {
        'SEEDS_QUICK': 2, 'DEPTHS': (4,), 'SERVICES_US': (300,), 'LEADS_US': (0,),
        'DIRTY_SHARES': (0.0,), 'LINKS_GBIT': (40,),
    },
    'queue_depth': {'DEPTHS_QUICK': (1, 16), 'REQUESTS_QUICK': 100},
    'workers': {'JOBS': (2,), 'REQUESTS_QUICK': 200, 'SERIES': {'A': 'unbatched (libaio)'}},
}  # fmt: skip


@pytest.mark.parametrize('name', TINY)
def test_an_experiment_whose_runs_beat_the_bounds_fails_and_says_so(
    name, impossible, tmp_path, capsys, monkeypatch
):
    experiment = next(found for found in experiments() if found.name == name)
    module = __import__(f'experiments.{name}', fromlist=[name])
    for key, value in TINY[name].items():
        monkeypatch.setattr(module, key, value)
    if name == 'feature_bits':
        from experiments.feature_bits import REFERENCE, Load

        few = [REFERENCE, REFERENCE._replace(packed=True)]
        monkeypatch.setattr(module, 'COMBINATIONS', few)
        monkeypatch.setattr(module, 'LOADS_QUICK', (Load(4, 1),))
    if name == 'disks':
        monkeypatch.setattr('sim.formats.disks.disk_presets', lambda: ['sata-ssd-s4610'])
    arguments = ['--quick', '--jobs', '1', '--out', str(tmp_path)]
    assert experiment.main(arguments) == 1
    out, err = capsys.readouterr()
    assert 'bounds: ' in out + err
    assert 'leaves room for 1' in out + err or 'must pass takes' in out + err


def test_who_has_no_rates_is_not_held_against_them():
    """Their runs are walked through boundary by boundary, or are expected to go wrong."""
    assert {found.name for found in experiments()} - set(TINY) == {'incidents', 'stop_flush'}


@pytest.mark.parametrize(
    ('row', 'said'),
    [
        ({'series': 'depth', 'theory_ms': 78, 'clear_ms': 78.2}, 0),
        ({'series': 'depth', 'theory_ms': 78, 'clear_ms': 60.0}, 1),  # left before it was done
        ({'series': 'instant', 'theory_ms': 78, 'clear_ms': 90.0}, 1),  # and long after
        ({'series': 'wbt', 'bound_ms': 78, 'clear_ms': 300.0}, 0),
        ({'series': 'wbt', 'bound_ms': 78, 'clear_ms': 50.0}, 1),
        ({'series': 'law', 'theory_ms': 3.4, 'clear_ms': 0.1}, 0),  # a mean, not a bound
        ({'series': 'race', 'bound_unfetched': 70.0, 'bad_target': 71, 'clear_ms': 1.0}, 0),
        ({'series': 'race', 'bound_unfetched': 70.0, 'bad_target': 60, 'clear_ms': 1.0}, 1),
    ],
)
def test_a_stop_that_breaks_its_law_is_a_violation_of_the_drain_experiment(row, said):
    from experiments.drain import outside

    full = {'iodepth': 4, 'at_ms': 22.0, 'kernel': '6.1', 'outcome': 'ok', 'bad_target': 0} | row
    assert len(outside([full])) == said


def test_the_drain_experiment_fails_where_a_stop_does_not_wait(tmp_path, capsys, monkeypatch):
    """CLEAR_ENDPOINT is timed as if it had come back at once."""
    from experiments import drain

    simulate = drain.simulate

    @functools.wraps(simulate)
    def hasty(*arguments):
        return simulate(*arguments) | {'clear_ms': 0.2}

    for key, value in (TINY['drain'] | {'simulate': hasty}).items():
        monkeypatch.setattr(drain, key, value)
    assert drain.EXPERIMENT.main(['--quick', '--jobs', '1', '--out', str(tmp_path)]) == 1
    assert 'violation: law: depth' in capsys.readouterr().out
