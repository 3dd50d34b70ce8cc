"""What must hold of any such system, whatever its costs: physics before golden numbers."""

import dataclasses

import numpy as np
import pytest

from sim import agents, costs, reference_path
from sim.analysis import bounds, theory
from sim.config import load
from sim.disks.fields import D_SERVICE, S_MEAN
from sim.run import finish, prepare, run

EXPONENTIAL = {'kind': 'exponential', 'service': '60us', 'lanes': 8}


def free_costs() -> costs.Costs:
    """A machine whose CPUs take no time at all."""
    zero = {field.name: 0 for field in dataclasses.fields(costs.Costs)}
    return costs.Costs(**zero | {'vcpu_halt_poll': 1 << 60})


@pytest.mark.parametrize('iodepth', [1, 4, 8, 32])
def test_without_cpu_costs_throughput_is_what_mean_value_analysis_says(iodepth):
    result = run(
        workload={'iodepth': iodepth, 'number_ios': 20_000},
        target=EXPONENTIAL,
        costs_override=free_costs(),
    )
    disk = theory.Station(60e-6, servers=8)
    expected = theory.mva(iodepth, [disk]).throughput_per_s
    # 20,000 exponential services: the mean of the sample has a relative error of 0.7 %.
    assert result.report['iops'] == pytest.approx(expected, rel=0.025)
    assert result.violations == []


@pytest.mark.parametrize('utilisation', [0.3, 0.7])
@pytest.mark.parametrize('lanes', [1, 8])
def test_without_cpu_costs_an_open_loop_is_the_queue_of_the_textbooks(utilisation, lanes):
    """Poisson arrivals, exponential service, c servers: the mean latency is Erlang's."""
    service = 60e-6
    rate = utilisation * lanes / service
    result = run(
        workload={
            'rate_iops': round(rate), 'rate_process': 'poisson', 'io_submit_mode': 'offload',
            'iodepth': 512, 'number_ios': 60_000,
        },
        target={'kind': 'exponential', 'service': '60us', 'lanes': lanes},
        costs_override=free_costs(),
    )  # fmt: skip
    expected = theory.mmc_response(rate, service, lanes)
    assert result.report['latency_ns']['mean'] == pytest.approx(expected * 1e9, rel=0.03)
    assert result.violations == []


@pytest.mark.parametrize(('distribution', 'variation'), [('constant', 0), ('exponential', 1)])
def test_without_cpu_costs_one_lane_is_an_mg1_queue(distribution, variation):
    result = run(
        workload={
            'rate_iops': 12_000, 'rate_process': 'poisson', 'io_submit_mode': 'offload',
            'iodepth': 512, 'number_ios': 60_000,
        },
        target={'kind': 'lanes', 'distribution': distribution, 'service': '60us', 'lanes': 1},
        costs_override=free_costs(),
    )  # fmt: skip
    expected = theory.mg1_response(12_000, 60e-6, variation)
    assert result.report['latency_ns']['mean'] == pytest.approx(expected * 1e9, rel=0.03)


@pytest.mark.parametrize('kind', ['null', 'constant'])
@pytest.mark.parametrize('iodepth', [1, 16, 256])
def test_with_real_costs_it_stays_inside_the_asymptotic_bounds(kind, iodepth):
    config = load(workload={'iodepth': iodepth, 'number_ios': 4000}, target={'kind': kind})
    report = run(config).report
    most, least = bounds.bounds(config)
    assert report['iops'] <= most
    assert report['fio_lat_ns']['mean'] >= least * 1e9


