"""docs/background/small_simulator.py: where both have a thing, it agrees with the model."""

import ast
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from sim import costs
from sim.config import load
from sim.run import run
from sim.units import cycles_to_ns

PLACE = Path(__file__).resolve().parent.parent / 'docs/background/small_simulator.py'
HZ = 2_600_000_000
FREE = {
    'mem': {'l1_hit': 0, 'l3_hit': 0, 'dram_local': 0},
    'cacheline': {'transfer_same_socket': 0},
    'vcpu': {'halt_wake_penalty_no_poll': 0},
}
NAMES = {
    'io_submit': 'guest_io_submit',
    'io_getevents': 'guest_io_getevents',
    'submit': 'guest_submit',
    'complete': 'guest_complete',
    'exit': 'kick_exit',
    'signal': 'kick_signal',
    'wakeup': 'kick_wakeup',
    'back': 'kick_return',
    'inject': 'irq_inject',
    'entry': 'irq_entry',
    'leave': 'irq_return',
    'wake': 'worker_wake',
    'pop': 'worker_pop',
    'hand_over': 'worker_submit',
    'answer': 'worker_complete',
    'hop': 'lio_hop',
    'lio_submit': 'lio_submit',
    'lio_complete': 'lio_complete',
}
MOMENTS = ('arrive', 'fetch', 'issue', 'done', 'used', 'complete')


@pytest.fixture(scope='module')
def small():
    spec = importlib.util.spec_from_file_location('small_simulator', PLACE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def config(depth=1, service_us=10, lanes=32, **over):
    return load(
        workload={'iodepth': depth, 'number_ios': 1000},
        target={'kind': 'constant', 'service': f'{service_us}us', 'lanes': lanes},
        costs=FREE | over,
        run={'warmup': 'off'},
    )


def times(found):
    """Its moments in ns, as the model's table has them."""
    return np.array([[cycles_to_ns(r[m], HZ) for m in MOMENTS] for r in found.requests])


def of_the_model(result):
    return result.requests[[f't_{m}_ns' for m in MOMENTS]].to_numpy(dtype=np.int64)


@pytest.mark.parametrize(('service_us', 'lanes'), [(10, 32), (3, 1), (40, 4)])
@pytest.mark.parametrize('depth', [1, 2, 3, 5, 8, 16, 33, 64, 128])
def test_every_request_has_the_same_times_in_both(small, depth, service_us, lanes):
    found = small.Machine(depth, ios=1000, service=2600 * service_us, lanes=lanes)
    result = run(config(depth, service_us, lanes))
    np.testing.assert_array_equal(times(found), of_the_model(result))


def test_with_other_costs_too(small):
    over = {'lio': {'workqueue_hop_latency_qd1': 300}, 'guest': {'submit_per_cmd_batched': 2000}}
    result = run(config(24, 7, 3, **over))
    table = costs.of_config(result.config)
    mine = {name: getattr(table, field) for name, field in NAMES.items()}
    assert mine != small.COSTS
    found = small.Machine(24, ios=1000, service=2600 * 7, lanes=3, costs=mine)
    np.testing.assert_array_equal(times(found), of_the_model(result))


@pytest.mark.parametrize('name', sorted(NAMES))
def test_every_cost_is_looked_at(small, name):
    """The comparison above would fail if either had a cost that is a tenth larger."""
    more = small.COSTS | {name: small.COSTS[name] * 11 // 10}
    alike = [
        times(small.Machine(depth, ios=100, service=26_000, lanes=4, costs=more)).tolist()
        == times(small.Machine(depth, ios=100, service=26_000, lanes=4)).tolist()
        for depth in (1, 16)
    ]
    assert not all(alike)


def test_without_event_idx_arithmetic_they_part(small, monkeypatch):
    monkeypatch.setattr(small, 'need_event', lambda event, new, old: True)
    found = small.Machine(16, ios=1000, service=26_000)
    assert (times(found) != of_the_model(run(config(16)))).any()


def test_its_costs_are_those_of_the_preset(small):
    table = costs.of_config(config())
    assert {name: getattr(table, field) for name, field in NAMES.items()} == small.COSTS


def test_it_is_small_and_stands_alone():
    text = PLACE.read_text()
    assert len(text.splitlines()) <= 120
    imports = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in imports] == ['import simpy']
