"""The rules of host.shared_cpus: which threads share a host CPU, by the names of their agents."""

from collections.abc import Mapping, Sequence
from typing import Any

from sim.features import STACKS, version
from sim.formats import refuse
from sim.formats.worker_map import cpus_of, spread

EEVDF_SINCE = '6.6'


def groups_of(text: str | None) -> tuple[tuple[str, ...], ...]:
    """The threads of each CPU that some share: "vcpu0 iothread; vcpu1 vcpu2"."""
    if text is None:
        return ()
    return tuple(tuple(group.split()) for group in text.split(';'))


def threads_of(stack: str, vcpus: int, worker_cpus: Sequence[int]) -> list[str]:
    """The threads that may share a CPU, by name; a reactor would leave nothing of it."""
    names = [f'vcpu{number}' for number in range(vcpus)]
    if stack == 'virtio-scsi':
        return [*names, 'iothread']
    if stack != 'vhost-scsi':
        return names
    alone = [place for place, cpu in enumerate(worker_cpus) if worker_cpus.count(cpu) == 1]
    names += [f'vhost{place or ""}' for place in alone]
    for kind in ('lio_submit', 'lio_complete'):
        names += [f'{kind}{cpu or ""}' for cpu in range(max(worker_cpus) + 1)]
    return names


def resolve_shared_cpus(host: dict[str, Any], device: Mapping[str, Any], vcpus: int) -> None:
    """Fill in host.scheduler; every thread of host.shared_cpus is there, once, and not alone."""
    refuse(
        host['scheduler'] and not host['shared_cpus'],
        'host.scheduler: has no meaning without host.shared_cpus; take it out',
    )
    if host['scheduler'] is None:
        eevdf = version(host['kernel']) >= version(EEVDF_SINCE)
        host['scheduler'] = 'eevdf' if eevdf else 'cfs'
    text, seen = host['shared_cpus'], set[str]()
    workers = len(spread(host['workers'], device['num_queues']))
    cpus = cpus_of(host['worker_cpus'], workers)
    known = threads_of(STACKS[device['driver']], vcpus, cpus)
    for group in groups_of(text):
        refuse(
            len(group) < 2,
            f'host.shared_cpus={text}: {" ".join(group) or "nothing"} is alone on a CPU, as '
            'threads are without this key; name two or more between semicolons',
        )
        for name in group:
            refuse(
                name not in known,
                f'host.shared_cpus={text}: no thread {name} can share a CPU here; there are '
                f'{", ".join(known)}',
            )
            refuse(name in seen, f'host.shared_cpus={text}: {name} is there twice; keep one')
            seen.add(name)
