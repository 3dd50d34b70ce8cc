"""A disk written in Python: an ordinary SimPy process that takes commands and gives them back.

    def slow_disk(port):
        while True:
            command = yield port.get()
            yield port.env.timeout(port.cycles(100_000))  # ns
            port.done(command)

`--set target.kind=python --set target.component=module:slow_disk` runs it in place of the compiled
media, under the SimPy engine. What it decides is when a command is done; data, sense and faults
stay with the target.
"""

import importlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import simpy

from sim import agents
from sim.disks import outside
from sim.engine import Engine
from sim.errors import ConfigError
from sim.se_cmd import X_BLOCKS, X_LBA, X_OP
from sim.units import ns_to_cycles

OPERATIONS = ('read', 'write', 'flush', 'discard')


@dataclass(frozen=True)
class Command:
    """What the disk is asked: read, write, flush or discard of `blocks` of 512 bytes at `lba`."""

    op: str
    lba: int
    blocks: int
    handle: int  # the simulator's own


class Port:
    """Where the commands come from and go back to. Time in `env` is cycles of host.cpu_hz."""

    def __init__(self, engine: Engine, cpu_hz: int, slot: int) -> None:
        self.env = engine.env
        self._engine, self._cpu_hz = engine, cpu_hz
        self._disk = np.uint64(engine.machine.bases[slot])
        self._commands = simpy.Store(engine.env)
        self._held: set[int] = set()
        engine.listeners.append(self._notice)

    def cycles(self, ns: int) -> int:
        """Cycles in so many nanoseconds."""
        return int(ns_to_cycles(ns, self._cpu_hz))

    def get(self) -> Any:
        """An event to yield: the next command, first in first out."""
        return self._commands.get()

    def try_get(self) -> Command | None:
        """The next command if one waits, else None."""
        items = self._commands.items
        return items.pop(0) if items else None

    def done(self, command: Command) -> None:
        """The command is finished now. ValueError if it is not one that was given out."""
        if command.handle not in self._held:
            raise ValueError(f'{command} is not with the disk: it is done already')
        self._held.remove(command.handle)
        outside.done(self._engine.machine.st, self._disk, command.handle, int(self.env.now))
        self._engine.wake_agents()

    def _notice(self, bits: int) -> None:
        if not bits & agents.N_OUTSIDE:
            return
        st = self._engine.machine.st
        while (handle := int(outside.take(st, self._disk))) >= 0:
            self._held.add(handle)
            op, lba, blocks = (int(st[handle + int(word)]) for word in (X_OP, X_LBA, X_BLOCKS))
            self._commands.put(Command(OPERATIONS[op], lba, blocks, handle))


Disk = Callable[[Port], Generator[simpy.Event, Any, Any]]


def attach(engine: Engine, name: str, cpu_hz: int, slot: int) -> None:
    """Start the disk `module:function` as the agent in `slot`. ConfigError if there is none."""
    engine.env.process(find(name)(Port(engine, cpu_hz, slot)))


def find(name: str) -> Disk:
    """The function that `module:function` names."""
    module, _, function = name.partition(':')
    try:
        disk: Disk = getattr(importlib.import_module(module), function)
    except ImportError as error:
        raise ConfigError(
            f'target.component={name}: {module} cannot be imported ({error}); is its folder on '
            'PYTHONPATH?'
        ) from error
    except AttributeError:
        raise ConfigError(f'target.component={name}: {module} has no {function}') from None
    if not callable(disk):
        raise ConfigError(f'target.component={name}: {function} is not a function')
    return disk
