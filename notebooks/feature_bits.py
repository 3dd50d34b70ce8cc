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
# # Feature bits
#
# What do RING_PACKED, INDIRECT_DESC, EVENT_IDX and IN_ORDER do to a ring, and what are they worth?

# %%
# %matplotlib inline
from experiments import feature_bits
from sim import testing
from sim.__main__ import main

# %% [markdown]
# ## Who offers what
#
# A bit counts if the backend has it, QEMU offers it, and the guest's driver acks it. Look at:
# kernel vhost-scsi has neither packed rings nor IN_ORDER. QEMU masks the second; the first it
# offers all the same, and the device does not start.

# %%
main(['features', '--device', 'vhost-scsi-pci,packed=on,in_order=on'])

# %% [markdown]
# ## One request in each kind of ring
#
# A split ring without indirect tables takes three descriptors, an entry of the available ring, an
# entry of the used ring, and two indices.

# %%
split = testing.Ring(num=8, features=testing.VERSION_1)
split.driver.add(out=[(0x200000, 51)], in_=[(0x200040, 108), (0x300000, 4096)])
split.device.use(split.device.fetch(), 4204)
split.film(first=2)

# %% [markdown]
# In a packed ring the descriptors themselves change hands. Look at: the device answers by writing
# over the slot that it has read, so there are no indices and no second array, and one cache line
# goes to and fro where the split ring has three.

# %%
packed = testing.Ring(num=8, packed=True, features=testing.VERSION_1)
packed.driver.add(out=[(0x200000, 51)], in_=[(0x200040, 108), (0x300000, 4096)])
packed.device.use(packed.device.fetch(), 4204)
packed.film(first=2)

# %% [markdown]
# ## What they are worth
#
# The experiment runs pairs: the same requests with the same service times, with one bit the other
# way. What differs is the bit's doing, and nothing else. (`python -m experiments.feature_bits` runs
# all sixteen combinations.)

# %%
outcome = feature_bits.one_bit_alone('--quick', '--out', 'results/runs/notebooks/feature_bits')

# %% [markdown]
# The figure for the slide. Each column is one bit against QEMU's default, each row a cost; bars are
# 95 % intervals over the seeds. Look at:
#
# * *packed on*: a quarter of the cache-line transfers less, a few percent of the worker's time, and
#   nothing that a user would notice in the latency: the ring is a small part of a SCSI request.
# * *EVENT_IDX off*: cheaper at depth 1, where there is no kick to save; dearer for a busy guest.
# * *INDIRECT off*: the ring holds a third of the requests; in batches of 32 the guest pays.
# * *IN_ORDER on*: free where the disk finishes in order, and ruinous where it does not (the last
#   two rows are logarithmic): the quick wait for the slow.

# %%
feature_bits.one_bit(outcome)
