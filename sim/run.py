"""run(config) -> Result: one simulation, its requests, its summary, its provenance."""

import hashlib
import json
import platform
import time
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import sim
from sim import agents, costs, invariants, machine, record
from sim.analysis import frame
from sim.config import Config, load
from sim.engine import ENGINES, Engine
from sim.errors import ConfigError
from sim.jit import MODEL_DIGEST


@dataclass(kw_only=True)
class Result:
    """What a run left behind.

    `requests`: one row per request (sim.analysis.frame.request_frame). `summary`: one row per
    metric. `report`: the same as nested plain data, what --json prints.
    """

    config: Config
    requests: pd.DataFrame
    summary: pd.DataFrame
    report: dict[str, Any]
    violations: list[str]
    provenance: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: str | Path) -> Path:
        """Write requests.parquet, summary.csv, config.toml and report.json under `folder`/<id>.

        Each file appears whole or not at all. Errors: ConfigError where it cannot be written.
        """
        place = Path(folder) / self.config.id
        try:
            place.mkdir(parents=True, exist_ok=True)
            requests = self.requests.copy(deep=False)
            requests.attrs = {'provenance': json.dumps(self.provenance)}
            _whole(place / 'requests.parquet', lambda p: requests.to_parquet(p, compression='zstd'))
            _whole(place / 'summary.csv', lambda p: self.summary.to_csv(p, index=False))
            toml = self.config.to_toml()
            _whole(place / 'config.toml', lambda p: p.write_text(toml, encoding='utf-8'))
            text = json.dumps({**self.report, 'provenance': self.provenance}, indent=1)
            _whole(place / 'report.json', lambda p: p.write_text(text + '\n'))
        except OSError as error:
            raise ConfigError(
                f'{place}: cannot write results ({error.strerror or error}); choose another --out'
            ) from error
        return place


def _whole(path: Path, write: Any) -> None:
    part = path.with_name(path.name + '.part')
    write(part)
    part.replace(path)


def run(
    config: Config | None = None,
    *,
    check: bool = True,
    record_requests: bool = True,
    costs_override: costs.Costs | None = None,
    **sections: Any,
) -> Result:
    """Simulate one config; keyword arguments are sections, as in sim.config.load().

    `costs_override` replaces the derived cost table (for scaling experiments). `check=False` and
    `record_requests=False` leave out the checkers and the trace; neither changes what happens.
    """
    config = config or load(**sections)
    began = time.perf_counter()
    table = costs_override or costs.of_config(config)
    world = machine.build(config, table, record_requests=record_requests)
    engine = ENGINES[config.run.engine](world)
    Phases(engine, config)
    engine.run()
    wall_seconds = time.perf_counter() - began
    violations = invariants.check(world) if check and record_requests else []
    requests = frame.request_frame(world, config)
    report = _report(config, world, engine, requests, violations, wall_seconds)
    provenance = _provenance(config, report)
    return Result(
        config=config,
        requests=requests,
        summary=frame.summary_frame(_metrics(report)),
        report=report,
        violations=violations,
        provenance=provenance,
    )


NO_METRIC = ('config', 'wall_seconds', 'wall_io_per_second')


def _metrics(report: dict[str, Any]) -> dict[str, Any]:
    """What of the report is a metric; what is hypothetical stands there with the value 1."""
    found = {key: value for key, value in report.items() if key not in NO_METRIC}
    return found | {'hypothetical': dict.fromkeys(report['hypothetical'], 1)}


class Phases:
    """Control: starts the jobs of a phase together, the next phase when all of them are done."""

    def __init__(self, engine: Engine, config: Config) -> None:
        self.engine = engine
        self.left = 0
        self.phase = -1
        self.count = len(config.phases)
        engine.on_notice = self.notice
        engine.env.process(self._begin())

    def _begin(self) -> Any:
        yield self.engine.env.timeout(0)
        self._next()

    def _next(self) -> None:
        self.phase += 1
        if self.phase < self.count:
            self.left = self.engine.machine.start_phase(self.phase, int(self.engine.env.now))
            self.engine.wake_agents()

    def notice(self, bits: int) -> None:
        """A job is done: count, and go on when it was the last of its phase."""
        if bits & agents.N_JOB_DONE:
            self.left -= 1
            if self.left == 0:
                self._next()


