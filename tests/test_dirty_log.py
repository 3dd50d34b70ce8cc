"""The dirty log: which pages have a bit, on which kernel, and what a move would leave behind."""

import numpy as np
import pytest

from sim import agents, backend, costs, guest, machine, vring
from sim.config import load
from sim.control.power import switch_on
from sim.engine import ENGINES
from sim.formats.cdb import build, by_name
from sim.memory import new_lines
from sim.run import Phases, digest_of
from sim.vhost import scsi as vhost_scsi
from tests.test_scsi_in_the_path import Bench

WORK = {'rw': 'randread', 'bs': '16k', 'iodepth': 8, 'number_ios': 150, 'numjobs': 2}
PAGE = 4096


def switch_log(world, *, used=True, all_buffers=True, base=True):
    """What VHOST_SET_LOG_BASE, SET_VRING_ADDR with VRING_F_LOG and LOG_ALL leave behind."""
    world.st[world.vhost + int(vhost_scsi.S_LOG)] = world.log if base else 0
    for q, driver in zip(world.host_vqs, world.drivers, strict=True):
        ring = world.field(driver, vring.D_USED)
        world.st[q + int(backend.Q_LOG)] = ring if used else 0
        world.st[q + int(backend.Q_LOG_ALL)] = int(all_buffers)


def pages(world):
    """Numbers of the pages that have a bit."""
    return set(np.flatnonzero(np.unpackbits(world.dirty_log, bitorder='little')).tolist())


def started(kernel, engine='compiled', **workload):
    config = load(workload=WORK | workload, host={'kernel': kernel})
    world = machine.build(config, costs.of_config(config))
    driver = ENGINES[engine](world)
    Phases(driver, config)
    return world, driver


