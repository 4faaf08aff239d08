"""Settings of all tests: how long an example takes is the machine's load, and no fault."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "lockgate", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)  # fmt: skip
settings.load_profile("lockgate")
