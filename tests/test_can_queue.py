"""A cap on the commands of a whole device: what it holds back, and that nothing is forgotten."""

import pytest

from sim.config import load
from sim.run import run


def report(cap, **workload):
    sections = {'guest': {} if cap is None else {'can_queue': cap}}
    config = load(
        workload={'iodepth': 16, 'numjobs': 2, 'number_ios': 300} | workload,
        device={'num_queues': 2},
        target={'kind': 'constant', 'service': '50us', 'lanes': 64, 'luns': 2},
        run={'seed': 7},
        **sections,
    )
    result = run(config)
    assert result.violations == []
    assert (result.requests['outcome'] == 'ok').all()
    return result.report


def test_a_cap_holds_back_what_the_luns_and_rings_would_take():
    free, capped = report(None), report(8)
    # Eight at a time of 50 us each, whatever the depth asked for.
    assert capped['iops'] <= 8 / 50e-6
    assert free['iops'] > 1.5 * capped['iops']


def test_a_cap_that_does_not_bind_changes_nothing():
    assert report(64)['event_digest'] == report(None)['event_digest']


@pytest.mark.parametrize('cap', [1, 3])
def test_with_very_little_nobody_waits_for_ever(cap):
    assert report(cap, number_ios=60)['requests_completed'] == 120
