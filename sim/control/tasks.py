"""The tasks of the guest's error handler: started at their time, and told of afterwards."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import simpy

from sim import guest, record
from sim.config import Config
from sim.engine import Engine
from sim.formats.action_keys import Tmf
from sim.machine import Machine
from sim.units import cycles_to_ns, ns_to_cycles

u64 = np.uint64

# virtio_scsi_cmd_resp.response by their values, as the specification names them.
RESPONSES = (
    'ok',
    'overrun',
    'aborted',
    'bad_target',
    'reset',
    'busy',
    'transport_failure',
    'target_failure',
    'nexus_failure',
    'failure',
    'function_succeeded',
    'function_rejected',
    'incorrect_lun',
)
SUCCESS = (0, 10)  # what virtscsi_tmf() takes for success


def start(engine: Engine, config: Config) -> None:
    """A process for each [[tmf]] table of the config."""
    for task, tmf in zip(engine.machine.tasks, config.tmfs, strict=True):
        at = int(ns_to_cycles(tmf.at, config.host.cpu_hz))
        engine.env.process(_begin(engine, task, at))


def _begin(engine: Engine, task: int, at: int) -> Generator[simpy.Event, Any, None]:
    yield engine.env.timeout(at)
    machine = engine.machine
    row = int(machine.st[task + int(guest.TASK_ROW)])
    machine.tr[row + int(record.R_ARRIVE)] = at + 1
    guest.give_work(machine.st, u64(machine.error_handler), task, at)
    engine.wake_agents()


@dataclass(frozen=True)
class Task:
    """What became of one."""

    tmf: Tmf
    response: int  # the code, -1 while there is none
    times_ns: dict[str, int | None]

    def report(self) -> dict[str, Any]:
        """As plain data: function and place, answer, timestamps in ns (None: never happened)."""
        known = 0 <= self.response < len(RESPONSES)
        return {
            'function': self.tmf.function,
            'target': self.tmf.target,
            'lun': self.tmf.lun,
            'response': RESPONSES[self.response] if known else None,
            'result': self.result,
            **self.times_ns,
        }

    @property
    def result(self) -> str:
        """What the guest's SCSI layer hears: success or failed; waiting for ever."""
        if self.times_ns['t_complete_ns'] is None:
            return 'waiting'
        return 'success' if self.response in SUCCESS else 'failed'


def of_run(machine: Machine, config: Config) -> list[Task]:
    """Every task of a run, in the order of the config."""
    found = []
    for base, tmf in zip(machine.tasks, config.tmfs, strict=True):
        row = int(machine.st[base + int(guest.TASK_ROW)])
        times: dict[str, int | None] = {}
        for place, name in enumerate(record.TIMESTAMPS):
            cycle = int(machine.tr[row + place])
            ns = int(cycles_to_ns(np.int64(cycle - 1), config.host.cpu_hz)) if cycle else None
            times[f'{name}_ns'] = ns
        found.append(Task(tmf, int(machine.st[base + int(guest.TASK_RESPONSE)]), times))
    return found


def task_frame(tasks: list[Task]) -> pd.DataFrame:
    """One row per task, times in ns, missing where it never happened."""
    frame = pd.DataFrame([task.report() for task in tasks])
    times = [f'{name}_ns' for name in record.TIMESTAMPS]
    return frame.astype(dict.fromkeys(times, 'Int64')) if tasks else frame
