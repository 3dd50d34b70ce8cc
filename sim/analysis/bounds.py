"""What no run of a config can beat: asymptotic bounds from its costs and its disk.

Every station is given its smallest demand per request: CPU shares without any cache-line cost, no
system call, kick or interrupt of its own (a batch may share them), every hop at its latency once.
"""

import math
from itertools import chain

from sim.analysis.theory import asymptotic_bounds
from sim.config import Config, Target
from sim.costs import Costs, of_config
from sim.disks import network
from sim.features import STACKS


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


def minimal_demands(config: Config, costs: Costs) -> list[tuple[float, float]]:
    """(cycles per request, servers) of every station that a request must pass."""
    vcpus = sum(config.jobs[j].numjobs for j in config.phases[0])
    guest = (costs.guest_submit + costs.guest_complete, vcpus)
    stack = STACKS[config.device.driver]
    if stack != 'vhost-scsi':
        reactor = costs.reactor_submit + costs.reactor_complete
        pop, rest = costs.iothread_pop + costs.iothread_submit, costs.iothread_complete
        iothread = pop + costs.iothread_issue + rest
        thread = reactor if stack == 'vhost-user-scsi' else iothread
        return [guest, (thread, 1), *disk_demands(config, costs)]
    direct = config.host.submit_type == 'direct'
    submit = costs.lio_submit if direct else costs.worker_submit
    kworker = 0 if direct else costs.lio_submit
    cpus = len(set(config.worker_cpus))  # of vhost workers, each with a pair of kworkers
    return [
        guest,
        (costs.worker_pop + submit + costs.worker_complete, cpus),
        (kworker, cpus),
        *disk_demands(config, costs),
        (costs.lio_complete, cpus),
    ]


def disk_demands(config: Config, costs: Costs) -> list[tuple[float, float]]:
    """The stations of the disk, in cycles; of a mix of reads and writes the smaller demand counts.

    What a request may be spared is 0: a seek and a rotation to the head that is there already, a
    program operation to the write that the cache absorbs.
    """
    hz = config.host.cpu_hz
    writes = [job.rw in ('write', 'randwrite') for job in config.jobs]
    sides = [w for w in (False, True) if w in writes or config_mixes(config)]
    bs = min(job.bs for job in config.jobs)
    each = [
        [_stations(lun.disk, config, costs, bs, write) for write in sides] for lun in config.disks
    ]
    # Several disks are one station with the servers of all, none slower than the quickest of them.
    return [
        (min(demand for demand, _ in chain(*same)) * hz, sum(servers for (_, servers), *_ in same))
        for same in zip(*(zip(*one, strict=True) for one in each), strict=True)
    ]


def config_mixes(config: Config) -> bool:
    """Does a job read and write?"""
    return any(job.rw in ('rw', 'randrw') for job in config.jobs)


def _stations(
    target: Target, config: Config, costs: Costs, bs: int, write: bool
) -> list[tuple[float, float]]:
    """(seconds per request, servers): medium, serial stage, delay, network out, network in."""
    medium, lanes = _medium(target, config.host.cpu_hz, costs, bs, write)
    serial = target.serial / 1e9 if target.kind in ('lanes', 'empirical', 'ssd') else 0.0
    if target.kind == 'ssd' and target.bandwidth:
        serial += bs / target.bandwidth
    wait = target.network_round_trip / 1e9
    if target.kind in ('ssd', 'hdd'):
        cached = write and target.write_cache > 0
        if not (cached and target.kind == 'hdd'):
            wait += target.command_time / 1e9
        wait += target.cache_time.least_ns / 1e9 if cached else 0.0
    data = [network.HEADER_BYTES + (bs if write else 0), network.HEADER_BYTES + (not write) * bs]
    wire = [size / target.network_bandwidth if target.network_bandwidth else 0.0 for size in data]
    return [(medium, lanes), (serial, 1), (wait, math.inf), (wire[0], 1), (wire[1], 1)]


def _medium(target: Target, hz: int, costs: Costs, bs: int, write: bool) -> tuple[float, float]:
    """(seconds per request, servers) of what stores the data."""
    if target.kind == 'null':
        return costs.null_service / hz, 1 << 20
    if target.kind == 'python':  # nobody knows what it does
        return 0.0, 1 << 20
    if target.kind == 'empirical' and target.quantiles is not None:
        return float(target.quantiles.mean_ns) / 1e9, target.lanes
    if target.kind == 'ssd':
        if write:
            units = 0 if target.write_cache else -(-bs // target.program_unit)
            return units * float(target.program_time.mean_ns) / 1e9, target.dies
        # A stripe is read once for all requests that lie in it and come one after the other.
        return min(bs / target.stripe, 1.0) * float(target.read_time.mean_ns) / 1e9, target.dies
    if target.kind == 'hdd':
        spared = target.write_cache if write else target.read_ahead
        return (0.0 if spared else bs / target.track * 60 / target.rpm), 1
    return target.service / 1e9, target.lanes
