"""run(config) -> Result: one simulation, its requests, its summary, its provenance."""

import contextlib
import functools
import gc
import hashlib
import json
import platform
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import sim
from sim import agents, component, costs, invariants, machine, recorder
from sim.analysis import bounds, frame, measure, summary
from sim.config import Config, load
from sim.control import hotplug, resets, tasks
from sim.engine import ENGINES, Engine
from sim.errors import ConfigError
from sim.folders import whole_folder
from sim.jit import MODEL_DIGEST


@dataclass(kw_only=True)
class Result:
    """What a run left behind.

    `requests`: one row per request (sim.analysis.frame.request_frame). `summary`: one row per
    metric. `report`: the same as nested plain data, what --json prints. With run.record=histogram
    `requests` is empty, with sampled it has every n-th; then `histograms` counts all of them
    (sim.analysis.frame.histogram_frame).
    """

    config: Config
    requests: pd.DataFrame
    summary: pd.DataFrame
    report: dict[str, Any]
    violations: list[str]
    provenance: dict[str, Any] = field(default_factory=dict)
    histograms: pd.DataFrame | None = None
    replications: pd.DataFrame | None = None  # sim.replicate: the numbers of each

    def save(self, folder: str | Path) -> Path:
        """Write the tables, summary.csv, config.toml and report.json under `folder`/<id>.

        The folder appears whole or not at all. Errors: ConfigError where it cannot be written.
        """
        place = Path(folder) / self.config.id
        try:
            with whole_folder(place) as part:
                for name, content in self.files().items():
                    (part / name).write_bytes(content)
        except OSError as error:
            raise ConfigError(
                f'{place}: cannot write results ({error.strerror or error}); choose another --out'
            ) from error
        return place

    def files(self) -> dict[str, bytes]:
        """What `save` writes, by file name."""
        texts = {
            'summary.csv': self.summary.to_csv(index=False),
            'config.toml': self.config.to_toml(),
            'report.json': json.dumps({**self.report, 'provenance': self.provenance}, indent=1)
            + '\n',
        }
        if self.replications is not None:
            texts['replications.csv'] = self.replications.to_csv(index=False)
        bulk = {name: _parquet(table) for name, table in self.tables().items()}
        return bulk | {name: text.encode() for name, text in texts.items()}

    def tables(self) -> dict[str, pd.DataFrame]:
        """The bulk results by file name; their provenance is in attrs."""
        tables = {}
        if self.config.run.record != 'histogram':
            tables['requests.parquet'] = self.requests.copy(deep=False)
        if self.histograms is not None:
            tables['histograms.parquet'] = self.histograms.copy(deep=False)
        for table in tables.values():
            table.attrs = {'provenance': json.dumps(self.provenance)}
        return tables


def _parquet(table: pd.DataFrame) -> bytes:
    content: bytes = table.to_parquet(None, compression='zstd')
    return content


def run(
    config: Config | None = None,
    *,
    check: bool = True,
    record_requests: bool = True,
    costs_override: costs.Costs | None = None,
    attend: 'Callable[[Engine, Phases], None] | None' = None,
    **sections: Any,
) -> Result:
    """Simulate one config; keyword arguments are sections, as in sim.config.load().

    `costs_override` replaces the derived cost table (for scaling experiments). `check=False` and
    `record_requests=False` leave out the checkers and the trace; neither changes what happens.
    `attend` is called before the run begins, with its engine and its phases: to add control.
    """
    config = config or load(**sections)
    began = time.perf_counter()
    engine, phases = prepare(config, record_requests=record_requests, costs_override=costs_override)
    if attend is not None:
        attend(engine, phases)
    engine.run()
    return finish(
        config, engine, began, check=check, record_requests=record_requests, table=costs_override
    )


def prepare(
    config: Config, *, record_requests: bool = True, costs_override: costs.Costs | None = None
) -> 'tuple[Engine, Phases]':
    """The engine of a config at time zero, with its control processes and its phases."""
    table = costs_override or costs.of_config(config)
    _let_earlier_machines_go()
    world = machine.build(config, table, record_requests=record_requests)
    engine = ENGINES[config.run.engine](world)
    phases = Phases(engine, config)
    for slot, lun in zip(world.slots_of(agents.DISK), config.disks, strict=True):
        if lun.disk.component is not None:
            component.attach(engine, lun.disk.component, config.host.cpu_hz, slot)
    start_actions(engine, config)
    return engine, phases


