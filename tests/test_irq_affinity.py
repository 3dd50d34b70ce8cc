"""vCPUs and request queues: who submits where, who is interrupted."""

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import costs, guest, machine
from sim.config import load
from sim.driver.affinity import groups, queue_of
from sim.run import run


@given(st.integers(1, 70), st.data())
def test_neighbours_are_together_and_no_group_is_larger_by_two(vcpus, data):
    queues = data.draw(st.integers(1, vcpus))
    found = groups(vcpus, queues)
    assert list(chain(*found)) == list(range(vcpus))
    sizes = [len(group) for group in found]
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes) - min(sizes) <= 1
    assert all(queue_of(vcpu, vcpus, queues) == q for q, each in enumerate(found) for vcpu in each)


@pytest.mark.parametrize(
    ('vcpus', 'queues', 'wanted'),
    [(4, 4, [0, 1, 2, 3]), (4, 2, [0, 0, 1, 1]), (8, 3, [0, 0, 0, 1, 1, 1, 2, 2])],
)
def test_the_map_of_blk_mq(vcpus, queues, wanted):
    assert [queue_of(vcpu, vcpus, queues) for vcpu in range(vcpus)] == wanted


def test_the_guest_submits_and_is_interrupted_accordingly():
    config = load(workload={'numjobs': 5, 'number_ios': 40}, device={'num_queues': 2})
    world = machine.build(config, costs.of_config(config))
    vectors = [world.field(q, guest.G_VCPU) for q in world.guest_queues]
    assert [world.bases.index(vcpu) for vcpu in vectors] == [0, 3]
    requests = run(config).requests
    found = requests.groupby('clone')['queue'].agg(['min', 'max'])
    assert found['min'].tolist() == found['max'].tolist() == [0, 0, 0, 1, 1]
