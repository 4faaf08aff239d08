"""Every task that `fab -l` lists: a fabfile.py imports *."""

from serving.fleet.cli import (
    capacity_tasks,
    edge_tasks,
    host_tasks,
    order_tasks,
    placement_tasks,
    rollout_tasks,
    scale_tasks,
)
from serving.fleet.cli.capacity_tasks import *  # noqa: F403
from serving.fleet.cli.edge_tasks import *  # noqa: F403
from serving.fleet.cli.host_tasks import *  # noqa: F403
from serving.fleet.cli.order_tasks import *  # noqa: F403
from serving.fleet.cli.pipes import quiet_pipes
from serving.fleet.cli.placement_tasks import *  # noqa: F403
from serving.fleet.cli.rollout_tasks import *  # noqa: F403
from serving.fleet.cli.scale_tasks import *  # noqa: F403

__all__ = [
    *capacity_tasks.__all__,
    *edge_tasks.__all__,
    *host_tasks.__all__,
    *order_tasks.__all__,
    *placement_tasks.__all__,
    *rollout_tasks.__all__,
    *scale_tasks.__all__,
]

quiet_pipes()
