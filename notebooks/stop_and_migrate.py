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
# # Stop and migrate
#
# What becomes of the requests in flight when the VM must stop? Kernel vhost-scsi cannot hand them
# over, so QEMU's stop waits: VHOST_SCSI_CLEAR_ENDPOINT returns when the last of them is done.

# %%
# %matplotlib inline
import pandas as pd

from sim.analysis import plot_requests
from sim.config import load
from sim.control.stop_policy import POLICIES
from sim.control.stopping import StopPlan
from sim.exports.watched import watched_migration, watched_stop

disk = {'kind': 'exponential', 'service': '600us'}
config = load(workload={'iodepth': 16, 'number_ios': 400}, target=disk)

# %% [markdown]
# ## A stop, 4 ms into the run
#
# Every nanosecond between the pause of the vCPUs and their resumption is charged to one phase.
# Look at: `drain` is the disk's doing, `endpoint` is the time of the two ioctls themselves, out
# of the target and back (their costs are the rows control.* of the preset, and guesses).

# %%
seen = watched_stop(config, StopPlan(at=4_000_000))
pd.Series(seen.report['phases_ns'], name='ns').to_frame()

# %% [markdown]
# A line for each request, in the colours of its stages. Look at: nothing is lost. What was in
# flight is finished by the disk (dark) while the VM stands still, waits in the used ring (pink:
# nobody is there to see it), and is completed when the vCPUs go on.

# %%
plot_requests.around_a_stop(
    seen.requests, seen.actions, 'QEMU stops the VM: 16 reads in flight, a disk of 600 µs'
)

# %% [markdown]
# ## The same stop without the drain
#
# A policy that leaves out the wait is quicker, and wrong. Look at: what the checkers say.

# %%
hasty = watched_stop(config, StopPlan(at=4_000_000, policy=POLICIES['no-flush']))
hasty.report['downtime_ns'] / seen.report['downtime_ns'], hasty.report['violations'][:2]

# %% [markdown]
# ## A migration
#
# Now the VM goes to another host: RAM is copied while it runs, then it stops as above, the rest
# follows, and the destination starts the device with the ring indices that came in the stream.
# What vhost writes into guest memory meanwhile must be logged, or its page stays behind.

# %%
moving = {
    'workload': {'iodepth': 16, 'number_ios': 60_000},
    'target': disk,
    'device': {'migratable': True},
    'migration': {'at': '10ms', 'ram': '128m', 'dirty_rate': '100m'},
}
moved = watched_migration(load(**moving, host={'kernel': '7.2'}))
moved.report['outcome'], moved.report['stale_pages'], moved.report['violations']

# %% [markdown]
# On Linux 7.2 nothing stays behind here. Up to then kernel vhost-scsi logs the used ring and not
# the data that it reads from the disk. Look at: what the guest finds on the destination.

# %%
older = watched_migration(load(**moving, host={'kernel': '6.12'}))
older.report['stale_pages'], older.report['violations']

# %%
pd.Series(moved.report['phases_ns'], name='ns').to_frame()

# %% [markdown]
# The figure for the slide. Look at: the drain is over within two milliseconds, and what takes long
# is the rest of RAM (`ram_rest`), which is as much as QEMU's `downtime-limit` lets stay. The
# requests that were in flight when the source stopped are completed by the guest on the
# destination, out of a used ring that came with the last pages.

# %%
plot_requests.around_a_stop(
    moved.requests, moved.actions, 'Live migration: 16 reads in flight, a disk of 600 µs'
)
