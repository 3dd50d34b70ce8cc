"""What the guest was told against what the disks hold: each kind of damage is seen, by name."""

import shlex
import subprocess
import sys

import numpy as np
import pytest

from sim import invariants, record, vring
from sim.analysis import frame
from sim.analysis.frame import COLUMN
from sim.config import load
from sim.control import stop_stamps
from sim.control.stop_policy import policy_named
from sim.control.stopping import StopPlan, replay, stop
from sim.layout import USED_IDX
from sim.se_cmd import OP_READ, OP_WRITE

MS = 1_000_000
DISK = {'kind': 'lanes', 'service': '200us', 'distribution': 'exponential', 'lanes': 16}
WORK = {'rw': 'randrw', 'iodepth': 8, 'size': '64k', 'io_size': '1M', 'norandommap': True}


@pytest.fixture
def finished():
    """(machine, rows) of a run with a stop in it, whose blocks are written many times."""
    kept = []

    def look(_, stopping):
        machine = stopping.host.control.machine
        kept.append((machine, frame.trace_rows(machine).copy()))

    report = stop(load(workload=WORK, target=DISK), StopPlan(at=1 * MS), look)
    assert report['violations'] == []
    return kept[0]


def kinds(machine, rows):
    return [line.split(': ')[1] for line in stop_stamps.check(machine, rows)]


def last_write(rows):
    """The WRITE that was performed last: nothing follows it in its blocks."""
    mine = rows[rows[:, COLUMN['op']] == OP_WRITE]
    return mine[mine[:, COLUMN['disk_order']].argmax()]


def hold(machine, block, stamp):
    """Let the medium have a stamp in a block (one LUN, which begins at 0)."""
    machine.media[block] = stamp ^ (-1 - block)


def test_a_sound_run_has_nothing_wrong(finished):
    machine, rows = finished
    assert (rows[:, COLUMN['op']] == OP_WRITE).sum() > 100
    assert kinds(machine, rows) == []


def test_a_write_that_is_nowhere_is_lost(finished):
    machine, rows = finished
    row = last_write(rows)
    for block in range(row[COLUMN['lba']], row[COLUMN['lba']] + 8):
        hold(machine, block, -1 - block)
    (line,) = stop_stamps.check(machine, rows)
    assert line.startswith('end to end: lost: 1 acknowledged WRITEs are not on the disk')
    assert f'the first is serial {row[COLUMN["serial"]]}, ' in line
    assert f'at cycle {row[COLUMN["t_complete"]] - 1}: block {row[COLUMN["lba"]]} holds' in line


def test_a_write_in_half_of_its_blocks_is_torn(finished):
    machine, rows = finished
    row = last_write(rows)
    hold(machine, row[COLUMN['lba']] + 3, -1 - row[COLUMN['lba']] - 3)
    assert kinds(machine, rows) == ['torn']


def test_an_older_write_that_was_done_again_makes_its_blocks_stale(finished):
    machine, rows = finished
    row = last_write(rows)
    same = (rows[:, COLUMN['lba']] == row[COLUMN['lba']]) & (rows[:, COLUMN['op']] == OP_WRITE)
    older = rows[same & (rows[:, COLUMN['t_complete']] < row[COLUMN['t_submit']])][0]
    for block in range(row[COLUMN['lba']], row[COLUMN['lba']] + 8):
        hold(machine, block, invariants.block_stamps(older[COLUMN['serial']], block))
    (line,) = stop_stamps.check(machine, rows)
    assert line.startswith('end to end: stale: 1 acknowledged WRITEs')
    assert f'holds WRITE serial {older[COLUMN["serial"]]}' in line


