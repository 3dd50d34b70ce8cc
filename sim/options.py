"""Command-line options that several commands and the experiments share. Imports nothing heavy."""

import argparse
from typing import Any


def add_json(parser: argparse.ArgumentParser) -> None:
    """For programs that read the answer."""
    parser.add_argument('--json', action='store_true', help='print one JSON object, nothing else')


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Which random numbers."""
    parser.add_argument('--seed', type=int, help='seed of every random stream')


def add_config(parser: argparse.ArgumentParser) -> None:
    """Where a config comes from."""
    parser.add_argument('config', nargs='?', metavar='CONFIG.toml', help='a TOML config')
    parser.add_argument('--fio', metavar='JOB', help='a fio job file')
    parser.add_argument('--device', metavar='STRING', help='a QEMU -device string')
    parser.add_argument(
        '--libvirt', metavar='FILE', help='a libvirt domain XML: its virtio-scsi device, its vCPUs'
    )
    parser.add_argument(
        '--trace', metavar='FILE', help='a trace to replay: fio iolog, blkparse text, MSR CSV'
    )
    parser.add_argument('--set', metavar='path=value', action='append', default=[], dest='sets')


def config_sources(options: argparse.Namespace) -> dict[str, Any]:
    """What sim.config.load() is to read."""
    return {
        'toml': options.config,
        'fio': options.fio,
        'device': options.device,
        'libvirt': options.libvirt,
        'trace': options.trace,
    }


def add_exports(parser: argparse.ArgumentParser) -> None:
    """Files for other tools."""
    parser.add_argument('--fio-json', metavar='FILE', help="also write fio's JSON of the run")
    parser.add_argument(
        '--fio-format', choices=('json', 'json+'), help='of that file: json+ has bins, too'
    )
    parser.add_argument(
        '--fio-logs', metavar='DIR', help="also write fio's lat, clat, slat, bw and iops logs"
    )
    add_timeline(parser)


def add_timeline(parser: argparse.ArgumentParser) -> None:
    """The run as tracks."""
    parser.add_argument(
        '--timeline', metavar='FILE',
        help='also write every request as slices on tracks: .pftrace (Perfetto) or .json (Chrome)',
    )  # fmt: skip


def add_pool(parser: argparse.ArgumentParser) -> None:
    """Where the points are simulated."""
    parser.add_argument('--jobs', type=int, metavar='N', help='processes at once (default: one)')
    parser.add_argument(
        '--backend', default='local', metavar='NAME',
        help='local (this machine, the default) or dask (a dask.distributed cluster)',
    )  # fmt: skip
    parser.add_argument(
        '--scheduler', metavar='ADDRESS', help="the dask cluster's, tcp://host:8786"
    )


def add_sweep(parser: argparse.ArgumentParser) -> None:
    """The same, and which part of the points."""
    add_pool(parser)
    parser.add_argument(
        '--shard', metavar='I/N', help='only every N-th point, from the I-th: for batch schedulers'
    )


SCENARIOS = ('init', 'start', 'log', 'stop')


def add_versions(parser: argparse.ArgumentParser) -> None:
    """Whose code runs on the host."""
    parser.add_argument('--qemu', metavar='VERSION', help='qemu.version')
    parser.add_argument('--kernel', metavar='VERSION', help='host.kernel')


def version_sets(options: argparse.Namespace) -> list[str]:
    """The same as --set would say it."""
    given = (('qemu.version', options.qemu), ('host.kernel', options.kernel))
    return [f'{name}={value}' for name, value in given if value is not None]


def add_device(parser: argparse.ArgumentParser) -> None:
    """sim device."""
    parser.add_argument('string', nargs='?', metavar='STRING', help='a QEMU -device string')
    parser.add_argument('--libvirt', metavar='FILE', help='a libvirt domain XML')
    add_versions(parser)
    parser.add_argument('--guest', metavar='VERSION', help='guest.kernel')
    parser.add_argument('--vcpus', type=int, metavar='N', help='guest.vcpus (default: 1)')
    add_json(parser)


def add_ioctls(parser: argparse.ArgumentParser) -> None:
    """sim ioctls."""
    add_config(parser)
    parser.add_argument(
        '--scenario', choices=SCENARIOS, required=True,
        help='init (realize), start (the guest sets DRIVER_OK), log (dirty logging begins), '
        'stop (the VM is stopped while logging)',
    )  # fmt: skip
    add_versions(parser)
    add_json(parser)


def add_stop(parser: argparse.ArgumentParser) -> None:
    """sim stop."""
    add_config(parser)
    parser.add_argument('--at', metavar='TIME', required=True, help='when, such as 20ms')
    parser.add_argument(
        '--policy', default='drain', help='how; docs/reference/command-line.md (default: drain)'
    )
    parser.add_argument(
        '--lead', metavar='TIME', default='0us',
        help='how long before TIME a policy that has one begins (default: %(default)s)',
    )  # fmt: skip
    parser.add_argument(
        '--log', metavar='TIME', help='dirty logging begins then, as in a migration'
    )
    parser.add_argument(
        '--gap', metavar='TIME', default='0us',
        help="between the vCPUs' standstill and CLEAR_ENDPOINT (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        '--hold', metavar='TIME', default='0us',
        help='for how long the VM stays stopped (default: %(default)s)',
    )  # fmt: skip
    add_versions(parser)
    add_timeline(parser)
    add_json(parser)


def add_validate(commands: Any) -> argparse.ArgumentParser:
    """The command's options."""
    parser: argparse.ArgumentParser = commands.add_parser(
        'validate',
        help='simulate what others have measured, and say how wrong it is',
        description='Simulate validation targets: measured points, some of which may fit a few '
        'named parameters, the others of which are predicted. Without a FILE the shipped ones. '
        'docs/howto/validate.md tells how to write one of your own. Exit code 1 if an invariant '
        'was broken, 2 if a target makes no sense; an error in the numbers changes no exit code.',
    )
    parser.add_argument('places', nargs='*', metavar='FILE', help='target files, or their folders')
    parser.add_argument('--only', metavar='NAME', action='append', default=[], help='one target')
    add_json(parser)
    parser.add_argument('--report', metavar='DIR', help='write tables and a figure of each target')
    parser.add_argument('--quick', action='store_true', help='a quarter of the requests')
    parser.add_argument('--jobs', type=int, metavar='N', help='processes (default: one per CPU)')
    return parser


