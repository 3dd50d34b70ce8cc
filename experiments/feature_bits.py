"""What is each feature bit of the ring worth: RING_PACKED, INDIRECT_DESC, EVENT_IDX, IN_ORDER?

Method: paired runs. All sixteen combinations of the four bits see the same requests with the same
service times (same seed), at several iodepths and once in batches of 32. Everything is compared
with the reference, QEMU's default (split, INDIRECT, EVENT_IDX): totals per request seed by seed,
latencies request by request (same serial; the first tenth of each run is left out); the intervals
are Student's, 95 %, over the seeds. The guest is Linux 7.2, which acks all four bits. Kernel
vhost-scsi offers neither packed rings nor IN_ORDER: such rows are hypothetical (the kernel's worker
over QEMU's algorithms) and say so.

The disk is as configured. By default it is exponential (80 us, 32 lanes) and finishes out of
order; IN_ORDER is then shown on its twin as well, one lane that is as fast as the 32 together and
finishes in order.

Expect: in cache-line transfers and in cycles of both sides per request,
  packed     fewer, most at depth 1, least in batches, where a split ring shares its index lines
  EVENT_IDX  never more kicks and interrupts together; at depth 1, where it cannot save any, it
             costs two event words (at depth 1 a packed ring reads one word either way)
  INDIRECT   a table is a line or two more than three descriptors in the ring, which on the other
             hand holds a third of the requests: with many in flight they queue in the block layer
  IN_ORDER   0 to 5 % where the disk finishes in order; where it does not, the quick wait for the
             slow: latency doubles at depth 16, and the worker works less because less comes back
The same signs as published for network loads, per packet (Jason Wang, virtio IN_ORDER v7, 2025:
packed 0 to 14 % less, IN_ORDER 0 to 5 %; Michael Tsirkin, EVENT_IDX, 2011; Maxime Coquelin,
indirect descriptors in DPDK, 2018: 1 to 4 % slower when nothing else limits); a SCSI request has
more lines of its own, so the ring's share is smaller.

Takes: under a minute on two cores with --jobs 2 (500 runs), --quick half of that, behind the
compilation of the kernels.
"""

import argparse
import itertools
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments import command

LOAD = 'iodepth (and batch)'  # a label that stands for a Load
BITS = ('packed', 'indirect_desc', 'event_idx', 'in_order')


class Combination(NamedTuple):
    """Which of the four bits are agreed on."""

    packed: bool
    indirect_desc: bool
    event_idx: bool
    in_order: bool

    def __str__(self) -> str:
        ring = 'packed' if self.packed else 'split'
        more = [
            word
            for word, on in zip(('INDIRECT', 'EVENT_IDX', 'IN_ORDER'), self[1:], strict=True)
            if on
        ]
        return ' '.join([ring, *more])


class Load(NamedTuple):
    """How the workload keeps the ring busy."""

    iodepth: int
    batch: int  # requests given to the kernel at once, and completions waited for

    def __str__(self) -> str:
        return f'{self.iodepth}' if self.batch == 1 else f'{self.iodepth}, batches of {self.batch}'


REFERENCE = Combination(packed=False, indirect_desc=True, event_idx=True, in_order=False)
COMBINATIONS = [
    Combination(packed, indirect, event_idx, in_order)
    for packed in (False, True)
    for in_order in (False, True)
    for indirect, event_idx in itertools.product((True, False), repeat=2)
]
LOADS = (Load(1, 1), Load(4, 1), Load(16, 1), Load(64, 1), Load(64, 32))
LOADS_QUICK = (Load(1, 1), Load(16, 1), Load(64, 1), Load(64, 32))
SEEDS, SEEDS_QUICK = 5, 3
REQUESTS, REQUESTS_QUICK = 4000, 2000
COLD = 0.1  # share of the requests that is left out of the latencies

# Metric: (title, unit); all but the latency are totals of a run over its requests.
METRICS = {
    'iops': ('throughput', 'IOPS'),
    'kicks': ('kicks', 'per request'),
    'interrupts': ('interrupts', 'per request'),
    'line_transfers': ('cache-line transfers', 'per request'),
    'guest_cycles': ('guest vCPU', 'busy cycles per request'),
    'worker_cycles': ('vhost worker', 'busy cycles per request'),
    'latency_us': ('latency, arrival to completion', 'µs, mean'),
}


class Point(NamedTuple):
    """One run."""

    disk: str  # key of disks_of
    bits: Combination
    load: Load
    seed: int


