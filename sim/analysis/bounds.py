"""What no run of a config can beat, and what theory expects of it: from its costs and its disk."""

import math
from collections.abc import Mapping
from typing import Any

from sim.analysis.demands import disk_demands, minimal_demands, unshared_demands
from sim.analysis.theory import Station, asymptotic_bounds, balanced_bounds, mva
from sim.config import Config, Workload
from sim.costs import Costs, of_config

SIGMAS = 5  # of the mean of random service times that a run may have been lucky by
MVA_MOST = 2048  # requests in flight, above which it takes seconds
LONG = 10  # so many times what is in flight must have been measured, for a rate


def bounds(config: Config) -> tuple[float, float]:
    """(most IOPS, least mean latency in seconds) of a closed loop; jobs of the largest phase."""
    return asymptotic_bounds(*closed_network(config, of_config(config)))


def closed_network(config: Config, costs: Costs) -> tuple[int, list[float], float, list[float]]:
    """Population, demands in seconds, think time and servers, as sim.analysis.theory wants them."""
    hz = config.host.cpu_hz
    demands = minimal_demands(config, costs)
    seconds = [cycles / hz for cycles, _ in demands]
    return population(config), seconds, 0.0, [servers for _, servers in demands]


SAID = (
    'bound_iops', 'bound_us', 'balanced_low_iops', 'balanced_high_iops', 'mva_iops', 'mva_us',
)  # fmt: skip


def said_by_theory(config: Config) -> dict[str, float | None]:
    """For figures, by the names of SAID; latencies are of a closed loop, up to the reaping.

    The asymptotic bounds hold for every run, whatever is distributed how (outside() holds it to
    them). The others take every service for exponential and every station for first come first
    served. Balanced bounds: at the top of the least demands, at the bottom of unshared ones, so
    that batches and saved notifications lie within. Mean-value analysis is of unshared demands:
    exact at iodepth 1 but for what overlaps; a run above it has saved something. Several servers
    are to the balanced bounds one quick server and a delay, as Seidmann's approximation has it.

    None where no closed loop is asked, or one too large; the last four also where
    no_product_form() says why.
    """
    said: dict[str, float | None] = dict.fromkeys(SAID)
    costs = of_config(config)
    number, seconds, think, servers = closed_network(config, costs)
    if sum(seconds) <= 0 or len(config.phases) > 1:
        return said
    most, least = asymptotic_bounds(number, seconds, think, servers)
    paced = any(_is_paced(job) for job in config.jobs)
    said |= {'bound_iops': most, 'bound_us': 1e6 * (sum(seconds) if paced else least)}
    if no_product_form(config):
        return said
    quickest = _stations(config, list(zip(seconds, servers, strict=True)))
    cycles = unshared_demands(config, costs)
    unshared = _stations(config, [(c / config.host.cpu_hz, m) for c, m in cycles])
    exact = mva(number, unshared, think)
    return said | {
        'balanced_low_iops': _balanced(number, unshared)[0],
        'balanced_high_iops': _balanced(number, quickest)[1],
        'mva_iops': exact.throughput_per_s,
        'mva_us': 1e6 * exact.response_s,
    }


def least_us(config: Config) -> dict[str, float]:
    """What no mean latency up to the completion is below, in µs: all of it, and without the disk.

    The sum of the least demands; the disk's, those of its own stations.
    """
    costs = of_config(config)
    hz = config.host.cpu_hz / 1e6
    whole = sum(demand for demand, _ in minimal_demands(config, costs))
    disk = sum(demand for demand, _ in disk_demands(config, costs))
    return {'least_us': whole / hz, 'least_beside_disk_us': (whole - disk) / hz}


def no_product_form(config: Config) -> str:
    """Why balanced bounds and mean-value analysis say nothing of a config; empty where they do."""
    disks = [lun.disk for lun in config.disks]
    if any(_is_paced(job) for job in config.jobs):
        return 'jobs that hold back: there is no fixed number in flight'
    if population(config) > MVA_MOST:
        return f'more than {MVA_MOST} in flight'
    if any(disk.kind == 'hdd' for disk in disks):
        return 'a disk with a head chooses whom it serves, and is the quicker the more there are'
    if any(disk.kind == 'python' for disk in disks):
        return 'a disk in Python'
    writes = any(job.rw not in ('read', 'randread') for job in config.jobs)
    if writes and any(disk.kind == 'ssd' for disk in disks):
        return 'a write of flash is quick until the cache is full'
    return ''


