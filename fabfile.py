"""What `fab -l` shows; see serving/fleet/cli/tasks.py and host_tasks.py."""

from serving.fleet.cli.host_tasks import bootstrap, pin, wheelhouse  # noqa: F401
from serving.fleet.cli.tasks import deploy, heal, lock, plan, rollback, status, unlock  # noqa: F401