def experiment(options: argparse.Namespace) -> command.Outcome:
    """Run the sweep over all combinations."""
    return simulate(options, COMBINATIONS)


def one_bit_alone(*arguments: str) -> command.Outcome:
    """Of all combinations those only that differ from the default in one bit, for a notebook."""
    options = EXPERIMENT.parser().parse_args(arguments)
    options.json = options.quiet = True
    return simulate(options, [REFERENCE, *(flipped(place) for place in range(len(BITS)))])


def flipped(place: int) -> Combination:
    """The reference with one bit the other way."""
    return Combination(*(on != (bit == place) for bit, on in enumerate(REFERENCE)))


def simulate(options: argparse.Namespace, combinations: Sequence[Combination]) -> command.Outcome:
    """Run some combinations."""
    from sim.analysis.bounds import bounds
    from sim.sweep import load_report

    loads = LOADS_QUICK if options.quick else LOADS

    def at(point: Point) -> Any:
        return configured(options, keys_of(point) | disks[point.disk])

    base = configured(options, {})
    disks = disks_of(base.target)
    first = next(iter(disks))
    seeds = range(base.run.seed, base.run.seed + (SEEDS_QUICK if options.quick else SEEDS))
    points = [
        Point(disk, bits, load_, seed)
        for disk in disks
        for bits in combinations
        if disk == first or (bits.indirect_desc and bits.event_idx)
        for load_ in loads
        for seed in seeds
    ]
    command.announce(options, base)
    places = command.sweep(options, [at(point) for point in points])
    # The bound knows nothing of bits and seeds: it leaves lines and notifications out.
    most = {
        (disk, load_): bounds(at(Point(disk, REFERENCE, load_, base.run.seed)))[0]
        for disk in disks
        for load_ in loads
    }
    measured = {
        point: measure(load_report(place), latencies(place))
        | {'bound_iops': most[point.disk, point.load]}
        for point, place in zip(points, places, strict=True)
    }
    rows = list(compared(measured, list(disks), loads, seeds))
    return command.Outcome(base, rows, command.violations(measured.values()))


def configured(options: argparse.Namespace, vary: dict[str, Any]) -> Any:
    """The config of a point, or of none."""
    under = {
        'workload': {'number_ios': REQUESTS_QUICK if options.quick else REQUESTS},
        'target': {'kind': 'exponential'},
        'guest': {'kernel': '7.2'},
    }
    return command.config(options, under=under, vary=vary)


def headlines(options: argparse.Namespace) -> list[Any]:
    """What one bit alone makes of what it is known for."""
    from sim.studies.guesses import Headline

    def of_bit(place: int, name: str, load: Load, word: str) -> Any:
        bits = [
            keys_of(Point('', bits, load, configured(options, {}).run.seed))
            for bits in (flipped(place), REFERENCE)
        ]
        return Headline(
            name=f'{word}, {METRICS.get(name, ("IOPS",))[0]}, iodepth {load}',
            unit='times the default',
            configs=tuple(configured(options, keys) for keys in bits),
            value=lambda other, default: per_request(other)[name] / per_request(default)[name],
        )  # fmt: skip

    return [
        of_bit(0, 'line_transfers', Load(16, 1), 'packed on'),
        of_bit(0, 'worker_cycles', Load(16, 1), 'packed on'),
        of_bit(1, 'guest_cycles', Load(64, 32), 'INDIRECT off'),
        of_bit(2, 'guest_cycles', Load(64, 1), 'EVENT_IDX off'),
        of_bit(3, 'iops', Load(16, 1), 'IN_ORDER on'),
    ]


def keys_of(point: Point) -> dict[str, Any]:
    """What makes a point, but for its disk."""
    batch = point.load.batch
    return {
        **{f'device.{name}': on for name, on in zip(BITS, point.bits, strict=True)},
        'run.hypothetical': point.bits.packed or point.bits.in_order,
        'workload.iodepth': point.load.iodepth,
        'workload.iodepth_batch_submit': batch,
        'workload.iodepth_batch_complete_min': batch,
        'workload.iodepth_batch_complete_max': batch,
        'run.seed': point.seed,
        'run.record': 'full',
    }


def disks_of(target: Any) -> dict[str, dict[str, Any]]:
    """The disk as configured, and of an exponential one the twin that finishes in order.

    The twin has one lane that is as fast as all the lanes together, so it can do as much.
    """
    if target.kind != 'exponential' or target.lanes == 1:
        return {'as configured': {}}
    twin = {'target.lanes': 1, 'target.service': f'{target.service // target.lanes}ns'}
    return {'out of order': {}, 'in order': twin}


