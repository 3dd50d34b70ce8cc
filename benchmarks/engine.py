"""The engines against a naive SimPy model and a C++ event loop, in one process, interleaved.

The common run: iodepth 32 over 8 lanes with exponential service of 60 us, one queue, histograms
instead of a row per request. Every time is CPU time of this process; on a shared machine that is
noisy too, so what counts is the median of the ratios of neighbouring runs.
"""

import dataclasses
import statistics
import sys
import time
from typing import Any

from benchmarks.naive import run_naive
from benchmarks.yardstick import build
from sim import costs, machine
from sim.config import Config, load
from sim.engine import ENGINES
from sim.run import Phases
from sim.workload.job_fields import J_FINISHED

IODEPTH, LANES, SERVICE_US = 32, 8, 60
SERVICE_CYCLES = SERVICE_US * 2600
SHARE = 20  # the naive model gets so many times fewer requests
MILLISECOND = 2_600_000  # cycles

Table = dict[str, float | None]


def measure(rounds: int, number_ios: int) -> Table:
    """The table: medians over `rounds`; the compiled engine gets 10 * number_ios requests."""
    cpp = build()
    for name in ENGINES:
        engine_seconds(common(200), name)  # compile
    engine_seconds(common(200), 'compiled', costed=False)
    rows: list[Table] = []
    for number in range(rounds):
        print(f'engine: round {number + 1}/{rounds}', file=sys.stderr, flush=True)
        rows.append(one_round(number_ios, cpp))
    table: Table = {}
    for key in rows[0]:
        values = [row[key] for row in rows]
        known = [value for value in values if value is not None]
        table[key] = statistics.median(known) if known else None
    return table | memory_per_million()