def test_either_of_two_writes_that_were_out_together_may_be_there():
    """Two WRITEs of one block, neither acknowledged when the other was asked for."""
    rows = np.zeros((2, record.ROW_WORDS), np.int64)
    for name, values in {
        'serial': (1, 2), 'op': (OP_WRITE, OP_WRITE), 'bytes': (512, 512), 'published': (1, 1),
        'completed': (1, 1), 'outcome': (record.OK, record.OK), 't_submit': (10, 15),
        't_complete': (30, 20), 'disk_order': (1, 2),
    }.items():  # fmt: skip
        rows[:, COLUMN[name]] = values
    machine = _a_machine()
    for serial in (1, 2):
        hold(machine, 0, invariants.block_stamps(serial, 0))
        assert stop_stamps.writes(machine, rows) == []
    rows[0, COLUMN['t_complete']] = 12  # before the second was asked for
    hold(machine, 0, invariants.block_stamps(1, 0))
    assert 'stale' in stop_stamps.writes(machine, rows)[0]
    hold(machine, 0, invariants.block_stamps(2, 0))
    assert stop_stamps.writes(machine, rows) == []


def _a_machine():
    kept = []
    stop(
        load(workload={'number_ios': 40, 'iodepth': 4}, target=DISK),
        StopPlan(at=100_000),
        lambda _, stopping: kept.append(stopping.host.control.machine),
    )
    return kept[0]


def test_a_page_with_what_was_overwritten_is_seen(finished):
    machine, rows = finished
    reads = (rows[:, COLUMN['op']] == OP_READ) & (rows[:, COLUMN['t_submit']] > 0)
    for index in np.flatnonzero(reads)[::-1]:
        row = rows[index]
        same = (rows[:, COLUMN['lba']] == row[COLUMN['lba']]) & (rows[:, COLUMN['op']] == OP_WRITE)
        before = rows[same & (rows[:, COLUMN['t_complete']] < row[COLUMN['t_submit']])]
        if len(before) > 5:
            break
    oldest = before[before[:, COLUMN['t_complete']].argmin(), COLUMN['serial']]
    blocks = row[COLUMN['lba']] + np.arange(8)
    rows[index, COLUMN['stamp']] = invariants.folds_of(
        invariants.block_stamps(oldest, blocks), np.array([0]), np.array([blocks.size])
    )[0]
    (line,) = stop_stamps.check(machine, rows)
    assert line.startswith('end to end: page: 1 READs brought what the disk could not hold')
    assert f'serial {row[COLUMN["serial"]]}, blocks {blocks[0]} to {blocks[-1]}' in line


def test_a_ring_whose_indices_disagree_is_named(finished):
    machine, rows = finished
    machine.mem[machine.field(machine.drivers[2], vring.D_USED) + int(USED_IDX)] ^= 1
    assert kinds(machine, rows) == ['rings']
    assert 'queue 2 (used ring at 0x' in stop_stamps.check(machine, rows)[0]


def test_a_request_that_never_comes_back_is_named(finished):
    machine, rows = finished
    rows[-1, COLUMN['completed']] = 0
    assert kinds(machine, rows) == ['liveness']


def test_a_violation_comes_with_the_command_that_shows_it_again():
    wanted = load(
        device={'driver': 'vhost-user-scsi-pci', 'num_queues': 2},
        workload=WORK | {'iodepth': 16},
        target=DISK | {'service': '2ms'},
        costs={'control.vcpu_kick': '5us'},
        run={'hypothetical': True, 'seed': 2},
    )
    policy = policy_named('no-cancel', stack='vhost-user-scsi', hypothetical=True)
    plan = StopPlan(at=7 * MS, gap=2000, hold=30_000, policy=policy)
    report = stop(wanted, plan)
    assert any(line.startswith('end to end') for line in report['violations'])
    words = shlex.split(report['replay'])
    assert words[:4] == ['python', '-m', 'sim', 'stop']
    done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr  # the policy is there to violate it
    assert [line for line in done.stderr.splitlines() if line.startswith('violation: ')] == [
        f'violation: {line}' for line in report['violations']
    ]
    assert f'replay: {report["replay"]}' in done.stderr


def test_a_config_that_options_cannot_say_is_replayed_from_a_file():
    tmf = [{'at': '0.6ms', 'function': 'lun_reset'}]
    line = replay(load(tmf=tmf), StopPlan(at=5))
    assert line == 'python -m sim stop CONFIG.toml --at 5ns --policy drain'
