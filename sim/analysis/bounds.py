"""What no run of a config can beat: asymptotic bounds from its costs and its disk.

Every station is given its smallest demand per request: CPU shares without any cache-line cost, of a
system call the part of a full batch, no kick, no interrupt, no wake-up and no hop.
"""

import math
from collections.abc import Mapping
from itertools import chain
from typing import Any

from sim.analysis.theory import Station, asymptotic_bounds, balanced_bounds, mva
from sim.config import Config, Target, Workload
from sim.costs import Costs, of_config
from sim.disks import network
from sim.features import STACKS
from sim.formats.work_values import Distribution, Pair

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
    """For figures, by the names of SAID: asymptotic and balanced bounds, mean-value analysis.

    Latencies are those of a closed loop, up to the reaping. The last two take every service for
    exponential and every station for first come first served: with the smallest demands an
    optimist's estimate. Several servers are to the balanced bounds one quick server and a delay, as
    Seidmann's approximation has it. None where no closed loop is asked, or one too large.
    """
    said: dict[str, float | None] = dict.fromkeys(SAID)
    number, seconds, think, servers = closed_network(config, of_config(config))
    if sum(seconds) <= 0 or len(config.phases) > 1:
        return said
    most, least = asymptotic_bounds(number, seconds, think, servers)
    paced = any(_is_paced(job) for job in config.jobs)
    said |= {'bound_iops': most, 'bound_us': 1e6 * (sum(seconds) if paced else least)}
    if paced or number > MVA_MOST:
        return said
    stations = [Station(s, m) for s, m in zip(seconds, servers, strict=True) if s]
    exact = mva(number, stations, think)
    queues = [s.demand_s / s.servers for s in stations if s.servers < math.inf]
    low, high = balanced_bounds(number, queues, sum(s.demand_s for s in stations) - sum(queues))
    return said | {
        'balanced_low_iops': low,
        'balanced_high_iops': high,
        'mva_iops': exact.throughput_per_s,
        'mva_us': 1e6 * exact.response_s,
    }


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


def minimal_demands(config: Config, costs: Costs) -> list[tuple[float, float]]:
    """(cycles per request, servers) of every station that a request must pass."""
    vcpus = sum(config.jobs[j].numjobs for j in config.phases[0])
    batch = max(min(job.iodepth_batch_submit, job.iodepth) for job in config.jobs)
    call = costs.guest_io_submit / batch
    guest = (costs.guest_submit + costs.guest_complete + call, vcpus)
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


def _reads_apart(job: Workload, target: Target) -> bool:
    """Are reads at random places of so large a disk that hardly two in a row share a stripe?"""
    return (
        job.rw in ('randread', 'randrw')
        and job.size is None
        and job.random_distribution == Distribution()
        and job.percentage_random == Pair(100, 100)
        and target.size >= 10_000 * target.stripe
    )


def _stations(
    target: Target, config: Config, costs: Costs, bs: int, write: bool
) -> list[tuple[float, float]]:
    """(seconds per request, servers): medium, serial stage, delay, network out, network in."""
    apart = all(_reads_apart(job, target) for job in config.jobs)
    medium, lanes = _medium(target, config.host.cpu_hz, costs, bs, write, apart)
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


def _medium(
    target: Target, hz: int, costs: Costs, bs: int, write: bool, apart: bool
) -> tuple[float, float]:
    """(seconds per request, servers) of what stores the data; `apart`: reads share no stripe."""
    if target.kind == 'null':
        return costs.null_service / hz, 1 << 20
    if target.kind == 'python':  # nobody knows what it does
        return 0.0, 1 << 20
    if target.kind == 'empirical' and target.quantiles is not None:
        return float(target.quantiles.mean_ns) / 1e9, target.lanes
    if target.kind == 'ssd':
        if write:
            # The units of a long write are programmed side by side.
            spent = 0.0 if target.write_cache else float(target.program_time.mean_ns) / 1e9
            return spent, target.dies
        # A stripe stays in its die's register: who asks for it next is spared the page read.
        return (float(target.read_time.mean_ns) / 1e9 if apart else 0.0), target.dies
    if target.kind == 'hdd':
        spared = target.write_cache if write else target.read_ahead
        return (0.0 if spared else bs / target.track * 60 / target.rpm), 1
    return target.service / 1e9, target.lanes
