"""Cost presets, and what the model makes of them.

A preset (presets/*.toml) is a table of published or estimated costs, each with value, unit, range,
grade and source. `derive` turns it into the integer cycles that the agents charge.

Measured shares of a code path contain the cache misses of that path. The simulator charges misses
separately (sim.memory), so each share is taken *net* of the line costs of the reference path:
split ring, INDIRECT, EVENT_IDX, one request at a time (threads of user space: batches, as they were
measured). The reference path is not a number in a
file: `sim.reference_path` runs it on the real ring and counts. On it a share plus its lines is then
exactly the measured total, and other rings or batches differ by the lines they touch.
"""

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sim.compiling import tell_on_a_terminal
from sim.config import Config
from sim.control.costs import CONTROL_PARAMETERS
from sim.errors import ConfigError
from sim.features import STACKS
from sim.formats import nearest
from sim.formats.disks import preset_folder
from sim.reference_path import BATCHES, reference_lines

HALT_POLL_NS_GROW_START = 10_000  # virt/kvm/kvm_main.c, halt_poll_ns_grow_start


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One row of a preset. `value` and range in `unit`; `role` is model, check or other."""

    name: str
    value: float
    unit: str
    minimum: float | None
    maximum: float | None
    grade: str
    role: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A named table of parameters; cycles are cycles of `cpu_hz`."""

    name: str
    cpu_hz: int
    parameters: Mapping[str, Parameter]


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What the agents charge, in cycles of the run's clock."""

    guest_submit: int  # block layer and driver per request, net of lines
    guest_complete: int  # completion per request, net of lines
    guest_io_submit: int  # one io_submit or io_uring_enter
    guest_io_getevents: int
    guest_poll: int  # one turn of a thread that polls for completions
    guest_switch: int  # from one thread to another on one vCPU
    guest_slice: int  # after which a thread gives way to another
    kick_exit: int  # VM exit up to the ioeventfd
    kick_signal: int  # eventfd_signal, in the vCPU's thread
    kick_wakeup: int  # more, where the worker sleeps: try_to_wake_up()
    kick_return: int  # back into the guest
    irq_inject: int  # call eventfd to the handler of a running vCPU
    irq_entry: int
    irq_return: int
    vcpu_halt_wake: int  # more, when the host has put the vCPU to sleep
    vcpu_halt_poll: int  # how long it polls at most before it does (guest.halt_poll_ns)
    vcpu_halt_poll_start: int  # how long it polls at least, once it does
    worker_wake: int
    worker_wake_deep: int  # from a deep idle state of the host CPU
    deep_idle_after: int  # how long the CPU must be idle for that
    context_switch: int  # from one worker to another on one CPU
    worker_pop: int  # fetch, checks, mapping per request, net of lines
    worker_submit: int  # queue_work to LIO
    worker_complete: int  # response, used element, signal per request, net of lines
    worker_log: int  # a page in the dirty log
    lio_hop: int  # queue_work until the kworker runs
    lio_submit: int
    lio_complete: int
    reactor_round: int  # a turn of SPDK's reactor through its pollers
    reactor_queue: int  # a look at one virtqueue
    reactor_submit: int  # from the ring to the bdev per request, net of lines
    reactor_complete: int  # from the bdev to the used element per request, net of lines
    iothread_wake: int  # an eventfd until QEMU's IOThread runs
    iothread_turn: int  # one system call of its event loop, with the dispatch behind it
    iothread_round: int  # one round of polling
    iothread_pop: int  # fetch and parse per request, net of lines
    iothread_submit: int  # block layer per request
    iothread_issue: int  # io_submit() per request
    iothread_complete: int  # per request, net of lines
    call_write: int  # write() to the irqfd, by either of the two
    host_slice: int  # after which a thread of the host gives way to another on its CPU
    line_hit: int
    line_shared: int
    line_transfer: int
    line_cold: int
    null_service: int  # the null medium, without the submitter that its figure includes

    @property
    def line_prices(self) -> tuple[int, int, int, int]:
        """(hit, shared, transfer, cold), as sim.memory.new_lines wants them."""
        return self.line_hit, self.line_shared, self.line_transfer, self.line_cold

    def scaled(self, factor: int) -> 'Costs':
        """Every cost times an integer: the whole machine that much slower."""
        return Costs(**{k: v * factor for k, v in dataclasses.asdict(self).items()})


