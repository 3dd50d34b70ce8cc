"""The engines against a naive SimPy model, in one process, interleaved.

Both simulate iodepth 32 over 8 lanes with exponential service of 60 us. Wall time on a shared
machine is noise, so what counts is the median of the ratios of neighbouring runs.
"""

import statistics
import sys
import time

from benchmarks.naive import run_naive
from sim import costs, machine
from sim.config import load
from sim.engine import SimpyEngine
from sim.run import Phases

IODEPTH, LANES, SERVICE_US = 32, 8, 60


def measure(rounds: int, number_ios: int) -> dict[str, float | None]:
    """The table: medians over `rounds` of runs of `number_ios` requests."""
    run_engine(200)  # compile
    rows = []
    for number in range(rounds):
        print(f'engine: round {number + 1}/{rounds}', file=sys.stderr, flush=True)
        naive = run_naive(
            iodepth=IODEPTH,
            lanes=LANES,
            service_cycles=SERVICE_US * 2600,
            number_ios=number_ios,
            seed=1,
        )
        ours = run_engine(number_ios)
        naive_speed = naive['ios'] / naive['wall_seconds']
        rows.append(
            {
                'engine.simpy_vs_naive': ours['io_per_second'] / naive_speed,
                'naive.io_per_second': naive_speed,
                'naive.events_per_io': naive['events'] / naive['ios'],
                'naive.us_per_event': naive['wall_seconds'] / naive['events'] * 1e6,
                **{f'simpy.{key}': value for key, value in ours.items()},
            }
        )
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def explain(table: dict[str, float | None]) -> str:
    """What the numbers say, in a few sentences."""
    return (
        f'The SimPy engine runs {table["engine.simpy_vs_naive"]:.1f} times the I/O of the naive '
        f'model (iodepth {IODEPTH}, {LANES} lanes).\nIt spends '
        f'{table["simpy.events_per_io"]:.1f} SimPy events on an I/O against '
        f'{table["naive.events_per_io"]:.0f}, and carries {table["simpy.steps_per_io"]:.1f} steps '
        'in them;\nwhat limits it is the calendar: each event costs '
        f'{table["simpy.us_per_event"]:.1f} us of heap, Event, generator and one call into '
        'compiled code.'
    )


def run_engine(number_ios: int) -> dict[str, float]:
    """One run of the SimPy engine without building or reporting: what the engine itself costs."""
    config = load(
        workload={'iodepth': IODEPTH, 'number_ios': number_ios},
        target={'kind': 'exponential', 'service': f'{SERVICE_US}us', 'lanes': LANES},
    )
    world = machine.build(config, costs.of_config(config))
    engine = SimpyEngine(world)
    Phases(engine, config)
    began = time.perf_counter()
    engine.run()
    wall = time.perf_counter() - began
    steps = int(world.st[int(machine.agents.H_STEPS)])
    return {
        'io_per_second': number_ios / wall,
        'events_per_io': engine.calls / number_ios,
        'steps_per_io': steps / number_ios,
        'us_per_event': wall / engine.calls * 1e6,
    }
