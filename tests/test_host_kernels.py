"""What a host's Linux does with requests and their completions, by its version: old faults and new.

Rows of the history of drivers/vhost/scsi.c that concern the data path, each a scenario that shows
the fault on the old kernel and its absence on the new one.
"""

import numpy as np
import pytest

from sim import agents, backend, costs, machine, record, vring
from sim.analysis.frame import trace_rows
from sim.config import load
from sim.drive import drive
from sim.engine import ENGINES
from sim.errors import ConfigError
from sim.formats.cdb import build, by_name
from sim.layout import S_BAD_TARGET, S_OK
from sim.run import Phases, run
from sim.scsi import GOOD, TASK_SET_FULL
from tests.test_scsi_in_the_path import Bench

u64 = np.uint64

OLD, NEW = '6.1', '6.12'
MANY = {'numjobs': 6, 'iodepth': 8, 'number_ios': 300}


# ------------------------------------------------------------ a completion list for the device ----


def batches(kernel):
    """The queues that each completion batch answers, in the order in which it does."""
    rows = trace_rows(simulate_world(kernel))
    rows = rows[np.argsort(rows[:, int(record.R_USED)], kind='stable')]
    report = rows[:, int(record.R_REPORT)]
    queue = rows[:, int(record.R_QUEUE)]
    starts = np.flatnonzero(np.diff(report) > 0) + 1  # later than the one before: a new batch
    return [part.tolist() for part in np.split(queue, starts)]


def simulate_world(kernel):
    config = load(workload=MANY, target={'kind': 'null'}, host={'kernel': kernel})
    world = machine.build(config, costs.of_config(config))
    engine = ENGINES['compiled'](world)
    Phases(engine, config)
    engine.run()
    return world


def test_a_completion_list_of_the_device_mixes_queues_in_one_batch():
    assert any(len(set(batch)) > 1 for batch in batches(OLD))
    assert all(len(set(batch)) == 1 for batch in batches(NEW))


def test_a_completion_list_of_the_device_delays_the_signals_of_every_queue_in_it():
    """used.idx is there, and the guest is told only when the batches of all queues are written."""

    def from_used_to_irq(kernel):
        rows = trace_rows(simulate_world(kernel))
        rows = rows[rows[:, int(record.R_IRQ)] > rows[:, int(record.R_USED)]]
        return (rows[:, int(record.R_IRQ)] - rows[:, int(record.R_USED)]).mean()

    assert from_used_to_irq(OLD) > 1.3 * from_used_to_irq(NEW)


def test_with_one_queue_the_list_of_the_device_is_the_list_of_the_queue():
    work = {'iodepth': 16, 'number_ios': 500}
    digests = {
        run(workload=work, target={'kind': 'null'}, host={'kernel': kernel}).report['digest']
        for kernel in (OLD, NEW, '7.2')
    }
    assert len(digests) == 1


def moments(world):
    """Run a machine by itself, and yield whenever time goes on."""
    world.start_phase(0, 0)
    key = 0
    while key < agents.IDLE:
        limit = (key >> agents.SLOT_BITS) + 1
        key = drive(world.mem, world.lines, world.st, world.tr, world.media, -1, limit)
        world.st[int(agents.H_NOTICE)] = 0
        yield