def digest_of(world: machine.Machine) -> str:
    """Hash of the event sequence and of the request table: 16 hex digits."""
    text = hashlib.sha256()
    text.update(int(world.st[int(agents.H_DIGEST)]).to_bytes(8, 'little', signed=True))
    text.update(np.ascontiguousarray(frame.trace_rows(world)).astype('<i8').tobytes())
    return text.hexdigest()[:16]


def _report(
    config: Config,
    world: machine.Machine,
    engine: Engine,
    requests: pd.DataFrame,
    violations: list[str],
    wall_seconds: float,
) -> dict[str, Any]:
    hz = config.host.cpu_hz
    end = int(world.st[int(agents.H_NOW)])
    cut = frame.warmup_rows(requests, config) if len(requests) else 0
    done = frame.measured(requests, cut)
    count = frame.counters(world)
    busy = {
        name: cycles / (end * frame.servers_of(world, name)) if end else 0.0
        for name, cycles in frame.busy_cycles(world).items()
    }
    lines = frame.line_accesses(world)
    total = len(requests)
    completed = int(requests['t_complete_ns'].notna().sum())
    return {
        'id': config.id,
        'digest': digest_of(world),
        'hypothetical': list(config.agreed.hypothetical),
        'requests': total,
        'requests_completed': completed,
        'requests_measured': len(done),
        'warmup_requests': cut,
        'simulated_seconds': end / hz,
        'wall_seconds': wall_seconds,
        'wall_io_per_second': completed / wall_seconds,
        'iops': frame.iops_of(done),
        'latency_ns': frame.latency_summary(done),
        'fio_lat_ns': frame.latency_summary(done, 'fio_lat_ns'),
        'stages_ns': {
            stage: float(done[f'{stage}_ns'].mean()) for stage in record.STAGES if len(done)
        },
        'requests_per_kick': completed / count['kicks'] if count['kicks'] else 0.0,
        'requests_per_interrupt': completed / count['interrupts'] if count['interrupts'] else 0.0,
        **count,
        'engine_calls': engine.calls,
        'busy': busy,
        'lines': lines,
        'line_transfers_per_request': (
            sum(core['transfers'] for core in lines.values()) / completed if completed else 0.0
        ),
        'jobs': _per_job(config, done),
        'violations': violations,
        'config': config.effective(),
    }


def _per_job(config: Config, done: pd.DataFrame) -> dict[str, Any]:
    """Per job, or per clone without group_reporting, as fio groups its report."""
    groups = {}
    for name, rows in done.groupby('job', observed=True):
        job = next(job for job in config.jobs if job.name == name)
        clones = [(str(name), rows)]
        if job.numjobs > 1 and not job.group_reporting:
            clones = [(f'{name}.{n}', part) for n, part in enumerate_groups(rows)]
        for label, part in clones:
            groups[label] = {
                'requests': len(part),
                'iops': frame.iops_of(part),
                'latency_ns': frame.latency_summary(part),
            }
    return groups


def enumerate_groups(rows: pd.DataFrame) -> list[tuple[int, pd.DataFrame]]:
    """The clones of one job in order, numbered from 0."""
    return list(enumerate(part for _, part in rows.groupby('clone', sort=True)))


def _provenance(config: Config, report: dict[str, Any]) -> dict[str, Any]:
    versions = {name: metadata.version(name) for name in ('numpy', 'numba', 'pandas', 'simpy')}
    return {
        'simulator': sim.__version__,
        'model': MODEL_DIGEST,
        'python': platform.python_version(),
        'versions': versions,
        'config': config.effective(),
        'seed': config.run.seed,
        'preset': config.run.preset,
        'digest': report['digest'],
        'hypothetical': report['hypothetical'],
        'notes': list(config.notes),
    }

