"""Every boundary of a small window is tried, what comes of each is told apart, and by what."""

import numpy as np
import pytest

from experiments import command, stop_flush
from sim import record
from sim.analysis.frame import COLUMN
from sim.config import from_effective
from sim.engine import CompiledEngine
from sim.migrate import fate
from sim.run import Phases, digest_of
from sim.studies import boundaries, stop_search
from sim.studies.boundaries import How, Window, branch

HZ = 2_600_000_000
OPTIONS = stop_flush.EXPERIMENT.parser().parse_args([])
KERNEL = 'vhost-scsi'


def config(kernel='7.2', event_idx=True, load='three', backend=KERNEL, group=stop_flush.OWN):
    return stop_flush.world_config(OPTIONS, (backend, kernel, event_idx, load, group))


def search(kernel='7.2', *, steps=30, **how):
    """The row of one cell."""
    cell = stop_search.Cell(how.get('policy', 'drain'), KERNEL, kernel, True, 0, 'three')
    wanted = config(kernel).effective()
    return stop_search.search(wanted, [cell], [How(**how)], [steps], stop_flush.SKIP, False)[0]


# ---------------------------------------------------------------------------------- one boundary


def test_a_copy_of_any_moment_goes_on_as_the_run_itself():
    """Window, copy and step change nothing: the digest of the whole run is the same."""
    wanted = config()
    window = Window(wanted, How(), skip=stop_flush.SKIP, steps=12)
    digests = set()
    for moment in window.moments():
        machine = boundaries.handover.snapshot(window.pristine)
        for name in boundaries.ARRAYS:
            setattr(machine, name, getattr(moment, name).copy())
        engine = CompiledEngine(machine, moment.now)
        Phases(engine, wanted, window.phases)
        engine.run()
        digests.add(digest_of(machine))
    assert len(digests) == 1
    assert digests == {digest_of(untouched(wanted))}


def untouched(wanted):
    """The machine of the same run without a window in it."""
    window = Window(wanted, How(), skip=0, steps=1)
    engine = CompiledEngine(window.machine, 1)
    Phases(engine, wanted, window.phases)
    engine.run()
    return window.machine


def test_a_stranded_kick_needs_a_set_endpoint_that_looks_into_no_ring():
    """On 7.2 nothing else is seen; with the look there is nothing at all."""
    as_it_is, remedied = search(), search(policy='look')
    assert as_it_is['stranded'] > 0
    assert as_it_is['stranded'] + as_it_is['clean'] == as_it_is['boundaries'] == 30
    assert as_it_is['hazards'] == ['stranded kick']
    assert as_it_is['violations'] == []
    assert remedied['clean'] == remedied['boundaries'] == 30


def test_with_time_for_the_worker_no_kick_is_stranded():
    assert search(gap=1_000_000)['clean'] == 30


def test_a_kernel_that_takes_the_targets_away_first_fails_requests():
    row = search('6.1')
    assert row['failed_io'] > 0
    assert 'targets taken away before the queues are stopped' in row['hazards']
    assert search('6.12')['failed_io'] == 0


def test_pages_stay_behind_before_buffers_are_logged():
    assert search('6.12')['stale'] > 0
    assert search('7.2')['stale'] == 0


def test_a_boundary_can_be_told_once_more():
    row = search()
    cell, name = stop_flush.parsed(row['example'])
    moment, made = stop_search.replay(
        config().effective(), stop_flush.how(cell), stop_flush.SKIP, 100, name
    )
    assert made.fate.worst == 'stranded'
    lines = '\n'.join(stop_search.timeline(moment, made))
    assert 'source: VHOST_SCSI_CLEAR_ENDPOINT' in lines
    assert '... and that is the last of it' in lines


@pytest.mark.parametrize('backend', ['vhost-user-scsi', 'virtio-scsi'])
def test_other_backends_migrate_from_every_boundary_too(backend):
    wanted = config(backend=backend, kernel=stop_flush.NO_KERNEL)
    window = Window(wanted, How(), skip=100, steps=15)
    assert all(branch(window, moment, How()).fate.fates == () for moment in window.moments())


def test_nothing_that_is_there_is_missed():
    """The ablations look for sentences; a hand-over that lacks nothing has none of them."""
    wanted = config().effective()
    found = stop_search.ablate(wanted, How(gap=1_000_000), '', stop_flush.SKIP, 15)
    assert found == {'caught_by': None, 'said': None, 'moment': None, 'tried': 15}


# ------------------------------------------------------------------------------------ other orders


