"""What queueing theory says: bounds, mean-value analysis, Little's law, open queues, drains.

Plain numbers in, plain numbers out. Times are in seconds and rates per second, but only the ratio
matters: demands in cycles give throughput per cycle. The *demand* of a station is the total service
time one request asks of it (visits x mean service time, not divided by the number of servers).

Sources
    Lazowska, Zahorjan, Graham, Sevcik: Quantitative System Performance, 1984.
    Reiser, Lavenberg: Mean-Value Analysis of Closed Multichain Queuing Networks,
        Journal of the ACM 27(2), 1980.
    Buzen: Computational Algorithms for Closed Queueing Networks with Exponential Servers,
        Communications of the ACM 16(9), 1973.
    Zahorjan, Sevcik, Eager, Galler: Balanced Job Bound Analysis of Queueing Networks,
        Communications of the ACM 25(2), 1982.
    Kleinrock: Queueing Systems, volume 1, 1975.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Station:
    """Where a request spends time: 1 server with a queue, m with one queue, or inf: a delay.

    `mva` is exact for exponential service in first-come order, and for any distribution of the
    time at a delay station (the product-form conditions).
    """

    demand_s: float
    servers: float = 1
    name: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.demand_s) and self.demand_s >= 0):
            raise ValueError(f"demand_s must be finite and not negative, not {self.demand_s}")
        if self.servers < 1 or (self.servers != math.inf and self.servers != int(self.servers)):
            raise ValueError(f"servers must be a whole number >= 1 or inf, not {self.servers}")


def delay(demand_s: float, name: str = "") -> Station:
    """A station without a queue: every request is served at once, for `demand_s` on average."""
    return Station(demand_s, math.inf, name)


@dataclass(frozen=True)
class MvaResult:
    """Steady state of a closed network; arrays have one entry per station, in the order given."""

    throughput_per_s: float
    response_s: float
    """Time from leaving the think state to coming back to it: the sum of `residence_s`."""
    residence_s: Floats
    """Time per request at the station, waiting and served, all visits together."""
    queue_lengths: Floats
    """Mean number of requests at the station, those in service included."""
    utilisations: Floats
    """Mean busy share of a server, X D / m; of a delay station the mean number there, X D."""


def asymptotic_bounds(
    population: int,
    demands_s: Sequence[float],
    think_s: float = 0.0,
    servers: Sequence[float] | None = None,
) -> tuple[float, float]:
    """Highest throughput (1/s) and lowest response time (s) any such system can have.

    X <= min(N / (D + Z), min_i m_i / D_i)   and   R >= max(D, N max_i(D_i / m_i) - Z)
    with D = sum D_i. Holds for every service distribution and every work-conserving or lazy
    schedule; m_i = 1 where `servers` is not given, inf for a station that only delays.
    Lazowska et al. 1984, section 5.2.
    """
    _check_population(population, think_s)
    counts: Sequence[float] = [1] * len(demands_s) if servers is None else servers
    stations = [Station(d, m) for d, m in zip(demands_s, counts, strict=True)]
    total_s = sum(s.demand_s for s in stations)
    bottleneck_s = max((s.demand_s / s.servers for s in stations), default=0.0)
    if total_s + think_s <= 0:
        raise ValueError("a network without any demand or think time has no throughput")
    light_load = population / (total_s + think_s)
    saturated = 1 / bottleneck_s if bottleneck_s > 0 else math.inf
    return min(light_load, saturated), max(total_s, population * bottleneck_s - think_s)


def balanced_bounds(
    population: int,
    demands_s: Sequence[float],
    delays_s: float = 0.0,
) -> tuple[float, float]:
    """(least, most) throughput (1/s) of a product-form network of single servers and one delay.

        N / (D + Z + (N-1) D_max / (1 + Z / (N D)))
            <=  X  <=  min(1 / D_max, N / (D + Z + (N-1) D_avg / (1 + Z / D)))

    with D the sum of `demands_s` and Z `delays_s`. Narrower than the asymptotic bounds, and only
    true for exponential service in first-come order. Zahorjan et al. 1982; Lazowska et al. 1984,
    table 5.2.
    """
    _check_population(population, delays_s)
    total_s, most_s = sum(demands_s), max(demands_s, default=0.0)
    if total_s <= 0:
        raise ValueError("balanced bounds need a station with a demand")
    mean_s, others = total_s / len(demands_s), population - 1
    slow_s = total_s + delays_s + others * most_s / (1 + delays_s / (population * total_s))
    quick_s = total_s + delays_s + others * mean_s / (1 + delays_s / total_s)
    return population / slow_s, min(1 / most_s, population / quick_s)


def mmc_response(rate_per_s: float, service_s: float, servers: int) -> float:
    """Mean time in an M/M/c queue: Poisson arrivals, exponential service, `servers` servers.

    Erlang's C formula for the share of arrivals that wait, by the recursion of his B formula.
    Errors: ValueError where the load is 1 or more. Kleinrock 1975, section 3.5.
    """
    load = rate_per_s * service_s
    if not 0 <= load < servers:
        raise ValueError(f"a load of {load:g} needs more than {servers} servers")
    blocked = 1.0
    for n in range(1, servers + 1):
        blocked = load * blocked / (n + load * blocked)
    waits = blocked / (1 - load / servers * (1 - blocked))
    return service_s + waits * service_s / (servers - load)


def mg1_response(rate_per_s: float, service_s: float, squared_variation: float) -> float:
    """Mean time in an M/G/1 queue by Pollaczek and Khinchine.

    `squared_variation`: variance of the service time over its squared mean: 0 constant, 1
    exponential. Errors: ValueError where the load is 1 or more. Kleinrock 1975, section 5.6.
    """
    load = rate_per_s * service_s
    if not 0 <= load < 1:
        raise ValueError(f"a load of {load:g} needs more than one server")
    return service_s + load * service_s * (1 + squared_variation) / (2 * (1 - load))


def drain_time(in_flight: int, service_s: float, servers: float, elapsed_s: float = 0.0) -> float:
    """How long requests of one constant service time take to drain, all begun `elapsed_s` ago.

    With a server for each the residual time; otherwise they go in ceil(n / m) rounds.
    """
    if in_flight == 0:
        return 0.0
    rounds = 1 if servers == math.inf else math.ceil(in_flight / servers)
    return max(rounds * service_s - elapsed_s, 0.0)


def mean_exponential_drain(in_flight: int, service_s: float, servers: float) -> float:
    """How long requests of exponential service times take to drain, on average.

    With n left they end at min(n, m) / S, so the sum of S / min(n, m): S H_n with a server for
    each, n S with one.
    """
    return service_s * sum(1 / min(n, servers) for n in range(1, in_flight + 1))


def mean_drain_left(in_flight: int, service_s: float, ago_s: float) -> float:
    """What is left on average of a drain of exponential services, a server for each, begun before.

    E[(M - t)+] of the longest of n: S sum_k (1 - u^k) / k, k = 1 ... n, u = 1 - exp(-t / S); at
    t = 0 it is S H_n.
    """
    over = -math.expm1(-ago_s / service_s)
    return service_s * sum((1 - over**k) / k for k in range(1, in_flight + 1))


def mva(population: int, stations: Sequence[Station], think_s: float = 0.0) -> MvaResult:
    """Exact means of a closed product-form network with `population` requests going round.

    Gives what the exact mean-value recursion of Reiser and Lavenberg 1980 gives, by another road:
    their multi-server form finds p(0) as 1 - sum of the rest, which loses all digits near
    saturation. Here Buzen's convolution runs on logarithms; it only adds positive terms, so
    nothing cancels and nothing overflows (12 digits at population 512 with 64 servers).

        f_i(n) = prod_{j=1..n} D_i / min(j, m_i)         weight of n requests at station i
        G(n)   = sum of prod_i f_i(n_i) over n_1 + n_2 + ... = n
        X(N)   = G(N-1) / G(N)                           throughput
        Q_i    = sum_n n f_i(n) G_without_i(N-n) / G(N)  queue length
        R      = sum_i Q_i / X                           Little's law

    Cost: stations x population^2; about 0.1 s for five stations at population 512.
    """
    _check_population(population, think_s)
    everywhere = [*stations, delay(think_s)]
    if all(s.demand_s == 0 for s in everywhere):
        raise ValueError("a network without any demand or think time has no throughput")
    # Only ratios of demands matter: bring the largest to 1 so that the logarithms stay small.
    scale_s = max(s.demand_s / min(s.servers, population) for s in everywhere)
    weights = [_log_weights(s, population, scale_s) for s in everywhere]

    before = [_nobody(population)]  # before[i]: all stations ahead of i together
    for weight in weights:
        before.append(_log_convolve(before[-1], weight))
    constants = before[-1]
    throughput_per_s = math.exp(constants[population - 1] - constants[population]) / scale_s

    numbers = np.arange(population + 1)
    queue_lengths = np.zeros(len(stations))
    after = weights[-1]  # all stations behind i together; the last one is the think state
    for i in reversed(range(len(stations))):
        others = _log_convolve(before[i], after)
        shares = np.exp(weights[i] + others[::-1] - constants[population])
        queue_lengths[i] = numbers @ shares
        after = _log_convolve(weights[i], after)

    residence_s = queue_lengths / throughput_per_s
    demands_s = np.array([s.demand_s for s in stations], dtype=np.float64)
    servers = np.array([1 if s.servers == math.inf else s.servers for s in stations], np.float64)
    return MvaResult(
        throughput_per_s=throughput_per_s,
        response_s=float(residence_s.sum()),
        residence_s=residence_s,
        queue_lengths=queue_lengths,
        utilisations=throughput_per_s * demands_s / servers,
    )


def littles_law_gap(
    population: float, throughput_per_s: float, response_s: float, think_s: float = 0.0
) -> float:
    """How far a measurement is from N = X (R + Z), as a share of N: |N - X (R + Z)| / N, >= 0.

    Zero in any long enough run of a system that neither loses nor invents requests; what is left
    is the requests in flight at both ends. `population` is the time-average number in the system
    (think state included). Lazowska et al. 1984, section 3.3.
    """
    if population <= 0:
        raise ValueError(f"population must be positive, not {population}")
    return abs(population - throughput_per_s * (response_s + think_s)) / population


def _check_population(population: int, think_s: float) -> None:
    if population < 1 or population != int(population):
        raise ValueError(f"population must be a whole number >= 1, not {population}")
    if not (math.isfinite(think_s) and think_s >= 0):
        raise ValueError(f"think_s must be finite and not negative, not {think_s}")


def _log_weights(station: Station, population: int, scale_s: float) -> Floats:
    """Log f(n) for n = 0 ... population; a station without demand is always empty."""
    weights = _nobody(population)
    if station.demand_s > 0:
        busy_servers = np.minimum(np.arange(1, population + 1), station.servers)
        weights[1:] = np.cumsum(math.log(station.demand_s / scale_s) - np.log(busy_servers))
    return weights


def _nobody(population: int) -> Floats:
    """Log weights of a place that holds no request: 1 for n = 0, otherwise 0."""
    weights = np.full(population + 1, -np.inf)
    weights[0] = 0.0
    return weights


def _log_convolve(a: Floats, b: Floats) -> Floats:
    """Log of sum_k exp(a[k]) exp(b[n-k]) for every n, without leaving the logarithms."""
    return np.array([np.logaddexp.reduce(a[: n + 1] + b[n::-1]) for n in range(len(a))])
