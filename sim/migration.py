"""A live migration of a run's VM: both ends, the engines that carry it, and what came of it.

The source is the run's own machine. At the hand-over the guest goes on in a second one
(sim.migrate.handover), whose engine continues the clock. sim.migrate.moving has the two halves,
sim.migrate.report what is said of them.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from sim import costs
from sim.config import Config, from_effective, with_migration
from sim.control.clock import Action
from sim.control.halves import prepare
from sim.control.power import Host, switch_on
from sim.control.stop_policy import Policy, policy_named
from sim.device import NOT_MIGRATABLE
from sim.engine import Engine
from sim.errors import ConfigError
from sim.faults import Faults
from sim.faults import check as check_faults
from sim.features import STACKS
from sim.formats.faults import parse_faults
from sim.formats.migration_keys import Migration
from sim.formats.qemu import parse_device
from sim.lio import lun as unit
from sim.lio import reserve
from sim.machine import Machine, build
from sim.migrate import handover
from sim.migrate.link import Link
from sim.migrate.moving import NOT_TAKEN, Migrating
from sim.migrate.precopy import Precopy
from sim.migrate.ram import Ram
from sim.migrate.report import report
from sim.run import Phases, Result, check_single, finish
from sim.run import prepare as prepare_run
from sim.units import ns_to_cycles

RESERVATION_KEY = 0x7673636D  # what the guest registers with, whatever it is


def migrate(
    config: Config,
    look: Callable[[Result, Migrating], None] | None = None,
    attend: Callable[[Migrating], None] | None = None,
) -> dict[str, Any]:
    """Run a config with a migration in it. `look` is shown what came of it, `attend` both ends
    before it begins.

    Errors: ConfigError where the device blocks migration, or nothing can be migrated like this.
    """
    began = time.perf_counter()
    move = begin(config)
    if attend is not None:
        attend(move)
    run_half(move, move.source, move.outbound())
    engine = carry_over(move)
    engine.run()
    result = finish(config, engine, began)
    if look is not None:
        look(result, move)
    return report(move, result)


def begin(config: Config) -> Migrating:
    """Both ends of a migration, at time zero."""
    config = with_migration(config)
    plan = config.migration
    assert plan is not None
    check(config, plan)
    check_faults(parse_faults(plan.faults), config.device.driver, config.host.kernel)
    there = destination_of(config)
    engine, phases = prepare_run(config)
    host = switch_on(engine, config)
    fresh = build(there, costs.of_config(there))
    handover.check_alike(engine.machine, fresh)
    return meet(config, engine, phases, host, fresh, there)


def meet(
    config: Config, engine: Engine, phases: Phases, host: Host, fresh: Machine, there: Config
) -> Migrating:
    """A migration of the VM on `engine` to a host of the config `there`, with machine `fresh`."""
    plan, hz = config.migration, config.host.cpu_hz
    assert plan is not None
    policy = policy_of(config, plan)
    prepare(host, policy)
    if plan.reservation:
        for _, lun in engine.machine.luns.values():
            reserve.hold(engine.machine.st, lun, RESERVATION_KEY)
            unit.guard(engine.machine.st, np.uint64(lun))
    ram = Ram(
        engine.machine, size=plan.ram, used=plan.ram_used, rate=plan.dirty_rate,
        hot_set=plan.hot_set, cpu_hz=hz,
    )  # fmt: skip
    latency = int(ns_to_cycles(plan.link_latency, hz))
    link = Link(host.control, plan.link_bandwidth, latency, hz)
    return Migrating(
        config=config,
        plan=plan,
        policy=policy,
        source=engine,
        phases=phases,
        host=host,
        fresh=fresh,
        there=there,
        ram=ram,
        link=link,
        precopy=Precopy(host, plan, ram, link, hz),
        faults=Faults(parse_faults(plan.faults), hz),
    )


def policy_of(config: Config, plan: Migration) -> Policy:
    """How the device is stopped. Errors: ConfigError where its backend cannot do that."""
    return policy_named(
        plan.policy,
        plan.lead,
        stack=STACKS[config.device.driver],
        hypothetical=config.run.hypothetical,
        depth=plan.depth,
        timeout=plan.timeout,
        option='migration.{}={}',
    )


def carry_over(move: Migrating) -> Engine:
    """After the source's half: the engine on which the VM goes on, ready to run."""
    if move.departure is None:
        return move.source
    move.arrive()
    engine = move.arrived
    assert engine is not None
    run_half(move, engine, move.inbound())
    if move.outcome.startswith(NOT_TAKEN) and move.plan.return_path and move.link.cut is None:
        run_half(move, move.source, move.back_home())
        return move.source
    return engine


