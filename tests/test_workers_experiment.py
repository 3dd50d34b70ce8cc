"""One worker against one per virtqueue: what the published series show, and why."""

import dataclasses
import json

import pytest

from experiments import workers
from sim import costs
from sim.config import load
from sim.run import run


def iops(series, kind, jobs, requests=4000, **free):
    """IOPS of a point; `free`: costs that are something else than they are."""
    sets = workers.point_sets(series, kind, jobs, requests)
    config = load(**workers.target().config, sets=sets)
    table = dataclasses.replace(costs.of_config(config), **free)
    return run(config, costs_override=table).report['iops']


def two_jobs(series, **free):
    """How many times what two workers do one worker does, with two jobs."""
    return iops(series, 'single', 2, **free) / iops(series, 'per_vq', 2, **free)


def test_unbatched_two_jobs_do_better_with_one_worker():
    assert two_jobs('A') > 1.2


def test_batched_they_do_not():
    assert two_jobs('D') < 1


@pytest.mark.parametrize(
    'free',
    [
        {'kick_exit': 0, 'kick_signal': 0, 'kick_wakeup': 0, 'kick_return': 0},
        {'worker_wake': 0, 'worker_wake_deep': 0},
    ],
    ids=['a kick costs nothing, so none is saved', 'a worker is awake at once, so none pile up'],
)
def test_without_its_mechanism_the_inversion_is_gone(free):
    known = {field.name for field in dataclasses.fields(costs.Costs)}
    assert two_jobs('A', **{name: value for name, value in free.items() if name in known}) < 1.05


def test_every_fitted_point_is_met_and_the_others_are_near():
    target, published = workers.target(), workers.published()
    fitted = {p for p, used in zip(published, target.calibrates, strict=True) if used}
    assert len(target.parameters) == 3
    errors = {point: abs(iops(*point) / known - 1) for point, known in published.items()}
    assert max(errors[point] for point in fitted) < 0.03
    for series, acceptable in (('A', 0.08), ('D', 0.15)):
        mine = [e for point, e in errors.items() if point[0] == series and point not in fitted]
        assert sum(mine) / len(mine) < acceptable


def test_the_experiment_writes_both_series_beside_each_other(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(workers, 'JOBS', (1, 2))
    monkeypatch.setattr(workers, 'REQUESTS_QUICK', 500)
    arguments = ['--quick', '--json', '--out', str(tmp_path), '--seed', '3']
    assert workers.EXPERIMENT.main(arguments) == 0
    outcome = json.loads(capsys.readouterr().out)
    rows = {(row['series'], row['workers'], row['fio_jobs']): row for row in outcome['rows']}
    assert len(rows) == 8
    assert outcome['seed'] == 3
    assert rows['A', 'single', 2]['published_iops'] == 492_000
    assert all(row['simulated_iops'] > 0 for row in rows.values())
    assert (tmp_path / 'workers.csv').is_file()
    assert (tmp_path / 'workers.png').is_file()
