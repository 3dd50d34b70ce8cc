"""What a config names and does not contain: a preset of the user's, a disk in Python.

Their text decides what a run gives, so that it belongs to the run's id. What ships with the
simulator does not count here: it is part of the model's own digest.
"""

import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path


def contents(preset: str, components: Iterable[str | None]) -> Iterator[bytes]:
    """The files' contents; nothing for one that is not there, which whoever needs it will say.

    Of a component it is the module of its function, not what that imports.
    """
    files = [Path(preset)] if preset.endswith('.toml') else []
    for component in components:
        if component:
            files += _module_file(component.partition(':')[0])
    for file in files:
        try:
            yield file.read_bytes()
        except OSError:
            continue


def _module_file(name: str) -> list[Path]:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return []
    return [Path(spec.origin)] if spec is not None and spec.origin else []
