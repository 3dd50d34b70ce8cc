"""experiments/incidents.py: known incidents are seen, and go away with their mechanism."""

import json

import pytest

from experiments import command, incidents
from sim.vhost.end import BackendEnd

NAMES = [scenario.name for scenario in incidents.scenarios()]


@pytest.fixture(scope='module')
def outcome(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp('incidents'))
    options = incidents.EXPERIMENT.parser().parse_args(['--json', '--jobs', '1', '--out', folder])
    return incidents.experiment(options)


@pytest.mark.parametrize('name', NAMES)
def test_what_is_expected_is_seen_and_goes_away_with_its_mechanism(outcome, name):
    (row,) = (row for row in outcome.rows if row['scenario'] == name)
    assert row['agrees'], f'expected {row["expected"]}, seen {row["seen"]}'
    assert row['goes'], f'{row["without"]}: {row["without_expected"]}, seen {row["without_seen"]}'


def test_the_table_fits_json_and_nothing_is_wrong(outcome):
    assert outcome.violations == []
    assert json.loads(json.dumps(outcome.rows)) == outcome.rows
    assert len(outcome.rows) == len(set(NAMES)) >= 16


def test_an_expectation_and_its_absence_exclude_each_other():
    """Else a counterpart would show nothing."""
    for scenario in incidents.scenarios():
        about = [{c.split(sign)[0] for c in cs for sign in '=<>~' if sign in c}
                 for cs in (scenario.expected, scenario.gone)]  # fmt: skip
        assert about[0] & about[1], scenario.name
        assert set(scenario.expected) != set(scenario.gone)
        assert all((scenario.incident, scenario.source, scenario.avoid))


def played(name, other=False):
    options = incidents.EXPERIMENT.parser().parse_args(['--json'])
    scenario = next(one for one in incidents.scenarios() if one.name == name)
    config = command.config(options, under=scenario.sections(other))
    return incidents.play(name, config.effective(), other)


def test_index_0_is_lost_by_the_check_of_the_region_and_by_nothing_else(monkeypatch):
    monkeypatch.setattr(BackendEnd, '_check_inflights', lambda self, index, used: None)
    assert played("SPDK loses the request at index 0")['outcome'] == 'ok'


def test_a_scenario_that_does_not_agree_is_the_exit_code(tmp_path, capsys, monkeypatch):
    (first, *_) = incidents.scenarios()
    wrong = {**vars(first), 'expected': ('outcome=ok',)}
    monkeypatch.setattr(incidents, 'scenarios', lambda: [incidents.Scenario(**wrong)])
    arguments = ['--quick', '--jobs', '1', '--out', str(tmp_path)]
    assert incidents.EXPERIMENT.main(arguments) == 1
    answer = capsys.readouterr().out
    assert 'NOT AS EXPECTED' in answer
    assert f'violation: {first.name}: expected outcome=ok, seen outcome hung' in answer


@pytest.mark.parametrize(
    ('condition', 'true'),
    [
        ('a=1', True),
        ('a=2', False),
        ('a>0.5', True),
        ('a<1', False),
        ('b~ong', True),
        ('c>0', False),
    ],
)
def test_conditions(condition, true):
    assert incidents.holds(condition, {'a': 1, 'b': 'long', 'c': None}) == true
