"""The rules of [run] and [migration]: what is left open, and what makes no sense together."""

from collections.abc import Mapping
from typing import Any

from sim.errors import ConfigError
from sim.formats import refuse
from sim.formats.faults import parse_faults
from sim.formats.keys import REPLICATIONS_LEAST
from sim.formats.layer import Table
from sim.formats.section import Values, values


def meaningless(run: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys of [run] that change nothing, given the others."""
    unused: tuple[str, ...] = () if run['record'] == 'sampled' else ('sample_every',)
    if run['precision'] is None:
        unused += ('precision', 'max_replications')
        unused += ('replications',) if run['replications'] == 1 else ()
    return unused


def resolve_run(run: dict[str, Any], given: Table) -> None:
    """How often the config is simulated; a key that would change nothing is a misunderstanding."""
    wanted = run['precision'] is not None
    least = REPLICATIONS_LEAST if wanted else 1
    if run['replications'] is None:
        run['replications'] = min(least, run['max_replications']) if wanted else least
    for name, needs in (('sample_every', 'record=sampled'), ('max_replications', 'a precision')):
        if name in given and name in meaningless(run):
            raise ConfigError(
                f'{given[name].where}: run.{name} has no meaning without {needs}; take it out'
            )
    refuse(
        wanted and run['replications'] < 2,
        'run.replications=1: an interval takes at least 2 runs; raise it or leave out '
        'run.precision',
    )
    refuse(
        wanted and run['max_replications'] < run['replications'],
        f'run.max_replications={run["max_replications"]}: is below '
        f'run.replications={run["replications"]}; raise it',
    )


def resolve_engine(run: dict[str, Any], python: bool) -> None:
    """Compiled where it can: a component written in Python needs SimPy to call it."""
    refuse(
        python and run['engine'] == 'compiled',
        'run.engine=compiled: target.kind=python runs under the SimPy engine only, which calls the '
        'component; use run.engine=simpy',
    )
    if run['engine'] == 'auto':
        run['engine'] = 'simpy' if python else 'compiled'


def resolve_migration(given: Mapping[str, Table], host: Values, qemu: Values) -> dict[str, Any]:
    """The destination is like the source unless something else is said."""
    found = values('migration', given['migration'])
    found['to_kernel'] = found['to_kernel'] or host['kernel']
    found['to_qemu'] = found['to_qemu'] or qemu['version']
    parse_faults(found['faults'])
    return found