def latencies(place: Path) -> Any:
    """Latencies in ns by clone and number of its I/O, which all combinations share; warm-up cut."""
    from sim.sweep import load_requests

    requests = load_requests(place).sort_values('serial')
    number = requests.groupby('clone').cumcount().rename('number')
    latency = requests.set_index([requests['clone'], number])['latency_ns'].dropna()
    return latency[latency.index.get_level_values('number') >= COLD * number.max()].astype('int64')


def measure(report: dict[str, Any], latency_ns: Any) -> dict[str, Any]:
    """What the comparison needs of one run."""
    return per_request(report) | {
        'latency_us': float(latency_ns.mean()) / 1e3,
        'latency_ns': latency_ns,
        'hypothetical': report['hypothetical'],
        'violations': report['violations'],
    }


def per_request(report: dict[str, Any]) -> dict[str, float]:
    """Counts and cycles per request, and IOPS."""
    count = report['requests_completed']
    cycles = report['simulated_seconds'] * report['config']['host']['cpu_hz'] / count
    busy = report['busy']
    return {
        'kicks': report['kicks'] / count,
        'interrupts': report['interrupts'] / count,
        'line_transfers': report['line_transfers_per_request'],
        'guest_cycles': cycles * sum(v for k, v in busy.items() if k.startswith('vcpu')),
        'worker_cycles': cycles
        * sum(v for k, v in busy.items() if k.startswith(report['host_thread'])),
        'iops': report['iops'],
    }


def compared(
    measured: dict[Point, dict[str, Any]],
    disks: Sequence[str],
    loads: Sequence[Load],
    seeds: Iterable[int],
) -> Iterable[dict[str, Any]]:
    """The table: one row per disk, combination and load; seeds are averaged, differences paired."""
    import numpy as np

    from sim.analysis.stats import mean_interval

    for disk, bits, load in itertools.product(disks, COMBINATIONS, loads):
        pairs = [
            (measured[Point(disk, bits, load, seed)], measured[Point(disk, REFERENCE, load, seed)])
            for seed in seeds
            if Point(disk, bits, load, seed) in measured
        ]
        if not pairs:
            continue
        row: dict[str, Any] = {
            'disk': disk,
            'combination': str(bits),
            **dict(zip(BITS, bits, strict=True)),
            'iodepth': load.iodepth,
            'batch': load.batch,
            'hypothetical': ' '.join(pairs[0][0]['hypothetical']),
            'bound_iops': pairs[0][0]['bound_iops'],
        }
        for name in METRICS:
            deltas = [run[name] - reference[name] for run, reference in pairs]
            if name == 'latency_us':
                deltas = [float(paired(run, reference).mean()) / 1e3 for run, reference in pairs]
            interval = mean_interval(deltas)
            mean = float(np.mean([reference[name] for _, reference in pairs]))
            row[name] = mean + interval.mean
            row[f'{name}_delta'] = interval.mean
            row[f'{name}_half_width'] = interval.half_width
            percent = 100 / mean if mean else 0.0
            row[f'{name}_percent'] = percent * interval.mean
            row[f'{name}_percent_half_width'] = percent * interval.half_width
        row['of_bound_percent'] = 100 * row['iops'] / row['bound_iops']
        before = row['iops'] - row['iops_delta']
        row['iops_bound_percent'] = 100 * (row['bound_iops'] / before - 1)
        per_request = np.concatenate([paired(run, reference) for run, reference in pairs])
        for share in (5, 50, 95):
            row[f'latency_delta_p{share}_us'] = float(np.percentile(per_request, share)) / 1e3
        yield row


def paired(run: dict[str, Any], reference: dict[str, Any]) -> Any:
    """How much longer each request took than the same one in the reference run, in ns."""
    return (run['latency_ns'] - reference['latency_ns']).dropna().to_numpy()


def draw(outcome: command.Outcome, folder: Path) -> None:
    """Table and figures."""
    from experiments.queue_depth import describe
    from sim.analysis import plot_bits, style

    table = table_of(outcome)
    table.drop(columns=LOAD).to_csv(folder / 'feature_bits.csv', index=False)
    what = describe(outcome.config)
    main = table[table['disk'] == table['disk'].iloc[0]]
    figure = plot_bits.heat_panels(
        main, METRICS, rows='combination', columns=LOAD, marks=MARKS,
        reference=str(REFERENCE), note=NOTE,
        share=('of_bound_percent', 'throughput', '% of the asymptotic bound'),
        title=f'What feature bits change against {DEFAULT}\n{what}',
    )  # fmt: skip
    style.save(figure, folder / 'heat-map.png')
    style.save(one_bit(outcome), folder / 'one-bit.png')


