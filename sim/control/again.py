"""The command that makes a stop or a migration of a config again, for whoever reads its report."""

import shlex
from collections.abc import Sequence

from sim.config import Config, load

TABLES = {'lun', 'tmf', 'hotplug'}  # have no place on a command line
NEEDED = {'empirical': ('quantiles',), 'python': ('component',)}  # without which there is no disk


def words_of(config: Config, command: str) -> list[str]:
    """The words of `python -m sim COMMAND` with this config.

    Where a config has several jobs, LUNs or actions it is in the report, and CONFIG.toml here.
    """
    words = ['python', '-m', 'sim', command]
    mine = config.effective()
    driver, kind = mine['device']['driver'], mine['target']['kind']
    tables = TABLES & mine.keys()
    nested = [v for keys in mine.values() if isinstance(keys, dict) for v in keys.values()]
    if len(mine['job']) > 1 or tables or any(isinstance(value, dict) for value in nested):
        return [*words, 'CONFIG.toml']
    needed = {key: mine['target'][key] for key in NEEDED.get(kind, ())}
    usual = load(device={'driver': driver}, target={'kind': kind, **needed}).effective()
    for key in needed:  # which is told all the same
        del usual['target'][key]
    mine['workload'], usual['workload'] = mine.pop('job')[0], usual.pop('job')[0]
    words += ['--set', f'target.kind={kind}', '--device', driver]
    for section, keys in mine.items():
        for key, value in keys.items():
            if value != usual.get(section, {}).get(key) and value is not None:
                words += ['--set', f'{section}.{key}={_text(value)}']
    return words


def as_given(replay: str, arguments: Sequence[str]) -> str:
    """The command as it was given, where `replay` leaves the config to CONFIG.toml."""
    if ' CONFIG.toml' not in replay:
        return replay
    return shlex.join(['python', '-m', 'sim', *arguments])


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