def one_round(number_ios: int, cpp: Any) -> Table:
    """Neighbouring runs of everything, and their ratios."""
    many = 10 * number_ios
    began = time.process_time()
    naive = run_naive(IODEPTH, LANES, SERVICE_CYCLES, max(number_ios // SHARE, 500), seed=1)
    naive_ns = (time.process_time() - began) / naive['ios'] * 1e9
    simpy = engine_seconds(common(number_ios), 'simpy')
    costed = engine_seconds(common(many), 'compiled')
    bare = engine_seconds(common(many), 'compiled', costed=False)
    full = engine_seconds(common(many, record='full'), 'compiled')
    table: Table = {
        'engine.simpy_vs_naive': naive_ns / simpy['ns_per_io'],
        'engine.compiled_vs_naive': naive_ns / costed['ns_per_io'],
        'engine.compiled_bare_vs_naive': naive_ns / bare['ns_per_io'],
        'engine.compiled_full_vs_naive': naive_ns / full['ns_per_io'],
        'engine.event_vs_cpp': None,
        'engine.event_costed_vs_cpp': None,
        'naive.io_per_second': 1e9 / naive_ns,
        'naive.events_per_io': naive['events'] / naive['ios'],
        'simpy.io_per_second': 1e9 / simpy['ns_per_io'],
        'simpy.calls_per_io': simpy['calls'] / number_ios,
        'compiled.io_per_second': 1e9 / costed['ns_per_io'],
        'compiled.steps_per_io': costed['steps'] / many,
        'compiled.ns_per_step': costed['ns_per_step'],
        'compiled.bare_ns_per_step': bare['ns_per_step'],
        'cpp.ns_per_event': None,
        'cpp.events_per_io': None,
        'cpp.io_per_second': None,
    }
    if cpp is not None:
        events, seconds = cpp(many, IODEPTH, LANES, SERVICE_CYCLES, 1)
        event_ns = seconds / events * 1e9
        table |= {
            'engine.event_vs_cpp': bare['ns_per_step'] / event_ns,
            'engine.event_costed_vs_cpp': costed['ns_per_step'] / event_ns,
            'cpp.ns_per_event': event_ns,
            'cpp.events_per_io': events / many,
            'cpp.io_per_second': many / seconds,
        }
    return table | shapes(many, costed['ns_per_io'])


def shapes(many: int, depth32_ns: float) -> Table:
    """Cost per I/O by iodepth and by number of queues, hand-over, and per simulated second."""
    def ns_per_io(config: Config) -> float:
        return engine_seconds(config, 'compiled')['ns_per_io']

    by_depth = {depth: ns_per_io(deep(depth, many)) for depth in (1, 32, 256, 512)}
    by_queues = {queues: ns_per_io(wide(queues, many)) for queues in (1, 8, 63)}
    handed = engine_seconds(common(many), 'compiled', every=MILLISECOND)['ns_per_io']
    return {
        'engine.io_depth512_vs_32': by_depth[512] / by_depth[32],
        'engine.io_queues63_vs_1': by_queues[63] / by_queues[1],
        'engine.handover_1ms_vs_none': handed / depth32_ns,
        'engine.wall_per_simulated_second_100k_iops': per_simulated_second(100_000, many),
        'engine.wall_per_simulated_second_1M_iops': per_simulated_second(1_000_000, many),
        **{f'compiled.ns_per_io_depth{depth}': ns for depth, ns in by_depth.items()},
        **{f'compiled.ns_per_io_queues{queues}': ns for queues, ns in by_queues.items()},
    }


# ------------------------------------------------------------------------------------ configs ----


def common(number_ios: int, record: str = 'histogram', **more: Any) -> Config:
    """The common run."""
    return load(
        workload={'iodepth': IODEPTH, 'number_ios': number_ios},
        target={'kind': 'exponential', 'service': f'{SERVICE_US}us', 'lanes': LANES},
        run={'record': record, 'warmup': 'off'},
        **more,
    )


def deep(iodepth: int, number_ios: int) -> Config:
    """One queue of 1024 entries, the disk as wide as the depth: nothing waits for a lane."""
    return load(
        workload={'iodepth': iodepth, 'number_ios': number_ios},
        device={'virtqueue_size': 1024, 'cmd_per_lun': 1024},
        target={'kind': 'exponential', 'service': f'{3 * iodepth}us', 'lanes': iodepth},
        run={'record': 'histogram', 'warmup': 'off'},
    )


def wide(queues: int, number_ios: int) -> Config:
    """As many jobs and vCPUs as queues, eight requests of each, the same load on the disk.

    The rings are large because the driver lowers cmd_per_lun to the size of one: with 128 most of
    the 504 requests would wait for the LUN's budget, which is other work and not the queues'.
    """
    return load(
        workload={'iodepth': 8, 'number_ios': max(number_ios // queues, 1), 'numjobs': queues},
        device={'num_queues': queues, 'virtqueue_size': 1024, 'cmd_per_lun': 1024},
        target={'kind': 'exponential', 'service': f'{60 * queues}us', 'lanes': 8 * queues},
        run={'record': 'histogram', 'warmup': 'off'},
    )


def per_simulated_second(iops: int, number_ios: int) -> float:
    """CPU seconds for one simulated second at `iops`.

    An open loop over a disk that can follow; beyond what one worker can do, on a host whose every
    cost is a fifth.
    """
    config = load(
        workload={
            'iodepth': 64,
            'number_ios': number_ios // 4,
            'numjobs': 4,
            'rate_iops': iops // 4,
            'iodepth_batch_complete_max': 64,
        },
        device={'num_queues': 4, 'cmd_per_lun': 1024},
        target={'kind': 'constant', 'service': '20us', 'lanes': 128},
        run={'record': 'histogram', 'warmup': 'off'},
    )
    fifth = 5 if iops > 400_000 else 1
    outcome = engine_seconds(config, 'compiled', faster=fifth)
    return outcome['seconds'] / outcome['simulated_seconds']


# --------------------------------------------------------------------------------------- runs ----


def engine_seconds(
    config: Config, name: str, *, costed: bool = True, every: int = 0, faster: int = 1
) -> dict[str, float]:
    """One run without building or reporting: what the engine itself costs.

    `costed=False` takes the line-ownership table away, `every` hands over to SimPy every so many
    cycles, `faster` divides every cost.
    """
    table = costs.of_config(config)
    if faster > 1:
        values = {key: value // faster for key, value in dataclasses.asdict(table).items()}
        table = costs.Costs(**values | {'vcpu_halt_poll': table.vcpu_halt_poll})
    world = machine.build(config, table)
    if not costed:
        world.lines = None  # type: ignore[assignment]
    engine = ENGINES[name](world)
    Phases(engine, config)
    if every:
        engine.env.process(ticks(engine, every))
    began = time.process_time()
    engine.run()
    seconds = time.process_time() - began
    steps = int(world.st[int(machine.agents.H_STEPS)])
    requests = int(world.st[int(machine.agents.H_SERIAL)])
    return {
        'seconds': seconds,
        'ns_per_io': seconds / requests * 1e9,
        'ns_per_step': seconds / steps * 1e9,
        'steps': steps,
        'calls': engine.calls,
        'simulated_seconds': int(world.st[int(machine.agents.H_NOW)]) / config.host.cpu_hz,
    }


def ticks(engine: Any, every: int) -> Any:
    """A control process that looks in until all jobs are done."""
    state, finished = engine.machine.st, J_FINISHED
    jobs = [plan.base for plan in engine.machine.plans]
    while not all(state[base + int(finished)] for base in jobs):
        yield engine.env.timeout(every)


def memory_per_million() -> Table:
    """Megabytes that the model's arrays grow by with a million requests more."""

    def arrays_mb(record: str, number_ios: int) -> float:
        config = common(number_ios, record)
        world = machine.build(config, costs.of_config(config))
        return (world.st.nbytes + world.tr.nbytes + world.mem.nbytes) / 1e6

    return {
        f'memory.{record}_mb_per_million': arrays_mb(record, 1_100_000) - arrays_mb(record, 100_000)
        for record in ('full', 'histogram')
    }


def explain(table: Table) -> str:
    """What the numbers say, in a few sentences."""
    text = (
        f'Per I/O the compiled engine runs {table["engine.compiled_vs_naive"]:.0f} times and the '
        f'SimPy engine {table["engine.simpy_vs_naive"]:.1f} times the naive model\n(iodepth '
        f'{IODEPTH}, {LANES} lanes). An I/O is {table["compiled.steps_per_io"]:.1f} steps of '
        f'{table["compiled.ns_per_step"]:.0f} ns with line costs, '
        f'{table["compiled.bare_ns_per_step"]:.0f} ns without.'
    )
    if table['cpp.ns_per_event'] is not None:
        text += (
            f' An event of the C++ loop, which has no ring, takes {table["cpp.ns_per_event"]:.0f} '
            f'ns, and an I/O {table["cpp.events_per_io"]:.0f} of them.'
        )
    else:
        text += ' No g++ here: no comparison with the C++ loop.'
    return (
        text + '\nWhat limits the SimPy engine is the calendar: an Event, a generator and a call '
        'into compiled code for each of\n'
        f'{table["simpy.calls_per_io"]:.1f} calls per I/O. What limits the compiled one is the '
        'number of steps: each is a jump that the\nprocessor cannot foresee, then a few dozen '
        'dependent loads.'
    )
