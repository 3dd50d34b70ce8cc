"""Control actions: what SimPy processes do to a running machine."""
