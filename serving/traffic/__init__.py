"""Client traffic in small, known amounts, and whether every answer was the right one.

with start(plan_for("flights", rate=50, duration_s=60)) as traffic:
    ...                                  # a rollout, for example
result = traffic.stop()                  # also after it ended by itself
"""

from serving.traffic.golden import Example, GoldenError, read_examples
from serving.traffic.plan import Plan, Result, TrafficError, plan_for
from serving.traffic.running import Running, start

__all__ = [
    "Example",
    "GoldenError",
    "Plan",
    "Result",
    "Running",
    "TrafficError",
    "plan_for",
    "read_examples",
    "start",
]
