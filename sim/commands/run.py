"""sim run: one config, simulated."""

import argparse
import json
import sys
from typing import Any

from sim.errors import ConfigError
from sim.options import add_config, add_exports, add_json, add_pool, add_seed, config_sources


def add(commands: Any) -> None:
    """The options."""
    parser = commands.add_parser(
        'run',
        help='simulate one config',
        description='Simulate one config. Precedence: default < CONFIG.toml < --fio, --device < '
        '--set. docs/reference/config.md lists every key.',
    )
    add_config(parser)
    parser.add_argument('--engine', metavar='NAME', help='compiled (the default) or simpy')
    add_seed(parser)
    add_json(parser)
    parser.add_argument('--out', metavar='DIR', help='also write the results under DIR/<id>/')
    parser.add_argument('--replications', metavar='N', help='independent runs (run.replications)')
    parser.add_argument(
        '--precision', metavar='p99:0.02',
        help='replicate until the 95 %% interval of p99 is within ± 2 %% (run.precision)',
    )  # fmt: skip
    add_exports(parser)
    add_pool(parser)
    parser.set_defaults(command=main)


def main(options: argparse.Namespace) -> int:
    """The exit code. Errors: ConfigError."""
    from sim.config import load
    from sim.exports import fio, timeline

    sets = list(options.sets)
    sets += [f'run.engine={options.engine}'] if options.engine is not None else []
    for key in ('seed', 'replications', 'precision'):
        value = getattr(options, key)
        sets += [f'run.{key}={value}'] if value is not None else []
    config = load(**config_sources(options), sets=sets)
    if config.migration is not None:
        print('note: [migration]: sim run runs without it; use sim migrate', file=sys.stderr)
    for note in config.notes:
        print(f'note: {note}', file=sys.stderr)
    fio.check(config, options)
    timeline.check(config, options.timeline)
    if not options.json:
        print(config.to_toml())
    result = _simulate(config, options)
    for written in (
        *fio.write(result, options),
        *timeline.write(result, options.timeline),
    ):
        print(f'written: {written}', file=sys.stderr)
    place = result.save(options.out) if options.out else None
    if options.json:
        print(json.dumps(result.report))
    else:
        print(_summary(result.report))
    if place is not None:
        print(f'results in {place}', file=sys.stderr)
    for broken in result.violations:
        print(f'violation: {broken}', file=sys.stderr)
    return 1 if result.violations else 0


def _simulate(config: Any, options: argparse.Namespace) -> Any:
    """One run in this process, or replications where the options say."""
    if config.run.replications > 1 or config.run.precision is not None:
        from sim.pools import open_pool
        from sim.replicate import replicate

        with open_pool(options.backend, options.jobs, options.scheduler) as pool:
            return replicate(config, pool)
    if options.jobs is not None or options.backend != 'local' or options.scheduler is not None:
        raise ConfigError(
            '--jobs, --backend, --scheduler: have no meaning for one run; add --replications N'
        )
    from sim.run import run

    return run(config)


def _summary(report: dict[str, Any]) -> str:
    """What a person wants to see of a run."""
    latency = report['latency_ns']
    lines = [
        f'run {report["id"]}  digest {report["digest"]}',
        f'{report["requests_completed"]} requests in {report["simulated_seconds"]:.6f} simulated '
        f'seconds ({report["wall_seconds"]:.2f} s of wall time); warm-up cut: the first '
        f'{report["warmup_requests"]}',
        f'iops      {report["iops"]:.0f}',
    ]
    if 'replications' in report:
        lines.insert(1, _replications(report))
    if report['hypothetical']:
        lines.append(f'hypothetical: {", ".join(report["hypothetical"])}; no real backend does it')
    if latency:
        lines.append(f'latency   {_times(latency)}  (µs, arrival to completion)')
        lines.append(f'fio lat   {_times(report["fio_lat_ns"])}  (µs, arrival until reaped)')
        stages = '  '.join(f'{k} {v / 1e3:.2f}' for k, v in report['stages_ns'].items())
        lines.append(f'stages    {stages}  (µs, mean)')
        lines.append(_trust(report))
    lines += [
        f'kicks     {report["kicks"]} ({report["requests_per_kick"]:.2f} requests each, '
        f'{report["kicks_suppressed"]} suppressed)',
        f'irqs      {report["interrupts"]} ({report["requests_per_interrupt"]:.2f} requests each, '
        f'{report["signals_suppressed"]} suppressed)',
        'busy      ' + '  '.join(f'{k} {v:.0%}' for k, v in report['busy'].items()),
        f'lines     {report["line_transfers_per_request"]:.2f} cache-line transfers per request',
        f'wakes     worker {report["worker_wakes"]}, halted vCPUs {report["vcpu_wakes"]}',
    ]
    lines += _open_loops(report) + _actions(report)
    if len(report['jobs']) > 1:
        for name, job in report['jobs'].items():
            mean = job['latency_ns'].get('mean', 0) / 1e3
            lines.append(f'  {name}: {job["iops"]:.0f} IOPS, mean {mean:.1f} µs')
    return '\n'.join(lines)


