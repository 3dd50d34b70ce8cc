"""The rules of [guest], [host] and the rings of [device]: vCPUs, queues, polling, ring sizes."""

from collections.abc import Mapping, Sequence
from typing import Any

from sim.formats import refuse
from sim.formats.driver_rules import QUEUES_MOST, stack_of
from sim.formats.keys import Workload, phases
from sim.formats.section import Values

PAGE = 4096
SECTOR = 512


def threads_of(jobs: Sequence[Workload]) -> int:
    """How many clones run at one time, at most."""
    return max(sum(jobs[index].numjobs for index in phase) for phase in phases(jobs))


def resolve_guest(guest: dict[str, Any], jobs: Sequence[Workload]) -> None:
    """A vCPU for each clone that runs at one time; where there are fewer, they share."""
    guest['vcpus'] = guest['vcpus'] or threads_of(jobs)


def resolve_queues(device: dict[str, Any], vcpus: int, qemu: str, notes: list[str]) -> None:
    """How many request queues QEMU makes, the host serves and the guest uses."""
    asked = device['num_queues'] or (1 if qemu == '4.2' else vcpus)
    most, reason = QUEUES_MOST[stack_of(device)]
    refuse(asked > most, f'device.num_queues={asked}: {reason}; give a lower number')
    device['num_queues'] = min(asked, vcpus)
    if asked > vcpus:
        notes.append(f'device.num_queues={asked}: Linux uses one per vCPU, that is {vcpus}')


def check_polling(
    guest: Values, device: Values, jobs: Sequence[Workload], notes: list[str]
) -> None:
    """Poll queues are the last request queues, and polled I/O needs one."""
    asked, polled = guest['poll_queues'], min(guest['poll_queues'], device['num_queues'] - 1)
    refuse(
        asked and guest['kernel'] == '6.1',
        f'guest.poll_queues={asked}: Linux 6.1 has no virtscsi_poll_queues yet; raise guest.kernel',
    )
    if polled < asked:
        notes.append(
            f'guest.poll_queues={asked}: one request queue is left to interrupts, {polled} of '
            f'{device["num_queues"]} are polled'
        )
    for job in jobs:
        refuse(
            job.hipri and job.ioengine != 'io_uring',
            f'workload.hipri=on: {job.ioengine} has no polled I/O; use workload.ioengine=io_uring',
        )
        refuse(
            job.hipri and not polled,
            'workload.hipri=on: Linux refuses polled I/O (EOPNOTSUPP) on a device without poll '
            'queues; set guest.poll_queues and at least two device.num_queues',
        )
    wanted = [job.iodepth for job in jobs if job.hipri for _ in range(job.numjobs)]
    if wanted:
        share = max(wanted) * -(-len(wanted) // polled)  # of one poll queue, at most
        room = min(device['virtqueue_size'], guest['can_queue'] or device['virtqueue_size'])
        refuse(
            share > room,
            f'workload.hipri=on: {share} polled requests may want one queue, which has {room}: in '
            'this model a thread that waits for a tag does not poll, and all could wait for ever; '
            'lower workload.iodepth, or raise guest.poll_queues or device.virtqueue_size',
        )


def check_host(host: Mapping[str, Any]) -> None:
    """LIO's shortcuts came with later kernels; a work item for each command went with 5.13."""
    refuse(
        host['lio_submission'] == 'per_command' and host['kernel'] != '6.1',
        f'host.lio_submission=per_command: Linux {host["kernel"]} submits commands in batches, as '
        'all do since 5.13; the nearest kernel here to those before is host.kernel=6.1',
    )
    for name, kernels, since in (
        ('submit_type', ('6.1',), 'it came with Linux 6.7'),
        ('complete_type', ('6.1', '6.12'), 'of the kernels here only 7.2 has it'),
    ):
        refuse(
            host[name] == 'direct' and host['kernel'] in kernels,
            f'host.{name}=direct: Linux {host["kernel"]} has no such attribute, {since}; raise '
            'host.kernel or take it out',
        )


def check_rings(device: dict[str, Any], sizes: Sequence[int]) -> None:
    """A ring that QEMU makes, and that holds the longest request.

    With INDIRECT_DESC, too, a chain is no longer than the ring (virtio "Split Virtqueues"). Each
    page is a segment; seg_max cannot be less than what this and the limit of bs leave.
    """
    num = device['virtqueue_size']
    refuse(num <= 2, f'device.virtqueue_size={num}: QEMU refuses to realize it, must be > 2')
    refuse(num & (num - 1), f'device.virtqueue_size={num}: is no power of two; use 4 to 1024')
    for size in sizes:
        chain = 2 + -(-size // PAGE)
        refuse(
            chain > num,
            f'device.virtqueue_size={num}: a request of {chain} descriptors does not fit a ring of '
            f'{num}; raise it or lower workload.bs={size}',
        )
        refuse(
            size > device['max_sectors'] * SECTOR,
            f'device.max_sectors={device["max_sectors"]}: is less than workload.bs={size}; '
            'blk-mq would split it, which is not modelled yet',
        )