GARBAGE_BYTES = 512 << 20
_settled_bytes = 0  # what this process had in memory after the last collection


def _let_earlier_machines_go() -> None:
    """Collect what ended runs have left, where that has grown large: many runs in one process.

    An engine and SimPy's environment refer to each other, and Python's collector counts objects: it
    does not see that a few of them hold a hundred megabytes.
    """
    global _settled_bytes
    with contextlib.suppress(OSError):  # a system without /proc
        if _resident_bytes() > _settled_bytes + GARBAGE_BYTES:
            gc.collect()
            _settled_bytes = _resident_bytes()


def _resident_bytes() -> int:
    pages = Path('/proc/self/statm').read_text(encoding='ascii').split()[1]
    return int(pages) * resource.getpagesize()


def check_single(config: Config, what: str) -> None:
    """`what` ('a stop') looks at every request of one run. Errors: ConfigError."""
    if config.shared_cpus:
        raise ConfigError(
            f'host.shared_cpus: {what} of a VM whose threads share a host CPU is not modelled; '
            'take it out'
        )
    if config.run.record != 'full':
        raise ConfigError(
            f'run.record={config.run.record}: {what} looks at every request; use run.record=full'
        )
    if config.run.replications > 1 or config.run.precision is not None:
        raise ConfigError(
            f'run.replications, run.precision: {what} is of one run; take them out, or give it '
            'other seeds (run.seed)'
        )


def finish(
    config: Config,
    engine: Engine,
    began: float,
    *,
    check: bool = True,
    record_requests: bool = True,
    table: costs.Costs | None = None,
) -> Result:
    """What the run of an engine has left behind; `began` is its start by time.perf_counter().

    The bounds of theory are those of `table`, by default of the config's own costs.
    """
    wall_seconds = time.perf_counter() - began
    world = engine.machine
    measured, requests = measure.of_run(world, config)
    violations = invariants.check(world) if check and record_requests else []
    report = _report(config, world, engine, measured, violations, wall_seconds)
    full = record_requests and config.run.record == 'full'
    _hold_against_bounds(config, table, report, check=check)
    report['backlog_max'] = frame.backlog_max(requests) if full else None
    report['requests_above_30s'] = frame.overdue(requests) if full else None
    provenance = _provenance(config, report)
    return Result(
        config=config,
        requests=requests,
        summary=frame.summary_frame(metrics_of(report), report['intervals']['values']),
        report=report,
        violations=report['violations'],
        provenance=provenance,
        histograms=None if config.run.record == 'full' else measure.histograms(measured),
    )


def _hold_against_bounds(
    config: Config, table: costs.Costs | None, report: dict[str, Any], *, check: bool
) -> None:
    """The checker that needs the report: did it do more than theory allows?"""
    ran = check and not bounds.no_bounds(config, report)
    report['checks']['ran' if ran else 'skipped'].append('bounds')
    if ran:
        report['violations'] += bounds.outside(config, table or costs.of_config(config), report)


def start_actions(engine: Engine, config: Config) -> None:
    """The control processes of [[tmf]] and [[hotplug]] tables."""
    if config.tmfs:
        resets.Resets(engine)
        tasks.start(engine, config)
    hotplug.start(engine, config)


NO_METRIC = (
    'config',
    'wall_seconds',
    'wall_io_per_second',
    'intervals',
    'not_reported',
    'checks',
    'replications',
    'tmf',
    'events',
)


def metrics_of(report: dict[str, Any]) -> dict[str, Any]:
    """What of the report is a metric; what is hypothetical stands there with the value 1."""
    found = {key: value for key, value in report.items() if key not in NO_METRIC}
    return found | {'hypothetical': dict.fromkeys(report['hypothetical'], 1)}


class Phases:
    """Control: starts the jobs of a phase together, the next phase when all of them are done."""

    def __init__(self, engine: Engine, config: Config, before: 'Phases | None' = None) -> None:
        """`before`: those of the engine that the guest has run on until now."""
        self.engine = engine
        self.left: int = before.left if before else 0
        self.phase: int = before.phase if before else -1
        self.count = len(config.phases)
        engine.listeners.append(self.notice)
        if before is None:
            engine.env.process(self._begin())

    def _begin(self) -> Any:
        yield self.engine.env.timeout(0)
        self._next()

    def _next(self) -> None:
        self.phase += 1
        if self.phase < self.count:
            self.left = self.engine.machine.start_phase(self.phase, int(self.engine.env.now))
            self.engine.wake_agents()

    @property
    def over(self) -> bool:
        """Are all jobs of all phases done?"""
        return self.phase >= self.count

    def notice(self, bits: int) -> None:
        """A job is done: count, and go on when it was the last of its phase."""
        if bits & agents.N_JOB_DONE:
            self.left -= 1
            if self.left == 0:
                self._next()