def load_preset(name: str) -> Preset:
    """Read a preset by name or by path of a .toml file. Errors: ConfigError, one line."""
    path = Path(name) if name.endswith('.toml') else preset_folder() / f'{name}.toml'
    when = path.stat().st_mtime_ns if path.is_file() else 0
    return _read_preset(name, path, when)


@lru_cache(maxsize=8)
def _read_preset(name: str, path: Path, when: int) -> Preset:
    """`when` the file was changed last; nobody changes a preset that has been read."""
    if not path.is_file():
        known = ', '.join(sorted(p.stem for p in preset_folder().glob('*.toml')))
        raise ConfigError(f'run.preset: no preset {name!r}; known: {known}, or a path to a .toml')
    try:
        table = tomllib.loads(path.read_text(encoding='utf-8'))
        rows = {key: _parameter(key, row) for key, row in table.items() if isinstance(row, dict)}
        preset = Preset(name=table['name'], cpu_hz=int(table['cpu_hz']), parameters=rows)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f'{path}: cannot be read as a preset: {error}') from error
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f'{path}: not a preset: {error} is missing or wrong') from error
    missing = sorted((MODEL_PARAMETERS | CONTROL_PARAMETERS) - rows.keys())
    if missing:
        raise ConfigError(f'{path}: the preset lacks {", ".join(missing)}')
    return preset


def _parameter(name: str, row: Mapping[str, Any]) -> Parameter:
    return Parameter(
        name=name,
        value=row['value'],
        unit=row['unit'],
        minimum=row.get('min'),
        maximum=row.get('max'),
        grade=row['grade'],
        role=row['role'],
        source=row['source'],
    )


UNREACHED = 1 << 50  # cycles: beyond the end of the clock

MODEL_PARAMETERS = {
    'guest.submit_per_cmd_batched',
    'guest.complete_per_cmd_batched',
    'guest.syscall_pair_per_cmd_unbatched',
    'guest.io_submit_share_of_pair',
    'guest.poll_turn',
    'guest.context_switch',
    'guest.sched_slice',
    'kick.exit_to_kernel_roundtrip',
    'kick.exit_share_before_signal',
    'kick.eventfd_signal_plus_wakeup_cpu',
    'kick.wakeup_share_of_signal',
    'vhost.worker_wakeup_latency_shallow_idle',
    'vhost.worker_wakeup_latency_deep_cstate',
    'host.deep_idle_residency',
    'host.context_switch',
    'host.sched_slice',
    'vhost.worker_pop_share',
    'vhost.worker_submit_hop_share',
    'vhost.worker_complete_share',
    'vhost.log_page',
    'lio.core_plus_block_cpu_per_cmd',
    'lio.submit_share_of_core',
    'lio.workqueue_hop_latency_qd1',
    'lio.queue_work_per_cmd',
    'lio.work_item_per_cmd',
    'lio.unplug_per_cmd',
    'irq.inject_to_running_vcpu_posted',
    'irq.guest_handler_entry_exit',
    'irq.entry_share_of_handler',
    'vcpu.halt_wake_penalty_no_poll',
    'qemu_iothread.cpu_per_req',
    'qemu_iothread.pop_share_of_req',
    'qemu_iothread.submit_share_of_req',
    'qemu_iothread.issue_share_of_req',
    'qemu_iothread.wakeup_latency',
    'qemu_iothread.turn_cpu',
    'qemu_iothread.poll_round',
    'host.eventfd_write',
    'spdk_vhost.cpu_per_cmd_per_core',
    'spdk_vhost.submit_share_of_cmd',
    'spdk_vhost.poll_round',
    'spdk_vhost.poll_queue',
    'cacheline.transfer_same_socket',
    'mem.l1_hit',
    'mem.l3_hit',
    'mem.dram_local',
    'dev.null.service',
}


def check_overrides(preset: Preset, overrides: Mapping[str, float]) -> None:
    """ConfigError for a name that the preset lacks, or that the model does not charge."""
    for name in overrides:
        if name not in preset.parameters:
            close = nearest(name, preset.parameters)
            raise ConfigError(
                f'costs.{name}: no such parameter in {preset.name}; the nearest is {close!r}'
            )
        if name not in MODEL_PARAMETERS | CONTROL_PARAMETERS:
            role = preset.parameters[name].role
            raise ConfigError(f'costs.{name}: has role {role!r}, the model does not charge it')


