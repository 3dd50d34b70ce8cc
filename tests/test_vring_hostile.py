"""A ring must survive any bytes, and say by name what was wrong with them.

tests/hostile_cases.py is the catalogue, docs/reference/hostile.md the same as a page; beyond it
tests/fuzz_rings.py spoils memory at random, in this process and with every access checked.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scripts import hostile_table
from sim import testing, vring
from sim.ring import packed_device as vring_packed_device
from sim.ring import split_device as vring_split_device
from sim.ring import verdicts as vring_verdicts
from tests import fuzz_rings
from tests import hostile_cases as cases

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize('personality', cases.PERSONALITIES)
@pytest.mark.parametrize('case', cases.DEVICE, ids=lambda case: case.name)
def test_a_split_device_reacts_as_the_code_it_stands_for(case, personality):
    ours = case.ours[list(cases.PERSONALITIES).index(personality)]
    assert cases.outcome(case, cases.PERSONALITIES[personality]) == ours


@pytest.mark.parametrize('personality', cases.PERSONALITIES)
@pytest.mark.parametrize('case', cases.PACKED_DEVICE, ids=lambda case: case.name)
def test_a_packed_device_reacts_as_qemu_whatever_its_habits(case, personality):
    ours = case.ours[list(cases.PERSONALITIES).index(personality)]
    assert cases.outcome(case, cases.PERSONALITIES[personality], packed=True) == ours


@pytest.mark.parametrize('personality', cases.PERSONALITIES)
@pytest.mark.parametrize('case', cases.ATTACH, ids=lambda case: case.name)
def test_a_ring_that_cannot_be_stays_silent(case, personality):
    ours = case.ours[list(cases.PERSONALITIES).index(personality)]
    assert cases.attach_outcome(case, cases.PERSONALITIES[personality]) == ours


def test_sizes_of_rings_that_can_be():
    mem = np.zeros(1 << 20, dtype=np.uint8)
    sizes = [-1, 0, 1, 2, 3, 8, 9, 32768, 32769, 65536, 1 << 40]
    split = [vring_split_device.check_areas(mem, num, 0, 1 << 19, 3 << 18, 1) for num in sizes]
    packed = [vring_packed_device.check_areas(mem, num, 0, 1 << 19, 3 << 18) for num in sizes]
    bad = vring.VERDICTS.index('BAD_RING_SIZE')
    assert [num for num, verdict in zip(sizes, split, strict=True) if verdict != bad] == [
        1, 2, 8, 32768
    ]  # fmt: skip
    assert [num for num, verdict in zip(sizes, packed, strict=True) if verdict != bad] == [
        1, 2, 3, 8, 9, 32768
    ]  # fmt: skip


@pytest.mark.parametrize('answer', cases.DRIVER, ids=lambda answer: answer.name)
def test_a_driver_marks_the_ring_broken_as_linux_does(answer):
    assert cases.answer_outcome(answer) == answer.ours


def test_bytes_that_change_after_the_fetch_change_nothing():
    ring = testing.Ring(features=testing.VERSION_1)
    ring.driver.add(out=[(0x1000, 51)], in_=[(0x2000, 108)])
    chain = ring.device.fetch()
    ring.write(ring.desc, b'\xff' * 16 * ring.num)
    ring.write(ring.avail + 4, b'\xff' * 2 * ring.num)
    assert chain == testing.Chain(0, ((0x1000, 51),), ((0x2000, 108),))
    ring.device.use(chain, 108)
    assert ring.driver.reap() == [0]
    assert ring.driver.free_list() == [0, 1, 2, 3, 4, 5, 6, 7], 'the driver trusts its own words'


def test_a_refused_queue_goes_on_when_the_guest_mends_it():
    """vhost keeps no mark of the error: it looks at the same head again."""
    ring = testing.Ring()
    ring.write_desc(ring.desc, 1 << 62, 51, 0, 0)
    ring.write(ring.avail, '00 00 01 00 00 00')
    for _ in range(3):
        with pytest.raises(testing.RingError, match='BAD_BUFFER_ADDRESS, EFAULT'):
            ring.device.fetch()
    ring.write_desc(ring.desc, 0x1000, 51, 0, 0)
    assert ring.device.fetch() == testing.Chain(0, ((0x1000, 51),), ())
    assert vring_verdicts.device_counts(ring.device.st, 0) == {'BAD_BUFFER_ADDRESS': 3}
    assert vring_verdicts.device_verdict(ring.device.st, 0) == 'BAD_BUFFER_ADDRESS'


def test_an_index_that_ran_away_is_nothing_new_to_the_second_look():
    """vhost_enable_notify() treats the error as empty; QEMU sees that something moved."""
    looks = {}
    for personality in cases.PERSONALITIES.values():
        ring = testing.Ring(personality=personality)
        ring.device.disable_notify()
        ring.device.enable_notify_prepare()
        ring.write(ring.avail + 2, '09 00')
        looks[personality] = (ring.device.more_avail(), ring.device.verdict)
    assert looks == {
        cases.KERNEL_VHOST: (False, 'BAD_AVAIL_INDEX'),
        cases.QEMU: (True, 'SOUND'),
    }


def test_counters_of_the_driver():
    ring = testing.Ring()
    ring.driver.add(out=[(0x1000, 51)])
    ring.write(ring.used, '00 00 01 00 09 00 00 00')
    assert ring.driver.reap() == []
    assert vring_verdicts.driver_counts(ring.driver.st, 0) == {'USED_ID_RANGE': 1}
    assert vring_verdicts.driver_verdict(ring.driver.st, 0) == 'USED_ID_RANGE'


def test_every_verdict_has_its_place_in_the_table():
    names = [verdict.name for verdict in vring_verdicts.TABLE]
    assert ['SOUND', *names] == list(vring_verdicts.common.VERDICTS)
    assert [verdict.number for verdict in vring_verdicts.TABLE] == list(range(1, len(names) + 1))


def test_every_verdict_that_memory_can_cause_is_in_the_catalogue():
    told = ' '.join(' '.join(case.ours) for case, _ in cases.all_device_cases())
    told += ' '.join(case.ours[0] for case in cases.ATTACH)
    told += ' '.join(answer.ours for answer in cases.DRIVER)
    missing = set(vring_verdicts.BY_NAME) - set(re.findall(r'[A-Z_]{4,}', told))
    # A base comes from saved state, not from memory; what is not in flight from the device itself.
    assert missing == {'BAD_BASE', 'NOT_IN_FLIGHT'}


def test_the_page_says_what_comes_out():
    assert hostile_table.PAGE.read_text(encoding='utf-8') == hostile_table.page(), (
        'python scripts/hostile_table.py --write'
    )


# ------------------------------------------------------------------------------------------ fuzz


def test_mutated_rings():
    found = fuzz_rings.run(3000, seed=0, with_lines=False)
    assert len(found) >= 10, 'the mutations reach little'


def fuzz_elsewhere(*arguments, **environment):
    """Run the fuzzer in a process of its own; what it found."""
    done = subprocess.run(
        [sys.executable, '-m', 'tests.fuzz_rings', *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_mutated_rings_with_every_access_checked():
    found = fuzz_elsewhere('20000', NUMBA_BOUNDSCHECK='1')
    assert found['rings'] == 20000
    assert len(found['verdicts']) >= 13


def test_memory_that_answers_something_else_each_time():
    found = fuzz_elsewhere('3000', '--lies', NUMBA_DISABLE_JIT='1')
    assert len(found['verdicts']) >= 13


def test_a_checked_run_would_notice():
    """The check that the two above rely on: a load one byte beyond memory is an error."""
    program = (
        'import numpy as np, sys\n'
        'from tests.rings import load_at\n'
        'mem = np.zeros(64, dtype=np.uint8)\n'
        'load_at(mem, 62)\n'
        'try:\n'
        '    load_at(mem, 63)\n'
        'except IndexError:\n'
        '    sys.exit(3)\n'
    )
    for mode in ('NUMBA_BOUNDSCHECK', 'NUMBA_DISABLE_JIT'):
        done = subprocess.run(
            [sys.executable, '-c', program], cwd=ROOT, env=os.environ | {mode: '1'}, check=False
        )
        assert done.returncode == 3, mode


@pytest.mark.long
def test_a_million_mutated_rings_with_every_access_checked():
    found = fuzz_elsewhere('1000000', '--seed', '7', NUMBA_BOUNDSCHECK='1')
    assert found['rings'] == 1000000
    assert len(found['verdicts']) >= 14
