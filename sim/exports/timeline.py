"""--timeline of sim run and sim stop: the run as a file for ui.perfetto.dev."""

from sim.analysis import timeline_files
from sim.analysis.timeline import Action, timeline
from sim.config import Config
from sim.control.stopping import Stopping
from sim.errors import ConfigError
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


def write(result: Result, path: str | None, stopping: Stopping | None = None) -> list[str]:
    """Write it; the names of what was written."""
    if path is None:
        return []
    config = result.config
    actions = [] if stopping is None else actions_of(stopping, config.host.cpu_hz)
    found = timeline(config, result.requests, actions, f'{config.id} {result.report["digest"]}')
    timeline_files.write(found, path)
    return [path]


def actions_of(stopping: Stopping, hz: int) -> list[Action]:
    """The stop and, in it, the ioctls, as they went; those before it set the device up."""
    assert stopping.host is not None

    def ns(cycles: int) -> int:
        return int(cycles_to_ns(cycles, hz))

    calls = stopping.host.control.calls
    found = [
        Action(
            name=call.name,
            start=ns(call.time),
            end=ns(call.time + call.duration),
            arguments={
                **{name: str(value) for name, value in call.arguments.items()},
                'answer': call.answer,
            },
        )
        for call in calls
        if call.duration
    ]
    if stopping.resumed_at is not None:
        found.append(
            Action(name='stopped', start=ns(stopping.paused_at), end=ns(stopping.resumed_at))
        )
    return found
