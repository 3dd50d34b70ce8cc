"""Sweeps and starting: what two processes bring, and how long the first simulation takes."""

import multiprocessing
import statistics
import subprocess
import sys
import time
from multiprocessing.pool import Pool
from pathlib import Path

from benchmarks.engine import Table, common, engine_seconds

ROOT = Path(__file__).resolve().parent.parent


def burn(count: int) -> int:
    """A loop that needs nothing but a processor."""
    total = 0
    for number in range(count):
        total += number * number
    return total


def simulate(number_ios: int) -> float:
    """A run of the compiled engine."""
    return engine_seconds(common(number_ios), 'compiled')['seconds']


def measure(rounds: int, number_ios: int) -> Table:
    """The table: medians over `rounds`."""
    simulate(200)  # compile before anybody else needs it
    context = multiprocessing.get_context('spawn')
    rows = []
    with context.Pool(2) as pool:
        pool.map(simulate, [200, 200])
        for number in range(rounds):
            print(f'sweep: round {number + 1}/{rounds}', file=sys.stderr, flush=True)
            ours = speedup(pool, simulate, 60 * number_ios)
            loop = speedup(pool, burn, 600 * number_ios)
            ratio = ours / loop
            rows.append({'sweep.two_workers_vs_burn': ratio, 'sweep.two_workers_speedup': ours})
    table: Table = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    return table | starting()


def speedup(pool: Pool, work: object, size: int) -> float:
    """How much sooner two processes do two pieces of work than one after the other."""
    began = time.perf_counter()
    pool.map(work, [size])  # type: ignore[arg-type]
    pool.map(work, [size])  # type: ignore[arg-type]
    alone = time.perf_counter() - began
    began = time.perf_counter()
    pool.map(work, [size, size], chunksize=1)  # type: ignore[arg-type]
    return alone / (time.perf_counter() - began)


def starting() -> Table:
    """Seconds of wall time of whole commands, kernels warm; the medians of three."""

    def seconds(*arguments: str) -> float:
        times = []
        for _ in range(3):
            began = time.perf_counter()
            subprocess.run([sys.executable, '-m', 'sim', *arguments], cwd=ROOT, capture_output=True)
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    return {
        'start.help_seconds': seconds('--help'),
        'start.first_simulation_seconds': seconds('run', '--set', 'workload.number_ios=100'),
    }


def explain(table: Table) -> str:
    """What the numbers say, in a few sentences."""
    return (
        f'Two processes do two runs {table["sweep.two_workers_speedup"]:.2f} times as fast as one; '
        f'that is {table["sweep.two_workers_vs_burn"]:.2f} of what a loop without memory gains on '
        f'this machine.\n--help answers in {table["start.help_seconds"]:.2f} s, a first small '
        f'simulation with warm kernels in {table["start.first_simulation_seconds"]:.2f} s.'
    )
