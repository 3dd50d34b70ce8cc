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
# # Your own fio data
#
# fio's JSON in, the same jobs simulated, both drawn: how far off is the model on your machine, and
# what does it predict that it has not seen?

# %%
# %matplotlib inline
from pathlib import Path

import pandas as pd

from sim.analysis import plot
from sim.config import load
from sim.exports.fio import write_json
from sim.formats.fio_measured import distribution, read_measured
from sim.run import run
from sim.studies.calibrate import calibrate, preset_texts, task_of
from sim.studies.calibrating import printed, write_presets

folder = Path('results/runs/notebooks/fio')
folder.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## The files
#
# Run this in a guest of yours, at two depths, and put the files' names in the next cell:
#
#     fio --name=d1 --rw=randread --bs=4k --iodepth=1 --ioengine=libaio --direct=1 --runtime=60 \
#         --time_based --filename=/dev/sdb --output-format=json+ --output=d1.json
#
# Until then a stand-in: a *simulated* machine whose wake-ups are slower than the model below
# believes, under another seed.

# %%
shallow, deep = folder / 'd1.json', folder / 'd32.json'

strange = {
    'target': {'kind': 'exponential', 'service': '100us', 'lanes': 16},
    'costs': {'vhost.worker_wakeup_latency_shallow_idle': '6us'},
    'run': {'seed': 77},
}
write_json(run(workload={'iodepth': 1, 'number_ios': 6000}, **strange), shallow, bins=True)
write_json(run(workload={'iodepth': 32, 'number_ios': 20_000}, **strange), deep, bins=True)

# %% [markdown]
# What fio has measured; latencies are of its `lat`, in ns, `sigma` is the relative error of a
# number.

# %%
measured = read_measured(shallow)
pd.DataFrame(measured.observations)

# %% [markdown]
# ## Fit on one, predict the other
#
# The disk's service time is fitted to depth 1 alone. (docs/howto/calibrate.md tells what else may
# move, and the notebook *calibration* what data can tell.)

# %%
machine = ['target.kind=exponential', 'target.lanes=16']
task = task_of([shallow], ['target.service=20us..400us'], sets=machine)
fitted = calibrate(task)
print(printed(fitted))

# %% [markdown]
# The fitted disk is a preset like any other. With it both jobs are simulated, the deep one without
# having been looked at.

# %%
disk = write_presets(folder / 'mine.toml', preset_texts(task, fitted))
for depth, file in ((1, shallow), (32, deep)):
    jobs = list(read_measured(file).jobs)
    config = load(job=jobs, workload={'number_ios': 20_000}, target={'disk': disk['target.disk']})
    write_json(run(config), folder / f'model-{depth}.json', bins=True)

# %% [markdown]
# The figure for the slide. Full: what was measured; dashed: the model, calibrated at depth 1. Look
# at: at depth 1 the two agree, because they were made to: the fit has put the slower wake-ups into
# the disk. At depth 32 the dashed line is a *prediction*, and there the mistake shows: a busy
# worker need not be woken, and the disk that was made slower for it is too slow. Believe the second
# error.

# %%
plot.latency_tails(
    {
        'iodepth 1, measured': distribution(shallow),
        'iodepth 1, calibrated on it': distribution(folder / 'model-1.json'),
        'iodepth 32, measured': distribution(deep),
        'iodepth 32, predicted': distribution(folder / 'model-32.json'),
    },
    'fio in a guest and its model (stand-in data)',
    axis="fio's clat (µs)",
)