def run_half(move: Migrating, engine: Engine, action: Action) -> None:
    """Run an engine until a control action is over; one that never ends leaves `stuck`."""
    process = engine.env.process(action)
    engine.run(process)
    if not process.triggered:
        host = move.arrived_host if engine is move.arrived else move.host
        assert host is not None
        before = 'setup' if not move.precopy.counters.setup_time else 'precopy'
        move.outcome = f'stuck in {host.control.clock.phase or before}'
        host.control.clock.phase = None  # which has no length


def destination_of(config: Config) -> Config:
    """The config of the destination."""
    plan = config.migration
    assert plan is not None
    host = replace(config.host, kernel=plan.to_kernel)
    sections = replace(config, host=host, migration=None).effective()  # what that kernel knows of
    sections['qemu'] = {**sections['qemu'], 'version': plan.to_qemu}
    if plan.to_device:
        driver = config.device.driver
        table, _ = parse_device(f'{driver},{plan.to_device}')
        given = {name: value for name, value in table.items() if name != 'driver'}
        if not given:
            raise ConfigError(
                f'migration.to_device={plan.to_device}: names no property; write one, as in '
                'virtqueue_size=256, or take the key out'
            )
        check_queues(config, given)
        sections['device'] = {**sections['device'], **given}
    return from_effective(sections)


def check_queues(config: Config, given: dict[str, Any]) -> None:
    """As many request queues on both sides, even of those that the guest does not use: the MSI-X
    table has vectors for them, and get_pci_config_device() refuses one of another size.

    Errors: ConfigError.
    """
    here, there = config.device.num_queues, given.get('num_queues')
    if there is not None and str(there.value) != str(here):
        raise ConfigError(
            f'migration.to_device: num_queues={there.value}, but the source has {here} in use: '
            'where the PCI devices differ, QEMU refuses the load; take it out'
        )


def check(config: Config, plan: Migration) -> None:
    """What cannot be migrated, or not like this. Errors: ConfigError."""
    check_single(config, 'a migration')
    if plan.ram_used is not None and plan.ram_used > plan.ram:
        raise ConfigError(
            f'migration.ram_used={plan.ram_used}: more than migration.ram={plan.ram}; lower it, or '
            'raise that'
        )
    if plan.vfio_state is not None and not plan.vfio_devices:
        raise ConfigError(
            'migration.vfio_state: has no meaning without migration.vfio_devices; take it out'
        )
    if STACKS[config.device.driver] == 'vhost-scsi' and not config.device.migratable:
        raise ConfigError(f'device.migratable=off: {NOT_MIGRATABLE}')
    if STACKS[config.device.driver] == 'vhost-scsi' and config.device.packed:
        raise ConfigError(
            'device.packed=on: no kernel vhost-scsi has packed rings, and none logs what it writes '
            'to them: a migration would leave pages behind; take it out'
        )
    if config.tmfs or any(lun.disk.kind == 'python' for lun in config.disks):
        raise ConfigError(
            'migration: neither [[tmf]] tables nor disks written in Python can be handed over; '
            'take them out'
        )
