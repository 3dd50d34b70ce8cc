"""TOML files: read with the line of each key, for messages, and written."""

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sim.errors import ConfigError
from sim.formats import fold, read_text

# The place of a key by its dotted path, and which table of an array of tables it stands in.
Where = Callable[[str, int], str]

HEADER = re.compile(r'\s*\[{1,2}([^\[\]]+)\]{1,2}\s*(#.*)?')
ASSIGNMENT = re.compile(r'\s*([\w."\'-]+(?:\s*\.\s*[\w"\'-]+)*)\s*=')


def read_toml(path: str | Path) -> tuple[dict[str, Any], Where]:
    """The file's tables, and a function that says where a key stands; ConfigError if unreadable."""
    text = read_text(path)
    try:
        tree = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        line = re.search(r'\(at line ([0-9]+)', str(error))
        place = f'{path}:{line[1]}' if line else str(path)
        raise ConfigError(f'{place}: not valid TOML: {" ".join(str(error).split())}') from None
    lines = key_lines(text)

    def where(dotted: str, nth: int = 0) -> str:
        while dotted and (dotted, nth) not in lines:  # then the table that it stands in
            dotted = dotted.rpartition('.')[0]
        return f'{path}:{lines[dotted, nth]}' if dotted else str(path)

    return tree, where


def config_file(toml: str | Path) -> Path:
    """A TOML file; of the folder of a saved run the config in it."""
    place = Path(toml)
    inside = place / 'config.toml'
    return inside if inside.is_file() else place


def key_lines(text: str) -> dict[tuple[str, int], int]:
    """Line numbers by dotted path and by how often its table's header stood before (a search)."""
    lines: dict[tuple[str, int], int] = {}
    seen: dict[str, int] = {}
    table = ''
    for number, line in enumerate(text.splitlines(), 1):
        if match := HEADER.fullmatch(line):
            table = plain(match[1])
            seen[table] = seen.get(table, -1) + 1
            lines[table, seen[table]] = number
        elif match := ASSIGNMENT.match(line):
            path = f'{table}.{plain(match[1])}' if table else plain(match[1])
            lines.setdefault((path, seen.get(table, 0)), number)
    return lines


def plain(path: str) -> str:
    """A dotted path without quotes and blanks."""
    return fold(re.sub(r'[\s"\']', '', path))


def toml_table(head: str, table: Mapping[str, object]) -> str:
    """One table of bool, int and text values, which TOML writes as JSON does; None is left out."""
    lines = [head]
    for name, value in table.items():
        if value is not None:
            quoted = json.dumps(name, ensure_ascii=False) if '.' in name else name
            lines.append(f'{quoted} = {json.dumps(value, ensure_ascii=False)}')
    return '\n'.join(lines) + '\n'