def test_agents_that_are_due_at_once_are_tried_in_every_order():
    """Two jobs on two vCPUs that arrive together: each may go first."""
    sections = config(load='eight').effective()
    window = Window(from_effective(sections), How(), skip=0, steps=2)
    assert len(boundaries.tied(window.begin)) == 2
    orders = [moment.order for moment in window.moments(orders=True) if moment.order]
    first, second = boundaries.tied(window.begin)
    assert sorted(orders) == [(second,), (second, first)]


# ------------------------------------------------------------------------------------------- fates


def rows(*changes):
    """Rows of requests that went well, but for the changes."""
    made = np.zeros((len(changes), record.ROW_WORDS), np.int64)
    for index, change in enumerate(changes):
        for place in range(len(record.TIMESTAMPS)):
            made[index, place] = 1000 + place
        usual = {
            'serial': index + 1, 'published': 1, 'fetched': 1, 'used': 1, 'completed': 1,
            'outcome': record.OK,
        }  # fmt: skip
        for name, value in (usual | change).items():
            made[index, COLUMN[name]] = value
    return made


UNFETCHED = dict(fetched=0, used=0, completed=0, outcome=0, t_complete=0, t_irq=0, t_used=0,
                 t_report=0, t_done=0, t_issue=0, t_fetch=0)  # fmt: skip


@pytest.mark.parametrize(
    ('change', 'found'),
    [
        ({}, ()),
        ({'fetched': 2}, ('doubled',)),
        ({'completed': 0, 't_complete': 0, 'outcome': 0}, ('lost',)),
        (UNFETCHED, ('stranded',)),
        ({'outcome': record.BAD_TARGET}, ('failed_io',)),
        ({'t_complete': 1000 + HZ + 1}, ('stalled',)),
        ({'outcome': record.BAD_TARGET, 'used': 2}, ('doubled', 'failed_io')),
    ],
)
def test_rows_tell_what_became_of_requests(change, found):
    assert fate.fate_of(rows({}, change), [], HZ, gone=5000).fates == found


def test_sentences_tell_the_rest():
    assert fate.fate_of(rows({}), ['stale page: 3 guest pages'], HZ).fates == ('stale',)
    assert fate.fate_of(rows({}), ['requirement 2.1: queue 2'], HZ).fates == ('broken',)
    assert fate.fate_of(rows({}), ['conservation: 1 requests'], HZ).fates == ('broken',)
    unfinished = fate.fate_of(rows(UNFETCHED), ['conservation: 1 requests'], HZ, gone=5000)
    assert unfinished.fates == ('stranded',)


def test_what_was_published_after_the_hand_over_is_no_stranded_kick():
    assert fate.fate_of(rows(UNFETCHED), [], HZ, gone=10).fates == ('broken', 'stranded')


def test_a_region_may_have_requests_taken_up_twice():
    twice = rows({'fetched': 2})
    assert fate.fate_of(twice, ['end to end: doubled: 2'], HZ, again=[1]).fates == ()
    assert fate.fate_of(rows({'fetched': 3}), [], HZ, again=[1]).fates == ('doubled',)


def test_stages_say_how_far_open_requests_are():
    table = rows({}, {'t_complete': 0}, {**UNFETCHED}, {**UNFETCHED})
    assert fate.stages(table) == {'kick': 2, 'irq': 1}


# ------------------------------------------------------------------------------------ command line


def test_what_cannot_be_told_is_said(capsys):
    assert stop_flush.EXPERIMENT.main(['--replay', 'drain:3']) == 2
    assert 'is not CELL:BOUNDARY' in capsys.readouterr().err
    assert stop_flush.EXPERIMENT.main(['--replay', 'drain/x/7.2/flags/0/three:3']) == 2
    assert 'no such policy, backend' in capsys.readouterr().err
    assert stop_flush.EXPERIMENT.main(['--timeline', 'x.json']) == 2
    assert 'name it with --replay' in capsys.readouterr().err


@pytest.mark.long
def test_the_quick_search_finds_what_is_known_and_nothing_else(tmp_path):
    options = stop_flush.EXPERIMENT.parser().parse_args(['--quick', '--out', str(tmp_path)])
    outcome = stop_flush.experiment(options)
    assert outcome.violations == []
    counts = {}
    for row in outcome.rows:
        counts[row['policy']] = counts.get(row['policy'], 0) + row['boundaries']
        if row['policy'] == 'look' and row['kernel'] == '7.2':
            assert row['clean'] == row['boundaries']
    assert all(count >= 2000 for count in counts.values()), counts
    assert all(row['caught_by'] for row in outcome.beside['ablations'])
    assert command.as_json(outcome, stop_flush.EXPERIMENT.guesses())
