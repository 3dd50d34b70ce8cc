"""What no run of a config can beat: asymptotic bounds from its costs and its disk.

Every station is given its smallest demand per request: CPU shares without any cache-line cost, no
system call, kick or interrupt of its own (a batch may share them), every hop at its latency once.
"""

from sim.analysis.theory import asymptotic_bounds
from sim.config import Config
from sim.costs import Costs, of_config


def bounds(config: Config) -> tuple[float, float]:
    """(most IOPS, least mean latency in seconds) of a closed loop; jobs of the largest phase."""
    costs = of_config(config)
    hz = config.host.cpu_hz
    population = max(
        sum(config.jobs[job].numjobs * config.jobs[job].iodepth for job in phase)
        for phase in config.phases
    )
    demands = minimal_demands(config, costs)
    most, least = asymptotic_bounds(
        population,
        [cycles / hz for cycles, _ in demands],
        servers=[servers for _, servers in demands],
    )
    return most, least


def minimal_demands(config: Config, costs: Costs) -> list[tuple[float, int]]:
    """(cycles per request, servers) of every station that a request must pass."""
    target, hz = config.target, config.host.cpu_hz
    vcpus = sum(config.jobs[j].numjobs for j in config.phases[0])
    if target.kind == 'null':
        medium, lanes, serial = float(costs.null_service), 1 << 20, 0.0
    else:
        medium, lanes = target.service * hz / 1e9, target.lanes
        serial = target.serial * hz / 1e9 if target.kind == 'lanes' else 0.0
    return [
        (costs.guest_submit + costs.guest_complete, vcpus),
        (costs.worker_pop + costs.worker_submit + costs.worker_complete, 1),
        (costs.lio_submit, 1),
        (medium, lanes),
        (serial, 1),
        (costs.lio_complete, 1),
    ]
