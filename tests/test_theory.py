"""Bounds, mean-value analysis and Little's law, against solutions found by other means."""

import itertools
import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.analysis.theory import (
    Station,
    asymptotic_bounds,
    balanced_bounds,
    delay,
    drain_time,
    littles_law_gap,
    mean_exponential_drain,
    mg1_response,
    mmc_response,
    mva,
)
from sim.run import run

demands = st.floats(min_value=1e-6, max_value=1e-2)
stations = st.lists(
    st.builds(Station, demands, st.sampled_from([1, 2, 8, 64, math.inf])), min_size=1, max_size=5
)


def solve_markov_chain(population: int, places: list[Station]) -> tuple[float, np.ndarray]:
    """Brute force over every state: requests go round the stations in turn, exponential service."""
    states = [
        state
        for state in itertools.product(range(population + 1), repeat=len(places))
        if sum(state) == population
    ]
    index = {state: i for i, state in enumerate(states)}
    rates = np.zeros((len(states), len(states)))
    for state in states:
        for i, place in enumerate(places):
            if state[i]:
                then = list(state)
                then[i] -= 1
                then[(i + 1) % len(places)] += 1
                rate = min(state[i], place.servers) / place.demand_s
                rates[index[state], index[tuple(then)]] += rate
                rates[index[state], index[state]] -= rate
    balance = np.vstack([rates.T, np.ones(len(states))])
    right = np.zeros(len(states) + 1)
    right[-1] = 1
    shares = np.linalg.lstsq(balance, right, rcond=None)[0]
    lengths = shares @ np.array(states)
    first = places[0]
    throughput = sum(
        share * min(state[0], first.servers) / first.demand_s
        for share, state in zip(shares, states, strict=True)
    )
    return throughput, lengths


def machine_repair(population: int, servers: int, demand: Decimal, think: Decimal):
    """M/M/m//N by its textbook sum: (throughput, mean number waiting or in repair)."""
    weight = total = at_work = number = Decimal(0)
    for n in range(population + 1):
        if n == 0:
            weight = Decimal(1)
        else:
            weight *= (population - n + 1) * demand / (think * min(n, servers))
        total += weight
        at_work += weight * min(n, servers)
        number += weight * n
    return at_work / total / demand, number / total


def convolve_with_many_digits(population: int, places: list[Station], think_s: float) -> float:
    """Throughput by Buzen's convolution in 80 decimal digits."""
    with localcontext() as context:
        context.prec = 80
        constants = [Decimal(1)] + [Decimal(0)] * population
        for place in [*places, delay(think_s)]:
            weights = [Decimal(1)]
            for n in range(1, population + 1):
                busy = n if place.servers == math.inf else min(n, int(place.servers))
                weights.append(weights[-1] * Decimal(place.demand_s) / busy)
            constants = [
                sum(constants[k] * weights[n - k] for k in range(n + 1))
                for n in range(population + 1)
            ]
        return float(constants[-2] / constants[-1])


@pytest.mark.parametrize("population", [1, 2, 5])
@pytest.mark.parametrize(
    "places",
    [
        [Station(3.0), Station(1.0), Station(2.0)],
        [Station(3.0, 2), Station(1.0), Station(5.0, 3)],
        [Station(2.0, 4), delay(7.0), Station(1.0)],
    ],
)
def test_mva_equals_the_markov_chain_solved_by_brute_force(population, places):
    throughput, lengths = solve_markov_chain(population, places)
    result = mva(population, places)
    assert result.throughput_per_s == pytest.approx(throughput, rel=1e-10)
    assert result.queue_lengths == pytest.approx(lengths, rel=1e-9)


@pytest.mark.parametrize(("population", "servers"), [(1, 1), (7, 3), (64, 64), (512, 1), (512, 64)])
@pytest.mark.parametrize("think_s", [0.5, 8.0, 100.0])  # saturated, near the knee, idle
def test_mva_equals_the_machine_repair_formula_up_to_512_machines(population, servers, think_s):
    result = mva(population, [Station(1.0, servers)], think_s)
    throughput, number = machine_repair(population, servers, Decimal(1), Decimal(think_s))
    assert result.throughput_per_s == pytest.approx(float(throughput), rel=1e-11)
    assert result.queue_lengths[0] == pytest.approx(float(number), rel=1e-11)


