"""Rules of [[tmf]] and [[hotplug]] tables, beyond those of single keys."""

from collections.abc import Callable, Sequence
from typing import Any

from sim.errors import ConfigError
from sim.formats.action_keys import Hotplug, Tmf
from sim.formats.layer import Table
from sim.formats.luns import Lun

Values = Callable[[str, Table], dict[str, Any]]


def resolve_tmfs(tables: Sequence[Table], tpgt: int, values: Values) -> tuple[Tmf, ...]:
    """The tasks of [[tmf]] tables; a LUN or target that is not there is the guest's mistake."""
    found = []
    for table in tables:
        given = values('tmf', table)
        given['target'] = tpgt if given['target'] is None else given['target']
        found.append(Tmf(**given))
    return tuple(found)


def resolve_hotplugs(
    tables: Sequence[Table], luns: Sequence[Lun], tpgt: int, values: Values
) -> tuple[Hotplug, ...]:
    """The actions of [[hotplug]] tables; ConfigError where no LUN is there to add or remove."""
    found: list[Hotplug] = []
    for table in tables:
        given = values('hotplug', table)
        given['target'] = tpgt if given['target'] is None else given['target']
        found.append(Hotplug(**given))
    found.sort(key=lambda action: action.at)
    places = {(lun.target, lun.number) for lun in luns}
    last: dict[tuple[int, int], str] = {}
    for action in found:
        place = (action.target, action.lun)
        if place not in places:
            raise ConfigError(
                f'hotplug.lun={action.lun}: target {action.target} has no such LUN; give it a '
                '[[lun]] table, also if it is added later'
            )
        if last.get(place) == action.action:
            raise ConfigError(
                f'hotplug.action={action.action}: LUN {action.lun} of target {action.target} '
                'would be there twice or gone twice; take out one of them'
            )
        last[place] = action.action
    return tuple(found)
