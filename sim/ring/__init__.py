"""The parts of a virtqueue behind sim.vring: split and packed, driver side and device side."""
