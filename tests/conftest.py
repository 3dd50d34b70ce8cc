"""What all tests share: hypothesis profiles and a matplotlib that needs no screen."""

import os

from hypothesis import HealthCheck, settings

os.environ.setdefault("MPLBACKEND", "Agg")

# The first example of a test may compile kernels, so no profile has a deadline.
COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("smoke", derandomize=True, max_examples=10, **COMMON)
settings.register_profile("ci", derandomize=True, max_examples=50, **COMMON)
settings.register_profile("nightly", max_examples=2000, print_blob=True, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
