"""A section of the config as values: converted, defaults filled in."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sim.formats.keys import Key, fields_of
from sim.formats.layer import Table
from sim.formats.values import convert

Values = Mapping[str, Any]  # converted, of one section


def values(section: str, table: Table, *, modelled: bool = True) -> dict[str, Any]:
    """The converted value or the default of each key of a section.

    A valid value that is not modelled yet is refused if `modelled`.
    """
    result = {}
    for name, item in fields_of(section).items():
        key: Key = item.metadata['key']
        key = key if modelled else replace(key, only=())
        given = table.get(name)
        result[name] = item.default if given is None else convert(key, f'{section}.{name}', given)
    return result
