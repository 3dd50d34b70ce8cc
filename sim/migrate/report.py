"""What came of a migration: what `sim migrate` prints (docs/reference/migration.md).

From the pause of the vCPUs on the source to their resumption on the destination every cycle is
charged to exactly one of PHASES. QEMU's own downtime is beside that, and what the guest felt.
"""

import shlex
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.analysis import frame
from sim.control import felt, stop_stamps
from sim.control.again import words_of
from sim.faults import invented
from sim.features import STACKS
from sim.layout import PAGE_SIZE
from sim.machine import Machine
from sim.migrate.moving import BOTH, NOT_TAKEN, ON_SOURCE, Migrating
from sim.run import Result
from sim.units import cycles_to_ns

PHASES = (
    'vcpu_pause', 'drain', 'log_sync', 'ring_base', 'ram_rest', 'state_save', 'transfer',
    'state_load', 'device_start', 'endpoint', 'vcpu_resume',
)  # fmt: skip
VFIO_PHASES = (  # where functions are passed through with VFIO
    'vcpu_pause', 'drain', 'log_sync', 'ring_base', 'vfio_stop', 'ram_rest', 'vfio_save',
    'state_save', 'transfer', 'state_load', 'vfio_load', 'vfio_start', 'device_start', 'endpoint',
    'vcpu_resume',
)  # fmt: skip


def report(move: Migrating, result: Result) -> dict[str, Any]:
    """What `sim migrate` prints: see docs/reference/migration.md."""
    hz, counters = move.hz, move.precopy.counters
    control = move.host.control
    there = move.arrived_host
    spent = dict(control.clock.spent)
    if there is not None:
        for name, cycles in there.control.clock.spent.items():
            spent[name] = spent.get(name, 0) + cycles
    rows = frame.trace_rows(result_machine(move))

    def ms(cycles: float | None) -> float | None:
        return None if cycles is None else round(cycles * 1e3 / hz, 6)

    def ns(cycles: int | None) -> int | None:
        return None if cycles is None else int(cycles_to_ns(cycles, hz))

    end = downtime_end(move)
    start = move.downtime_start
    down = None if start is None or end is None else end - start
    outcome, findings, violations = explained(move, rows, result)
    cleared = [c.duration for c in control.calls if c.name == 'VHOST_SCSI_CLEAR_ENDPOINT']
    expected = counters.expected_downtime_s
    felt_from = start if start is not None else 0
    resumed = move.resumed_at
    phases = VFIO_PHASES if move.plan.vfio_devices else PHASES
    return {
        'id': result.report['id'],
        'digest': result.report['digest'],
        'outcome': outcome,
        'policy': move.policy.name,
        'downtime_ms': ms(down),
        'expected_downtime_ms': None if expected is None else round(expected * 1e3, 6),
        'setup_time_ms': ms(counters.setup_time),
        'total_time_ms': ms(None if end is None else end - move.began),
        'ram': query_migrate(move),
        'dirty_sync_count': counters.dirty_sync_count,
        'dirty_pages_rate': round(counters.dirty_pages_rate, 1),
        'transferred_bytes': move.link.sent,
        'mbps': mbps(move),
        'phases_ns': felt.phases_ns(spent, phases, hz),
        'vm_stopped_ns': ns(None if start is None or resumed is None else resumed - start),
        'blackout_ns': felt.blackout(rows, felt_from, resumed, hz),
        'first_completion_ns': ns(felt.first_completion(rows, resumed)),
        'clear_endpoint_ns': ns(cleared[-1]) if cleared else None,
        'in_flight_at_stop': move.in_flight,
        'unfetched_at_stop': move.unfetched,
        'responses': felt.responses(rows, move.open_serials),
        **felt.slow(rows, hz),
        'stale_pages': move.stale,
        'faults': move.faults.report(),
        'qemu_said': {
            side: list(host.vm.said)
            for side, host in (('source', move.host), ('destination', there))
            if host is not None
        },
        'throttle': [[ns(at), percent] for at, percent in move.precopy.throttle.history],
        'violations': violations,
        'findings': findings,
        'expected': move.policy.breaks,
        'replay': shlex.join(words_of(move.config, 'migrate')),
        'hypothetical': hypothetical(move, result),
        'config': move.config.effective(),
    }  # fmt: skip