@pytest.mark.parametrize('target', [{'kind': 'null'}, {'kind': 'constant', 'service': '50us'}])
@pytest.mark.parametrize('iodepth', [1, 64])
def test_a_model_that_charges_too_little_is_caught_by_the_bounds(target, iodepth):
    """The same run by a machine that forgets most of every cost, its disk too: it is too good."""
    config = load(workload={'iodepth': iodepth, 'number_ios': 4000}, target=target)
    table = costs.of_config(config)
    few = {name: value // 10 for name, value in dataclasses.asdict(table).items()}
    engine, _ = prepare(config, costs_override=costs.Costs(**few))
    st = engine.machine.st
    for slot in engine.machine.slots_of(agents.DISK):
        disk = np.uint64(engine.machine.bases[slot])
        st[np.uint64(st[disk + D_SERVICE]) + S_MEAN] //= 10
    engine.run()
    broken = finish(config, engine, 0.0)
    assert [text for text in broken.violations if text.startswith('bounds: ')]
    assert broken.report['violations'] == broken.violations
    right = run(config)
    assert right.violations == []
    assert 'bounds' in right.report['checks']['ran']


def test_what_ends_requests_early_is_not_held_against_the_bounds():
    report = run(workload={'number_ios': 200, 'rw': 'randwrite', 'fsync': 8}).report
    assert 'bounds' in report['checks']['skipped']
    assert report['violations'] == []


def test_a_null_target_is_a_lower_bound():
    work = {'iodepth': 8, 'number_ios': 2000}
    null = run(workload=work, target={'kind': 'null'}).report['latency_ns']
    for kind in ('constant', 'exponential'):
        other = run(workload=work, target={'kind': kind, 'service': '2us'}).report['latency_ns']
        assert null['mean'] < other['mean']


def test_doubling_every_cost_doubles_every_timestamp():
    config = load(
        workload={'iodepth': 16, 'number_ios': 3000, 'rw': 'randrw'}, target={'service': '80us'}
    )
    slow = load(
        workload={'iodepth': 16, 'number_ios': 3000, 'rw': 'randrw'}, target={'service': '160us'}
    )
    table = costs.of_config(config)
    once = run(config, costs_override=table).requests
    twice = run(slow, costs_override=table.scaled(2)).requests
    # 2.6 GHz is 13/5 cycles per ns: compare cycles, which ns round down.
    for name in [c for c in once if c.startswith('t_')]:
        gap = twice[name].to_numpy(dtype=np.int64) - 2 * once[name].to_numpy(dtype=np.int64)
        assert set(np.unique(gap)) <= {0, 1}, name
    assert (once['kick'] == twice['kick']).all()


def test_same_seed_same_digest_other_seed_other_digest():
    def digest(seed):
        return run(workload={'number_ios': 500, 'iodepth': 4}, run={'seed': seed}).report['digest']

    assert digest(1) == digest(1)
    assert digest(1) != digest(2)


def test_watching_changes_nothing():
    work = {'number_ios': 1000, 'iodepth': 8, 'rw': 'randrw'}
    watched = run(workload=work, target=EXPONENTIAL)
    alone = run(workload=work, target=EXPONENTIAL, check=False, record_requests=False)
    assert alone.requests.empty
    for key in ('steps', 'engine_calls', 'kicks', 'interrupts', 'simulated_seconds', 'lines'):
        assert watched.report[key] == alone.report[key]


def test_iodepth_beyond_the_ring_waits_in_the_block_layer():
    work = {'iodepth': 100, 'number_ios': 4000}
    device = {'indirect_desc': False, 'virtqueue_size': 128}
    slow = {'kind': 'constant', 'service': '500us', 'lanes': 256}
    report = run(workload=work, device=device, target=slow).report
    assert report['avail_ahead_max'] <= 128 // 3  # three descriptors for each request
    assert report['requests_requeued'] > 0
    assert report['stages_ns']['submit'] > 100_000
    roomy = run(workload=work, target=slow).report
    assert roomy['requests_requeued'] == 0
    assert report['violations'] == roomy['violations'] == []


def test_iodepth_beyond_the_tags_puts_the_thread_to_sleep():
    slow = {'kind': 'constant', 'service': '2ms', 'lanes': 256}
    report = run(workload={'iodepth': 256, 'number_ios': 2000}, target=slow).report
    assert report['requests_completed'] == 2000
    assert report['iops'] == pytest.approx(128 / 2.03e-3, rel=0.05)  # 128 tags, not 256
    assert report['violations'] == []


def test_event_idx_saves_kicks_where_the_worker_is_busy():
    work = {'iodepth': 32, 'number_ios': 5000}
    on = run(workload=work, target=EXPONENTIAL).report
    off = run(workload=work, target=EXPONENTIAL, device={'event_idx': False}).report
    assert on['kicks'] < off['kicks']


def test_line_costs_emerge_from_sharing_and_go_when_lines_are_free():
    config = load(workload={'iodepth': 1, 'number_ios': 500})
    table = costs.of_config(config)
    free = dataclasses.replace(table, line_hit=0, line_shared=0, line_transfer=0, line_cold=0)
    with_lines = run(config, costs_override=table).report['latency_ns']['p50']
    without = run(config, costs_override=free).report['latency_ns']['p50']
    lines = reference_path.reference_lines(table.line_prices)
    on_path = lines.guest_submit + lines.guest_complete + lines.worker_pop + lines.worker_complete
    assert 0 < with_lines - without <= on_path / 2.6 * 1.2


def test_on_the_reference_path_shares_and_lines_add_up_to_the_measured_total():
    # One request at a time: the worker's busy time per request is its published 1950 ns.
    report = run(workload={'iodepth': 1, 'number_ios': 2000, 'rw': 'read'}).report
    per_request = report['busy']['vhost'] * report['simulated_seconds'] / 2000
    assert per_request == pytest.approx(1950e-9, rel=0.02)
