"""What QEMU's main thread and the host kernel charge for control: ioctls, flushes, notifiers.

Rows `control.*` of a preset, in ns there and in cycles here. No published figures exist: all are
guesses of grade C with a wide range. `python -m sim params` says what each covers.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.config import Config
    from sim.costs import Preset


@dataclass(frozen=True, kw_only=True)
class ControlCosts:
    """Cycles of the run's clock; the preset's row `control.NAME` explains each."""

    ioctl: int
    vq_step: int
    vq_access: int
    flush_wakeup: int
    command_alloc: int
    command_free: int
    tag_map: int
    configfs: int
    owner: int
    new_worker: int
    attach_worker: int
    mem_table: int
    log_base: int
    qemu_step: int
    ring_map: int
    host_notifier: int
    guest_notifier: int
    memory_transaction: int
    vcpu_kick: int
    vcpu_resume: int
    vm_state_notify: int
    bdrv_flush: int
    log_word: int
    migration_setup: int
    bitmap_word: int
    page_zero: int
    page_send: int
    state_save: int
    state_load: int
    incoming_end: int
    vfio_stop: int
    vfio_save: int
    vfio_load: int
    vfio_start: int
    message: int
    reply: int
    stop_poll: int


CONTROL_PARAMETERS = {f'control.{item.name}' for item in dataclasses.fields(ControlCosts)}

NOTHING = ControlCosts(**{item.name: 0 for item in dataclasses.fields(ControlCosts)})


def derive_control(preset: 'Preset', overrides: Mapping[str, float], cpu_hz: int) -> ControlCosts:
    """The cycles at `cpu_hz`; `overrides` maps parameter names to ns."""

    def cycles(name: str) -> int:
        row = preset.parameters[name]
        ns = row.value * 10**9 / preset.cpu_hz if row.unit == 'cycles' else row.value
        return round(overrides.get(name, ns) * cpu_hz / 10**9)

    names = [item.name for item in dataclasses.fields(ControlCosts)]
    return ControlCosts(**{name: cycles(f'control.{name}') for name in names})


def control_of_config(config: 'Config') -> ControlCosts:
    """The control costs of a config: its preset, its overrides, its clock."""
    from sim.costs import load_preset

    return derive_control(load_preset(config.run.preset), config.costs, config.host.cpu_hz)
