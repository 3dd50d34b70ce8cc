"""make bench: the SimPy engine against the naive SimPy model, in one process, interleaved.

Both simulate iodepth 32 over 8 lanes with exponential service of 60 us. Wall time on a shared
machine is noise, so what counts is the median of the ratios of neighbouring runs.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

from benchmarks.naive import run_naive
from sim import costs, machine
from sim.config import load
from sim.engine import SimpyEngine
from sim.run import Phases

IODEPTH, LANES, SERVICE_US = 32, 8, 60


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
        'events_per_io': engine.resumptions / number_ios,
        'steps_per_io': steps / number_ios,
        'us_per_event': wall / engine.resumptions * 1e6,
    }


def main() -> int:
    """Print the table and write benchmarks/latest.json."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks', description=__doc__)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--number-ios', type=int, default=10_000)
    parser.add_argument('--json', action='store_true')
    options = parser.parse_args()
    run_engine(200)  # compile
    rounds = []
    for number in range(options.rounds):
        print(f'round {number + 1}/{options.rounds}', file=sys.stderr, flush=True)
        naive = run_naive(
            iodepth=IODEPTH,
            lanes=LANES,
            service_cycles=SERVICE_US * 2600,
            number_ios=options.number_ios,
            seed=1,
        )
        ours = run_engine(options.number_ios)
        naive_speed = naive['ios'] / naive['wall_seconds']
        rounds.append(
            {
                'engine.simpy_vs_naive': ours['io_per_second'] / naive_speed,
                'naive.io_per_second': naive_speed,
                'naive.events_per_io': naive['events'] / naive['ios'],
                'naive.us_per_event': naive['wall_seconds'] / naive['events'] * 1e6,
                **{f'simpy.{key}': value for key, value in ours.items()},
            }
        )
    table = {key: statistics.median(row[key] for row in rounds) for key in rounds[0]}
    Path('benchmarks/latest.json').write_text(json.dumps(table, indent=1) + '\n')
    if options.json:
        print(json.dumps(table))
        return 0
    for key, value in table.items():
        print(f'{key:28} {value:12.2f}')
    print(
        f'\nThe SimPy engine runs {table["engine.simpy_vs_naive"]:.1f} times the I/O of the naive '
        f'model (iodepth {IODEPTH}, {LANES} lanes).\nIt spends '
        f'{table["simpy.events_per_io"]:.1f} SimPy events on an I/O against '
        f'{table["naive.events_per_io"]:.0f}, and carries {table["simpy.steps_per_io"]:.1f} steps '
        'in them;\nwhat limits it is the calendar: each event costs '
        f'{table["simpy.us_per_event"]:.1f} us of heap, Event, generator and one call into '
        'compiled code.'
    )
    return 0


if __name__ == '__main__':
    sys.exit(main())
