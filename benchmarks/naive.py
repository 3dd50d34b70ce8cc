"""The yardstick: the same stages as a first SimPy model would have them.

One process per iodepth slot walks its request through the stages in order; whatever can be busy is
a Resource, and what is handed to another thread goes through a Store. No ring, no batching, no
suppression: every request kicks and every completion interrupts. Nothing is slow on purpose and
nothing is clever. The costs are round numbers in cycles at 2.6 GHz, made for comparing simulators,
not for predicting a machine.

    python -m benchmarks.naive --iodepth 32 --lanes 8 --number-ios 20000
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import simpy

CPU_HZ = 2_600_000_000


@dataclass(frozen=True)
class Costs:
    """Cycles at CPU_HZ that each stage takes. A wake-up is paid only where the worker slept."""

    guest_submit: int = 2860
    syscall_pair: int = 1560
    kick_exit: int = 2000
    kick_eventfd: int = 1300
    worker_wake: int = 5200
    worker_pop: int = 2340
    queue_to_lio: int = 910
    lio_hop: int = 5200  # latency of a hop, each way; no CPU is held meanwhile
    lio_cpu: int = 1105  # work of the LIO thread, each way
    worker_completion: int = 1820
    interrupt_injection: int = 3640
    irq_handler: int = 1300
    guest_complete: int = 2340

    @property
    def vcpu(self) -> int:
        """What one request asks of the vCPU."""
        submit = self.guest_submit + self.syscall_pair + self.kick_exit + self.kick_eventfd
        return submit + self.irq_handler + self.guest_complete

    @property
    def worker(self) -> int:
        """What one request asks of the vhost worker, wake-ups left out."""
        return self.worker_pop + self.queue_to_lio + self.worker_completion

    @property
    def latency(self) -> int:
        """What passes while no CPU is held."""
        return 2 * self.lio_hop + self.interrupt_injection


class Machine:
    """Everything a request meets on its way, and the totals of a run."""

    def __init__(
        self,
        env: simpy.Environment,
        iodepth: int,
        lanes: int,
        service_cycles: int,
        number_ios: int,
        seed: int,
        costs: Costs,
        exponential: bool,
    ) -> None:
        self.env = env
        self.costs = costs
        self.service_cycles = service_cycles
        self.exponential = exponential
        self.random = random.Random(seed)
        self.number_ios = number_ios
        self.started = 0
        self.latency_cycles = 0

        self.vcpu = simpy.Resource(env)
        self.worker = simpy.Resource(env)
        self.lio_submission = simpy.Resource(env)
        self.lio_completion = simpy.Resource(env)
        self.disk = simpy.Resource(env, capacity=lanes)
        self.kicks = simpy.Store(env)
        self.popped = [simpy.Store(env) for _ in range(iodepth)]

        env.process(self.kick_handler())
        self.slots = [env.process(self.slot(number)) for number in range(iodepth)]

    def slot(self, number: int) -> Iterator[simpy.Event]:
        """One place of the iodepth: a request from submission to completion, again and again."""
        env, costs = self.env, self.costs
        while self.started < self.number_ios:
            self.started += 1
            start = env.now
            yield from self.hold(
                self.vcpu,
                costs.guest_submit + costs.syscall_pair + costs.kick_exit + costs.kick_eventfd,
            )
            yield self.kicks.put(number)
            yield self.popped[number].get()
            yield env.timeout(costs.lio_hop)
            yield from self.hold(self.lio_submission, costs.lio_cpu)
            yield from self.hold(self.disk, self.service_time())
            yield env.timeout(costs.lio_hop)
            yield from self.hold(self.lio_completion, costs.lio_cpu)
            yield from self.hold_worker(costs.worker_completion)
            yield env.timeout(costs.interrupt_injection)
            yield from self.hold(self.vcpu, costs.irq_handler + costs.guest_complete)
            self.latency_cycles += env.now - start

    def kick_handler(self) -> Iterator[simpy.Event]:
        """The vhost worker's half of a submission: take the kick, read the request, pass it on."""
        while True:
            number = yield self.kicks.get()
            yield from self.hold_worker(self.costs.worker_pop + self.costs.queue_to_lio)
            yield self.popped[number].put(number)

    def hold(self, resource: simpy.Resource, cycles: int) -> Iterator[simpy.Event]:
        with resource.request() as turn:
            yield turn
            yield self.env.timeout(cycles)

    def hold_worker(self, cycles: int) -> Iterator[simpy.Event]:
        asleep = self.worker.count == 0
        return self.hold(self.worker, cycles + (self.costs.worker_wake if asleep else 0))

    def service_time(self) -> int:
        if not self.exponential:
            return self.service_cycles
        return max(1, round(self.random.expovariate(1 / self.service_cycles)))


def run_naive(
    iodepth: int = 32,
    lanes: int = 8,
    service_cycles: int = 156_000,
    number_ios: int = 20_000,
    seed: int = 1,
    costs: Costs | None = None,
    exponential: bool = True,
) -> dict[str, Any]:
    """Run until `number_ios` requests are complete, each served by one of `lanes` disk lanes.

    Service takes `service_cycles`: the mean of an exponential, or always that.

    Returns ios, events (SimPy events processed), wall_seconds (the run without the building),
    simulated_cycles, iops (simulated, per simulated second) and mean_latency_ns (submission to
    completion, the wait for the vCPU included).
    """
    env = simpy.Environment(initial_time=0)
    machine = Machine(
        env, iodepth, lanes, service_cycles, number_ios, seed, costs or Costs(), exponential
    )
    begin = time.perf_counter()
    env.run(until=env.all_of(machine.slots))
    wall_seconds = time.perf_counter() - begin
    # SimPy numbers every event it schedules; those still waiting at the end were not processed.
    # Read once here, so that counting costs the run nothing.
    events = next(env._eid) - len(env._queue)
    return {
        "ios": machine.started,
        "events": events,
        "wall_seconds": wall_seconds,
        "simulated_cycles": env.now,
        "iops": machine.started * CPU_HZ / env.now,
        "mean_latency_ns": machine.latency_cycles / machine.started * 1e9 / CPU_HZ,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.naive", description="naive SimPy")
    parser.add_argument("--iodepth", type=int, default=32)
    parser.add_argument("--lanes", type=int, default=8)
    parser.add_argument("--service-cycles", type=int, default=156_000)
    parser.add_argument("--number-ios", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    result = run_naive(**vars(parser.parse_args()))
    print(
        f"naive SimPy: {result['ios'] / result['wall_seconds']:,.0f} simulated I/O per second, "
        f"{result['events'] / result['ios']:.1f} events per I/O "
        f"({result['iops']:,.0f} IOPS, mean latency {result['mean_latency_ns'] / 1000:.1f} us)"
    )


if __name__ == "__main__":
    main()