def add_calibrate(commands: Any) -> argparse.ArgumentParser:
    """The command's options."""
    parser: argparse.ArgumentParser = commands.add_parser(
        'calibrate',
        help="fit parameters to fio's JSON of a machine of yours",
        description="Fit costs or the disk to what fio measured in a guest: values with profile "
        'intervals, what the data cannot tell apart, the error that remains. '
        'docs/howto/calibrate.md tells more.',
    )
    parser.add_argument('files', nargs='+', metavar='FIO.json', help="fio's output, json or json+")
    parser.add_argument('--device', metavar='STRING', help='the QEMU -device string of that guest')
    parser.add_argument('--config', metavar='CONFIG.toml', help='the rest of the machine')
    parser.add_argument('--set', metavar='path=value', action='append', default=[], dest='sets')
    parser.add_argument(
        '--fit', metavar='PARAM[=LOW..HIGH],...', action='append', default=[], required=True,
        help='what may move: costs.NAME or target.KEY',
    )  # fmt: skip
    parser.add_argument(
        '--metrics', metavar='NAME,...', help='what is fitted: of iops, mean, p50, p90, p99, p999'
    )
    parser.add_argument(
        '--requests', type=int, metavar='N', default=4000, help='simulated per clone (%(default)s)'
    )
    parser.add_argument('--out', metavar='PRESET.toml', help='write the fitted preset')
    add_json(parser)
    return parser


def add_sensitivity(commands: Any) -> argparse.ArgumentParser:
    """The command's options."""
    parser: argparse.ArgumentParser = commands.add_parser(
        'sensitivity',
        help='how much each cost moves each result',
        description='Move every cost of the data path alone, under the same random numbers: '
        'elasticities of the results, and which guesses (grade C) move one by more than 5 %% over '
        'their range.',
    )
    add_config(parser)
    parser.add_argument(
        '--output', metavar='METRIC', action='append', default=[],
        help='a result, such as busy.vhost; may be given again (default: six headline numbers)',
    )  # fmt: skip
    parser.add_argument(
        '--step', type=float, metavar='SHARE', default=0.1, help='of a cost (%(default)s)'
    )
    parser.add_argument(
        '--replications', type=int, metavar='N', default=3, help='paired runs (%(default)s)'
    )
    add_json(parser)
    add_pool(parser)
    return parser