def query_migrate(move: Migrating) -> dict[str, Any]:
    """The object "ram" of query-migrate, by QEMU's names (MigrationStats in qapi/migration.json);
    sizes in bytes.
    """
    ram, counters = move.ram, move.precopy.counters
    sent_so_far = counters.precopy_bytes or move.link.sent
    return {
        'total': ram.pages * PAGE_SIZE,
        'transferred': move.link.sent,
        'remaining': ram.pending,
        'duplicate': ram.duplicate,
        'normal': ram.normal,
        'normal_bytes': ram.normal * PAGE_SIZE,
        'precopy_bytes': sent_so_far,
        'downtime_bytes': counters.downtime_bytes,
        'mbps': mbps(move),
        'pages_per_second': round(counters.pages_per_second),
        'dirty_pages_rate': round(counters.dirty_pages_rate),
        'dirty_sync_count': counters.dirty_sync_count,
        'page_size': PAGE_SIZE,
    }


def mbps(move: Migrating) -> float:
    """Of all that was sent, over the time behind the setup (migration_calculate_complete); of a
    migration that did not come to its end, the bandwidth of the last slice.
    """
    end, counters = downtime_end(move), move.precopy.counters
    if end is None or end - move.began <= counters.setup_time:
        return round(counters.bandwidth * 8 / 1e6, 3)
    seconds = (end - move.began - counters.setup_time) / move.hz
    return round(move.link.sent * 8 / seconds / 1e6, 3)


def result_machine(move: Migrating) -> Machine:
    """Where the VM was at the end."""
    on_source = move.arrived is None or ON_SOURCE in move.outcome
    return move.source.machine if on_source or move.arrived is None else move.arrived.machine


def downtime_end(move: Migrating) -> int | None:
    """QEMU's: the stream is out or, with the return path, the destination has said that it runs."""
    if move.outcome != 'ok':
        return None
    if not move.plan.return_path:
        return move.stream_end
    assert move.resumed_at is not None
    return move.resumed_at + move.link.latency


def explained(
    move: Migrating, rows: npt.NDArray[np.int64], result: Result
) -> tuple[str, list[str], list[str]]:
    """Outcome, findings, and the violations that no finding explains."""
    outcome, findings = move.outcome, list(move.findings)
    if outcome == 'ok' and (rows[:, frame.COLUMN['t_complete']] == 0).any():
        outcome = 'hung'
    elif outcome == 'ok' and not np.isin(rows[:, frame.COLUMN['outcome']], felt.FINE).all():
        outcome = 'errors'
    findings += move.mishaps.findings
    owned = ownership(move)
    reasons = [sentence for sentence in owned if not sentence.startswith(BOTH)]
    left = felt.stranded(rows)
    if not reasons:
        reasons = move.faults.why_unanswered(rows)
        owned += reasons
    elif not outcome.startswith('stuck'):
        findings.append('liveness: the VM has ended; its requests are never answered')
    if not reasons and left is not None and not move.policy.breaks:
        findings.append(left)
        reasons = [left]
    move.sentences += owned
    end = move.host.backend
    region = end.left_behind if end.keeps else []
    stamps = stop_stamps.check(result_machine(move), rows, end.performed)
    run = [*stamps, *felt.without_resubmissions(rows, region, result.violations)]
    if reasons:
        unfinished = (
            'conservation', 'end:', "Little's law", 'end to end: liveness', 'end to end: rings',
        )  # fmt: skip
        run = [sentence for sentence in run if not sentence.startswith(unfinished)]
    watched = move.watch.found() if move.watch is not None else []
    return outcome, findings, [*watched, *move.sentences, *run]


def ownership(move: Migrating) -> list[str]:
    """The VM runs on exactly one side, or a sentence."""
    here = move.host.vm.guest_runs
    there = move.arrived_host is not None and move.arrived_host.vm.guest_runs
    if here and there:
        return [f'{BOTH}, on one disk']
    if here or there:
        return []
    if move.outcome.startswith('stuck'):
        asked = move.mishaps.cancelled_at
        cannot = '' if asked is None else f'; migrate_cancel of cycle {asked} waits for that lock'
        return [f'liveness: {move.outcome}, for ever, with the big lock held{cannot}']
    told = ''
    if move.outcome.startswith(NOT_TAKEN) and not move.plan.return_path:
        told = ': the source was told of no failure; migration.return_path=on would have told it'
    return [f'ownership: the VM runs on neither side{told}']


def hypothetical(move: Migrating, result: Result) -> list[str]:
    """What no real stack does."""
    policy = move.policy
    stack = STACKS[move.config.device.driver]
    alone = policy.hypothetical_on(stack)
    mine = [f'stop policy {policy.name}: {policy.what}'] if alone else []
    found: list[str] = result.report['hypothetical']
    return [*found, *mine, *invented(move.faults.all)]
