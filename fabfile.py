"""What `fab -l` shows; see serving/fleet/cli/tasks.py, host_tasks.py and edge_tasks.py."""

from serving.fleet.cli.edge_tasks import *  # noqa: F403
from serving.fleet.cli.host_tasks import *  # noqa: F403
from serving.fleet.cli.pipes import quiet_pipes
from serving.fleet.cli.tasks import *  # noqa: F403

quiet_pipes()