@pytest.mark.parametrize("think_s", [0.0, 1e-3])
def test_five_stations_at_population_512_keep_eleven_digits(think_s):
    """Near-saturated 64-server stations are where the textbook recursion falls apart."""
    places = [
        Station(4.4e-6),
        Station(60e-6 * 64 / 13.6, 64, "disk"),
        Station(2e-6, 2),
        Station(250e-6, 64),
        delay(5.4e-6),
    ]
    exact = convolve_with_many_digits(512, places, think_s)
    assert mva(512, places, think_s).throughput_per_s == pytest.approx(exact, rel=1e-11)


def test_one_station_alone_is_always_busy():
    result = mva(10, [Station(0.25, 4)])
    assert result.throughput_per_s == pytest.approx(16)
    assert result.utilisations == pytest.approx([1])
    assert result.response_s == pytest.approx(10 / 16)


def test_a_single_request_never_waits():
    result = mva(1, [Station(2.0), Station(3.0, 2), delay(4.0)], think_s=1.0)
    assert result.throughput_per_s == pytest.approx(1 / 10)
    assert result.residence_s == pytest.approx([2, 3, 4])
    assert result.utilisations == pytest.approx([0.2, 0.15, 0.4])


def test_a_station_without_demand_changes_nothing():
    with_idle, without = mva(9, [Station(1.0), Station(0.0)], 3.0), mva(9, [Station(1.0)], 3.0)
    assert with_idle.throughput_per_s == pytest.approx(without.throughput_per_s)
    assert with_idle.queue_lengths[1] == 0


@given(st.integers(1, 40), stations, st.sampled_from([0.0, 1e-3]))
def test_mva_obeys_the_bounds_and_little_wherever_it_is_asked(population, places, think_s):
    result = mva(population, places, think_s)
    highest, lowest = asymptotic_bounds(
        population, [p.demand_s for p in places], think_s, [p.servers for p in places]
    )
    assert result.throughput_per_s <= highest * (1 + 1e-9)
    assert result.response_s >= lowest * (1 - 1e-9)
    assert littles_law_gap(population, result.throughput_per_s, result.response_s, think_s) < 1e-9


@given(st.integers(1, 30), stations, st.floats(1e-9, 1e9))
def test_the_unit_of_time_does_not_matter(population, places, unit):
    here = mva(population, places)
    there = mva(population, [Station(p.demand_s * unit, p.servers) for p in places])
    assert there.throughput_per_s * unit == pytest.approx(here.throughput_per_s)
    assert there.queue_lengths == pytest.approx(here.queue_lengths)


def test_bounds_meet_at_the_knee():
    """Three stations, D = 5 + 4 + 3 s with think time 15 s: Dmax = 5, knee at 27 / 5 = 5.4."""
    assert asymptotic_bounds(3, [5, 4, 3], 15) == pytest.approx((3 / 27, 12))
    assert asymptotic_bounds(9, [5, 4, 3], 15) == pytest.approx((1 / 5, 30))
    assert asymptotic_bounds(9, [5, 4, 3], 15, servers=[2, 1, math.inf]) == pytest.approx(
        (1 / 4, 21)
    )


def test_littles_law_gap_is_a_share_of_the_population():
    assert littles_law_gap(32, 4.0, 8.0) == 0
    assert littles_law_gap(32, 4.0, 4.0, think_s=2.0) == pytest.approx(0.25)
    assert littles_law_gap(32, 4.0, 10.0) == pytest.approx(0.25)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: mva(0, [Station(1.0)]),
        lambda: mva(4, [Station(0.0)]),
        lambda: mva(4, [Station(1.0)], think_s=-1.0),
        lambda: asymptotic_bounds(4, []),
        lambda: asymptotic_bounds(4, [1.0, 2.0], servers=[1]),
        lambda: Station(-1.0),
        lambda: Station(1.0, 1.5),
        lambda: Station(math.nan),
        lambda: littles_law_gap(0, 1.0, 1.0),
    ],
)
def test_nonsense_is_refused(ask):
    with pytest.raises(ValueError):
        ask()


