"""Which vhost worker serves which virtqueue, and on which host CPU it runs.

Virtqueues have their virtio numbers, as in VHOST_ATTACH_VRING_WORKER: 0 control, 1 event, request
queues from 2 on. The kernel's first worker, which SET_OWNER makes, keeps whatever no other one is
given.
"""

import json
from dataclasses import dataclass

from sim.errors import ConfigError, shown

VQ_REQUEST_FIRST = 2  # as in sim.layout, which needs numpy


@dataclass(frozen=True)
class WorkerMap:
    """Virtqueues of each worker."""

    queues: tuple[tuple[int, ...], ...]

    def __str__(self) -> str:
        """As it may be written in a config."""
        return json.dumps(self.queues)


def numbers(value: object) -> list[int]:
    """Whole numbers from a list, or from text with commas; ConfigError if it is neither."""
    items = value.split(',') if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not items:
        raise ConfigError(f'{shown(value)} is no list of numbers')
    try:
        if any(isinstance(item, bool | float) for item in items):
            raise ValueError
        return [int(item) for item in items]
    except (TypeError, ValueError):
        raise ConfigError(f'{shown(value)} is no list of numbers') from None


def parse_map(value: object) -> WorkerMap:
    """A list with the virtqueues of each worker, or its text; ConfigError if it is none."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise ConfigError(
                f'{shown(value)} is neither a number nor a list such as [[2, 3], [4, 5]]'
            ) from None
    if not isinstance(value, list | tuple) or not value:
        raise ConfigError(f'{shown(value)} names no worker; write [[2, 3], [4, 5]] or a number')
    found = []
    for place, queues in enumerate(value):
        if not isinstance(queues, list | tuple) or not queues:
            raise ConfigError(f'worker {place} has no virtqueue; give it one or take it out')
        found.append(tuple(numbers(queues)))
    return WorkerMap(tuple(found))


def spread(workers: int | WorkerMap, queues: int) -> tuple[tuple[int, ...], ...]:
    """The virtqueues of each worker, for so many request queues.

    A number of workers takes request queues in turn. Control and event queue are the first
    worker's unless a map names them.
    """
    vqs = range(VQ_REQUEST_FIRST, VQ_REQUEST_FIRST + queues)
    if isinstance(workers, int):
        return tuple(
            (*(range(VQ_REQUEST_FIRST) if place == 0 else ()), *vqs[place::workers])
            for place in range(workers)
        )
    named = {vq for group in workers.queues for vq in group}
    first, *others = workers.queues
    left = (vq for vq in range(VQ_REQUEST_FIRST) if vq not in named)
    return ((*left, *first), *others)


def cpus_of(worker_cpus: str | None, count: int) -> tuple[int, ...]:
    """For each of `count` workers the number of its CPU, counted as they first appear."""
    if worker_cpus is None:
        return tuple(range(count))
    found = numbers(worker_cpus)
    order = list(dict.fromkeys(found))
    return tuple(order.index(cpu) for cpu in found)