def _stations(config: Config, demands: list[tuple[float, float]]) -> list[Station]:
    """Stations with a demand, in seconds; the dies of flash each for itself, with its own queue."""
    found = []
    dies = {float(lun.disk.dies) for lun in config.disks if lun.disk.kind == 'ssd'}
    for demand, servers in demands:
        if demand and servers in dies and len(config.disks) == 1:
            found += [Station(demand / servers)] * int(servers)
        elif demand:
            found.append(Station(demand, servers))
    return found


def _balanced(number: int, stations: list[Station]) -> tuple[float, float]:
    queues = [s.demand_s / s.servers for s in stations if s.servers < math.inf]
    return balanced_bounds(number, queues, sum(s.demand_s for s in stations) - sum(queues))


def _is_paced(job: Workload) -> bool:
    """Does the job hold back?"""
    held = job.rate or job.rate_iops or job.thinktime or job.read_iolog
    return bool(held) or job.io_submit_mode == 'offload'


def population(config: Config) -> int:
    """Requests that the jobs of the largest phase have at one time."""
    return max(
        sum(config.jobs[job].numjobs * config.jobs[job].iodepth for job in phase)
        for phase in config.phases
    )


def no_bounds(config: Config, report: Mapping[str, Any]) -> str:
    """Why a run is not held against the bounds; empty where it is.

    Requests that end without the disk have other demands, and so have the machines of phases.
    """
    targets = [config.target, *(lun.disk for lun in config.disks)]
    if len(config.phases) > 1:
        return 'several phases'
    if config.tmfs or config.hotplugs:
        return 'a reset or a hot-plugged LUN ends requests'
    if any(t.error_at or t.stuck_at or t.kind == 'python' for t in targets):
        return 'a disk that fails, or one in Python'
    if any(job.fsync or job.fdatasync or job.end_fsync or job.read_iolog for job in config.jobs):
        return 'flushes, or a trace'
    lost = ('requests_bad_target', 'requests_task_set_full', 'requests_dropped')
    if any(report.get(name) for name in (*lost, 'requests_retried', 'ring_errors')):
        return 'requests that were refused'
    if report['requests_measured'] < 2 or report['requests_completed'] < report['requests']:
        return 'too few requests, or some that never came back'
    return ''


def outside(config: Config, costs: Costs, report: Mapping[str, Any]) -> list[str]:
    """How a run beats what nothing can beat: sentences, empty when all is well.

    X <= min(N / D, min_i m_i / D_i) and R >= D, whatever the distributions and the order of service
    (Lazowska et al. 1984, section 5.2), with the smallest demands of the config's own costs. The
    mean of n random service times may lie below theirs by `SIGMAS` deviations of an exponential
    one; at either end of what was measured may stand N requests that were served outside of it.
    """
    if no_bounds(config, report):
        return []
    number, seconds, think, servers = closed_network(config, costs)
    if sum(seconds) <= 0:
        return []
    most, _ = asymptotic_bounds(number, seconds, think, servers)
    count = report['requests_measured']
    luck = min(SIGMAS / math.sqrt(count), 1.0) if _is_random(config) else 0.0
    broken = []
    if count >= LONG * number and report['iops'] * (1 - luck) > most * (1 + 2 * number / count):
        broken.append(
            f'bounds: {report["iops"]:.0f} IOPS; what these costs and this disk ask of each '
            f'request leaves room for {most:.0f}'
        )
    least, mean = 1e9 * sum(seconds), report['latency_ns']['mean']
    if mean < least * (1 - luck) - 1:
        broken.append(
            f'bounds: a mean latency of {mean:.0f} ns; what a request must pass takes {least:.0f}'
        )
    return broken


def _is_random(config: Config) -> bool:
    """Are service times drawn?"""
    return any(
        lun.disk.kind not in ('null', 'constant')
        and not (lun.disk.kind == 'lanes' and lun.disk.distribution == 'constant')
        for lun in config.disks
    )
