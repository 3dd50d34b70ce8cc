"""The rules of host.workers and host.worker_cpus, which concern device, kernel and QEMU as well."""

from collections.abc import Mapping
from typing import Any

from sim.features import version
from sim.formats import refuse
from sim.formats.worker_map import VQ_REQUEST_FIRST, WorkerMap, numbers, spread

WORKERS_SINCE = '6.5'  # VHOST_NEW_WORKER
PROPERTY_SINCE = '9.0'  # QEMU's worker_per_virtqueue


def per_virtqueue(queues: int) -> WorkerMap | int:
    """What QEMU makes of worker_per_virtqueue: vq 3 and those behind it leave the first worker."""
    if queues == 1:
        return 1
    rest = range(VQ_REQUEST_FIRST + 1, VQ_REQUEST_FIRST + queues)
    return WorkerMap((tuple(range(VQ_REQUEST_FIRST + 1)), *((vq,) for vq in rest)))


def check_map(workers: WorkerMap, queues: int) -> None:
    """Every request queue has one worker, and no worker a queue that is not there."""
    last = VQ_REQUEST_FIRST + queues - 1
    seen: set[int] = set()
    for vq in (vq for group in workers.queues for vq in group):
        refuse(
            not 0 <= vq <= last,
            f'host.workers: there is no virtqueue {vq}: 0 is control, 1 is event, request queues '
            f'are {VQ_REQUEST_FIRST} to {last}; correct it',
        )
        refuse(vq in seen, f'host.workers: virtqueue {vq} is there twice; keep one')
        seen.add(vq)
    for vq in range(VQ_REQUEST_FIRST, last + 1):
        refuse(vq not in seen, f'host.workers: no worker has virtqueue {vq}; name it')


def resolve_workers(
    device: Mapping[str, Any], host: dict[str, Any], qemu: str, notes: list[str]
) -> None:
    """Fill in host.workers, and check it with its CPUs against the queues and the kernel."""
    queues, kernel = device['num_queues'], host['kernel']
    able = version(kernel) >= version(WORKERS_SINCE)
    asked: int | WorkerMap = 1
    if device['worker_per_virtqueue']:
        refuse(
            version(qemu) < version(PROPERTY_SINCE),
            f'device.worker_per_virtqueue=on: QEMU {qemu} has no such property, it came with '
            f'{PROPERTY_SINCE}; take it out or raise qemu.version',
        )
        if able:
            asked = per_virtqueue(queues)
        else:
            notes.append(
                f'device.worker_per_virtqueue=on: Linux {kernel} has no VHOST_NEW_WORKER (ENOTTY): '
                'QEMU warns and goes on with one worker'
            )
        refuse(
            host['workers'] not in (None, asked),
            f'host.workers={host["workers"]}: device.worker_per_virtqueue=on says {asked}; keep one'
            ' of the two',
        )
    host['workers'] = workers = host['workers'] or asked
    if isinstance(workers, WorkerMap):
        check_map(workers, queues)
    else:
        refuse(
            workers > queues,
            f'host.workers={workers}: there are {queues} request queues, a worker more would have '
            'none; lower it',
        )
    count = len(spread(workers, queues))
    refuse(
        count > 1 and not able,
        f'host.workers={workers}: Linux {kernel} has one vhost worker for each device, further '
        f'ones came with {WORKERS_SINCE}; raise host.kernel or take it out',
    )
    cpus = host['worker_cpus']
    given = 0 if cpus is None else len(numbers(cpus))
    refuse(
        given not in (0, count),
        f'host.worker_cpus={cpus}: names {given} CPUs for {count} workers; name one for each',
    )
