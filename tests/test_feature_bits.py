"""Whole runs over every combination of ring features, and what each of them does to a run."""

import dataclasses
import itertools
import json

import numpy as np
import pandas as pd
import pytest

from experiments import feature_bits
from experiments.feature_bits import COMBINATIONS, REFERENCE, Combination
from sim import backend, costs, invariants, machine, vring
from sim.__main__ import main
from sim.config import load
from sim.run import run

EXPONENTIAL = {'kind': 'exponential', 'service': '60us', 'lanes': 8}


def config_of(bits: Combination, **sections):
    """A config with these bits, by hypothesis where need be."""
    device = dict(zip(feature_bits.BITS, bits, strict=True)) | sections.pop('device', {})
    beyond = {'hypothetical': bits.packed or bits.in_order} | sections.pop('run', {})
    return load(device=device, run=beyond, guest={'kernel': '7.2'}, **sections)


def free_lines(config) -> costs.Costs:
    """The costs of a config, with every access to memory free."""
    table = costs.of_config(config)
    return dataclasses.replace(table, line_hit=0, line_shared=0, line_transfer=0, line_cold=0)


# ------------------------------------------------------------------------------ every combination


@pytest.mark.parametrize('bits', COMBINATIONS, ids=str)
@pytest.mark.parametrize(
    'work',
    [
        {'iodepth': 8},
        {'iodepth': 32, 'iodepth_batch_submit': 32, 'iodepth_batch_complete_min': 16},
        {'iodepth': 16, 'rw': 'randrw', 'size': '64k', 'time_based': True, 'runtime': '3ms'},
        {'iodepth': 4, 'rw': 'randwrite', 'bs': '64k', 'number_ios': 200},
    ],
    ids=['reads', 'batches', 'rewrites', 'long'],
)
def test_all_complete_once_and_no_rule_is_broken(bits, work):
    work = work if 'runtime' in work else {'number_ios': 600} | work
    result = run(config_of(bits, workload=work, target=EXPONENTIAL))
    assert result.violations == []
    assert (result.requests['outcome'] == 'ok').all()
    assert result.report['ring_errors'] == 0


@pytest.mark.parametrize('bits', COMBINATIONS, ids=str)
def test_a_small_ring_fills_up_and_wraps_many_times(bits):
    result = run(
        config_of(
            bits,
            workload={'iodepth': 24, 'number_ios': 700},
            device={'virtqueue_size': 16},
            target=EXPONENTIAL,
        )
    )
    assert result.violations == []
    assert result.report['avail_ahead_max'] <= 16
    if not bits.indirect_desc:
        assert result.report['requests_requeued'] > 0  # three descriptors for each request


def test_a_ring_that_was_overrun_is_noticed():
    world = machine.build(load(), costs.of_config(load()))
    world.st[world.host_queues[0] + int(backend.Q_AHEAD_MAX)] = 129
    assert invariants.ring_never_overrun(world) == [
        'ring: 129 entries stood in vq 2, which has 128'
    ]