@given(st.integers(1, 60), st.lists(demands, min_size=1, max_size=5), st.sampled_from([0.0, 3e-3]))
def test_balanced_bounds_enclose_mva_and_lie_within_the_asymptotic_ones(population, each, delay_s):
    throughput = mva(population, [*map(Station, each), delay(delay_s)]).throughput_per_s
    least, most = balanced_bounds(population, each, delay_s)
    assert least * (1 - 1e-9) <= throughput <= most * (1 + 1e-9)
    assert most <= asymptotic_bounds(population, each, delay_s)[0] * (1 + 1e-9)


def test_balanced_bounds_meet_where_all_stations_are_alike():
    least, most = balanced_bounds(7, [2.0, 2.0, 2.0])
    assert least == pytest.approx(most) == pytest.approx(7 / (3 + 7 - 1) / 2.0)


@pytest.mark.parametrize("servers", [1, 2, 8])
def test_mmc_is_the_sum_over_its_states(servers):
    """Balance equations of the birth and death process, cut off far out."""
    rate, service = 0.8 * servers, 1.0
    weight, total, number = 1.0, 1.0, 0.0
    for n in range(1, 2000):
        weight *= rate * service / min(n, servers)
        total, number = total + weight, number + n * weight
    assert mmc_response(rate, service, servers) == pytest.approx(number / total / rate)


def test_mg1_with_exponential_service_is_mm1_and_with_constant_waits_half_as_long():
    random, constant = mg1_response(0.7, 1.0, 1.0), mg1_response(0.7, 1.0, 0.0)
    assert random == pytest.approx(mmc_response(0.7, 1.0, 1))
    assert constant - 1 == pytest.approx((random - 1) / 2)


@pytest.mark.parametrize("of", [lambda: mmc_response(2.0, 1.0, 2), lambda: mg1_response(1, 1, 0)])
def test_an_open_queue_that_is_overloaded_has_no_mean(of):
    with pytest.raises(ValueError, match="a load of"):
        of()


def test_a_drain_is_the_residual_time_or_goes_in_rounds():
    assert drain_time(64, 0.1, math.inf, 0.02) == pytest.approx(0.08)
    assert drain_time(64, 0.1, 16) == pytest.approx(0.4)
    assert drain_time(0, 0.1, 1) == drain_time(4, 0.1, 8, 0.3) == 0


@pytest.mark.parametrize("servers", [1, 3, math.inf])
def test_the_mean_drain_of_exponential_services_is_that_of_many_draws(servers):
    draws = np.random.default_rng(5).exponential(2.0, size=(20_000, 6))
    free = np.zeros((len(draws), 6 if servers == math.inf else servers))
    for column in draws.T:  # first come first served: the server that is free first
        first = free.argmin(axis=1)
        free[np.arange(len(free)), first] += column
    last = free.max(axis=1).mean()
    assert mean_exponential_drain(6, 2.0, servers) == pytest.approx(last, rel=0.02)


@pytest.mark.parametrize(
    ('disk', 'work'),
    [
        (
            {'kind': 'ssd'},
            {'rw': 'randwrite', 'bs': 65536},
        ),  # its units are programmed side by side
        ({'disk': 'optane-p4800x'}, {'rw': 'randwrite', 'bs': 65536}),
        ({'disk': 'nvme-mlc-p3700'}, {'rw': 'read', 'size': '256k', 'io_size': '2M'}),  # registers
    ],
    ids=['long write', 'long write of a preset', 'read again and again'],
)
def test_a_disk_that_spares_a_request_something_is_not_outside_the_bounds(disk, work):
    many = {} if 'io_size' in work else {'number_ios': 300}
    result = run(workload={**work, **many, 'iodepth': 3, 'numjobs': 3}, target=disk)
    assert result.violations == []
