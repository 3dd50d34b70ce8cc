"""What a request asks of the stations on its way, at least and at most.

The least: CPU shares without any cache-line cost, of a system call the part of a full batch, no
kick, no interrupt, no wake-up and no hop. Nothing beats what these allow. Unshared: a system call,
a kick, wake-ups, hops and an interrupt of its own, and cache lines that are with the other side, as
at iodepth 1. Between the two lies what batches, suppressed notifications and warm lines save.
"""

import math
from itertools import chain

from sim.config import Config, Target, Workload
from sim.costs import Costs
from sim.disks import network
from sim.features import STACKS
from sim.formats.work_values import Distribution, Pair
from sim.reference_path import ReferenceLines, reference_lines

Demands = list[tuple[float, float]]  # (per request, servers) of stations; inf servers: a delay


def threads(config: Config) -> int:
    """Clones of the jobs that run at first, with a vCPU each as far as there are any."""
    return sum(config.jobs[job].numjobs for job in config.phases[0])


def minimal_demands(config: Config, costs: Costs) -> Demands:
    """(cycles per request, servers) of every station that a request must pass."""
    batch = max(min(job.iodepth_batch_submit, job.iodepth) for job in config.jobs)
    call = costs.guest_io_submit / batch
    guest = (costs.guest_submit + costs.guest_complete + call, threads(config))
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


def disk_demands(config: Config, costs: Costs) -> Demands:
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
) -> Demands:
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


# ----------------------------------------------------------------------------------- unshared ----


def unshared_demands(config: Config, costs: Costs) -> Demands:
    """(cycles per request, servers) of every station, and of a delay with all latencies."""
    stack = STACKS[config.device.driver]
    lines = reference_lines(costs.line_prices)  # of one request at a time, whoever serves it
    disk = disk_demands(config, costs)
    if stack == 'vhost-scsi':
        host, latency = _kernel(config, costs, lines)
    else:
        host, latency = _user(config, costs, lines, stack)
    stations = [_guest(config, costs, lines, kicks=stack != 'vhost-user-scsi'), *host, *disk]
    latency += costs.irq_inject
    jitter = max(lun.disk.network_jitter for lun in config.disks)
    latency += 2 * jitter * config.host.cpu_hz / 1e9  # a message each way
    if sum(demand for demand, _ in stations) + latency > costs.vcpu_halt_poll:
        latency += costs.vcpu_halt_wake
    return [*stations, (latency, math.inf)]


def _guest(
    config: Config, costs: Costs, lines: ReferenceLines, *, kicks: bool
) -> tuple[float, float]:
    """The vCPUs. Calls are of a request of its own, and so are kick and interrupt."""
    calls = costs.guest_io_submit + costs.guest_io_getevents
    kick = costs.kick_exit + costs.kick_signal + costs.kick_wakeup + costs.kick_return
    own = costs.guest_submit + lines.guest_submit + costs.guest_complete + lines.guest_complete
    spent = own + calls + kicks * kick + costs.irq_entry + costs.irq_return
    vcpus = min(threads(config), config.guest.vcpus or threads(config))
    return spent + (costs.guest_switch if vcpus < threads(config) else 0), vcpus


def _kernel(config: Config, costs: Costs, lines: ReferenceLines) -> tuple[Demands, float]:
    """Worker and kworkers: a wake-up for the kick and one for the completion, a hop each way."""
    cpus = len(set(config.worker_cpus))
    direct = config.host.submit_type == 'direct'
    own = costs.worker_pop + lines.worker_pop + costs.worker_complete + lines.worker_complete
    own += costs.lio_submit if direct else costs.worker_submit
    own += 2 * costs.context_switch if cpus < len(config.worker_cpus) else 0
    wake = costs.worker_wake_deep if config.host.deep_idle else costs.worker_wake
    latency = 2 * wake + (1 if direct else 2) * costs.lio_hop
    kworkers = [(0.0 if direct else costs.lio_submit, cpus), (costs.lio_complete, cpus)]
    return [(own, cpus), *kworkers], latency


def _user(
    config: Config, costs: Costs, lines: ReferenceLines, stack: str
) -> tuple[Demands, float]:
    """A reactor, with two turns round its queues, or an IOThread that is woken each time."""
    ring = lines.worker_pop + lines.worker_complete + costs.call_write
    if stack == 'vhost-user-scsi':
        turn = 2 * (costs.reactor_round + costs.reactor_queue * config.device.num_queues)
        return [(costs.reactor_submit + costs.reactor_complete + ring + turn, 1)], 0.0
    own = costs.iothread_pop + costs.iothread_submit + costs.iothread_issue
    turns = 2 * costs.iothread_turn + costs.iothread_round
    return [(own + costs.iothread_complete + ring + turns, 1)], 2.0 * costs.iothread_wake
