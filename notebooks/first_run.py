# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # First run
#
# One fio job in a guest, one virtqueue, one vhost worker, one disk. What comes back is a table with
# a row per request: eleven times of its life, from its arrival to its completion.

# %%
# %matplotlib inline
import pandas as pd

from sim.analysis import plot
from sim.run import run

disk = {'kind': 'exponential', 'service': '60us', 'lanes': 32}
result = run(workload={'iodepth': 8, 'number_ios': 5000}, target=disk)
result.requests.head()

# %% [markdown]
# The ten stages between the eleven times add up to the latency, request by request. `done` is the
# disk; everything else is the path to it and back.

# %%
stages = result.report['stages_ns']
pd.Series(stages, name='mean time (ns)').to_frame()

# %% [markdown]
# Every metric of the run has a 95 % interval. What rests on too few requests is not printed.

# %%
result.summary.head(20)

# %% [markdown]
# Deeper queues, under the same random numbers. The figure for the slide, absolute on the left and
# without the disk on the right. Look at: the path's share changes, because a busy worker needs no
# kicks (`kick`, `fetch`) and completes in batches (`used`, `irq`); black: 95 % intervals.

# %%
runs = {
    f'iodepth {depth}': run(workload={'iodepth': depth, 'number_ios': 5000}, target=disk).report
    for depth in (1, 4, 16, 64)
}
title = 'randread 4k, vhost-scsi, disk 60 µs in 32 lanes: where the time goes'
plot.stage_stack(plot.stage_table(runs), title)