def one_bit(outcome: command.Outcome) -> Any:
    """The second figure."""
    from experiments.queue_depth import describe
    from sim.analysis import plot_bits

    title = f'What one bit alone changes against {DEFAULT}\n{describe(outcome.config)}'
    return plot_bits.effects(
        effects_of(table_of(outcome)), ONE_BIT, columns=LOAD, wide=('latency_us', 'iops'),
        most={'iops': 'iops_bound_percent'}, title=title,
    )


def table_of(outcome: command.Outcome) -> Any:
    """The rows with a column that labels their load."""
    import pandas as pd

    table = pd.DataFrame(outcome.rows)
    table[LOAD] = [str(Load(r.iodepth, r.batch)) for r in table.itertuples()]
    return table


# The rows of the second figure: (title, unit).
ONE_BIT = {
    'line_transfers': ('cache-line transfers', 'change, %'),
    'guest_cycles': ('guest vCPU cycles', 'change, %'),
    'worker_cycles': ('vhost worker cycles', 'change, %'),
    'latency_us': ('mean latency,\narrival to completion', 'change, %'),
    'iops': ('throughput\n(—: up to the bound)', 'change, %'),
}


DEFAULT = "QEMU's default (split, INDIRECT, EVENT_IDX)"
MARKS = {'packed': 'packed *', 'indirect_desc': 'INDIRECT', 'event_idx': 'EVENT_IDX',
         'in_order': 'IN_ORDER *'}  # fmt: skip
NOTE = (
    'Each cell: change in % against the framed row, which shows the values; grey where the 95 % '
    'interval over the seeds holds zero. Last panel: share of what the least demands leave room '
    'for.\n'
    '* hypothetical: kernel vhost-scsi offers neither packed rings nor IN_ORDER.'
)


def effects_of(table: Any) -> Any:
    """What one bit alone changes: rows of `table` that differ from the reference in one bit."""
    import pandas as pd

    found = []
    for place, (name, label) in enumerate(MARKS.items()):
        bits = flipped(place)
        word = f'{label.strip(" *")} {"on" if bits[place] else "off"}'
        word += ' (hypothetical)' if label.endswith('*') else ''
        chosen = table[table['combination'] == str(bits)]
        for number, (disk, rows) in enumerate(chosen.groupby('disk', sort=False)):
            if number == 0 or name == 'in_order':
                found.append(rows.assign(effect=word, series=f'disk: {disk}'))
    return pd.concat(found)


def show(outcome: command.Outcome) -> None:
    """The table for people."""
    import pandas as pd

    table = pd.DataFrame(outcome.rows)
    shown = pd.DataFrame(
        {
            'disk': table['disk'],
            'combination': table['combination'],
            'load': [str(Load(r.iodepth, r.batch)) for r in table.itertuples()],
            'kicks': table['kicks'].round(3),
            'irqs': table['interrupts'].round(3),
            'lines': [interval(row, 'line_transfers') for row in outcome.rows],
            'guest cycles': [interval(row, 'guest_cycles') for row in outcome.rows],
            'worker cycles': [interval(row, 'worker_cycles') for row in outcome.rows],
            'latency µs': [interval(row, 'latency_us') for row in outcome.rows],
        }
    )
    print('per request, and in brackets the paired difference to the reference in percent, 95 %')
    print(shown.to_string(index=False))
    beyond = sorted({name for row in outcome.rows for name in row['hypothetical'].split()})
    print(f'hypothetical  {", ".join(beyond)}: rows that have them describe no real device')


def interval(row: dict[str, Any], name: str) -> str:
    """A value and its paired change: '12.3 (-4.1 ± 0.2 %)'."""
    value = row[name]
    digits = 2 if value < 100 else 0
    change, half_width = row[f'{name}_percent'], row[f'{name}_percent_half_width']
    return f'{value:.{digits}f} ({change:+.1f} ± {half_width:.1f} %)'


EXPERIMENT = command.Experiment(
    'feature_bits', __doc__, experiment, draw, show,
    tables=('feature_bits.csv',),
    figures={
        'heat-map.png': 'all combinations of the four bits against the default',
        'one-bit.png': 'what one bit alone changes, against iodepth',
    },
    headlines=headlines,
)  # fmt: skip

if __name__ == '__main__':
    sys.exit(EXPERIMENT.main())
