"""Guesses beside headline results: complete, right where it can be told, stale where it is so."""

import functools
import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

from experiments.command import GUESSES, experiments
from sim.config import load
from sim.errors import ConfigError
from sim.pools import Here
from sim.studies import guesses
from sim.studies.guesses import Headline

TOP = Path(__file__).resolve().parent.parent
HOP = 'lio.workqueue_hop_latency_qd1'


def script(name):
    spec = importlib.util.spec_from_file_location(name, TOP / f'scripts/{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def writer():
    sys.path.insert(0, str(TOP / 'scripts'))
    try:
        yield script('guesses')
    finally:
        sys.path.remove(str(TOP / 'scripts'))


@pytest.fixture(scope='module')
def rows():
    return guesses.read(GUESSES)


def us(report):
    return report['latency_ns']['mean'] / 1e3


SMALL = load(
    workload={'iodepth': 1, 'number_ios': 40}, target={'kind': 'constant', 'service': '10us'},
    run={'warmup': '10'},
)  # fmt: skip
LATENCY = Headline(name='latency', unit='µs', configs=(SMALL,), value=us)


@pytest.fixture
def two_guesses(monkeypatch):
    """The hop and a cost that nobody pays here, instead of all of them."""
    wanted = (HOP, 'vcpu.halt_wake_penalty_no_poll')
    of = guesses.guesses_of
    monkeypatch.setattr(guesses, 'guesses_of', lambda h: [c for c in of(h) if c.name in wanted])


@pytest.fixture
def made(two_guesses):
    return guesses.renewed({'here': [LATENCY]}, [], Here())


# ------------------------------------------------------------------------------------ the data


def test_every_headline_result_is_there_and_no_other(writer, rows):
    wanted = [(s, h.name) for s, headlines in writer.sources().items() for h in headlines]
    assert list(dict.fromkeys((row['source'], row['headline']) for row in rows)) == wanted
    assert len(set(wanted)) == len(wanted)


@pytest.mark.parametrize('experiment', experiments(), ids=lambda found: found.name)
def test_every_experiment_has_headlines_or_says_why_not(experiment):
    if isinstance(experiment.headlines, str):
        assert len(experiment.headlines) > 20
    else:
        assert experiment.shipped_headlines()


def test_what_is_listed_moves_its_result_by_more_than_a_twentieth(rows):
    for row in rows:
        ends = [abs(float(row[end])) for end in ('at_least', 'at_most') if row[end]]
        assert (max(ends) >= 5) == bool(row['cost']) if ends else not row['cost'], row


def test_the_pages_show_the_file(writer, rows):
    for name, whose in writer.PAGES.items():
        text = (TOP / name).read_text(encoding='utf-8')
        assert writer.page(text, whose, rows) == text, f'{name}: run scripts/guesses.py'


# --------------------------------------------------------------------------- what is worked out


def test_a_hop_that_is_passed_twice_moves_the_latency_by_twice_its_range(made):
    row, *others = made
    assert (row['cost'], others) == (HOP, [])
    base, cost = float(row['value']), next(c for c in guesses.guesses_of(LATENCY) if c.name == HOP)
    for end, value in (('at_least', cost.minimum), ('at_most', cost.maximum)):
        by_hand = 100 * 2 * (value - cost.value) / 2600 / base
        assert float(row[end]) == pytest.approx(by_hand, abs=0.6)


def test_a_number_of_two_runs_may_not_move_where_both_do(two_guesses):
    """What a seed is worth is a ratio of two latencies that the hop lengthens alike."""
    other = load(**{name: SMALL.effective()[name] for name in ('target',)}, run={'seed': 3},
                 workload={'iodepth': 1, 'number_ios': 40})  # fmt: skip
    ratio = Headline(
        name='r', unit='', configs=(SMALL, other), value=lambda one, two: us(one) / us(two)
    )
    assert guesses.moved([ratio], Here(), 1) == [[]]


def test_the_thread_of_user_space_is_charged_as_in_a_run():
    """Net of what its measured share contains; a change to the value it has changes nothing."""
    from sim.costs import of_config
    from sim.studies.sensitivity import table_with

    config = load(device={'driver': 'vhost-user-scsi-pci'})
    assert table_with(config, None) == of_config(config)


def test_a_stop_is_moved_by_what_control_costs(monkeypatch):
    config = load(
        workload={'iodepth': 4, 'number_ios': 8},
        target={'kind': 'lanes', 'service': '1ms', 'distribution': 'constant', 'lanes': 64},
    )
    stop = Headline(
        name='s', unit='us', configs=(config,), run=functools.partial(guesses.stopped, at=300_000),
        value=lambda report: report['clear_endpoint_ns'] / 1e3,
    )  # fmt: skip
    of = guesses.guesses_of
    assert {'control.ioctl', 'control.flush_wakeup'} <= {cost.name for cost in of(stop)}
    assert not any(cost.name.startswith('control.') for cost in of(LATENCY))
    only = [cost for cost in of(stop) if cost.name == 'control.command_free']
    monkeypatch.setattr(guesses, 'guesses_of', lambda headline: only)
    ((found,),) = guesses.moved([stop], Here(), 1)
    assert found['cost'] == 'control.command_free'
    assert found['at_most'] > 0.05


# ----------------------------------------------------------------------------------- staleness


def test_what_holds_is_not_tried_again_and_what_is_stale_is(made, two_guesses, monkeypatch):
    tried = []
    moved = guesses.moved
    monkeypatch.setattr(guesses, 'moved', lambda h, pool: tried.append(len(h)) or moved(h, pool))
    assert guesses.renewed({'here': [LATENCY]}, made, Here()) == made
    old = [row | {'value': '17'} for row in made]
    assert guesses.renewed({'here': [LATENCY]}, old, Here()) == made
    assert tried == [0, 1]


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({}, ''),
        ({'value': '17'}, 'the model now says'),
        ({'ranges': '00000000'}, 'other ranges'),
        (None, 'nobody has tried'),
    ],
)
def test_stale_rows_say_so(made, change, said):
    old = [] if change is None else [row | change for row in made]
    (entry,) = guesses.told('here', [LATENCY], old)
    assert said in (entry['stale'] or '')
    assert bool(entry['stale']) == bool(said)
    assert ('STALE' in guesses.printed([entry])) == bool(said)


def test_an_experiment_prints_and_answers_with_its_guesses(tmp_path, capsys, monkeypatch):
    backends = importlib.import_module('experiments.backends')
    small = {'REQUESTS_QUICK': 400, 'DEPTHS': (1,), 'SWEPT': ('10 µs',)}
    for name, value in small.items():
        monkeypatch.setattr(backends, name, value)
    where = ['--quick', '--jobs', '1', '--out', str(tmp_path)]
    backends.EXPERIMENT.main([*where, '--json'])
    answer = json.loads(capsys.readouterr().out)
    names = [h.name for h in backends.EXPERIMENT.shipped_headlines()]
    assert [entry['headline'] for entry in answer['guesses']] == names
    assert all(entry['guesses'] for entry in answer['guesses'])
    assert all(entry['stale'] for entry in answer['guesses'])  # 400 requests are other numbers
    backends.EXPERIMENT.main(where)
    printed = capsys.readouterr().out
    assert re.search(r'kernel vhost-scsi less SPDK.*STALE', printed)
    assert HOP in printed


def test_a_file_that_is_something_else_is_refused(tmp_path):
    (tmp_path / 'g.csv').write_text('a,b\n1,2\n')
    with pytest.raises(ConfigError, match='its columns'):
        guesses.read(tmp_path / 'g.csv')
    assert guesses.read(tmp_path / 'none.csv') == []
