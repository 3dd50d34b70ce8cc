"""What every column and every number of a result means, with its unit.

docs/reference/results.md and trace.md are made from these tables, and tests/test_meanings.py holds
them against the results of runs: nothing is missing and nothing is left over. In the names of
METRICS a word in angle brackets stands for several.
"""

import re

from sim import record

STATISTICS = ('mean', 'p50', 'p90', 'p99', 'p999', 'max')

# Timestamps: when, and who sees it.
MOMENTS = {
    't_arrive': ('fio prepared it (open loop, replay: the intended time)', 'vCPU, CALL'),
    't_submit': ('the driver starts on it: it has a tag', 'vCPU, CALL'),
    't_avail': (
        "avail.idx published (packed: the flags of the chain's first descriptor)",
        'vCPU, ADD',
    ),
    't_kick': (
        'the kick for its batch left the guest; t_avail where none was needed or the worker was '
        'quicker',
        'vCPU, KICK',
    ),
    't_fetch': ('the worker read its descriptors', 'worker, FETCH'),
    't_issue': ('handed to the disk', 'LIO submission kworker, RUN'),
    't_done': ('the disk finished', 'disk'),
    't_report': ("on the queue's completion list", 'LIO completion kworker, RUN'),
    't_used': ('used.idx published (packed: the flags of a used descriptor)', 'worker, USED'),
    't_irq': (
        'the handler that found it began; t_used where it was running already',
        'vCPU, IRQ',
    ),
    't_complete': ('back with the application', 'vCPU, DRAIN'),
}

FACTS = {
    'serial': 'number of the I/O in the run, in the order in which the jobs prepared them',
    'job': 'whose it was',
    'queue': 'request queue, from 0',
    'op': 'read, write or flush',
    'lba': 'first block, of 512 bytes',
    'bytes': 'length',
    'kick': 'number of the kick that carried it, counted per vCPU; 0 where none did',
    'irq': 'number of the interrupt whose handler found it, counted per queue',
    'outcome': 'ok; the host byte that virtio_scsi gives it: bad_target, no_connect, error, abort, '
    'reset, bus_busy, transport_disrupted; else the SCSI status: check_condition, '
    'reservation_conflict, busy, task_set_full, task_aborted; dropped, unfinished (control.md)',
    'stamp': "fold of the stamps of its blocks, as the guest wrote or found them",
    'disk_order': "its place in the disk's order of transfers",
    'published': 'how often it was put into the ring (once, says the checker)',
    'fetched': 'how often the device took it (once)',
    'used': 'how often the device gave it back (once)',
    'completed': 'how often the driver completed it (once)',
    'reap': 'when fio reaped it (io_getevents)',
}


def _columns() -> dict[str, tuple[str, str]]:
    """Column of requests.parquet: unit, meaning; in their order."""
    found = {f'{name}_ns': ('ns', when) for name, (when, _) in MOMENTS.items()}
    for name in record.FACTS:
        if name not in ('op', 'reap'):
            found[name] = ('bytes' if name == 'bytes' else '', FACTS[name])
    for before, after in zip(record.TIMESTAMPS, record.TIMESTAMPS[1:], strict=False):
        found[f'{after[2:]}_ns'] = ('ns', f'stage: {after} - {before}')
    found['latency_ns'] = ('ns', 't_complete - t_arrive: the sum of the ten stages')
    found['t_reap_ns'] = ('ns', FACTS['reap'])
    found['fio_lat_ns'] = ('ns', 't_reap - t_arrive: what fio prints as lat')
    found['clone'] = ('', 'number of the clone in the run, over all jobs')
    found['op'] = ('', FACTS['op'])
    found['measured'] = ('', 'behind the warm-up, and completed')
    return found


REQUESTS = _columns()

HISTOGRAMS = {
    'job': ('', 'whose requests; empty for a stage, which is of all'),
    'op': ('', 'read, write, flush; empty for a stage'),
    'time': ('', 'latency_ns, fio_lat_ns, or a stage'),
    'low_ns': ('ns', 'the bucket begins'),
    'high_ns': ('ns', 'and ends before'),
    'value_ns': ('ns', 'its midpoint, which stands for it'),
    'requests': ('', 'in the bucket'),
}