def less(name: str, gross: int, inside: int) -> int:
    """What is left of a cost when what it contains is charged elsewhere; ConfigError below 0."""
    if gross < inside:
        raise ConfigError(
            f'costs.{name}: {gross} cycles are less than the {inside} cycles that are charged '
            'for what it contains, cache lines above all; raise it or lower the line costs'
        )
    return gross - inside


@dataclass(frozen=True)
class Reading:
    """Parameters of a preset in cycles of `cpu_hz`; overrides (ns, percent) outrank them."""

    preset: Preset
    overrides: Mapping[str, float]
    cpu_hz: int

    def cycles(self, name: str) -> int:
        """A cost."""
        if name in self.overrides:
            return round(self.overrides[name] * self.cpu_hz / 10**9)
        row = self.preset.parameters[name]
        units = self.preset.cpu_hz if row.unit == 'cycles' else 10**9  # of the row, in a second
        return round(row.value * self.cpu_hz / units)

    def percent(self, name: str) -> int:
        """A share of another cost. Errors: ConfigError."""
        share = int(self.overrides.get(name, self.preset.parameters[name].value))
        if not 0 <= share <= 100:
            raise ConfigError(f'costs.{name}: {share} is not a percentage (0..100)')
        return share

    def split(self, name: str, share: str) -> tuple[int, int]:
        """A cost in two: its share, and the rest."""
        whole = self.cycles(name)
        first = whole * self.percent(share) // 100
        return first, whole - first

    def parts(self, name: str, *shares: str) -> list[int]:
        """A thread's time per request by its shares, and the rest. Errors: ConfigError."""
        percents = [self.percent(share) for share in shares]
        if sum(percents) > 100:
            raise ConfigError(f'costs.{shares[0]}: the shares of {name} are more than 100 percent')
        return [self.cycles(name) * part // 100 for part in (*percents, 100 - sum(percents))]

    def net_of_a_batch(
        self, name: str, parts: list[int], turn: str, stack: str, prices: tuple[int, int, int, int]
    ) -> list[int]:
        """The same, net of what else is charged in a saturated thread of user space.

        That is its line costs, and for each batch a turn of the loop and the write to the irqfd.
        """
        lines, batch = reference_lines(prices, stack=stack), BATCHES[stack]
        first = less(name, parts[0], lines.worker_pop + self.cycles(turn) // batch)
        write = self.cycles('host.eventfd_write') // batch
        return [first, *parts[1:-1], less(name, parts[-1], lines.worker_complete + write)]


def derive(
    preset: Preset,
    overrides: Mapping[str, float],
    cpu_hz: int,
    halt_poll_ns: int,
    *,
    stack: str = 'vhost-scsi',
    deep_idle: bool = False,
    per_command: bool = False,
) -> Costs:
    """The cycles that the agents charge at `cpu_hz`.

    `overrides` maps parameter names to ns (percent for shares). `stack` (sim.features) is what the
    costs are for; those of the two others are not looked at. `per_command`: each command goes to
    LIO in a work item and under a plug of its own (before Linux 5.13). Errors: ConfigError for an
    unknown name, and for a share that is smaller than the line costs it is said to contain.
    """
    check_overrides(preset, overrides)
    read = Reading(preset, overrides, cpu_hz)
    cycles, split = read.cycles, read.split
    prices = (
        cycles('mem.l1_hit'),
        cycles('mem.l3_hit'),
        cycles('cacheline.transfer_same_socket'),
        cycles('mem.dram_local'),
    )
    lines = reference_lines(prices)

    def net(name: str, inside: int) -> int:
        return less(name, cycles(name), inside)

    io_submit, io_getevents = split(
        'guest.syscall_pair_per_cmd_unbatched', 'guest.io_submit_share_of_pair'
    )
    kick_exit, kick_return = split('kick.exit_to_kernel_roundtrip', 'kick.exit_share_before_signal')
    kick_wakeup, kick_signal = split(
        'kick.eventfd_signal_plus_wakeup_cpu', 'kick.wakeup_share_of_signal'
    )
    irq_entry, irq_return = split('irq.guest_handler_entry_exit', 'irq.entry_share_of_handler')
    lio_submit, lio_complete = split('lio.core_plus_block_cpu_per_cmd', 'lio.submit_share_of_core')
    queue_work, work_item = 0, 0  # more than of a batch
    if per_command:
        queue_work = cycles('lio.queue_work_per_cmd')
        work_item = cycles('lio.work_item_per_cmd') + cycles('lio.unplug_per_cmd')
    reactor = read.parts(
        'spdk_vhost.cpu_per_cmd_per_core',
        'spdk_vhost.submit_share_of_cmd',
    )
    iothread = read.parts(
        'qemu_iothread.cpu_per_req',
        'qemu_iothread.pop_share_of_req',
        'qemu_iothread.submit_share_of_req',
        'qemu_iothread.issue_share_of_req',
    )
    if stack == 'vhost-user-scsi':
        reactor = read.net_of_a_batch(
            'spdk_vhost.cpu_per_cmd_per_core', reactor, 'spdk_vhost.poll_round', stack, prices
        )
    elif stack == 'virtio-scsi':
        iothread = read.net_of_a_batch(
            'qemu_iothread.cpu_per_req', iothread, 'qemu_iothread.poll_round', stack, prices
        )
    return Costs(
        guest_submit=net('guest.submit_per_cmd_batched', lines.guest_submit),
        guest_complete=net('guest.complete_per_cmd_batched', lines.guest_complete),
        guest_io_submit=io_submit,
        guest_io_getevents=io_getevents,
        guest_poll=cycles('guest.poll_turn'),
        guest_switch=cycles('guest.context_switch'),
        guest_slice=cycles('guest.sched_slice'),
        kick_exit=kick_exit,
        kick_signal=kick_signal,
        kick_wakeup=kick_wakeup,
        kick_return=kick_return,
        irq_inject=cycles('irq.inject_to_running_vcpu_posted'),
        irq_entry=irq_entry,
        irq_return=irq_return,
        vcpu_halt_wake=cycles('vcpu.halt_wake_penalty_no_poll'),
        vcpu_halt_poll=round(halt_poll_ns * cpu_hz / 10**9),
        vcpu_halt_poll_start=round(HALT_POLL_NS_GROW_START * cpu_hz / 10**9),
        worker_wake=cycles('vhost.worker_wakeup_latency_shallow_idle'),
        worker_wake_deep=cycles('vhost.worker_wakeup_latency_deep_cstate'),
        deep_idle_after=cycles('host.deep_idle_residency') if deep_idle else UNREACHED,
        context_switch=cycles('host.context_switch'),
        worker_pop=net('vhost.worker_pop_share', lines.worker_pop),
        worker_submit=cycles('vhost.worker_submit_hop_share') + queue_work,
        worker_complete=net('vhost.worker_complete_share', lines.worker_complete),
        worker_log=cycles('vhost.log_page'),
        lio_hop=cycles('lio.workqueue_hop_latency_qd1'),
        lio_submit=lio_submit + work_item,
        lio_complete=lio_complete,
        reactor_round=cycles('spdk_vhost.poll_round'),
        reactor_queue=cycles('spdk_vhost.poll_queue'),
        reactor_submit=reactor[0],
        reactor_complete=reactor[1],
        iothread_wake=cycles('qemu_iothread.wakeup_latency'),
        iothread_turn=cycles('qemu_iothread.turn_cpu'),
        iothread_round=cycles('qemu_iothread.poll_round'),
        iothread_pop=iothread[0],
        iothread_submit=iothread[1],
        iothread_issue=iothread[2],
        iothread_complete=iothread[3],
        call_write=cycles('host.eventfd_write'),
        host_slice=cycles('host.sched_slice'),
        line_hit=prices[0],
        line_shared=prices[1],
        line_transfer=prices[2],
        line_cold=prices[3],
        null_service=max(0, cycles('dev.null.service') - lio_submit - lio_complete),
    )


def of_config(config: Config) -> Costs:
    """The cost table of a config: its preset, its overrides, its clock.

    Of a simulation it is the first that needs compiled kernels.
    """
    tell_on_a_terminal()
    preset = load_preset(config.run.preset)
    host, guest = config.host, config.guest
    return derive(
        preset,
        config.costs,
        host.cpu_hz,
        guest.halt_poll_ns,
        stack=STACKS[config.device.driver],
        deep_idle=host.deep_idle,
        per_command=host.lio_submission == 'per_command',
    )
