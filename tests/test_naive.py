"""The naive model is a fair yardstick only if it is a right one."""

import pytest
import simpy

from benchmarks.naive import CPU_HZ, Costs, run_naive
from sim.analysis.theory import asymptotic_bounds, littles_law_gap

COSTS = Costs()
SERVICE_CYCLES = 156_000


@pytest.mark.parametrize(("iodepth", "lanes"), [(1, 1), (4, 8), (32, 8), (64, 64)])
def test_throughput_lies_within_the_asymptotic_bounds(iodepth, lanes):
    result = run_naive(iodepth, lanes, SERVICE_CYCLES, number_ios=4000, seed=1, exponential=False)
    demands_cycles = [
        COSTS.vcpu, COSTS.worker, COSTS.lio_cpu, COSTS.lio_cpu, SERVICE_CYCLES, COSTS.latency
    ]  # fmt: skip
    servers = [1, 1, 1, 1, lanes, float("inf")]
    demands_s = [cycles / CPU_HZ for cycles in demands_cycles]
    highest_iops, _ = asymptotic_bounds(iodepth, demands_s, servers=servers)
    assert 0.7 * highest_iops < result["iops"] <= highest_iops
    if lanes == 8 and iodepth == 32:
        assert result["iops"] == pytest.approx(highest_iops, rel=0.01)  # the lanes never idle


@pytest.mark.parametrize("exponential", [False, True])
def test_the_requests_in_flight_are_throughput_times_latency(exponential):
    result = run_naive(16, 8, SERVICE_CYCLES, 5000, seed=2, exponential=exponential)
    gap = littles_law_gap(16, result["iops"], result["mean_latency_ns"] / 1e9)
    assert gap < 0.01


def test_a_request_alone_takes_the_sum_of_its_stages():
    """Nobody else is there, so the worker sleeps before the kick and before the completion."""
    result = run_naive(1, 1, SERVICE_CYCLES, number_ios=10, seed=1, exponential=False)
    cycles = (
        COSTS.vcpu + COSTS.worker + 2 * COSTS.worker_wake + 2 * COSTS.lio_cpu + COSTS.latency
    ) + SERVICE_CYCLES
    assert result["simulated_cycles"] == 10 * cycles
    assert result["mean_latency_ns"] == pytest.approx(cycles * 1e9 / CPU_HZ)


def test_exponential_service_has_the_mean_that_was_asked_for():
    """With one lane that never idles, the run is as long as its service times."""
    result = run_naive(8, 1, SERVICE_CYCLES, number_ios=5000, seed=3)
    assert result["simulated_cycles"] / 5000 == pytest.approx(SERVICE_CYCLES, rel=0.05)


def test_the_count_of_events_is_the_count_of_steps_simpy_takes(monkeypatch):
    steps = 0
    step = simpy.Environment.step

    def counting_step(env):
        nonlocal steps
        steps += 1
        step(env)

    monkeypatch.setattr(simpy.Environment, "step", counting_step)
    result = run_naive(number_ios=500)
    assert result["events"] == steps
    assert result["ios"] == 500
    assert 24 <= result["events"] / result["ios"] <= 32


def test_a_seed_repeats_a_run_and_another_does_not():
    def outcome(seed):
        result = run_naive(number_ios=300, seed=seed)
        return {key: value for key, value in result.items() if key != "wall_seconds"}

    assert outcome(1) == outcome(1) != outcome(2)
