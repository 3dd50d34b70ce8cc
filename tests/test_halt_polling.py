"""How long KVM polls for a halted vCPU, and what that saves."""

import dataclasses

from sim import costs
from sim.config import load
from sim.run import run

QUIET = {'kind': 'constant', 'lanes': 32}


def wakes(service, halt_poll_ns=200_000, *, kernel='6.12', number_ios=100):
    """How often the host has to wake the vCPU of a job with one request at a time."""
    config = load(
        workload={'number_ios': number_ios},
        target=QUIET | {'service': service},
        guest={'halt_poll_ns': halt_poll_ns},
        host={'kernel': kernel},
    )
    return run(config).report['vcpu_wakes']


def test_the_window_doubles_until_it_holds_a_halt():
    # Halts of some 90 us: 0, 10, 20, 40 and 80 us are too short, 160 us are enough.
    assert wakes('80us') == 5


def test_halts_that_no_window_may_hold_are_not_polled_for():
    assert wakes('1ms') == 100
    assert wakes('80us', halt_poll_ns=0) == 100
    assert wakes('80us', halt_poll_ns=50_000) == 100


def test_a_long_halt_takes_the_window_away_and_an_older_kernel_takes_all_of_it():
    def mixed(kernel):
        config = load(
            workload={'number_ios': 400},
            target={'kind': 'lanes', 'distribution': 'exponential', 'service': '100us', 'lanes': 1},
            host={'kernel': kernel},
        )
        return run(config).report['vcpu_wakes']

    beyond = mixed('6.12')
    assert 400 * 0.1 < beyond < 400 * 0.6  # e**-2 = 14 % of the halts are longer than 200 us
    assert mixed('6.1') > beyond


def test_a_polled_halt_is_shorter_by_the_wake_up():
    def latency(halt_poll_ns):
        config = load(
            workload={'number_ios': 200}, target=QUIET, guest={'halt_poll_ns': halt_poll_ns}
        )
        table = costs.of_config(config)
        return run(config).report['latency_ns']['p50'], table.vcpu_halt_wake

    polled, wake = latency(10**9)
    woken, _ = latency(0)
    assert abs(woken - polled - wake / 2.6) < 2


def test_where_a_wake_up_costs_nothing_the_window_changes_no_latency():
    def latencies(halt_poll_ns):
        config = load(
            workload={'number_ios': 200}, target=QUIET, guest={'halt_poll_ns': halt_poll_ns}
        )
        table = dataclasses.replace(costs.of_config(config), vcpu_halt_wake=0)
        return run(config, costs_override=table).requests['latency_ns'].tolist()

    assert latencies(0) == latencies(200_000)