def test_the_old_kernel_signals_after_the_batch_in_the_order_of_queues():
    config = load(workload=MANY, target={'kind': 'null'}, host={'kernel': OLD})
    world = machine.build(config, costs.of_config(config))
    (worker,) = (world.bases[slot] for slot in world.slots_of(agents.WORKER))

    def told():
        names = (backend.Q_SIGNALS, backend.Q_SIGNALS_SUPPRESSED)
        return [sum(world.field(q, name) for name in names) for q in world.host_queues]

    groups, before = [[]], told()
    for _ in moments(world):
        after = told()
        groups[-1] += [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
        if world.field(worker, backend.B_BATCH) >= 0 and groups[-1]:
            groups.append([])
        before = after
    assert sum(len(group) > 1 for group in groups) > 10
    assert all(group == sorted(set(group)) for group in groups)


@pytest.mark.parametrize('kernel', [OLD, NEW, '7.2'])
def test_a_batch_is_answered_last_in_first_out_with_one_signal(kernel):
    work = {'iodepth': 32, 'number_ios': 600}
    config = load(workload=work, target={'kind': 'null'}, host={'kernel': kernel})
    world = machine.build(config, costs.of_config(config))
    engine = ENGINES['compiled'](world)
    Phases(engine, config)
    engine.run()
    rows = trace_rows(world)
    rows = rows[np.argsort(rows[:, int(record.R_USED)], kind='stable')]
    report = rows[:, int(record.R_REPORT)]
    found = np.split(report, np.flatnonzero(np.diff(report) > 0) + 1)
    assert max(map(len, found)) > 2
    assert all((np.diff(batch) < 0).all() for batch in found)
    q = world.host_queues[0]
    told = world.field(q, backend.Q_SIGNALS) + world.field(q, backend.Q_SIGNALS_SUPPRESSED)
    assert told == len(found)


# ------------------------------------------------------------------------------------ commands ----


class Slow(Bench):
    """A ring of eight over a disk that takes 100 ms, and a guest that may do anything to it."""

    def __init__(self, kernel, engine='compiled'):
        super().__init__(
            engine,
            host={'kernel': kernel},
            device={'virtqueue_size': 8},
            target={'kind': 'constant', 'service': '100ms', 'size': '1g'},
        )
        self.device = self.machine.devices[2]

    def number(self, at, size):
        """A little-endian number in memory."""
        return int.from_bytes(self.machine.mem[at : at + size].tobytes(), 'little')

    def store(self, at, value):
        self.machine.mem[at : at + 2] = np.frombuffer(value.to_bytes(2, 'little'), dtype=np.uint8)

    def publish_again(self, count):
        """The heads of the last `count` entries once more, though they have not come back."""
        avail = self.word(int(self.ring), vring.D_AVAIL)
        index = self.number(avail + 2, 2)
        for place in range(index, index + count):
            head = self.number(avail + 4 + 2 * ((place - count) % 8), 2)
            self.store(avail + 4 + 2 * (place % 8), head)
        self.store(avail + 2, index + count)

    def used(self):
        """used.idx, and the lengths of the elements."""
        used = self.word(int(self.ring), vring.D_USED)
        index = self.number(used + 2, 2)
        return index, [self.number(used + 8 + 8 * (i % 8), 4) for i in range(min(index, 8))]

    def control(self, after, action):
        def process():
            yield self.engine.env.timeout(after)
            action()
            self.engine.wake_agents()

        self.engine.env.process(process())

    def kick(self):
        now = int(self.engine.env.now)
        backend.queue_vq_work(self.machine.st, u64(self.host), backend.KICK_WORK, now)


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize(
    ('kernel', 'response', 'status'),
    [(OLD, S_BAD_TARGET, GOOD), (NEW, S_OK, TASK_SET_FULL), ('7.2', S_OK, TASK_SET_FULL)],
)
def test_tags_used_up(kernel, response, status, engine):
    """Reported as BAD_TARGET the guest took the disk for gone; TASK SET FULL is tried again."""
    bench = Slow(kernel, engine)
    read = build(by_name('READ(10)'), {'lba': 0, 'blocks': 1})
    answers = [bench.publish(read, data_in=512)[0] for _ in range(8)]
    seen = {}

    def look():
        mem = bench.machine.mem
        seen['replies'] = {(int(mem[at + 11]), int(mem[at + 10])) for at in answers}
        seen['used'] = bench.used()
        seen['free'] = bench.word(bench.host, backend.Q_TAG_FREE)

    bench.control(0, bench.kick)
    bench.control(300_000, lambda: (bench.publish_again(8), bench.kick()))
    bench.control(900_000, look)
    bench.engine.run()
    assert seen['replies'] == {(response, status)}
    assert seen['used'] == (8, [0] * 8)
    assert seen['free'] == 0
    assert bench.word(bench.host, backend.Q_TAG_FREE) == 8
    assert bench.used()[0] == 16  # the first ones came back all the same
    mem = bench.machine.mem
    assert {(int(mem[at + 11]), int(mem[at + 10])) for at in answers} == {(S_OK, GOOD)}


def test_a_buffer_that_is_published_twice_makes_two_commands():
    """The list of completions is linked through commands: two of one buffer do not knot it."""
    bench = Slow(NEW)
    read = build(by_name('READ(10)'), {'lba': 0, 'blocks': 1})
    for _ in range(4):
        bench.publish(read, data_in=512)
    bench.control(0, lambda: (bench.publish_again(4), bench.kick()))
    bench.engine.run()
    assert bench.used()[0] == 8
    assert bench.word(bench.host, backend.Q_TAG_FREE) == 8
    assert sorted(bench.machine.st[q + int(backend.Q_INFLIGHTS)] for q in bench.machine.host_vqs) \
        == [1] * len(bench.machine.host_vqs)  # fmt: skip


# ---------------------------------------------------------------- a work item for each command ----

PER_COMMAND = ('lio.queue_work_per_cmd', 'lio.work_item_per_cmd', 'lio.unplug_per_cmd')


def submitted(submission, **costs):
    """Four jobs keep one worker busy."""
    return run(
        workload={'numjobs': 4, 'iodepth': 64, 'number_ios': 1000},
        target={'kind': 'null'},
        host={'kernel': '6.1', 'lio_submission': submission},
        costs=costs,
    ).report


def test_commands_that_go_to_lio_one_by_one_are_slower_and_the_costs_are_why():
    batched, single = submitted('batched'), submitted('per_command')
    assert batched['iops'] > 1.04 * single['iops']
    assert single['busy']['lio_submit'] > 1.5 * batched['busy']['lio_submit']
    free = submitted('per_command', **dict.fromkeys(PER_COMMAND, 0))
    assert free['digest'] == batched['digest']
    assert submitted('batched', **dict.fromkeys(PER_COMMAND, '9us'))['digest'] == batched['digest']


def test_later_kernels_submit_in_batches():
    with pytest.raises(ConfigError, match='submits commands in batches'):
        run(host={'kernel': '6.12', 'lio_submission': 'per_command'})
