"""--timeline of sim run, sim stop and sim migrate: the run as a file for ui.perfetto.dev."""

from collections.abc import Sequence

from sim.analysis import timeline_files
from sim.analysis.timeline import Action, timeline
from sim.config import Config
from sim.control.power import Host
from sim.control.stopping import Stopping
from sim.errors import ConfigError
from sim.migrate.moving import Migrating
from sim.run import Result
from sim.units import cycles_to_ns


def check(config: Config, path: str | None) -> None:
    """Refuse what cannot be written before the run is made; ConfigError."""
    if path is None:
        return
    if config.run.record == 'histogram':
        raise ConfigError('--timeline: needs requests; take out run.record=histogram')
    if config.run.replications > 1 or config.run.precision is not None:
        raise ConfigError('--timeline: is of one run; take out the replications')
    timeline_files.check(path)


def write(result: Result, path: str | None, actions: Sequence[Action] = ()) -> list[str]:
    """Write it, with control actions on a track of their own; the names of what was written."""
    if path is None:
        return []
    config = result.config
    name = f'{config.id} {result.report["digest"]}'
    timeline_files.write(timeline(config, result.requests, list(actions), name), path)
    return [path]


def of_stop(stopping: Stopping) -> list[Action]:
    """A stop and, in it, the ioctls, as they went; those before it set the device up."""
    assert stopping.host is not None
    hz = stopping.config.host.cpu_hz
    stopped = between('stopped', stopping.paused_at, stopping.resumed_at, hz)
    return [*ioctls_of(stopping.host, hz), *stopped]


def of_migration(move: Migrating) -> list[Action]:
    """The parts of a migration and the ioctls on both hosts."""
    hz, there = move.hz, move.arrived_host
    left = None if move.departure is None else move.departure.at
    return [
        *ioctls_of(move.host, hz),
        *([] if there is None else ioctls_of(there, hz, 'destination: ')),
        *between('pre-copy', move.began, move.downtime_start, hz),
        *between('switch-over on the source', move.downtime_start, left, hz),
        *between('start on the destination', left, move.resumed_at, hz),
    ]


def between(name: str, start: int | None, end: int | None, hz: int) -> list[Action]:
    """One action, if it has begun and ended. Times in cycles."""
    if start is None or end is None:
        return []
    return [Action(name=name, start=int(cycles_to_ns(start, hz)), end=int(cycles_to_ns(end, hz)))]


def ioctls_of(host: Host, hz: int, prefix: str = '') -> list[Action]:
    """The ioctls on a host that took time."""
    return [
        Action(
            name=prefix + call.name,
            start=int(cycles_to_ns(call.time, hz)),
            end=int(cycles_to_ns(call.time + call.duration, hz)),
            arguments={
                **{name: str(value) for name, value in call.arguments.items()},
                'answer': call.answer,
            },
        )
        for call in host.control.calls
        if call.duration
    ]
