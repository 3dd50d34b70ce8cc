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
# # Anatomy of a request
#
# One 4 KiB read, first as bytes in a virtqueue, then as time on its way through the machine.
#
# The ring below has no simulator around it: its driver and its device do one step when they are
# told to. They are the same code that the simulator runs.

# %%
# %matplotlib inline
from sim import testing
from sim.analysis import plot_requests
from sim.analysis.timeline import timeline
from sim.run import run

# %% [markdown]
# ## The driver's half
#
# A virtio-scsi read is three buffers: a request header of 51 bytes that the device reads, a
# response of 108 and the data, which it writes. The film shows every byte that changes, with a
# star. Look at: the indirect table with its three entries; `desc[0]`, the one descriptor in the
# ring that points to it; and last `avail`, whose `idx` goes from 0 to 1. Before that the device
# sees nothing.

# %%
ring = testing.Ring(num=4)
ring.driver.add(out=[(0x200000, 51)], in_=[(0x200040, 108), (0x300000, 4096)])
ring.driver.kick()
ring.film()

# %% [markdown]
# `kick` said *yes*: the device has asked to be told (`avail_event` is 0, and that is what has just
# been published). In a real guest this is the write that leaves the guest, 2000 cycles or so.
#
# ## The device's half
#
# The device goes by these bytes alone. Look at: `used[0]`, the head of the chain and how much was
# written, and again the index that comes last.

# %%
chain = ring.device.fetch()
ring.device.use(chain, 108 + 4096)
ring.device.signal()
ring.driver.reap()
ring.film(first=4)

# %% [markdown]
# ## A second request, while the device is at work
#
# Before the worker sleeps it asks for a kick: `avail_event` is the index that it waits for. Awake,
# it looks at the ring again by itself and leaves `avail_event` behind. Look at: the first `kick?
# yes`, and then `kick? no`: it is at work, and the guest need not leave.

# %%
ring.device.enable_notify()
ring.driver.add(out=[(0x200000, 51)], in_=[(0x200040, 108), (0x300000, 4096)])
ring.driver.kick()
ring.device.disable_notify()
ring.device.fetch()
ring.driver.add(out=[(0x201000, 51)], in_=[(0x201040, 108), (0x301000, 4096)])
ring.driver.kick()
ring.film(first=8)

# %% [markdown]
# ## The same request in time
#
# Now the whole machine: fio at depth 1 in a guest, kernel vhost-scsi, and an Optane P4800X. Every
# request has eleven timestamps; the ten stages between them add up to its latency.

# %%
result = run(workload={'iodepth': 1, 'number_ios': 500}, target={'disk': 'optane-p4800x'})
result.requests.loc[result.requests['serial'] == 250, 't_arrive_ns':'t_complete_ns'].T

# %% [markdown]
# The figure for the slide: who has the request, and for how long. Look at: the disk is a third of
# it. Four times somebody waits for somebody else to wake up or to be told: `fetch` (the kick and
# the worker's wake-up), `issue` and `report` (LIO's two work-queue hops), `irq` (the interrupt).

# %%
plot_requests.anatomy(
    timeline(result.config, result.requests),
    serial=250,
    title='One 4 KiB read through vhost-scsi: iodepth 1, Optane P4800X',
)
