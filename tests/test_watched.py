"""What the notebooks draw: the life of one request, and requests around a stop or a migration."""

import matplotlib
import pytest

from sim.analysis import plot_measured, plot_requests, style
from sim.analysis.timeline import timeline
from sim.config import load
from sim.control.stopping import StopPlan
from sim.exports.watched import watched_migration, watched_stop
from sim.run import run

DISK = {'kind': 'exponential', 'service': '600us'}


def test_the_bars_of_a_request_are_its_stages_and_add_up_to_its_latency():
    result = run(workload={'number_ios': 50}, target={'kind': 'constant', 'service': '10us'})
    figure = plot_requests.anatomy(timeline(result.config, result.requests), 20, 'title')
    bars = [bar for bar in figure.axes[0].patches if bar.get_height() == pytest.approx(0.8)]
    row = result.requests.set_index('serial').loc[20]
    assert sum(bar.get_width() for bar in bars) == pytest.approx(row['latency_ns'] / 1e3)
    colours = {matplotlib.colors.to_hex(bar.get_facecolor()) for bar in bars}
    assert colours <= {colour.lower() for colour in style.STAGE_COLOURS.values()}
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert 'fetch:  queue 0: available' in labels


def test_a_stop_is_drawn_with_every_request_that_was_in_flight():
    config = load(workload={'iodepth': 8, 'number_ios': 200}, target=DISK)
    seen = watched_stop(config, StopPlan(at=4_000_000))
    assert seen.report['outcome'] == 'ok'
    figure = plot_requests.around_a_stop(seen.requests, seen.actions, 'title')
    above, below = figure.axes
    begin = next(action.start for action in seen.actions if action.name == 'stopped')
    open_then = (seen.requests['t_arrive_ns'] < begin) & (seen.requests['t_complete_ns'] > begin)
    assert open_then.sum() == 8
    assert below.get_ylim()[0] >= 8
    assert any('CLEAR_ENDPOINT' in text.get_text() for text in above.texts)


def test_a_migration_is_drawn_from_the_pause_to_the_destination():
    config = load(
        workload={'iodepth': 4, 'number_ios': 3000},
        target=DISK,
        device={'migratable': True},
        migration={'at': '5ms', 'ram': '4m', 'dirty_rate': '1m'},
        host={'kernel': '7.2'},
    )
    seen = watched_migration(config)
    assert seen.report['outcome'] == 'ok'
    figure = plot_requests.around_a_stop(seen.requests, seen.actions, 'title')
    words = ' '.join(text.get_text() for text in figure.axes[0].texts)
    assert 'start on the destination' in words


def test_an_end_that_is_not_bounded_is_an_arrow():
    one = {'parameter': 'target.service', 'value': 5e3, 'unit': 'ns', 'interval': [None, 9e3],
           'range': [1e3, 1e5], 'bounded': False}  # fmt: skip
    figure = plot_measured.what_data_tell({'x': {'fitted': [one]}}, {}, 'title')
    markers = [line.get_marker() for line in figure.axes[0].lines]
    assert '<' in markers
    assert '>' not in markers
    assert figure.axes[0].texts[0].get_text() == 'not bounded'