METRICS = {
    'simulated_seconds': ('s', 'how long the run was'),
    'requests': ('', 'issued'),
    'requests_completed': ('', 'done'),
    'requests_measured': ('', 'done, behind the warm-up; without flushes'),
    'warmup_requests': ('', 'cut as warm-up'),
    'iops': ('1/s', 'reads and writes per simulated second, first to last measured completion'),
    'latency_ns.<statistic>': (
        'ns',
        'arrival to completion (percentiles: nearest rank; null where fewer than ten requests lie '
        'beyond)',
    ),
    'fio_lat_ns.<statistic>': ('ns', 'the same until fio reaped it: what fio prints as lat'),
    'stages_ns.<stage>': ('ns', 'mean of a stage'),
    'requests_per_kick': ('', 'completed, per kick'),
    'requests_per_interrupt': ('', 'completed, per run of the handler'),
    'kicks': ('', 'notifications that left the guest'),
    'kicks_suppressed': ('', 'kick decisions that said no'),
    'interrupts': ('', 'runs of the interrupt handler'),
    'interrupts_spurious': ('', 'that found nothing'),
    'interrupts_merged': ('', 'signals that found the vector pending'),
    'signals': ('', 'interrupt decisions of the device that said yes'),
    'signals_suppressed': ('', 'that said no (also: in order, and all held back)'),
    'vcpu_wakes': ('', 'a halted vCPU woken by the host'),
    'worker_wakes': ('', 'a worker (IOThread) woken from sleep'),
    'worker_requeues': ('', 'runs of the kick work that ended at 256 requests'),
    'ring_errors': ('', 'malformed chains or requests that the device met'),
    'requests_dropped': ('', 'requests without a reply'),
    'requests_bad_target': ('', 'replies BAD_TARGET'),
    'requests_task_set_full': ('', 'replies TASK SET FULL'),
    'context_switches': ('', 'from one thread to another on a vCPU that several jobs share'),
    'host_switches': ('', 'from one thread to another on a host CPU that threads share'),
    'host_preemptions': ('', 'of them, those that the thread that ran did not ask for'),
    'requests_requeued': (
        '',
        "no room in the ring or in the LUN's queue depth: back to the block layer",
    ),
    'requests_retried': (
        '',
        'answered with a unit attention and sent again; t_submit and what follows are of the last '
        'try',
    ),
    'avail_ahead_max': (
        '',
        'most entries that the device found waiting; packed: most descriptors that it held',
    ),
    'arrivals_missed': (
        '',
        'open loop: I/O that had arrived when the run ended and found no free unit; never issued, '
        'and in no latency',
    ),
    'steps': ('', 'steps of all agents'),
    'engine_calls': ('', 'calls into compiled code that carried them'),
    'busy.<agent>': (
        '',
        'share of the run in which it was busy (disk.lanes: mean over the lanes; '
        '`<thread>.polling`: rounds of a reactor or an IOThread that found nothing). vhost, '
        'lio_submit and lio_complete are of the first worker and its CPU, vhost1 and so on of the '
        'next',
    ),
    'lines.<core>.<access>': ('', 'accesses to ring and command lines: hits, shared, transfers'),
    'line_transfers_per_request': ('', 'cache lines brought from another core, per request'),
    'jobs.<job>.requests': (
        '',
        'measured, of the job (of each clone without group_reporting)',
    ),
    'jobs.<job>.iops': ('1/s', 'of the job'),
    'jobs.<job>.latency_ns.<statistic>': ('ns', 'of the job'),
    'jobs.<job>.<op>.requests': ('', 'of a direction; flush: of the flushes'),
    'jobs.<job>.<op>.<time>.<statistic>': ('ns', 'latency_ns and fio_lat_ns of a direction'),
    'replay.<job>.<count>': ('', 'what became of the trace (docs/howto/replay-a-trace.md)'),
    'backlog_max': (
        '',
        'most requests that had arrived and were not with the driver yet; only with every request',
    ),
    'requests_above_30s': (
        '',
        "that took longer than the guest's timeout, or never came back; nothing comes of it, the "
        'driver resets the timer for ever; only with every request',
    ),
    'hypothetical.<bit>': ('', '1: a feature bit in force that no real backend offers'),
    'disk_units_programmed': ('', 'kind ssd: program operations of the cache'),
    'disk_collections': ('', 'kind ssd: collections'),
    'disk_housekeeping': ('', 'kind ssd: housekeeping'),
    'network_messages_lost': ('', 'only with a network'),
    'wbt_waits': ('', 'with write-back throttling: how often the submission kworker slept'),
}

REPORT = {
    'id': 'hash of the effective config',
    'digest': 'hash of the event sequence and of all that was recorded of the requests',
    'event_digest': 'hash of the event sequence alone: the same for every engine and `run.record`',
    'record': '`run.record`',
    'host_thread': 'the name of what serves the rings, in busy and lines: vhost, reactor, iothread',
    'hypothetical': 'feature bits in force that no real backend offers (features.md)',
    'wall_seconds': 'how long the simulator took; wall_io_per_second: requests per such second',
    'wall_io_per_second': 'see wall_seconds',
    'not_reported': 'percentiles that are null, and why',
    'intervals': '95 % confidence intervals, see below',
    'replications': 'with `run.replications` or `run.precision`: count, seeds, digests, '
    'warmup_requests of each; precision (wanted and reached, per number), reached, note',
    'tmf': "with [[tmf]] tables: the error handler's tasks (control.md)",
    'events': 'with [[hotplug]] tables: the events that the guest handled (control.md)',
    'checks': 'which checkers ran, and which were skipped for want of a full trace',
    'violations': 'what the checkers found',
    'config': 'the effective config',
}

WORDS = {
    '<job>': r'(?:(?!\.(?:read|write|flush)\.).)+',
    '<statistic>': f'(?:{"|".join(STATISTICS)})',
    '<stage>': f'(?:{"|".join(record.STAGES)})',
    '<op>': f'(?:{"|".join(record.OPS)})',
    '<time>': '(?:latency_ns|fio_lat_ns)',
    '<access>': '(?:hits|shared|transfers)',
}


def matches(name: str, metric: str) -> bool:
    """Does a name of METRICS mean this metric?"""
    parts = re.split(r'(<[a-z]+>)', name)
    pattern = ''.join(WORDS.get(p, '.+' if p.startswith('<') else re.escape(p)) for p in parts)
    return re.fullmatch(pattern, metric) is not None
