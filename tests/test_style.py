"""The style of figures: one sheet, colours that colour-blind readers can tell apart, intervals."""

import itertools

import matplotlib
import numpy as np
import pandas as pd
import pytest

from sim.analysis import plot, style
from sim.record import STAGES

# Machado, Oliveira and Fernandes, A Physiologically-based Model for Simulation of Color Vision
# Deficiency, 2009: severity 1.0, in linear RGB.
SEEN = {
    'all colours': np.eye(3),
    'protanopia': [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    'deuteranopia': [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    'tritanopia': [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
eyes = pytest.mark.parametrize('eye', SEEN)


def lab(colour, eye):
    """CIE L*a*b* (D65) of a colour as it is seen."""
    rgb = np.array(matplotlib.colors.to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    x, y, z = XYZ @ np.clip(np.array(SEEN[eye]) @ linear, 0, 1) / XYZ.sum(axis=1)
    f = [t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (x, y, z)]
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def apart(one, other, eye):
    """How different two colours look; 2.3 is just noticed."""
    return float(np.linalg.norm(lab(one, eye) - lab(other, eye)))


@eyes
def test_no_two_stages_look_the_same(eye):
    pairs = itertools.combinations(style.STAGE_COLOURS.values(), 2)
    assert min(apart(one, other, eye) for one, other in pairs) > 15


@eyes
def test_no_two_lines_of_a_figure_look_the_same(eye):
    pairs = itertools.combinations(style.COLOURS, 2)
    assert min(apart(one, other, eye) for one, other in pairs) > 9


def test_the_sheet_and_the_code_have_the_same_colours():
    cycle = style.sheet()['axes.prop_cycle'].by_key()['color']
    assert [f'#{colour.lstrip("#")}' for colour in cycle] == list(style.COLOURS)


def stacks():
    row = {'label': 'x', 'latency': 10.0, 'latency_low': 9.0, 'latency_high': 12.0}
    return pd.DataFrame([row | dict.fromkeys(STAGES, 1.0)])


def test_figures_have_the_style_whatever_the_caller_has_set():
    with matplotlib.rc_context({'axes.spines.top': True, 'legend.frameon': True}):
        figure = plot.stage_stack(stacks(), 'title')
        assert matplotlib.rcParams['legend.frameon']  # and the caller keeps what is his
    assert not figure.axes[0].spines['top'].get_visible()
    assert not figure.legends[0].get_frame_on()


def test_a_stage_has_its_own_colour_in_every_bar():
    left = plot.stage_stack(stacks(), 'title').axes[0]
    bars = [matplotlib.colors.to_hex(bar.get_facecolor()) for bar in left.patches[: len(STAGES)]]
    assert bars == [style.STAGE_COLOURS[stage].lower() for stage in STAGES]


def test_intervals_are_distances_and_none_where_unknown():
    table = stacks()
    assert style.intervals(table, 'latency').tolist() == [[1.0], [2.0]]
    assert style.intervals(table.assign(latency_low=None), 'latency').tolist() == [[0.0], [2.0]]
    assert style.intervals(table, 'label') is None


def test_the_stages_of_a_report_add_up_to_its_latency():
    from sim.run import run

    report = run(workload={'number_ios': 300}).report
    (row,) = plot.stage_table({'a run': report}).to_dict('records')
    assert row['label'] == 'a run'
    assert sum(row[stage] for stage in STAGES) == pytest.approx(row['latency'])
    assert row['latency'] == pytest.approx(report['latency_ns']['mean'] / 1e3)


@eyes
@pytest.mark.parametrize('name', ['fates', 'phases'])
def test_other_colours_that_mean_something_can_be_told_apart(eye, name):
    """Fates of a hand-over, phases of a downtime: what may touch in a bar."""
    from sim.analysis import plot_fates, plot_migration

    if name == 'fates':
        pairs = itertools.combinations(plot_fates.FATE_COLOURS.values(), 2)
    else:
        pairs = itertools.pairwise(plot_migration.PALETTE)
    assert min(apart(one, other, eye) for one, other in pairs) > 9