def event_digest(world: machine.Machine) -> str:
    """Hash of the event sequence, whatever was recorded of it: 16 hex digits."""
    return f'{int(world.st[int(agents.H_DIGEST)]) & (1 << 64) - 1:016x}'


def digest_of(world: machine.Machine) -> str:
    """Hash of the event sequence and of all that was recorded of the requests: 16 hex digits.

    The rows that were kept and, with counting, the histograms.
    """
    text = hashlib.sha256()
    text.update(int(world.st[int(agents.H_DIGEST)]).to_bytes(8, 'little', signed=True))
    text.update(np.ascontiguousarray(frame.trace_rows(world)).astype('<i8').tobytes())
    if world.tasks:
        first, end = (int(world.tr[int(place)]) for place in (recorder.T_TASKS, recorder.T_SCRATCH))
        text.update(world.tr[first:end].astype('<i8').tobytes())
    if world.tr[int(recorder.T_COUNTS)]:
        first, end = (int(world.tr[int(place)]) for place in (recorder.T_JOBS, recorder.T_BATCHES))
        text.update(world.tr[first:end].astype('<i8').tobytes())
    return text.hexdigest()[:16]


def _report(
    config: Config,
    world: machine.Machine,
    engine: Engine,
    measured: measure.Measured,
    violations: list[str],
    wall_seconds: float,
) -> dict[str, Any]:
    end = int(world.st[int(agents.H_NOW)])
    count = frame.counters(world)
    busy = {
        name: cycles / (end * frame.servers_of(world, name)) if end else 0.0
        for name, cycles in frame.busy_cycles(world).items()
    }
    lines = frame.line_accesses(world)
    numbers = summary.numbers(measured)
    completed = measured.completed
    report = {
        'id': config.id,
        'digest': digest_of(world),
        'hypothetical': list(config.agreed.hypothetical),
        'event_digest': event_digest(world),
        'record': config.run.record,
        'host_thread': frame.host_thread(world),
        'simulated_seconds': end / config.host.cpu_hz,
        'wall_seconds': wall_seconds,
        'wall_io_per_second': completed / wall_seconds,
        **{key: value for key, value in numbers.items() if key != 'jobs'},
        'requests_per_kick': completed / count['kicks'] if count['kicks'] else 0.0,
        'requests_per_interrupt': completed / count['interrupts'] if count['interrupts'] else 0.0,
        **count,
        'engine_calls': engine.calls,
        'busy': busy,
        'lines': lines,
        'line_transfers_per_request': (
            sum(core['transfers'] for core in lines.values()) / completed if completed else 0.0
        ),
        'jobs': numbers['jobs'],
        'replay': {
            job.name: replay.counts
            for job, replay in zip(config.jobs, config.replays, strict=True)
            if replay is not None
        },
    }
    if config.tmfs:
        report['tmf'] = [task.report() for task in tasks.of_run(world, config)]
    if config.hotplugs:
        report['events'] = hotplug.events_of(world, config.host.cpu_hz)
    return report | {
        'intervals': summary.intervals(measured, report),
        'checks': invariants.checks_of(world),
        'violations': violations,
        'config': config.effective(),
    }


@functools.cache
def _versions() -> dict[str, str]:
    """Of the packages that the numbers rest on; to read them takes milliseconds."""
    return {name: metadata.version(name) for name in ('numpy', 'numba', 'pandas', 'simpy')}


def _provenance(config: Config, report: dict[str, Any]) -> dict[str, Any]:
    return {
        'simulator': sim.__version__,
        'model': MODEL_DIGEST,
        'python': platform.python_version(),
        'versions': dict(_versions()),
        'config': config.effective(),
        'seed': config.run.seed,
        'preset': config.run.preset,
        'digest': report['digest'],
        'hypothetical': report['hypothetical'],
        'notes': list(config.notes),
    }
