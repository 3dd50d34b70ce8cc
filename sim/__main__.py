"""The command line: vhost-scsi-sim, or python -m sim.

Exit codes: 0 good, 1 an invariant broken, 2 bad usage.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from sim import __version__
from sim.commands.study_options import add_budget, add_diff, add_explain, add_whatif
from sim.errors import ConfigError
from sim.options import (
    add_config,
    add_device,
    add_exports,
    add_ioctls,
    add_pool,
    add_stop,
    add_sweep,
    config_sources,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command is not _scsi:
        parser.error(f'unrecognized arguments: {" ".join(rest)}')
    options.rest = rest
    try:
        code: int = options.command(options)
    except ConfigError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('interrupted: nothing was written', file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of our output has gone (head, less): not our error, and nothing to add.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='vhost-scsi-sim',
        description='Cycle-level simulator of the virtio-scsi / vhost-scsi data path.',
    )
    parser.add_argument('--version', action='version', version=__version__)
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    run = commands.add_parser(
        'run',
        help='simulate one config',
        description='Simulate one config. Precedence: default < CONFIG.toml < --fio, --device < '
        '--set. docs/reference/config.md lists every key.',
    )
    add_config(run)
    run.add_argument('--engine', help='compiled (the default) or simpy')
    run.add_argument('--seed', help='seed of every random stream')
    run.add_argument('--json', action='store_true', help='print one JSON object, nothing else')
    run.add_argument('--out', metavar='DIR', help='also write the results under DIR/<id>/')
    run.add_argument('--replications', metavar='N', help='independent runs (run.replications)')
    run.add_argument(
        '--precision', metavar='p99:0.02',
        help='replicate until the 95 %% interval of p99 is within ± 2 %% (run.precision)',
    )  # fmt: skip
    add_exports(run)
    add_pool(run)
    run.set_defaults(command=_run)
    sweep = commands.add_parser(
        'sweep',
        help='simulate a config over values of its keys',
        description='Simulate every combination of the values given with --over. Finished points '
        'are kept under DIR/<id>/ and not computed again: after an interruption, start again. Exit '
        'code 1 if a point failed or broke an invariant. docs/howto/sweep.md tells more.',
    )
    add_config(sweep)
    sweep.add_argument(
        '--over', metavar='path=value,value', action='append', default=[],
        help='values of a key, such as workload.iodepth=1,2,4; may be given for several keys',
    )  # fmt: skip
    sweep.add_argument(
        '--show', metavar='METRIC', action='append', default=[],
        help='a further column, such as busy.vhost; the names are those of summary.csv',
    )  # fmt: skip
    sweep.add_argument('--seed', help='seed of every random stream')
    sweep.add_argument('--json', action='store_true', help='print one JSON object, nothing else')
    sweep.add_argument(
        '--out', metavar='DIR', default='results/runs/sweep', help='default: %(default)s'
    )
    add_sweep(sweep)
    sweep.set_defaults(command=_sweep)
    compare = commands.add_parser(
        'compare',
        help='two configs under the same random numbers',
        description='Compare two configs, or two saved runs, pair by pair: replication i of both '
        'sees the same arrivals, places and service times. Says of every number whether B differs, '
        'by how much, and how sure that is; and in which stages. docs/howto/precision.md.',
    )
    compare.add_argument('a', metavar='A', help='a TOML config, or a folder that --out has left')
    compare.add_argument('b', metavar='B', help='the same')
    for flag, name, which in (
        ('--set', 'sets', 'both'), ('--set-a', 'sets_a', 'A'), ('--set-b', 'sets_b', 'B'),
    ):  # fmt: skip
        compare.add_argument(
            flag, metavar='path=value', action='append', default=[], dest=name, help=f'for {which}'
        )
    compare.add_argument(
        '--replications', type=int, metavar='N',
        help='pairs of runs (default: 10, or 1 for two saved runs, which are taken as they are)',
    )  # fmt: skip
    compare.add_argument('--seed', type=int, help='seed of both (default: that of A)')
    compare.add_argument(
        '--different-workloads', action='store_true', help='compare even if other I/O is issued'
    )
    compare.add_argument('--json', action='store_true', help='print one JSON object, nothing else')
    add_pool(compare)
    compare.set_defaults(command=_compare)
    add_truth(commands)
    for add, command in (
        (add_explain, _explain),
        (add_diff, _diff),
        (add_whatif, _whatif),
        (add_budget, _budget),
    ):
        add(commands).set_defaults(command=command)
    params = commands.add_parser(
        'params',
        help='print a cost preset',
        description='Print the parameters of a cost preset: value, unit, range, grade, source.',
    )
    params.add_argument('preset', nargs='?', default='icx-2.6ghz', help='a name or a .toml file')
    params.add_argument('--json', action='store_true', help='print one JSON object')
    params.set_defaults(command=_params)
    disks = commands.add_parser(
        'disks',
        help='list the disk presets and how well they fit',
        description='List the disk presets, each with its largest error against what was '
        'published; with a name its parameters and the error of every point.',
    )
    disks.add_argument('preset', nargs='?', help='a name or a .toml file')
    disks.add_argument('--json', action='store_true', help='print one JSON object')
    disks.set_defaults(command=_disks)
    ring = commands.add_parser('ring', help='look into captured ring memory')
    actions = ring.add_subparsers(required=True, metavar='ACTION')
    inspect = actions.add_parser(
        'inspect',
        help='indices, requests in flight, and what is wrong',
        description='Read a capture folder (docs/reference/captures.md) with the device side of '
        'the ring: indices, requests in flight with their CDBs, verdicts on what is wrong. Exit '
        'code 1 if anything is, 2 if the capture cannot be read.',
    )
    inspect.add_argument('folder', metavar='DIR')
    inspect.add_argument('--json', action='store_true', help='print one JSON object')
    inspect.set_defaults(command=_ring_inspect)
    scsi = commands.add_parser(
        'scsi',
        add_help=False,  # sim.commands.scsi has options of its own for everything behind the word
        help='a SCSI command as bytes: request, response, what they mean',
    )
    scsi.set_defaults(command=_scsi)
    stop = commands.add_parser(
        'stop',
        help='stop the VM in the middle of a run, and let it go on',
        description='Simulate one config, stop the VM at TIME as QEMU does (the vCPUs pause, vhost '
        'drains, the device stops) and let it go on. Exit code 1 if a requirement is violated, 2 '
        'if the run is over by then.',
    )
    add_stop(stop)
    stop.set_defaults(command=_stop)
    ioctls = commands.add_parser(
        'ioctls',
        help="the ioctls of QEMU's vhost-scsi, by version",
        description="Print the ioctls that QEMU's vhost-scsi makes of /dev/vhost-scsi, in the "
        'columns of a trace: realize, start, the beginning of dirty logging, stop.',
    )
    add_ioctls(ioctls)
    ioctls.set_defaults(command=_ioctls)
    device = commands.add_parser(
        'device',
        help='the effective device of a -device string or a libvirt domain',
        description='Print every property of the device with its value and where it is from, the '
        'virtqueues, the config space, and of each feature bit what it means and who dropped it.',
    )
    add_device(device)
    device.set_defaults(command=_device)
    bench = commands.add_parser(
        'bench',
        help='how fast the simulator itself is (in a checkout)',
        description='Run the benchmarks of a checkout (benchmarks/, as make bench does).',
    )
    bench.add_argument('--only', metavar='TOPIC', action='append', help='one topic, such as ring')
    bench.add_argument('--rounds', type=int, metavar='N', help='medians are over so many rounds')
    bench.add_argument('--json', action='store_true', help='print one JSON object')
    bench.set_defaults(command=_bench)
    features = commands.add_parser(
        'features',
        help='print what device and driver agree on',
        description='Print the negotiation of the feature bits: who offers, masks and acks each. '
        'Any driver may be asked for, also a combination that would not start.',
    )
    features.add_argument('config', nargs='?', metavar='CONFIG.toml')
    features.add_argument('--device', metavar='STRING', help='a QEMU -device string')
    features.add_argument(
        '--set', metavar='path=value', action='append', default=[], dest='sets',
        help='such as guest.kernel=7.2, host.kernel, qemu.version, run.hypothetical=on',
    )  # fmt: skip
    features.add_argument('--json', action='store_true', help='print one JSON object')
    features.set_defaults(command=_features)
    return parser


def add_truth(commands: Any) -> None:
    """What others measured, what the user measured, what the results rest on."""
    from sim.options import add_calibrate, add_sensitivity, add_validate

    add_validate(commands).set_defaults(command=_validate)
    add_calibrate(commands).set_defaults(command=_calibrate)
    add_sensitivity(commands).set_defaults(command=_sensitivity)


def _run(options: argparse.Namespace) -> int:
    from sim.commands import fio_output, timeline_output
    from sim.config import load

    sets = list(options.sets)
    sets += [f'run.engine={options.engine}'] if options.engine is not None else []
    for key in ('seed', 'replications', 'precision'):
        value = getattr(options, key)
        sets += [f'run.{key}={value}'] if value is not None else []
    config = load(**config_sources(options), sets=sets)
    for note in config.notes:
        print(f'note: {note}', file=sys.stderr)
    fio_output.check(config, options)
    timeline_output.check(config, options.timeline)
    if not options.json:
        print(config.to_toml())
    result = _simulate(config, options)
    for written in (
        *fio_output.write(result, options),
        *timeline_output.write(result, options.timeline),
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


def _sweep(options: argparse.Namespace) -> int:
    from sim.studies.sweeping import main

    return main(options)


def _validate(options: argparse.Namespace) -> int:
    from sim.studies.validating import main

    return main(options)


def _calibrate(options: argparse.Namespace) -> int:
    from sim.studies.calibrating import main

    return main(options)


def _sensitivity(options: argparse.Namespace) -> int:
    from sim.studies.sensing import main

    return main(options)


def _compare(options: argparse.Namespace) -> int:
    from sim.studies.comparing import main

    return main(options)


def _explain(options: argparse.Namespace) -> int:
    from sim.studies.explaining import main

    return main(options)


def _diff(options: argparse.Namespace) -> int:
    from sim.studies.diff import main

    return main(options)


def _whatif(options: argparse.Namespace) -> int:
    from sim.studies.whatif import main

    return main(options)


def _budget(options: argparse.Namespace) -> int:
    from sim.studies.budget import main

    return main(options)


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


def _params(options: argparse.Namespace) -> int:
    import dataclasses

    from sim.costs import load_preset

    preset = load_preset(options.preset)
    rows = [dataclasses.asdict(row) for row in preset.parameters.values()]
    if options.json:
        print(json.dumps({'name': preset.name, 'cpu_hz': preset.cpu_hz, 'parameters': rows}))
        return 0
    print(f'{preset.name}: cycles at {preset.cpu_hz} Hz')
    for row in rows:
        span = f'{row["minimum"]}..{row["maximum"]}'
        print(
            f'{row["name"]:46} {row["value"]:>9g} {row["unit"]:8} {span:>18}  '
            f'{row["grade"]}  {row["role"]:6} {row["source"]}'
        )
    return 0


def _ring_inspect(options: argparse.Namespace) -> int:
    from sim.formats.capture import read_capture
    from sim.inspection import as_text, inspect

    report = inspect(read_capture(options.folder))
    print(json.dumps(report) if options.json else as_text(report))
    return 1 if report['verdicts'] else 0


def _without_compiling() -> None:
    """For what is over long before its kernels would be compiled.

    Not where numba is loaded already: it would be too late for this process, and would only slow
    down the processes that it starts.
    """
    if 'numba' not in sys.modules:
        os.environ.setdefault('NUMBA_DISABLE_JIT', '1')


def _scsi(options: argparse.Namespace) -> int:
    _without_compiling()
    from sim.commands.scsi import main as serve

    text, data = serve(options.rest)
    print(text if data is None else json.dumps(data))
    return 0


def _stop(options: argparse.Namespace) -> int:
    from sim.commands.stop import main as stop

    text, report = stop(options)
    print(json.dumps(report) if options.json else text)
    for broken in report['violations']:
        print(f'violation: {broken}', file=sys.stderr)
    if report['violations']:
        print(f'replay: {shlex.join(["python", "-m", "sim", *sys.argv[1:]])}', file=sys.stderr)
    return 1 if report['violations'] and not report['expected'] else 0


def _ioctls(options: argparse.Namespace) -> int:
    _without_compiling()
    from sim.commands.ioctls import main as trace

    text, data = trace(options)
    print(json.dumps(data) if options.json else text)
    return 0


def _device(options: argparse.Namespace) -> int:
    from sim.commands.device import main as show

    text, data = show(options)
    print(json.dumps(data) if options.json else text)
    return 0 if data['starts'] else 1


def _bench(options: argparse.Namespace) -> int:
    import subprocess
    from pathlib import Path

    # The package may not import what measures it, so the benchmarks run in a process of their own.
    root = Path(__file__).resolve().parent.parent
    if not (root / 'benchmarks' / '__main__.py').is_file():
        raise ConfigError(
            f'bench: {root} is not a checkout; the benchmarks are not part of an installed '
            'package: clone the repository and run make bench there'
        )
    command = [sys.executable, '-m', 'benchmarks']
    for topic in options.only or []:
        command += ['--only', topic]
    command += ['--rounds', str(options.rounds)] if options.rounds is not None else []
    command += ['--json'] if options.json else []
    return subprocess.run(command, cwd=root).returncode


def _features(options: argparse.Namespace) -> int:
    from sim.config import agreement

    agreed = agreement(toml=options.config, device=options.device, sets=options.sets)
    if options.json:
        print(json.dumps(agreed.as_data()))
    else:
        print(_negotiation(agreed))
    return 0


def _negotiation(agreed: Any) -> str:
    """What a person wants to see of a sim.features.Negotiation."""
    from sim.features import errno_name

    sign = {True: 'yes', False: '-', None: ''}
    lines = [
        f'{agreed.driver}, backend {agreed.backend_name}; QEMU {agreed.qemu}, host Linux '
        f'{agreed.host_kernel}, guest Linux {agreed.guest_kernel}',
        f'{"bit":>3}  {"name":28} {"backend":7}  {"property":18}  listed  offered  acked  why',
    ]
    for row in agreed.rows():
        switch = f'{row["property"]}={"on" if row["value"] else "off"}' if row['property'] else ''
        backend = 'assumed' if row['assumed'] else sign[row['backend']]
        lines.append(
            f'{row["bit"]:3}  {row["name"]:28} {backend:7}  {switch:18}  {sign[row["listed"]]:6}  '
            f'{sign[row["offered"]]:7}  {sign[row["acked"]]:5}  {row["why"]}'
        )
    lines.append(f'acked         {agreed.acked:#x}')
    if agreed.backend is not None:
        lines.append(f'SET_FEATURES  {agreed.sent:#x}: {errno_name(agreed.answer)}')
    if agreed.refusal:
        lines.append(f'refused       {agreed.refusal}')
    lines += [f'hypothetical  QEMU {agreed.qemu} has no property {n}' for n in agreed.missing]
    lines += [f'hypothetical  {name}' for name in agreed.hypothetical]
    return '\n'.join(lines)


def _disks(options: argparse.Namespace) -> int:
    from sim.formats.disks import disk_presets, load_disk

    names = [options.preset] if options.preset else disk_presets()
    presets = {name: load_disk(name) for name in names}
    if options.json:
        print(json.dumps(presets))
    elif options.preset:
        print(_disk_in_full(presets[options.preset]))
    else:
        print('name              grade  largest error: calibrated, predicted         what')
        for name, preset in presets.items():
            print(f'{name:17} {preset["grade"]:6} {_largest_errors(preset):44} {preset["summary"]}')
        print('\n--set target.disk=NAME behind sim run; sim disks NAME for every point')
    return 0


def _largest_errors(preset: dict[str, Any]) -> str:
    """The largest error in IOPS, or in the mean latency, of reads and of writes."""
    parts = []
    for rw, word in (('randread', 'reads'), ('randwrite', 'writes')):
        points = [p for p in preset.get('fit', {}).get('points', ()) if p['rw'] == rw]
        if not points:
            continue
        errors = []
        for role in ('calibrated', 'predicted'):
            found = [
                abs(p.get('error_iops_percent', p.get('error_mean_us_percent')))
                for p in points
                if p['role'] == role
            ]
            errors.append(f'{max(found):.1f} %' if found else '-')
        parts.append(f'{word} {", ".join(errors)}')
    return '; '.join(parts) or 'nothing to hold it against'


def _disk_in_full(preset: dict[str, Any]) -> str:
    """Parameters and points of one preset."""
    fit = preset.get('fit', {})
    lines = [f'{preset["summary"]} (grade {preset["grade"]})', '']
    lines += [f'{key:22} {value}' for key, value in preset['target'].items()]
    lines += ['', f'fitted: {", ".join(fit.get("free", ())) or "by hand"}']
    lines += [f'host: {preset["host"]}', '']
    if 'points' in fit:
        lines.append('operation  depth  role        ' + '  '.join(map('{:>26}'.format, FIT_HEADS)))
        for point in fit['points']:
            cells = []
            for name in ('iops', 'mean_us', 'p99_us'):
                if name in point:
                    cells.append(
                        f'{point[name]:>9} {point[f"model_{name}"]:>9} '
                        f'{point[f"error_{name}_percent"]:>+5.1f}%'
                    )
                else:
                    cells.append('-')
            row = '  '.join(map('{:>26}'.format, cells))
            lines.append(f'{point["rw"]:10} {point["iodepth"]:>5}  {point["role"]:10}  {row}')
    return '\n'.join(lines)


FIT_HEADS = ('IOPS: measured, model', 'mean (us)', 'p99 (us)')


if __name__ == '__main__':
    sys.exit(main())
