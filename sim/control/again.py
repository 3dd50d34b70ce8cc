"""The command that makes a stop or a migration of a config again, for whoever reads its report."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from sim.config import Config, load
from sim.errors import ConfigError

TABLES = {'lun', 'tmf', 'hotplug'}  # have no place on a command line
NEEDED = ('quantiles', 'component')  # of a disk that has them, there is none without
ROUNDS = 4


def words_of(config: Config, command: str) -> list[str]:
    """The words of `python -m sim COMMAND` with this config: what is not as usual, and whatever
    would come out otherwise then (auto: num_queues is by vcpus, if it is not named).

    Where a config has several jobs, LUNs or actions it is in the report, and CONFIG.toml here.
    """
    words = ['python', '-m', 'sim', command]
    mine = config.effective()
    driver = mine['device']['driver']
    nested = [v for keys in mine.values() if isinstance(keys, dict) for v in keys.values()]
    if (
        len(mine['job']) > 1
        or TABLES & mine.keys()
        or any(isinstance(value, dict) for value in nested)
    ):
        return [*words, 'CONFIG.toml']
    wanted = _flat(mine)
    first = ['target.kind', *(f'target.{key}' for key in NEEDED), 'migration.at']
    named: dict[str, object] = {path: wanted[path] for path in first if wanted.get(path)}
    for _ in range(ROUNDS):
        got = _effective(driver, named)
        differ = {
            path: value
            for path, value in wanted.items()
            if value is not None and (got is None or got.get(path) != value)
        }
        if not differ:
            break
        named |= differ
    words += ['--device', driver]
    return words + [word for path in named for word in ('--set', _set(path, named[path]))]


def _effective(driver: str, named: Mapping[str, object]) -> dict[str, object] | None:
    """What comes of a config in which these keys are named; None: it makes no sense."""
    try:
        sets = [_set(path, value) for path, value in named.items()]
        return _flat(load(device=driver, sets=sets).effective())
    except ConfigError:
        return None


def _flat(effective: Mapping[str, Any]) -> dict[str, object]:
    """Values by path, such as workload.iodepth; of the first job."""
    sections = {**effective, 'workload': effective['job'][0]}
    del sections['job']
    return {
        f'{name}.{key}': value for name, keys in sections.items() for key, value in keys.items()
    }


def as_given(replay: str, arguments: Sequence[str]) -> str:
    """The command as it was given, where `replay` leaves the config to CONFIG.toml."""
    if ' CONFIG.toml' not in replay:
        return replay
    return shlex.join(['python', '-m', 'sim', *arguments])


def _set(path: str, value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f'{path}={text}'
