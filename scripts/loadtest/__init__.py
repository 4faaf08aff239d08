"""Load test: client traffic in small, known amounts, every answer compared with the golden one.

with start(plan_for("MODEL", rate=50, duration_s=60)) as traffic:
    ...                                  # a rollout, for example
result = traffic.stop()                  # also after it ended by itself

Imports conf, serving.artifact and serving.triton.
"""

from scripts.loadtest.golden_requests import LoadRequest, read_requests
from scripts.loadtest.plan import LoadPlan, Result, TrafficError, plan_for
from scripts.loadtest.running import Running, start

__all__ = [
    "LoadPlan",
    "LoadRequest",
    "Result",
    "Running",
    "TrafficError",
    "plan_for",
    "read_requests",
    "start",
]
