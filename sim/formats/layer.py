"""One source of a config: its sections, tables of jobs and costs, keys checked, values not yet."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sim.errors import ConfigError, shown
from sim.formats import Given, fold, nearest
from sim.formats.keys import SECTIONS, aliases_of, fields_of
from sim.formats.toml import Where
from sim.formats.values import convert

Table = dict[str, Given]  # of one section, by the names of keys

# Arrays of tables, and where their keys are described.
LISTS = {'job': 'workload', 'lun': 'lun', 'tmf': 'tmf', 'hotplug': 'hotplug'}


class Layer:
    """What one source gives: tables by section, of jobs, LUNs and actions, costs by dotted name."""

    def __init__(self, tree: Mapping[str, Any], where: Where = lambda dotted, nth: '') -> None:
        self.tables: dict[str, Table] = {}
        self.jobs: list[Table] = []
        self.luns: list[Table] = []
        self.tmfs: list[Table] = []
        self.hotplugs: list[Table] = []
        self.costs: Table = {}
        for written, content in tree.items():
            name, place = fold(written), where(fold(written), 0)
            if name in SECTIONS:
                self.tables[name] = read_table(name, name, content, where)
            elif name == 'costs':
                self.read_costs(name, content, where)
            elif name in LISTS:
                if not isinstance(content, list) or not content:
                    raise ConfigError(f'{place}: {name} is a list of tables; write [[{name}]]')
                section = LISTS[name]
                tables = [
                    read_table(section, name, table, where, nth)
                    for nth, table in enumerate(content)
                ]
                setattr(self, f'{name}s', tables)
            else:
                close = nearest(name, [*SECTIONS, *LISTS, 'costs'])
                raise ConfigError(f'{place}: no section {shown(written)}; the nearest is {close!r}')

    def read_costs(self, path: str, content: object, where: Where) -> None:
        """Costs of nested tables or dotted keys, under dotted names."""
        if not isinstance(content, Mapping):
            raise ConfigError(f'{where(path, 0)}: {path} is a table; write [{path}]')
        for written, value in content.items():
            inner = f'{path}.{fold(written)}'
            name = inner.removeprefix('costs.')
            if isinstance(value, Mapping):
                self.read_costs(inner, value, where)
            elif name in self.costs or not re.fullmatch(r'\w+(\.\w+)*', name):
                problem = 'is given twice' if name in self.costs else 'is no name of a cost'
                raise ConfigError(f'{where(inner, 0)}: {shown(inner)} {problem}; correct it')
            else:
                self.costs[name] = Given(value, where(inner, 0))


def read_table(section: str, head: str, content: object, where: Where, nth: int = 0) -> Table:
    """One section's keys under their own names; None is as good as not given."""
    if not isinstance(content, Mapping):
        raise ConfigError(f'{where(head, nth)}: {head} is a table; write [{head}]')
    known, aliases = fields_of(section), aliases_of(section)
    table: Table = {}
    for written, value in content.items():
        name = fold(written)
        given = value if isinstance(value, Given) else Given(value, where(f'{head}.{name}', nth))
        own = aliases.get(name, name)
        if own not in known:
            close = nearest(name, [*known, *aliases])
            raise ConfigError(
                f'{given.where}: no key {shown(written)} in {head}; the nearest is {close!r}'
            )
        if own in table:
            raise ConfigError(f'{given.where}: {head}.{own} is given twice; keep one')
        if name == 'rwmixwrite':
            given = Given(100 - convert(known[own].metadata['key'], name, given), given.where)
        if given.value is not None and not (given.value == 'auto' and known[own].default is None):
            table[own] = given
    return table


def tree_of(sets: Sequence[str]) -> dict[str, dict[str, str]]:
    """The sections that 'section.key=value' texts give; of one key the last counts."""
    tree: dict[str, dict[str, str]] = {}
    for text in sets:
        path, equals, value = text.partition('=')
        section, dot, name = path.partition('.')
        if not equals or not dot:
            known = [f'{part}.{name}' for part in SECTIONS for name in fields_of(part)]
            alike = [key for key in known if key.partition('.')[2] == fold(path)]
            close = alike[0] if alike else nearest(fold(path), known)
            raise ConfigError(f'--set {shown(text)}: write section.key=value, as in {close}=...')
        if fold(section) in ('job', 'lun'):
            whole = 'workload' if fold(section) == 'job' else 'target'
            raise ConfigError(f'--set {shown(text)}: write {whole}.{name}, for all {section}s')
        if fold(section) in LISTS:
            raise ConfigError(f'--set {shown(text)}: [[{fold(section)}]] tables stand in a file')
        tree.setdefault(fold(section), {})[fold(name)] = value
    return tree