@pytest.mark.parametrize('packed', [False, True])
def test_a_ring_lies_where_linux_puts_it(packed):
    config = config_of(REFERENCE._replace(packed=packed))
    world = machine.build(config, costs.of_config(config))
    device = world.devices[0]
    desc, driver, used = (
        world.field(device, name) for name in (vring.V_DESC, vring.V_AVAIL, vring.V_USED)
    )
    if packed:  # three allocations, each of whole pages
        assert {place % 4096 for place in (desc, driver, used)} == {0}
        assert len({desc // 4096, driver // 4096, used // 4096}) == 3
    else:
        assert (desc % 4096, driver, used) == (0, desc + 0x800, desc + 0x940)


@pytest.mark.parametrize('packed', [False, True])
def test_queues_of_several_jobs_have_rings_of_their_own(packed):
    bits = REFERENCE._replace(packed=packed)
    work = {'numjobs': 3, 'iodepth': 4, 'number_ios': 300}
    result = run(config_of(bits, workload=work, target=EXPONENTIAL))
    assert result.violations == []
    assert result.requests['queue'].nunique() == 3


# -------------------------------------------------------------------------------------- in order


@pytest.mark.parametrize('packed', [False, True])
@pytest.mark.parametrize('in_order', [False, True])
def test_in_order_uses_buffers_in_the_order_of_their_fetch(packed, in_order):
    bits = REFERENCE._replace(packed=packed, in_order=in_order)
    requests = run(
        config_of(bits, workload={'iodepth': 16, 'number_ios': 600}, target=EXPONENTIAL)
    ).requests
    used = requests.sort_values('t_fetch_ns')['t_used_ns'].to_numpy(dtype=np.int64)
    assert (np.diff(used) >= 0).all() == in_order


def test_in_order_makes_the_quick_wait_for_the_slow():
    work = {'iodepth': 16, 'number_ios': 1500}
    off, on = (
        run(config_of(REFERENCE._replace(in_order=on), workload=work, target=EXPONENTIAL)).report
        for on in (False, True)
    )
    assert on['stages_ns']['used'] > 10 * off['stages_ns']['used']
    assert on['iops'] < off['iops']
    assert on['latency_ns']['mean'] > off['latency_ns']['mean']


def test_in_order_costs_next_to_nothing_where_the_disk_keeps_the_order():
    work = {'iodepth': 16, 'number_ios': 1500}
    off, on = (
        run(config_of(REFERENCE._replace(in_order=on), workload=work)).report
        for on in (False, True)
    )
    assert on['latency_ns']['mean'] == pytest.approx(off['latency_ns']['mean'], rel=0.05)


# ------------------------------------------------------------------------------ signs, mechanisms


@pytest.mark.parametrize(
    'work',
    [
        {'iodepth': 1},
        {'iodepth': 32, 'iodepth_batch_submit': 32, 'iodepth_batch_complete_min': 32},
    ],
    ids=['one', 'batches'],
)
def test_packed_touches_fewer_lines_and_costs_the_worker_less(work):
    def worker_and_lines(packed):
        bits = REFERENCE._replace(packed=packed)
        report = run(config_of(bits, workload={'number_ios': 1500} | work)).report
        busy = report['busy']['vhost'] * report['simulated_seconds']
        return busy, report['line_transfers_per_request']

    (split_busy, split_lines), (packed_busy, packed_lines) = map(worker_and_lines, (False, True))
    assert packed_lines < split_lines
    assert packed_busy < split_busy


def test_at_depth_one_all_combinations_differ_by_their_lines_alone():
    configs = [config_of(bits, workload={'iodepth': 1, 'number_ios': 300}) for bits in COMBINATIONS]
    priced = [run(c).report['latency_ns']['mean'] for c in configs]
    free = [run(c, costs_override=free_lines(c)).requests['latency_ns'] for c in configs]
    by_bits = dict(zip(COMBINATIONS, priced, strict=True))
    for bits in COMBINATIONS:
        if bits.packed:
            assert by_bits[bits] < by_bits[bits._replace(packed=False)]
    assert all((latencies == free[0]).all() for latencies in free)


def test_event_idx_saves_the_guest_what_its_notifications_cost():
    def guest_cycles(event_idx, free):
        bits = REFERENCE._replace(event_idx=event_idx)
        work = {'iodepth': 32, 'number_ios': 2000}
        config = config_of(bits, workload=work, target=EXPONENTIAL)
        table = free_lines(config) if free else costs.of_config(config)
        if free:
            nothing = dict.fromkeys(('kick_exit', 'kick_signal', 'kick_return'), 0)
            nothing |= dict.fromkeys(('irq_entry', 'irq_return'), 0)
            table = dataclasses.replace(table, **nothing)
        report = run(config, costs_override=table).report
        return report['busy']['vcpu0'] * report['simulated_seconds']

    assert guest_cycles(False, free=False) > 1.04 * guest_cycles(True, free=False)
    assert guest_cycles(False, free=True) == pytest.approx(guest_cycles(True, free=True), rel=0.01)


@pytest.mark.parametrize('packed', [False, True])
@pytest.mark.parametrize('iodepth', [1, 8, 32])
def test_event_idx_never_notifies_more_often(packed, iodepth):
    on, off = (
        run(
            config_of(
                REFERENCE._replace(packed=packed, event_idx=event_idx),
                workload={'iodepth': iodepth, 'number_ios': 1500},
                target=EXPONENTIAL,
            )
        ).report
        for event_idx in (True, False)
    )
    assert on['kicks'] <= off['kicks']
    assert on['kicks'] + on['interrupts'] <= off['kicks'] + off['interrupts']
    # Interrupts alone may come out a little higher: a side that is quicker gathers less.
    assert on['interrupts'] <= 1.03 * off['interrupts']


# ------------------------------------------------------------------------------------- hypothesis


def test_every_output_of_a_hypothetical_run_says_so(tmp_path, capsys):
    arguments = ['run', '--device', 'vhost-scsi-pci,packed=on', '--set', 'run.hypothetical=on']
    arguments += ['--set', 'workload.number_ios=200', '--out', str(tmp_path)]
    assert main(arguments) == 0
    assert 'hypothetical: VIRTIO_F_RING_PACKED' in capsys.readouterr().out
    (place,) = tmp_path.iterdir()
    report = json.loads((place / 'report.json').read_text())
    assert report['hypothetical'] == ['VIRTIO_F_RING_PACKED']
    summary = pd.read_csv(place / 'summary.csv', index_col='metric')['value']
    assert summary['hypothetical.VIRTIO_F_RING_PACKED'] == 1
    requests = pd.read_parquet(place / 'requests.parquet')
    assert json.loads(requests.attrs['provenance'])['hypothetical'] == report['hypothetical']
    assert 'hypothetical = true' in (place / 'config.toml').read_text()


def test_a_real_run_says_that_nothing_is_hypothetical():
    result = run(workload={'number_ios': 100}, device={'event_idx': False})
    assert result.report['hypothetical'] == []


# ------------------------------------------------------------------------------------- experiment


def test_the_experiment_compares_pairs_and_draws(tmp_path, monkeypatch, capsys):
    few = [REFERENCE, REFERENCE._replace(packed=True), REFERENCE._replace(in_order=True)]
    monkeypatch.setattr(feature_bits, 'COMBINATIONS', few)
    monkeypatch.setattr(feature_bits, 'LOADS_QUICK', (feature_bits.Load(4, 1),))
    monkeypatch.setattr(feature_bits, 'REQUESTS_QUICK', 300)
    arguments = ['--quick', '--json', '--seed', '7', '--out', str(tmp_path)]
    assert feature_bits.EXPERIMENT.main(arguments) == 0
    told = json.loads(capsys.readouterr().out)
    assert told['seed'] == 7
    rows = {(row['disk'], row['combination']): row for row in told['rows']}
    assert len(rows) == len(told['rows']) == 6
    for (_, name), row in rows.items():
        for metric, step in itertools.product(feature_bits.METRICS, ('delta', 'half_width')):
            assert (row[f'{metric}_{step}'] == 0) or name != str(REFERENCE)
    packed = rows['out of order', 'packed INDIRECT EVENT_IDX']
    assert packed['line_transfers_delta'] < 0
    assert packed['hypothetical'] == 'VIRTIO_F_RING_PACKED'
    assert (tmp_path / 'feature_bits.csv').is_file()
    assert (tmp_path / 'heat-map.png').stat().st_size > 10_000
    assert (tmp_path / 'one-bit.png').stat().st_size > 10_000
