"""What commands and experiments share: options, usage errors. Imports nothing heavy."""

import argparse
import difflib
import re
from typing import Any, NoReturn

from sim.errors import ConfigError

# As argparse says it; were it to change its words, there would be no hint.
CHOICE = re.compile(r"invalid choice: '(.*?)' \(choose from (.*)\)")
UNKNOWN = re.compile(r'unrecognized arguments: (--[^ =]*)')


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and what was most likely meant."""

    def error(self, message: str) -> NoReturn:
        """A ConfigError, which the command line prints."""
        name = self.prog.removeprefix('vhost-scsi-sim ').removeprefix('python -m ')
        raise ConfigError(f'{name}: {message}{self._hint(message)}')

    def _hint(self, message: str) -> str:
        options = [name for action in self._actions for name in action.option_strings]
        if choice := CHOICE.search(message):
            word, known = choice[1], re.findall(r'[\w.-]+', choice[2])
        elif unknown := UNKNOWN.match(message):
            word, known = unknown[1], options
        else:
            return ''
        if close := difflib.get_close_matches(word, known, n=1):
            return f'; the nearest is {close[0]!r}'
        keys = '; a key of the config is given with --set, as in --set workload.iodepth=4'
        return keys if word.startswith('--') and '--set' in options else ''


def add_json(parser: argparse.ArgumentParser) -> None:
    """For programs that read the answer."""
    parser.add_argument('--json', action='store_true', help='print one JSON object, nothing else')


def add_seed(parser: argparse.ArgumentParser, meaning: str = 'seed of every random stream') -> None:
    """Which random numbers."""
    parser.add_argument('--seed', type=int, metavar='N', help=meaning)


def add_set(
    parser: argparse.ArgumentParser, meaning: str = 'any key of the config; may be given again'
) -> None:
    """Keys of the config, one by one: options.sets."""
    parser.add_argument(
        '--set', metavar='path=value', action='append', default=[], dest='sets', help=meaning
    )


def add_file(parser: argparse.ArgumentParser) -> None:
    """The config itself."""
    parser.add_argument(
        'config', nargs='?', metavar='CONFIG.toml',
        help='a TOML config, or a folder that --out has left',
    )  # fmt: skip


def add_config(parser: argparse.ArgumentParser) -> None:
    """Where a config comes from."""
    add_file(parser)
    parser.add_argument('--fio', metavar='JOB', help='a fio job file')
    parser.add_argument('--device', metavar='STRING', help='a QEMU -device string')
    parser.add_argument(
        '--libvirt', metavar='FILE', help='a libvirt domain XML: its virtio-scsi device, its vCPUs'
    )
    parser.add_argument(
        '--trace', metavar='FILE', help='a trace to replay: fio iolog, blkparse text, MSR CSV'
    )
    add_set(parser)


def config_sources(options: argparse.Namespace) -> dict[str, Any]:
    """What sim.config.load() is to read."""
    return {
        'toml': options.config,
        'fio': options.fio,
        'device': options.device,
        'libvirt': options.libvirt,
        'trace': options.trace,
    }


def add_sides(parser: argparse.ArgumentParser) -> None:
    """Two runs to hold against each other."""
    parser.add_argument('a', metavar='A', help='a TOML config, or a folder that --out has left')
    parser.add_argument('b', metavar='B', help='the same')
    for side in 'ab':
        parser.add_argument(
            f'--set-{side}', metavar='path=value', action='append', default=[],
            dest=f'sets_{side}', help=f'for {side.upper()}',
        )  # fmt: skip
    parser.add_argument(
        '--different-workloads', action='store_true', help='compare even if other I/O is issued'
    )


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


def add_versions(parser: argparse.ArgumentParser) -> None:
    """Whose code runs on the host."""
    parser.add_argument('--qemu', metavar='VERSION', help='qemu.version')
    parser.add_argument('--kernel', metavar='VERSION', help='host.kernel')


def version_sets(options: argparse.Namespace) -> list[str]:
    """The same as --set would say it."""
    given = (('qemu.version', options.qemu), ('host.kernel', options.kernel))
    return [f'{name}={value}' for name, value in given if value is not None]
