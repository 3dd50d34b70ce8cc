"""Sensitivity: elasticities against what the sum of a chain says, and which guesses are listed."""

import json

import pytest

from sim.__main__ import main
from sim.config import load
from sim.costs import MODEL_PARAMETERS
from sim.pools import Here
from sim.studies.sensing import printed
from sim.studies.sensitivity import costs_of, sensitivity

HOP = 'lio.workqueue_hop_latency_qd1'
CONFIG = {
    'workload': {'iodepth': 1, 'number_ios': 40},
    'target': {'kind': 'constant', 'service': '10us'},
    'run': {'warmup': '10'},
}


@pytest.fixture(scope='module')
def found():
    return sensitivity(
        load(**CONFIG), Here(), outputs=('iops', 'latency_ns.mean'), step=0.1, replications=1
    )


def row(found, cost, output='latency_ns.mean'):
    return next(r for r in found['rows'] if (r['cost'], r['output']) == (cost, output))


def test_the_elasticity_of_a_hop_is_its_share_of_the_chain(found):
    share = 2 * 2000 / found['base']['latency_ns.mean']  # two hops of 2 us in a request
    assert row(found, HOP)['elasticity'] == pytest.approx(share, rel=0.05)
    assert row(found, HOP, 'iops')['elasticity'] < 0


def test_all_elasticities_add_up_to_what_is_not_the_disk(found):
    """Latency is a sum of costs at depth 1: homogeneous of degree one in all of them together."""
    costs = 1 - 10_000 / found['base']['latency_ns.mean']
    total = sum(
        r['elasticity'] or 0
        for r in found['rows']
        if r['output'] == 'latency_ns.mean' and r['unit'] == 'cycles'
    )
    assert total == pytest.approx(costs, rel=0.05)


def test_a_cost_that_nobody_pays_moves_nothing(found):
    assert row(found, 'vcpu.halt_wake_penalty_no_poll')['moves'] == 0  # the host polls


def test_guesses_that_matter_are_listed_the_largest_first(found):
    names = [guess['cost'] for guess in found['guesses']]
    assert names[0] == HOP
    moves = [guess['moves'] for guess in found['guesses']]
    assert moves == sorted(moves, reverse=True)
    assert min(moves) > 0.05
    assert all(row(found, guess['cost'])['grade'] == 'C' for guess in found['guesses'])


def test_its_range_is_the_presets_whatever_the_config_says_of_the_cost():
    config = load(**CONFIG, costs={HOP: '3us'})
    cost = next(c for c in costs_of(config) if c.name == HOP)
    assert (cost.value, cost.minimum, cost.maximum) == (7800, 2600, 13000)
    assert {c.name for c in costs_of(config)} == MODEL_PARAMETERS


def test_the_command(capsys):
    sets = ['workload.iodepth=1', 'workload.number_ios=30']
    flags = [part for text in sets for part in ('--set', text)]
    flags += ['--replications', '2', '--output', 'busy.vhost']
    assert main(['sensitivity', *flags, '--json']) == 0
    data = json.loads(capsys.readouterr().out)
    assert {'base', 'rows', 'guesses', 'runs'} <= data.keys()
    assert any(r['half_width'] is not None for r in data['rows'])
    text = printed(data)
    assert 'busy.vhost' in text
    assert 'guesses (grade C)' in text


@pytest.mark.parametrize(
    'wrong', [['--step', '0'], ['--replications', '0'], ['--output', 'no.such'], ['--set', 'a=b']]
)
def test_what_makes_no_sense(wrong, capsys):
    assert main(['sensitivity', '--set', 'workload.number_ios=20', *wrong]) == 2
    assert capsys.readouterr().err.count('\n') == 1