def _times(values: dict[str, Any]) -> str:
    """Times in µs; '-' where too few requests lie beyond a percentile."""
    return '  '.join(f'{k} {"-" if v is None else f"{v / 1e3:.1f}"}' for k, v in values.items())


def _replications(report: dict[str, Any]) -> str:
    """How many there were, and whether that was enough."""
    about = report['replications']
    line = f'{about["count"]} replications: numbers are means of theirs'
    for metric, half in about['precision'].items():
        if half['reached'] is not None:
            line += f'; {metric} ± {half["reached"]:.2%} ({half["wanted"]:.2%} wanted)'
    return line + (f'\nnot reached: {about["note"]}' if about['note'] else '')


def _trust(report: dict[str, Any]) -> str:
    """How far the mean latency and the IOPS can be trusted, and what is not said at all."""
    found = report['intervals']
    shown = []
    for name, metric, scale in (('iops', 'iops', 1), ('mean', 'latency_ns.mean', 1e3)):
        bounds = found['values'].get(metric)
        if bounds is not None:
            shown.append(f'{name} {bounds[0] / scale:.1f} .. {bounds[1] / scale:.1f}')
    line = 'interval  ' + ('  '.join(shown) + '  (95 %)' if shown else f'none: {found["note"]}')
    for metric, reason in report['not_reported'].items():
        if not metric.startswith('jobs.'):
            line += f'\n          no {metric}: {reason}'
    return line


def _actions(report: dict[str, Any]) -> list[str]:
    """What became of tasks of the error handler and of events."""
    found = []
    for task in report.get('tmf', []):
        took = '' if task['t_complete_ns'] is None else f' {_took(task):.1f} µs later'
        answer = task['response'] or 'no answer'
        found.append(
            f'tmf       {task["function"]} of target {task["target"]} LUN {task["lun"]}: '
            f'{answer}{took} ({task["result"]})'
        )
    for event in report.get('events', []):
        missed = ', others missed' if event['missed'] else ''
        found.append(
            f'event     {event["event"]} {event["reason"] or ""} target {event["target"]} LUN '
            f'{event["lun"]} at {event["t_handle_ns"] / 1e3:.1f} µs{missed}'
        )
    return found


def _took(task: dict[str, Any]) -> float:
    """From the guest's decision until it knew, in µs."""
    return (task['t_complete_ns'] - task['t_arrive_ns']) / 1e3


def _open_loops(report: dict[str, Any]) -> list[str]:
    """Of jobs whose I/O does not wait for completions, and of flushes."""
    found = []
    modes = [job.get('io_submit_mode') for job in report['config']['job']]
    if 'offload' in modes or report['replay']:
        most = report['backlog_max']
        found.append(
            f'backlog   at most {"?" if most is None else most} requests had arrived and were not '
            f'with the driver; {report["arrivals_missed"]} never were'
        )
    for name, job in report['jobs'].items():
        if 'flush' in job:
            mean = job['flush']['latency_ns']['mean'] / 1e3
            found.append(f'flushes   {name}: {job["flush"]["requests"]}, mean {mean:.1f} µs')
    return found