def area(world, name, size):
    """The pages of an area of both request queues that holds `size` bytes for each tag."""
    found = set()
    for g in world.guest_queues:
        first = world.field(g, name)
        found |= set(range(first // PAGE, (first + size * world.field(g, guest.G_NUM)) // PAGE))
    return found


def used_pages(world):
    """The pages of the request queues' used rings; one each with 128 entries."""
    return {world.field(driver, vring.D_USED) // PAGE for driver in world.drivers[2:]}


@pytest.mark.parametrize('kernel', ['6.1', '6.12', '7.2'])
@pytest.mark.parametrize('used', [False, True])
@pytest.mark.parametrize('all_buffers', [False, True])
def test_what_the_two_switches_do(kernel, used, all_buffers):
    world, engine = started(kernel)
    switch_log(world, used=used, all_buffers=all_buffers)
    engine.run()
    found, rings = pages(world), used_pages(world)
    assert rings <= found if used else not rings & found
    data = area(world, guest.G_DATA, 4 * PAGE)
    answers = area(world, guest.G_HEADERS, 832)
    if kernel == '7.2' and all_buffers:
        assert data & found
        assert answers & found
    else:
        assert found <= rings
    assert not area(world, guest.G_TABLES, 128) & found  # the host only reads them


def test_without_a_log_nothing_is_logged():
    world, engine = started('7.2')
    switch_log(world, base=False)
    engine.run()
    assert pages(world) == set()


@pytest.mark.parametrize(('kernel', 'stale'), [('6.12', True), ('7.2', False)])
def test_data_that_was_read_into_a_page_stays_behind_where_only_the_rings_are_logged(kernel, stale):
    """A page copied before a READ filled it, and never copied again, is wrong at its new home."""
    world, engine = started(kernel)
    switch_log(world)
    first_copy = []

    def pre_copy(env):
        yield env.timeout(2_000_000)
        world.dirty_log[:] = 0
        first_copy.append(world.mem.copy())

    engine.env.process(pre_copy(engine.env))
    engine.run()
    changed = (world.mem != first_copy[0]).reshape(-1, PAGE).any(axis=1)
    lost = set(np.flatnonzero(changed).tolist()) & area(world, guest.G_DATA, 4 * PAGE)
    assert len(lost) > 20
    assert bool(lost - pages(world)) is stale


@pytest.mark.parametrize('name', ENGINES)
@pytest.mark.parametrize('kernel', ['6.12', '7.2'])
def test_qemu_switches_the_log_on_by_its_ioctls_while_the_queues_run(kernel, name):
    """vhost_dev_set_log(): the base, then the feature, then the rings' addresses."""
    config = load(workload=WORK, host={'kernel': kernel}, device={'migratable': True})
    world = machine.build(config, costs.of_config(config))
    engine = ENGINES[name](world)
    host = switch_on(engine, config)
    Phases(engine, config)
    counts = []

    def migrate(env):
        yield env.timeout(1_000_000)
        counts.append(len(pages(world)))
        answer = yield from host.device.dev.set_log(True)
        assert answer == 0
        yield env.timeout(1_000_000)
        counts.append(len(pages(world)))
        yield from host.device.dev.set_log(False)
        yield env.timeout(800_000)  # what was noted and is in flight is not logged any more
        world.dirty_log[:] = 0

    engine.env.process(migrate(engine.env))
    engine.run()
    assert counts[0] == 0
    assert (counts[1] > 10) is (kernel == '7.2')
    assert pages(world) == set()


def test_an_error_reply_is_logged_as_well():
    found = []
    for kernel in ('6.12', '7.2'):
        bench = Bench(host={'kernel': kernel})
        switch_log(bench.machine)
        at, data, _ = bench.publish(
            build(by_name('READ(10)'), {'lba': 0, 'blocks': 1}), data_in=512, target=9
        )
        bench.run()
        assert bench.machine.mem[at + 11] == 3  # BAD_TARGET
        found.append({at // PAGE, data // PAGE} <= pages(bench.machine))
    assert found == [False, True]


def test_whether_buffers_are_logged_is_decided_once_per_run_of_the_kick_work():
    """Commands that a run fetches after LOG_ALL was acked in its middle are not noted."""
    bench = Bench(host={'kernel': '7.2'}, target={'kind': 'constant', 'service': '1ms'})
    read = build(by_name('READ(10)'), {'lba': 0, 'blocks': 1})
    early = [bench.publish(read, data_in=512)[1] // PAGE for _ in range(6)]
    late = []

    def process(env):
        bench.machine.st[bench.machine.vhost + int(vhost_scsi.S_LOG)] = bench.machine.log
        backend.queue_vq_work(bench.machine.st, np.uint64(bench.host), backend.KICK_WORK, 0)
        bench.engine.wake_agents()
        while not bench.word(bench.host, backend.Q_TAG_FREE) < 126:  # it is at its work
            yield env.timeout(200)
        assert bench.word(bench.host, backend.Q_TAG_FREE) > 122
        switch_log(bench.machine)
        yield env.timeout(100_000)
        late.append(bench.publish(read, data_in=512)[1] // PAGE)
        now = int(env.now)
        backend.queue_vq_work(bench.machine.st, np.uint64(bench.host), backend.KICK_WORK, now)
        bench.engine.wake_agents()

    bench.engine.env.process(process(bench.engine.env))
    bench.engine.run()
    found = pages(bench.machine)
    assert not set(early) & found
    assert set(late) <= found


def test_a_log_given_up_meanwhile_is_not_written():
    world, engine = started('7.2', number_ios=8, numjobs=1)
    switch_log(world, used=False)

    def give_up(env):
        yield env.timeout(100_000)
        switch_log(world, used=False, all_buffers=False)

    engine.env.process(give_up(engine.env))
    engine.run()
    assert pages(world) == set()


@pytest.mark.parametrize('kernel', ['6.12', '7.2'])
def test_the_engines_agree_while_logging_goes_on_and_off(kernel):
    found = []
    for name in ENGINES:
        world, engine = started(kernel, name)

        def switch(env, world=world):
            for turn in range(40):
                switch_log(world, used=turn % 2 == 0, all_buffers=turn % 3 == 0)
                yield env.timeout(97_001)

        engine.env.process(switch(engine.env))
        engine.run()
        found.append((digest_of(world), world.dirty_log.tobytes()))
    assert found[0] == found[1]


def test_each_page_has_its_price():
    def busy(price, kernel):
        config = load(workload=WORK, host={'kernel': kernel}, costs={'vhost.log_page': price})
        world = machine.build(config, costs.of_config(config))
        world.lines[:] = new_lines(world.mem.size, len(world.cores), (0, 0, 0, 0))
        engine = ENGINES['compiled'](world)
        Phases(engine, config)
        switch_log(world)
        engine.run()
        (worker,) = (world.bases[slot] for slot in world.slots_of(agents.WORKER))
        return world.field(worker, agents.A_BUSY)

    dearer = {
        kernel: (busy('1000ns', kernel) - busy('0ns', kernel)) / 2600 / 300
        for kernel in ('6.12', '7.2')
    }
    # Element and index per request; on 7.2 the answer and four pages as well; and avail_event.
    assert dearer['6.12'] == pytest.approx(2.5, abs=0.5)
    assert dearer['7.2'] - dearer['6.12'] == pytest.approx(5, abs=0.6)
