# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Calibration
#
# `sim calibrate` fits parameters to fio's JSON and says how well they are known. Here the truth is
# known, because the "measured" machine is itself simulated: what does which measurement tell?

# %%
# %matplotlib inline
from pathlib import Path

from sim.analysis import plot_measured
from sim.exports.fio import write_json
from sim.run import run
from sim.studies.calibrate import calibrate, task_of
from sim.studies.calibrating import printed

folder = Path('results/runs/notebooks/calibration')
folder.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## A disk with two times
#
# It serves 32 commands at once, 61 µs each, behind something that lets one through every 4 µs. fio
# runs at depth 1 and at depth 32.

# %%
truth = {'target.service': 61_000, 'target.serial': 4000}
disk = {'kind': 'lanes', 'distribution': 'constant', 'service': '61us', 'serial': '4us'}
for depth in (1, 32):
    made = run(workload={'iodepth': depth, 'number_ios': 2000}, target=disk, run={'seed': 77})
    write_json(made, folder / f'd{depth}.json', bins=True)

# %% [markdown]
# ## Two calibrations
#
# By depth 1 alone, and by both depths. A parameter's interval is its profile: it is held somewhere,
# everything else is fitted again, and the fit must stay as good.

# %%
data = {'depth 1 alone': ['d1.json'], 'depths 1 and 32': ['d1.json', 'd32.json']}
moved = ['target.service=20us..200us', 'target.serial=1us..20us']
how = {
    'sets': ['target.kind=lanes', 'target.distribution=constant'],
    'metrics': ['iops', 'p50'],
    'requests': 300,
}
fits = {
    name: calibrate(task_of([folder / file for file in files], moved, **how))
    for name, files in data.items()
}

# %% [markdown]
# Look at: one depth is fitted without any error, and that means nothing. The second line says why.

# %%
print(printed(fits['depth 1 alone']))

# %%
print(printed(fits['depths 1 and 32']))

# %% [markdown]
# The figure for the slide; the dashed line is the truth. Look at: depth 1 knows the sum of the two
# times, and so of each only that it is not more than that. Depth 32 knows the bottleneck. The two
# ends together pin down both. The same holds for costs of the path: the exit of a kick and the
# injection of an interrupt are each paid once per request at depth 1, and no fio run at that depth
# can part them.

# %%
plot_measured.what_data_tell(fits, truth, 'What fio at one depth, and at two, tells about a disk')
